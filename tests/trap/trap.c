/* SPDX-License-Identifier: MIT */
#include "trap.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *library;

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

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = { TESTS(TAP_ENTRY) };

	if (argc < 2)
		return 2;
	library = argv[1];
	return tap_run(tests, sizeof(tests) / sizeof(tests[0]), argc > 2 ? argv[2] : NULL);
}
