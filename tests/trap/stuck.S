/* SPDX-License-Identifier: MIT */
/* A library with system calls that leave no room for a jump, and with data that looks like calls. */

/* Far enough that no short jump finds padding. */
	.macro	FAR
	.rept	40
	movabsq	$0x1122334455667788, %rax
	.endr
	.endm

	.text
/* long stuck_call(long nr, ...): the call and what follows it are jumped to. */
	.globl	stuck_call
	.type	stuck_call, @function
	.balign	16
stuck_call:
	.cfi_startproc
	movq	%rdi, %rax
	movq	%rsi, %rdi
	movq	%rdx, %rsi
	movq	%rcx, %rdx
	movq	%r8, %r10
	movq	%r9, %r8
	movq	8(%rsp), %r9
	jmp	1f
	FAR
	jmp	2f
1:	syscall
2:	jmp	3f
	FAR
3:	ret
	.cfi_endproc
	.size	stuck_call, . - stuck_call

	.globl	data_between
	.balign	16
data_between:
	.byte	0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3
	.byte	0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x05, 0xc3, 0x90

/* Data in the middle of a function that does not run into it. */
	.globl	around_data
	.type	around_data, @function
	.balign	16
around_data:
	.cfi_startproc
	movl	$110, %eax	/* getppid */
	syscall
	ret
	.globl	data_inside
data_inside:
	.byte	0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3
	.byte	0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x05, 0xc3, 0x90
	.cfi_endproc
	.size	around_data, . - around_data

/* The same with a jump through a register, behind which anything may be. */
	.globl	jumps_over_data
	.type	jumps_over_data, @function
	.balign	16
jumps_over_data:
	.cfi_startproc
	leaq	4f(%rip), %rax
	jmp	*%rax
	.globl	data_behind_jump
data_behind_jump:
	.byte	0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3
	.byte	0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x05, 0xc3, 0x90
4:	ret
	.cfi_endproc
	.size	jumps_over_data, . - jumps_over_data

#define REGS_STUCK
#include "../intercept/regs.S"
