/* SPDX-License-Identifier: MIT */
/* Signals that somebody sends: pending, waited for, read, blocked. */
#include "signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int calls;
static siginfo_t last;
static volatile pthread_t where;
static uint64_t mask_inside;

static uint64_t mask_now(void)
{
	uint64_t m = 0;

	CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &m, 8) == 0);
	return m;
}

static uint64_t bit(int signo)
{
	return 1ull << (signo - 1);
}

static void note(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)uc;
	last = *si;
	where = pthread_self();
	mask_inside = mask_now();
	calls++;
}

static void set_mask(int how, int signo)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	CHECK(pthread_sigmask(how, &set, NULL) == 0);
}

static bool is_pending(int signo)
{
	sigset_t set;

	CHECK(sigpending(&set) == 0);
	return sigismember(&set, signo);
}

static void waits(bool thread)
{
	test_handler(SIGBUS, 0, note);
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(!is_pending(SIGBUS));
	CHECK((thread ? raise(SIGBUS) : kill(getpid(), SIGBUS)) == 0);
	CHECK(calls == 0 && is_pending(SIGBUS));
	set_mask(SIG_UNBLOCK, SIGBUS);
	CHECK(calls == 1 && !is_pending(SIGBUS));
	CHECK(last.si_signo == SIGBUS && last.si_code == (thread ? SI_TKILL : SI_USER));
	CHECK(last.si_pid == getpid() && last.si_uid == getuid());
}

void test_blocked_sigbus_waits_thread(void)
{
	waits(true);
}

void test_blocked_sigbus_waits_process(void)
{
	waits(false);
}

void test_blocked_sigbus_comes_once(void)
{
	test_handler(SIGBUS, 0, note);
	set_mask(SIG_BLOCK, SIGBUS);
	for (int i = 0; i < 5; i++)
		CHECK(kill(getpid(), SIGBUS) == 0);
	set_mask(SIG_UNBLOCK, SIGBUS);
	CHECK(calls == 1);
}

static volatile bool stop;

static void *open_thread(void *arg)
{
	set_mask(SIG_UNBLOCK, SIGBUS);
	*(volatile bool *)arg = true;
	while (!stop)
		usleep(1000);
	return NULL;
}

void test_sigbus_goes_to_a_thread_that_takes_it(void)
{
	volatile bool ready = false;
	pthread_t t;

	test_handler(SIGBUS, 0, note);
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(pthread_create(&t, NULL, open_thread, (void *)&ready) == 0);
	while (!ready)
		usleep(1000);
	CHECK(kill(getpid(), SIGBUS) == 0);
	while (!calls)
		usleep(1000);
	CHECK(pthread_equal(where, t) && !is_pending(SIGBUS));
	CHECK(raise(SIGBUS) == 0); /* but what is sent to this thread waits for this thread */
	usleep(20000);
	CHECK(calls == 1 && is_pending(SIGBUS));
	set_mask(SIG_UNBLOCK, SIGBUS);
	CHECK(calls == 2 && pthread_equal(where, pthread_self()));
	stop = true;
	CHECK(pthread_join(t, NULL) == 0);
}

void test_sigqueue_keeps_its_value(void)
{
	union sigval v = { .sival_ptr = (void *)0x123456789abcul };

	test_handler(SIGBUS, 0, note);
	CHECK(sigqueue(getpid(), SIGBUS, v) == 0);
	CHECK(calls == 1 && last.si_code == SI_QUEUE && last.si_value.sival_ptr == v.sival_ptr);
}

void test_raise_returns_after_the_handler(void)
{
	test_handler(SIGBUS, 0, note);
	test_handler(SIGUSR1, 0, note);
	for (int i = 0; i < 100; i++) {
		CHECK(raise(i & 1 ? SIGBUS : SIGUSR1) == 0);
		CHECK(calls == i + 1 && (mask_inside & bit(i & 1 ? SIGBUS : SIGUSR1)));
	}
	CHECK(mask_now() == 0);
}

void test_sigwait_takes_sigbus(void)
{
	sigset_t set;
	siginfo_t si;
	int n;

	set_mask(SIG_BLOCK, SIGBUS);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	CHECK(raise(SIGBUS) == 0);
	CHECK(sigwait(&set, &n) == 0 && n == SIGBUS);
	CHECK(kill(getpid(), SIGBUS) == 0);
	CHECK(sigwaitinfo(&set, &si) == SIGBUS && si.si_signo == SIGBUS && si.si_code == SI_USER);
	CHECK(!is_pending(SIGBUS));
}

