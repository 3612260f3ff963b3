/* SPDX-License-Identifier: MIT */
/* What every policy promises, whatever its order: see include/extmem/policy.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "policy/queue.h"
#include "policy/registry.h"
#include "sim.h"

#define ops_of(state) ((const struct extmem_policy_ops *)*(state))

static void mixed_load(uint64_t npages, uint64_t touches)
{
	for (uint64_t k = 0; k < touches; k++) {
		uint64_t r = sim_random(), i = r % npages;

		switch (r / npages % 64) {
		case 0:
			for (uint64_t j = i; j < npages && j < i + 40; j++)
				sim_gone(j);
			break;
		case 1:
			if (sim.page[i].state == SIM_RESIDENT)
				sim_event(i, EXTMEM_EV_COLD, 0);
			break;
		case 2:
			if (sim.page[i].state == SIM_RESIDENT)
				sim_event(i, EXTMEM_EV_REFERENCE, 0);
			break;
		case 3:
			sim.page[i].held ^= sim.resident < sim.budget / 2;
			break;
		case 4: /* the engine evicts on its own: MADV_PAGEOUT */
			if (sim.page[i].state != SIM_RESIDENT)
				break;
			sim.page[i].state = SIM_SWAPPED;
			sim.page[i].went_out = ++sim.evicted;
			sim.page[i].dirty = 0;
			sim.resident--;
			sim_event(i, EXTMEM_EV_EVICTED, 0);
			break;
		default:
			sim_touch(i, r >> 40 & 1);
		}
	}
}

static void no_page_is_lost_or_named_twice(void **state)
{
	static const uint64_t budgets[] = { 256, 1000, 5000 };

	for (unsigned b = 0; b < 3; b++) {
		for (uint64_t seed = 1; seed <= 8; seed++) {
			sim_seed(seed);
			sim_start(ops_of(state), seed & 1 ? "cluster=on" : "cluster=off",
				  budgets[b] * 2, budgets[b]);
			mixed_load(budgets[b] * 2, 60000);
			for (uint64_t i = 0; i < sim.npages; i++)
				sim.page[i].held = 0;
			sim_drain();
			sim_stop();
		}
	}
}

static void budget_may_change(void **state)
{
	sim_start(ops_of(state), "", 40000, 256);
	for (int step = 0; step < 8; step++) {
		for (uint64_t i = 0; i < sim.npages; i++)
			sim.page[i].held = 0;
		sim.budget = step & 1 ? 256 : 4096u << step / 2;
		mixed_load(40000, 30000);
		if (sim.resident > sim.budget)
			while (sim.resident > sim.budget)
				SIM_CHECK(sim_reclaim(SIM_RECLAIM) || sim.queued);
	}
	for (uint64_t i = 0; i < sim.npages; i++)
		sim.page[i].held = 0;
	sim_drain();
	sim_stop();
}

/* Another thread may fault a page in before the event of its departure is sent. */
static void late_departures_lose_no_page(void **state)
{
	sim_start(ops_of(state), "", 1000, 500);
	for (uint64_t k = 0; k < 20000; k++) {
		uint64_t i = sim_random() % sim.npages;

		sim_touch(i, true);
		if (k % 3)
			continue;
		/* the engine's: arrived above, and only now told of the departure before */
		sim_event(i, k & 1 ? EXTMEM_EV_EVICTED : EXTMEM_EV_GONE, 0);
		sim.page[i].in_hands = 1;
	}
	sim_drain();
	sim_stop();
}

/* One buffer mapped and unmapped for ever must not grow the lists. */
static void churn_does_not_grow_the_lists(void **state)
{
	uint64_t before;

	sim_start(ops_of(state), "", 4096, 4096);
	for (uint64_t i = 0; i < 1000; i++)
		sim_touch(i, true);
	before = sim.alloc_bytes;
	for (int round = 0; round < 5000; round++) {
		for (uint64_t i = 2000; i < 2256; i++)
			sim_touch(i, true);
		for (uint64_t i = 2000; i < 2256; i++)
			sim_gone(i);
	}
	assert_true(sim.alloc_bytes - before <= 12 * 4096);
	sim_drain();
	sim_stop();
}

