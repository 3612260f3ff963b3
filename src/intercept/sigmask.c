/* SPDX-License-Identifier: MIT */
/*
 * Signal sets, between what the program says and what the kernel gets.
 *
 *   program              kernel
 *   SIGBUS blocked       SIGSTKFLT blocked, SIGBUS open
 *   SIGSYS blocked       SIGSYS open; em_thread.own_blocked (where SIGSYS is ours)
 *   SIGSTKFLT blocked    em_thread.own_blocked
 *
 * So a fault always gets its upcall, and a SIGBUS that somebody sent waits in the kernel, as its
 * stand-in, for the thread that has it unblocked or waits for it.
 */
#include <errno.h>
#include <stddef.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"
#include "hook.h"
#include "signals.h"
#include "special.h"

enum { MARK_OFFSET = 40, SSI_BYTES = 128 };

/* In the tail of the siginfo, which the kernel carries along and shows to nobody. */
#define MARK 0x73756247624d7845ull

#define BUS EM_SIG_BIT(SIGBUS)
#define SYS EM_SIG_BIT(SIGSYS)
#define STAND_IN EM_SIG_BIT(EM_STAND_IN)

bool em_sigmask_signalfds;

static bool has_stand_in(void)
{
	return em_signals_are_ours(SIGBUS);
}

uint64_t em_sigmask_to_kernel(uint64_t set)
{
	uint64_t k = set;

	if (em_signals_are_ours(SIGSYS))
		k &= ~SYS;
	if (has_stand_in())
		k = (k & ~(BUS | STAND_IN)) | (set & BUS ? STAND_IN : 0);
	return k;
}

/* Which signals only own_blocked tells about. */
static uint64_t noted(void)
{
	return (em_signals_are_ours(SIGSYS) ? SYS : 0) | (has_stand_in() ? STAND_IN : 0);
}

uint64_t em_sigmask_to_program(const struct em_thread *t, uint64_t set)
{
	uint64_t p = set & ~noted();

	if (has_stand_in() && (set & STAND_IN))
		p |= BUS;
	return p | (t ? t->own_blocked : 0);
}

/* A vfork child works on the context of its parent, whose mask stays. */
void em_sigmask_note(struct em_thread *t, uint64_t mask)
{
	if (!t->in_vfork || !em_proxy_is_stranger(t))
		t->own_blocked = mask & noted();
}

void em_sigmask_send_pending(struct em_thread *t)
{
	uint64_t due = t->own_pending & ~t->own_blocked;

	t->own_pending &= ~due;
	for (int n = 1; due; n++, due >>= 1)
		if (due & 1)
			em_syscall3(SYS_tgkill, em_sys_getpid(), t->tid, n);
}

/* A wait's own mask is in force until the call has returned; the kernel's frame names the one
   from before it. */
uint64_t em_sigmask_at(struct em_thread *t, const ucontext_t *uc)
{
	if (t->waiting && uc->uc_mcontext.gregs[REG_RIP] == (greg_t)em_masked_syscall_end &&
	    uc->uc_mcontext.gregs[REG_RAX] == -EINTR)
		return t->wait_mask;
	return em_sigmask_to_program(t, *(const uint64_t *)&uc->uc_sigmask);
}

/* ---- the stand-in -------------------------------------------------------------------------- */

static uint64_t *mark_of(siginfo_t *si)
{
	return (uint64_t *)((char *)si + MARK_OFFSET);
}

long em_sigmask_queue_stand_in(const siginfo_t *si, int tid)
{
	siginfo_t info;

	em_memcpy(&info, si, sizeof(info));
	*mark_of(&info) = MARK;
	if (tid)
		return em_syscall4(SYS_rt_tgsigqueueinfo, em_sys_getpid(), tid, EM_STAND_IN, &info);
	return em_syscall3(SYS_rt_sigqueueinfo, em_sys_getpid(), EM_STAND_IN, &info);
}

bool em_sigmask_unmask_stand_in(siginfo_t *si)
{
	bool marked = *mark_of(si) == MARK;
	/* Out of memory the kernel forgets what it was told, but not the signal. */
	bool forgotten = si->si_code == SI_USER && !si->si_pid && !*mark_of(si);

	if (!marked && !forgotten)
		return false;
	*mark_of(si) = 0;
	si->si_signo = SIGBUS;
	return true;
}

/* The program sends a SIGBUS to one thread, with a value: SI_QUEUE does not tell threads
   from processes later. */
void em_sigmask_rt_tgsigqueueinfo(struct em_regs *r)
{
	siginfo_t si;

	r->ret = em_hold_fetch(r, &si, (const void *)r->arg[3], sizeof(si));
	if (r->ret)
		return;
	if (has_stand_in() && r->arg[2] == SIGBUS && r->arg[0] == em_sys_getpid() && r->arg[1] > 0)
		r->ret = em_sigmask_queue_stand_in(&si, (int)r->arg[1]);
	else
		r->ret = em_syscall4(r->nr, r->arg[0], r->arg[1], r->arg[2], &si);
}

