/* SPDX-License-Identifier: MIT */
#include "tap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS_PER_TEST = 20 };

void tap_fail(const char *file, int line, const char *what)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "# %s:%d: %s (%s)\n", file, line, what, strerror(errno));

	if (write(1, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

void *tap_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static unsigned seconds_per_test(void)
{
	const char *text = getenv("TAP_SECONDS");

	return text ? (unsigned)atoi(text) : SECONDS_PER_TEST;
}

static bool run(const struct tap_test *test)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(seconds_per_test());
		test->fn();
		fflush(NULL);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (status)
		printf("# status 0x%x\n", (unsigned)status);
	return status == 0;
}

int tap_run(const struct tap_test *tests, size_t n, const char *only)
{
	int bad = 0, count = 0;

	setvbuf(stdout, NULL, _IONBF, 0);
	for (size_t i = 0; i < n; i++) {
		bool ok;

		if (only && strcmp(only, tests[i].name))
			continue;
		ok = run(&tests[i]);
		printf("%sok %d - %s\n", ok ? "" : "not ", ++count, tests[i].name);
		bad |= !ok;
	}
	printf("1..%d\n", count);
	return bad;
}

int tap_run_here(const struct tap_test *tests, size_t n, const char *only)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(only, tests[i].name))
			tests[i].fn();
	return 0;
}