static void eight_bytes_a_resident_page(void **state)
{
	sim_start(ops_of(state), "", 200000, 100000);
	for (uint64_t i = 0; i < 1500000; i++)
		sim_touch(sim_random() % 200000, true);
	print_message("%s: %.2f bytes a page\n", sim.ops->name,
		      (double)sim.alloc_bytes / (double)sim.budget);
	assert_true(sim.alloc_bytes <= 8 * sim.budget + 16 * 4096);
	sim_drain();
	sim_stop();
}

static void survives_without_memory(void **state)
{
	sim_start(ops_of(state), "", 20000, 10000);
	for (uint64_t i = 0; i < 3000; i++)
		sim_touch(i, true);
	sim.alloc_fails = true;
	for (uint64_t i = 3000; i < 9000; i++)
		sim_touch(i, true);
	sim_flush();
	/* pages that found no room are met as neighbours of others, or not at all */
	SIM_CHECK(sim_reclaim(SIM_RECLAIM) > 0);
	sim.alloc_fails = false;
	for (uint64_t i = 0; i < 60000; i++)
		sim_touch(sim_random() % 2500, true);
	sim_stop();
}

static void clusters_neighbours(void **state)
{
	uint64_t with, without;

	for (int on = 0; on < 2; on++) {
		sim_seed(7);
		sim_start(ops_of(state), on ? "cluster=on" : "cluster=off", 40000, 20000);
		for (uint64_t i = 0; i < 300000; i++)
			sim_touch(sim_random() % 40000, true);
		*(on ? &with : &without) = sim.blocks_protected;
		sim_stop();
	}
	print_message("%s: write protections, random writes: %lu, clustered %lu\n",
		      ops_of(state)->name, without, with);
	assert_true(with * 8 < without);
}

static void refuses_unknown_arguments(void **state)
{
	void *policy;
	char err[100] = "", tiny[8];

	assert_int_not_equal(ops_of(state)->init(&sim_host, "cluster=maybe", &policy, err,
						 sizeof(err)), 0);
	assert_non_null(strstr(err, "'cluster=maybe'"));
	assert_int_not_equal(ops_of(state)->init(&sim_host, "x", &policy, tiny, sizeof(tiny)), 0);
	assert_int_equal(strlen(tiny), sizeof(tiny) - 1);
}

/* Evict and see in which order pages leave. */
static void fifo_is_first_in_first_out(void **state)
{
	extmem_page_t out[10];

	(void)state;
	sim_start(&em_policy_fifo, "cluster=off", 100, 100);
	for (uint64_t i = 0; i < 50; i++)
		sim_touch(i * 7 % 50, true);
	sim_gone(7);
	sim_flush();
	assert_int_equal(sim.ops->evict(sim.state, 10, out), 10);
	for (uint64_t i = 0, k = 0; i < 10; i++, k++) {
		k += k * 7 % 50 == 7;
		assert_int_equal(out[i], sim.base + k * 7 % 50);
	}
	sim_stop();
}

static void cold_pages_go_first(void **state)
{
	extmem_page_t out[3];

	(void)state;
	sim_start(&em_policy_2q, "", 100, 100);
	for (uint64_t i = 0; i < 50; i++)
		sim_touch(i, true);
	sim_event(30, EXTMEM_EV_COLD, 0);
	sim_event(31, EXTMEM_EV_COLD, 0);
	sim_flush();
	assert_int_equal(sim.ops->evict(sim.state, 3, out), 3);
	assert_int_equal(out[0], (sim.base + 30) | EXTMEM_VICTIM_FAR);
	assert_int_equal(out[1], (sim.base + 31) | EXTMEM_VICTIM_FAR);
	assert_int_equal(out[2], sim.base);
	sim_stop();
}

static void start_touched(uint64_t n)
{
	sim_start(&em_policy_2q, "cluster=off", 1000, 1000);
	for (uint64_t i = 0; i < n; i++)
		sim_touch(i, true);
}

static void comes_back(uint64_t i, uint32_t info)
{
	sim.page[i].state = SIM_RESIDENT;
	sim.resident++;
	sim_event(i, EXTMEM_EV_SWAP_IN, info);
}

