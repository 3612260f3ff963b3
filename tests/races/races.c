/* SPDX-License-Identifier: MIT */
#include "races.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
	const char *name;
	void (*fn)(void);
} tests[] = {
	{ "restart_on_alternate_stack", test_restart_on_alternate_stack },
	{ "partial_discard", test_partial_discard },
	{ "stream_read", test_stream_read },
	{ "fibers_on_managed_stacks", test_fibers_on_managed_stacks },
	{ "threads_on_managed_stacks", test_threads_on_managed_stacks },
	{ "alternate_stack_after_fork", test_alternate_stack_after_fork },
	{ "small_alternate_stack", test_small_alternate_stack },
	{ "all_held_and_fork", test_all_held_and_fork },
	{ "jump_out_of_handlers", test_jump_out_of_handlers },
	{ "thread_churn_and_fork", test_thread_churn_and_fork },
	{ "spawn_under_pressure", test_spawn_under_pressure },
	{ "calls_on_an_evicted_stack", test_calls_on_an_evicted_stack },
	{ "robust_mutexes_that_are_evicted", test_robust_mutexes_that_are_evicted },
};

#define NTESTS (sizeof(tests) / sizeof(tests[0]))

void races_fail(const char *file, int line, const char *what)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "# %s:%d: %s\n", file, line, what);

	if (write(1, text, (size_t)n) < 0)
		_exit(2);
	_exit(1);
}

void *races_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static volatile bool stop;
static pthread_t pressing;
static size_t press_bytes;

static void *press(void *arg)
{
	volatile char *p = races_map(press_bytes);

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
	volatile char *p = races_map(bytes);

	for (int turn = 0; turn < 2; turn++)
		for (size_t i = 0; i < bytes; i += PAGE)
			p[i] = (char)(p[i] + 1);
	munmap((void *)p, bytes);
}

static bool run(size_t i)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(20);
		tests[i].fn();
		fflush(NULL);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (status)
		printf("# status 0x%x\n", (unsigned)status);
	return status == 0;
}

int main(int argc, char **argv)
{
	int bad = 0, n = 0;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc > 2 && !strcmp(argv[1], "--direct")) {
		for (size_t i = 0; i < NTESTS; i++)
			if (!strcmp(argv[2], tests[i].name))
				tests[i].fn();
		return 0;
	}
	for (size_t i = 0; i < NTESTS; i++) {
		bool ok;

		if (argc > 1 && strcmp(argv[1], tests[i].name))
			continue;
		ok = run(i);
		printf("%sok %d - %s\n", ok ? "" : "not ", ++n, tests[i].name);
		bad |= !ok;
	}
	printf("1..%d\n", n);
	return bad;
}
