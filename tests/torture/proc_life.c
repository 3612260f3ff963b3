/* SPDX-License-Identifier: MIT */
/* How processes come and go: deep trees, many forking threads, daemons, exec, exit and abort. */
#define _GNU_SOURCE
#include "mm.h"

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Runs f in a child that may end in any way; its status. */
static int status_of(void (*f)(void *), void *arg)
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		f(arg);
		_exit(99);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* Every process verifies what it inherited, changes it, and its child verifies that. */
static bool ten_deep(char *p, unsigned depth)
{
	int status = -1;
	pid_t pid;

	if (!mm_holds(p, BIG, depth))
		return false;
	mm_fill(p, BIG, depth + 1);
	if (depth % 2)
		madvise(p, BIG, 21 /* MADV_PAGEOUT */);
	if (depth == 10)
		return true;
	pid = fork();
	if (pid == 0)
		_exit(!ten_deep(p, depth + 1));
	return waitpid(pid, &status, 0) == pid && status == 0 && mm_holds(p, BIG, depth + 1);
}

static void fork_ten_deep(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 0);
	CHECK(ten_deep(p, 0));
	munmap(p, BIG);
}

static char *shared_read;
static volatile int forks_failed;

static void *fork_thread(void *arg)
{
	char *mine = mm_map(BIG);
	uint64_t key = (uint64_t)(uintptr_t)arg;
	unsigned i;

	for (i = 0; i < 6; i++) {
		int status = -1;
		pid_t pid;

		mm_fill(mine, BIG, key + i);
		pid = fork();
		if (pid == 0)
			_exit(!(mm_holds(mine, BIG, key + i) && mm_holds(shared_read, BIG, 1)));
		if (waitpid(pid, &status, 0) != pid || status || !mm_holds(mine, BIG, key + i))
			forks_failed = 1;
	}
	munmap(mine, BIG);
	return NULL;
}

/* Several at once, while each evicts the others' memory. */
static void fork_from_many_threads(void)
{
	pthread_t tid[4];
	uintptr_t i;

	shared_read = mm_map(BIG);
	mm_fill(shared_read, BIG, 1);
	forks_failed = 0;
	for (i = 0; i < 4; i++)
		CHECK(pthread_create(&tid[i], NULL, fork_thread, (void *)(i * 100)) == 0);
	for (i = 0; i < 4; i++)
		pthread_join(tid[i], NULL);
	CHECK(!forks_failed && mm_holds(shared_read, BIG, 1));
	munmap(shared_read, BIG);
}

static volatile int handler_forks, handler_failed;

static void fork_in_handler(int sig)
{
	pid_t pid = fork();
	int status = -1;

	(void)sig;
	if (pid == 0)
		_exit(!mm_holds(shared_read, BIG, 1));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		handler_failed = 1;
	handler_forks++;
}

static void fork_in_a_signal_handler(void)
{
	struct sigaction sa = { .sa_handler = fork_in_handler, .sa_flags = SA_RESTART };
	char *p = mm_map(BIG);
	uint64_t i;

	shared_read = mm_map(BIG);
	mm_fill(shared_read, BIG, 1);
	sigaction(SIGALRM, &sa, NULL);
	handler_forks = handler_failed = 0;
	for (i = 0; handler_forks < 5 && i < 10000; i++) {
		if (i % 4 == 0)
			ualarm(700, 0);
		mm_fill(p, BIG, i);
		CHECK(mm_holds(p, BIG, i));
	}
	ualarm(0, 0);
	usleep(2000);
	signal(SIGALRM, SIG_DFL);
	CHECK(handler_forks >= 5 && !handler_failed);
	munmap(p, BIG);
	munmap(shared_read, BIG);
}

static void daemon_keeps_its_memory(void)
{
	char *p = mm_map(BIG), ok = 0;
	int fd[2], status;
	pid_t pid;

	CHECK(pipe(fd) == 0);
	mm_fill(p, BIG, 2);
	mm_evict(p, BIG);
	pid = fork();
	if (pid == 0) {
		if (daemon(1, 1))
			_exit(1);
		usleep(20000); /* everybody above is gone now */
		ok = mm_holds(p, BIG, 2);
		mm_fill(p, BIG, 3);
		mm_evict(p, BIG);
		ok = ok && mm_holds(p, BIG, 3);
		_exit(write(fd[1], &ok, 1) != 1);
	}
	close(fd[1]);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(read(fd[0], &ok, 1) == 1 && ok);
	close(fd[0]);
	munmap(p, BIG);
}

