/* SPDX-License-Identifier: MIT */
/*
 * Every patched system call of the program arrives here.  The common case, no pointer into managed
 * memory, costs a table look-up per pointer and goes straight on.
 */
#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "../control/control.h"
#include "../core/core.h"
#include "../core/sys.h"
#include "../core/uffd_compat.h"
#include "calls.h"
#include "hold.h"
#include "hook.h"
#include "signals.h"
#include "special.h"
#include "transfer.h"
#include "trap.h"

static long raw(const struct em_regs *r)
{
	return em_syscall6(r->nr, r->arg[0], r->arg[1], r->arg[2], r->arg[3], r->arg[4], r->arg[5]);
}

static const struct em_call *call_of(long nr)
{
	static const struct em_call none;

	return nr >= 0 && nr < EM_CALL_MAX ? &em_calls[nr] : &none;
}

/* A transfer was made as it is, for its memory was not managed.  While it slept a mapping was laid over that, or
   it grew, and now it is: the kernel's EFAULT is not the program's, and nothing has been transferred. */
static bool slept_over_a_change(const struct em_regs *r, const struct em_call *c, long ret)
{
	return __builtin_expect(ret == -EFAULT, 0) && (c->flags & EM_CALL_TRANSFER) &&
	       em_hold_needed(c, r->arg);
}

static long call_with_pointers(struct em_regs *r, const struct em_call *c)
{
	long ret;

	if (c->flags & EM_CALL_ASYNC)
		return r->nr >= SYS_io_uring_setup ? em_uring_call(r, c) : em_aio_call(r, c);
	if (!em_hold_needed(c, r->arg)) {
		ret = raw(r);
		if (!slept_over_a_change(r, c, ret))
			return ret;
	}
	if (c->flags & EM_CALL_TRANSFER)
		return em_transfer(r, c);
	return em_transfer_whole(r, c, r->arg);
}

/* ---- memory ------------------------------------------------------------------------------ */

/* arg: the call's number, then its arguments, as they lie in struct em_regs. */
static long range_call(const long *arg)
{
	const long *a = arg + 1;

	switch (arg[0]) {
	case SYS_mmap:
		return em_range_mmap((uintptr_t)a[0], (size_t)a[1], (int)a[2], (int)a[3], (int)a[4],
				     a[5]);
	case SYS_munmap:
		return em_range_munmap((uintptr_t)a[0], (size_t)a[1]);
	case SYS_mremap:
		return em_range_mremap((uintptr_t)a[0], (size_t)a[1], (size_t)a[2], (int)a[3],
				       (uintptr_t)a[4]);
	case SYS_madvise:
		return em_range_madvise((uintptr_t)a[0], (size_t)a[1], (int)a[2]);
	case SYS_brk:
		return em_range_brk((uintptr_t)a[0]);
	default:
		return em_range_mlock(arg[0], (uintptr_t)a[0], (size_t)a[1], a[2]);
	}
}

static long range_hook(const struct em_regs *r)
{
	struct em_thread *t = em_thread_self();

	return t ? em_proxy_call(t, range_call, &r->nr) : -12; /* ENOMEM */
}

static long hook_mmap(struct em_regs *r)
{
	const long *a = r->arg;
	long ret;

	/* A file of a process with descriptors of its own is not the proxy's business. */
	if (a[3] & MAP_ANONYMOUS)
		ret = range_hook(r);
	else
		ret = range_call(&r->nr);

	/* The dynamic linker maps the text of a library opened at run time. */
	if (!em_is_err(ret) && (a[2] & PROT_EXEC))
		em_exec_mapped((uintptr_t)ret, a);
	return ret;
}

static long hook_mprotect(const struct em_regs *r)
{
	long ret = raw(r);

	if (!ret && (r->arg[2] & PROT_EXEC))
		em_exec_protected((uintptr_t)r->arg[0], (size_t)r->arg[1], (int)r->arg[2]);
	return ret;
}

/* The new program inherits the mask as this one sees it. */
static long exec(struct em_regs *r, const struct em_call *c)
{
	const long *a = r->arg;
	struct em_hold h;
	uint64_t mask;
	long ret;

	em_hold_begin(&h, r->rsp);
	em_hold_call(&h, c, r->nr, a);
	ret = em_hold_ready(&h);
	if (!ret) {
		em_control_before_exec();
		mask = em_sigmask_before_exec();
		ret = em_syscall5(r->nr, a[0], a[1], a[2], a[3], a[4]);
		em_sigmask_exec_failed(mask);
		em_control_exec_failed();
	}
	em_hold_end(&h);
	return ret;
}

