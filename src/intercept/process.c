/* SPDX-License-Identifier: MIT */
/*
 * Processes and descriptors: fork, clone, vfork, exit; close and friends around our own descriptors.
 */
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>

#include "../control/control.h"
#include "../core/core.h"
#include "../core/sys.h"
#include "../store/store.h"
#include "hold.h"
#include "signals.h"
#include "special.h"
#include "trap.h"

#define EBADF_ERR (-9)
#define EINVAL_ERR (-22)
#define CLEAR_SIGHAND 0x100000000ull /* CLONE_CLEAR_SIGHAND, clone3 only */

/* ---- clone ---------------------------------------------------------------------------- */

static uint64_t clone_flags(const struct em_regs *r)
{
	if (r->nr == SYS_clone)
		return (uint64_t)r->arg[0];
	return r->arg[0] ? *(const uint64_t *)r->arg[0] : 0; /* clone_args.flags */
}

/* Stack pointer that a fork-like clone asks for, 0: the same. */
static uint64_t clone_stack(const struct em_regs *r)
{
	const struct clone_args *a = (const struct clone_args *)r->arg[0];

	if (r->nr == SYS_fork)
		return 0;
	if (r->nr == SYS_clone)
		return (uint64_t)r->arg[1];
	return a && a->stack ? a->stack + a->stack_size : 0;
}

enum { STACK_TOP_BYTES = 64 * 1024 };

/* A stack in managed memory: until the new thread has an alternate stack for its upcalls it cannot fault, and
   the kernel puts signal frames there too.  The top stays in memory. */
static void pin_stack_top(uint64_t top)
{
	uintptr_t start = top > STACK_TOP_BYTES ? (uintptr_t)top - STACK_TOP_BYTES : 0;

	if (top && em_space_may_manage(start, STACK_TOP_BYTES))
		em_range_pin(start, STACK_TOP_BYTES);
}

/*
 * The child shares our memory until it execs or exits: its hooks run on this thread's context while this
 * thread sleeps.  What it held when it went away is dropped by em_special_vfork_over.
 */
static void lend_context(void)
{
	struct em_thread *t = em_thread_self();

	em_proxy_start(false);
	if (t && !t->in_vfork) {
		t->vfork_mark = t->nhazards;
		t->in_vfork = true;
	}
}

/*
 * The child opens its own userfaultfd and the like under the numbers of ours, which it closes.  In a table
 * that both have (CLONE_FILES without CLONE_VM) this would end the registration of our memory: so the child
 * gets a copy of the table.
 */
static long fork_like(struct em_regs *r, uint64_t flags)
{
	struct clone_args args;
	long arg[6];
	long ret;

	em_memcpy(arg, r->arg, sizeof(arg));
	if (r->nr == SYS_clone) {
		arg[0] &= ~CLONE_FILES;
		arg[1] = 0; /* the child comes back through our own frames first */
	} else if (r->nr == SYS_clone3) {
		size_t n = (size_t)arg[1] < sizeof(args) ? (size_t)arg[1] : sizeof(args);

		em_memzero(&args, sizeof(args));
		em_memcpy(&args, (void *)arg[0], n);
		args.stack = args.stack_size = 0;
		args.flags &= ~(uint64_t)CLONE_FILES;
		args.flags &= ~CLEAR_SIGHAND; /* done by hand: the engine's own handlers stay */
		arg[0] = (long)&args;
		arg[1] = (long)n;
	}
	ret = em_fork(r->nr, arg);
	if (ret == 0) {
		if (flags & CLEAR_SIGHAND)
			em_signals_clear();
		em_patch_fork_child();
		em_trap_fork_child();
		em_requests_fork_child();
		r->new_rsp = clone_stack(r);
	}
	return ret;
}

/*
 * A new thread starts on its stack before it has an alternate one for upcalls, and the kernel itself
 * writes to its thread block (restartable sequences, the thread id at exit).  On memory that the
 * program has chosen (pthread_attr_setstack) both stay in memory.
 */
