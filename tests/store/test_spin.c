/* SPDX-License-Identifier: MIT */
/* Reads waited for by looking: the right bytes, whoever looks, and whatever comes between. */
#include <pthread.h>
#include <sched.h>

#include "common.h"

enum { SLOTS = 256, THREADS = 6, ROUNDS = 400, MOST_FDS = 16 };

static struct em_store *store;
static em_slot_t base;
static bool stop;

static void fill_store(void)
{
	uint64_t *p = pages_new(SLOTS);
	struct iovec iov = { p, SLOTS * EM_SLOT_SIZE };

	store = open_store(16u << 20);
	stop = false;
	/* fewer than there are threads, so that both ways are gone */
	if (store->spin.most)
		store->spin.most = 3;
	assert_int_equal(em_slots_alloc(store, SLOTS, &base), SLOTS);
	pages_fill(p, SLOTS, 7);
	assert_int_equal(em_store_writev(store, base, &iov, 1), 0);
	munmap(p, SLOTS * EM_SLOT_SIZE);
}

static bool read_is_right(uint64_t *buf, unsigned *seed)
{
	uint32_t n = 1 + (uint32_t)rand_r(seed) % 4, at = (uint32_t)rand_r(seed) % (SLOTS - n);

	memset(buf, 0xee, n * EM_SLOT_SIZE);
	return !em_store_read_now(store, base + at, buf, n) && pages_are(buf, n, 7 + at);
}

static void *reader(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	uint64_t *buf = pages_new(4);
	intptr_t wrong = 0;

	for (int i = 0; i < ROUNDS; i++)
		wrong += !read_is_right(buf, &seed);
	munmap(buf, 4 * EM_SLOT_SIZE);
	return (void *)wrong;
}

static void start(pthread_t *th)
{
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&th[i], NULL, reader, (void *)(i + 1)), 0);
}

static void finish(pthread_t *th)
{
	void *wrong;

	for (int i = 0; i < THREADS; i++) {
		pthread_join(th[i], &wrong);
		assert_null(wrong);
	}
	assert_int_equal(store->spin.readers, 0);
}

static void many_threads(void **state)
{
	pthread_t th[THREADS];

	(void)state;
	fill_store();
	start(th);
	finish(th);
	assert_int_equal(store->spin.s[0].q != NULL, !V.no_uring && store->spin.most);
	em_store_close(store);
}

/* The program wants all the numbers that the store has, again and again. */
static void *mover(void *arg)
{
	int fds[MOST_FDS];

	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		size_t n = em_store_fds(store, fds, MOST_FDS);

		for (size_t i = 0; i < n; i++)
			em_store_move_fd(store, fds[i], 700);
	}
	return NULL;
}

static void descriptors_move_meanwhile(void **state)
{
	pthread_t th[THREADS], m;

	(void)state;
	fill_store();
	assert_int_equal(pthread_create(&m, NULL, mover, NULL), 0);
	start(th);
	finish(th);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(m, NULL);
	em_store_close(store);
}

static void read_in_child(struct em_store *st)
{
	uint64_t *buf = pages_new(4);
	unsigned seed = 99;

	(void)st;
	for (int i = 0; i < 50; i++)
		if (!read_is_right(buf, &seed))
			_exit(9);
}

/* The child makes rings of its own, and leaves the parent's alone. */
static void parent_and_child(void **state)
{
	uint64_t *buf = pages_new(4);
	unsigned seed = 5;
	pid_t child;

	(void)state;
	fill_store();
	for (int i = 0; i < 20; i++)
		assert_true(read_is_right(buf, &seed));
	child = fork_store(store, read_in_child);
	for (int i = 0; i < 20; i++)
		assert_true(read_is_right(buf, &seed));
	kill_child(child);
	munmap(buf, 4 * EM_SLOT_SIZE);
	em_store_close(store);
}

static void past_the_end_is_an_error(void **state)
{
	uint64_t *buf = pages_new(1);

	(void)state;
	fill_store();
	/* the file ends with the extent that was taken */
	for (int i = 0; i < 3; i++)
		assert_int_equal(em_store_read_now(store, 100 * EM_EXTENT_SLOTS, buf, 1), -EIO);
	munmap(buf, EM_SLOT_SIZE);
	em_store_close(store);
}

static void may_be_told_to_stop(void **state)
{
	uint64_t *buf = pages_new(4);
	unsigned seed = 5;

	(void)state;
	fill_store();
	em_store_stop_looking(store);
	for (int i = 0; i < 20; i++)
		assert_true(read_is_right(buf, &seed));
	assert_null(store->spin.s[0].q);
	munmap(buf, 4 * EM_SLOT_SIZE);
	em_store_close(store);
}

/* With one processor there is nobody to do the work meanwhile. */
static void one_processor_never_looks(void **state)
{
	cpu_set_t all, one;

	(void)state;
	sched_getaffinity(0, sizeof(all), &all);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	store = open_store(16u << 20);
	assert_int_equal(store->spin.most, 0);
	em_store_close(store);
	sched_setaffinity(0, sizeof(all), &all);
}

static int group(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_threads),
		cmocka_unit_test(descriptors_move_meanwhile),
		cmocka_unit_test(parent_and_child),
		cmocka_unit_test(past_the_end_is_an_error),
		cmocka_unit_test(may_be_told_to_stop),
		cmocka_unit_test(one_processor_never_looks),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group, true);
}
