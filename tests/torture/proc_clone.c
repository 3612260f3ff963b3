/* SPDX-License-Identifier: MIT */
/* clone in the ways that pthreads and fork do not use it, and children that are killed at work. */
#define _GNU_SOURCE
#include "mm.h"

#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)

enum { STACK = 256 << 10 };

/* The child shares this thread's thread-local storage: raw system calls and memory only. */
struct work {
	char *p;
	uint64_t key;
	unsigned turns; /* 0: for ever */
	volatile int tid, result;
};

static int work_main(void *arg)
{
	struct work *w = arg;
	unsigned i;

	w->tid = (int)syscall(SYS_gettid);
	for (i = 0; !w->turns || i < w->turns; i++) {
		mm_fill(w->p, BIG, w->key + i);
		madvise(w->p, BIG, 21 /* MADV_PAGEOUT */);
		if (!mm_holds(w->p, BIG, w->key + i)) {
			w->result = -1;
			return 1;
		}
	}
	w->result = 1;
	return 0;
}

static void work_here(char *p, unsigned turns)
{
	struct work w = { .p = p, .key = 1000, .turns = turns };

	CHECK(work_main(&w) == 0);
}

static char *stack_top(void)
{
	static char *stack;

	if (!stack)
		stack = mmap(NULL, STACK, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	return stack + STACK;
}

static void clone_shares_memory(void)
{
	struct work w = { .p = mm_map(BIG), .key = 5, .turns = 10 };
	char *mine = mm_map(BIG);
	int status = -1, pid = clone(work_main, stack_top(), CLONE_VM | SIGCHLD, &w);

	CHECK(pid > 0);
	work_here(mine, 10);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0 && w.result == 1);
	CHECK(mm_holds(w.p, BIG, 14));
	munmap(w.p, BIG);
	munmap(mine, BIG);
}

static void clone_shares_memory_files_and_handlers(void)
{
	struct work w = { .p = mm_map(BIG), .key = 5, .turns = 10 };
	char *mine = mm_map(BIG);
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | SIGCHLD;
	int status = -1, pid = clone(work_main, stack_top(), flags, &w);

	CHECK(pid > 0);
	work_here(mine, 10);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0 && w.result == 1);
	munmap(w.p, BIG);
	munmap(mine, BIG);
}

static int thread_main(void *arg)
{
	work_main(arg);
	syscall(SYS_exit, 0);
	return 0;
}

/* A thread that shares the thread-local storage of its creator. */
static void clone_thread_without_tls(void)
{
	struct work w = { .p = mm_map(BIG), .key = 7, .turns = 10 };
	char *mine = mm_map(BIG);
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			  CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
	volatile int alive = 1;

	CHECK(clone(thread_main, stack_top(), flags, &w, NULL, NULL, &alive) > 0);
	work_here(mine, 10);
	while (alive)
		usleep(1000);
	CHECK(w.result == 1 && mm_holds(w.p, BIG, 16));
	munmap(w.p, BIG);
	munmap(mine, BIG);
}

static bool child_is_sound(void *p)
{
	char *q = mm_map(MIB);

	mm_fill(q, MIB, 1);
	return mm_holds(p, BIG, 9) && mm_holds(q, MIB, 1);
}

/* After a child was killed in the midst of its work: everything goes on, and can be forked. */
static void still_sound(char *p)
{
	char *q = mm_map(BIG);

	CHECK(mm_holds(p, BIG, 9));
	work_here(q, 1);
	CHECK(mm_in_child(child_is_sound, p));
	mm_evict(p, BIG);
	munmap(q, BIG);
}

static void clone_shares_memory_and_is_killed(void)
{
	struct work w = { .p = mm_map(BIG), .key = 5 };
	char *p = mm_map(BIG);
	int i, pid;

	mm_fill(p, BIG, 9);
	for (i = 0; i < 8; i++) {
		pid = clone(work_main, stack_top(), CLONE_VM | SIGCHLD, &w);
		CHECK(pid > 0);
		usleep((useconds_t)(rand() % 4000));
		CHECK(kill(pid, SIGKILL) == 0);
		CHECK(waitpid(pid, NULL, 0) == pid);
		still_sound(p);
	}
	munmap(w.p, BIG);
	munmap(p, BIG);
}

static volatile int victim;

static void *killer(void *arg)
{
	(void)arg;
	while (!victim)
		sched_yield();
	usleep((useconds_t)(rand() % 4000));
	kill(victim, SIGKILL);
	return NULL;
}

static void vfork_child_is_killed(void)
{
	static struct work w;
	static char *p;
	static pthread_t tid;
	static int i, status, pid;

	w.p = mm_map(BIG);
	p = mm_map(BIG);
	mm_fill(p, BIG, 9);
	for (i = 0; i < 8; i++) {
		victim = 0;
		CHECK(pthread_create(&tid, NULL, killer, NULL) == 0);
		pid = vfork();
		if (pid == 0) {
			victim = (int)syscall(SYS_getpid);
			work_main(&w);
			_exit(0);
		}
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		pthread_join(tid, NULL);
		still_sound(p);
	}
	munmap(w.p, BIG);
	munmap(p, BIG);
}

