/* SPDX-License-Identifier: MIT */
/*
 * The way from a trampoline into the dispatcher and back, and the trampolines' memory.
 *
 * Unwinding.  A trampoline's slot is 64 bytes, aligned, and its last eight bytes hold the
 * address behind the original syscall instruction.  So the unwind tables can say, for any
 * address in a slot and for em_hook_entry, that the "caller" is the original code at that
 * address with all its registers: forced unwinding (pthread_cancel) and debuggers see
 * the program as if it had not been patched.  ORIGIN: (x & -64) + 56, dereferenced.
 */

/* struct em_regs of hook.h, and the place for rbx behind it. */
#define REGS_NR 0
#define REGS_RDI 8
#define REGS_RSI 16
#define REGS_RDX 24
#define REGS_R10 32
#define REGS_R8 40
#define REGS_R9 48
#define REGS_CONT 56
#define REGS_RSP 64
#define REGS_RET 72
#define REGS_NEW_RSP 80
#define FRAME_RBX 88
#define FRAME_BYTES 96
#define RED_ZONE 128

#define XSAVE_HEADER 512
/* Everything but protection keys (bit 9): a call that changed them would mean it. */
#define XSAVE_MASK 0xfffffdff

/* DWARF: 0x10 expression, 0x16 val_expression, 0x0f def_cfa_expression; 0x70 + n breg n;
   0x09 0xc0 const1s -64; 0x1a and; 0x23 0x38 plus_uconst 56; 0x06 deref */
#define ORIGIN_OPS 0x09, 0xc0, 0x1a, 0x23, 0x38, 0x06
#define CFI_RA_FROM_R11 .cfi_escape 0x16, 0x10, 8, 0x7b, 0, ORIGIN_OPS
#define CFI_RA_FROM_PC .cfi_escape 0x16, 0x10, 8, 0x80, 0, ORIGIN_OPS
#define CFI_SAVED(reg, offset) .cfi_escape 0x10, reg, 2, 0x73, offset

/*
 * em_hook_entry: from a trampoline, r11 its continuation.  em_trap_entry: from a site that is not
 * patched, by way of a signal (trap.c), r11 the address behind the syscall.  The two differ in
 * where an unwinder finds the caller.
 */
	.macro	HOOK_ENTRY name, trapped
	.text
	.globl	\name
	.hidden	\name
	.type	\name, @function
	.balign	64
\name:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa %rsp, 0
	.if	\trapped
	.cfi_register %rip, %r11
	.else
	CFI_RA_FROM_R11
	.endif
	movq	%rsp, %rcx
	.cfi_def_cfa_register %rcx
	leaq	-(RED_ZONE + FRAME_BYTES)(%rsp), %rsp
	andq	$-16, %rsp
	movq	%rax, REGS_NR(%rsp)
	movq	%rdi, REGS_RDI(%rsp)
	movq	%rsi, REGS_RSI(%rsp)
	movq	%rdx, REGS_RDX(%rsp)
	movq	%r10, REGS_R10(%rsp)
	movq	%r8, REGS_R8(%rsp)
	movq	%r9, REGS_R9(%rsp)
	movq	%r11, REGS_CONT(%rsp)
	movq	%rcx, REGS_RSP(%rsp)
	movq	%rax, REGS_RET(%rsp)
	movq	$0, REGS_NEW_RSP(%rsp)
	movq	%rbx, FRAME_RBX(%rsp)
	movq	%rsp, %rbx
	.cfi_remember_state
	.cfi_escape 0x0f, 4, 0x73, 0xc0, 0x00, 0x06	/* CFA = *(rbx + REGS_RSP) */
	.if	\trapped
	CFI_SAVED(16, REGS_CONT)
	.else
	.cfi_escape 0x16, 0x10, 9, 0x73, REGS_CONT, 0x06, ORIGIN_OPS
	.endif
	.cfi_escape 0x10, 3, 3, 0x73, 0xd8, 0x00	/* rbx at rbx + FRAME_RBX */
	CFI_SAVED(0, REGS_NR)
	CFI_SAVED(5, REGS_RDI)
	CFI_SAVED(4, REGS_RSI)
	CFI_SAVED(1, REGS_RDX)
	CFI_SAVED(10, REGS_R10)
	CFI_SAVED(8, REGS_R8)
	CFI_SAVED(9, REGS_R9)
	movq	%rsp, %rdi
	call	em_hook_dispatch
	movq	REGS_CONT(%rbx), %r11
	movq	REGS_RSP(%rbx), %rcx
	movq	REGS_RDI(%rbx), %rdi
	movq	REGS_RSI(%rbx), %rsi
	movq	REGS_RDX(%rbx), %rdx
	movq	REGS_R10(%rbx), %r10
	movq	REGS_R8(%rbx), %r8
	movq	REGS_R9(%rbx), %r9
	testl	%eax, %eax
	jnz	.Lraw\@
	movq	REGS_RET(%rbx), %rax
	cmpq	$0, REGS_NEW_RSP(%rbx)
	cmovneq	REGS_NEW_RSP(%rbx), %rcx
	jmp	.Lleave\@
