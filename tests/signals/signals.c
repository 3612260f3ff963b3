/* SPDX-License-Identifier: MIT */
#include "signals.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

volatile int test_calls;
volatile uintptr_t test_handler_sp;

void test_note_sp(int signo, siginfo_t *si, void *uc)
{
	volatile char room[3000];

	(void)signo;
	(void)si;
	(void)uc;
	memset((char *)room, 1, sizeof(room));
	test_handler_sp = test_sp();
	test_calls++;
}

void test_itimer(long us)
{
	struct itimerval it = { { 0, us }, { 0, us } };

	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
}

void test_evict(void *p, size_t bytes)
{
	madvise(p, bytes, MADV_PAGEOUT);
}

void test_handler(int signo, int flags, void (*fn)(int, siginfo_t *, void *))
{
	struct sigaction sa = { .sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags };

	CHECK(sigaction(signo, &sa, NULL) == 0);
}

int test_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		alarm(10);
		fn();
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return status & ~0x80; /* no matter whether there is a core */
}

void test_on_stack(void *stack, size_t bytes, void (*fn)(void))
{
	static ucontext_t here, there;

	CHECK(getcontext(&there) == 0);
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = bytes;
	there.uc_link = &here;
	makecontext(&there, fn, 0);
	CHECK(swapcontext(&here, &there) == 0);
}

char *test_truncated_file(void)
{
	FILE *f = tmpfile();
	char *p;

	CHECK(f && ftruncate(fileno(f), (long)PAGE) == 0);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
	CHECK(p != MAP_FAILED && ftruncate(fileno(f), 0) == 0);
	return p;
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = { TESTS(TAP_ENTRY) };

	if (argc > 2 && !strcmp(argv[1], "--mask")) {
		sigset_t mask;

		sigprocmask(SIG_BLOCK, NULL, &mask);
		return sigismember(&mask, SIGBUS) != (argv[2][0] == '1');
	}
	return tap_run(tests, sizeof(tests) / sizeof(tests[0]), argc > 1 ? argv[1] : NULL);
}
