/* SPDX-License-Identifier: MIT */
#include "trap.h"

#include <dlfcn.h>
#include <fcntl.h>
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
	{ "writable_code", test_writable_code },
	{ "code_protected_later", test_code_protected_later },
	{ "code_from_a_file", test_code_from_a_file },
	{ "file_protected_later", test_file_protected_later },
	{ "shared_code", test_shared_code },
	{ "library_with_stuck_sites", test_library_with_stuck_sites },
	{ "data_in_text", test_data_in_text },
	{ "registers_survive", test_registers_survive },
	{ "old_gate", test_old_gate },
	{ "threads_that_exist", test_threads_that_exist },
	{ "threads_that_come", test_threads_that_come },
	{ "thread_from_code", test_thread_from_code },
	{ "fork_from_code", test_fork_from_code },
	{ "vfork_from_code", test_vfork_from_code },
	{ "clone_with_a_stack_from_code", test_clone_with_a_stack_from_code },
	{ "exec_from_code", test_exec_from_code },
	{ "handlers_and_returns", test_handlers_and_returns },
	{ "own_handler", test_own_handler },
	{ "blocked_and_pending", test_blocked_and_pending },
	{ "mask_in_the_frame", test_mask_in_the_frame },
	{ "own_filter", test_own_filter },
	{ "call_in_own_handler", test_call_in_own_handler },
	{ "restarts", test_restarts },
	{ "inherited_mask", test_inherited_mask },
};

#define NTESTS (sizeof(tests) / sizeof(tests[0]))

static const char *library;

void trap_fail(const char *file, int line, const char *what)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "# %s:%d: %s\n", file, line, what);

	if (write(1, text, (size_t)n) < 0)
		_exit(2);
	_exit(1);
}

void *trap_library(const char *symbol)
{
	void *handle = dlopen(library, RTLD_NOW), *found;

	CHECK(handle);
	found = dlsym(handle, symbol);
	CHECK(found);
	return found;
}

call_fn trap_generate(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	memcpy(p, trap_code, trap_code_bytes);
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
	return (call_fn)p;
}

char *trap_evicted(size_t bytes, char fill)
{
	size_t more = 6 * MIB;
	char *p = mmap(NULL, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	memset(p, fill, bytes);
	for (int turn = 0; turn < 2; turn++)
		for (size_t i = 0; i < more; i += PAGE)
			p[bytes + i]++;
	return p;
}

void trap_check_io(call_fn call)
{
	char *from = trap_evicted(MIB, 'x'), *to = trap_evicted(MIB, 'y');
	size_t n = 4 * PAGE;
	int fd[2];

	CHECK(pipe(fd) == 0);
	CHECK(call(SYS_write, fd[1], from + PAGE / 2, n) == (long)n);
	CHECK(call(SYS_read, fd[0], to + PAGE / 2, n) == (long)n);
	CHECK(to[PAGE / 2 - 1] == 'y' && to[PAGE / 2 + n] == 'y');
	for (size_t i = 0; i < n; i++)
		CHECK(to[PAGE / 2 + i] == 'x');
	CHECK(call(SYS_read, -1, to, n) == -9);
	close(fd[0]);
	close(fd[1]);
	munmap(from, 7 * MIB);
	munmap(to, 7 * MIB);
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
	if (argc < 2)
		return 2;
	library = argv[1];
	for (size_t i = 0; i < NTESTS; i++) {
		bool ok;

		if (argc > 2 && strcmp(argv[2], tests[i].name))
			continue;
		ok = run(i);
		printf("%sok %d - %s\n", ok ? "" : "not ", ++n, tests[i].name);
		bad |= !ok;
	}
	printf("1..%d\n", n);
	return bad;
}
