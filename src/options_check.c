/* SPDX-License-Identifier: MIT */
/*
 * Checks of options against the machine: before anything runs, so that what is
 * wrong is one line from `extmem run` and not a dead program.
 */
#include "options_impl.h"

#include "extmem/policy.h"
#include "policy/registry.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int find_policy(const struct em_options *o, const struct extmem_policy_ops **ops, char *err,
		       size_t err_len)
{
	char why[512];

	if (!em_policy_load(o->policy, ops, why, sizeof(why)))
		return 0;
	return em_options_fail(err, err_len, "--policy %.200s: %s", o->policy, why);
}

static int find_prefetch(const struct em_options *o, const struct extmem_prefetch_ops **ops,
			 char *err, size_t err_len)
{
	char why[512];

	if (!em_prefetch_load(o->prefetch, ops, why, sizeof(why)))
		return 0;
	return em_options_fail(err, err_len, "--prefetch %.200s: %s", o->prefetch, why);
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

typedef int (*init_fn)(const struct extmem_policy_host *host, const char *args, void **state,
		       char *err, size_t err_len);
typedef void (*fini_fn)(void *state);

static int try_one(const char *option, init_fn init, fini_fn fini, const char *name,
		   const char *args, char *err, size_t err_len)
{
	char why[256] = "";
	void *state = NULL;
	int rc = init(&fake_host, args, &state, why, sizeof(why));

	why[strcspn(why, "\n")] = '\0';
	if (rc)
		return em_options_fail(err, err_len, "%s %.200s%s%.200s: %s; correct its arguments",
				       option, name, *args ? "," : "", args,
				       *why ? why : strerror(-rc));
	if (fini)
		fini(state);
	return 0;
}

int em_options_try_plugins(const struct em_options *o, char *err, size_t err_len)
{
	const struct extmem_policy_ops *policy;
	const struct extmem_prefetch_ops *prefetch;

	if (find_policy(o, &policy, err, err_len) || find_prefetch(o, &prefetch, err, err_len))
		return -EINVAL;
	fake_budget = o->dram_bytes >> EXTMEM_PAGE_SHIFT;
	if (try_one("--policy", policy->init, policy->fini, o->policy, o->policy_args, err,
		    err_len))
		return -EINVAL;
	return try_one("--prefetch", prefetch->init, prefetch->fini, o->prefetch, o->prefetch_args,
		       err, err_len);
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
	const struct extmem_policy_ops *policy;
	const struct extmem_prefetch_ops *prefetch;

	if (find_policy(o, &policy, err, err_len))
		return -EINVAL;
	return find_prefetch(o, &prefetch, err, err_len);
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
		.no_memfd = (o->feature_mask & EM_FEAT_MEMFD) != 0,
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