/* kill, tkill, tgkill: to ourselves, a SIGBUS need not interrupt those who have it blocked. */
void em_sigmask_kill(struct em_regs *r)
{
	long pid = em_sys_getpid(), tid = 0, n = r->nr == SYS_tgkill ? r->arg[2] : r->arg[1];
	siginfo_t si;

	r->ret = -ESRCH;
	if (n == SIGBUS && has_stand_in() && (r->nr == SYS_tkill || (int)r->arg[0] == pid)) {
		em_memzero(&si, sizeof(si));
		if (r->nr != SYS_kill)
			tid = (int)(r->nr == SYS_tkill ? r->arg[0] : r->arg[1]);
		si.si_signo = SIGBUS;
		si.si_code = r->nr == SYS_kill ? SI_USER : SI_TKILL;
		si.si_pid = (int)pid;
		si.si_uid = (unsigned)em_syscall0(SYS_getuid);
		if (r->nr == SYS_kill || tid > 0)
			r->ret = em_sigmask_queue_stand_in(&si, (int)tid);
	}
	/* Not one of ours, or it cannot be had that way. */
	if (r->ret)
		r->ret = em_syscall3(r->nr, r->arg[0], r->arg[1], r->arg[2]);
}

/* ---- masks --------------------------------------------------------------------------------- */

static uint64_t changed(uint64_t mask, long how, uint64_t set)
{
	return how == SIG_SETMASK ? set : how == SIG_BLOCK ? mask | set : mask & ~set;
}

void em_sigmask_rt_sigprocmask(struct em_regs *r)
{
	const uint64_t *set = (const void *)r->arg[1];
	uint64_t *old = (void *)r->arg[2], pset = 0, kset, kold = 0, was;
	struct em_thread *t = em_thread_self();

	if (!t || r->arg[3] != 8) {
		r->ret = -EINVAL;
		return;
	}
	r->ret = set ? em_hold_fetch(r, &pset, set, sizeof(pset)) : 0;
	kset = em_sigmask_to_kernel(pset);
	if (!r->ret)
		r->ret = em_syscall4(SYS_rt_sigprocmask, r->arg[0], set ? &kset : NULL, &kold, 8);
	if (r->ret)
		return;
	was = em_sigmask_to_program(t, kold);
	if (set) {
		em_sigmask_note(t, changed(was, r->arg[0], pset));
		em_sigmask_send_pending(t);
	}
	if (old)
		r->ret = em_hold_store(r, old, &was, sizeof(was));
}

void em_sigmask_rt_sigpending(struct em_regs *r)
{
	struct em_thread *t = em_thread_self();
	size_t size = (size_t)r->arg[1];
	uint64_t set = 0;

	r->ret = em_syscall2(SYS_rt_sigpending, &set, size);
	if (r->ret)
		return;
	if (has_stand_in())
		set = (set & ~STAND_IN) | (set & STAND_IN ? BUS : 0);
	if (t)
		set |= t->own_pending;
	r->ret = em_hold_store(r, (void *)r->arg[0], &set, size);
}

uint64_t em_sigmask_before_exec(void)
{
	uint64_t mask = 0, real;

	em_syscall4(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
	real = em_sigmask_to_program(em_thread_self(), mask);
	if (real != mask)
		em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &real, NULL, 8);
	return mask;
}