void test_sigtimedwait_times_out(void)
{
	struct timespec ts = { 0, 1000000 };
	char *p = tap_map(MIB);
	sigset_t *set = (void *)p;

	set_mask(SIG_BLOCK, SIGBUS);
	sigfillset(set);
	test_evict(p, MIB);
	CHECK(sigtimedwait(set, (void *)(p + 8 * PAGE), &ts) == -1 && errno == EAGAIN);
}

static void *waiter(void *arg)
{
	sigset_t set;
	siginfo_t si;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigaddset(&set, SIGUSR2);
	for (int i = 0; i < *(int *)arg; i++) {
		int n = sigwaitinfo(&set, &si);

		if (n != (i & 1 ? SIGUSR2 : SIGBUS) || si.si_signo != n)
			return "wrong signal";
		__atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* The classic: all block, one thread waits. */
void test_sigwait_in_a_thread(void)
{
	int turns = 200;
	pthread_t t;
	void *ret;

	set_mask(SIG_BLOCK, SIGBUS);
	set_mask(SIG_BLOCK, SIGUSR2);
	CHECK(pthread_create(&t, NULL, waiter, &turns) == 0);
	for (int i = 0; i < turns; i++) {
		CHECK(kill(getpid(), i & 1 ? SIGUSR2 : SIGBUS) == 0);
		while (calls == i)
			sched_yield();
	}
	CHECK(pthread_join(t, &ret) == 0 && ret == NULL);
}

static void *idle(void *arg)
{
	while (!stop)
		usleep(1000);
	CHECK(!calls);
	(void)arg;
	return NULL;
}

void test_sigwait_after_pthread_sigqueue(void)
{
	union sigval v = { .sival_int = 77 };
	sigset_t set;
	siginfo_t si;
	pthread_t t;

	test_handler(SIGBUS, 0, note);
	CHECK(pthread_create(&t, NULL, idle, NULL) == 0); /* takes SIGBUS, but it is not meant */
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(pthread_sigqueue(pthread_self(), SIGBUS, v) == 0);
	usleep(20000);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	CHECK(sigwaitinfo(&set, &si) == SIGBUS && si.si_code == SI_QUEUE && si.si_int == 77);
	stop = true;
	CHECK(pthread_join(t, NULL) == 0);
}

void test_signalfd_reads_sigbus(void)
{
	struct signalfd_siginfo *si = tap_map(MIB);
	struct pollfd p = { .events = POLLIN };
	sigset_t set;

	set_mask(SIG_BLOCK, SIGBUS);
	set_mask(SIG_BLOCK, SIGUSR1);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigaddset(&set, SIGUSR1);
	p.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	CHECK(p.fd >= 0 && poll(&p, 1, 0) == 0);
	CHECK(kill(getpid(), SIGBUS) == 0 && raise(SIGUSR1) == 0);
	CHECK(poll(&p, 1, 1000) == 1);
	test_evict(si, MIB);
	CHECK(read(p.fd, si, 4 * sizeof(*si)) == 2 * sizeof(*si));
	for (int i = 0; i < 2; i++)
		if (si[i].ssi_signo != SIGUSR1)
			CHECK(si[i].ssi_signo == SIGBUS && si[i].ssi_pid == (uint32_t)getpid());
	CHECK(si[0].ssi_signo + si[1].ssi_signo == SIGUSR1 + SIGBUS);
	CHECK(read(p.fd, si, sizeof(*si)) == -1 && errno == EAGAIN);
}

void test_sigsuspend_takes_sigbus(void)
{
	sigset_t none;

	test_handler(SIGBUS, 0, note);
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(kill(getpid(), SIGBUS) == 0);
	sigemptyset(&none);
	CHECK(sigsuspend(&none) == -1 && errno == EINTR && calls == 1);
	CHECK(mask_now() == bit(SIGBUS));
}

void test_ppoll_takes_sigbus(void)
{
	struct timespec ts = { 5, 0 };
	sigset_t none, full;

	sigemptyset(&none);
	sigfillset(&full);
	test_handler(SIGBUS, 0, note);
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(raise(SIGBUS) == 0);
	CHECK(ppoll(NULL, 0, &ts, &none) == -1 && errno == EINTR && calls == 1);
	CHECK(raise(SIGBUS) == 0);
	CHECK(pselect(0, NULL, NULL, NULL, &ts, &none) == -1 && errno == EINTR && calls == 2);
	CHECK(raise(SIGBUS) == 0);
	ts = (struct timespec){ 0, 1000000 };
	CHECK(ppoll(NULL, 0, &ts, &full) == 0 && calls == 2 && is_pending(SIGBUS));
}

void test_masks_read_back(void)
{
	for (int n = 1; n <= 64; n++) {
		uint64_t set = bit(n), old;

		CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, &old, 8) == 0);
		if (n == SIGKILL || n == SIGSTOP)
			set = 0;
		CHECK(mask_now() == set);
		set = ~0ull;
		CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, &old, 8) == 0);
		CHECK(mask_now() == (~0ull & ~bit(SIGKILL) & ~bit(SIGSTOP)));
		set = bit(n);
		CHECK(syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, &old, 8) == 0);
		CHECK(mask_now() == (~bit(n) & ~bit(SIGKILL) & ~bit(SIGSTOP)));
	}
}

