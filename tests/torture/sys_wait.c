/* SPDX-License-Identifier: MIT */
/* Waiting: poll sets, timers, futexes, children, signals. */
#define _GNU_SOURCE
#include "sys.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void wait_poll_sets(void)
{
	struct epoll_event *ev;
	struct timespec *ts;
	struct timeval *tv;
	struct pollfd *p;
	fd_set *set;
	int *fds, ep;

	sys_reset();
	fds = spot(2 * sizeof(int));
	p = spot(2 * sizeof(*p));
	set = spot(2 * sizeof(*set));
	tv = spot(sizeof(*tv));
	ts = spot(sizeof(*ts));
	ev = spot(4 * sizeof(*ev));
	cold();
	CHECK(pipe2(fds, O_CLOEXEC) == 0 && fds[0] > 2 && fds[1] > fds[0]);
	CHECK(write(fds[1], "x", 1) == 1);
	p[0] = (struct pollfd){ fds[0], POLLIN, 0 };
	p[1] = (struct pollfd){ fds[1], POLLOUT, 0 };
	cold();
	CHECK(poll(p, 2, 0) == 2 && p[0].revents == POLLIN && p[1].revents == POLLOUT);
	p[0].revents = 0;
	cold();
	CHECK(ppoll(p, 1, ts, NULL) == 1 && p[0].revents == POLLIN);
	FD_ZERO(&set[0]);
	FD_SET(fds[0], &set[0]);
	FD_ZERO(&set[1]);
	FD_SET(fds[1], &set[1]);
	cold();
	CHECK(select(fds[1] + 1, &set[0], &set[1], NULL, tv) == 2);
	CHECK(FD_ISSET(fds[0], &set[0]) && FD_ISSET(fds[1], &set[1]));
	cold();
	CHECK(pselect(fds[1] + 1, &set[0], NULL, NULL, ts, NULL) == 1);
	ep = epoll_create1(0);
	ev[0] = (struct epoll_event){ EPOLLIN, { .u64 = 0x1234567890ull } };
	cold();
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fds[0], ev) == 0);
	memset(ev, 0, 4 * sizeof(*ev));
	cold();
	CHECK(epoll_wait(ep, ev, 4, 0) == 1 && ev[0].data.u64 == 0x1234567890ull);
	close(ep);
	close(fds[0]);
	close(fds[1]);
}

static void *write_later(void *arg)
{
	usleep(50000);
	if (write(*(int *)arg, "y", 1) != 1)
		return NULL;
	return arg;
}

static volatile int pressing;

static void *press(void *arg)
{
	while (pressing)
		mm_evict(arg, PG);
	return NULL;
}

/* The buffer must be there when the call comes back, whatever happened while it slept. */
static void wait_blocked_while_memory_is_short(void)
{
	struct pollfd *p;
	pthread_t w, e;
	int fds[2], i;
	char *buf;

	for (i = 0; i < 3; i++) {
		sys_reset();
		buf = spot(2 * PG);
		p = spot(sizeof(*p));
		CHECK(pipe(fds) == 0);
		*p = (struct pollfd){ fds[0], POLLIN, 0 };
		cold();
		pressing = 1;
		pthread_create(&w, NULL, write_later, &fds[1]);
		pthread_create(&e, NULL, press, (char *)((uintptr_t)buf & ~(PG - 1)));
		if (i < 2) {
			CHECK(read(fds[0], buf, 2 * PG) == 1);
			CHECK(buf[0] == 'y');
		} else {
			CHECK(poll(p, 1, 1000) == 1 && p->revents == POLLIN);
		}
		pressing = 0;
		pthread_join(w, NULL);
		pthread_join(e, NULL);
		close(fds[0]);
		close(fds[1]);
	}
}

/* Clocks that the vDSO cannot read: it makes the system call itself. */
static void clocks_through_the_vdso(void)
{
	static const clockid_t clocks[] = { CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
					    CLOCK_BOOTTIME, CLOCK_TAI };
	struct timespec *ts;

	for (size_t i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++) {
		sys_reset();
		ts = spot(sizeof(*ts));
		ts->tv_nsec = -1;
		cold();
		CHECK(clock_gettime(clocks[i], ts) == 0 && ts->tv_nsec >= 0);
		ts->tv_nsec = -1;
		cold();
		CHECK(clock_getres(clocks[i], ts) == 0 && ts->tv_nsec >= 0);
	}
}

