/* SPDX-License-Identifier: MIT */
/* Version, settings and limits that matter. */
#include "probe.h"
#include "cmd.h"
#include "../../src/options_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define NOFILE_MIN 128	  /* the engine's descriptors beside a program's usual ones */
#define NOFILE_TOP 65536
#define MAX_MAP_MIN 65530 /* the kernel's default */

void probe_kernel(const struct em_options *o, struct probe_result *r)
{
	struct utsname u;

	(void)o;
	if (uname(&u))
		probe_errno(r, "uname", errno);
	else
		probe_set(r, PROBE_INFO, "%.60s %.60s %.60s", u.sysname, u.release, u.machine);
}

void probe_library(const struct em_options *o, struct probe_result *r)
{
	char path[4096], err[400];

	(void)o;
	if (library_find(path, sizeof(path), err, sizeof(err)))
		probe_set(r, PROBE_MISSING, "%s", err);
	else
		probe_set(r, PROBE_AVAILABLE, "%.400s", path);
}

/* All of em_options_check but the store, which is an item of its own. */
void probe_options(const struct em_options *o, struct probe_result *r)
{
	char err[480];

	if (em_options_check_budget(o, err, sizeof(err)) ||
	    em_options_check_plugins(o, err, sizeof(err)) ||
	    em_options_check_stats(o, err, sizeof(err)) ||
	    em_options_try_plugins(o, err, sizeof(err)))
		probe_set(r, PROBE_MISSING, "%s", err);
	else
		probe_set(r, PROBE_AVAILABLE,
			  "budget %s, policy %.80s, prefetch %.80s, %s delivery",
			  probe_size(o->dram_bytes), o->policy, o->prefetch,
			  o->delivery == EM_DELIVERY_UPCALL ? "upcall" : "thread");
}

/* ---- limits ---------------------------------------------------------------------- */

static void limit(int resource, bool bytes, rlim_t low, struct probe_result *r)
{
	struct rlimit rl;
	char soft[32];

	if (getrlimit(resource, &rl)) {
		probe_errno(r, "getrlimit", errno);
		return;
	}
	if (rl.rlim_cur == RLIM_INFINITY)
		snprintf(soft, sizeof(soft), "unlimited");
	else if (bytes)
		snprintf(soft, sizeof(soft), "%s", probe_size(rl.rlim_cur));
	else
		snprintf(soft, sizeof(soft), "%llu", (unsigned long long)rl.rlim_cur);
	probe_set(r, rl.rlim_cur < low ? PROBE_WARNING : PROBE_INFO, "%s", soft);
}

void probe_memlock(const struct em_options *o, struct probe_result *r)
{
	(void)o;
	limit(RLIMIT_MEMLOCK, true, 64 * 1024, r);
}

/* The same rule as in src/core/start.c. */
void probe_nofile(const struct em_options *o, struct probe_result *r)
{
	struct rlimit rl;
	unsigned long top, from;

	(void)o;
	if (getrlimit(RLIMIT_NOFILE, &rl)) {
		probe_errno(r, "getrlimit", errno);
		return;
	}
	top = rl.rlim_cur > NOFILE_TOP ? NOFILE_TOP : (unsigned long)rl.rlim_cur;
	from = top > 256 ? top - 64 : top / 2;
	probe_set(r, rl.rlim_cur < NOFILE_MIN ? PROBE_WARNING : PROBE_INFO,
		  "%llu, at most %llu; extmem's own are %lu and above",
		  (unsigned long long)rl.rlim_cur, (unsigned long long)rl.rlim_max, from);
}

void probe_as(const struct em_options *o, struct probe_result *r)
{
	(void)o;
	limit(RLIMIT_AS, true, RLIM_INFINITY, r);
}

/* ---- settings -------------------------------------------------------------------- */

static bool read_setting(const char *path, char *text, size_t len, struct probe_result *r)
{
	int err = em_file_read_line(path, text, len);

	if (err)
		probe_set(r, PROBE_INFO, "%s: %s", path, strerror(-err));
	return !err;
}

void probe_max_map_count(const struct em_options *o, struct probe_result *r)
{
	char text[64];

	(void)o;
	if (read_setting("/proc/sys/vm/max_map_count", text, sizeof(text), r))
		probe_set(r, atol(text) < MAX_MAP_MIN ? PROBE_WARNING : PROBE_INFO, "%s", text);
}

