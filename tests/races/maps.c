/* SPDX-License-Identifier: MIT */
/* Mappings that are replaced while other threads use them: these see the old memory or the new, nothing else. */
#define _GNU_SOURCE
#include "races.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

enum { OLD = 7, NEW = 9 };

static int stop;
static bool zero_allowed;

/* Reads all the time: each access may be the one that falls between two steps of the replacement. */
static void *read_always(void *page)
{
	volatile char *p = page;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		char c = *p;

		CHECK(c == OLD || c == NEW || (zero_allowed && c == 0));
	}
	return NULL;
}

static void fill(char *p, size_t bytes, char with)
{
	for (size_t i = 0; i < bytes; i += PAGE)
		p[i] = with;
}

/* The last page of a mapping that is not a whole number of blocks: found late by whoever goes over it. */
static void replace_under_reader(size_t bytes, int seconds)
{
	char *p = tap_map(bytes);
	time_t end = time(NULL) + seconds;
	pthread_t reader;

	zero_allowed = true;
	CHECK(pthread_create(&reader, NULL, read_always, p + bytes - PAGE) == 0);
	while (time(NULL) <= end) {
		fill(p + bytes - 8 * PAGE, 8 * PAGE, OLD);
		CHECK(mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			   -1, 0) == p);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	CHECK(pthread_join(reader, NULL) == 0);
	munmap(p, bytes);
	stop = 0;
}

void test_replaced_under_a_reader(void)
{
	replace_under_reader(PAGE * 300, 1);
	replace_under_reader(5 * MIB + 7 * PAGE, 1);
	replace_under_reader(64 * MIB + 7 * PAGE, 0);
}

/* Memory that is partly in the store comes to where the reader is. */
static void move_under_reader(size_t bytes, int flags, int seconds)
{
	char *p = tap_map(bytes);
	time_t end = time(NULL) + seconds;
	pthread_t reader;

	zero_allowed = false;
	fill(p, bytes, OLD);
	CHECK(pthread_create(&reader, NULL, read_always, p + bytes - PAGE) == 0);
	for (int i = 0; time(NULL) <= end; i++) {
		char *q = tap_map(bytes);

		fill(q, bytes, NEW);
		pressure_once(3 * MIB);
		CHECK(mremap(q, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | flags, p) == p);
		if (flags & MREMAP_DONTUNMAP) {
			CHECK(q[0] == 0 && q[bytes - 1] == 0);
			munmap(q, bytes);
		}
		for (size_t at = 0; at < bytes; at += PAGE)
			CHECK(p[at] == NEW);
		fill(p, bytes, OLD);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	CHECK(pthread_join(reader, NULL) == 0);
	munmap(p, bytes);
	stop = 0;
}

void test_moved_onto_under_a_reader(void)
{
	move_under_reader(100 * PAGE, 0, 0);
	move_under_reader(MIB + 7 * PAGE, 0, 1); /* more than can be held at once */
	move_under_reader(MIB + 7 * PAGE, MREMAP_DONTUNMAP, 0);
}

static size_t address_space(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fscanf(f, "%lu", &pages) == 1);
	fclose(f);
	return pages * PAGE;
}

/* The kernel refuses the last step, when the mapping is to grow as well: all is back where it was. */
void test_move_that_fails_at_the_end(void)
{
	const size_t bytes = MIB + 7 * PAGE;
	char *p = tap_map(bytes), *room = tap_map(128 * MIB);
	struct rlimit lim;

	for (size_t at = 0; at < bytes; at += PAGE)
		p[at] = (char)(1 + at / PAGE % 100);
	pressure_once(3 * MIB);
	munmap(room + bytes, 128 * MIB - bytes);
	CHECK(getrlimit(RLIMIT_AS, &lim) == 0);
	lim.rlim_cur = address_space() + MIB;
	CHECK(setrlimit(RLIMIT_AS, &lim) == 0);
	CHECK(mremap(p, bytes, 64 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED, room) == MAP_FAILED);
	CHECK(errno == ENOMEM);
	for (size_t at = 0; at < bytes; at += PAGE)
		CHECK(p[at] == (char)(1 + at / PAGE % 100));
}