.Lraw\@:
	/* Nothing of this frame is needed any more: a vfork child may run over it. */
	subq	$2, %r11
	movq	REGS_NR(%rbx), %rax
.Lleave\@:
	movq	FRAME_RBX(%rbx), %rbx
	.cfi_restore_state
	movq	%rcx, %rsp
	jmp	*%r11
	.cfi_endproc
	.size	\name, . - \name
	.endm

	.hidden	em_hook_dispatch
	HOOK_ENTRY em_hook_entry, 0
	HOOK_ENTRY em_trap_entry, 1

/*
 * long em_call_saving_vectors(long (*fn)(void *), void *arg): calls fn with the caller's
 * vector state put aside, for code in the hook that cannot promise to leave it alone.
 */
	.globl	em_call_saving_vectors
	.hidden	em_call_saving_vectors
	.type	em_call_saving_vectors, @function
	.balign	16
em_call_saving_vectors:
	.cfi_startproc
	pushq	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	pushq	%rbx
	.cfi_offset %rbx, -24
	pushq	%r12
	.cfi_offset %r12, -32
	pushq	%r13
	.cfi_offset %r13, -40
	pushq	%r14
	.cfi_offset %r14, -48
	movq	%rdi, %r12
	movq	%rsi, %r13
	movl	$1, %eax
	cpuid
	movl	%ecx, %r14d
	andl	$0x08000000, %r14d	/* OSXSAVE; else only what fxsave knows exists */
	movl	$512, %ebx
	jz	.Lroom
	movl	$0xd, %eax
	xorl	%ecx, %ecx
	cpuid				/* ebx: bytes for what is enabled */
.Lroom:
	subq	%rbx, %rsp
	andq	$-64, %rsp
	testl	%r14d, %r14d
	jz	.Lfxsave
	xorl	%eax, %eax
	.set	i, 0
	.rept	8			/* xsave writes only part of its header */
	movq	%rax, (XSAVE_HEADER + i)(%rsp)
	.set	i, i + 8
	.endr
	movl	$XSAVE_MASK, %eax
	movl	$-1, %edx
	xsave64	(%rsp)
	movq	%r13, %rdi
	call	*%r12
	movq	%rax, %r13
	movl	$XSAVE_MASK, %eax
	movl	$-1, %edx
	xrstor64 (%rsp)
	jmp	.Ldone
.Lfxsave:
	fxsave64 (%rsp)
	movq	%r13, %rdi
	call	*%r12
	movq	%rax, %r13
	fxrstor64 (%rsp)
.Ldone:
	movq	%r13, %rax
	leaq	-32(%rbp), %rsp
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size	em_call_saving_vectors, . - em_call_saving_vectors

/*
 * Trampolines of objects within 2 GiB of this one, that is of nearly all: here, in an object
 * with an unwind table, any unwinder finds them without registration.
 */
	.section .text.em_tramp, "ax", @progbits
	.globl	em_tramp_area
	.hidden	em_tramp_area
	.globl	em_tramp_area_end
	.hidden	em_tramp_area_end
	.type	em_tramp_area, @function
	.balign	4096
em_tramp_area:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa %rsp, 0
	CFI_RA_FROM_PC
	.fill	65536, 1, 0xcc
	.cfi_endproc
em_tramp_area_end:
	.size	em_tramp_area, . - em_tramp_area

	.section .note.GNU-stack, "", @progbits