void probe_overcommit(const struct em_options *o, struct probe_result *r)
{
	static const char *const meaning[] = {"0 (heuristic)", "1 (always)", "2 (never)"};
	char text[64];

	(void)o;
	if (!read_setting("/proc/sys/vm/overcommit_memory", text, sizeof(text), r))
		return;
	probe_set(r, text[0] == '2' ? PROBE_WARNING : PROBE_INFO, "%s",
		  text[0] >= '0' && text[0] <= '2' ? meaning[text[0] - '0'] : text);
}

void probe_unprivileged_uffd(const struct em_options *o, struct probe_result *r)
{
	char text[64];

	(void)o;
	if (read_setting("/proc/sys/vm/unprivileged_userfaultfd", text, sizeof(text), r))
		probe_set(r, PROBE_INFO, "%s", text);
}

static uint64_t ram_bytes(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Who decided, in the order of the options. */
static void budget_source(char *text, size_t len)
{
	static const char *const variables[] = {"EXTMEM_DRAM", "DRAMSIZE"};
	uint64_t ram = ram_bytes(), all = em_memory_available_bytes();

	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		const char *value = getenv(variables[i]);

		if (value && *value) {
			snprintf(text, len, "%s=%.40s", variables[i], value);
			return;
		}
	}
	if (all < ram)
		snprintf(text, len, "half of the memory cgroup's limit of %s", probe_size(all));
	else
		snprintf(text, len, "half of RAM, %s", probe_size(ram));
}

void probe_budget(const struct em_options *o, struct probe_result *r)
{
	bool low = o->dram_bytes < EM_DRAM_MIN_BYTES;
	char source[128];

	budget_source(source, sizeof(source));
	probe_set(r, low || o->dram_bytes > em_memory_available_bytes() ? PROBE_WARNING : PROBE_INFO,
		  "%s: %s%s", probe_size(o->dram_bytes), source,
		  low ? "; too small" : "");
}

void probe_cgroup(const struct em_options *o, struct probe_result *r)
{
	uint64_t ram = ram_bytes(), max = em_memory_cgroup_bytes();
	const char *blind = access("/proc/self/mountinfo", R_OK) ?
				    " seen (no /proc: only /sys/fs/cgroup was looked at)" : "";

	if (max >= ram)
		probe_set(r, *blind ? PROBE_WARNING : PROBE_INFO, "none%s, all %s of RAM", blind,
			  probe_size(ram));
	else
		probe_set(r, max < o->dram_bytes ? PROBE_WARNING : PROBE_INFO, "%s of %s RAM%s",
			  probe_size(max), probe_size(ram),
			  max < o->dram_bytes ? ", less than the budget" : "");
}

void probe_seccomp(const struct em_options *o, struct probe_result *r)
{
	static const char *const modes[] = {"none", "strict", "filter"};
	int mode = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
	bool nnp = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
	FILE *f = fopen("/proc/self/status", "re");
	unsigned filters = 0;
	char line[256], count[32] = "";

	(void)o;
	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "Seccomp: %d", &mode);
		sscanf(line, "Seccomp_filters: %u", &filters);
	}
	if (f)
		fclose(f);
	if (filters)
		snprintf(count, sizeof(count), ", %u of them", filters);
	probe_set(r, PROBE_INFO, "%s%s%s", mode >= 0 && mode < 3 ? modes[mode] : "unknown", count,
		  nnp ? ", no_new_privs" : "");
}

void probe_thp(const struct em_options *o, struct probe_result *r)
{
	char text[128], *p, *end;

	(void)o;
	if (!read_setting("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text), r))
		return;
	/* "always [madvise] never" */
	p = strchr(text, '[');
	end = p ? strchr(p, ']') : NULL;
	if (end)
		*end = '\0';
	probe_set(r, PROBE_INFO, "%s", end ? p + 1 : text);
}

static const char *zswap_state(void)
{
	char text[16];

	if (em_file_read_line("/sys/module/zswap/parameters/enabled", text, sizeof(text)))
		return "unknown";
	return text[0] == 'Y' ? "on" : "off";
}

void probe_kernel_swap(const struct em_options *o, struct probe_result *r)
{
	FILE *f = fopen("/proc/swaps", "re");
	unsigned files = 0, zram = 0;
	char line[512];

	(void)o;
	if (!f) {
		probe_set(r, PROBE_INFO, "/proc/swaps: %s, zswap %s", strerror(errno), zswap_state());
		return;
	}
	while (fgets(line, sizeof(line), f)) {
		if (line[0] != '/')
			continue;
		files++;
		zram += strstr(line, "/zram") != NULL;
	}
	fclose(f);
	probe_set(r, PROBE_INFO, "%u swap areas, %u of them zram, zswap %s", files, zram,
		  zswap_state());
}
