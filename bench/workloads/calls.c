/* SPDX-License-Identifier: MIT */
/*
 * Time of system calls that do next to nothing: getppid, read of /dev/zero, write to /dev/null.
 * The best of many short blocks counts: what else the machine does only makes some of them longer.
 *
 * A second thread sleeps: with one the kernel counts references to files, which costs
 * read and write some 50 ns, and extmem has threads.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1000, GETPPID = 0, READ, WRITE, KINDS };

static int zero, null;
static char buffer[64];

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static long call(int kind)
{
	switch (kind) {
	case READ:
		return read(zero, buffer, sizeof(buffer));
	case WRITE:
		return write(null, buffer, sizeof(buffer));
	default:
		return getppid();
	}
}

static double block(int kind)
{
	double start = now_ns();

	for (int i = 0; i < BLOCK; i++)
		if (call(kind) <= 0 && kind != GETPPID)
			exit(1);
	return (now_ns() - start) / BLOCK;
}

static void *idle(void *arg)
{
	pause();
	return arg;
}

int main(int argc, char **argv)
{
	static const char *const name[KINDS] = { "getppid", "read", "write" };
	int rounds = argc > 1 ? atoi(argv[1]) : 2000;
	double best[KINDS];
	pthread_t thread;

	zero = open("/dev/zero", O_RDONLY);
	null = open("/dev/null", O_WRONLY);
	if (zero < 0 || null < 0 || pthread_create(&thread, NULL, idle, NULL) != 0)
		return 1;
	for (int r = 0; r < rounds; r++)
		for (int kind = 0; kind < KINDS; kind++) {
			double ns = block(kind);

			if (!r || ns < best[kind])
				best[kind] = ns;
		}
	printf("{");
	for (int kind = 0; kind < KINDS; kind++)
		printf("\"%s_ns\": %.2f, ", name[kind], best[kind]);
	printf("\"rounds\": %d}\n", rounds);
	return 0;
}
