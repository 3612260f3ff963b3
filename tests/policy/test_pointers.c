/* SPDX-License-Identifier: MIT */
/* What pages point to: brought in once it shows that it is missed, and only then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/policy/args.h"
#include "../../src/policy/registry.h"
#include "../../src/prefetch/pointers.h"
#include "sim.h"

#define BASE 0x7f1200000ull
#define NPAGES (1u << 16)
#define WORDS 4096u
#define MOST 1024u

static struct em_pointers pointers;
static uint64_t word[WORDS];
static extmem_page_t out[MOST];

static int is_out(extmem_page_t page)
{
	return page >= BASE && page < BASE + NPAGES && page % 2;
}

static void begin(const char *args)
{
	static struct extmem_policy_host host;
	struct em_arg a;

	memset(&pointers, 0, sizeof(pointers));
	host = sim_host;
	host.is_out = is_out;
	assert_int_equal(em_pointers_init(&pointers, &host), 0);
	if (em_args_next(&args, &a))
		assert_true(em_pointers_arg(&pointers, &a));
}

static extmem_page_t target(size_t i)
{
	return word[i] >> 12;
}

/* Words of which every third is an address. */
static size_t find(bool in_order, size_t max)
{
	size_t n, k = 0;

	for (size_t i = 0; i < WORDS; i++)
		word[i] = i % 3 ? (uint64_t)sim_random() << 47 | i : (BASE + sim_random() % NPAGES) << 12 | i % 4096;
	memset(out, 0, sizeof(out));
	n = em_pointers_find(&pointers, in_order, word, WORDS, out, max);
	assert_true(n <= max);
	for (size_t i = 0; i < WORDS && k < n; i++)
		k += target(i) == out[k];
	assert_int_equal(k, n); /* in that order */
	for (k = 0; k < n; k++)
		assert_true(is_out(out[k]));
	return n;
}

static void miss_all(void)
{
	for (size_t i = 0; i < WORDS; i += 3)
		if (is_out(target(i)))
			em_pointers_fault(&pointers, target(i));
}

static void what_is_missed_is_brought_in(void **state)
{
	size_t n = 0;

	(void)state;
	begin("");
	assert_int_equal(find(true, MOST), 0);
	for (int turn = 0; turn < 20; turn++) {
		miss_all();
		n = find(true, MOST);
	}
	/* Some are watched, and are not among them. */
	assert_in_range(n, WORDS / 6 * 85 / 100, WORDS / 6);
	assert_int_equal(find(true, 10), 10);
	assert_int_equal(find(false, MOST), 0);
	/* Nobody comes for them any more. */
	for (int turn = 0; turn < 20; turn++)
		n = find(true, MOST);
	assert_int_equal(n, 0);
}

static void what_is_not_missed_is_left_alone(void **state)
{
	(void)state;
	begin("pointers=on");
	for (int turn = 0; turn < 50; turn++) {
		em_pointers_fault(&pointers, BASE + sim_random() % NPAGES);
		assert_int_equal(find(true, MOST), 0);
	}
}

static void arguments(void **state)
{
	(void)state;
	begin("pointers=always");
	assert_true(find(false, MOST) > 0);
	begin("pointers=off");
	for (int turn = 0; turn < 20; turn++) {
		assert_int_equal(find(true, MOST), 0);
		miss_all();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_missed_is_brought_in),
		cmocka_unit_test(what_is_not_missed_is_left_alone),
		cmocka_unit_test(arguments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
