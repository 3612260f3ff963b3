/* SPDX-License-Identifier: MIT */
/*
 * Signal virtualisation: the program keeps its handlers, its masks and its alternate stack as it
 * set them, while SIGBUS (upcalls) and SIGSYS (trapped calls) stay ours and are never blocked.
 */
#ifndef EM_INTERCEPT_SIGNALS_H
#define EM_INTERCEPT_SIGNALS_H

#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

struct em_thread;
struct em_regs;

/* Makes SIGBUS or SIGSYS ours: records what the program had before us.  The caller installs the
   handler afterwards.  At start, before the program has threads. */
void em_signals_take(int signo);

/* One of ours that is the program's after all, inside our handler: runs the program's handler as
   the kernel would have, or arranges for the default action. */
void em_signals_chain(int signo, siginfo_t *si, ucontext_t *uc);

/* In a forked child: what CLONE_CLEAR_SIGHAND would do, but to the program's handlers only. */
void em_signals_clear(void);

/* Hooks. Each sets regs->ret. */
void em_signals_rt_sigaction(struct em_regs *regs);
void em_signals_rt_sigprocmask(struct em_regs *regs);
void em_signals_sigaltstack(struct em_regs *regs);

/* A signal set without ours, which have to stay unblocked: for calls that install a mask. */
uint64_t em_signals_without_ours(uint64_t set);

/* upcall.c: installs a handler of ours, which runs on the alternate stack. */
int em_upcall_handle(int signo, void (*handler)(int, siginfo_t *, void *), uint64_t mask);
/* upcall.c: back to our own alternate stack. */
void em_upcall_use_own_stack(struct em_thread *t, stack_t *ss);

#endif
