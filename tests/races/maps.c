/* SPDX-License-Identifier: MIT */
/* Mappings that are replaced while other threads use them: these see the old memory or the new, nothing else. */
#define _GNU_SOURCE
#include "races.h"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

enum { OLD = 7, NEW = 9 };

static volatile bool stop;
static bool zero_allowed;

/* Reads all the time: each access may be the one that falls between two steps of the replacement. */
static void *read_always(void *page)
{
	volatile char *p = page;

	while (!stop) {
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
	stop = true;
	CHECK(pthread_join(reader, NULL) == 0);
	munmap(p, bytes);
	stop = false;
}

void test_replaced_under_a_reader(void)
{
	replace_under_reader(PAGE * 300, 1);
	replace_under_reader(5 * MIB + 7 * PAGE, 1);
	replace_under_reader(64 * MIB + 7 * PAGE, 0);
}

void test_moved_onto_under_a_reader(void)
{
	const size_t bytes = MIB + 7 * PAGE;
	char *p = tap_map(bytes);
	pthread_t reader;

	zero_allowed = false;
	fill(p, bytes, OLD);
	CHECK(pthread_create(&reader, NULL, read_always, p + bytes - PAGE) == 0);
	for (int i = 0; i < 300; i++) {
		char *q = tap_map(bytes);

		fill(q, bytes, NEW);
		if (i & 1)
			pressure_once(3 * MIB);
		CHECK(mremap(q, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
		fill(p, bytes, OLD);
	}
	stop = true;
	CHECK(pthread_join(reader, NULL) == 0);
}