static void wait_clocks(void)
{
	struct timespec *ts;
	struct itimerval *it;
	struct itimerspec *its;
	struct timeval *tv;
	uint64_t *n;
	int fd;

	sys_reset();
	ts = spot(2 * sizeof(*ts));
	tv = spot(sizeof(*tv));
	it = spot(2 * sizeof(*it));
	its = spot(2 * sizeof(*its));
	n = spot(sizeof(*n));
	ts[0].tv_nsec = 1000000;
	cold();
	CHECK(nanosleep(&ts[0], &ts[1]) == 0);
	cold();
	CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts[0], NULL) == 0);
	cold();
	CHECK(clock_gettime(CLOCK_REALTIME, ts) == 0 && ts->tv_sec > 1000000000);
	memset(ts, 0, sizeof(*ts));
	cold();
	CHECK(syscall(SYS_clock_gettime, CLOCK_REALTIME, ts) == 0 && ts->tv_sec > 1000000000);
	cold();
	CHECK(clock_getres(CLOCK_MONOTONIC, ts) == 0);
	cold();
	CHECK(syscall(SYS_gettimeofday, tv, NULL) == 0 && tv->tv_sec > 1000000000);
	it[0].it_value.tv_sec = 1000;
	cold();
	CHECK(setitimer(ITIMER_VIRTUAL, &it[0], NULL) == 0);
	cold();
	CHECK(getitimer(ITIMER_VIRTUAL, &it[1]) == 0 && it[1].it_value.tv_sec >= 999);
	memset(it, 0, sizeof(*it));
	cold();
	CHECK(setitimer(ITIMER_VIRTUAL, &it[0], &it[1]) == 0 && it[1].it_value.tv_sec >= 999);
	fd = timerfd_create(CLOCK_MONOTONIC, 0);
	its[0].it_value.tv_nsec = 1;
	cold();
	CHECK(timerfd_settime(fd, 0, &its[0], &its[1]) == 0);
	cold();
	CHECK(read(fd, n, 8) == 8 && *n == 1);
	cold();
	CHECK(timerfd_gettime(fd, &its[1]) == 0 && its[1].it_value.tv_sec == 0);
	close(fd);
}

struct sync {
	char gap[PG - 32];
	pthread_mutex_t lock;
	pthread_cond_t cond;
	sem_t sem;
	pthread_barrier_t barrier;
	pthread_rwlock_t rw;
	unsigned value, turns[4];
};

static void *sync_thread(void *arg)
{
	struct sync *s = arg;
	unsigned i, me = __atomic_fetch_add(&s->turns[3], 1, __ATOMIC_RELAXED);

	pthread_barrier_wait(&s->barrier);
	for (i = 0; i < 40; i++) {
		pthread_mutex_lock(&s->lock);
		while (s->value % 2 != me)
			pthread_cond_wait(&s->cond, &s->lock);
		s->value++;
		s->turns[me]++;
		if (i % 8 == 0)
			cold();
		pthread_cond_broadcast(&s->cond);
		pthread_mutex_unlock(&s->lock);
		pthread_rwlock_wrlock(&s->rw);
		s->turns[2]++;
		pthread_rwlock_unlock(&s->rw);
	}
	sem_post(&s->sem);
	return NULL;
}

