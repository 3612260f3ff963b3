/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "transfers.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char byte_at(size_t i)
{
	return (char)(i * 7 + (i >> 12) * 13 + (i >> 20));
}

void evict(char *p, size_t bytes)
{
	madvise(p, bytes, MADV_PAGEOUT);
}

char *full_buffer(void)
{
	char *p = tap_map(LARGE);

	for (size_t i = 0; i < LARGE; i++)
		p[i] = byte_at(i);
	evict(p, LARGE);
	return p;
}

char *empty_buffer(void)
{
	char *p = tap_map(LARGE);

	memset(p, 0, LARGE);
	evict(p, LARGE);
	return p;
}

bool is_data(const char *p, size_t n, size_t at)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != byte_at(at + i))
			return false;
	return true;
}

int scratch_file(int flags)
{
	char name[] = "/var/tmp/extmem-transfers-XXXXXX";
	int fd = mkostemp(name, flags);

	CHECK(fd >= 0 && unlink(name) == 0);
	return fd;
}

void drain(int fd, size_t n, size_t at)
{
	static char some[65536];

	while (n) {
		ssize_t got = read(fd, some, n < sizeof(some) ? n : sizeof(some));

		CHECK(got > 0 && is_data(some, (size_t)got, at));
		n -= (size_t)got;
		at += (size_t)got;
	}
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = { TESTS(TAP_ENTRY) };

	return tap_run(tests, sizeof(tests) / sizeof(tests[0]), argc > 1 ? argv[1] : NULL);
}
