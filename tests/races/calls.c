/* SPDX-License-Identifier: MIT */
#include "races.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The kernel discards up to the locked mapping, then refuses. */
void test_partial_discard(void)
{
	char *p = tap_map(4 * MIB);

	for (size_t i = 0; i < 4 * MIB; i += PAGE)
		p[i] = 1;
	pressure_once(6 * MIB);
	for (size_t i = MIB; i < 2 * MIB; i += PAGE)
		p[i] = 2;
	if (mlock(p + 2 * MIB, 4 * PAGE) != 0)
		return; /* RLIMIT_MEMLOCK */
	CHECK(madvise(p, 4 * MIB, MADV_DONTNEED) == -1 && errno == EINVAL);
	for (size_t i = 0; i < 2 * MIB; i += PAGE)
		CHECK(p[i] == 0);
	for (size_t i = 2 * MIB; i < 4 * MIB; i += PAGE)
		CHECK(p[i] == 1);
}

/* A full pipe is read in one go, and no more is asked of it. */
void test_stream_read(void)
{
	char *p = tap_map(4 * MIB);
	int fd[2];
	int got;

	CHECK(pipe(fd) == 0);
	got = fcntl(fd[1], F_SETPIPE_SZ, 1 << 20);
	if (got < 1 << 20)
		return;
	for (size_t i = 0; i < 4 * MIB; i += PAGE)
		p[i] = (char)i;
	CHECK(write(fd[1], p, 512 * 1024) == 512 * 1024);
	CHECK(read(fd[0], p + MIB, 2 * MIB) > 0);
}

/* Readers that hold all of the budget, for ever, must not keep a fork from happening. */
static int idle_pipe[2];

static void *idle_reader(void *arg)
{
	CHECK(read(idle_pipe[0], arg, 448 * 1024) >= 0);
	return NULL;
}

