/* SPDX-License-Identifier: MIT */
/* A library with system calls of its own, loaded by test_dlopen. */
#include <sys/syscall.h>

__attribute__((visibility("default"))) long lib_getppid(void);
__attribute__((visibility("default"))) long lib_read_zero(int fd, void *buf);

/* Nothing around this call may be moved: it takes a detour through the padding. */
__asm__(".text\n"
	".globl lib_boxed_getppid\n"
	".type lib_boxed_getppid, @function\n"
	".balign 16\n"
	"lib_boxed_getppid:\n"
	".cfi_startproc\n"
	"movl $110, %eax\n"
	"pushq %rbx\n"
	".cfi_adjust_cfa_offset 8\n"
	"syscall\n"
	"popq %rbx\n"
	".cfi_adjust_cfa_offset -8\n"
	"ret\n"
	".cfi_endproc\n"
	".size lib_boxed_getppid, . - lib_boxed_getppid\n"
	".balign 16\n");

/* A RIP-relative operand has to be adjusted when it moves. */
__asm__(".text\n"
	".globl lib_relative_getppid\n"
	".type lib_relative_getppid, @function\n"
	".balign 16\n"
	"lib_relative_getppid:\n"
	".cfi_startproc\n"
	"movl lib_number(%rip), %eax\n"
	"syscall\n"
	"addq lib_zero(%rip), %rax\n"
	"ret\n"
	".cfi_endproc\n"
	".size lib_relative_getppid, . - lib_relative_getppid\n"
	".globl lib_relative_behind\n"
	".type lib_relative_behind, @function\n"
	".balign 16\n"
	"lib_relative_behind:\n"
	".cfi_startproc\n"
	"movl $110, %eax\n"
	"1: pushq %rbx\n"
	".cfi_adjust_cfa_offset 8\n"
	"syscall\n"
	"addq lib_zero(%rip), %rax\n"
	"popq %rbx\n"
	".cfi_adjust_cfa_offset -8\n"
	"ret\n"
	".cfi_endproc\n"
	".size lib_relative_behind, . - lib_relative_behind\n"
	".data\n"
	".balign 8\n"
	"lib_zero: .quad 0\n"
	"lib_number: .long 110\n"
	".text\n");

static inline long call3(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return ret;
}

long lib_getppid(void)
{
	return call3(SYS_getppid, 0, 0, 0);
}

long lib_read_zero(int fd, void *buf)
{
	long ret = call3(SYS_read, fd, (long)buf, 8);

	return ret < 0 ? -ret : ret;
}