void test_full_mask_and_faults(void)
{
	volatile char *p = tap_map(4 * MIB);
	uint64_t full = ~0ull;

	CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &full, NULL, 8) == 0);
	for (int turn = 0; turn < 3; turn++) {
		for (size_t i = 0; i < 4 * MIB; i += PAGE)
			p[i] = (char)(p[i] + 1);
		test_evict((void *)p, 4 * MIB);
	}
	for (size_t i = 0; i < 4 * MIB; i += PAGE)
		CHECK(p[i] == 3);
	CHECK(mask_now() == (~0ull & ~bit(SIGKILL) & ~bit(SIGSTOP)));
}

void test_ignored_sigbus_is_dropped(void)
{
	signal(SIGBUS, SIG_IGN);
	CHECK(raise(SIGBUS) == 0 && kill(getpid(), SIGBUS) == 0);
	CHECK(!is_pending(SIGBUS));
	signal(SIGBUS, SIG_DFL);
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(raise(SIGBUS) == 0 && is_pending(SIGBUS));
	signal(SIGBUS, SIG_IGN);
	CHECK(!is_pending(SIGBUS));
	test_handler(SIGBUS, 0, note);
	set_mask(SIG_UNBLOCK, SIGBUS);
	CHECK(calls == 0);
}

static void ignored_fault(void)
{
	signal(SIGBUS, SIG_IGN);
	*(volatile char *)test_truncated_file() = 1;
}

void test_ignored_sigbus_fault_kills(void)
{
	CHECK(test_child(ignored_fault) == SIGBUS);
}

static void blocked_fault(void)
{
	test_handler(SIGBUS, 0, note);
	set_mask(SIG_BLOCK, SIGBUS);
	*(volatile char *)test_truncated_file() = 1;
}

void test_blocked_sigbus_fault_kills(void)
{
	CHECK(test_child(blocked_fault) == SIGBUS);
}

static void die_by_kill(void)
{
	kill(getpid(), SIGBUS);
}

static void die_by_raise(void)
{
	raise(SIGBUS);
}

static void die_on_unblock(void)
{
	set_mask(SIG_BLOCK, SIGBUS);
	raise(SIGBUS);
	if (is_pending(SIGBUS))
		set_mask(SIG_UNBLOCK, SIGBUS);
}

void test_default_sigbus_kills(void)
{
	CHECK(test_child(die_by_kill) == SIGBUS);
	CHECK(test_child(die_by_raise) == SIGBUS);
	CHECK(test_child(die_on_unblock) == SIGBUS);
}

void test_mask_in_sigsuspend_handler(void)
{
	struct sigaction sa = { .sa_sigaction = note, .sa_flags = SA_SIGINFO };
	uint64_t during = bit(SIGHUP) | bit(SIGBUS), before = bit(SIGUSR1) | bit(SIGQUIT), now;

	sigaddset(&sa.sa_mask, SIGUSR2);
	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8) == 0);
	CHECK(raise(SIGUSR1) == 0 && calls == 0);
	CHECK(syscall(SYS_rt_sigsuspend, &during, 8) == -1 && errno == EINTR && calls == 1);
	now = mask_inside;
	CHECK(now == (during | bit(SIGUSR1) | bit(SIGUSR2)));
	CHECK(mask_now() == before);
}

