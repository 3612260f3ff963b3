/* SPDX-License-Identifier: MIT */
/*
 * System calls that must be made outside any function of ours, from the only text that the
 * kernel lets make them while others are trapped (trap.c).
 */

	.text
/* void em_trap_syscall(void): never comes back (exit, rt_sigreturn). */
	.globl	em_trap_syscall
	.hidden	em_trap_syscall
	.type	em_trap_syscall, @function
em_trap_syscall:
	.cfi_startproc
	.cfi_undefined %rip
	syscall
	ud2
	.cfi_endproc
	.size	em_trap_syscall, . - em_trap_syscall

/* The old gate of 32-bit programs, on to r11. */
	.globl	em_trap_int80
	.hidden	em_trap_int80
	.type	em_trap_int80, @function
em_trap_int80:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa %rsp, 0
	.cfi_register %rip, %r11
	int	$0x80
	jmp	*%r11
	.cfi_endproc
	.size	em_trap_int80, . - em_trap_int80

/*
 * Calls after which somebody else goes on with these registers: vfork, clone with shared memory.
 * A child may have neither stack nor thread block of its own that we know of, and rcx and r11 are the
 * kernel's, so where to go on is known by which of these made the call.
 */
	.globl	em_trap_clones
	.hidden	em_trap_clones
	.globl	em_trap_clone_cont
	.hidden	em_trap_clone_cont
	.hidden	em_trap_cloned
	.type	em_trap_clones, @function
	.balign	16
em_trap_clones:
	.cfi_startproc
	.cfi_undefined %rip
	.rept	512			/* EM_TRAP_CLONES */
	.balign	16
1:	syscall
	leaq	1b(%rip), %r11
	jmp	cloned
	.endr
	.balign	16

cloned:
	leaq	em_trap_clones(%rip), %rcx
	subq	%rcx, %r11
	shrq	$1, %r11		/* 16 bytes of code, 8 of address */
	leaq	em_trap_clone_cont(%rip), %rcx
	movq	(%rcx, %r11), %r11
	leaq	-128(%rsp), %rsp	/* a vfork child is on its parent's stack */
	pushq	%rax
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	%r10
	pushq	%r8
	pushq	%r9
	pushq	%r11
	pushq	%rbx
	movq	%rsp, %rbx
	andq	$-16, %rsp
	movq	%rax, %rdi
	call	em_trap_cloned
	movq	%rbx, %rsp
	popq	%rbx
	popq	%r11
	popq	%r9
	popq	%r8
	popq	%r10
	popq	%rdx
	popq	%rsi
	popq	%rdi
	popq	%rax
	leaq	128(%rsp), %rsp
	jmp	*%r11
	.cfi_endproc
	.size	em_trap_clones, . - em_trap_clones

	.section .note.GNU-stack, "", @progbits
