/* SPDX-License-Identifier: MIT */
#include "signals.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRY(name) { #name, test_##name },
static const struct {
	const char *name;
	void (*fn)(void);
} tests[] = { TESTS(ENTRY) };

#define NTESTS (sizeof(tests) / sizeof(tests[0]))

void test_fail(const char *file, int line, const char *what)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "# %s:%d: %s\n", file, line, what);

	if (write(1, text, (size_t)n) < 0)
		_exit(2);
	_exit(1);
}

void *test_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
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

static bool run(size_t i)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(20);
		tests[i].fn();
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
	if (argc > 2 && !strcmp(argv[1], "--mask")) {
		sigset_t mask;

		sigprocmask(SIG_BLOCK, NULL, &mask);
		return sigismember(&mask, SIGBUS) != (argv[2][0] == '1');
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
