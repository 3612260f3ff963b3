/* SPDX-License-Identifier: MIT */
/*
 * The control thread: one socket (socket.c), one request at a time (session.c).
 *
 * It has the program's descriptors, because the store's are there, and keeps the credentials and the root with
 * which the process started: a program that has changed its user or its root still takes its socket
 * with it when it ends.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "../core/core.h"
#include "../core/lock.h"
#include "../core/sys.h"
#include "server.h"

/* A forked child that soon execs, as most do, never makes a socket. */
enum {
	CHILD_DELAY_MS = 10,
	STOP_WAIT_MS = 2000,
	SLICE_MS = 100,
	RECOUNT_MS_MAX = 2048,
};

/*
 * NONE -> WAITING -> BINDING -> BOUND; HELD: an exec is being tried; GONE: for good.
 * Changed by compare-and-swap only: the thread binds, program threads unbind.
 */
enum phase { NONE, WAITING, BINDING, BOUND, HELD, GONE };
enum want { WANT_STOP = 1, WANT_COUNT = 2 };

static struct {
	uint32_t phase; /* futex */
	uint32_t want;
	int wake_fd; /* -1: none */
	int leader_status;
	bool leader_gone;
	uint32_t recount_ms; /* the thread's own */
	struct em_rawthread thread;
} ctl = { .wake_fd = -1 };

/* Calls of the program for which our threads are stopped. */
static struct pausing {
	struct em_mutex lock;
	uint32_t calls;
	bool stopped;
} pausing;

