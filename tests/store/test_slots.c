/* SPDX-License-Identifier: MIT */
/* Slots of one process: none twice, none lost, none beyond the bound. */
#include <pthread.h>
#include <time.h>

#include "common.h"

#define MAP_SLOTS (1u << 22)
static uint8_t taken[MAP_SLOTS];

static void mark(em_slot_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		assert_true(first + i < MAP_SLOTS && first + i != EM_SLOT_NONE);
		assert_int_equal(__atomic_exchange_n(&taken[first + i], 1, __ATOMIC_ACQ_REL), 0);
	}
}

static void give(struct em_store *st, em_slot_t slot)
{
	__atomic_store_n(&taken[slot], 0, __ATOMIC_RELEASE);
	em_slots_free(st, slot);
}

static void runs_ascend(void **state)
{
	struct em_store *st = open_store(0);
	em_slot_t first, expect = 1;

	(void)state;
	for (int i = 0; i < 60; i++) {
		assert_int_equal(em_slots_alloc(st, 64, &first), 64);
		assert_int_equal(first, expect);
		expect += 64;
	}
	assert_int_equal(em_slots_used(st), 60 * 64);
	assert_int_equal(em_slots_limit(st), 0);
	em_store_close(st);
}

static void bound_is_exact(void **state)
{
	/* neither a whole extent nor a whole run */
	const uint32_t slots = EM_EXTENT_SLOTS + 1000 + 7;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE + 100);
	em_slot_t first;
	uint32_t n, total = 0;
	struct stat sb;

	(void)state;
	memset(taken, 0, sizeof(taken));
	assert_int_equal(em_slots_limit(st), slots - 1);
	while ((n = em_slots_alloc(st, 64, &first))) {
		mark(first, n);
		assert_true(first + n <= slots);
		total += n;
	}
	assert_int_equal(total, slots - 1);
	assert_int_equal(em_slots_used(st), slots - 1);
	fstat(st->fd, &sb);
	assert_true((uint64_t)sb.st_size <= (uint64_t)slots * EM_SLOT_SIZE);
	/* full: exactly what is freed comes back */
	give(st, 17);
	give(st, slots - 1);
	assert_int_equal(em_slots_alloc(st, 64, &first), 1);
	mark(first, 1);
	assert_int_equal(em_slots_alloc(st, 64, &first), 1);
	mark(first, 1);
	assert_int_equal(em_slots_alloc(st, 64, &first), 0);
	em_store_close(st);
}

static bool disk_full;

static int full(bool write, em_slot_t slot, uint32_t n)
{
	(void)write, (void)slot;
	return n == 0 && disk_full ? -ENOSPC : 0;
}

static void full_disk_is_an_empty_answer(void **state)
{
	static const struct em_store_inject inject = {.before = full};
	struct em_store *st = open_store(0);
	em_slot_t first;

	(void)state;
	st->inject = &inject;
	disk_full = true;
	assert_int_equal(em_slots_alloc(st, 64, &first), 0);
	assert_int_equal(em_slots_alloc(st, 64, &first), 0);
	disk_full = false;
	usleep(3000);
	assert_int_equal(em_slots_alloc(st, 64, &first), 64);
	em_store_close(st);
}

static void double_and_foreign_frees_are_ignored(void **state)
{
	struct em_store *st = open_store(0);
	em_slot_t first;

	(void)state;
	em_slots_alloc(st, 4, &first);
	em_slots_free(st, first);
	em_slots_free(st, first);
	em_slots_free(st, EM_SLOT_NONE);
	em_slots_free(st, 0xffffffff);
	assert_int_equal(em_slots_used(st), 3);
	em_store_close(st);
}

static void long_runs_are_preferred(void **state)
{
	struct em_store *st = open_store(0);
	uint32_t n, short_runs = 0, runs = 0;
	em_slot_t first;

	(void)state;
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < 4; k++)
			em_slots_alloc(st, 1024, &first);
	/* every other slot of the first two extents, 40 in a row of the third */
	for (em_slot_t s = 1; s < 2 * EM_EXTENT_SLOTS; s += 2)
		em_slots_free(st, s);
	for (em_slot_t s = 0; s < 40; s++)
		em_slots_free(st, 2 * EM_EXTENT_SLOTS + 100 + s);
	for (int i = 0; i < 20; i++) {
		n = em_slots_alloc(st, 64, &first);
		assert_true(n > 0);
		runs++;
		short_runs += n < 32;
	}
	assert_int_equal(short_runs, 0);
	em_store_close(st);
}