static void pin_thread_memory(const struct em_regs *r)
{
	const struct clone_args *a = (const struct clone_args *)r->arg[0];
	/* Less than glibc's, which ends where the mapping does: the next page may be the program's. */
	enum { THREAD_BLOCK = 2304 };
	const uintptr_t some = 8 * EM_PAGE_SIZE;
	uint64_t flags = clone_flags(r);
	uintptr_t top = clone_stack(r), tls = 0, end = top;

	if (flags & CLONE_SETTLS)
		tls = r->nr == SYS_clone ? (uintptr_t)r->arg[4] : a->tls;
	/* Where glibc has it: thread-local storage right above the stack, the thread block above that. */
	if (tls >= top && tls - top < 32 * some)
		end = tls + THREAD_BLOCK;
	if (top > some && em_space_may_manage(top - some, end - top + some))
		em_range_pin(top - some, end - top + some);
}

/* The kernel writes the new task's id where it is told to, and says nothing if it cannot. */
static void pin_ids(const struct em_regs *r, uint64_t flags)
{
	const uint64_t wanted = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID |
				CLONE_PIDFD;
	const struct clone_args *a = (const struct clone_args *)r->arg[0];
	uint64_t at[3] = { 0 };

	if (r->nr == SYS_fork || !(flags & wanted))
		return;
	if (r->nr == SYS_clone) {
		at[0] = (uint64_t)r->arg[2];
		at[1] = (uint64_t)r->arg[3];
	} else {
		at[0] = a->parent_tid;
		at[1] = a->child_tid;
		at[2] = a->pidfd;
	}
	for (int i = 0; i < 3; i++)
		if (at[i] && em_space_may_manage(at[i], sizeof(int)))
			em_range_pin(at[i], sizeof(int));
}

/*
 * A thread is about to have a table of descriptors of its own.  A ring to look at (spin.c) is made when it is
 * needed, in the table of whoever needs it: for a thread with another table its number may mean another
 * ring.  So nobody looks any more.
 */
static void tables_part(void)
{
	if (em_engine.store)
		em_store_stop_looking(em_engine.store);
}

static int clone_or_fork(struct em_regs *r)
{
	uint64_t flags = r->nr == SYS_fork ? 0 : clone_flags(r);
	bool thread = flags & CLONE_THREAD;

	pin_ids(r, flags);
	if (!(flags & CLONE_VM)) {
		r->ret = fork_like(r, flags);
		return EM_HOOK_DONE;
	}
	if (flags & CLEAR_SIGHAND) {
		r->ret = EINVAL_ERR; /* as Linux before 5.5: the child could not take its upcalls */
		return EM_HOOK_DONE;
	}
	if (thread && !(flags & CLONE_FILES))
		tables_part();
	pin_stack_top(clone_stack(r));
	if (!(flags & CLONE_SETTLS) && (thread || !(flags & CLONE_VFORK)))
		em_thread_share_storage();
	if (thread)
		pin_thread_memory(r);
	else if (flags & CLONE_VFORK)
		lend_context();
	else
		em_proxy_start(true);
	return EM_HOOK_RAW;
}

static bool is_own_process(void)
{
	return em_sys_getpid() == em_engine.pid;
}

/* The context belongs to the thread until it is gone, but no handler of the program needs to run any more.
   Upcalls may: the way out leads over a stack that may be managed. */
static void leave_thread(void)
{
	uint64_t all = em_sigmask_to_kernel(~0ull);

	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	em_thread_exit();
}

/* A vfork child leaves its parent's context alone. */
static void leave(void)
{
	struct em_thread *t = em_thread_self();

	if (is_own_process() || (t && t->tid == em_sys_gettid()))
		leave_thread();
}

/* The table of a program's only thread is nobody else's.  The engine's threads come along, or what the program
   closes would stay open in the old one.  Do they have to be resumed afterwards? */
