/* SPDX-License-Identifier: MIT */
#include "signals.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"
#include "hook.h"
#include "special.h"

#define BIT(signo) (1ull << ((signo)-1))
#define NSIG_MAX 65

struct ksigaction {
	uintptr_t handler;
	unsigned long flags;
	uintptr_t restorer;
	uint64_t mask;
};

static struct {
	uint64_t ours;		    /* SIGBUS with upcalls, SIGSYS where calls may be trapped */
	struct ksigaction bus, sys; /* what the program asked for */
	uint64_t masks[NSIG_MAX];   /* which of ours the masks of its handlers name */
} sig;

static struct ksigaction *action_of(int signo)
{
	return signo == SIGBUS ? &sig.bus : &sig.sys;
}

uint64_t em_signals_without_ours(uint64_t set)
{
	return set & ~sig.ours;
}

void em_signals_take(int signo)
{
	uint64_t bit = BIT(signo), old = 0;
	struct em_thread *t = em_thread_self();

	sig.ours |= bit;
	em_syscall4(SYS_rt_sigaction, signo, NULL, action_of(signo), 8);
	/* Whoever started us may have blocked it. */
	em_syscall4(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, &old, 8);
	if (t)
		t->own_blocked |= old & bit;
}

/* ---- sigaction ------------------------------------------------------------------------- */

static long own_action(int signo, const struct ksigaction *act, struct ksigaction *old)
{
	struct em_thread *t = em_thread_self();

	if (old)
		*old = *action_of(signo);
	/* A vfork child resets handlers in a table of its own, but our record is shared with its parent. */
	if (act && !(t && em_proxy_is_stranger(t)))
		*action_of(signo) = *act;
	return 0;
}

static void clear_action(struct ksigaction *act)
{
	if (act->handler != (uintptr_t)SIG_IGN)
		em_memzero(act, sizeof(*act));
}

void em_signals_clear(void)
{
	for (int n = 1; n < NSIG_MAX; n++) {
		struct ksigaction act;

		if (sig.ours & BIT(n)) {
			clear_action(action_of(n));
		} else if (!em_syscall4(SYS_rt_sigaction, n, NULL, &act, 8)) {
			clear_action(&act);
			em_syscall4(SYS_rt_sigaction, n, &act, NULL, 8);
			sig.masks[n] = 0;
		}
	}
}

void em_signals_rt_sigaction(struct em_regs *r)
{
	const struct ksigaction *act = (const void *)r->arg[1];
	struct ksigaction *old = (void *)r->arg[2], kact, kold;
	long n = r->arg[0];
	uint64_t had;

	if (r->arg[3] != 8 || n < 1 || n >= NSIG_MAX) {
		r->ret = em_syscall4(SYS_rt_sigaction, n, act, old, r->arg[3]);
		return;
	}
	if (act && em_hold_fetch(r, &kact, act, sizeof(kact))) {
		r->ret = -EFAULT;
		return;
	}
	if (sig.ours & BIT(n)) {
		r->ret = own_action((int)n, act ? &kact : NULL, old ? &kold : NULL);
		if (!r->ret && old)
			r->ret = em_hold_store(r, old, &kold, sizeof(kold));
		return;
	}
	had = sig.masks[n];
	if (act) {
		sig.masks[n] = kact.mask & sig.ours;
		kact.mask = em_signals_without_ours(kact.mask);
	}
	r->ret = em_syscall4(SYS_rt_sigaction, n, act ? &kact : NULL, old ? &kold : NULL, 8);
	if (r->ret) {
		sig.masks[n] = had;
		return;
	}
	if (old) {
		kold.mask |= had;
		r->ret = em_hold_store(r, old, &kold, sizeof(kold));
	}
}

/* ---- masks -------------------------------------------------------------------------------- */

static void note_blocked(struct em_thread *t, long how, uint64_t set)
{
	uint64_t named = set & sig.ours; /* of the others the kernel keeps the record */

	if (how == SIG_SETMASK)
		t->own_blocked = named;
	else if (how == SIG_BLOCK)
		t->own_blocked |= named;
	else
		t->own_blocked &= ~named;
}

