/* SPDX-License-Identifier: MIT */
/* Sizes, lists, the options table, the environment, cgroup limits. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "options_impl.h"
#include "store/store.h"

#define MIB (1024ull * 1024)

/* The store has tests of its own; here only what is made of its answer matters. */
static int store_answer;

int em_store_check(const struct em_store_config *cfg, char *err, size_t err_len)
{
	if (store_answer)
		snprintf(err, err_len, "swap path %s: bad", cfg->path ? cfg->path : "(default)");
	return store_answer;
}

/* ---- sizes ----------------------------------------------------------------------------- */

static void sizes_with_units_are_binary(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"4096", 4096},
		{"64K", 65536},
		{"64k", 65536},
		{"1.5G", 1536 * MIB},
		{"2T", 2 * MIB * MIB},
		{"1MiB", MIB},
		{"1MB", MIB},
		{"1mib", MIB},
		{"12B", 12},
		{".5K", 512},
		{"0.3K", 307},
		{"18446744073709551615", UINT64_MAX},
		{"15.999999999999E", (uint64_t)((unsigned __int128)15999999999999ull *
						(1ull << 60) / 1000000000000ull)},
		{"1.00000000000000000000000000000001K", 1024},
		{"000000000000000000000000000001K", 1024},
	};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(em_size_parse(good[i].text, &v), 0);
		assert_true(v == good[i].bytes);
	}
}

static void what_is_no_size_is_refused(void **state)
{
	static const char *const bad[] = {"",	 " 1K", "1K ", "-1", "+1",  "0x10", "1.K", ".",
					  "K",	 "1X",	"1KK", "1i", "1Ki.", "1.5", "1.5B", "1,5G",
					  "1e3", "40%", "1Kib1"};
	uint64_t v = 77;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(em_size_parse(bad[i], &v), -EINVAL);
	assert_int_equal(em_size_parse(NULL, &v), -EINVAL);
	assert_int_equal(em_size_parse("16E", &v), -ERANGE);
	assert_int_equal(em_size_parse("18446744073709551616", &v), -ERANGE);
	assert_int_equal(em_size_parse("99999999999999999999999999999999999999999", &v), -ERANGE);
	assert_int_equal(em_size_parse("99999999999999999999999999999999.9999999999999T", &v),
			 -ERANGE);
	assert_true(v == 77);
}

