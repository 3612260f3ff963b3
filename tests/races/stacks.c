/* SPDX-License-Identifier: MIT */
#include "races.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

/* A handler on an alternate stack that lies above the thread's interrupts a read into managed memory,
   makes system calls of its own, and the read goes on: its buffer must be there still. */

static int pipe_in[2], pipe_other[2];
static char *other_page;

static void on_usr1(int sig)
{
	int e = errno;

	(void)sig;
	if (write(pipe_other[1], other_page, 64) < 0)
		_exit(3);
	if (read(pipe_other[0], other_page, 64) < 0)
		_exit(3);
	errno = e;
}

struct reader {
	char *buf, *alt;
	volatile bool ready, done;
	long n;
	int err;
};

static void *restarted_read(void *arg)
{
	struct reader *r = arg;
	stack_t ss = { .ss_sp = r->alt, .ss_size = 65536 };

	CHECK(sigaltstack(&ss, NULL) == 0);
	r->ready = true;
	r->n = read(pipe_in[0], r->buf, 8 * PAGE);
	r->err = errno;
	r->done = true;
	return NULL;
}

void test_restart_on_alternate_stack(void)
{
	struct sigaction sa = { .sa_handler = on_usr1, .sa_flags = SA_ONSTACK | SA_RESTART };
	char *low = tap_map(16 * MIB), *stack = low, *data = tap_map(MIB);
	struct reader r = { .buf = data, .alt = low + 2 * MIB };
	pthread_attr_t attr;
	pthread_t t;

	/* stack below alternate stack, neither of them managed (MAP_STACK) */
	CHECK(mmap(low, 3 * MIB, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_STACK, -1, 0) == low);
	other_page = data + MIB / 2;
	CHECK(pipe(pipe_in) == 0 && pipe(pipe_other) == 0);
	CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
	CHECK(pthread_attr_init(&attr) == 0 && pthread_attr_setstack(&attr, stack, MIB) == 0);
	CHECK(pthread_create(&t, &attr, restarted_read, &r) == 0);
	while (!r.ready)
		usleep(1000);
	usleep(50000);
	CHECK(pthread_kill(t, SIGUSR1) == 0);
	usleep(50000);
	pressure_once(16 * MIB);
	CHECK(!r.done);
	CHECK(write(pipe_in[1], low + 8 * MIB, 4 * PAGE) == (long)(4 * PAGE));
	CHECK(pthread_join(t, NULL) == 0);
	errno = r.err;
	CHECK(r.n == (long)(4 * PAGE));
}

/* Fibers whose stacks are ordinary, managed memory, and which make system calls on them. */

#define FIBERS 64
#define FIBER_STACK (64ul * 1024)
static ucontext_t fiber[FIBERS], scheduler;
static char *fiber_data;
static volatile unsigned rounds;

static unsigned deep(unsigned n, unsigned seed)
{
	volatile unsigned char room[1024];

	for (unsigned i = 0; i < sizeof(room); i += 64)
		room[i] = (unsigned char)(seed + n + i);
	if (n && deep(n - 1, seed) != n - 1)
		return ~0u;
	for (unsigned i = 0; i < sizeof(room); i += 64)
		if (room[i] != (unsigned char)(seed + n + i))
			return ~0u;
	return n;
}

static void fiber_main(int me)
{
	int p[2];

	CHECK(pipe(p) == 0);
	for (unsigned i = 0; i < 12; i++) {
		char *mine = fiber_data + (size_t)me * 2 * PAGE;

		memset(mine, me + (int)i, 2 * PAGE);
		CHECK(write(p[1], mine, 2 * PAGE) == (long)(2 * PAGE));
		swapcontext(&fiber[me], &scheduler);
		CHECK(deep(i * 2, (unsigned)me) == i * 2);
		CHECK(madvise(mine, 2 * PAGE, MADV_DONTNEED) == 0);
		CHECK(mine[1] == 0);
		CHECK(read(p[0], mine, 2 * PAGE) == (long)(2 * PAGE));
		CHECK(mine[PAGE] == (char)(me + (int)i));
		rounds++;
		swapcontext(&fiber[me], &scheduler);
	}
	close(p[0]);
	close(p[1]);
}

void test_fibers_on_managed_stacks(void)
{
	char *stacks = tap_map(FIBERS * FIBER_STACK);

	fiber_data = tap_map(FIBERS * 2 * PAGE);
	for (int i = 0; i < FIBERS; i++) {
		CHECK(getcontext(&fiber[i]) == 0);
		fiber[i].uc_stack.ss_sp = stacks + (size_t)i * FIBER_STACK;
		fiber[i].uc_stack.ss_size = FIBER_STACK;
		fiber[i].uc_link = &scheduler;
		makecontext(&fiber[i], (void (*)(void))fiber_main, 1, i);
	}
	pressure_start(6 * MIB);
	for (int round = 0; round < 25; round++)
		for (int i = 0; i < FIBERS; i++)
			CHECK(swapcontext(&scheduler, &fiber[i]) == 0);
	pressure_stop();
	CHECK(rounds == FIBERS * 12);
}

/* Threads whose stacks, thread blocks and restartable sequences lie in managed memory. */

static void *short_life(void *arg)
{
	char text[64];

	memset(text, 7, sizeof(text));
	usleep(2000 * (unsigned)(long)arg);
	CHECK(deep(20, (unsigned)(long)arg) == 20);
	usleep(2000);
	return (void *)(long)text[5];
}

