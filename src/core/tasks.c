/* SPDX-License-Identifier: MIT */
/*
 * The threads of the program, for where /proc cannot be asked how many there are.
 *
 * Every clone returns through em_trap_cloned, which knows the new thread's id, and every exit comes
 * by the hook.  What remains to be known is whether there were threads before us: the kernel answers that,
 * for it unshares nothing but a process with one thread.  Where any of this is missing nobody knows, and then
 * a process may live too long, but never ends too early.
 */
#include "core.h"

#include <errno.h>
#include <sched.h>

#include "sys.h"

enum { MOST = 4096 };

static struct {
	bool wanted, known;
	int tid[MOST]; /* but the first thread's; 0: none */
} tasks;

bool em_tasks_alone(void)
{
	return !em_syscall1(SYS_unshare, CLONE_THREAD);
}

void em_tasks_start(bool alone)
{
	tasks.wanted = true;
	tasks.known = alone;
}

static bool put(int tid, int in_place_of)
{
	for (unsigned i = 0; i < MOST; i++) {
		int seen = __atomic_load_n(&tasks.tid[i], __ATOMIC_RELAXED);

		if (seen == in_place_of &&
		    __atomic_compare_exchange_n(&tasks.tid[i], &seen, tid, false, __ATOMIC_SEQ_CST,
						__ATOMIC_RELAXED))
			return true;
	}
	return false;
}

/* By its maker, or by itself if it leaves before that.  Also a process that shares our memory: tgkill will not
   find it. */
void em_tasks_made(int tid)
{
	if (!__atomic_load_n(&tasks.known, __ATOMIC_RELAXED) || put(tid, tid) || put(tid, 0))
		return;
	em_tasks_count(); /* forgets who is gone */
	if (!put(tid, 0))
		__atomic_store_n(&tasks.known, false, __ATOMIC_SEQ_CST);
}

void em_tasks_left(int tid)
{
	put(0, tid);
}

long em_tasks_count(void)
{
	long n = 0, pid = em_sys_getpid();

	for (unsigned i = 0; i < MOST; i++) {
		int tid = __atomic_load_n(&tasks.tid[i], __ATOMIC_SEQ_CST);

		if (tid && em_syscall3(SYS_tgkill, pid, tid, 0) != -ESRCH)
			n++;
		else if (tid)
			put(0, tid);
	}
	return __atomic_load_n(&tasks.known, __ATOMIC_SEQ_CST) ? n : -1;
}

void em_tasks_fork_child(void)
{
	tasks.known = tasks.wanted;
	em_memzero(tasks.tid, sizeof(tasks.tid));
}