static void percentages_refer_to_the_whole(void **state)
{
	uint64_t v;

	(void)state;
	assert_int_equal(em_size_parse_percent("40%", 1000, &v), 0);
	assert_true(v == 400);
	assert_int_equal(em_size_parse_percent("12.5%", 1000, &v), 0);
	assert_true(v == 125);
	assert_int_equal(em_size_parse_percent("100%", UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(em_size_parse_percent("64K", 1000, &v), 0);
	assert_true(v == 65536);
	assert_int_equal(em_size_parse_percent("100.1%", 1000, &v), -ERANGE);
	assert_int_equal(em_size_parse_percent("%", 1000, &v), -EINVAL);
	assert_int_equal(em_size_parse_percent("4%%", 1000, &v), -EINVAL);
	assert_int_equal(em_size_parse_percent("4%K", 1000, &v), -EINVAL);
}

/* ---- lists ------------------------------------------------------------------------------ */

static void list_elements_may_hold_doubled_commas(void **state)
{
	const char *rest;
	char out[16], esc[16];

	(void)state;
	assert_int_equal(em_list_first("a,,b,c=1,d", out, sizeof(out), &rest), 0);
	assert_string_equal(out, "a,b");
	assert_string_equal(rest, "c=1,d");
	assert_int_equal(em_list_first("a,", out, sizeof(out), &rest), 0);
	assert_string_equal(rest, "");
	assert_int_equal(em_list_first("", out, sizeof(out), &rest), 0);
	assert_null(rest);
	assert_int_equal(em_list_first("0123456789abcde", out, sizeof(out), &rest), 0);
	assert_int_equal(em_list_first("0123456789abcdef", out, sizeof(out), &rest), -ENAMETOOLONG);
	assert_int_equal(em_list_escape("a,b", esc, sizeof(esc)), 0);
	assert_string_equal(esc, "a,,b");
	assert_int_equal(em_list_escape("0123456789abcde", esc, sizeof(esc)), -ENAMETOOLONG);
}

/* ---- options ------------------------------------------------------------------------------ */

static const char *const variables[] = {
	"EXTMEM_DRAM",	"EXTMEM_SWAP",	    "EXTMEM_POLICY",  "EXTMEM_PREFETCH", "EXTMEM_DELIVERY",
	"EXTMEM_STATS", "EXTMEM_STATS_PID", "EXTMEM_VERBOSE", "EXTMEM_MASK",	 "EXTMEM_MIN_MAP",
	"EXTMEM_SPIN",
	"EXTMEM_EXPECT_WRITES",
	"DRAMSIZE",	"SWAPDIR",	    "SWAPPATH",	      "EXTMEM_FOLLOW_EXEC",
};

static int clean(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
		unsetenv(variables[i]);
	store_answer = 0;
	return 0;
}

static struct em_options o, back;
static char err[1024];

static int set(const char *name, const char *value)
{
	err[0] = '\0';
	return em_options_set(&o, name, value, err, sizeof(err));
}

static void options_are_set_by_name(void **state)
{
	(void)state;
	em_options_init(&o);
	assert_int_equal(set("dram", "10M"), 0);
	assert_true(o.dram_bytes == 10 * MIB);
	assert_int_equal(set("swap", "/a,,b,size=1G,force"), 0);
	assert_string_equal(o.swap_path, "/a,b");
	assert_true(o.swap_size_bytes == 1024 * MIB && o.swap_force);
	assert_int_equal(set("swap", "/c"), 0);
	assert_true(o.swap_size_bytes == 0 && !o.swap_force);
	assert_int_equal(set("policy", "fifo,a=1,b=2"), 0);
	assert_string_equal(o.policy, "fifo");
	assert_string_equal(o.policy_args, "a=1,b=2");
	assert_int_equal(set("policy", "2q"), 0);
	assert_string_equal(o.policy_args, "");
	assert_int_equal(set("delivery", "thread,n=4"), 0);
	assert_true(o.delivery == EM_DELIVERY_THREAD && o.delivery_threads == 4);
	assert_int_equal(set("syscalls", "dispatch"), 0);
	assert_true(o.syscalls == EM_SYSCALLS_DISPATCH);
	assert_int_equal(set("min-map", "5000"), 0);
	assert_true(o.min_map_bytes == 8192);
	assert_int_equal(set("mask", "move,wp"), 0);
	assert_true(o.feature_mask == (EM_FEAT_MOVE | EM_FEAT_WP));
	assert_int_equal(set("stats", "-"), 0);
	assert_string_equal(o.stats_path, "-");
}

static void bad_values_name_option_and_leave_the_old(void **state)
{
	static const char *const bad[][2] = {
		{"dram", "1X"},	     {"dram", "64K"},	      {"dram", "0"},
		{"dram", "101%"},    {"swap", ""},	      {"swap", "/x,sise=1G"},
		{"swap", "/x,"},     {"swap", "/x,size=-1"},  {"policy", ""},
		{"policy", "2q,x"},  {"policy", "2q,=1"},     {"policy", "2q,a=1,,b=2"},
		{"delivery", "up"},  {"delivery", "thread,"}, {"delivery", "thread,n=0"},
		{"delivery", ""},    {"delivery", "thread,n=257"},
		{"delivery", "upcall,n=2"},		      {"delivery", "thread,n= 2"},
		{"min-map", "1"},    {"stats", ""},	      {"mask", "sigbus"},
		{"mask", "wp,"},     {"verbose", "yes"},
		{"follow-exec", "1"}, {"expect-writes", "maybe"},
		{"expect-writes", ""}, {"syscalls", "trap"},
		{"standby", ""},     {"standby", "51%"},      {"standby", "5%,ever"},
		{"standby", "-1"},   {"standby", "5%%"},
		{"spin", ""},	     {"spin", "10us"},	      {"spin", "10001"},
	};
	static struct em_options before;

	(void)state;
	em_options_init(&o);
	before = o;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(set(bad[i][0], bad[i][1]), -EINVAL);
		assert_non_null(strstr(err, bad[i][0]));
		assert_null(strchr(err, '\n'));
		assert_memory_equal(&o, &before, sizeof(o));
	}
	assert_int_equal(set("nonsense", "1"), -EINVAL);
}

static void environment_round_trip_keeps_everything(void **state)
{
	(void)state;
	em_options_init(&o);
	assert_int_equal(set("dram", "10M"), 0);
	assert_int_equal(set("swap", "/a,,b/,,,,c,size=1G,force"), 0);
	assert_int_equal(set("policy", "/p,,q.so,a=1,b=2"), 0);
	assert_int_equal(set("prefetch", "none"), 0);
	assert_int_equal(set("delivery", "thread,n=3"), 0);
	assert_int_equal(set("syscalls", "patch"), 0);
	assert_int_equal(set("min-map", "64K"), 0);
	assert_int_equal(set("standby", "7%,always"), 0);
	assert_int_equal(set("spin", "0"), 0);
	assert_int_equal(set("expect-writes", "no"), 0);
	assert_int_equal(set("stats", "/tmp/s,t.json"), 0);
	assert_int_equal(set("mask", "uring,process_madvise"), 0);
	o.stats_pid = 4711;
	assert_int_equal(set("follow-exec", "no"), 0);
	o.verbose = true;
	assert_int_equal(em_options_to_env(&o), 0);
	em_options_init(&back);
	assert_int_equal(em_options_from_env(&back, err, sizeof(err)), 0);
	assert_memory_equal(&o, &back, sizeof(o));
}

static void absent_options_are_removed_from_the_environment(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
		setenv(variables[i], "/left/over", 1);
	em_options_init(&o);
	o.dram_bytes = 5 * MIB;
	assert_int_equal(em_options_to_env(&o), 0);
	em_options_init(&back);
	assert_int_equal(em_options_from_env(&back, err, sizeof(err)), 0);
	assert_memory_equal(&o, &back, sizeof(o));
}

static void original_names_work_and_are_overridden(void **state)
{
	(void)state;
	setenv("DRAMSIZE", "268435456", 1);
	setenv("SWAPDIR", "/var/a,size=1", 1);
	em_options_init(&o);
	assert_int_equal(em_options_from_env(&o, err, sizeof(err)), 0);
	assert_true(o.dram_bytes == 256 * MIB);
	assert_string_equal(o.swap_path, "/var/a,size=1");
	setenv("SWAPPATH", "/var/b", 1);
	em_options_init(&o);
	assert_int_equal(em_options_from_env(&o, err, sizeof(err)), 0);
	assert_string_equal(o.swap_path, "/var/b");
	setenv("EXTMEM_SWAP", "/var/c", 1);
	setenv("EXTMEM_DRAM", "5M", 1);
	setenv("DRAMSIZE", "not ours", 1);
	em_options_init(&o);
	assert_int_equal(em_options_from_env(&o, err, sizeof(err)), 0);
	assert_string_equal(o.swap_path, "/var/c");
	assert_true(o.dram_bytes == 5 * MIB);
}

static void bad_variable_is_named(void **state)
{
	(void)state;
	setenv("EXTMEM_MIN_MAP", "lots", 1);
	em_options_init(&o);
	assert_int_equal(em_options_from_env(&o, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "EXTMEM_MIN_MAP=lots"));
	setenv("EXTMEM_MIN_MAP", "", 1);
	em_options_init(&o);
	assert_int_equal(em_options_from_env(&o, err, sizeof(err)), 0);
	assert_true(o.min_map_bytes == MIB);
}

static void budget_defaults_to_half_of_memory(void **state)
{
	uint64_t half = em_memory_available_bytes() / 2;

	(void)state;
	em_options_init(&o);
	assert_int_equal(em_options_from_env(&o, err, sizeof(err)), 0);
	assert_true(o.dram_bytes <= half && o.dram_bytes + 4096 > half);
}

static void relative_paths_become_absolute(void **state)
{
	char cwd[3000], want[4096];

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	em_options_init(&o);
	assert_int_equal(set("swap", "x/y"), 0);
	assert_int_equal(set("stats", "./s"), 0);
	assert_int_equal(set("policy", "p.so"), 0);
	assert_int_equal(em_options_absolute(&o, err, sizeof(err)), 0);
	snprintf(want, sizeof(want), "%s/x/y", strcmp(cwd, "/") ? cwd : "");
	assert_string_equal(o.swap_path, want);
	snprintf(want, sizeof(want), "%s/s", strcmp(cwd, "/") ? cwd : "");
	assert_string_equal(o.stats_path, want);
	snprintf(want, sizeof(want), "%s/p.so", strcmp(cwd, "/") ? cwd : "");
	assert_string_equal(o.policy, want);
	assert_string_equal(o.prefetch, "sequential");
	em_options_init(&o);
	assert_int_equal(set("stats", "-"), 0);
	assert_int_equal(em_options_absolute(&o, err, sizeof(err)), 0);
	assert_string_equal(o.stats_path, "-");
	assert_string_equal(o.swap_path, "");
}

static void checks_report_one_line(void **state)
{
	(void)state;
	em_options_init(&o);
	assert_int_equal(set("dram", "10M"), 0);
	assert_int_equal(em_options_check(&o, err, sizeof(err)), 0);
	assert_int_equal(em_options_try_plugins(&o, err, sizeof(err)), 0);
	assert_int_equal(set("policy", "clairvoyant"), 0);
	assert_int_equal(em_options_check(&o, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "2q"));
	assert_non_null(strstr(err, "fifo"));
	assert_int_equal(set("policy", "2q"), 0);
	assert_int_equal(set("prefetch", "/nonexistent/x.so"), 0);
	assert_int_equal(em_options_check(&o, err, sizeof(err)), -EINVAL);
	assert_int_equal(set("prefetch", "none"), 0);
	assert_int_equal(set("stats", "/nonexistent/x"), 0);
	assert_int_equal(em_options_check(&o, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "/nonexistent/x"));
	assert_int_equal(set("stats", "-"), 0);
	store_answer = -EACCES;
	assert_int_equal(em_options_check(&o, err, sizeof(err)), -EINVAL);
	assert_string_equal(err, "swap path (default): bad");
}

/* ---- cgroups ------------------------------------------------------------------------------- */

static char tree[] = "/tmp/extmem-test-XXXXXX";

static void put(const char *name, const char *text)
{
	char path[512], *p;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", tree, name);
	for (p = strchr(path + strlen(tree) + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(path, 0700);
		*p = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static uint64_t limit(const char *cgroup, const char *mountinfo)
{
	char a[512], b[512];

	put("cgroup", cgroup);
	put("mountinfo", mountinfo);
	snprintf(a, sizeof(a), "%s/cgroup", tree);
	snprintf(b, sizeof(b), "%s/mountinfo", tree);
	return em_cgroup_limit_bytes(a, b, tree);
}

static int tree_make(void **state)
{
	(void)state;
	strcpy(tree, "/tmp/extmem-test-XXXXXX");
	return mkdtemp(tree) ? 0 : -1;
}

static int tree_remove(void **state)
{
	char command[600];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", tree);
	return system(command);
}

#define V2 "30 23 0:28 / /cg rw,relatime shared:4 - cgroup2 cgroup2 rw\n"
#define V1 "31 23 0:29 / /v1/memory rw - cgroup cgroup rw,memory\n"

static void nearest_limit_of_the_ancestors_counts(void **state)
{
	(void)state;
	put("cg/a/b/memory.max", "max\n");
	put("cg/a/memory.max", "1048576\n");
	put("cg/c/memory.max", "4096\n");
	put("v1/memory/x y/memory.limit_in_bytes", "8192\n");
	put("v1/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("sp ace/memory.max", "77\n");
	assert_true(limit("0::/a/b\n", V2) == 1048576);
	assert_true(limit("0::/c\n", V2) == 4096);
	assert_true(limit("0::/\n", V2) == UINT64_MAX);
	assert_true(limit("0::/gone/away\n", V2) == UINT64_MAX);
	assert_true(limit("4:cpu,memory:/x y\n0::/a\n", V1 V2) == 8192);
	assert_true(limit("4:cpu:/x y\n", V1) == UINT64_MAX);
	assert_true(limit("4:memory:/\n", V1) == 9223372036854771712ull);
	/* A container: its group is the root of the mount; or that of the name space. */
	assert_true(limit("0::/docker/1\n",
			  "30 23 0:28 /docker/1 /cg/c rw - cgroup2 cgroup2 rw\n") == 4096);
	assert_true(limit("0::/docker/1/b\n",
			  "30 23 0:28 /docker/1 /cg/a rw - cgroup2 cgroup2 rw\n") == 1048576);
	assert_true(limit("0::/\n", "30 23 0:28 /../x /cg/c rw - cgroup2 cgroup2 rw\n") == 4096);
	assert_true(limit("0::/\n", "30 23 0:28 / /sp\\040ace rw - cgroup2 cgroup2 rw\n") == 77);
	assert_true(limit("garbage\n:\n::\n", "garbage\n - \n1 2 3 4 5 - x\n") == UINT64_MAX);
	assert_true(limit("", "") == UINT64_MAX);
	assert_true(em_cgroup_limit_bytes("/nonexistent", "/nonexistent", "") == UINT64_MAX);
}

static uint64_t limit_at(const char *name)
{
	char dir[512];

	snprintf(dir, sizeof(dir), "%s/%s", tree, name);
	return em_cgroup_limit_at(dir);
}

static void limit_is_found_without_proc(void **state)
{
	(void)state;
	put("fs2/memory.max", "1048576\n");
	put("fs1/memory/memory.limit_in_bytes", "8192\n");
	put("fs0/memory.max", "max\n");
	assert_true(limit_at("fs2") == 1048576);
	assert_true(limit_at("fs1") == 8192);
	assert_true(limit_at("fs0") == UINT64_MAX);
	assert_true(limit_at("nothing") == UINT64_MAX);
}

static void throttling_counts_as_a_limit(void **state)
{
	(void)state;
	put("fs3/memory.max", "1048576\n");
	put("fs3/memory.high", "524288\n");
	put("fs4/memory.max", "max\n");
	put("fs4/memory.high", "524288\n");
	put("fs5/memory.max", "1048576\n");
	put("fs5/memory.high", "max\n");
	assert_true(limit_at("fs3") == 524288);
	assert_true(limit_at("fs4") == 524288);
	assert_true(limit_at("fs5") == 1048576);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_with_units_are_binary),
		cmocka_unit_test(what_is_no_size_is_refused),
		cmocka_unit_test(percentages_refer_to_the_whole),
		cmocka_unit_test(list_elements_may_hold_doubled_commas),
		cmocka_unit_test_setup(options_are_set_by_name, clean),
		cmocka_unit_test_setup(bad_values_name_option_and_leave_the_old, clean),
		cmocka_unit_test_setup(environment_round_trip_keeps_everything, clean),
		cmocka_unit_test_setup(absent_options_are_removed_from_the_environment, clean),
		cmocka_unit_test_setup(original_names_work_and_are_overridden, clean),
		cmocka_unit_test_setup(bad_variable_is_named, clean),
		cmocka_unit_test_setup(budget_defaults_to_half_of_memory, clean),
		cmocka_unit_test_setup(relative_paths_become_absolute, clean),
		cmocka_unit_test_setup(checks_report_one_line, clean),
		cmocka_unit_test_setup_teardown(nearest_limit_of_the_ancestors_counts, tree_make,
						tree_remove),
		cmocka_unit_test_setup_teardown(limit_is_found_without_proc, tree_make, tree_remove),
		cmocka_unit_test_setup_teardown(throttling_counts_as_a_limit, tree_make, tree_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
