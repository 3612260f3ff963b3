/* SPDX-License-Identifier: MIT */
/*
 * A check that cannot fail checks nothing: touch must notice pages that are zero, stale, or
 * another page's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../bench/workloads/touch.h"

#define PAGES 16u

static uint64_t memory[PAGES * WL_PAGE_WORDS];
static uint8_t version[PAGES];
static struct touch_options options = {.verify = TOUCH_VERIFY_FULL};
static struct touch_worker worker;

static int setup(void **state)
{
	(void)state;
	memset(version, 0, sizeof(version));
	worker = (struct touch_worker){
		.o = &options, .memory = memory, .version = version, .pages = PAGES};
	touch_fill(&worker);
	return 0;
}

static void sound_memory_passes(void **state)
{
	(void)state;
	touch_page(&worker, 3, true);
	touch_page(&worker, 3, false);
	touch_verify(&worker);
	assert_int_equal(worker.errors, 0);
}

static void stale_or_foreign_compressible_page_is_noticed(void **state)
{
	struct touch_options compressible = options;

	(void)state;
	compressible.distinct = 100;
	worker.o = &compressible;
	touch_fill(&worker);
	touch_verify(&worker);
	assert_int_equal(worker.errors, 0);
	memset(&memory[5 * WL_PAGE_WORDS], 0, WL_PAGE_BYTES);
	memcpy(&memory[2 * WL_PAGE_WORDS], &memory[9 * WL_PAGE_WORDS], WL_PAGE_BYTES);
	touch_verify(&worker);
	assert_int_equal(worker.errors, 2 * WL_PAGE_WORDS);
}

static void update_notices_a_stale_page(void **state)
{
	struct touch_options updating = options;

	(void)state;
	updating.update = true;
	worker.o = &updating;
	touch_page(&worker, 3, true);
	assert_int_equal(worker.errors, 0);
	memory[3 * WL_PAGE_WORDS + TOUCH_VERSION_WORD] ^= 1;
	touch_page(&worker, 3, true);
	assert_int_equal(worker.errors, 1);
}

static void zero_page_is_noticed(void **state)
{
	(void)state;
	memset(&memory[5 * WL_PAGE_WORDS], 0, WL_PAGE_BYTES);
	touch_page(&worker, 5, false);
	assert_int_equal(worker.errors, 1);
	touch_verify(&worker);
	assert_int_equal(worker.errors, 1 + WL_PAGE_WORDS);
}

static void stale_page_is_noticed(void **state)
{
	static uint64_t before[WL_PAGE_WORDS];

	(void)state;
	memcpy(before, &memory[7 * WL_PAGE_WORDS], WL_PAGE_BYTES);
	touch_page(&worker, 7, true);
	memcpy(&memory[7 * WL_PAGE_WORDS], before, WL_PAGE_BYTES);
	touch_verify(&worker);
	assert_int_equal(worker.errors, 1);
}

static void foreign_page_is_noticed(void **state)
{
	(void)state;
	memcpy(&memory[2 * WL_PAGE_WORDS], &memory[9 * WL_PAGE_WORDS], WL_PAGE_BYTES);
	touch_verify(&worker);
	assert_int_equal(worker.errors, WL_PAGE_WORDS);
}

static void one_flipped_bit_is_noticed(void **state)
{
	(void)state;
	memory[PAGES * WL_PAGE_WORDS - 1] ^= 1ull << 63;
	touch_verify(&worker);
	assert_int_equal(worker.errors, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(sound_memory_passes, setup),
		cmocka_unit_test_setup(stale_or_foreign_compressible_page_is_noticed, setup),
		cmocka_unit_test_setup(update_notices_a_stale_page, setup),
		cmocka_unit_test_setup(zero_page_is_noticed, setup),
		cmocka_unit_test_setup(stale_page_is_noticed, setup),
		cmocka_unit_test_setup(foreign_page_is_noticed, setup),
		cmocka_unit_test_setup(one_flipped_bit_is_noticed, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