/* What was sent while the program had it blocked comes now. */
static void send_pending(struct em_thread *t)
{
	uint64_t due = t->own_pending & ~t->own_blocked;

	t->own_pending &= ~due;
	for (int signo = 1; due; signo++, due >>= 1)
		if (due & 1)
			em_syscall3(SYS_tgkill, em_sys_getpid(), t->tid, signo);
}

void em_signals_rt_sigprocmask(struct em_regs *r)
{
	const uint64_t *set = (const void *)r->arg[1];
	uint64_t *old = (void *)r->arg[2], kset = 0, kold = 0, want = 0;
	struct em_thread *t = em_thread_self();
	uint64_t blocked = t ? t->own_blocked : 0;

	if (r->arg[3] != 8) {
		r->ret = em_syscall4(SYS_rt_sigprocmask, r->arg[0], set, old, r->arg[3]);
		return;
	}
	if (set && em_hold_fetch(r, &want, set, sizeof(want))) {
		r->ret = -EFAULT;
		return;
	}
	kset = em_signals_without_ours(want);
	r->ret = em_syscall4(SYS_rt_sigprocmask, r->arg[0], set ? &kset : NULL, &kold, 8);
	if (r->ret)
		return;
	if (set && t) {
		note_blocked(t, r->arg[0], want);
		send_pending(t);
	}
	kold |= blocked;
	if (old)
		r->ret = em_hold_store(r, old, &kold, sizeof(kold));
}

struct sigmask6 {
	const uint64_t *set;
	size_t size;
};

static const struct em_ptr ppoll_buffers[] = {
	{ EM_PTR_LEN_OF, EM_DIR_OUT, 0, 1 | 8 << 4 }, { EM_PTR_FIXED, EM_DIR_OUT, 2, 16 },
};
static const struct em_ptr pselect_buffers[] = {
	{ EM_PTR_FDSET, EM_DIR_OUT, 1, 0 }, { EM_PTR_FDSET, EM_DIR_OUT, 2, 0 },
	{ EM_PTR_FDSET, EM_DIR_OUT, 3, 0 }, { EM_PTR_FIXED, EM_DIR_OUT, 4, 16 },
};
static const struct em_ptr epoll_buffers[] = {
	{ EM_PTR_LEN_OF, EM_DIR_OUT, 1, 2 | 12 << 4 }, { EM_PTR_FIXED, EM_DIR_IN, 3, 16 },
};

static void hold_all(struct em_hold *h, const struct em_ptr *p, size_t n, const long *a)
{
	for (size_t i = 0; i < n; i++)
		em_hold_ptr(h, &p[i], a);
}

/* An address that is not there stays as it is: the kernel refuses it. */
static void replace_mask(struct em_hold *h, long *mask, uint64_t *copy)
{
	if (*mask && !em_hold_get(h, copy, (uintptr_t)*mask, sizeof(*copy))) {
		*copy = em_signals_without_ours(*copy);
		*mask = (long)copy;
	}
}

