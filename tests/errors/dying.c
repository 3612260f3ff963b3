/* SPDX-License-Identifier: MIT */
/* Ways to be ended by a signal, for test_death.py: dying WAY [SIGNAL].  More memory than the budget is in use. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(c) \
	do { \
		if (!(c)) { \
			dprintf(2, "%s:%d: %s: %s\n", __FILE__, __LINE__, #c, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

enum { BYTES = 16 << 20, PG = 4096 };

static char *area;
static int signo;
static volatile int handled;

static void churn(void)
{
	for (size_t i = 0; i < BYTES; i += PG)
		area[i]++;
}

static void say_ready(void)
{
	CHECK(write(1, "full\n", 5) == 5);
}

static void count(int n)
{
	(void)n;
	handled++;
}

static void by_raise(void)
{
	raise(signo);
}

static void by_abort(void)
{
	abort();
}

static void by_null(void)
{
	*(volatile char *)8 = 1;
}

static void by_trap(void)
{
	__asm__ volatile("int3");
}

static void by_ill(void)
{
	__asm__ volatile("ud2");
}

static int deeper(volatile int *n)
{
	volatile int room[1024] = { *n };

	return *n ? deeper(room) + room[5] : 0;
}

static void by_overflow(void)
{
	volatile int n = 1;

	deeper(&n);
}

static void by_timer(void)
{
	struct itimerval it = { { 0, 0 }, { 0, 1000 } };

	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
	for (;;)
		pause();
}

static void by_pipe(void)
{
	int p[2];

	CHECK(pipe(p) == 0 && close(p[0]) == 0);
	CHECK(write(p[1], "x", 1) == 1);
}

static void by_others(void)
{
	say_ready();
	for (;;)
		pause();
}

static void *churn_on(void *arg)
{
	for (;;)
		churn();
	return arg;
}

/* Only threads that are busy take the signal. */
static void by_others_in_threads(void)
{
	sigset_t all;
	pthread_t t;

	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&t, NULL, churn_on, NULL) == 0);
	sigfillset(&all);
	CHECK(pthread_sigmask(SIG_BLOCK, &all, NULL) == 0);
	by_others();
}

static void *crash(void *arg)
{
	while (!*(volatile int *)arg)
		;
	by_null();
	return NULL;
}

static void by_many_crashes(void)
{
	static volatile int go;
	pthread_t t;

	for (int i = 0; i < 8; i++)
		CHECK(pthread_create(&t, NULL, crash, (void *)&go) == 0);
	go = 1;
	for (;;)
		pause();
}

static void is_default(int flags)
{
	struct sigaction old;

	CHECK(sigaction(signo, NULL, &old) == 0);
	CHECK(old.sa_handler == SIG_DFL && (old.sa_flags & ~0x04000000) == flags);
}

/* The action is seen as it was set, through all changes. */
static void by_changes(void)
{
	struct sigaction sa = { .sa_handler = count, .sa_flags = SA_RESTART }, old;

	is_default(0);
	CHECK(sigaction(signo, &sa, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK(raise(signo) == 0 && handled == 1);
	CHECK(signal(signo, SIG_IGN) == count && raise(signo) == 0 && handled == 1);
	CHECK(signal(signo, SIG_DFL) == SIG_IGN);
	is_default(SA_RESTART);
	raise(signo);
}

static void by_resethand(void)
{
	struct sigaction sa = { .sa_handler = count, .sa_flags = (int)SA_RESETHAND };

	CHECK(sigaction(signo, &sa, NULL) == 0);
	CHECK(raise(signo) == 0 && handled == 1);
	raise(signo);
}

static void by_unblocking(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && raise(signo) == 0);
	CHECK(sigpending(&set) == 0 && sigismember(&set, signo));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void child_dies(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		churn();
		raise(signo);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == signo);
}

/* What a child without memory of its own would write is not true of it. */
static void vfork_child_dies(void)
{
	int status;
	pid_t pid = vfork();

	if (!pid) {
		raise(signo);
		_exit(1);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == signo);
	CHECK(access(getenv("EXTMEM_STATS"), F_OK) && errno == ENOENT);
}

static void after_exec(void)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", signo);
	execl("/proc/self/exe", "dying", "raise", text, NULL);
}

static void stops(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		setpgid(0, 0); /* in an orphaned group the kernel drops SIGTSTP */
		raise(SIGSTOP);
		raise(SIGTSTP);
		raise(SIGCHLD);
		raise(SIGWINCH);
		_exit(0);
	}
	for (int i = 0; i < 2; i++) {
		CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
		CHECK(WSTOPSIG(status) == (i ? SIGTSTP : SIGSTOP) && kill(pid, SIGCONT) == 0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void *read_back(void *arg)
{
	return (void *)(uintptr_t)area[(uintptr_t)arg % BYTES];
}

static void *unmap(void *arg)
{
	CHECK(munmap(area, BYTES) == 0);
	return arg;
}

/* One thread waits for the store, another for the first, with the map locked; the third takes the signal. */
static void in_a_stall(void)
{
	pthread_t t;

	CHECK(close(open(getenv("STALL"), O_CREAT | O_WRONLY, 0600)) == 0);
	CHECK(pthread_create(&t, NULL, read_back, (void *)PG) == 0);
	usleep(100000);
	CHECK(pthread_create(&t, NULL, unmap, NULL) == 0);
	usleep(100000);
	by_others();
}

static const struct {
	const char *name;
	void (*run)(void);
} ways[] = {
	{ "raise", by_raise }, { "abort", by_abort }, { "null", by_null }, { "trap", by_trap },
	{ "ill", by_ill }, { "overflow", by_overflow }, { "timer", by_timer }, { "pipe", by_pipe },
	{ "others", by_others }, { "threads", by_others_in_threads },
	{ "crashes", by_many_crashes }, { "changes", by_changes }, { "resethand", by_resethand },
	{ "unblock", by_unblocking }, { "fork", child_dies }, { "vfork", vfork_child_dies },
	{ "exec", after_exec }, { "stop", stops }, { "stall", in_a_stall },
};

int main(int argc, char **argv)
{
	const struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	if (argc > 2)
		signo = atoi(argv[2]);
	area = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(area != MAP_FAILED);
	churn();
	for (size_t i = 0; argc > 1 && i < sizeof(ways) / sizeof(ways[0]); i++)
		if (!strcmp(argv[1], ways[i].name)) {
			ways[i].run();
			return 0;
		}
	return 2;
}