void test_threads_on_managed_stacks(void)
{
	const size_t size = 256 * 1024;
	char *stacks = tap_map(8 * size);

	pressure_start(6 * MIB);
	for (int round = 0; round < 20; round++) {
		pthread_t t[8];
		void *ret;

		for (long i = 0; i < 8; i++) {
			pthread_attr_t attr;

			CHECK(pthread_attr_init(&attr) == 0);
			CHECK(pthread_attr_setstack(&attr, stacks + (size_t)i * size, size) == 0);
			CHECK(pthread_create(&t[i], &attr, short_life, (void *)i) == 0);
			pthread_attr_destroy(&attr);
		}
		for (int i = 0; i < 8; i++)
			CHECK(pthread_join(t[i], &ret) == 0 && ret == (void *)7);
	}
	pressure_stop();
}

/* A managed alternate stack must be good for upcalls in a forked child too. */
void test_alternate_stack_after_fork(void)
{
	char *mem = tap_map(2 * MIB);
	stack_t ss = { .ss_sp = mem + MIB, .ss_size = 65536 };
	int status;
	pid_t pid;

	CHECK(sigaltstack(&ss, NULL) == 0);
	pressure_once(6 * MIB);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		pressure_once(8 * MIB);
		pressure_once(8 * MIB);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
}

/* Upcalls of all kinds on an alternate stack of 8 KiB: what lies below it stays as it was. */
void test_small_alternate_stack(void)
{
	static _Alignas(64) unsigned char mem[65536];
	stack_t ss = { .ss_sp = mem + 32768, .ss_size = 8192 };

	memset(mem, 0x5a, sizeof(mem));
	CHECK(sigaltstack(&ss, NULL) == 0);
	pressure_start(6 * MIB);
	for (int i = 0; i < 4; i++)
		pressure_once(6 * MIB);
	pressure_stop();
	for (size_t i = 0; i < 32768; i++)
		CHECK(mem[i] == 0x5a);
}

/* siglongjmp out of a handler wherever it comes. */

static sigjmp_buf back;
static volatile sig_atomic_t armed;

static void on_alarm(int sig)
{
	(void)sig;
	if (armed) {
		armed = 0;
		siglongjmp(back, 1);
	}
}

void test_jump_out_of_handlers(void)
{
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval it = { { 0, 300 }, { 0, 300 } }, off = { { 0, 0 }, { 0, 0 } };
	char *data = tap_map(6 * MIB);
	volatile int jumps = 0;
	int p[2];

	CHECK(pipe(p) == 0 && sigaction(SIGALRM, &sa, NULL) == 0);
	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
	for (volatile unsigned i = 0; i < 6000; i++) {
		char *a = data + (size_t)(i * 7 % 1536) * PAGE, *b = data + (size_t)(i * 13 % 1536) * PAGE;

		if (sigsetjmp(back, 1) == 0) {
			armed = 1;
			if (write(p[1], a, 100) == 100 && read(p[0], b, 100) < 0)
				CHECK(errno == EINTR);
			b[200] = 1;
			if (i % 64 == 0)
				madvise(b, PAGE, MADV_DONTNEED);
			armed = 0;
		} else {
			char drain[200];
			struct timeval none = { 0, 0 };
			fd_set set;

			jumps++;
			FD_ZERO(&set);
			FD_SET(p[0], &set);
			if (select(p[0] + 1, &set, NULL, NULL, &none) == 1)
				CHECK(read(p[0], drain, sizeof(drain)) > 0);
		}
	}
	CHECK(setitimer(ITIMER_REAL, &off, NULL) == 0);
	CHECK(jumps > 0);
	/* Nothing is left held or half done. */
	pressure_once(8 * MIB);
	{
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(data[200] & 2);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	}
}

/* A stack whose pages are evicted under the calls that run on it. */
static volatile bool evicting;

static void *evict_stack(void *arg)
{
	while (evicting)
		madvise(arg, FIBER_STACK, MADV_PAGEOUT);
	return NULL;
}

static char *call_data;

static void calling(void)
{
	int p[2];

	CHECK(pipe(p) == 0);
	for (unsigned i = 0; i < 3000; i++) {
		char *a = call_data + i % 32 * PAGE;

		memset(a, (int)i, PAGE);
		CHECK(write(p[1], a, PAGE) == (long)PAGE);
		if (i % 8 == 0)
			CHECK(madvise(a, PAGE, MADV_DONTNEED) == 0);
		CHECK(read(p[0], a, PAGE) == (long)PAGE);
		CHECK(a[5] == (char)i);
		if (i % 32 == 0)
			CHECK(deep(16, i) == 16);
		if (i % 256 == 0) {
			int status;
			pid_t pid = fork();

			if (pid == 0)
				_exit(deep(20, i) == 20 ? 0 : 1);
			CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
		}
	}
}

void test_calls_on_an_evicted_stack(void)
{
	char *stack = tap_map(MIB);
	pthread_t t;

	call_data = tap_map(MIB);
	CHECK(getcontext(&fiber[0]) == 0);
	fiber[0].uc_stack.ss_sp = stack;
	fiber[0].uc_stack.ss_size = FIBER_STACK;
	fiber[0].uc_link = &scheduler;
	makecontext(&fiber[0], calling, 0);
	evicting = true;
	CHECK(pthread_create(&t, NULL, evict_stack, stack) == 0);
	CHECK(swapcontext(&scheduler, &fiber[0]) == 0);
	evicting = false;
	CHECK(pthread_join(t, NULL) == 0);
}
