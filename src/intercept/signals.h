/* SPDX-License-Identifier: MIT */
/*
 * Signal virtualisation: the program keeps its handlers, its masks and its alternate stack as it
 * set them, while SIGBUS (upcalls) and SIGSYS (trapped calls) stay ours and are never blocked.
 *
 * With upcalls the kernel delivers every signal to us, on our alternate stack; we write the frame
 * that the program expects onto the stack it expects (sigframe.c) and enter its handler from there.
 *
 * A SIGBUS that somebody sent is queued once more as SIGSTKFLT, its stand-in, which is blocked
 * in the kernel whenever the program has SIGBUS blocked: so the kernel keeps it pending, chooses the
 * thread and ends waits as it does for any other signal (sigmask.c).
 *
 * With handler threads the kernel enters the program's handlers itself.  We only see them return.
 */
#ifndef EM_INTERCEPT_SIGNALS_H
#define EM_INTERCEPT_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

struct em_thread;
struct em_regs;

#define EM_SIG_BIT(signo) (1ull << ((signo)-1))
#define EM_STAND_IN SIGSTKFLT
#define EM_NSIG 65

struct em_sigaction { /* as the kernel has it */
	uintptr_t handler;
	unsigned long flags;
	uintptr_t restorer;
	uint64_t mask;
};

/* A signal on its way to a handler of the program. */
struct em_sigdelivery {
	struct em_thread *t;
	int signo;
	struct em_sigaction act;
	siginfo_t info;
	ucontext_t *uc; /* of the frame that the kernel made */
};

/* ---- signals.c: actions ---------------------------------------------------------------- */

/* Makes SIGBUS or SIGSYS ours: records what the program had before us.  The caller installs the
   handler afterwards.  At start, before the program has threads. */
void em_signals_take(int signo);
bool em_signals_are_ours(int signo);
/* At start: the handlers that constructors have installed before us get the form that sigaction gives them. */
void em_signals_adopt(void);

/* At start: what ends the process shall write its statistics first (em_stats_write_dying).  So the kernel
   has us for every signal that would, and the program sees its default action as before. */
void em_signals_want_last_words(void);

/* One of ours that is the program's after all, inside our handler: enters the program's handler as
   the kernel would have, or arranges for the default action. */
void em_signals_chain(int signo, siginfo_t *si, ucontext_t *uc);
/* The frame cannot be written: SIGSEGV instead, as the kernel has it. */
void em_signals_frame_failed(const struct em_sigdelivery *d) __attribute__((noreturn));

/* In a forked child: what CLONE_CLEAR_SIGHAND would do, but to the program's handlers only. */
void em_signals_clear(void);

/* Hooks. Each sets regs->ret. */
void em_signals_rt_sigaction(struct em_regs *regs);

/* ---- sigmask.c: sets ------------------------------------------------------------------- */

/* A signal set of the program as the kernel gets it, and back. */
uint64_t em_sigmask_to_kernel(uint64_t set);
uint64_t em_sigmask_to_program(const struct em_thread *t, uint64_t set);
/* Remembers of a mask that the program installs what the kernel's does not tell. */
void em_sigmask_note(struct em_thread *t, uint64_t mask);
/* Sends again what was put off and is not blocked any more. */
void em_sigmask_send_pending(struct em_thread *t);
/* The mask in force, as the program sees it, when the signal came that uc tells of. */
uint64_t em_sigmask_at(struct em_thread *t, const ucontext_t *uc);

/* Queues a SIGBUS that was sent as its stand-in; tid 0: for the process. */
long em_sigmask_queue_stand_in(const siginfo_t *si, int tid);
/* Is this the stand-in, and not a SIGSTKFLT of the program?  Then *si becomes that of the SIGBUS. */
bool em_sigmask_unmask_stand_in(siginfo_t *si);

void em_sigmask_rt_sigprocmask(struct em_regs *regs);
void em_sigmask_rt_sigpending(struct em_regs *regs);
void em_sigmask_rt_sigtimedwait(struct em_regs *regs);
void em_sigmask_signalfd(struct em_regs *regs);
void em_sigmask_rt_tgsigqueueinfo(struct em_regs *regs);
void em_sigmask_kill(struct em_regs *regs);
/* exec: the new program gets the mask as the old one believed it to be. */
uint64_t em_sigmask_before_exec(void);
void em_sigmask_exec_failed(uint64_t mask);

extern bool em_sigmask_signalfds; /* the program has a signalfd for SIGBUS */
/* After a read while there is one. */
void em_sigmask_after_read(const struct em_regs *regs);

/* ---- sigframe.c: stacks and frames ----------------------------------------------------- */

/* Writes the frame and enters the handler.  All signals are blocked but ours and SIGSEGV. */
void em_sigframe_enter(struct em_sigdelivery *d) __attribute__((noreturn));
/* Goes back to where a frame of the program's says, from our own stack. */
void em_sigframe_return(const void *kernel_uc) __attribute__((noreturn));
/* A handler of the program was entered, or is about to be, from where uc says: what is between two of its
   system calls shall know. */
void em_sigframe_stop_transfer(struct em_thread *t, greg_t *gregs);
/* The program makes the call itself.  An enum em_hook_action. */
int em_sigframe_rt_sigreturn(struct em_regs *regs);
void em_sigframe_sigaltstack(struct em_regs *regs);

/* upcall.c: installs a handler of ours, which runs on our alternate stack. */
int em_upcall_handle(int signo, void (*handler)(int, siginfo_t *, void *), uint64_t mask,
		     bool restart);
void em_upcall_restorer(void); /* upcall.c: rt_sigreturn and nothing else */
/* upcall.c: makes *ss, which a frame is to put back, our own alternate stack. */
void em_upcall_keep_own_stack(const struct em_thread *t, stack_t *ss);
stack_t em_upcall_own_stack(const struct em_thread *t);

/* sigreturn.S */
void em_signal_restorer(void);
void em_direct_restorer(void); /* of frames that the kernel has made for the program's handlers */
void em_sigreturn_from(const void *kernel_uc) __attribute__((noreturn));
void em_sigreturn_switch(void *kernel_uc) __attribute__((noreturn));
/* A system call for which the kernel installs another mask, and the address behind it. */
long em_masked_syscall(long nr, long a, long b, long c, long d, long e, long f);
extern const char em_masked_syscall_end[];
/* The first of several system calls that are one for the program: *stop tells afterwards whether a handler of
   the program has run since it was done, or came to an end that is not a restart. */
long em_first_syscall(long nr, const long arg[6], uint32_t *stop);
extern const char em_first_from[], em_first_end[];
/* One that follows: EINTR, whatever SA_RESTART says, if *stop is set before or while it waits. */
long em_next_syscall(long nr, const long arg[6], uint32_t *stop);
extern const char em_next_from[], em_next_end[];

#endif