static void expect_victims(size_t want, extmem_page_t *out)
{
	assert_int_equal(sim.ops->evict(sim.state, want, out), want);
}

/* What was out for longer than out=P leaves before anything else, but for a short list, and when no more of
   that comes the list is given up; a neighbour of what was touched is not active however soon it is back. */
static void far_pages_go_first(void **state)
{
	extmem_page_t out[200];

	(void)state;
	start_touched(200);
	for (uint64_t i = 200; i < 380; i++)
		comes_back(i, 2001 | (i & 1 ? EXTMEM_NEIGHBOUR : 0));
	for (uint64_t i = 380; i < 390; i++)
		comes_back(i, 5 | EXTMEM_NEIGHBOUR);
	sim_flush();
	expect_victims(100, out);
	for (size_t k = 0; k < 100; k++)
		assert_true(k < 80 ? out[k] == ((sim.base + 200 + k) | EXTMEM_VICTIM_FAR)
				   : out[k] == sim.base + k - 80);
	expect_victims(199, out);
	for (size_t k = 0; k < 25; k++)
		assert_true(out[k] == ((sim.base + 280 + k) | EXTMEM_VICTIM_FAR));
	for (size_t k = 25; k < 199; k++)
		assert_true(out[k] == sim.base + k - 5);
	expect_victims(39, out);
	for (size_t k = 5; k < 21; k++)
		assert_true(out[k] == sim.base + (k < 11 ? 189 + k : 369 + k));
	sim_stop();
}

/* Advice for pages behind others in the list does not take those along. */
static void advice_spares_what_came_just_now(void **state)
{
	extmem_page_t out[10];

	(void)state;
	start_touched(200);
	for (uint64_t i = 200; i < 240; i++)
		comes_back(i, 2001);
	for (uint64_t i = 100; i < 110; i++)
		sim_event(i, EXTMEM_EV_COLD, 0);
	sim_flush();
	expect_victims(10, out);
	for (size_t k = 0; k < 10; k++)
		assert_true(out[k] == ((sim.base + 100 + k) | EXTMEM_VICTIM_FAR));
	comes_back(240, 2001);
	sim_flush();
	expect_victims(1, out);
	assert_true(out[0] == sim.base);
	sim_stop();
}

/* An old page that was written has a second chance, a young one has not. */
static void old_references_count(void **state)
{
	extmem_page_t out[200];
	size_t n, seen = 0;

	(void)state;
	sim_start(&em_policy_2q, "cluster=off", 1000, 1000);
	for (uint64_t i = 0; i < 200; i++) {
		sim_touch(i, true);
		if (i >= 100)
			sim_event(i, EXTMEM_EV_WRITE, 0); /* at once: the same use */
	}
	sim_flush();
	for (uint64_t i = 0; i < 50; i++)
		sim_event(i, EXTMEM_EV_WRITE, 0);
	sim_flush();
	n = sim.ops->evict(sim.state, 150, out);
	assert_int_equal(n, 150);
	for (size_t k = 0; k < n; k++)
		seen += out[k] < sim.base + 50;
	assert_int_equal(seen, 0);
	sim_stop();
}

static int use_fifo(void **state)
{
	*state = (void *)&em_policy_fifo;
	return 0;
}

static int use_2q(void **state)
{
	*state = (void *)&em_policy_2q;
	return 0;
}

#define BOTH(f) { "fifo " #f, f, use_fifo, NULL, NULL }, { "2q " #f, f, use_2q, NULL, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(no_page_is_lost_or_named_twice),
		BOTH(budget_may_change),
		BOTH(late_departures_lose_no_page),
		BOTH(churn_does_not_grow_the_lists),
		BOTH(eight_bytes_a_resident_page),
		BOTH(survives_without_memory),
		BOTH(clusters_neighbours),
		BOTH(refuses_unknown_arguments),
		cmocka_unit_test(fifo_is_first_in_first_out),
		cmocka_unit_test(cold_pages_go_first),
		cmocka_unit_test(far_pages_go_first),
		cmocka_unit_test(advice_spares_what_came_just_now),
		cmocka_unit_test(old_references_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
