/* SPDX-License-Identifier: MIT */
/*
 * System calls from sites that are not patched: Syscall User Dispatch (Linux 5.11).
 *
 * Once it is on, the kernel raises SIGSYS for every system call of a thread that does not come
 * from our own text.  The handler only changes where the thread goes on: em_trap_entry, which
 * is to a trapped site what em_hook_entry is to a patched one.  So the call itself is made
 * outside the handler, with the program's mask and on the program's stack.
 *
 * The setting belongs to a thread, and neither fork nor clone hands it on.
 */
#ifndef EM_INTERCEPT_TRAP_H
#define EM_INTERCEPT_TRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hook.h"

extern uint32_t em_trap_on;

/* Makes SIGSYS ours, if the kernel has the feature.  At start, before there are threads.
   0, -ENOSYS: the kernel has it not. */
int em_trap_start(void);
/* Turns trapping on, for good; why: for the log.  Start or hook context. */
void em_trap_want(const char *why);
/* At the end of each hook that asks for EM_HOOK_RAW, and of all once trapping is on. */
int em_trap_after(struct em_regs *r, int action);
/* The program's own use of the feature, as if the kernel were older. */
bool em_trap_refuses(const struct em_regs *r);
/* In the child of a fork. */
void em_trap_fork_child(void);

/* ---- exec.c: what becomes executable ------------------------------------------------------ */

/* After a mapping that the program asked for with PROT_EXEC. */
void em_exec_mapped(uintptr_t addr, const long *arg);
/* After mprotect with PROT_EXEC. */
void em_exec_protected(uintptr_t addr, size_t len, int prot);

#endif