void em_sigmask_exec_failed(uint64_t mask)
{
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

/* ---- waits with a mask of their own ------------------------------------------------------------ */

struct sigmask6 {
	const uint64_t *set;
	size_t size;
};

struct wait {
	struct em_hold h;
	long a[6];
	uint64_t mask, kernel;
	bool masked;
	struct sigmask6 m6;
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

static void hold_all(struct wait *w, const struct em_ptr *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		em_hold_ptr(&w->h, &p[i], w->a);
}

/* An address that is not there stays as it is: the kernel refuses it. */
static void replace_mask(struct wait *w, long *mask, long size)
{
	if (!*mask || size != 8 || em_hold_get(&w->h, &w->mask, (uintptr_t)*mask, sizeof(w->mask)))
		return;
	w->kernel = em_sigmask_to_kernel(w->mask);
	w->masked = true;
	*mask = (long)&w->kernel;
}

static void replace_mask6(struct wait *w)
{
	long mask;

	if (!w->a[5] || em_hold_get(&w->h, &w->m6, (uintptr_t)w->a[5], sizeof(w->m6)))
		return;
	mask = (long)w->m6.set;
	replace_mask(w, &mask, (long)w->m6.size);
	w->m6.set = (const uint64_t *)mask;
	w->a[5] = (long)&w->m6;
}

static void hold_wait(struct wait *w, long nr)
{
	switch (nr) {
	case SYS_rt_sigsuspend:
		replace_mask(w, &w->a[0], w->a[1]);
		break;
	case SYS_ppoll:
		hold_all(w, ppoll_buffers, 2);
		replace_mask(w, &w->a[3], w->a[4]);
		break;
	case SYS_pselect6:
		hold_all(w, pselect_buffers, 4);
		replace_mask6(w);
		break;
	default:
		hold_all(w, epoll_buffers, nr == SYS_epoll_pwait2 ? 2 : 1);
		replace_mask(w, &w->a[4], w->a[5]);
	}
}

/* Calls that install a mask for the time of a wait: they get ours. */
int em_special_sigwait(struct em_regs *r)
{
	struct wait w = { .masked = false };

	em_memcpy(w.a, r->arg, sizeof(w.a));
	em_hold_begin(&w.h, r->rsp);
	hold_wait(&w, r->nr);
	r->ret = em_hold_ready(&w.h);
	if (!r->ret) {
		w.h.t->wait_mask = w.mask;
		__atomic_store_n(&w.h.t->waiting, w.masked, __ATOMIC_SEQ_CST);
		r->ret = em_masked_syscall(r->nr, w.a[0], w.a[1], w.a[2], w.a[3], w.a[4], w.a[5]);
		w.h.t->waiting = false;
	}
	em_hold_end(&w.h);
	return EM_HOOK_DONE;
}

/* Both are waited for: a SIGBUS that comes during the call is taken from the kernel before it could be
   delivered to us, and one that came before, or to another thread, is there as the stand-in. */
void em_sigmask_rt_sigtimedwait(struct em_regs *r)
{
	uint64_t want = 0, kset;
	struct em_hold h;
	siginfo_t si;

	if (r->arg[3] != 8) {
		r->ret = -EINVAL;
		return;
	}
	em_hold_begin(&h, r->rsp);
	r->ret = em_hold_get(&h, &want, (uintptr_t)r->arg[0], sizeof(want));
	em_hold_range(&h, (uintptr_t)r->arg[2], 16, EM_DIR_IN);
	kset = want;
	if (has_stand_in())
		kset = (want & ~STAND_IN) | (want & BUS ? STAND_IN : 0);
	if (em_hold_ready(&h))
		r->ret = h.err;
	if (!r->ret)
		r->ret = em_syscall4(r->nr, &kset, &si, r->arg[2], 8);
	em_hold_end(&h);
	if (r->ret <= 0)
		return;
	if (has_stand_in() && si.si_signo == EM_STAND_IN && em_sigmask_unmask_stand_in(&si))
		r->ret = SIGBUS;
	if (r->arg[1] && em_hold_store(r, (void *)r->arg[1], &si, sizeof(si)))
		r->ret = -EFAULT;
}

/* ---- signalfd --------------------------------------------------------------------------------- */

void em_sigmask_signalfd(struct em_regs *r)
{
	uint64_t set;

	if (r->arg[2] != 8) {
		r->ret = -EINVAL;
		return;
	}
	r->ret = em_hold_fetch(r, &set, (const void *)r->arg[1], sizeof(set));
	if (r->ret)
		return;
	if (has_stand_in()) {
		if (set & BUS)
			em_sigmask_signalfds = true;
		set = (set & ~(STAND_IN | BUS)) | (set & BUS ? STAND_IN : 0);
	}
	r->ret = em_syscall4(r->nr, r->arg[0], &set, r->arg[2], r->arg[3]);
}

static bool is_signalfd(long fd)
{
	static const char name[] = "anon_inode:[signalfd]";
	char link[32] = "/proc/self/fd/", target[sizeof(name)];
	int at = 14, digits = 1;

	for (long n = fd; n >= 10; n /= 10)
		digits++;
	for (int i = digits; i-- > 0; fd /= 10)
		link[at + i] = (char)('0' + fd % 10);
	link[at + digits] = 0;
	if (em_syscall3(SYS_readlink, link, target, sizeof(target)) != sizeof(name) - 1)
		return false;
	for (size_t i = 0; i < sizeof(name) - 1; i++)
		if (target[i] != name[i])
			return false;
	return true;
}

/* A stand-in that was read is a SIGBUS.  bytes: of buffer that were written to. */
static void rename_read(const struct em_regs *r, uintptr_t buffer, size_t bytes)
{
	uint32_t bus = SIGBUS, n;

	for (size_t at = 0; at + SSI_BYTES <= bytes; at += SSI_BYTES) {
		if (em_hold_fetch(r, &n, (void *)(buffer + at), sizeof(n)))
			return;
		if (n == EM_STAND_IN)
			em_hold_store(r, (void *)(buffer + at), &bus, sizeof(bus));
	}
}

void em_sigmask_after_read(const struct em_regs *r)
{
	size_t left = (size_t)r->ret;
	struct iovec v;

	if ((r->nr != SYS_read && r->nr != SYS_readv) || r->ret <= 0 || r->ret % SSI_BYTES ||
	    r->arg[0] < 0 || !is_signalfd(r->arg[0]))
		return;
	if (r->nr == SYS_read) {
		rename_read(r, (uintptr_t)r->arg[1], left);
		return;
	}
	for (long i = 0; left && !em_hold_fetch(r, &v, (struct iovec *)r->arg[1] + i, sizeof(v)); i++) {
		if (v.iov_len > left)
			v.iov_len = left;
		rename_read(r, (uintptr_t)v.iov_base, v.iov_len);
		left -= v.iov_len;
	}
}
