/* SPDX-License-Identifier: MIT */
/* Reading around lone faults: begins where access is dense, ends where it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/policy/registry.h"
#include "../../src/prefetch/around.h"
#include "sim.h"

#define BASE 0x7f1200000ull
#define NPAGES (1u << 20)
#define ZONE 512u

static struct em_around around;
static uint64_t faults, named;

static void begin(uint64_t budget)
{
	memset(&around, 0, sizeof(around));
	faults = named = 0;
	sim.budget = budget;
	assert_int_equal(em_around_init(&around, &sim_host), 0);
}

static void fault(uint64_t i)
{
	struct extmem_fault f = { .page = BASE + i, .npages = 1, .region_first = BASE,
				  .region_end = BASE + NPAGES, .window_max = 256 };
	struct extmem_range out;

	faults++;
	if (!em_around_fault(&around, &f, &out))
		return;
	assert_true(out.first <= f.page && f.page < out.first + out.npages);
	assert_true(out.npages <= EM_AROUND_PAGES);
	named += out.npages;
}

static void sparse(uint64_t n)
{
	while (n--)
		fault(sim_random() % NPAGES);
}

/* Zone after zone, each in no order. */
static void dense(uint64_t zones)
{
	for (uint64_t z = 0; z < zones; z++)
		for (uint64_t i = 0; i < ZONE; i++)
			fault(z % (NPAGES / ZONE) * ZONE + i * 347 % ZONE);
}

static void sparse_access_is_left_alone(void **state)
{
	(void)state;
	begin(10000);
	sparse(500000);
	assert_int_equal(named, 0);
}

static void dense_access_is_read_around(void **state)
{
	(void)state;
	begin(10000);
	dense(200);
	print_message("%lu faults, %lu pages named\n", faults, named);
	assert_true(named > faults * EM_AROUND_PAGES / 2);
}

static void ends_when_access_turns_sparse(void **state)
{
	uint64_t before;

	(void)state;
	begin(10000);
	dense(200);
	sparse(20000);
	before = named;
	sparse(20000);
	assert_int_equal(named, before);
}

/* What comes back later than a neighbour would have stayed is no gain. */
static void too_late_does_not_count(void **state)
{
	(void)state;
	begin(1000);
	for (int round = 0; round < 8; round++)
		for (uint64_t group = 0; group < 20000; group++)
			fault(group * EM_AROUND_PAGES + (uint64_t)round);
	assert_int_equal(named, 0);
}

static void a_large_budget_watches_fewer_groups(void **state)
{
	(void)state;
	begin(16ull << 20);
	dense(2000);
	assert_true(named > 0);
}

static void stays_within_the_mapping(void **state)
{
	struct extmem_fault f = { .npages = 1, .window_max = 256 };
	struct extmem_range out;
	int seen = 0;

	(void)state;
	begin(10000);
	dense(200);
	for (uint64_t i = 0; i < 64; i++) {
		f.page = BASE + i * EM_AROUND_PAGES + 3;
		f.region_first = f.page - 1;
		f.region_end = f.page + 2;
		if (!em_around_fault(&around, &f, &out))
			continue;
		assert_int_equal(out.first, f.page - 1);
		assert_int_equal(out.npages, 3);
		seen++;
	}
	assert_true(seen > 32);
}

/* A stream, either way, is still one when its first faults were read around. */
static void streams_begin_all_the_same(void **state)
{
	const struct extmem_prefetch_ops *ops = &em_prefetch_sequential;
	struct extmem_stream stream = { { 0 } };
	struct extmem_range out[4];
	char err[100];
	void *q;

	(void)state;
	for (int back = 0; back < 2; back++) {
		uint64_t page = BASE + NPAGES / 2, longest = 0;

		sim.budget = 10000;
		assert_int_equal(ops->init(&sim_host, "", &q, err, sizeof(err)), 0);
		memset(&stream, 0, sizeof(stream));
		for (uint64_t i = 0; i < 200 * ZONE; i++) {
			struct extmem_fault f = { .page = BASE + i / ZONE * ZONE + i * 347 % ZONE,
						  .npages = 1, .region_first = BASE,
						  .region_end = BASE + NPAGES, .window_max = 256 };
			ops->fault(q, &stream, &f, out, 4);
		}
		for (int k = 0; k < 40 && longest < 16; k++) {
			struct extmem_fault f = { .page = page, .npages = 1, .region_first = BASE,
						  .region_end = BASE + NPAGES, .window_max = 256 };
			size_t n = ops->fault(q, &stream, &f, out, 4);
			uint64_t step = 1;

			if (n && out[0].npages > longest)
				longest = out[0].npages;
			if (n && out[0].first <= page && page < out[0].first + out[0].npages)
				step = back ? page - out[0].first + 1
					    : out[0].first + out[0].npages - page;
			page = back ? page - step : page + step;
		}
		assert_true(longest >= 16);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sparse_access_is_left_alone),
		cmocka_unit_test(dense_access_is_read_around),
		cmocka_unit_test(ends_when_access_turns_sparse),
		cmocka_unit_test(too_late_does_not_count),
		cmocka_unit_test(a_large_budget_watches_fewer_groups),
		cmocka_unit_test(stays_within_the_mapping),
		cmocka_unit_test(streams_begin_all_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
