/* SPDX-License-Identifier: MIT */
/* While one thread is in the policy (slow_policy.c) another has more to tell than is queued: it must sleep.
   Thirty threads that waited awake took their turns from the one they waited for. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 8192, STRIDE = 3, POLLS = 10000, ASLEEP = 5 };

volatile int slow_policy_entered, slow_policy_go_on;

static volatile int told_tid;

static void *touch_pages(void *memory)
{
	volatile char *p = memory;

	told_tid = gettid();
	for (size_t i = 0; i < PAGES; i++)
		p[i * STRIDE * 4096] = 1;
	return NULL;
}

static pthread_t start_touching(void)
{
	const size_t bytes = (size_t)PAGES * STRIDE * 4096;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t;

	told_tid = 0;
	if (memory == MAP_FAILED || pthread_create(&t, NULL, touch_pages, memory))
		exit(2);
	return t;
}

static int is_asleep(int tid)
{
	char path[64], line[256], *after;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	after = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	return after && after[2] == 'S';
}

int main(void)
{
	pthread_t in_policy = start_touching(), filler;
	int asleep = 0;

	for (int i = 0; i < POLLS && !slow_policy_entered; i++)
		usleep(1000);
	if (!slow_policy_entered) {
		printf("the policy was not told of anything\n");
		return 1;
	}
	filler = start_touching();
	/* More than once in a row: a thread sleeps for a moment for many reasons. */
	for (int i = 0; i < POLLS && asleep < ASLEEP; i++) {
		usleep(1000);
		asleep = told_tid && is_asleep(told_tid) ? asleep + 1 : 0;
	}
	slow_policy_go_on = 1;
	pthread_join(in_policy, NULL);
	pthread_join(filler, NULL);
	if (asleep < ASLEEP)
		printf("the thread that waits for the policy stays awake\n");
	return asleep < ASLEEP;
}
