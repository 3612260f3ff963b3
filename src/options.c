/* SPDX-License-Identifier: MIT */
/*
 * The table of options and the ways in and out of it: command line and environment.
 * sizes: options_size.c, RAM and cgroups: options_memory.c, checks: options_check.c.
 */
#include "options_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define MIN_MAP_DEFAULT_BYTES (1024u * 1024u)
#define DELIVERY_THREADS_MAX 256u
#define SPIN_DEFAULT_US 200u
#define SPIN_MAX_US 10000u
#define STANDBY_DEFAULT_PERCENT 10u
#define STANDBY_MAX_PERCENT 50u
#define REASON_LEN 256

int em_options_fail(char *err, size_t err_len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, err_len, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ---- lists ------------------------------------------------------------------------ */

int em_list_first(const char *value, char *out, size_t out_len, const char **rest)
{
	size_t n = 0;

	*rest = NULL;
	for (; *value; value++) {
		if (*value == ',') {
			if (value[1] != ',') {
				*rest = value + 1;
				break;
			}
			value++;
		}
		if (n + 1 >= out_len)
			return -ENAMETOOLONG;
		out[n++] = *value;
	}
	out[n] = '\0';
	return 0;
}

int em_list_escape(const char *text, char *out, size_t out_len)
{
	size_t n = 0;

	for (; *text; text++) {
		if (n + 2 >= out_len)
			return -ENAMETOOLONG;
		if (*text == ',')
			out[n++] = ',';
		out[n++] = *text;
	}
	out[n] = '\0';
	return 0;
}

/* ---- one option each ---------------------------------------------------------------- */
/* Each setter changes o only if it succeeds; else it writes to `why` what is wrong with
   the value and what to do, and the caller says whose value it was. */

static int size_reason(int err, const char *example, char *why)
{
	if (err == -ERANGE)
		return em_options_fail(why, REASON_LEN, "out of range; give a size such as %s",
				       example);
	return em_options_fail(why, REASON_LEN, "not a size; give for example %s", example);
}

static int set_dram(struct em_options *o, const char *value, char *why)
{
	uint64_t bytes, whole = strchr(value, '%') ? em_memory_available_bytes() : 0;
	int err = em_size_parse_percent(value, whole, &bytes);

	if (err)
		return size_reason(err, "512M or 40%", why);
	if (bytes < EM_DRAM_MIN_BYTES)
		return em_options_fail(
			why, REASON_LEN,
			"budget of %llu bytes is below the minimum; give at least %uM",
			(unsigned long long)bytes, EM_DRAM_MIN_BYTES >> 20);
	o->dram_bytes = bytes & ~(uint64_t)(PAGE_BYTES - 1);
	return 0;
}

static int swap_suffix(const char *item, uint64_t *size, bool *force, char *why)
{
	if (!strcmp(item, "force")) {
		*force = true;
		return 0;
	}
	if (!strncmp(item, "size=", 5)) {
		int err = em_size_parse(item + 5, size);

		if (!err && *size < PAGE_BYTES)
			err = -ERANGE;
		return err ? size_reason(err, "size=8G", why) : 0;
	}
	return em_options_fail(why, REASON_LEN,
			       "\"%.80s\" is not known; give PATH[,size=SIZE][,force], and a comma "
			       "in PATH as \",,\"",
			       item);
}

static int set_swap(struct em_options *o, const char *value, char *why)
{
	char path[sizeof(o->swap_path)], item[64];
	uint64_t size = 0;
	bool force = false;
	const char *rest;

	if (em_list_first(value, path, sizeof(path), &rest))
		return em_options_fail(why, REASON_LEN, "path too long; choose a shorter one");
	while (rest) {
		if (em_list_first(rest, item, sizeof(item), &rest))
			return em_options_fail(
				why, REASON_LEN,
				"part after the path too long; give size=SIZE or force");
		if (swap_suffix(item, &size, &force, why))
			return -EINVAL;
	}
	if (!path[0] && !size && !force)
		return em_options_fail(why, REASON_LEN,
				       "no path; give a directory, a file or a block device");
	strcpy(o->swap_path, path);
	o->swap_size_bytes = size;
	o->swap_force = force;
	return 0;
}

/* NAME[,key=value]...; the arguments are kept as they are, commas and all. */
static int set_plugin(const char *value, char *name, size_t name_len, char *args, size_t args_len,
		      char *why)
{
	char tmp[4096];
	const char *rest, *eq, *end;

	if (em_list_first(value, tmp, sizeof(tmp), &rest) || strlen(tmp) >= name_len ||
	    (rest && strlen(rest) >= args_len))
		return em_options_fail(why, REASON_LEN,
				       "too long; shorten the name or the arguments");
	if (!tmp[0])
		return em_options_fail(why, REASON_LEN, "no name; give NAME or the path of a .so");
	for (const char *p = rest; p; p = *end ? end + 1 : NULL) {
		end = p + strcspn(p, ",");
		eq = memchr(p, '=', (size_t)(end - p));
		if (!eq || eq == p)
			return em_options_fail(why, REASON_LEN,
					       "argument \"%.*s\" is not key=value; write "
					       "NAME,key=value,...",
					       (int)(end - p > 80 ? 80 : end - p), p);
	}
	memcpy(name, tmp, strlen(tmp) + 1);
	memmove(args, rest ? rest : "", rest ? strlen(rest) + 1 : 1);
	return 0;
}

static int set_policy(struct em_options *o, const char *value, char *why)
{
	return set_plugin(value, o->policy, sizeof(o->policy), o->policy_args,
			  sizeof(o->policy_args), why);
}

static int set_prefetch(struct em_options *o, const char *value, char *why)
{
	return set_plugin(value, o->prefetch, sizeof(o->prefetch), o->prefetch_args,
			  sizeof(o->prefetch_args), why);
}

static int set_delivery(struct em_options *o, const char *value, char *why)
{
	unsigned long n;
	char *end;

	if (!strcmp(value, "upcall") || !strcmp(value, "thread")) {
		o->delivery = *value == 'u' ? EM_DELIVERY_UPCALL : EM_DELIVERY_THREAD;
		o->delivery_threads = 1;
		return 0;
	}
	if (strncmp(value, "thread,n=", 9))
		return em_options_fail(why, REASON_LEN,
				       "not known; give upcall, thread or thread,n=N");
	value += 9;
	errno = 0;
	n = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || n < 1 || n > DELIVERY_THREADS_MAX)
		return em_options_fail(why, REASON_LEN, "not a number of threads; give n=1 to n=%u",
				       DELIVERY_THREADS_MAX);
	o->delivery = EM_DELIVERY_THREAD;
	o->delivery_threads = (unsigned)n;
	return 0;
}

