/* SPDX-License-Identifier: MIT */
#include "signals.h"

#include <errno.h>
#include <stddef.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"
#include "hook.h"

enum {
	SA_RESTORER_FLAG = 0x04000000,
	SA_EXPOSE_TAGBITS_FLAG = 0x800,
};

/* What the kernel keeps of sa_flags. */
#define SA_KNOWN \
	(SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | \
	 SA_RESETHAND | SA_EXPOSE_TAGBITS_FLAG | SA_RESTORER_FLAG)
/* What it does with them before it comes to us. */
#define SA_FOR_KERNEL (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_RESTART | SA_EXPOSE_TAGBITS_FLAG)

static struct {
	uint64_t ours;		    /* SIGBUS with upcalls, SIGSYS where calls may be trapped */
	bool last_words;	    /* statistics are wanted of a process that a signal ends */
	struct em_mutex lock;
	struct em_sigaction action[EM_NSIG]; /* what the program asked for, where the kernel has us */
} sig;

static void on_signal(int n, siginfo_t *si, void *ucv);

bool em_signals_are_ours(int signo)
{
	return sig.ours & EM_SIG_BIT(signo);
}

static bool is_virtual(void)
{
	return em_signals_are_ours(SIGBUS);
}

/* The kernel has us whatever the program wants. */
static bool is_kept(int n)
{
	return em_signals_are_ours(n) || (is_virtual() && n == EM_STAND_IN);
}

static bool is_handler(const struct em_sigaction *a)
{
	return a->handler != (uintptr_t)SIG_DFL && a->handler != (uintptr_t)SIG_IGN;
}

/* Its default action ends the process, and we can take it. */
static bool kills(int n)
{
	const uint64_t others = EM_SIG_BIT(SIGKILL) | EM_SIG_BIT(SIGSTOP) | EM_SIG_BIT(SIGCHLD) |
				EM_SIG_BIT(SIGCONT) | EM_SIG_BIT(SIGURG) | EM_SIG_BIT(SIGWINCH) |
				EM_SIG_BIT(SIGTSTP) | EM_SIG_BIT(SIGTTIN) | EM_SIG_BIT(SIGTTOU);

	return !(others & EM_SIG_BIT(n));
}

/* The kernel has us where the program wants `a`. */
static bool needs_us(int n, const struct em_sigaction *a)
{
	if (is_handler(a))
		return is_virtual();
	return a->handler == (uintptr_t)SIG_DFL && sig.last_words && kills(n);
}

static long kernel_action(int n, const struct em_sigaction *act, struct em_sigaction *old)
{
	return em_syscall4(SYS_rt_sigaction, n, act, old, 8);
}

/* All signals wait until we have left our alternate stack. */
static struct em_sigaction entry_for(unsigned long flags)
{
	return (struct em_sigaction){
		.handler = (uintptr_t)on_signal,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_RESTORER_FLAG | (flags & SA_FOR_KERNEL),
		/* Without our frames it is the kernel's own that we return to. */
		.restorer = (uintptr_t)(is_virtual() ? em_signal_restorer : em_upcall_restorer),
		.mask = ~0ull,
	};
}

static bool is_standard_restorer(uintptr_t restorer)
{
	static const unsigned char forms[2][9] = {
		{ 0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05 }, /* mov $15, %rax; syscall */
		{ 0xb8, 15, 0, 0, 0, 0x0f, 0x05, 0, 0 },       /* mov $15, %eax; syscall */
	};
	static const size_t bytes[2] = { 9, 7 };
	static uintptr_t known;
	unsigned char code[9];
	struct iovec to = { code, 9 }, from = { (void *)restorer, 9 };

	if (restorer == __atomic_load_n(&known, __ATOMIC_RELAXED))
		return true;
	if (em_syscall6(SYS_process_vm_readv, em_sys_getpid(), (long)&to, 1, (long)&from, 1, 0) != 9)
		return true; /* the kernel would have run into it only at the handler's end */
	for (int f = 0; f < 2; f++) {
		size_t i = 0;

		while (i < bytes[f] && code[i] == forms[f][i])
			i++;
		if (i == bytes[f]) {
			__atomic_store_n(&known, restorer, __ATOMIC_RELAXED);
			return true;
		}
	}
	return false;
}