struct job {
	struct em_store *st;
	unsigned seed;
};

static void *churn(void *arg)
{
	struct job *j = arg;
	static __thread em_slot_t mine[4096];
	uint32_t have = 0;
	em_slot_t first;

	for (int round = 0; round < 20000; round++) {
		uint32_t want = 1 + (uint32_t)rand_r(&j->seed) % 100, n;

		if (have + want < 4096 && rand_r(&j->seed) % 2) {
			n = em_slots_alloc(j->st, want, &first);
			assert_true(n <= want);
			mark(first, n);
			for (uint32_t i = 0; i < n; i++)
				mine[have++] = first + i;
		} else {
			for (; want && have; want--) {
				uint32_t k = (uint32_t)rand_r(&j->seed) % have;

				give(j->st, mine[k]);
				mine[k] = mine[--have];
			}
		}
	}
	while (have)
		give(j->st, mine[--have]);
	return NULL;
}

static void is_valid(const struct em_store *st)
{
	const struct em_slots *s = &st->slots;
	uint64_t total = 0;

	for (uint32_t i = 0; i < s->nown; i++) {
		uint32_t n = 0, run = 0, longest = 0;

		for (uint32_t b = 0; b < EM_EXTENT_SLOTS; b++) {
			bool f = s->own[i]->free[b / 64] >> b % 64 & 1;

			run = f ? run + 1 : 0;
			longest = run > longest ? run : longest;
			n += f;
		}
		assert_int_equal(n, s->nfree[i]);
		assert_true(longest <= s->longest[i]);
		assert_int_equal(s->own[i]->index, i);
		assert_true(longest < s->dry);
		assert_int_equal(st->shared->owner[s->own[i]->number], st->proc + 1);
		total += n;
	}
	assert_int_equal(total, s->total_free);
}

/* Bounded so that threads also meet fragments and a full store. */
static void no_slot_twice(void **state)
{
	struct em_store *st = open_store(8 * 1300 * EM_SLOT_SIZE);
	pthread_t t[8];
	struct job j[8];
	unsigned seed = (unsigned)time(NULL);

	(void)state;
	print_message("seed %u\n", seed);
	memset(taken, 0, sizeof(taken));
	for (unsigned i = 0; i < 8; i++) {
		j[i] = (struct job){st, seed + i};
		pthread_create(&t[i], NULL, churn, &j[i]);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	is_valid(st);
	assert_int_equal(em_slots_used(st), 0);
	em_store_close(st);
}

static void close_gives_memory_back(void **state)
{
	em_slot_t first;
	uint64_t before;

	(void)state;
	em_store_close(open_store(0));
	before = em_meta_bytes();
	for (int i = 0; i < 50; i++) {
		struct em_store *st = open_store(0);

		for (int k = 0; k < 30; k++)
			em_slots_alloc(st, 1024, &first);
		em_store_close(st);
	}
	assert_true(em_meta_bytes() <= before + (1 << 20));
}

static void allocation_is_fast(void **state)
{
	struct em_store *st = open_store(0);
	struct timespec a, b;
	em_slot_t first;
	double ns;

	(void)state;
	em_slots_alloc(st, 1, &first);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < 20000; i++) {
		uint32_t n = em_slots_alloc(st, 64, &first);

		while (n)
			em_slots_free(st, first + --n);
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
	print_message("a run of 64 and its 64 frees: %.0f ns\n", ns / 20000);
	assert_int_equal(st->shared->high, 1);
	em_store_close(st);
}

static int group(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_ascend),
		cmocka_unit_test(bound_is_exact),
		cmocka_unit_test(full_disk_is_an_empty_answer),
		cmocka_unit_test(double_and_foreign_frees_are_ignored),
		cmocka_unit_test(long_runs_are_preferred),
		cmocka_unit_test(no_slot_twice),
		cmocka_unit_test(close_gives_memory_back),
		cmocka_unit_test(allocation_is_fast),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group, false);
}