static int special(struct em_regs *r)
{
	const long *a = r->arg;

	switch (r->nr) {
	case SYS_mmap:
		r->ret = hook_mmap(r);
		return EM_HOOK_DONE;
	case SYS_mprotect:
	case SYS_pkey_mprotect:
		r->ret = hook_mprotect(r);
		return EM_HOOK_DONE;
	case SYS_munmap:
	case SYS_mremap:
	case SYS_madvise:
	case SYS_brk:
	case SYS_mlock:
	case SYS_mlock2:
	case SYS_munlock:
		r->ret = range_hook(r);
		return EM_HOOK_DONE;
	case SYS_process_madvise:
		r->ret = em_range_process_madvise(a);
		return EM_HOOK_DONE;
	case SYS_mlockall:
		/* Locked as it is touched: to populate all that is mapped would take the engine's
		   reservation for metadata in too. */
		r->ret = em_syscall1(SYS_mlockall, a[0] & MCL_CURRENT ? a[0] | MCL_ONFAULT : a[0]);
		if (!r->ret && (a[0] & MCL_FUTURE))
			em_engine.lock_future = true;
		return EM_HOOK_DONE;
	case SYS_vmsplice:
		return em_special_vmsplice(r);
	case SYS_munlockall:
		r->ret = em_range_munlockall();
		return EM_HOOK_DONE;
	case SYS_rt_sigaction:
		em_signals_rt_sigaction(r);
		return EM_HOOK_DONE;
	case SYS_rt_sigprocmask:
		em_sigmask_rt_sigprocmask(r);
		return EM_HOOK_DONE;
	case SYS_rt_sigpending:
		em_sigmask_rt_sigpending(r);
		return EM_HOOK_DONE;
	case SYS_rt_sigtimedwait:
		em_sigmask_rt_sigtimedwait(r);
		return EM_HOOK_DONE;
	case SYS_rt_tgsigqueueinfo:
		em_sigmask_rt_tgsigqueueinfo(r);
		return EM_HOOK_DONE;
	case SYS_kill:
	case SYS_tkill:
	case SYS_tgkill:
		em_sigmask_kill(r);
		return EM_HOOK_DONE;
	case SYS_signalfd:
	case SYS_signalfd4:
		em_sigmask_signalfd(r);
		return EM_HOOK_DONE;
	case SYS_rt_sigreturn:
		return em_sigframe_rt_sigreturn(r);
	case SYS_sigaltstack:
		em_sigframe_sigaltstack(r);
		return EM_HOOK_DONE;
	case SYS_close:
	case SYS_close_range:
	case SYS_dup2:
	case SYS_dup3:
		return em_special_fd(r);
	case SYS_ppoll:
	case SYS_pselect6:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_rt_sigsuspend:
		return em_special_sigwait(r);
	default:
		return em_special_process(r);
	}
}

/* A userfaultfd of the program's own: a range has one at most, and the program's wish goes first. */
static bool is_registration(const struct em_regs *r)
{
	return r->nr == SYS_ioctl && (unsigned)r->arg[1] == UFFDIO_REGISTER;
}

static bool release_registered(const struct em_regs *r)
{
	struct uffdio_range range;
	uintptr_t end;

	if (em_hold_fetch(r, &range, (void *)r->arg[2], sizeof(range)))
		return false;
	end = range.start + range.len;
	return range.start < end && em_space_may_manage(range.start, range.len) &&
	       !em_range_release(range.start, end);
}

static bool forbids_cycle_counter(const struct em_regs *r)
{
	return r->nr == SYS_prctl && r->arg[0] == PR_SET_TSC && r->arg[1] == PR_TSC_SIGSEGV;
}