static const char *const syscalls_names[] = {
	[EM_SYSCALLS_AUTO] = "auto",
	[EM_SYSCALLS_DISPATCH] = "dispatch",
	[EM_SYSCALLS_PATCH] = "patch",
};

static int set_syscalls(struct em_options *o, const char *value, char *why)
{
	for (unsigned i = 0; i < sizeof(syscalls_names) / sizeof(syscalls_names[0]); i++)
		if (!strcmp(value, syscalls_names[i])) {
			o->syscalls = i;
			return 0;
		}
	return em_options_fail(why, REASON_LEN, "not known; give auto, dispatch or patch");
}

static int set_min_map(struct em_options *o, const char *value, char *why)
{
	uint64_t bytes;
	int err = em_size_parse(value, &bytes);

	if (!err && (bytes < PAGE_BYTES || bytes > UINT64_MAX - PAGE_BYTES))
		err = -ERANGE;
	if (err)
		return size_reason(err, "1M, at least one page (4K)", why);
	o->min_map_bytes = (bytes + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
	return 0;
}

static int set_standby(struct em_options *o, const char *value, char *why)
{
	unsigned long n;
	bool always;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (*end == '%')
		end++;
	always = !strcmp(end, ",always");
	if (*value < '0' || *value > '9' || (*end && !always) || errno || n > STANDBY_MAX_PERCENT)
		return em_options_fail(why, REASON_LEN,
				       "not a part of the budget; give 0 (none) to %u%%, and ,always after "
				       "it to keep pages whether it pays or not",
				       STANDBY_MAX_PERCENT);
	o->standby_percent = (unsigned)n;
	o->standby_always = always;
	return 0;
}

static int set_spin(struct em_options *o, const char *value, char *why)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || n > SPIN_MAX_US)
		return em_options_fail(why, REASON_LEN,
				       "not a number of microseconds; give 0 (never) to %u",
				       SPIN_MAX_US);
	o->spin_us = (unsigned)n;
	return 0;
}

static int set_stats(struct em_options *o, const char *value, char *why)
{
	if (!*value)
		return em_options_fail(why, REASON_LEN,
				       "no file name; give a file, or - for stderr");
	if (strlen(value) >= sizeof(o->stats_path))
		return em_options_fail(why, REASON_LEN, "path too long; choose a shorter one");
	strcpy(o->stats_path, value);
	return 0;
}

