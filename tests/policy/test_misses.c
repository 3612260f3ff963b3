/* SPDX-License-Identifier: MIT */
/*
 * Miss ratios of the policies on well-known reference strings, beside LRU, which sees every
 * access, unlike a pager.  The table is printed; the promises of 2q are checked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "policy/registry.h"
#include "sim.h"

#define BUDGET 8000u
#define NPAGES 40000u
#define TOUCHES 600000u

static uint32_t *zipf_table; /* popularity by inverse transform, pages shuffled */

static void zipf_setup(void)
{
	uint64_t sum = 0, *cdf = malloc(NPAGES * sizeof(*cdf));
	uint32_t *perm = malloc(NPAGES * sizeof(*perm)), i, k;

	zipf_table = malloc((1u << 20) * sizeof(*zipf_table));
	SIM_CHECK(cdf && perm && zipf_table);
	for (i = 0; i < NPAGES; i++) {
		perm[i] = i;
		cdf[i] = sum += (1ull << 32) / (i + 1);
	}
	for (i = NPAGES - 1; i; i--) {
		uint32_t j = (uint32_t)(sim_random() % (i + 1)), t = perm[i];

		perm[i] = perm[j];
		perm[j] = t;
	}
	for (i = 0, k = 0; k < 1u << 20; k++) {
		while (i < NPAGES - 1 && cdf[i] < sum / (1u << 20) * k)
			i++;
		zipf_table[k] = perm[i];
	}
	free(cdf);
	free(perm);
}

/* The k-th page of a load. */
static uint32_t loop_12(uint64_t k)
{
	return (uint32_t)(k % (BUDGET * 12 / 10));
}

static uint32_t loop_20(uint64_t k)
{
	return (uint32_t)(k % (BUDGET * 2));
}

static uint32_t uniform(uint64_t k)
{
	(void)k;
	return (uint32_t)(sim_random() % (BUDGET * 2));
}

static uint32_t zipf(uint64_t k)
{
	(void)k;
	return zipf_table[sim_random() & ((1u << 20) - 1)];
}

/* Half the budget is hot, every fourth access is the next page of an endless scan. */
static uint32_t hot_and_scan(uint64_t k)
{
	if (k % 4 == 3)
		return BUDGET / 2 + (uint32_t)(k / 4 % (NPAGES - BUDGET / 2));
	return (uint32_t)(sim_random() % (BUDGET / 2));
}

/* The hot half of the budget changes twice. */
static uint32_t phases(uint64_t k)
{
	if (k % 4 == 3)
		return 2 * BUDGET + (uint32_t)(k / 4 % (NPAGES - 2 * BUDGET));
	return (uint32_t)(k / (TOUCHES / 3)) * BUDGET / 2 + (uint32_t)(sim_random() % (BUDGET / 2));
}

/* Loops over twice the budget, then over other pages that would fit. */
static uint32_t loop_then_fits(uint64_t k)
{
	if (k < TOUCHES / 2)
		return (uint32_t)(k % (2 * BUDGET));
	return 2 * BUDGET + (uint32_t)(k % (BUDGET * 9 / 10));
}

static const struct load {
	const char *name;
	uint32_t (*page)(uint64_t k);
} loads[] = {
	{ "loop over 1.2 x budget", loop_12 }, { "loop over 2 x budget", loop_20 },
	{ "uniform, 2 x budget", uniform },    { "zipf, 5 x budget", zipf },
	{ "hot half + scan", hot_and_scan },
	{ "hot set changes", phases },	       { "loop, then a set that fits", loop_then_fits },
};

static double run(const struct extmem_policy_ops *ops, const char *args, const struct load *l)
{
	double ratio;

	sim_seed(11);
	sim_start(ops, args, NPAGES, BUDGET);
	for (uint64_t k = 0; k < TOUCHES; k++)
		sim_touch(l->page(k), k & 1);
	ratio = sim_miss_ratio();
	sim_drain();
	sim_stop();
	return ratio;
}

/* LRU with a doubly linked list; index NPAGES is the list's head. */
static double run_lru(const struct load *l)
{
	static uint32_t next[NPAGES + 1], prev[NPAGES + 1];
	static uint8_t in[NPAGES + 1];
	uint64_t misses = 0, resident = 0;
	const uint32_t head = NPAGES;

	sim_seed(11);
	memset(in, 0, sizeof(in));
	next[head] = prev[head] = head;
	for (uint64_t k = 0; k < TOUCHES; k++) {
		uint32_t p = l->page(k);

		if (!in[p]) {
			misses++;
			if (resident++ == BUDGET) {
				uint32_t v = prev[head];

				in[v] = 0;
				prev[head] = prev[v];
				next[prev[v]] = head;
				resident--;
			}
		} else {
			next[prev[p]] = next[p];
			prev[next[p]] = prev[p];
		}
		in[p] = 1;
		next[p] = next[head];
		prev[p] = head;
		prev[next[p]] = p;
		next[head] = p;
	}
	return (double)misses / TOUCHES;
}

static void miss_ratios(void **state)
{
	(void)state;
	print_message("%-28s %8s %8s %8s %8s %8s\n", "miss ratio, per cent", "fifo", "2q",
		      "fifo(-c)", "2q(-c)", "lru");
	for (unsigned i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		const struct load *l = &loads[i];
		double fifo = run(&em_policy_fifo, "", l), twoq = run(&em_policy_2q, "", l);

		print_message("%-28s %8.2f %8.2f %8.2f %8.2f %8.2f\n", l->name, fifo * 100,
			      twoq * 100, run(&em_policy_fifo, "cluster=off", l) * 100,
			      run(&em_policy_2q, "cluster=off", l) * 100, run_lru(l) * 100);
		assert_true(twoq <= fifo * 1.01);
		if (l->page == hot_and_scan)
			assert_true(twoq < fifo * 0.9);
	}
}

/* One pass over twice the budget; then the hot set is still there. */
static void one_scan_leaves_the_active_set(void **state)
{
	uint32_t hot = BUDGET / 2;
	uint64_t faults;

	(void)state;
	sim_start(&em_policy_2q, "", NPAGES, BUDGET);
	for (uint64_t k = 0; k < TOUCHES / 2; k++)
		sim_touch(hot_and_scan(k), true);
	for (uint32_t i = 0; i < hot; i++)
		sim_touch(i, false);
	for (uint32_t i = NPAGES - 2 * BUDGET; i < NPAGES; i++) {
		sim_touch(i, false);
		sim_touch(i, true); /* read, then write: one use */
	}
	faults = sim.faults;
	for (uint32_t i = 0; i < hot; i++)
		sim_touch(i, false);
	faults = sim.faults - faults;
	print_message("of %u hot pages %lu were pushed out by the scan\n", hot, faults);
	assert_true(faults * 16 < hot);
	sim_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(miss_ratios),
		cmocka_unit_test(one_scan_leaves_the_active_set),
	};

	zipf_setup();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