/* pthread's objects are futexes: they sleep and wake across evictions. */
static void wait_pthread_objects(void)
{
	pthread_t tid[2];
	struct sync *s;
	unsigned i;

	sys_reset();
	s = (struct sync *)spot_pages(sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	pthread_rwlock_init(&s->rw, NULL);
	pthread_barrier_init(&s->barrier, NULL, 2);
	sem_init(&s->sem, 0, 0);
	cold();
	for (i = 0; i < 2; i++)
		pthread_create(&tid[i], NULL, sync_thread, s);
	cold();
	for (i = 0; i < 2; i++)
		CHECK(sem_wait(&s->sem) == 0);
	for (i = 0; i < 2; i++)
		pthread_join(tid[i], NULL);
	CHECK(s->value == 80 && s->turns[0] == 40 && s->turns[1] == 40 && s->turns[2] == 80);
}

static void wait_futex(void)
{
	struct timespec *ts;
	uint32_t *f;

	sys_reset();
	ts = spot(sizeof(*ts));
	f = (uint32_t *)spot_pages(PG) + 7;
	*f = 5;
	ts->tv_nsec = 2000000;
	cold();
	CHECK_ERRNO(syscall(SYS_futex, f, 128 /* WAIT|PRIVATE */, 4, ts, NULL, 0), -1, EAGAIN);
	cold();
	CHECK_ERRNO(syscall(SYS_futex, f, 128, 5, ts, NULL, 0), -1, ETIMEDOUT);
	cold();
	CHECK(syscall(SYS_futex, f, 129 /* WAKE|PRIVATE */, 1, NULL, NULL, 0) == 0);
	CHECK(*f == 5);
}

static void wait_children(void)
{
	struct rusage *ru;
	siginfo_t *info;
	int *status;
	pid_t pid;

	sys_reset();
	status = spot(sizeof(*status));
	ru = spot(sizeof(*ru));
	info = spot(sizeof(*info));
	pid = fork();
	if (pid == 0)
		_exit(33);
	cold();
	CHECK(waitid(P_PID, (id_t)pid, info, WEXITED | WNOWAIT) == 0);
	CHECK(info->si_pid == pid && info->si_status == 33);
	cold();
	CHECK(wait4(pid, status, 0, ru) == pid && WEXITSTATUS(*status) == 33);
	CHECK(ru->ru_maxrss > 0);
	cold();
	CHECK(getrusage(RUSAGE_SELF, ru) == 0 && ru->ru_maxrss > 0);
}

static volatile int got_signal;

static void on_signal(int sig)
{
	got_signal = sig;
}

static void wait_signal_structs(void)
{
	struct sigaction *sa;
	struct signalfd_siginfo *si;
	struct timespec *ts;
	siginfo_t *info;
	sigset_t *set;
	stack_t *ss;
	int fd;

	sys_reset();
	sa = spot(2 * sizeof(*sa));
	set = spot(2 * sizeof(*set));
	ts = spot(sizeof(*ts));
	info = spot(sizeof(*info));
	si = spot(sizeof(*si));
	ss = spot(2 * sizeof(*ss));
	sa[0].sa_handler = on_signal;
	cold();
	CHECK(sigaction(SIGUSR2, &sa[0], &sa[1]) == 0);
	raise(SIGUSR2);
	CHECK(got_signal == SIGUSR2);
	cold();
	CHECK(sigaction(SIGUSR2, NULL, &sa[1]) == 0 && sa[1].sa_handler == on_signal);
	sigemptyset(&set[0]);
	sigaddset(&set[0], SIGUSR2);
	cold();
	CHECK(sigprocmask(SIG_BLOCK, &set[0], &set[1]) == 0 && !sigismember(&set[1], SIGUSR2));
	raise(SIGUSR2);
	cold();
	CHECK(sigpending(&set[1]) == 0 && sigismember(&set[1], SIGUSR2));
	cold();
	CHECK(sigtimedwait(&set[0], info, ts) == SIGUSR2 && info->si_pid == getpid());
	cold();
	fd = signalfd(-1, &set[0], SFD_CLOEXEC);
	raise(SIGUSR2);
	cold();
	CHECK(read(fd, si, sizeof(*si)) == sizeof(*si) && si->ssi_signo == SIGUSR2);
	close(fd);
	cold();
	CHECK(sigprocmask(SIG_UNBLOCK, &set[0], NULL) == 0);
	cold();
	CHECK(sigaltstack(NULL, &ss[1]) == 0 && (ss[1].ss_flags == SS_DISABLE || ss[1].ss_size));
	signal(SIGUSR2, SIG_DFL);
}

/* SIGBUS is the engine's own means: the program must not notice. */
static void wait_sigbus_is_the_programs_too(void)
{
	struct sigaction *sa;
	sigset_t *set;
	char *a;

	sys_reset();
	sa = spot(2 * sizeof(*sa));
	set = spot(2 * sizeof(*set));
	a = spot_pages(8 * PG);
	mm_fill(a, 8 * PG, 5);
	sa[0].sa_handler = on_signal;
	cold();
	CHECK(sigaction(SIGBUS, &sa[0], &sa[1]) == 0 && sa[1].sa_handler == SIG_DFL);
	cold();
	CHECK(mm_holds(a, 8 * PG, 5));
	got_signal = 0;
	CHECK(raise(SIGBUS) == 0 && got_signal == SIGBUS);
	sigfillset(&set[0]);
	cold();
	CHECK(sigprocmask(SIG_SETMASK, &set[0], &set[1]) == 0 && !sigismember(&set[1], SIGBUS));
	cold();
	CHECK(mm_holds(a, 8 * PG, 5)); /* with everything blocked */
	got_signal = 0;
	raise(SIGBUS);
	CHECK(got_signal == 0);
	cold();
	CHECK(sigprocmask(SIG_SETMASK, &set[1], &set[0]) == 0 && sigismember(&set[0], SIGBUS));
	CHECK(got_signal == SIGBUS);
	cold();
	CHECK(sigaction(SIGBUS, &sa[1], &sa[0]) == 0 && sa[0].sa_handler == on_signal);
	cold();
	CHECK(mm_holds(a, 8 * PG, 5));
}

const struct mm_test sys_wait_tests[] = {
	SYS_TEST(wait_poll_sets), SYS_TEST(wait_blocked_while_memory_is_short),
	SYS_TEST(wait_clocks), SYS_TEST(clocks_through_the_vdso),
	SYS_TEST(wait_pthread_objects), SYS_TEST(wait_futex),
	SYS_TEST(wait_children), SYS_TEST(wait_signal_structs),
	SYS_TEST(wait_sigbus_is_the_programs_too), { 0 }
};