static bool own_table_begins(void)
{
	if (!is_own_process())
		return false;
	em_control_pause();
	if (em_tasks_alone())
		return true;
	em_control_resume();
	tables_part();
	return false;
}

/* The kernel changes the user namespace only of a process that has one thread.  Ours come back afterwards. */
static int without_engine_threads(struct em_regs *r)
{
	const long one_thread = CLONE_NEWUSER | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
	bool paused = is_own_process() && (r->nr == SYS_setns || (r->arg[0] & one_thread));

	if (paused)
		em_control_pause();
	else if (r->nr == SYS_unshare && (r->arg[0] & CLONE_FILES))
		paused = own_table_begins();
	r->ret = em_syscall2(r->nr, r->arg[0], r->arg[1]);
	if (paused)
		em_control_resume();
	return EM_HOOK_DONE;
}

int em_special_process(struct em_regs *r)
{
	switch (r->nr) {
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
		return clone_or_fork(r);
	case SYS_vfork:
		lend_context();
		return EM_HOOK_RAW;
	case SYS_exit:
		if (is_own_process() && em_sys_gettid() == em_engine.pid)
			em_stats_write_file(false); /* the main thread may be the last */
		if (is_own_process())
			em_robust_leave(r);
		if (is_own_process())
			em_control_thread_leaves((int)r->arg[0]);
		leave();
		return EM_HOOK_RAW;
	case SYS_exit_group:
		if (is_own_process()) {
			em_stats_write_file(true);
			em_control_exit();
		} else {
			leave();
		}
		return EM_HOOK_RAW;
	case SYS_unshare:
	case SYS_setns:
		return without_engine_threads(r);
	default:
		return EM_HOOK_RAW;
	}
}

/* ---- descriptors --------------------------------------------------------------------------- */

static long next_owned(unsigned from, unsigned to)
{
	int fds[40];
	size_t n = em_engine_fds(fds, 40);
	long best = -1;

	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0 && (unsigned)fds[i] >= from && (unsigned)fds[i] <= to &&
		    (best < 0 || fds[i] < best))
			best = fds[i];
	return best;
}

static long close_range_around(unsigned from, unsigned to, unsigned flags)
{
	long ret = 0, own;

	if (from > to)
		return em_syscall3(SYS_close_range, from, to, flags);
	while ((own = next_owned(from, to)) >= 0 && !ret) {
		if ((unsigned)own > from)
			ret = em_syscall3(SYS_close_range, from, (unsigned)own - 1, flags);
		from = (unsigned)own + 1;
		if ((unsigned)own == to)
			return ret;
	}
	return ret ? ret : em_syscall3(SYS_close_range, from, to, flags);
}

/* Our descriptors do not exist for the program: closing one, or laying another over it, fails as
   for a number out of range. */
int em_special_fd(struct em_regs *r)
{
	const long *a = r->arg;
	bool paused;

	switch (r->nr) {
	case SYS_close:
		em_uring_closed((unsigned)a[0], (unsigned)a[0]);
		r->ret = em_engine_owns_fd((int)a[0]) ? EBADF_ERR : em_syscall1(SYS_close, a[0]);
		break;
	case SYS_close_range:
		if (!(a[2] & CLOSE_RANGE_CLOEXEC))
			em_uring_closed((unsigned)a[0], (unsigned)a[1]);
		paused = (a[2] & CLOSE_RANGE_UNSHARE) && own_table_begins();
		r->ret = close_range_around((unsigned)a[0], (unsigned)a[1], (unsigned)a[2]);
		if (paused)
			em_control_resume();
		break;
	case SYS_dup2:
	case SYS_dup3:
		if (a[0] != a[1])
			em_uring_closed((unsigned)a[1], (unsigned)a[1]);
		r->ret = em_engine_owns_fd((int)a[1]) ? EBADF_ERR
						      : em_syscall3(r->nr, a[0], a[1], a[2]);
		break;
	}
	return EM_HOOK_DONE;
}
