/* SPDX-License-Identifier: MIT */
/*
 * The sequential prefetcher against a toy engine: every page is in the store, a page
 * named is staged LATENCY touches later, and a touch of a staged page maps the whole run of
 * staged pages after it.  Coverage: pages that the program did not wait a whole read for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "policy/registry.h"
#include "sim.h"

#define NPAGES 20000u
#define BASE 0x7f1200000ull
#define LATENCY 3
#define RUN_MAX 64

static struct {
	uint64_t ready[NPAGES]; /* 0: in the store, 1: mapped, else staged at that time */
	uint64_t now, misses, hits, late, named, faults;
	struct extmem_stream stream;
	void *state;
	uint8_t advice;
	uint32_t window_max;
} e;

static const struct extmem_prefetch_ops *const ops = &em_prefetch_sequential;

static void engine_start(void)
{
	char err[100];

	memset(&e, 0, sizeof(e));
	e.now = 10;
	e.window_max = 256;
	assert_int_equal(ops->init(&sim_host, "", &e.state, err, sizeof(err)), 0);
}

static void engine_fault(uint64_t i, uint32_t npages, bool hit)
{
	struct extmem_range out[4];
	struct extmem_fault f = { .page = BASE + i, .npages = npages, .hit = hit,
				  .advice = e.advice, .region_first = BASE,
				  .region_end = BASE + NPAGES, .window_max = e.window_max };
	size_t n;

	e.faults++;
	n = ops->fault(e.state, &e.stream, &f, out, 4);
	SIM_CHECK(n <= 4);
	for (size_t k = 0; k < n; k++) {
		SIM_CHECK(out[k].npages > 0 && out[k].npages <= e.window_max);
		SIM_CHECK(out[k].first >= BASE && out[k].first + out[k].npages <= BASE + NPAGES);
		for (uint64_t p = out[k].first - BASE; p < out[k].first - BASE + out[k].npages; p++) {
			if (e.ready[p])
				continue;
			e.ready[p] = e.now + LATENCY;
			e.named++;
		}
	}
}

static void touch(uint64_t i)
{
	uint32_t n = 0;

	e.now++;
	if (e.ready[i] == 1)
		return;
	if (!e.ready[i]) {
		e.misses++;
		e.ready[i] = 1;
		engine_fault(i, 1, false);
		return;
	}
	e.hits++;
	e.late += e.ready[i] > e.now;
	do
		e.ready[i + n++] = 1;
	while (n < RUN_MAX && i + n < NPAGES && e.ready[i + n] > 1 && e.ready[i + n] <= e.now);
	engine_fault(i, n, true);
}

static void expect_covered(const char *what, uint64_t touched)
{
	print_message("%-32s %5lu touched %5lu missed %5lu late %6lu named\n", what, touched,
		      e.misses, e.late, e.named);
	assert_true(e.misses * 20 < touched);
	assert_true(e.late * 20 < touched);
	assert_true(e.named < touched * 11 / 10 + e.window_max);
}

static void forward(void **state)
{
	(void)state;
	engine_start();
	for (uint64_t i = 100; i < 5000; i++)
		touch(i);
	expect_covered("forward", 4900);
}

static void forward_to_the_end(void **state)
{
	(void)state;
	engine_start();
	for (uint64_t i = 15000; i < NPAGES; i++)
		touch(i);
	expect_covered("forward to the end", 5000);
}

static void backward(void **state)
{
	(void)state;
	engine_start();
	for (uint64_t i = 5000; i-- > 0;)
		touch(i);
	expect_covered("backward to the start", 5000);
}

static void strides(void **state)
{
	static const int stride[] = { 2, 3, 7, 16, -2, -5, -16 };
	char what[32];

	(void)state;
	for (unsigned k = 0; k < 7; k++) {
		engine_start();
		for (int64_t i = 0; i < 1000; i++)
			touch((uint64_t)((stride[k] < 0 ? 16500 : 500) + i * stride[k]));
		snprintf(what, sizeof(what), "stride %d", stride[k]);
		expect_covered(what, 1000);
	}
}

static void interleaved(void **state)
{
	(void)state;
	engine_start();
	for (uint64_t i = 0; i < 3000; i++) {
		touch(i);
		touch(10000 + i);
	}
	expect_covered("two streams", 6000);
	engine_start();
	for (uint64_t i = 0; i < 3000; i++) {
		touch(i);
		touch(10000 - i);
		touch(12000 + i);
		touch(16000 + i);
	}
	expect_covered("four streams, one backward", 12000);
}

static void stream_among_random(void **state)
{
	uint64_t misses = 0;

	(void)state;
	engine_start();
	for (uint64_t i = 0; i < 4000; i++) {
		uint64_t before = e.misses;

		touch(i);
		misses += e.misses - before;
		touch(5000 + sim_random() % 15000);
	}
	print_message("a stream among random faults: %lu of 4000 missed\n", misses);
	assert_true(misses * 20 < 4000);
}