/* The strings of the call lie in the store. */
static void exec_with_arguments_in_the_store(void)
{
	char *p = mm_map(BIG), **argv = (char **)p;
	int status = -1;
	pid_t pid;

	argv[0] = strcpy(p + MIB, "/bin/sh");
	argv[1] = strcpy(p + 2 * MIB, "-c");
	argv[2] = strcpy(p + 3 * MIB, "test \"$1\" = $((6 * 7))");
	argv[3] = strcpy(p + MIB + PG, "sh");
	argv[4] = strcpy(p + MIB + 2 * PG - 1, "42"); /* over a page's edge */
	argv[5] = NULL;
	mm_evict(p, BIG);
	pid = fork();
	if (pid == 0) {
		execve(argv[0], argv, environ);
		_exit(1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	mm_evict(p, BIG);
	CHECK(posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	mm_evict(p, BIG);
	strcpy(argv[0], "/bin/nosuch");
	CHECK(posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == ENOENT);
	munmap(p, BIG);
}

static void *busy(void *arg)
{
	char *p = mm_map(BIG);
	uint64_t i;

	(void)arg;
	for (i = 0;; i++) {
		mm_fill(p, BIG, i);
		if (!mm_holds(p, BIG, i))
			_exit(98);
	}
	return NULL;
}

static void start_busy(void)
{
	pthread_t tid;
	int i;

	for (i = 0; i < 3; i++)
		pthread_create(&tid, NULL, busy, NULL);
	usleep(20000);
}

static void *exec_now(void *arg)
{
	char *argv[] = { "/bin/sh", "-c", "exit 7", NULL };

	(void)arg;
	execv(argv[0], argv);
	_exit(97);
}

static void exec_in_thread(void *arg)
{
	pthread_t tid;

	start_busy();
	if (arg)
		pthread_create(&tid, NULL, exec_now, NULL);
	else
		exec_now(NULL);
	pause();
}

static void exec_ends_busy_threads(void)
{
	int i, status;

	for (i = 0; i < 4; i++) {
		status = status_of(exec_in_thread, i % 2 ? "" : NULL);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	}
}

static void *exit_now(void *arg)
{
	(void)arg;
	exit(5);
}

static void exit_in_thread(void *arg)
{
	pthread_t tid;

	(void)arg;
	start_busy();
	pthread_create(&tid, NULL, exit_now, NULL);
	pthread_exit(NULL);
}

static void exit_from_any_thread(void)
{
	int i, status;

	for (i = 0; i < 4; i++) {
		status = status_of(exit_in_thread, NULL);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
	}
}

/* Much goes out and comes in before, so that there may be workers of io_uring, which are threads too. */
static void leave_without_exit_group(void *arg)
{
	char *p = arg;

	for (uint64_t key = 0; key < 3; key++) {
		mm_fill(p, 4 * BIG, key);
		if (!mm_holds(p, 4 * BIG, key))
			_exit(1);
	}
	syscall(SYS_exit, 8);
}

static void only_thread_leaves(void)
{
	char *p = mm_map(4 * BIG);
	int status = status_of(leave_without_exit_group, p);

	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 8);
	munmap(p, 4 * BIG);
}

static void *finish_later(void *arg)
{
	char *p = arg;

	usleep(10000);
	mm_evict(p, BIG);
	if (mm_holds(p, BIG, 4))
		_exit(6);
	return NULL;
}

static void main_thread_leaves(void *arg)
{
	pthread_t tid;

	pthread_create(&tid, NULL, finish_later, arg);
	pthread_exit(NULL);
}

static void main_thread_ends_before_the_others(void)
{
	char *p = mm_map(BIG);
	int status;

	mm_fill(p, BIG, 4);
	status = status_of(main_thread_leaves, p);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 6);
	munmap(p, BIG);
}

static void end_by_abort(void *arg)
{
	(void)arg;
	start_busy();
	abort();
}

static void end_by_segv(void *arg)
{
	start_busy();
	munmap(arg, BIG);
	*(volatile char *)arg = 1;
}

static void abort_and_crash_end_the_program(void)
{
	int status = status_of(end_by_abort, NULL);

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	status = status_of(end_by_segv, mm_map(BIG));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void system_and_popen(void)
{
	char *p = mm_map(BIG), line[32] = "";
	FILE *f;
	int i;

	for (i = 0; i < 10; i++) {
		mm_fill(p, BIG, (uint64_t)i);
		mm_evict(p, BIG);
		CHECK(system("exit 3") == 3 << 8);
		f = popen("echo 4711", "r");
		CHECK(f && fgets(line, sizeof(line), f) && strcmp(line, "4711\n") == 0);
		CHECK(pclose(f) == 0);
		CHECK(mm_holds(p, BIG, (uint64_t)i));
	}
	munmap(p, BIG);
}

static bool child_forks_too(void *p)
{
	int status = -1;
	pid_t pid;

	if (!mm_holds(p, BIG, 6))
		return false;
	pid = fork();
	if (pid == 0)
		_exit(mm_holds(p, BIG, 6) ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* stress-ng's forkheavy: fork needs no descriptor natively. */
static void fork_without_a_descriptor_left(void)
{
	char *p = mm_map(BIG);
	int first = dup(0), last = first, fd;
	bool ok = true;

	mm_fill(p, BIG, 6);
	mm_evict(p, BIG);
	while ((fd = dup(0)) >= 0)
		last = fd > last ? fd : last;
	for (int i = 0; i < 3 && ok; i++)
		ok = mm_in_child(child_forks_too, p);
	for (fd = first; fd <= last; fd++)
		close(fd);
	CHECK(ok);
	munmap(p, BIG);
}

static int setns_failed;

static void *setns_thread(void *arg)
{
	for (int i = 0; i < 300; i++)
		if (syscall(SYS_setns, -1, 0) != -1 || errno != EBADF)
			setns_failed = 1;
	return arg;
}

/* stress-ng's pthread: the engine's threads are stopped for the length of the call. */
static void setns_in_many_threads(void)
{
	pthread_t tid[6];

	for (int i = 0; i < 6; i++)
		CHECK(pthread_create(&tid[i], NULL, setns_thread, NULL) == 0);
	for (int i = 0; i < 6; i++)
		pthread_join(tid[i], NULL);
	CHECK(!setns_failed);
}

const struct mm_test proc_life_tests[] = {
	MM_TEST(fork_ten_deep), MM_TEST(fork_from_many_threads), MM_TEST(fork_in_a_signal_handler),
	MM_TEST(daemon_keeps_its_memory), MM_TEST(exec_with_arguments_in_the_store),
	MM_TEST(exec_ends_busy_threads), MM_TEST(exit_from_any_thread),
	MM_TEST(only_thread_leaves),
	MM_TEST(main_thread_ends_before_the_others), MM_TEST(abort_and_crash_end_the_program),
	MM_TEST(system_and_popen), MM_TEST(fork_without_a_descriptor_left),
	MM_TEST(setns_in_many_threads), { 0 }
};