void test_all_held_and_fork(void)
{
	char *p = tap_map(8 * MIB), *q = tap_map(MIB);
	pthread_t t[6];
	int status;
	pid_t pid;

	CHECK(pipe(idle_pipe) == 0);
	for (int i = 0; i < 6; i++)
		CHECK(pthread_create(&t[i], NULL, idle_reader, p + (size_t)i * MIB) == 0);
	usleep(300000);
	for (size_t i = 0; i < 32; i++)
		q[i * PAGE] = 1;
	pid = fork();
	if (pid == 0) {
		for (size_t i = 0; i < 64; i++)
			q[i * PAGE]++;
		_exit(q[PAGE] == 2 ? 0 : 1);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	close(idle_pipe[1]);
	for (int i = 0; i < 6; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
}

static volatile bool churning;

static void *nothing(void *arg)
{
	volatile char *p = arg;

	p[0]++;
	return NULL;
}

static void *churn(void *arg)
{
	while (churning) {
		pthread_t t;

		if (pthread_create(&t, NULL, nothing, arg) == 0)
			pthread_join(t, NULL);
	}
	return NULL;
}

/* Threads come and go while others fork; the children make threads too. */
void test_thread_churn_and_fork(void)
{
	char *p = tap_map(6 * MIB);
	pthread_t t[2];

	churning = true;
	for (int i = 0; i < 2; i++)
		CHECK(pthread_create(&t[i], NULL, churn, p + (size_t)i * PAGE) == 0);
	for (int i = 0; i < 120; i++) {
		int status;
		pid_t pid;

		for (size_t k = 0; k < 32; k++)
			p[MIB + (i * 32 + k) % 1024 * PAGE] = (char)i;
		pid = fork();
		if (pid == 0) {
			pthread_t c;

			alarm(10);
			if (pthread_create(&c, NULL, nothing, p + 5 * MIB) || pthread_join(c, NULL))
				_exit(1);
			_exit(p[MIB + i * 32 % 1024 * PAGE] == (char)i && p[5 * MIB] == 1 ? 0 : 1);
		}
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
		CHECK(status == 0);
	}
	churning = false;
	for (int i = 0; i < 2; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
}

/* vfork children that take the first faults of their process over the budget, and are gone. */
static void vfork_touches(char *p, size_t bytes)
{
	int status;
	pid_t pid = vfork();

	if (pid == 0) {
		for (size_t i = 0; i < bytes; i += PAGE)
			p[i]++;
		execl("/bin/true", "true", (char *)NULL);
		_exit(9);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

void test_spawn_under_pressure(void)
{
	char *p = tap_map(8 * MIB), *args;
	char *argv[4] = { NULL, NULL, NULL, NULL };
	int status;
	pid_t pid;

	vfork_touches(p, 6 * MIB);
	for (size_t i = 0; i < 6 * MIB; i += PAGE)
		CHECK(p[i] == 1);
	vfork_touches(p, 8 * MIB);
	for (size_t i = 0; i < 6 * MIB; i += PAGE)
		CHECK(p[i] == 2);
	args = p + 7 * MIB;
	strcpy(args, "/bin/true");
	argv[0] = args;
	for (int i = 0; i < 20; i++) {
		pressure_once(4 * MIB);
		CHECK(posix_spawn(&pid, args, NULL, NULL, argv, environ) == 0);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	}
}

/* ---- robust mutexes ---------------------------------------------------------------------------- */

enum { MUTEXES = 50, MUTEX_BYTES = 4 << 20 };
static volatile int owned;

static pthread_mutex_t *mutex_at(char *base, size_t i)
{
	return (pthread_mutex_t *)(base + i * (MUTEX_BYTES / MUTEXES / 64 * 64));
}

static void *own_and_end(void *base)
{
	for (size_t i = 0; i < MUTEXES; i++)
		CHECK(pthread_mutex_lock(mutex_at(base, i)) == 0);
	owned = 1;
	usleep(100000);
	madvise(base, MUTEX_BYTES, MADV_PAGEOUT);
	return NULL;
}

static void *wait_for_one(void *mutex)
{
	CHECK(pthread_mutex_lock(mutex) == EOWNERDEAD);
	CHECK(pthread_mutex_consistent(mutex) == 0 && pthread_mutex_unlock(mutex) == 0);
	return NULL;
}

/* The kernel looks for them when their owner ends, and does not say that it has not found them. */
void test_robust_mutexes_that_are_evicted(void)
{
	char *base = tap_map(MUTEX_BYTES);
	pthread_mutexattr_t attr;
	pthread_t owner, waiter;

	CHECK(pthread_mutexattr_init(&attr) == 0);
	CHECK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
	for (size_t i = 0; i < MUTEXES; i++) {
		CHECK(pthread_mutexattr_setprotocol(&attr, i % 5 ? PTHREAD_PRIO_NONE
								 : PTHREAD_PRIO_INHERIT) == 0);
		CHECK(pthread_mutex_init(mutex_at(base, i), &attr) == 0);
	}
	CHECK(pthread_create(&owner, NULL, own_and_end, base) == 0);
	while (!owned)
		usleep(1000);
	CHECK(pthread_create(&waiter, NULL, wait_for_one, mutex_at(base, 7)) == 0);
	CHECK(pthread_join(waiter, NULL) == 0 && pthread_join(owner, NULL) == 0);
	for (size_t i = 0; i < MUTEXES; i++)
		CHECK(pthread_mutex_lock(mutex_at(base, i)) == (i == 7 ? 0 : EOWNERDEAD));
}

/* ---- prctl(PR_SET_TSC): reading the cycle counter is a fault ------------------------------------- */

static void *fill_and_check(void *arg)
{
	char *p = arg;

	for (size_t i = 0; i < 4 * MIB; i += PAGE)
		p[i] = (char)(i >> 12);
	for (size_t i = 0; i < 4 * MIB; i += PAGE)
		CHECK(p[i] == (char)(i >> 12));
	return NULL;
}

/* In this thread, in one that it makes, and in a child. */
void test_cycle_counter_is_forbidden(void)
{
	char *p = tap_map(4 * MIB), *q = tap_map(4 * MIB);
	pthread_t t;
	int status;
	pid_t pid;

	fill_and_check(p);
	CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) == 0);
	fill_and_check(p);
	CHECK(pthread_create(&t, NULL, fill_and_check, q) == 0);
	fill_and_check(p);
	CHECK(pthread_join(t, NULL) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		fill_and_check(q);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}