/* What the kernel gets where the program wants `act`, of a signal that is not kept. */
static struct em_sigaction kernel_form(int n, const struct em_sigaction *act)
{
	struct em_sigaction form = *act;

	if (needs_us(n, act))
		return entry_for(act->flags);
	form.mask = em_sigmask_to_kernel(act->mask);
	if (is_handler(act) && (act->flags & SA_RESTORER_FLAG) &&
	    is_standard_restorer(act->restorer))
		form.restorer = (uintptr_t)em_direct_restorer;
	return form;
}

/* ---- at start ---------------------------------------------------------------------------- */

static bool is_our_form(const struct em_sigaction *a)
{
	return a->handler == (uintptr_t)on_signal || a->restorer == (uintptr_t)em_direct_restorer;
}

void em_signals_adopt(void)
{
	for (int n = 1; n < EM_NSIG; n++) {
		struct em_sigaction a, entry;

		if (em_signals_are_ours(n) || kernel_action(n, NULL, &a) || is_our_form(&a))
			continue;
		sig.action[n] = a;
		if (!is_kept(n) && !needs_us(n, &a) && !is_handler(&a))
			continue;
		entry = is_kept(n) ? entry_for(a.flags) : kernel_form(n, &a);
		kernel_action(n, &entry, NULL);
	}
}

void em_signals_want_last_words(void)
{
	/* The kernel ignores what would kill the first process of a namespace. */
	if (em_sys_getpid() == 1)
		return;
	sig.last_words = true;
	em_signals_adopt();
}

