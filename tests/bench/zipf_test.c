/* SPDX-License-Identifier: MIT */
/* The distribution of keys and the histogram of latencies are what they claim to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../bench/workloads/histogram.h"
#include "../../bench/workloads/util.h"
#include "../../bench/workloads/zipf.h"

#define RANKS 1000u
#define DRAWS 1000000u

static void shares_follow_the_power_law(void **state)
{
	static unsigned count[RANKS];
	struct zipf z;

	(void)state;
	memset(count, 0, sizeof(count));
	zipf_init(&z, RANKS, 0.99);
	for (uint64_t i = 0; i < DRAWS; i++)
		count[zipf_rank(&z, (double)(wl_mix64(i + 1) >> 11) * 0x1p-53)]++;
	/* The first two are exact, the others an approximation. */
	assert_in_range(count[0], DRAWS / z.zeta * 0.98, DRAWS / z.zeta * 1.02);
	assert_in_range(count[1], DRAWS / z.zeta * 0.49, DRAWS / z.zeta * 0.52);
	assert_in_range(count[99], DRAWS / z.zeta * 0.007, DRAWS / z.zeta * 0.014);
	assert_in_range(count[RANKS - 1], 1, DRAWS / z.zeta * 0.002);
}

static void ranks_stay_in_range(void **state)
{
	struct zipf z;

	(void)state;
	for (uint64_t n = 2; n < 2000; n = n * 3 / 2 + 1) {
		zipf_init(&z, n, 0.99);
		assert_int_equal(zipf_rank(&z, 0), 0);
		assert_in_range(zipf_rank(&z, 1 - 0x1p-53), 0, n - 1);
	}
}

static void buckets_are_contiguous_and_narrow(void **state)
{
	(void)state;
	for (unsigned b = 0; b + 1 < HISTOGRAM_BUCKETS; b++) {
		uint64_t low = histogram_value(b), next = histogram_value(b + 1);

		assert_true(next > low);
		assert_int_equal(histogram_bucket(low), b);
		assert_int_equal(histogram_bucket(next - 1), b);
		assert_true(next - low <= low / HISTOGRAM_SUB + 1);
	}
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void percentiles_of_known_values(void **state)
{
	static struct histogram h, other;

	(void)state;
	assert_int_equal(histogram_percentile(&h, 99), 0);
	for (uint64_t i = 0; i < 990; i++)
		histogram_add(&h, 10);
	for (uint64_t i = 0; i < 10; i++)
		histogram_add(&other, 1000000);
	histogram_merge(&h, &other);
	assert_int_equal(histogram_percentile(&h, 50), 10);
	assert_int_equal(histogram_percentile(&h, 98.9), 10);
	assert_in_range(histogram_percentile(&h, 99), 960000, 1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_follow_the_power_law),
		cmocka_unit_test(ranks_stay_in_range),
		cmocka_unit_test(buckets_are_contiguous_and_narrow),
		cmocka_unit_test(percentiles_of_known_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
