/* SPDX-License-Identifier: MIT */
/* Threads and processes with a table of descriptors of their own. */
#define _GNU_SOURCE
#include "mm.h"

#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READERS = 2, READS = 4000, ROUNDS = 3 };

/* Threads that read what is in the store at the same time.  One of them has a table of its own, from before the
   other read for the first time. */
struct reader {
	char *p;
	bool apart, ok;
};

static pthread_barrier_t together;

static bool reads_at_random(char *p, unsigned seed)
{
	for (int i = 0; i < READS; i++) {
		size_t page = (size_t)rand_r(&seed) % (BIG / PG);

		if (!mm_holds(p + page * PG, 64, page))
			return false;
	}
	return true;
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	r->ok = !r->apart || !unshare(CLONE_FILES);
	pthread_barrier_wait(&together);
	r->ok = r->ok && (r->apart || reads_at_random(r->p, ROUNDS));
	for (unsigned i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(&together);
		r->ok = r->ok && reads_at_random(r->p, i);
	}
	return NULL;
}

static bool forked_child_reads(void *p)
{
	return reads_at_random(p, 7);
}

static void thread_with_descriptors_of_its_own(void)
{
	struct reader r[READERS];
	pthread_t t[READERS];

	CHECK(!pthread_barrier_init(&together, NULL, READERS));
	for (int i = 0; i < READERS; i++) {
		r[i] = (struct reader){ .p = mm_map(BIG), .apart = i == 0 };
		for (size_t page = 0; page < BIG / PG; page++)
			mm_fill(r[i].p + page * PG, PG, page);
		mm_evict(r[i].p, BIG);
	}
	for (int i = 0; i < READERS; i++)
		CHECK(!pthread_create(&t[i], NULL, reader_main, &r[i]));
	for (int i = 0; i < READERS; i++)
		CHECK(!pthread_join(t[i], NULL));
	for (int i = 0; i < READERS; i++) {
		CHECK(r[i].ok && reads_at_random(r[i].p, 11));
		CHECK(mm_in_child(forked_child_reads, r[i].p));
		munmap(r[i].p, BIG);
	}
	pthread_barrier_destroy(&together);
}

static bool take_table(bool by_close_range)
{
	if (by_close_range)
		return !syscall(SYS_close_range, ~0u, ~0u, CLOSE_RANGE_UNSHARE);
	return !unshare(CLONE_FILES);
}

/* In a process with one thread, as far as the program knows: nobody else has the pipe open. */
static bool is_closed_for_good(void *arg)
{
	char *p = mm_map(BIG);
	struct pollfd end = { .events = POLLIN };
	int fds[2];

	mm_fill(p, BIG, 5);
	if (pipe(fds) || !take_table(*(bool *)arg))
		return false;
	close(fds[1]);
	end.fd = fds[0];
	return poll(&end, 1, 10000) == 1 && end.revents == POLLHUP && mm_holds(p, BIG, 5);
}

static void closed_in_a_table_of_its_own(void)
{
	const char *delivery = getenv("EXTMEM_DELIVERY");
	bool by_close_range = false;

	if (delivery && !strncmp(delivery, "thread", 6))
		SKIP("the handler threads keep the old table");
	CHECK(mm_in_child(is_closed_for_good, &by_close_range));
	by_close_range = true;
	if (syscall(SYS_close_range, ~0u, ~0u, 0) && errno == ENOSYS)
		SKIP("no close_range (Linux 5.9)");
	CHECK(mm_in_child(is_closed_for_good, &by_close_range));
}

const struct mm_test proc_tables_tests[] = {
	MM_TEST(thread_with_descriptors_of_its_own), MM_TEST(closed_in_a_table_of_its_own), { 0 }
};