void em_signals_take(int signo)
{
	struct em_thread *t = em_thread_self();
	uint64_t mask = 0;

	/* Whoever started us may have blocked it. */
	em_syscall4(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
	mask = em_sigmask_to_program(t, mask);
	sig.ours |= EM_SIG_BIT(signo);
	kernel_action(signo, NULL, &sig.action[signo]);
	if (signo == SIGBUS)
		em_signals_adopt();
	if (t)
		em_sigmask_note(t, mask);
	mask = em_sigmask_to_kernel(mask);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

/* ---- sigaction ------------------------------------------------------------------------- */

/* A vfork child and the like: it resets handlers in a table of its own, but our record is shared with its
   parent.  And it may be killed at any time, so it must not own our lock. */
static bool has_own_table(const struct em_thread *t)
{
	return t && em_proxy_is_stranger(t);
}

/* An ignored signal is not left pending. */
static void flush_stand_in(void)
{
	struct em_sigaction ign = { .handler = (uintptr_t)SIG_IGN }, entry;

	entry = entry_for(sig.action[SIGBUS].flags);
	kernel_action(EM_STAND_IN, &ign, NULL);
	kernel_action(EM_STAND_IN, &entry, NULL);
}

static void change_kept(int n, const struct em_sigaction *act)
{
	struct em_sigaction entry;

	sig.action[n] = *act;
	if (n != SIGBUS)
		return;
	/* A call that a SIGBUS interrupts shall fail with EINTR only if the program's handler runs. */
	entry = entry_for(is_handler(act) ? act->flags : SA_RESTART);
	kernel_action(EM_STAND_IN, &entry, NULL);
	em_upcall_install(entry.flags & SA_RESTART);
	if (act->handler == (uintptr_t)SIG_IGN)
		flush_stand_in();
}

static long change_action(int n, const struct em_sigaction *act, struct em_sigaction *old)
{
	struct em_sigaction entry = { 0 };
	long ret = 0;

	if (is_kept(n)) {
		*old = sig.action[n];
		if (act)
			change_kept(n, act);
		return 0;
	}
	if (act)
		entry = kernel_form(n, act);
	ret = kernel_action(n, act ? &entry : NULL, old);
	if (!ret && (old->handler == (uintptr_t)on_signal || old->handler == sig.action[n].handler))
		*old = sig.action[n];
	if (old->restorer == (uintptr_t)em_direct_restorer)
		old->restorer = sig.action[n].restorer; /* SA_RESETHAND took the handler */
	if (!ret && act)
		sig.action[n] = *act;
	return ret;
}

void em_signals_clear(void)
{
	for (int n = 1; n < EM_NSIG; n++) {
		struct em_sigaction dfl = { 0 }, was;

		if (!change_action(n, NULL, &was) && was.handler != (uintptr_t)SIG_IGN)
			change_action(n, &dfl, &was);
	}
}

void em_signals_rt_sigaction(struct em_regs *r)
{
	const struct em_sigaction *act = (const void *)r->arg[1];
	struct em_sigaction *old = (void *)r->arg[2], mine = { 0 }, was = { 0 };
	struct em_thread *t = em_thread_self();
	long n = r->arg[0];

	if (r->arg[3] != 8 || n < 1 || n >= EM_NSIG || !t) {
		r->ret = -EINVAL;
		return;
	}
	if (act && em_hold_fetch(r, &mine, act, sizeof(mine))) {
		r->ret = -EFAULT;
		return;
	}
	if (act) {
		mine.flags &= SA_KNOWN;
		mine.mask &= ~(EM_SIG_BIT(SIGKILL) | EM_SIG_BIT(SIGSTOP));
	}
	if (act && has_own_table(t)) {
		r->ret = is_kept((int)n) ? 0 : kernel_action((int)n, &mine, &was);
		if (is_kept((int)n) || was.handler == (uintptr_t)on_signal)
			was = sig.action[n];
	} else {
		em_enter(t, true);
		em_mutex_lock(&sig.lock);
		r->ret = change_action((int)n, act ? &mine : NULL, &was);
		em_mutex_unlock(&sig.lock);
		em_leave(t, true);
	}
	if (!r->ret && old)
		r->ret = em_hold_store(r, old, &was, sizeof(was));
}

/* ---- delivery ------------------------------------------------------------------------------ */

/* The action at the time of delivery, which SA_RESETHAND ends. */
static struct em_sigaction take_action(struct em_thread *t, int n)
{
	struct em_sigaction act, reset;

	if (has_own_table(t)) {
		act = sig.action[n];
	} else {
		em_enter(t, false);
		em_mutex_lock(&sig.lock);
		act = sig.action[n];
		if ((act.flags & SA_RESETHAND) && is_handler(&act)) {
			sig.action[n].handler = (uintptr_t)SIG_DFL;
			reset = kernel_form(n, &sig.action[n]);
			if (!is_kept(n))
				kernel_action(n, &reset, NULL);
		}
		em_mutex_unlock(&sig.lock);
		em_leave(t, false);
	}
	if (act.restorer && is_handler(&act) && is_standard_restorer(act.restorer))
		act.restorer = 0; /* ours does the same */
	return act;
}

static void say_last_words(const struct em_thread *t)
{
	if (sig.last_words && !has_own_table(t))
		em_stats_write_dying();
}

/* The kernel shall do it, once the program's own registers are back: so a core shows the program.  A
   fault that is ours comes again by itself; anything else has to be sent again, and the call that was
   refused with SIGSYS is not repeated. */
static void default_action(const struct em_thread *t, int n, siginfo_t *si)
{
	struct em_sigaction dfl = { 0 };

	say_last_words(t);
	kernel_action(n, &dfl, NULL);
	if (si->si_code > 0 && is_kept(n) && n != SIGSYS)
		return;
	if (em_syscall4(SYS_rt_tgsigqueueinfo, em_sys_getpid(), em_sys_gettid(), n, si))
		em_syscall3(SYS_tgkill, em_sys_getpid(), em_sys_gettid(), n);
}

/* The program's stack may need upcalls, its calls may be trapped, and it may not be there at all. */
static void open_ours(void)
{
	uint64_t mask = ~(sig.ours | EM_SIG_BIT(SIGSEGV));

	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

static void deliver(struct em_thread *t, int n, siginfo_t *si, ucontext_t *uc)
{
	struct em_sigdelivery d = { .t = t, .signo = n, .uc = uc };
	bool forced = si->si_code > 0 && is_kept(n);

	d.act = take_action(t, n);
	/* A fault does not ask whether it is blocked or ignored. */
	if (forced && (em_sigmask_at(t, uc) & EM_SIG_BIT(n)))
		d.act.handler = (uintptr_t)SIG_DFL;
	if (d.act.handler == (uintptr_t)SIG_IGN && !forced)
		return;
	if (!is_handler(&d.act)) {
		default_action(t, n, si);
		return;
	}
	em_memcpy(&d.info, si, sizeof(d.info));
	d.info.si_signo = n;
	open_ours();
	em_sigframe_enter(&d);
}

void em_signals_frame_failed(const struct em_sigdelivery *failed)
{
	struct em_sigdelivery d = *failed;
	struct em_sigaction dfl = { 0 };
	uint64_t none = 0;

	d.t->moving = NULL;
	em_memzero(&d.info, sizeof(d.info));
	d.info.si_signo = SIGSEGV;
	d.info.si_code = SI_KERNEL;
	if (failed->signo != SIGSEGV && !(em_sigmask_at(d.t, d.uc) & EM_SIG_BIT(SIGSEGV))) {
		uint64_t all = ~0ull;

		em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
		d.signo = SIGSEGV;
		d.act = take_action(d.t, SIGSEGV);
		if (is_handler(&d.act)) {
			open_ours();
			em_sigframe_enter(&d);
		}
	}
	say_last_words(d.t);
	kernel_action(SIGSEGV, &dfl, NULL);
	em_syscall3(SYS_tgkill, em_sys_getpid(), em_sys_gettid(), SIGSEGV);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
	for (;;)
		em_syscall1(SYS_exit_group, 128 + SIGSEGV);
}

/* A fault while we write a frame: its stack is not there. */
static void check_moving(struct em_thread *t, siginfo_t *si)
{
	if (t->moving && si->si_code > 0)
		em_signals_frame_failed(t->moving);
}

/* A signal of the program's own that has the number of the stand-in. */
static bool put_off(struct em_thread *t, int n)
{
	if (!(t->own_blocked & EM_SIG_BIT(n)))
		return false;
	t->own_pending |= EM_SIG_BIT(n);
	return true;
}

/* Without our frames: the handler runs on top of us. */
static void call_directly(struct em_thread *t, int n, siginfo_t *si, ucontext_t *uc)
{
	struct em_sigaction act = take_action(t, n);
	uint64_t mask = *(uint64_t *)&uc->uc_sigmask | act.mask;

	if (act.handler == (uintptr_t)SIG_IGN && si->si_code <= 0)
		return;
	if (!is_handler(&act)) {
		default_action(t, n, si);
		return;
	}
	mask = em_sigmask_to_kernel(mask);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	em_sigframe_stop_transfer(t, uc->uc_mcontext.gregs);
	((void (*)(int, siginfo_t *, void *))act.handler)(n, si, uc);
}

static void on_signal(int n, siginfo_t *si, void *ucv)
{
	struct em_thread *t = em_thread_self();
	ucontext_t *uc = ucv;

	if (!t)
		em_panic("extmem: no memory for a thread context\n");
	if (!is_virtual()) {
		call_directly(t, n, si, uc);
		return;
	}
	em_upcall_keep_own_stack(t, &uc->uc_stack);
	if (n == SIGSEGV && t->moving) {
		check_moving(t, si);
		/* Somebody sent one just now: it waits for a better moment. */
		em_syscall4(SYS_rt_tgsigqueueinfo, em_sys_getpid(), em_sys_gettid(), n, si);
		*(uint64_t *)&uc->uc_sigmask |= EM_SIG_BIT(SIGSEGV);
		return;
	}
	if (n == EM_STAND_IN) {
		if (em_sigmask_unmask_stand_in(si))
			n = SIGBUS;
		else if (put_off(t, n))
			return;
	}
	deliver(t, n, si, uc);
}

void em_signals_chain(int signo, siginfo_t *si, ucontext_t *uc)
{
	struct em_thread *t = em_thread_self();
	uint64_t all = ~0ull;

	if (!t)
		em_panic("extmem: no memory for a thread context\n");
	if (si->si_code <= 0 && signo == SIGBUS) {
		em_sigmask_queue_stand_in(si, si->si_code == SI_TKILL ? t->tid : 0);
		return;
	}
	if (si->si_code <= 0 && put_off(t, signo))
		return;
	if (signo == SIGBUS)
		check_moving(t, si);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
	if (is_virtual())
		deliver(t, signo, si, uc);
	else
		call_directly(t, signo, si, uc);
}
