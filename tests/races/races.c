/* SPDX-License-Identifier: MIT */
#include "races.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

static volatile bool stop;
static pthread_t pressing;
static size_t press_bytes;

static void *press(void *arg)
{
	volatile char *p = tap_map(press_bytes);

	while (!stop)
		for (size_t i = 0; i < press_bytes && !stop; i += PAGE)
			p[i] = (char)(p[i] + 1);
	munmap((void *)p, press_bytes);
	return arg;
}

void pressure_start(size_t bytes)
{
	stop = false;
	press_bytes = bytes;
	CHECK(pthread_create(&pressing, NULL, press, NULL) == 0);
}

void pressure_stop(void)
{
	stop = true;
	CHECK(pthread_join(pressing, NULL) == 0);
}

void pressure_once(size_t bytes)
{
	volatile char *p = tap_map(bytes);

	for (int turn = 0; turn < 2; turn++)
		for (size_t i = 0; i < bytes; i += PAGE)
			p[i] = (char)(p[i] + 1);
	munmap((void *)p, bytes);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = { TESTS(TAP_ENTRY) };
	const size_t n = sizeof(tests) / sizeof(tests[0]);

	if (argc > 2 && !strcmp(argv[1], "--direct"))
		return tap_run_here(tests, n, argv[2]);
	return tap_run(tests, n, argc > 1 ? argv[1] : NULL);
}