static bool move_phase(uint32_t from, uint32_t to)
{
	if (!__atomic_compare_exchange_n(&ctl.phase, &from, to, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return false;
	em_futex_wake(&ctl.phase, 1 << 30);
	return true;
}

static uint32_t phase(void)
{
	return __atomic_load_n(&ctl.phase, __ATOMIC_SEQ_CST);
}

static void wake(uint32_t want)
{
	uint64_t one = 1;

	__atomic_fetch_or(&ctl.want, want, __ATOMIC_SEQ_CST);
	em_syscall3(SYS_write, ctl.wake_fd, &one, sizeof(one));
}

bool em_control_stopping(void)
{
	return __atomic_load_n(&ctl.want, __ATOMIC_RELAXED) & WANT_STOP;
}

size_t em_control_fds(int *fds, size_t max)
{
	if (max < 2)
		return 0;
	fds[0] = ctl.wake_fd;
	fds[1] = em_control_socket_fd();
	return 2;
}

/* ---- the control thread ---------------------------------------------------------------------- */

enum { NOBODY_KNOWS = 1000 };

static long counted_threads(void)
{
	long n = em_tasks_count();

	return n < 0 ? NOBODY_KNOWS : n + !ctl.leader_gone;
}

static long listed_threads(void)
{
	struct stat st;
	long ret = em_syscall4(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &st, 0);

	return ret || st.st_nlink < 3 ? 0 : (long)st.st_nlink - 2;
}

/* Threads of the program that are left, and workers of io_uring.  Rather too many than too few: ours are counted
   late. */
static long program_threads(void)
{
	long n = listed_threads();

	return n ? n - em_rawthread_count - ctl.leader_gone : counted_threads();
}

/* A thread of the program that is left is in the list, or was when the one that made it was.  So nobody is left
   where there were but workers, and neither of the two numbers changed. */
static bool only_workers_are_left(void)
{
	long all = listed_threads(), workers = all ? em_tasks_io_workers(all) : 0;

	return workers && listed_threads() == all && program_threads() == workers;
}

/* Threads that leave at once each see the others, which are counted until they are gone: it takes one that
   stays to see that nobody is left. */
static void end_if_empty(void)
{
	if (program_threads() > 0 && !only_workers_are_left())
		return;
	em_control_socket_unlink();
	em_syscall1(SYS_exit_group, ctl.leader_status);
}

static void rebind(void)
{
	em_control_socket_close();
	move_phase(BINDING, em_control_socket_bind() ? GONE : BOUND);
}

/* Milliseconds; 0: no limit. */
static struct timespec *timeout(struct timespec *ts, bool waiting)
{
	uint32_t ms = waiting ? CHILD_DELAY_MS : ctl.recount_ms;

	*ts = (struct timespec){ ms / 1000, ms % 1000 * 1000000 };
	return ms ? ts : NULL;
}

static void recount(void)
{
	if (__atomic_fetch_and(&ctl.want, ~(uint32_t)WANT_COUNT, __ATOMIC_SEQ_CST) & WANT_COUNT)
		ctl.recount_ms = 1;
	else if (ctl.recount_ms)
		ctl.recount_ms = ctl.recount_ms < RECOUNT_MS_MAX ? 2 * ctl.recount_ms : 0;
	if (ctl.recount_ms)
		end_if_empty();
}

static void turn(void)
{
	struct pollfd p[2] = { { .fd = ctl.wake_fd, .events = POLLIN },
			       { .fd = phase() == BOUND ? em_control_socket_fd() : -1,
				 .events = POLLIN } };
	bool waiting = phase() == WAITING;
	struct timespec ts;
	uint64_t count;
	long n = em_syscall5(SYS_ppoll, p, 2, timeout(&ts, waiting), NULL, 0);

	if (n > 0 && p[0].revents)
		em_syscall3(SYS_read, ctl.wake_fd, &count, sizeof(count));
	if (em_control_stopping())
		return;
	recount();
	if (n == 0 && waiting && move_phase(WAITING, BINDING))
		rebind();
	else if (n > 0 && p[1].revents && !em_control_session_serve() && move_phase(BOUND, GONE))
		em_control_socket_unlink();
}

static void control_main(void *arg)
{
	(void)arg;
	while (phase() != GONE && !em_control_stopping())
		turn();
	if (phase() == BOUND)
		em_control_socket_unlink();
	em_control_socket_close();
	em_thread_exit();
	__atomic_store_n(&ctl.phase, GONE, __ATOMIC_SEQ_CST);
	em_futex_wake(&ctl.phase, 1 << 30);
}

/* ---- start, fork ------------------------------------------------------------------------------ */

static int start_thread(void)
{
	int ret;

	ctl.want = 0;
	ctl.wake_fd = em_control_move_high(em_syscall2(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK));
	ret = ctl.wake_fd < 0 ? ctl.wake_fd
			      : em_rawthread_start_in(&ctl.thread, control_main, NULL);
	if (!ret)
		return 0;
	if (ctl.phase == BOUND)
		em_control_socket_unlink();
	ctl.phase = NONE;
	em_control_socket_close();
	if (ctl.wake_fd >= 0)
		em_sys_close(ctl.wake_fd);
	ctl.wake_fd = -1;
	return ret;
}

int em_control_start(const char *dir)
{
	int ret;

	em_control_socket_name(dir);
	em_control_session_init();
	/* Refused as such (old kernel, container), or only for its arguments? */
	ret = (int)em_syscall3(SYS_close_range, 1, 0, 0);
	if (ret != -EINVAL)
		return ret;
	ret = em_control_socket_bind();
	if (ret)
		return ret;
	ctl.phase = BOUND;
	return start_thread();
}

void em_control_fork_child(void)
{
	if (ctl.wake_fd >= 0)
		em_sys_close(ctl.wake_fd);
	em_control_socket_close();
	ctl.wake_fd = -1;
	ctl.leader_gone = false;
	ctl.recount_ms = 0;
	ctl.thread.alive = 0;
	em_control_session_fork_child();
	pausing = (struct pausing){ .calls = 0 };
	if (ctl.phase == NONE)
		return;
	ctl.phase = WAITING;
	em_control_socket_name(NULL);
	start_thread();
}

/* ---- the end ------------------------------------------------------------------------------------ */

static void wait_while(uint32_t is, uint64_t ms)
{
	uint64_t until = em_now_ns() + ms * 1000000;

	while (phase() == is && em_now_ns() < until)
		em_futex_wait(&ctl.phase, is, SLICE_MS * 1000);
}

void em_control_exit(void)
{
	if (phase() == NONE || phase() == GONE || move_phase(WAITING, GONE) ||
	    move_phase(HELD, GONE))
		return;
	wait_while(BINDING, STOP_WAIT_MS);
	if (phase() == BOUND && em_control_socket_unlink())
		return;
	/* Another root or another user: the thread has those of the start. */
	wake(WANT_STOP);
	wait_while(BOUND, STOP_WAIT_MS);
}

void em_control_before_exec(void)
{
	if (em_sys_getpid() != em_engine.pid || move_phase(WAITING, HELD))
		return;
	wait_while(BINDING, STOP_WAIT_MS);
	if (phase() == BOUND && em_control_socket_unlink())
		move_phase(BOUND, HELD);
}

void em_control_exec_failed(void)
{
	if (em_sys_getpid() == em_engine.pid && move_phase(HELD, WAITING))
		wake(0);
}

/* Not an engine section: the thread that is waited for may be at the gate, and fork behind it. */
static uint64_t lock_pausing(void)
{
	uint64_t all = ~0ull, old;

	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	em_mutex_lock(&pausing.lock);
	return old;
}

static void unlock_pausing(uint64_t mask)
{
	em_mutex_unlock(&pausing.lock);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

static bool stop_thread(void)
{
	if (phase() == NONE || phase() == GONE)
		return false;
	em_control_exit();
	wake(WANT_STOP);
	em_rawthread_join(&ctl.thread);
	em_sys_close(ctl.wake_fd);
	ctl.wake_fd = -1;
	return true;
}

static void start_thread_again(void)
{
	if (!em_control_socket_bind())
		ctl.phase = BOUND;
	if (ctl.phase == BOUND)
		start_thread();
}

/* Several threads of the program may be between pause and resume at once: the first ends ours and the last
   brings them back, or one would wait for a thread that the other has made meanwhile. */
void em_control_pause(void)
{
	uint64_t mask = lock_pausing();

	if (!pausing.calls++)
		pausing.stopped = stop_thread();
	em_service_stop();
	unlock_pausing(mask);
}

void em_control_resume(void)
{
	uint64_t mask = lock_pausing();

	if (!--pausing.calls && pausing.stopped)
		start_thread_again();
	unlock_pausing(mask);
}

/* A process whose last thread leaves with exit(2) ends; with threads of ours in it, it would not. */
void em_control_thread_leaves(int status)
{
	int tid = (int)em_sys_gettid();
	bool leader = tid == em_engine.pid;
	long left;

	if (!leader)
		em_tasks_made(tid);
	left = program_threads();
	if (left == 1 && em_rawthread_count) {
		em_control_exit();
		em_syscall1(SYS_exit_group, leader ? status : ctl.leader_status);
	}
	if (leader) {
		ctl.leader_status = status;
		ctl.leader_gone = true;
	}
	em_tasks_left(tid);
	if (ctl.leader_gone && phase() != NONE && phase() != GONE)
		wake(WANT_COUNT);
}