/* One page of the stream for every twelve random faults: a thread's own memory of single faults is too short. */
static void slow_stream_among_random(void **state)
{
	(void)state;
	for (int backward = 0; backward < 2; backward++) {
		uint64_t misses = 0;

		engine_start();
		for (uint64_t i = 0; i < 3200; i++) {
			uint64_t before = e.misses;

			touch(backward ? 3999 - i : 100 + i);
			misses += e.misses - before;
			for (int k = 0; k < 12; k++) {
				uint64_t p = 5000 + sim_random() % 15000;

				e.ready[p] = 0;
				touch(p);
			}
		}
		print_message("a slow stream, %s: %lu of 3200 missed, %lu named\n",
			      backward ? "backward" : "forward", misses, e.named);
		assert_true(misses * 12 < 3200);
		assert_true(e.named < 3200 + 12 * 3200 / 20);
	}
}

static void advised(void **state)
{
	(void)state;
	engine_start();
	e.advice = EXTMEM_ADVICE_SEQUENTIAL;
	touch(100);
	assert_true(e.named >= 32);
	engine_start();
	e.advice = EXTMEM_ADVICE_RANDOM;
	for (uint64_t i = 0; i < 1000; i++)
		touch(i);
	assert_int_equal(e.named, 0);
}

static void random_prefetches_next_to_nothing(void **state)
{
	uint64_t faults = 0, named = 0;

	(void)state;
	for (int round = 0; round < 10; round++) {
		sim_seed((uint64_t)round);
		engine_start();
		for (int i = 0; i < 20000; i++) {
			uint64_t p = sim_random() % NPAGES;

			e.ready[p] = 0; /* evicted meanwhile: every touch faults */
			touch(p);
		}
		faults += e.faults;
		named += e.named;
	}
	print_message("random: %lu faults, %lu pages named\n", faults, named);
	assert_true(named * 50 < faults);
}

static void random_costs_next_to_nothing(void **state)
{
	struct extmem_range out[4];
	struct extmem_fault f = { .npages = 1, .region_first = BASE, .region_end = BASE << 1,
				  .window_max = 256 };
	struct timespec a, b;
	double ns, best = 1e9;

	(void)state;
	engine_start();
	for (int round = 0; round < 5; round++) {
		clock_gettime(CLOCK_MONOTONIC, &a);
		for (uint64_t i = 0; i < 200000; i++) {
			f.page = BASE + (i * 0x9e3779b97f4a7c15ull >> 36);
			ops->fault(e.state, &e.stream, &f, out, 4);
		}
		clock_gettime(CLOCK_MONOTONIC, &b);
		ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
		best = ns / 200000 < best ? ns / 200000 : best;
	}
	print_message("random: %.1f ns a fault\n", best);
	assert_true(best < 500); /* meant: 50; a busy or instrumented machine is slower */
}

/* Told that its pages are dropped unused, it asks for fewer. */
static void waste_shrinks_the_window(void **state)
{
	uint64_t before, grown, shrunk;

	(void)state;
	engine_start();
	for (uint64_t i = 0; i < 3000; i++)
		touch(i);
	before = e.named;
	for (uint64_t i = 3000; i < 4000; i++)
		touch(i);
	for (grown = 0; e.ready[3999 + grown + 1]; grown++)
		;
	for (int k = 0; k < 8; k++)
		ops->wasted(e.state, BASE + 3999 + grown - (uint64_t)k, 1);
	engine_fault(4000, 1, true);
	before = e.named;
	engine_fault(4000 + (uint32_t)grown, 1, true);
	shrunk = e.named - before;
	print_message("window %lu, after waste %lu\n", grown, shrunk);
	assert_true(grown >= 64);
	assert_true(shrunk * 4 <= grown);
}

static void hands_tied(void **state)
{
	(void)state;
	engine_start();
	e.window_max = 0;
	for (uint64_t i = 0; i < 1000; i++)
		touch(i);
	assert_int_equal(e.named, 0);
}

/* All is in the store again, and what was named for nothing is told. */
static void forget_all(void)
{
	for (uint64_t i = 0; i < NPAGES; i++)
		if (e.ready[i] > 1)
			ops->wasted(e.state, BASE + i, 1);
	memset(e.ready, 0, sizeof(e.ready));
}

static void short_lists(unsigned n)
{
	while (n--) {
		uint64_t at = sim_random() % (NPAGES - 8);

		for (uint64_t i = at; i < at + 6; i++)
			touch(i);
		forget_all();
	}
}

/* What is read ahead of short streams is wasted, and then only long ones are. */
static void waste_makes_careful(void **state)
{
	uint64_t named;

	(void)state;
	engine_start();
	short_lists(2000);
	named = e.named;
	short_lists(1000);
	print_message("short lists: %lu named at first, %lu later\n", named, e.named - named);
	assert_true((e.named - named) * 10 < named / 2);
	e.misses = 0;
	for (uint64_t i = 100; i < 3000; i++)
		touch(i);
	assert_true(e.misses * 10 < 2900);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forward),
		cmocka_unit_test(forward_to_the_end),
		cmocka_unit_test(backward),
		cmocka_unit_test(strides),
		cmocka_unit_test(interleaved),
		cmocka_unit_test(stream_among_random),
		cmocka_unit_test(slow_stream_among_random),
		cmocka_unit_test(advised),
		cmocka_unit_test(random_prefetches_next_to_nothing),
		cmocka_unit_test(random_costs_next_to_nothing),
		cmocka_unit_test(waste_shrinks_the_window),
		cmocka_unit_test(hands_tied),
		cmocka_unit_test(waste_makes_careful),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
