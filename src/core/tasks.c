/* SPDX-License-Identifier: MIT */
/*
 * The threads of the process; and those of the program, for where /proc cannot be asked how many there are.
 *
 * Every clone returns through em_trap_cloned, which knows the new thread's id, and every exit comes
 * by the hook.  What remains to be known is whether there were threads before us: the kernel answers that,
 * for it unshares nothing but a process with one thread.  Where any of this is missing nobody knows, and then
 * a process may live too long, but never ends too early.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>

#include "line.h"
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

/* ---- the kernel's list ---------------------------------------------------------------------- */

struct dirent64 {
	uint64_t ino;
	int64_t off;
	uint16_t bytes;
	uint8_t type;
	char name[];
};

void em_tasks_visit(void (*visit)(const char *name, void *arg), void *arg)
{
	_Alignas(8) char buf[512];
	long fd, n;

	fd = em_syscall4(SYS_openat, AT_FDCWD, "/proc/self/task",
			 O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (em_is_err(fd))
		return;
	while ((n = em_syscall3(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long i = 0; i < n; i += ((struct dirent64 *)(buf + i))->bytes)
			if (((struct dirent64 *)(buf + i))->name[0] != '.')
				visit(((struct dirent64 *)(buf + i))->name, arg);
	em_sys_close((int)fd);
}

long em_tasks_read(const char *name, const char *file, char *buf, size_t len)
{
	struct em_line path;
	long fd, got;

	em_line_start(&path, "/proc/self/task/");
	em_line_text(&path, name);
	em_line_text(&path, file);
	fd = em_syscall4(SYS_openat, AT_FDCWD, path.text, O_RDONLY | O_CLOEXEC, 0);
	if (em_is_err(fd))
		return 0;
	got = em_syscall3(SYS_read, fd, buf, len);
	em_sys_close((int)fd);
	return em_is_err(got) ? 0 : got;
}

enum { FLAGS_AFTER_NAME = 7, PF_IO_WORKER = 0x10 }; /* proc(5), and the kernel's sched.h since 5.12 */

struct count {
	long all, workers;
};

static void count_io_worker(const char *name, void *arg)
{
	struct count *c = arg;
	char buf[512];
	long got = em_tasks_read(name, "/stat", buf, sizeof(buf)), at = got;
	uint64_t flags = 0;
	int field = 0;

	while (at > 0 && buf[at - 1] != ')')
		at--;
	for (; at < got && field <= FLAGS_AFTER_NAME; at++) {
		if (buf[at] == ' ')
			field++;
		else if (field == FLAGS_AFTER_NAME)
			flags = flags * 10 + (uint64_t)(buf[at] - '0');
	}
	c->all++;
	c->workers += (flags & PF_IO_WORKER) != 0;
}

long em_tasks_io_workers(long all)
{
	struct count c = { 0, 0 };

	em_tasks_visit(count_io_worker, &c);
	return c.all == all ? c.workers : 0;
}