static int set_stats_pid(struct em_options *o, const char *value, char *why)
{
	char *end;
	long pid;

	errno = 0;
	pid = strtol(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || pid <= 0)
		return em_options_fail(why, REASON_LEN,
				       "not a process id; unset it, `extmem run` sets it");
	o->stats_pid = pid;
	return 0;
}

static int set_verbose(struct em_options *o, const char *value, char *why)
{
	if (strcmp(value, "0") && strcmp(value, "1"))
		return em_options_fail(why, REASON_LEN, "not 0 or 1; give 1 to see messages");
	o->verbose = *value == '1';
	return 0;
}

static const char *const expect_writes[] = {
	[EM_EXPECT_WRITES_NO] = "no",
	[EM_EXPECT_WRITES_YES] = "yes",
	[EM_EXPECT_WRITES_ALWAYS] = "always",
};

static int set_expect_writes(struct em_options *o, const char *value, char *why)
{
	for (int i = 0; i < (int)(sizeof(expect_writes) / sizeof(expect_writes[0])); i++)
		if (!strcmp(value, expect_writes[i])) {
			o->expect_writes = (enum em_expect_writes)i;
			return 0;
		}
	return em_options_fail(why, REASON_LEN,
			       "not yes, no or always; give no to map every page that is read protected");
}

static int set_follow_exec(struct em_options *o, const char *value, char *why)
{
	if (strcmp(value, "yes") && strcmp(value, "no"))
		return em_options_fail(why, REASON_LEN,
				       "not yes or no; give no to manage only the program itself");
	o->follow_exec = *value == 'y';
	return 0;
}

static const struct {
	const char *name;
	uint32_t bit;
} features[] = {
	{"wp", EM_FEAT_WP},
	{"move", EM_FEAT_MOVE},
	{"process_madvise", EM_FEAT_PROCESS_MADVISE},
	{"capture", EM_FEAT_CAPTURE},
	{"uring", EM_FEAT_URING},
	{"memfd", EM_FEAT_MEMFD},
	{"tasks", EM_FEAT_TASKS},
	{"control", EM_FEAT_CONTROL},
	{"process_vm_readv", EM_FEAT_VM_READ},
};
#define NFEATURES (sizeof(features) / sizeof(features[0]))

static int set_mask(struct em_options *o, const char *value, char *why)
{
	const char *rest = value;
	uint32_t mask = 0;
	char item[32];
	size_t i;

	while (rest) {
		if (em_list_first(rest, item, sizeof(item), &rest))
			return em_options_fail(why, REASON_LEN, "feature name too long");
		for (i = 0; i < NFEATURES && strcmp(item, features[i].name); i++)
			;
		if (i == NFEATURES)
			return em_options_fail(
				why, REASON_LEN,
				"feature \"%s\" is not known or cannot be masked; give "
				"wp, move, process_madvise, process_vm_readv, uring, memfd, "
				"control",
				item);
		mask |= features[i].bit;
	}
	o->feature_mask = mask;
	return 0;
}

/* ---- the table ------------------------------------------------------------------------ */

static const struct option_entry {
	const char *name;
	const char *env;
	int (*set)(struct em_options *o, const char *value, char *why);
} entries[] = {
	{"dram", "EXTMEM_DRAM", set_dram},
	{"swap", "EXTMEM_SWAP", set_swap},
	{"policy", "EXTMEM_POLICY", set_policy},
	{"prefetch", "EXTMEM_PREFETCH", set_prefetch},
	{"delivery", "EXTMEM_DELIVERY", set_delivery},
	{"syscalls", "EXTMEM_SYSCALLS", set_syscalls},
	{"min-map", "EXTMEM_MIN_MAP", set_min_map},
	{"standby", "EXTMEM_STANDBY", set_standby},
	{"spin", "EXTMEM_SPIN", set_spin},
	{"stats", "EXTMEM_STATS", set_stats},
	{"stats-pid", "EXTMEM_STATS_PID", set_stats_pid},
	{"verbose", "EXTMEM_VERBOSE", set_verbose},
	{"expect-writes", "EXTMEM_EXPECT_WRITES", set_expect_writes},
	{"follow-exec", "EXTMEM_FOLLOW_EXEC", set_follow_exec},
	{"mask", "EXTMEM_MASK", set_mask},
};
#define NENTRIES (sizeof(entries) / sizeof(entries[0]))