/* Part by part, and cut off or grown at the end as asked. */
void test_large_move_changes_its_size(void)
{
	const size_t bytes = 2 * MIB, more = 3 * MIB, less = MIB + 5 * PAGE;
	char *p = tap_map(bytes), *q = tap_map(more);

	fill(q, more, OLD);
	fill(p, bytes, NEW);
	CHECK(mremap(p, bytes, more, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
	for (size_t at = 0; at < more; at += PAGE)
		CHECK(q[at] == (at < bytes ? NEW : 0));
	p = tap_map(bytes);
	fill(p, bytes, OLD);
	CHECK(mremap(q, more, less, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
	for (size_t at = 0; at < bytes; at += PAGE)
		CHECK(p[at] == (at < less ? NEW : OLD));
}

/* A call that sleeps over memory which meanwhile is discarded, replaced, or moved onto: nothing is lost. */
static int inflight_pipe[2];

static void *read_six_thousand(void *arg)
{
	CHECK(read(inflight_pipe[0], arg, 6000) == 6000);
	return NULL;
}

static void discard(char *p)
{
	CHECK(madvise(p, MIB, MADV_DONTNEED) == 0);
}

static void replace(char *p)
{
	CHECK(mmap(p, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
}

static void unmap_and_map(char *p)
{
	CHECK(munmap(p, MIB) == 0);
	replace(p);
}

static void move_onto(char *p)
{
	char *q = tap_map(MIB); /* half of it never touched */

	fill(q, MIB / 2, NEW);
	CHECK(mremap(q, MIB, MIB, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
}

void test_call_over_memory_that_is_replaced(void)
{
	void (*const way[])(char *) = { discard, replace, unmap_and_map, move_onto };
	char data[6000];
	pthread_t reader;

	memset(data, 7, sizeof(data));
	CHECK(pipe(inflight_pipe) == 0);
	for (size_t i = 0; i < sizeof(way) / sizeof(way[0]); i++) {
		char *p = tap_map(MIB), *buf = p + MIB / 2 - 3000;

		fill(p, MIB, OLD);
		CHECK(pthread_create(&reader, NULL, read_six_thousand, buf) == 0);
		usleep(100000);
		way[i](p);
		CHECK(write(inflight_pipe[1], data, sizeof(data)) == sizeof(data));
		CHECK(pthread_join(reader, NULL) == 0);
		CHECK(memcmp(buf, data, sizeof(data)) == 0);
		munmap(p, MIB);
	}
}

/* The same all the time, without looking whether the call sleeps: not one may fail. */
static void *write_always(void *arg)
{
	static const char data[64 * 1024];

	while (write(inflight_pipe[1], data, sizeof(data)) > 0)
		;
	return arg;
}

static void *read_until_end(void *arg)
{
	ssize_t n;

	do {
		n = read(inflight_pipe[0], (char *)arg + 100, 60000);
		CHECK(n >= 0);
	} while (n);
	return NULL;
}

void test_calls_in_a_storm_of_mappings(void)
{
	void (*const way[])(char *) = { discard, replace, move_onto };
	pthread_t reader, writer;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof(way) / sizeof(way[0]); i++) {
		char *p = tap_map(MIB);
		time_t end = time(NULL) + 1;

		CHECK(pipe(inflight_pipe) == 0);
		CHECK(pthread_create(&writer, NULL, write_always, NULL) == 0);
		CHECK(pthread_create(&reader, NULL, read_until_end, p) == 0);
		while (time(NULL) <= end) {
			way[i](p);
			usleep(50);
		}
		pthread_cancel(writer);
		CHECK(pthread_join(writer, NULL) == 0);
		close(inflight_pipe[1]);
		CHECK(pthread_join(reader, NULL) == 0);
		close(inflight_pipe[0]);
	}
}

/* What the kernel refuses to discard keeps its content, also where a call is at work. */
void test_locked_memory_is_not_cleared(void)
{
	char *p = tap_map(MIB), *buf = p + MIB / 2;
	char data[6000];
	pthread_t reader;

	fill(p, MIB, OLD);
	if (mlock(buf, 4 * PAGE) != 0)
		return; /* RLIMIT_MEMLOCK */
	CHECK(pipe(inflight_pipe) == 0);
	CHECK(pthread_create(&reader, NULL, read_six_thousand, buf + PAGE) == 0);
	usleep(100000);
	CHECK(madvise(p, MIB, MADV_DONTNEED) == -1 && errno == EINVAL);
	for (size_t at = 0; at < 4 * PAGE; at += PAGE)
		CHECK(buf[at] == OLD);
	memset(data, 7, sizeof(data));
	CHECK(write(inflight_pipe[1], data, sizeof(data)) == sizeof(data));
	CHECK(pthread_join(reader, NULL) == 0);
	CHECK(memcmp(buf + PAGE, data, sizeof(data)) == 0);
}

/* The same for what a call reads from, while its pages are protected and evicted all the time. */
static void *write_from(void *arg)
{
	while (write(inflight_pipe[1], (char *)arg + 100, 60000) > 0)
		;
	return NULL;
}

void test_discarded_while_it_is_written_from(void)
{
	char *p = tap_map(MIB), *sink = tap_map(MIB);
	time_t end = time(NULL) + 1;
	pthread_t reader, writer;

	signal(SIGPIPE, SIG_IGN);
	CHECK(pipe(inflight_pipe) == 0);
	pressure_start(3 * MIB);
	CHECK(pthread_create(&writer, NULL, write_from, p) == 0);
	CHECK(pthread_create(&reader, NULL, read_until_end, sink) == 0);
	while (time(NULL) <= end) {
		fill(p, MIB, OLD);
		usleep(200);
		discard(p);
	}
	pressure_stop();
	pthread_cancel(writer);
	CHECK(pthread_join(writer, NULL) == 0);
	close(inflight_pipe[1]);
	CHECK(pthread_join(reader, NULL) == 0);
}

static void *keep_busy(void *arg)
{
	while (!__atomic_load_n((int *)arg, __ATOMIC_RELAXED))
		;
	return NULL;
}

/* A page that was discarded is not brought back by who served its last fault, and has not finished since. */
void test_discarded_as_soon_as_it_is_there(void)
{
	char *p = tap_map(MIB);
	time_t end = time(NULL) + 2;
	pthread_t busy[3];
	unsigned char there;
	int stop = 0;

	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&busy[i], NULL, keep_busy, &stop) == 0);
	while (time(NULL) <= end) {
		*(volatile char *)p = 1;
		madvise(p, PAGE, MADV_PAGEOUT); /* it has to be read */
		CHECK(*(volatile char *)p == 1);
		CHECK(madvise(p, PAGE, MADV_DONTNEED) == 0);
		CHECK(mincore(p, PAGE, &there) == 0 && !(there & 1));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_join(busy[i], NULL) == 0);
	munmap(p, MIB);
}
