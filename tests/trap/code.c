/* SPDX-License-Identifier: MIT */
/* Where system calls may hide from the patcher. */
#include "trap.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const unsigned char trap_code[] = {
	0x48, 0x89, 0xf8,		/* mov %rdi, %rax */
	0x48, 0x89, 0xf7,		/* mov %rsi, %rdi */
	0x48, 0x89, 0xd6,		/* mov %rdx, %rsi */
	0x48, 0x89, 0xca,		/* mov %rcx, %rdx */
	0x4d, 0x89, 0xc2,		/* mov %r8, %r10 */
	0x4d, 0x89, 0xc8,		/* mov %r9, %r8 */
	0x4c, 0x8b, 0x4c, 0x24, 0x08,	/* mov 8(%rsp), %r9 */
	0x0f, 0x05,			/* syscall */
	0xc3,				/* ret */
};
const unsigned trap_code_bytes = sizeof(trap_code);

static void *map_code(int prot, int flags, int fd)
{
	void *p = mmap(NULL, PAGE, prot, flags, fd, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static int code_file(void)
{
	char name[] = "/tmp/trap-code-XXXXXX";
	int fd = mkstemp(name);

	CHECK(fd >= 0);
	CHECK(write(fd, trap_code, sizeof(trap_code)) == sizeof(trap_code));
	unlink(name);
	return fd;
}

void test_writable_code(void)
{
	void *p = map_code(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	memcpy(p, trap_code, sizeof(trap_code));
	trap_check_io((call_fn)p);
}

void test_code_protected_later(void)
{
	trap_check_io(trap_generate());
}

void test_code_from_a_file(void)
{
	trap_check_io((call_fn)map_code(PROT_READ | PROT_EXEC, MAP_PRIVATE, code_file()));
}

void test_file_protected_later(void)
{
	void *p = map_code(PROT_READ, MAP_PRIVATE, code_file());

	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
	trap_check_io((call_fn)p);
}

/* Written through one mapping, executed through the other. */
void test_shared_code(void)
{
	int fd = memfd_create("code", 0);
	void *p, *q;

	CHECK(fd >= 0 && ftruncate(fd, PAGE) == 0);
	p = map_code(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	q = map_code(PROT_READ | PROT_EXEC, MAP_SHARED, fd);
	memcpy(p, trap_code, sizeof(trap_code));
	trap_check_io((call_fn)q);
}

void test_library_with_stuck_sites(void)
{
	trap_check_io((call_fn)trap_library("stuck_call"));
}

/* Bytes that look like a function with a system call, and are only read. */
void test_data_in_text(void)
{
	static const unsigned char want[] = { 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3,
					      0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x05, 0xc3, 0x90 };
	const char *names[] = { "data_between", "data_inside", "data_behind_jump" };

	for (unsigned i = 0; i < 3; i++)
		CHECK(!memcmp(trap_library(names[i]), want, sizeof(want)));
	CHECK(((long (*)(void))trap_library("around_data"))() == getppid());
}

void test_registers_survive(void)
{
	long (*check)(void) = (long (*)(void))trap_library("regs_check");

	CHECK(check() == 0);
	CHECK(*(long *)trap_library("regs_result") == getppid());
}

static sigjmp_buf no_gate;

static void on_no_gate(int sig)
{
	siglongjmp(no_gate, sig);
}

/* int $0x80 in a 64-bit program: other numbers, other registers. */
void test_old_gate(void)
{
	static const unsigned char code[] = {
		0xb8, 20, 0, 0, 0, /* getpid */ 0xcd, 0x80, 0xc3,
	};
	void *p = map_code(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	signal(SIGSEGV, on_no_gate);
	memcpy(p, code, sizeof(code));
	if (!sigsetjmp(no_gate, 1)) /* a kernel may be built without */
		CHECK(((long (*)(void))p)() == getpid());
}