void em_options_init(struct em_options *o)
{
	memset(o, 0, sizeof(*o));
	strcpy(o->policy, "2q");
	strcpy(o->prefetch, "sequential");
	o->delivery = EM_DELIVERY_UPCALL;
	o->follow_exec = true;
	o->expect_writes = EM_EXPECT_WRITES_YES;
	o->delivery_threads = 1;
	o->standby_percent = STANDBY_DEFAULT_PERCENT;
	o->spin_us = SPIN_DEFAULT_US;
	o->min_map_bytes = MIN_MAP_DEFAULT_BYTES;
}

int em_options_set(struct em_options *o, const char *name, const char *value, char *err,
		   size_t err_len)
{
	char why[REASON_LEN];

	for (size_t i = 0; i < NENTRIES; i++) {
		if (strcmp(name, entries[i].name))
			continue;
		if (entries[i].set(o, value, why))
			return em_options_fail(err, err_len, "--%s %.200s: %s", name, value, why);
		return 0;
	}
	return em_options_fail(err, err_len, "option --%.80s: not known; see `extmem help run`",
			       name);
}

static const char *env_value(const char *name)
{
	const char *value = getenv(name);

	/* Empty counts as unset: scripts cannot easily do the latter. */
	return value && *value ? value : NULL;
}

/* The original's variables: plain values, no parts after commas.  Not looked at when
   overridden: another program's DRAMSIZE need not make sense to us then. */
static int from_env_original(struct em_options *o, char *err, size_t err_len)
{
	static const char *const paths[] = {"SWAPDIR", "SWAPPATH"};
	const char *value = env_value("DRAMSIZE");
	char why[REASON_LEN];

	if (value && !env_value("EXTMEM_DRAM") && set_dram(o, value, why))
		return em_options_fail(err, err_len, "DRAMSIZE=%.200s: %s", value, why);
	if (env_value("EXTMEM_SWAP"))
		return 0;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		value = env_value(paths[i]);
		if (!value)
			continue;
		if (strlen(value) >= sizeof(o->swap_path))
			return em_options_fail(err, err_len,
					       "%s=%.200s: path too long; choose a shorter one",
					       paths[i], value);
		strcpy(o->swap_path, value);
	}
	return 0;
}

int em_options_from_env(struct em_options *o, char *err, size_t err_len)
{
	char why[REASON_LEN];

	if (from_env_original(o, err, err_len))
		return -EINVAL;
	for (size_t i = 0; i < NENTRIES; i++) {
		const char *value = env_value(entries[i].env);

		if (value && entries[i].set(o, value, why))
			return em_options_fail(err, err_len, "%s=%.200s: %s", entries[i].env, value,
					       why);
	}
	/* The default is found last: it costs a look at /proc and the cgroup files, and
	   children of a managed program always have the variable. */
	if (!o->dram_bytes && set_dram(o, "50%", why))
		return em_options_fail(err, err_len, "default budget (50%% of memory): %s", why);
	return 0;
}

/* ---- out again -------------------------------------------------------------------------- */

static int env_put(const char *name, const char *value)
{
	if (!value || !*value)
		return unsetenv(name) ? -errno : 0;
	return setenv(name, value, 1) ? -errno : 0;
}

static int env_put_number(const char *name, uint64_t v, bool set)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	return env_put(name, set ? text : NULL);
}

/* first, with its commas escaped, then the rest as it is. */
static int env_put_list(const char *name, const char *first, const char *rest)
{
	char text[2 * 4096 + 1200];
	int err = em_list_escape(first, text, sizeof(text));
	size_t n;

	if (err)
		return err;
	n = strlen(text);
	if ((size_t)snprintf(text + n, sizeof(text) - n, "%s%s", *rest ? "," : "", rest) >=
	    sizeof(text) - n)
		return -ENAMETOOLONG;
	return env_put(name, text);
}

static int env_put_swap(const struct em_options *o)
{
	char rest[64] = "";
	int err;

	if (o->swap_size_bytes)
		snprintf(rest, sizeof(rest), "size=%llu%s", (unsigned long long)o->swap_size_bytes,
			 o->swap_force ? ",force" : "");
	else if (o->swap_force)
		strcpy(rest, "force");
	err = env_put_list("EXTMEM_SWAP", o->swap_path, rest);
	if (err || o->swap_path[0] || *rest)
		return err;
	/* The default store can only be asked for by the absence of all names. */
	err = env_put("SWAPDIR", NULL);
	return err ? err : env_put("SWAPPATH", NULL);
}