/* Calls that install a mask for the time of a wait: they get a copy without ours. */
int em_special_sigwait(struct em_regs *r)
{
	struct em_hold h;
	struct sigmask6 m6;
	uint64_t copy;
	long a[6], mask;

	em_memcpy(a, r->arg, sizeof(a));
	em_hold_begin(&h, r->rsp);
	if (r->nr == SYS_rt_sigsuspend) {
		if (a[1] == 8)
			replace_mask(&h, &a[0], &copy);
	} else if (r->nr == SYS_ppoll) {
		hold_all(&h, ppoll_buffers, 2, a);
		if (a[4] == 8)
			replace_mask(&h, &a[3], &copy);
	} else if (r->nr == SYS_pselect6) {
		hold_all(&h, pselect_buffers, 4, a);
		if (a[5] && !em_hold_get(&h, &m6, (uintptr_t)a[5], sizeof(m6))) {
			mask = (long)m6.set;
			if (m6.size == 8)
				replace_mask(&h, &mask, &copy);
			m6.set = (const uint64_t *)mask;
			a[5] = (long)&m6;
		}
	} else {
		hold_all(&h, epoll_buffers, r->nr == SYS_epoll_pwait2 ? 2 : 1, a);
		if (a[5] == 8)
			replace_mask(&h, &a[4], &copy);
	}
	r->ret = em_hold_ready(&h);
	if (!r->ret)
		r->ret = em_syscall6(r->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	em_hold_end(&h);
	return EM_HOOK_DONE;
}

/* ---- alternate stacks ------------------------------------------------------------------------ */

/* The program sees only what it set itself; while it has none the kernel knows ours. */
void em_signals_sigaltstack(struct em_regs *r)
{
	const stack_t *ss = (const void *)r->arg[0];
	stack_t *old = (void *)r->arg[1], want, kold, mine;
	struct em_thread *t = em_thread_self();
	bool ours;

	if (!t || !t->alt_base) {
		static const struct em_ptr stacks[] = {
			{ EM_PTR_FIXED, EM_DIR_IN, 0, sizeof(stack_t) },
			{ EM_PTR_FIXED, EM_DIR_OUT, 1, sizeof(stack_t) },
		};
		struct em_hold h;

		em_hold_begin(&h, r->rsp);
		hold_all(&h, stacks, 2, r->arg);
		r->ret = em_hold_ready(&h);
		if (!r->ret)
			r->ret = em_syscall2(SYS_sigaltstack, ss, old);
		em_hold_end(&h);
		return;
	}
	if (ss && em_hold_fetch(r, &want, ss, sizeof(want))) {
		r->ret = -EFAULT;
		return;
	}
	r->ret = em_syscall2(SYS_sigaltstack, NULL, &kold);
	ours = (uintptr_t)kold.ss_sp == t->alt_base;
	if (ours) {
		kold.ss_sp = NULL;
		kold.ss_size = 0;
		kold.ss_flags = SS_DISABLE;
	}
	if (ss && (want.ss_flags & SS_DISABLE)) {
		if (!ours)
			em_upcall_use_own_stack(t, &mine);
	} else if (ss) {
		/* Upcalls will be delivered there: it has to stay. */
		if (em_space_may_manage((uintptr_t)want.ss_sp, want.ss_size))
			em_range_pin((uintptr_t)want.ss_sp, want.ss_size);
		r->ret = em_syscall2(SYS_sigaltstack, &want, NULL);
	}
	if (!r->ret && old)
		r->ret = em_hold_store(r, old, &kold, sizeof(kold));
}

/* ---- a SIGBUS or SIGSYS that is the program's --------------------------------------------------- */

static void default_action(int signo, siginfo_t *si)
{
	struct ksigaction dfl = { 0 };

	em_syscall4(SYS_rt_sigaction, signo, &dfl, NULL, 8);
	/* A fault comes again when we return; a signal that somebody sent has to be sent again, and
	   the call that was refused with SIGSYS is not repeated. */
	if (si->si_code <= 0 || signo == SIGSYS)
		em_syscall3(SYS_tgkill, em_sys_getpid(), em_sys_gettid(), signo);
}

void em_signals_chain(int signo, siginfo_t *si, ucontext_t *uc)
{
	struct em_thread *t = em_thread_self();
	struct ksigaction act = *action_of(signo);
	uint64_t mask;

	if (si->si_code <= 0 && t && (t->own_blocked & BIT(signo))) {
		t->own_pending |= BIT(signo); /* somebody sent it: it waits, as it would natively */
		return;
	}
	if (act.handler == (uintptr_t)SIG_IGN && si->si_code <= 0)
		return;
	if (act.handler == (uintptr_t)SIG_DFL || act.handler == (uintptr_t)SIG_IGN) {
		default_action(signo, si);
		return;
	}
	if (act.flags & SA_RESETHAND)
		action_of(signo)->handler = (uintptr_t)SIG_DFL;
	em_memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	mask = em_signals_without_ours(mask | act.mask);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	if (act.flags & SA_SIGINFO)
		((void (*)(int, siginfo_t *, void *))act.handler)(signo, si, uc);
	else
		((void (*)(int))act.handler)(signo);
}