static int dispatch(struct em_regs *r, const struct em_call *c)
{
	int action = EM_HOOK_DONE;

	if (c->flags & EM_CALL_SPECIAL) {
		em_stat_inc(syscalls_hooked);
		action = special(r);
	} else {
		if (forbids_cycle_counter(r))
			em_clock_leave_counter();
		if (em_trap_refuses(r))
			r->ret = -EINVAL;
		else
			r->ret = c->flags & EM_CALL_EXEC ? exec(r, c) : call_with_pointers(r, c);
		if (r->ret == -EBUSY && is_registration(r) && release_registered(r))
			r->ret = call_with_pointers(r, c);
		if (__builtin_expect(em_sigmask_signalfds, 0))
			em_sigmask_after_read(r);
	}
	if (c->flags & EM_CALL_REMAPS)
		em_user_remapped();
	return action;
}

enum { HOOK_STACK_BYTES = 8192 }; /* the deepest hook takes some 5 KiB, by gcc's -fstack-usage */

/* A write brings the page in, or takes it out of write-back; the word tells about a reclaim that has locked
   it and not protected it yet. */
static void make_writable(uintptr_t page)
{
	em_word_t *wp, w;

	do {
		__asm__ volatile("lock orb $0, (%0)" : : "r"(page) : "memory", "cc");
		wp = em_space_word(page);
		w = wp ? em_word_load(wp) : EM_HOLE;
		if (w & EM_W_LOCKED)
			em_word_wait(wp, w);
	} while ((w & EM_W_LOCKED) ||
		 (em_word_state(w) != EM_DIRTY && em_word_state(w) != EM_HOLE &&
		  em_word_state(w) != EM_ABSENT));
}

/*
 * Inside an engine section no upcall can be taken, so a stack that is managed itself (a fiber's) is
 * brought in first and held.  The hazard, then the look at the pages: reclaim sees the one, or we
 * see what it does to the others.
 */
static int on_managed_stack(struct em_regs *r, const struct em_call *c)
{
	uintptr_t top = (uintptr_t)r->rsp, low = em_page_down(top - HOOK_STACK_BYTES);
	struct em_thread *t = em_thread_self();
	uint32_t mark;
	int action;

	if (!t)
		return dispatch(r, c);
	mark = em_hazard_begin(t, top);
	em_hazard_push(t, low, top - low, top + 1); /* older than those of the call itself */
	for (uintptr_t a = em_page_down(top - 1); a >= low; a -= EM_PAGE_SIZE)
		make_writable(a);
	action = dispatch(r, c);
	/* A thread on its way out holds nothing any more, and a vfork child starts without this. */
	if (t->nhazards > mark)
		em_hazard_pop(t, mark);
	if (t->in_vfork && t->vfork_mark > mark)
		t->vfork_mark = mark;
	return action;
}

/* No page of it is managed, told by the entries of its ends; false: it may be, or is long. */
static inline bool is_foreign(uintptr_t addr, size_t len)
{
	return len < EM_BLOCK_SIZE && !em_space_value(addr) && !em_space_value(addr + len);
}

/* read, write and the many with one buffer of a given length, outside managed memory. */
static inline bool is_plain(const struct em_call *c, const long *arg)
{
	const struct em_ptr *p = &c->ptr[0];

	if (p->how != EM_PTR_LEN || p[1].how != EM_PTR_END || (c->flags & EM_CALL_SPECIAL))
		return false;
	return is_foreign((uintptr_t)arg[p->arg], (size_t)arg[p->size & 7]);
}

static int hook(struct em_regs *r)
{
	const struct em_call *c = call_of(r->nr);

	r->new_rsp = 0;
	if (!em_engine.active || (c->flags & EM_CALL_NOPTR)) {
		r->ret = raw(r);
		return EM_HOOK_DONE;
	}
	if (is_plain(c, r->arg) && is_foreign(r->rsp - HOOK_STACK_BYTES, HOOK_STACK_BYTES)) {
		r->ret = raw(r);
		if (!slept_over_a_change(r, c, r->ret))
			return EM_HOOK_DONE;
	}
	if (__builtin_expect(em_space_may_manage(r->rsp - HOOK_STACK_BYTES, HOOK_STACK_BYTES), 0))
		return on_managed_stack(r, c);
	return dispatch(r, c);
}

int em_hook_dispatch(struct em_regs *r)
{
	int action = hook(r);

	if (__builtin_expect(action == EM_HOOK_RAW || em_trap_on, 0))
		action = em_trap_after(r, action);
	return action;
}