static void vfork_child_maps_and_unmaps(void)
{
	static char *p, *made;
	static int pid, status;

	p = mm_map(BIG);
	made = MAP_FAILED;
	mm_fill(p, BIG, 3);
	mm_evict(p, BIG);
	pid = vfork();
	if (pid == 0) {
		made = mmap(NULL, BIG, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		mm_fill(made, BIG, 4);
		munmap(p + MIB, MIB);
		madvise(p + 2 * MIB, MIB, MADV_DONTNEED);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(mm_holds(p, MIB, 3) && mm_segv(p + MIB, false, SEGV_MAPERR));
	CHECK(mm_zero(p + 2 * MIB, MIB));
	mm_evict(made, BIG);
	CHECK(mm_holds(made, BIG, 4));
	munmap(p, BIG);
	munmap(made, BIG);
}

static void never_runs(int sig)
{
	_exit(99 + sig);
}

static int raw_clone3(uint64_t flags)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };

	return (int)syscall(SYS_clone3, &args, sizeof(args));
}

/* Handlers back to default, which extmem's own must survive. */
static void clone_clears_handlers(void)
{
	char *p = mm_map(BIG);
	int pid, status = -1;

	mm_fill(p, BIG, 9);
	mm_evict(p, BIG);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, never_runs);
	signal(SIGBUS, never_runs);
	pid = raw_clone3(0x100000000ull /* CLONE_CLEAR_SIGHAND */);
	if (pid == 0) {
		struct sigaction sa[3];

		sigaction(SIGUSR1, NULL, &sa[0]);
		sigaction(SIGUSR2, NULL, &sa[1]);
		sigaction(SIGBUS, NULL, &sa[2]);
		_exit(!(mm_holds(p, BIG, 9) && sa[0].sa_handler == SIG_IGN &&
			sa[1].sa_handler == SIG_DFL && sa[2].sa_handler == SIG_DFL));
	}
	if (pid < 0 && (errno == EINVAL || errno == ENOSYS))
		SKIP("no CLONE_CLEAR_SIGHAND (Linux 5.5)");
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	signal(SIGUSR1, SIG_DFL);
	signal(SIGUSR2, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	munmap(p, BIG);
}

static void clone_waits_without_sharing(void)
{
	char *p = mm_map(BIG);
	int pid, status = -1;

	mm_fill(p, BIG, 9);
	mm_evict(p, BIG);
	pid = (int)syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		bool ok = mm_holds(p, BIG, 9);

		mm_fill(p, BIG, 10);
		_exit(!ok);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(mm_holds(p, BIG, 9));
	munmap(p, BIG);
}

/* What the child has descriptors for by itself must not take the parent's from it. */
static void clone_shares_descriptors_without_memory(void)
{
	const int how = CLONE_FILES | SIGCHLD;
	char *p = mm_map(BIG);
	int status, pid;

	mm_fill(p, BIG, 9);
	for (int i = 0; i < 4; i++) {
		mm_evict(p, BIG);
		pid = i % 2 ? raw_clone3(CLONE_FILES) : (int)syscall(SYS_clone, how, 0, 0, 0, 0);
		if (pid == 0) {
			bool ok = mm_holds(p, BIG, 9);

			work_here(p, 2);
			_exit(!ok);
		}
		CHECK(pid > 0);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		still_sound(p);
	}
	munmap(p, BIG);
}

/* The kernel writes thread ids where it is told to: into memory that is not there. */
static void clone_reports_ids_into_managed_memory(void)
{
	char *p = mm_map(BIG);
	volatile int *at = (volatile int *)(p + MIB);
	int pid, status = -1;

	mm_fill(p, BIG, 9);
	mm_evict(p, BIG);
	pid = (int)syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0, at, at + 1,
			   0);
	if (pid == 0)
		_exit(at[1] != (int)syscall(SYS_gettid));
	CHECK(pid > 0 && at[0] == pid);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(mm_holds(p, MIB, 9));
	munmap(p, BIG);
}

const struct mm_test proc_clone_tests[] = {
	MM_TEST(clone_clears_handlers), MM_TEST(clone_waits_without_sharing),
	MM_TEST(clone_shares_descriptors_without_memory),
	MM_TEST(clone_reports_ids_into_managed_memory), MM_TEST(vfork_child_maps_and_unmaps),
	MM_TEST(vfork_child_is_killed), MM_TEST(clone_shares_memory),
	MM_TEST(clone_shares_memory_files_and_handlers),
	MM_TEST(clone_thread_without_tls), MM_TEST(clone_shares_memory_and_is_killed), { 0 }
};
