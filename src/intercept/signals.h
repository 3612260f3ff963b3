/* SPDX-License-Identifier: MIT */
/*
 * Signal virtualisation: the program keeps its SIGBUS handler, its masks and its alternate stack as it
 * set them, while SIGBUS stays ours and is never blocked.
 */
#ifndef EM_INTERCEPT_SIGNALS_H
#define EM_INTERCEPT_SIGNALS_H

#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

struct em_thread;
struct em_regs;

/* Records what the program had before us.  Ordinary context, at start. */
void em_signals_init(void);

/* A SIGBUS that is not ours, inside our handler: runs the program's handler as the kernel would
   have, or arranges for the default action. */
void em_signals_chain_sigbus(siginfo_t *si, ucontext_t *uc);

/* Hooks. Each sets regs->ret. */
void em_signals_rt_sigaction(struct em_regs *regs);
void em_signals_rt_sigprocmask(struct em_regs *regs);
void em_signals_sigaltstack(struct em_regs *regs);

/* A signal set without SIGBUS, if upcalls need it unblocked: for calls that install a mask. */
uint64_t em_signals_without_sigbus(uint64_t set);

/* upcall.c: back to our own alternate stack. */
void em_upcall_use_own_stack(struct em_thread *t, stack_t *ss);

#endif
