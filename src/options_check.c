/* SPDX-License-Identifier: MIT */
/*
 * Checks of options against the machine: before anything runs, so that what is
 * wrong is one line from `extmem run` and not a dead program.
 */
#include "options_impl.h"

#include "extmem/policy.h"
#include "policy/registry.h"
#include "store/store.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What eviction policies and prefetchers have in common, so that one code checks both. */
struct plugin_kind {
	const char *option, *symbol;
	size_t size_min; /* up to the last mandatory callback */
	const char *(*name)(unsigned i);
};

#define END_OF(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

static const struct plugin_kind kind_policy = {
	"--policy", "extmem_policy", END_OF(struct extmem_policy_ops, evict), em_policy_name};
static const struct plugin_kind kind_prefetch = {
	"--prefetch", "extmem_prefetch", END_OF(struct extmem_prefetch_ops, fault),
	em_prefetch_name};

/* The two ops structs begin alike. */
struct plugin_head {
	size_t size;
	uint32_t abi;
	const char *name, *description;
	int (*init)(const struct extmem_policy_host *host, const char *args, void **state,
		    char *err, size_t err_len);
	void (*fini)(void *state);
};
_Static_assert(offsetof(struct plugin_head, fini) == offsetof(struct extmem_policy_ops, fini) &&
		       offsetof(struct plugin_head, fini) ==
			       offsetof(struct extmem_prefetch_ops, fini),
	       "the heads of the ops structs differ");

static int fail_unknown(const struct plugin_kind *k, const char *name, char *err, size_t err_len)
{
	char known[256] = "";
	const char *one;
	size_t n;

	for (unsigned i = 0; (one = k->name(i)); i++) {
		n = strlen(known);
		snprintf(known + n, sizeof(known) - n, "%s%s", i ? ", " : "", one);
	}
	return em_options_fail(err, err_len,
			       "%s %.200s: not known; choose one of %s, or give the path of a .so",
			       k->option, name, known);
}

static bool has_mandatory(const struct plugin_kind *k, const struct plugin_head *ops)
{
	if (!ops->init)
		return false;
	if (k == &kind_policy) {
		const struct extmem_policy_ops *p = (const void *)ops;

		return p->events && p->evict;
	}
	return ((const struct extmem_prefetch_ops *)(const void *)ops)->fault;
}

/* Loads the .so and finds its ops.  It stays loaded: the caller is about to exec. */
static int load(const struct plugin_kind *k, const char *path, const struct plugin_head **out,
		char *err, size_t err_len)
{
	const struct plugin_head *ops;
	char file[4096 + 2];
	void *dl;

	/* Without a slash dlopen would search the library path. */
	snprintf(file, sizeof(file), "%s%s", strchr(path, '/') ? "" : "./", path);
	dl = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!dl)
		return em_options_fail(err, err_len,
				       "%s %.200s: cannot be loaded: %.400s; give the path of a plug-in",
				       k->option, path, dlerror());
	ops = dlsym(dl, k->symbol);
	if (!ops)
		return em_options_fail(err, err_len,
				       "%s %.200s: does not define the symbol %s; see extmem/policy.h",
				       k->option, path, k->symbol);
	if (ops->size < k->size_min || ops->abi != EXTMEM_POLICY_ABI || !has_mandatory(k, ops))
		return em_options_fail(err, err_len,
				       "%s %.200s: made for another version of extmem (ABI %u, size "
				       "%zu) or incomplete; build it against this extmem/policy.h",
				       k->option, path, ops->abi, ops->size);
	*out = ops;
	return 0;
}

static int find(const struct plugin_kind *k, const char *name, const struct plugin_head **out,
		char *err, size_t err_len)
{
	const void *ops;

	if (em_options_is_path(name))
		return load(k, name, out, err, err_len);
	ops = k == &kind_policy ? (const void *)em_policy_find(name)
				: (const void *)em_prefetch_find(name);
	*out = ops;
	return ops ? 0 : fail_unknown(k, name, err, err_len);
}

/* ---- the make-believe engine -------------------------------------------------------- */

static uint64_t fake_budget;

