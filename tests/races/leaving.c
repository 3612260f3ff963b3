/* SPDX-License-Identifier: MIT */
/* Pages leave memory while they are written, and while what they are mapped to changes: no write is lost. */
#define _GNU_SOURCE
#include "races.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WRITERS = 4, PAGES = 1024, SECONDS = 2 };

static char *memory;
static int stop, page_out;

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static uint64_t *page(size_t i)
{
	return (uint64_t *)(memory + i * PAGE);
}

/* Each writer has every fourth page, so that dirty pages lie scattered and neighbours leave together.  A page is
   read before it is written: what was discarded is mapped to zeros for a moment. */
static void *write_always(void *arg)
{
	size_t mine = (size_t)(uintptr_t)arg;
	uint64_t *expect = calloc(PAGES, sizeof(*expect));
	unsigned seed = (unsigned)mine;

	CHECK(expect);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		size_t i = (size_t)rand_r(&seed) % (PAGES / WRITERS) * WRITERS + mine;
		volatile uint64_t *p = page(i);

		CHECK(*p == expect[i]);
		*p = ++expect[i];
		if (page_out && rand_r(&seed) % 4 == 0)
			madvise(page(i), PAGE, MADV_PAGEOUT);
		if (rand_r(&seed) % 4)
			continue;
		i = (size_t)rand_r(&seed) % (PAGES / WRITERS) * WRITERS + mine;
		CHECK(madvise(page(i), PAGE, MADV_DONTNEED) == 0);
		expect[i] = 0;
		CHECK(*(volatile uint64_t *)page(i) == expect[i]);
	}
	for (size_t i = mine; i < PAGES; i += WRITERS)
		CHECK(*page(i) == expect[i]);
	free(expect);
	return NULL;
}

static void with_writers(void (*meanwhile)(void))
{
	time_t end = time(NULL) + SECONDS;
	pthread_t t[WRITERS];

	memory = tap_map(PAGES * PAGE);
	stop = 0;
	for (size_t i = 0; i < WRITERS; i++)
		CHECK(pthread_create(&t[i], NULL, write_always, (void *)(uintptr_t)i) == 0);
	while (time(NULL) <= end)
		meanwhile();
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (size_t i = 0; i < WRITERS; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
	munmap(memory, PAGES * PAGE);
}

static void nothing(void)
{
	usleep(1000);
}

void test_written_while_it_leaves(void)
{
	with_writers(nothing);
}

/* Takes the file for itself again and again, and waits for each transfer that is under way before. */
static void lock_the_store(void)
{
	static int fd = -1;

	if (fd < 0) {
		const char *store = getenv("EXTMEM_SWAP");
		char name[] = "/tmp/racesXXXXXX";

		fd = store ? open(store, O_RDWR) : mkstemp(name);
		if (!store)
			unlink(name);
		CHECK(fd >= 0);
	}
	CHECK(posix_fallocate(fd, 0, PAGE) == 0);
	usleep(500);
}

/* With handler threads the kernel itself may wait for one of them: for a page that it wants to read for a write,
   while the store's file is locked for that write. */
void test_written_again_and_out_again_while_it_is_written(void)
{
	page_out = 1;
	with_writers(lock_the_store);
}

/* A child that has the same pages makes copies of those that are written. */
static void fork_a_while(void)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		usleep(30000);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

void test_written_while_it_leaves_after_fork(void)
{
	with_writers(fork_a_while);
}

/* KSM may give two equal pages one place from then on. */
static void allow_merging(void)
{
	madvise(memory, PAGES * PAGE, MADV_MERGEABLE);
	usleep(1000);
}

void test_written_while_it_leaves_and_is_merged(void)
{
	with_writers(allow_merging);
}

/* The one write that takes them all fails for what the kernel may not read: nobody's content is forgotten. */
void test_some_that_leave_may_not_be_read(void)
{
	const size_t n = 512, step = 3;

	memory = tap_map(n * PAGE);
	for (size_t i = 0; i < n; i += step)
		*page(i) = i + 1;
	for (size_t i = 0; i < n; i += 5 * step)
		CHECK(mprotect(page(i), PAGE, PROT_NONE) == 0);
	pressure_once(8 * MIB);
	CHECK(mprotect(memory, n * PAGE, PROT_READ | PROT_WRITE) == 0);
	for (size_t i = 0; i < n; i += step)
		CHECK(*page(i) == i + 1);
	munmap(memory, n * PAGE);
}

/* A page that a call in code made at run time throws away, resident at the time, is empty; extmem may not see the
   call (--syscalls patch). */
void test_discarded_by_generated_code(void)
{
	static const unsigned char code[] = { 0xb8, 28, 0, 0, 0, /* madvise */ 0x0f, 0x05, 0xc3 };
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long (*discard)(void *addr, size_t len, int advice) = (long (*)(void *, size_t, int))p;
	const size_t n = 256; /* from a mebibyte on it is managed */

	CHECK(p != MAP_FAILED);
	memcpy(p, code, sizeof(code));
	memory = tap_map(n * PAGE);
	for (size_t turn = 1; turn < 20; turn++) {
		volatile uint64_t *dirty = page(turn), *clean = page(n - turn);

		*dirty = *clean = turn;
		pressure_once(8 * MIB);
		CHECK(*dirty == turn && *clean == turn);
		*dirty = 2 * turn;
		CHECK(!discard((void *)dirty, PAGE, MADV_DONTNEED));
		CHECK(!discard((void *)clean, PAGE, MADV_DONTNEED));
		CHECK(!*dirty && !*clean);
		if (turn % 2)
			*dirty = *clean = 3 * turn;
		pressure_once(8 * MIB);
		CHECK(*dirty == *clean && *clean == turn % 2 * 3 * turn);
	}
	munmap(memory, n * PAGE);
}
