/* SPDX-License-Identifier: MIT */
/* The histogram's arithmetic, and the JSON report: well-formed and complete. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "observe/stats.h"

static unsigned nregions;

static void fake_regions(em_stats_region_fn fn, void *arg)
{
	for (unsigned i = 0; i < nregions; i++) {
		/* in an order that is neither up nor down; region k has k faults */
		uint64_t k = i * 37 % nregions;
		struct em_stats_region r = { .start = 0x7f0000000000 + k * 0x200000,
					     .end = 0x7f0000000000 + k * 0x200000 + 0x100000,
					     .kind = "mmap",
					     .s = { .faults_major = k, .pages_in = 1 } };

		fn(arg, &r);
	}
}

void em_stats_collect(struct em_stats_extra *x)
{
	x->pid = 4711;
	x->budget_bytes = 1ull << 40;
	x->resident_bytes = 4096;
	x->delivery = "upcall";
	x->policy = "./a \"quoted\"\\\n\xff.so";
	x->prefetch = "sequential";
	x->features = "wp,move";
	x->regions = fake_regions;
}

static void reset(void **state)
{
	(void)state;
	memset(&em_stats, 0, sizeof(em_stats));
}

static void buckets_are_half_octaves(void **state)
{
	reset(state);
	for (unsigned i = 4; i < EM_STATS_HIST; i++) {
		uint64_t lo = em_stats_bucket_end_ns(i - 1), hi = em_stats_bucket_end_ns(i);

		memset(&em_stats, 0, sizeof(em_stats));
		em_stats_fault_time(lo - 1);
		em_stats_fault_time(lo);
		em_stats_fault_time(hi - 1);
		assert_int_equal(em_stats.fault_hist[i - 1], 1);
		assert_int_equal(em_stats.fault_hist[i], 2);
		assert_int_equal(em_stats.fault_ns_max, hi - 1);
		assert_true((double)hi > 1.3 * (double)lo && (double)hi < 1.52 * (double)lo);
	}
	assert_int_equal(em_stats_bucket_end_ns(63), 1ull << 32);
}

static void extremes(void **state)
{
	reset(state);
	assert_int_equal(em_stats_quantile_ns(&em_stats, 500), 0);
	em_stats_fault_time(0);
	assert_int_equal(em_stats_quantile_ns(&em_stats, 990), 0);
	em_stats_fault_time(UINT64_MAX >> 1);
	assert_int_equal(em_stats.fault_hist[63], 1);
	assert_int_equal(em_stats_quantile_ns(&em_stats, 1000), UINT64_MAX >> 1);
	assert_int_equal(em_stats_count(&em_stats), 2);
}

static void near(uint64_t got, uint64_t want)
{
	if (got * 100 < want * 97 || got * 100 > want * 103)
		print_message("got %lu, want %lu\n", got, want);
	assert_true(got * 100 >= want * 97 && got * 100 <= want * 103);
}

static void quantiles(void **state)
{
	reset(state);
	for (uint64_t ns = 1; ns <= 100000; ns++)
		em_stats_fault_time(ns);
	near(em_stats_quantile_ns(&em_stats, 0), 1);
	near(em_stats_quantile_ns(&em_stats, 100), 10000);
	near(em_stats_quantile_ns(&em_stats, 500), 50000);
	near(em_stats_quantile_ns(&em_stats, 990), 99000);
	assert_int_equal(em_stats_quantile_ns(&em_stats, 1000), 100000);
	assert_int_equal(em_stats.fault_ns_total, 100000ull * 100001 / 2);
	reset(state);
	for (int i = 0; i < 1000; i++)
		em_stats_fault_time(5000);
	assert_true(em_stats_quantile_ns(&em_stats, 500) <= 5000);
	assert_true(em_stats_quantile_ns(&em_stats, 500) >= 4096);
}

static long report(char *buf, size_t len)
{
#define X(name) em_stats.name = 1000 + (uint64_t)offsetof(struct em_stats, name);
	EM_STATS_COUNTERS(X)
#undef X
	return em_stats_json(buf, len);
}

/* Every counter has its place in the report: each has a value of its own here. */
static void every_counter_is_reported(void **state)
{
	char buf[65536], value[32];
	long n;

	reset(state);
	nregions = 0;
	n = report(buf, sizeof(buf) - 1);
	assert_true(n > 0);
	buf[n] = 0;
	assert_int_equal(buf[n - 1], '\n');
#define X(name)                                                                              \
	snprintf(value, sizeof(value), ":%lu", 1000 + offsetof(struct em_stats, name));      \
	if (!strstr(buf, value))                                                             \
		fail_msg("%s is missing", #name);
	EM_STATS_COUNTERS(X)
#undef X
}

static void short_buffer(void **state)
{
	char buf[65536];
	long n;

	reset(state);
	nregions = 3;
	n = report(buf, sizeof(buf));
	assert_true(n > 0);
	assert_int_equal(report(buf, (size_t)n), n);
	buf[n - 1] = 'x';
	assert_int_equal(report(buf, (size_t)n - 1), -ENOSPC);
	assert_int_equal(buf[n - 1], 'x');
	assert_int_equal(report(NULL, 0), -ENOSPC);
}

/* Parsed by another implementation, which checks values, adds up the regions, and looks
   every field up in the documentation. */
static void parses_as_json(void **state)
{
	static const char script[] =
		"python3 -c 'import json,sys; d=json.load(sys.stdin); r=d[\"regions\"];"
		"rest=d[\"regions_rest\"];"
		"assert d[\"extmem\"]==1 and d[\"pid\"]==4711 and d[\"budget_bytes\"]==2**40;"
		"assert d[\"policy\"]==\"./a \\\"quoted\\\"\\\\\\n\\xff.so\", d[\"policy\"];"
		"assert len(r)==64 and rest[\"count\"]==36;"
		"assert [x[\"faults\"][\"major\"] for x in r]==list(range(99,35,-1));"
		"assert rest[\"faults\"][\"major\"]==sum(range(36)) and rest[\"pages\"][\"in\"]==36;"
		"assert rest[\"bytes\"]==36*2**20 and int(r[0][\"end\"],16)-int(r[0][\"start\"],16)"
		"==r[0][\"bytes\"];"
		"assert sum(n for _,n in d[\"fault_time_ns\"][\"histogram\"])==2;"
		"doc=open(\"" STATISTICS_MD "\").read();"
		"keys=[k for k in d]+[k+\".\"+j for k in d if isinstance(d[k],dict) for j in d[k]]"
		"+[\"regions[].\"+k for k in r[0]];"
		"missing=[k for k in keys if \"`\"+k+\"`\" not in doc];"
		"assert not missing, missing'";
	static char buf[65536];
	FILE *f;
	long n;

	if (system("python3 -c 0 2>/dev/null"))
		skip();
	reset(state);
	nregions = 100;
	em_stats_fault_time(1);
	em_stats_fault_time(5000);
	n = report(buf, sizeof(buf));
	assert_true(n > 0);
	f = popen(script, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(buf, 1, (size_t)n, f), n);
	assert_int_equal(pclose(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_are_half_octaves),
		cmocka_unit_test(extremes),
		cmocka_unit_test(quantiles),
		cmocka_unit_test(every_counter_is_reported),
		cmocka_unit_test(short_buffer),
		cmocka_unit_test(parses_as_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
