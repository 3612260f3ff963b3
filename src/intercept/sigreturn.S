/* SPDX-License-Identifier: MIT */
/*
 * The ways out of signal frames.
 *
 * em_signal_restorer is where the program's handlers return to, em_direct_restorer where they do whose frame
 * the kernel has written: rsp points to the ucontext of the frame.  Their unwind table says that the
 * caller is what the frame tells, for unwinders (backtrace, pthread_cancel, debuggers).  They look the
 * return address up minus one: hence the nops.
 */
#define UC_R8 40
#define UC_R9 48
#define UC_R10 56
#define UC_R11 64
#define UC_R12 72
#define UC_R13 80
#define UC_R14 88
#define UC_R15 96
#define UC_RDI 104
#define UC_RSI 112
#define UC_RBP 120
#define UC_RBX 128
#define UC_RDX 136
#define UC_RAX 144
#define UC_RCX 152
#define UC_RSP 160
#define UC_RIP 168

#define SYS_rt_sigprocmask 14
#define SYS_rt_sigreturn 15
#define SIG_SETMASK 2

/* Two-byte SLEB128 of a value from 0 to 8191. */
#define SLEB(n) (((n) & 0x7f) | 0x80), ((n) >> 7)
/* DWARF: 0x77 breg7 (rsp), 0x06 deref, 0x0f def_cfa_expression, 0x10 expression */
#define CFA_FROM(offset) .cfi_escape 0x0f, 4, 0x77, SLEB(offset), 0x06
#define SAVED(reg, offset) .cfi_escape 0x10, reg, 3, 0x77, SLEB(offset)

	.text
	.balign	16
	.cfi_startproc
	.cfi_signal_frame
	CFA_FROM(UC_RSP)
	SAVED(0, UC_RAX)
	SAVED(1, UC_RDX)
	SAVED(2, UC_RCX)
	SAVED(3, UC_RBX)
	SAVED(4, UC_RSI)
	SAVED(5, UC_RDI)
	SAVED(6, UC_RBP)
	SAVED(7, UC_RSP)
	SAVED(8, UC_R8)
	SAVED(9, UC_R9)
	SAVED(10, UC_R10)
	SAVED(11, UC_R11)
	SAVED(12, UC_R12)
	SAVED(13, UC_R13)
	SAVED(14, UC_R14)
	SAVED(15, UC_R15)
	SAVED(16, UC_RIP)
	nop
	.globl	em_signal_restorer
	.hidden	em_signal_restorer
	.type	em_signal_restorer, @function
em_signal_restorer:
	movq	%rsp, %rdi
	jmp	em_sigreturn_switch
	.size	em_signal_restorer, . - em_signal_restorer
	nop
	.globl	em_direct_restorer
	.hidden	em_direct_restorer
	.type	em_direct_restorer, @function
em_direct_restorer:
	movq	%rsp, %rdi		/* aligned: the kernel's frame begins eight bytes below */
	call	em_sigframe_returns
	movl	$SYS_rt_sigreturn, %eax
	syscall
	ud2
	.cfi_endproc
	.size	em_direct_restorer, . - em_direct_restorer

/*
 * void em_sigreturn_switch(void *kernel_uc): blocks signals, goes to the top of our alternate
 * stack, where upcalls nest properly, and calls em_sigframe_return.  Nothing above the
 * stack pointer is touched: the frame may lie right there.
 */
	.globl	em_sigreturn_switch
	.hidden	em_sigreturn_switch
	.type	em_sigreturn_switch, @function
em_sigreturn_switch:
	.cfi_startproc
	.cfi_undefined rip
	movq	%rdi, %rbx
	movl	$SYS_rt_sigprocmask, %eax
	movl	$SIG_SETMASK, %edi
	leaq	em_sigreturn_mask(%rip), %rsi
	xorl	%edx, %edx
	movl	$8, %r10d
	syscall
	andq	$-16, %rsp
	call	em_sigframe_scratch_top
	testq	%rax, %rax
	cmovneq	%rax, %rsp
	movq	%rbx, %rdi
	call	em_sigframe_return
	ud2
	.cfi_endproc
	.size	em_sigreturn_switch, . - em_sigreturn_switch

/* void em_sigreturn_from(const void *kernel_uc): the system call itself. */
	.globl	em_sigreturn_from
	.hidden	em_sigreturn_from
	.type	em_sigreturn_from, @function
em_sigreturn_from:
	.cfi_startproc
	movq	%rdi, %rsp
	movl	$SYS_rt_sigreturn, %eax
	syscall
	ud2
	.cfi_endproc
	.size	em_sigreturn_from, . - em_sigreturn_from

	.globl	em_masked_syscall
	.hidden	em_masked_syscall
	.globl	em_masked_syscall_end
	.hidden	em_masked_syscall_end
	.type	em_masked_syscall, @function
em_masked_syscall:
	.cfi_startproc
	movq	%rdi, %rax
	movq	%rsi, %rdi
	movq	%rdx, %rsi
	movq	%rcx, %rdx
	movq	%r8, %r10
	movq	%r9, %r8
	movq	8(%rsp), %r9
	syscall
em_masked_syscall_end:
	ret
	.cfi_endproc
	.size	em_masked_syscall, . - em_masked_syscall

/* (long nr, const long arg[6], uint32_t *stop) */
.macro LOAD_CALL
	movq	%rdi, %rax
	movq	%rsi, %r11
	movq	%rdx, %rcx
	movq	(%r11), %rdi
	movq	8(%r11), %rsi
	movq	16(%r11), %rdx
	movq	24(%r11), %r10
	movq	32(%r11), %r8
	movq	40(%r11), %r9
.endm

	.globl	em_first_syscall, em_first_from, em_first_end
	.hidden	em_first_syscall, em_first_from, em_first_end
	.type	em_first_syscall, @function
em_first_syscall:
	.cfi_startproc
	LOAD_CALL
em_first_from:
	movl	$0, (%rcx)
	syscall
em_first_end:
	ret
	.cfi_endproc
	.size	em_first_syscall, . - em_first_syscall

	.globl	em_next_syscall, em_next_from, em_next_end
	.hidden	em_next_syscall, em_next_from, em_next_end
	.type	em_next_syscall, @function
em_next_syscall:
	.cfi_startproc
	LOAD_CALL
em_next_from:
	cmpl	$0, (%rcx)
	jne	1f
	syscall
em_next_end:
	ret
1:	movq	$-4, %rax	/* EINTR */
	ret
	.cfi_endproc
	.size	em_next_syscall, . - em_next_syscall

	.section .rodata
	.balign	8
em_sigreturn_mask:			/* all but SIGBUS and SIGSYS, 7 and 31 */
	.quad	~(1 << 6 | 1 << 30)

	.section .note.GNU-stack, "", @progbits
