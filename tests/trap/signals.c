/* SPDX-License-Identifier: MIT */
/* Trapped calls come as signals: the program's own signals must not notice. */
#include "trap.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* si_code, of asm-generic/siginfo.h */
#endif

static call_fn call;
static volatile sig_atomic_t seen, seen_on_stack;
static char *altstack;

static void on_signal(int sig, siginfo_t *si, void *ucv)
{
	char here;

	seen++;
	seen_on_stack += &here > altstack && &here < altstack + 64 * 1024;
	trap_check_io(call);
	(void)sig;
	(void)si;
	(void)ucv;
}

/* Handlers that make such calls, on the ordinary and on the alternate stack, and return by one. */
void test_handlers_and_returns(void)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	stack_t ss = { .ss_size = 64 * 1024 };

	call = trap_generate();
	sigfillset(&sa.sa_mask);
	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < 3; i++)
		CHECK(call(SYS_kill, getpid(), SIGUSR1) == 0);
	CHECK(seen == 3 && seen_on_stack == 0);
	ss.ss_sp = altstack = malloc(ss.ss_size);
	CHECK(call(SYS_sigaltstack, &ss, NULL) == 0);
	sa.sa_flags |= SA_ONSTACK;
	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < 3; i++)
		raise(SIGUSR1);
	CHECK(seen == 6 && seen_on_stack == 3);
}

static siginfo_t last;

static void keep(int sig, siginfo_t *si, void *ucv)
{
	(void)sig;
	(void)ucv;
	last = *si;
	seen++;
}

/* SIGSYS is the program's to use. */
void test_own_handler(void)
{
	struct sigaction sa = { .sa_sigaction = keep, .sa_flags = SA_SIGINFO }, old;
	int status;
	pid_t pid;

	call = trap_generate();
	CHECK(sigaction(SIGSYS, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK(sigaction(SIGSYS, &sa, NULL) == 0);
	CHECK(call(SYS_getppid) == getppid() && seen == 0);
	CHECK(kill(getpid(), SIGSYS) == 0 && seen == 1);
	CHECK(last.si_code == SI_USER && last.si_pid == getpid());
	CHECK(call(SYS_getppid) == getppid() && seen == 1);
	CHECK(sigaction(SIGSYS, NULL, &old) == 0 && old.sa_sigaction == keep);
	signal(SIGSYS, SIG_IGN);
	CHECK(raise(SIGSYS) == 0 && call(SYS_getppid) == getppid() && seen == 1);
	signal(SIGSYS, SIG_DFL);
	CHECK(call(SYS_getppid) == getppid());
	pid = fork();
	if (pid == 0)
		raise(SIGSYS);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

/* The kernel kills a process that has it blocked. */
void test_blocked_and_pending(void)
{
	struct sigaction sa = { .sa_sigaction = keep, .sa_flags = SA_SIGINFO };
	sigset_t all, old, now;

	sigfillset(&all);
	CHECK(sigprocmask(SIG_SETMASK, &all, &old) == 0 && !sigismember(&old, SIGSYS));
	call = trap_generate();
	trap_check_io(call);
	CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGSYS));
	sigaction(SIGSYS, &sa, NULL);
	CHECK(raise(SIGSYS) == 0 && seen == 0);
	trap_check_io(call);
	CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0 && seen == 1);
	trap_check_io(call);
	CHECK(seen == 1);
}

static void block_all(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)sig;
	(void)si;
	sigfillset(&uc->uc_sigmask);
	seen++;
}

void test_mask_in_the_frame(void)
{
	struct sigaction sa = { .sa_sigaction = block_all, .sa_flags = SA_SIGINFO };

	call = trap_generate();
	sigaction(SIGUSR1, &sa, NULL);
	CHECK(raise(SIGUSR1) == 0 && seen == 1);
	trap_check_io(call);
	raise(SIGUSR1);
	CHECK(seen == 1);
}

static void emulate(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)sig;
	if (si->si_code == SYS_SECCOMP && si->si_syscall == SYS_getppid)
		uc->uc_mcontext.gregs[REG_RAX] = 4242;
	seen++;
}

/* A filter that hands a call to the program's SIGSYS handler. */
void test_own_filter(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(filter) / sizeof(filter[0]), filter };
	struct sigaction sa = { .sa_sigaction = emulate, .sa_flags = SA_SIGINFO };

	call = trap_generate();
	sigaction(SIGSYS, &sa, NULL);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) == 0);
	CHECK(getppid() == 4242 && seen == 1);
	CHECK(call(SYS_getppid) == 4242 && seen == 2);
	trap_check_io(call);
	CHECK(seen == 2);
}

static void call_inside(int sig, siginfo_t *si, void *ucv)
{
	(void)sig;
	(void)si;
	(void)ucv;
	trap_check_io(call);
	seen++;
}

void test_call_in_own_handler(void)
{
	struct sigaction sa = { .sa_sigaction = call_inside, .sa_flags = SA_SIGINFO };

	call = trap_generate();
	sigfillset(&sa.sa_mask);
	sigaction(SIGSYS, &sa, NULL);
	for (int i = 0; i < 3; i++)
		CHECK(call(SYS_kill, getpid(), SIGSYS) == 0 && seen == i + 1);
}

static int fds[2];

static void feed(int sig)
{
	if (++seen == 3 && sig)
		CHECK(write(fds[1], "y", 1) == 1);
}

/* With SA_RESTART a call goes on after the handler, without it returns EINTR. */
void test_restarts(void)
{
	struct itimerval often = { { 0, 20000 }, { 0, 20000 } }, off = { { 0, 0 }, { 0, 0 } };
	struct sigaction sa = { .sa_handler = feed, .sa_flags = SA_RESTART };
	char *p = trap_evicted(MIB, 'x');

	call = trap_generate();
	CHECK(pipe(fds) == 0);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	CHECK(call(SYS_read, fds[0], p, 1) == 1 && *p == 'y' && seen >= 3);
	sa.sa_flags = 0;
	sigaction(SIGALRM, &sa, NULL);
	CHECK(call(SYS_read, fds[0], p, 1) == -EINTR);
	CHECK(call(SYS_poll, NULL, 0, 1000) == -EINTR);
	setitimer(ITIMER_REAL, &off, NULL);
}

static void *in_thread(void *arg)
{
	sigset_t now;

	CHECK(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGSYS));
	trap_check_io(call);
	return arg;
}

/* A thread begins with the mask of its maker. */
void test_inherited_mask(void)
{
	sigset_t set;
	pthread_t t;

	sigemptyset(&set);
	sigaddset(&set, SIGSYS);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	call = trap_generate();
	CHECK(pthread_create(&t, NULL, in_thread, NULL) == 0);
	CHECK(pthread_join(t, NULL) == 0);
}