static void exec_and_look(const char *blocked)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execl("/proc/self/exe", "signals", "--mask", blocked, NULL);
		_exit(9);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	pid = vfork();
	if (pid == 0) {
		execl("/proc/self/exe", "signals", "--mask", blocked, NULL);
		_exit(9);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

void test_mask_passes_exec(void)
{
	volatile char *p = tap_map(MIB);

	exec_and_look("0");
	set_mask(SIG_BLOCK, SIGBUS);
	exec_and_look("1");
	CHECK(execl("/nonexistent", "x", NULL) == -1 && errno == ENOENT);
	p[0] = 1;
	test_evict((void *)p, MIB);
	CHECK(p[0] == 1 && mask_now() == bit(SIGBUS));
}

void test_sigstkflt_is_itself(void)
{
	test_handler(SIGSTKFLT, 0, note);
	CHECK(raise(SIGSTKFLT) == 0 && calls == 1 && last.si_signo == SIGSTKFLT);
	set_mask(SIG_BLOCK, SIGSTKFLT);
	CHECK(mask_now() == bit(SIGSTKFLT));
	CHECK(raise(SIGSTKFLT) == 0 && calls == 1 && is_pending(SIGSTKFLT));
	set_mask(SIG_UNBLOCK, SIGSTKFLT);
	CHECK(calls == 2 && last.si_signo == SIGSTKFLT && mask_now() == 0);
	signal(SIGSTKFLT, SIG_IGN);
	CHECK(raise(SIGSTKFLT) == 0 && calls == 2);
}

struct kernel_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

void test_actions_read_back(void)
{
	struct kernel_action act, old;

	for (int n = 1; n <= 64; n++) {
		if (n == SIGKILL || n == SIGSTOP) {
			act = (struct kernel_action){ .handler = note };
			CHECK(syscall(SYS_rt_sigaction, n, &act, NULL, 8) == -1 && errno == EINVAL);
			continue;
		}
		act = (struct kernel_action){ (void *)note, ~0ul & ~0x400ul, (void *)0x1234, ~0ull };
		CHECK(syscall(SYS_rt_sigaction, n, &act, NULL, 8) == 0);
		CHECK(syscall(SYS_rt_sigaction, n, NULL, &old, 8) == 0);
		CHECK(old.handler == (void *)note && old.restorer == (void *)0x1234);
		CHECK(old.mask == (~0ull & ~bit(SIGKILL) & ~bit(SIGSTOP)));
		CHECK(old.flags == 0xdc000807ul);
		act = (struct kernel_action){ (void *)SIG_DFL, SA_RESTART, NULL, bit(SIGBUS) };
		CHECK(syscall(SYS_rt_sigaction, n, &act, &old, 8) == 0 && old.handler == (void *)note);
		CHECK(syscall(SYS_rt_sigaction, n, NULL, &old, 8) == 0);
		CHECK(old.handler == (void *)SIG_DFL && old.flags == SA_RESTART);
		CHECK(old.mask == bit(SIGBUS));
	}
	CHECK(syscall(SYS_rt_sigaction, SIGUSR1, (void *)~0xffful, NULL, 8) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_rt_sigprocmask, 0, (void *)~0xffful, NULL, 8) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_rt_sigprocmask, 0, NULL, NULL, 4) == -1 && errno == EINVAL);
	CHECK(syscall(SYS_rt_sigprocmask, 7, &act.mask, NULL, 8) == -1 && errno == EINVAL);
}

static void nothing_pending(void)
{
	_exit(is_pending(SIGBUS) || mask_now() != bit(SIGBUS));
}

void test_sigpending_after_fork(void)
{
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(raise(SIGBUS) == 0 && kill(getpid(), SIGBUS) == 0);
	CHECK(test_child(nothing_pending) == 0);
	CHECK(is_pending(SIGBUS));
}

static int pipe_fd[2];

static void *send_later(void *to)
{
	usleep(50000);
	CHECK(pthread_kill(*(pthread_t *)to, SIGBUS) == 0);
	usleep(50000);
	CHECK(write(pipe_fd[1], "x", 1) == 1);
	return NULL;
}

static long read_with_sigbus(void)
{
	pthread_t me = pthread_self(), t;
	long n;
	char c;

	CHECK(pipe(pipe_fd) == 0 && pthread_create(&t, NULL, send_later, &me) == 0);
	n = read(pipe_fd[0], &c, 1);
	CHECK(n == 1 || errno == EINTR);
	CHECK(pthread_join(t, NULL) == 0);
	return n;
}

void test_restart_follows_the_flag(void)
{
	test_handler(SIGBUS, SA_RESTART, note);
	CHECK(read_with_sigbus() == 1 && calls == 1);
	test_handler(SIGBUS, 0, note);
	CHECK(read_with_sigbus() == -1 && calls == 2);
	signal(SIGBUS, SIG_IGN);
	CHECK(read_with_sigbus() == 1 && calls == 2);
}

void test_blocked_sigbus_does_not_end_a_read(void)
{
	test_handler(SIGBUS, SA_RESTART, note);
	set_mask(SIG_BLOCK, SIGBUS);
	CHECK(read_with_sigbus() == 1 && calls == 0 && is_pending(SIGBUS));
}