static int env_put_mask(uint32_t mask)
{
	char text[128] = "";

	for (size_t i = 0; i < NFEATURES; i++) {
		if (!(mask & features[i].bit))
			continue;
		if (*text)
			strcat(text, ",");
		strcat(text, features[i].name);
	}
	return env_put("EXTMEM_MASK", text);
}

static int env_put_delivery(const struct em_options *o)
{
	char text[32] = "upcall";

	if (o->delivery == EM_DELIVERY_THREAD)
		snprintf(text, sizeof(text), "thread,n=%u", o->delivery_threads);
	return env_put("EXTMEM_DELIVERY", text);
}

static int env_put_standby(const struct em_options *o)
{
	char value[32];

	snprintf(value, sizeof(value), "%u%%%s", o->standby_percent,
		 o->standby_always ? ",always" : "");
	return env_put("EXTMEM_STANDBY", value);
}

int em_options_to_env(const struct em_options *o)
{
	int err = env_put_number("EXTMEM_DRAM", o->dram_bytes, true);

	if (!err)
		err = env_put_swap(o);
	if (!err)
		err = env_put_list("EXTMEM_POLICY", o->policy, o->policy_args);
	if (!err)
		err = env_put_list("EXTMEM_PREFETCH", o->prefetch, o->prefetch_args);
	if (!err)
		err = env_put_delivery(o);
	if (!err)
		err = env_put("EXTMEM_SYSCALLS", syscalls_names[o->syscalls]);
	if (!err)
		err = env_put_number("EXTMEM_MIN_MAP", o->min_map_bytes, true);
	if (!err)
		err = env_put_standby(o);
	if (!err)
		err = env_put_number("EXTMEM_SPIN", o->spin_us, true);
	if (!err)
		err = env_put("EXTMEM_STATS", o->stats_path);
	if (!err)
		err = env_put_number("EXTMEM_STATS_PID", (uint64_t)o->stats_pid, o->stats_pid > 0);
	if (!err)
		err = env_put_number("EXTMEM_VERBOSE", 1, o->verbose);
	if (!err)
		err = env_put("EXTMEM_FOLLOW_EXEC", o->follow_exec ? "" : "no");
	if (!err)
		err = env_put("EXTMEM_EXPECT_WRITES", o->expect_writes == EM_EXPECT_WRITES_YES
								? ""
								: expect_writes[o->expect_writes]);
	if (!err)
		err = env_put_mask(o->feature_mask);
	return err;
}

/* ---- absolute paths ------------------------------------------------------------------------ */

bool em_options_is_path(const char *name)
{
	size_t n = strlen(name);

	return strchr(name, '/') || (n > 3 && !strcmp(name + n - 3, ".so"));
}

static int absolute(char *path, size_t len, const char *cwd, char *err, size_t err_len)
{
	char tmp[2 * 4096 + 2];

	if (!*path || *path == '/')
		return 0;
	if (!*cwd)
		return em_options_fail(
			err, err_len,
			"%.200s: relative, but the current directory is unknown; give "
			"an absolute path",
			path);
	/* "./x" needs no dot in the middle of the result. */
	snprintf(tmp, sizeof(tmp), "%s/%s", strcmp(cwd, "/") ? cwd : "",
		 !strncmp(path, "./", 2) && path[2] && path[2] != '/' ? path + 2 : path);
	if (strlen(tmp) >= len)
		return em_options_fail(err, err_len,
				       "%.200s: path too long once absolute; choose a shorter one",
				       path);
	strcpy(path, tmp);
	return 0;
}

int em_options_absolute(struct em_options *o, char *err, size_t err_len)
{
	const char *tmpdir = env_value("TMPDIR");
	char cwd[4096];

	if (!getcwd(cwd, sizeof(cwd)) || *cwd != '/')
		*cwd = '\0';
	/* The default directory is not ours to name, unless it would move with the program. */
	if (!o->swap_path[0] && tmpdir && *tmpdir != '/' && strlen(tmpdir) < sizeof(o->swap_path))
		strcpy(o->swap_path, tmpdir);
	if (absolute(o->swap_path, sizeof(o->swap_path), cwd, err, err_len))
		return -EINVAL;
	if (strcmp(o->stats_path, "-") &&
	    absolute(o->stats_path, sizeof(o->stats_path), cwd, err, err_len))
		return -EINVAL;
	if (em_options_is_path(o->policy) &&
	    absolute(o->policy, sizeof(o->policy), cwd, err, err_len))
		return -EINVAL;
	if (em_options_is_path(o->prefetch) &&
	    absolute(o->prefetch, sizeof(o->prefetch), cwd, err, err_len))
		return -EINVAL;
	return 0;
}