static void *fake_alloc(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static uint64_t fake_budget_pages(void)
{
	return fake_budget;
}

static uint64_t fake_resident_pages(void)
{
	return 0;
}

static uint8_t fake_tag_get(extmem_page_t page)
{
	(void)page;
	return 0;
}

static int fake_tag_set(extmem_page_t page, uint8_t tag)
{
	(void)page;
	(void)tag;
	return -ENOENT;
}

static int fake_is(extmem_page_t page)
{
	(void)page;
	return 0;
}

static const struct extmem_policy_host fake_host = {
	.size = sizeof(fake_host),
	.alloc = fake_alloc,
	.budget_pages = fake_budget_pages,
	.resident_pages = fake_resident_pages,
	.tag_get = fake_tag_get,
	.tag_set = fake_tag_set,
	.is_resident = fake_is,
	.is_clean = fake_is,
};

static int try_one(const struct plugin_kind *k, const char *name, const char *args, char *err,
		   size_t err_len)
{
	const struct plugin_head *ops;
	char why[256] = "";
	void *state = NULL;
	int rc = find(k, name, &ops, err, err_len);

	if (rc)
		return rc;
	rc = ops->init(&fake_host, args, &state, why, sizeof(why));
	why[sizeof(why) - 1] = '\0';
	if (rc)
		return em_options_fail(err, err_len, "%s %.200s%s%.200s: %s; see its documentation",
				       k->option, name, *args ? "," : "", args,
				       *why ? why : strerror(-rc));
	if (ops->fini)
		ops->fini(state);
	return 0;
}

int em_options_try_plugins(const struct em_options *o, char *err, size_t err_len)
{
	fake_budget = o->dram_bytes >> EXTMEM_PAGE_SHIFT;
	if (try_one(&kind_policy, o->policy, o->policy_args, err, err_len))
		return -EINVAL;
	return try_one(&kind_prefetch, o->prefetch, o->prefetch_args, err, err_len);
}

/* ---- the checks ------------------------------------------------------------------------ */

int em_options_check_budget(const struct em_options *o, char *err, size_t err_len)
{
	if (o->dram_bytes >= EM_DRAM_MIN_BYTES)
		return 0;
	return em_options_fail(err, err_len,
			       "budget of %llu bytes: below the minimum; give at least --dram %uM",
			       (unsigned long long)o->dram_bytes, EM_DRAM_MIN_BYTES >> 20);
}

int em_options_check_plugins(const struct em_options *o, char *err, size_t err_len)
{
	const struct plugin_head *ops;

	if (find(&kind_policy, o->policy, &ops, err, err_len))
		return -EINVAL;
	return find(&kind_prefetch, o->prefetch, &ops, err, err_len);
}

/* Nothing is created yet: a program that cannot start leaves no empty file behind. */
int em_options_check_stats(const struct em_options *o, char *err, size_t err_len)
{
	char dir[sizeof(o->stats_path)];
	struct stat st;
	char *slash;
	int rc;

	if (!o->stats_path[0] || !strcmp(o->stats_path, "-"))
		return 0;
	if (!stat(o->stats_path, &st)) {
		rc = S_ISDIR(st.st_mode) ? EISDIR : 0;
		if (!rc && faccessat(AT_FDCWD, o->stats_path, W_OK, AT_EACCESS))
			rc = errno;
	} else {
		rc = errno;
		strcpy(dir, o->stats_path);
		slash = strrchr(dir, '/');
		if (slash)
			slash[slash == dir] = '\0';
		if (rc == ENOENT)
			rc = faccessat(AT_FDCWD, slash ? dir : ".", W_OK | X_OK, AT_EACCESS) ? errno
											     : 0;
	}
	if (!rc)
		return 0;
	return em_options_fail(err, err_len,
			       "statistics file %.400s: cannot be written: %s; choose another with "
			       "--stats",
			       o->stats_path, strerror(rc));
}

int em_options_check_store(const struct em_options *o, char *err, size_t err_len)
{
	struct em_store_config cfg = {
		.path = o->swap_path[0] ? o->swap_path : NULL,
		.size_bytes = o->swap_size_bytes,
		.force = o->swap_force,
		.no_uring = (o->feature_mask & EM_FEAT_URING) != 0,
	};
	int rc = em_store_check(&cfg, err, err_len);

	return rc ? -EINVAL : 0;
}

int em_options_check(const struct em_options *o, char *err, size_t err_len)
{
	int rc = em_options_check_budget(o, err, err_len);

	if (!rc)
		rc = em_options_check_plugins(o, err, err_len);
	if (!rc)
		rc = em_options_check_store(o, err, err_len);
	if (!rc)
		rc = em_options_check_stats(o, err, err_len);
	return rc;
}
