/* SPDX-License-Identifier: MIT */
/*
 * long regs_check(void): one hooked getppid with every register and the red zone filled;
 * returns 0 or the number of what did not come back.  REGS_STUCK: with a site that leaves no room
 * for a jump.
 */
	.text
	.globl	regs_check
	.type	regs_check, @function
	.balign	16
regs_check:
	.cfi_startproc
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	pushq	%r13
	.cfi_adjust_cfa_offset 8
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	.set	i, 0
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movl	$0x5a5a0000 + \n, %eax
	movd	%eax, %xmm\n
	pshufd	$0, %xmm\n, %xmm\n
	.endr
	.rept	16
	movq	$0x11110000 + i, -8 - i * 8(%rsp)
	.set	i, i + 1
	.endr
	movl	$101, %ebx
	movl	$102, %ebp
	movl	$103, %r12d
	movl	$104, %r13d
	movl	$105, %r14d
	movl	$106, %r15d
	movl	$107, %edi
	movl	$108, %esi
	movl	$109, %edx
	movl	$110, %r8d
	movl	$111, %r9d
	movl	$112, %r10d
	.globl	regs_site
regs_site:
	movl	$110, %eax	/* getppid */
#ifdef REGS_STUCK
	jmp	1f
	FAR
	jmp	2f
1:	syscall
2:	jmp	3f
	FAR
3:
#else
	syscall
#endif
	movq	%rax, regs_result(%rip)
	.set	i, 101
	.irp	r, ebx, ebp, r12d, r13d, r14d, r15d, edi, esi, edx, r8d, r9d, r10d
	movl	$i, %eax
	cmpl	$i, %\r
	jne	.Lout
	.set	i, i + 1
	.endr
	.set	i, 0
	.rept	16
	movl	$201 + i, %eax
	cmpq	$0x11110000 + i, -8 - i * 8(%rsp)
	jne	.Lout
	.set	i, i + 1
	.endr
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movd	%xmm\n, %ecx
	movl	$301 + \n, %eax
	cmpl	$0x5a5a0000 + \n, %ecx
	jne	.Lout
	psrldq	$12, %xmm\n
	movd	%xmm\n, %ecx
	cmpl	$0x5a5a0000 + \n, %ecx
	jne	.Lout
	.endr
	xorl	%eax, %eax
.Lout:
	popq	%r15
	.cfi_adjust_cfa_offset -8
	popq	%r14
	.cfi_adjust_cfa_offset -8
	popq	%r13
	.cfi_adjust_cfa_offset -8
	popq	%r12
	.cfi_adjust_cfa_offset -8
	popq	%rbp
	.cfi_adjust_cfa_offset -8
	popq	%rbx
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size	regs_check, . - regs_check

	.bss
	.balign	8
	.globl	regs_result
	.protected regs_result
regs_result:
	.zero	8

	.section .note.GNU-stack, "", @progbits
