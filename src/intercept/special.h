/* SPDX-License-Identifier: MIT */
/*
 * System calls that are more than their pointers.  Each returns an enum em_hook_action
 * and sets regs->ret.
 */
#ifndef EM_INTERCEPT_SPECIAL_H
#define EM_INTERCEPT_SPECIAL_H

#include "hook.h"

int em_special_process(struct em_regs *r); /* fork, clone, exit, unshare, setns */
int em_special_fd(struct em_regs *r);	   /* close, close_range, dup2, dup3 */
int em_special_sigwait(struct em_regs *r); /* ppoll, pselect6, epoll_pwait*, rt_sigsuspend */

/* Before the kernel ends the thread: robust.c. */
void em_robust_leave(struct em_regs *r);

int em_special_vmsplice(struct em_regs *r);

#endif
