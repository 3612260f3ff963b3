/* SPDX-License-Identifier: MIT */
/* Faults that are the program's own, faults of the engine inside handlers, and crash handlers. */
#include "signals.h"

#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static siginfo_t last;
static volatile int calls;
static volatile long err_code;
static char *managed;

static void note_and_jump(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	CHECK(signo == si->si_signo);
	last = *si;
	err_code = uc->uc_mcontext.gregs[REG_ERR];
	calls++;
	siglongjmp(back, 1);
}

static void touch(char *p, bool write)
{
	if (sigsetjmp(back, 1))
		return;
	if (write)
		*(volatile char *)p = 1;
	else
		(void)*(volatile char *)p;
	CHECK(!"no fault");
}

void test_genuine_sigbus(void)
{
	char *p = test_truncated_file();

	test_handler(SIGBUS, 0, note_and_jump);
	for (int i = 0; i < 6; i++) {
		touch(p + 100 + i / 2, i & 1);
		CHECK(calls == i + 1 && last.si_signo == SIGBUS && last.si_code == BUS_ADRERR);
		CHECK(last.si_addr == p + 100 + i / 2);
		CHECK(!!(err_code & 2) == (i & 1));
	}
}

void test_genuine_sigsegv(void)
{
	char *p = tap_map(MIB);

	p[PAGE] = 1;
	CHECK(munmap(p, MIB) == 0);
	test_handler(SIGSEGV, 0, note_and_jump);
	for (int i = 0; i < 4; i++) {
		touch(p + PAGE + 7, i & 1);
		CHECK(calls == i + 1 && last.si_code == SEGV_MAPERR && last.si_addr == p + PAGE + 7);
	}
	touch((char *)8, true);
	CHECK(calls == 5 && last.si_addr == (void *)8);
}

void test_sigsegv_at_protected_memory(void)
{
	char *p = tap_map(MIB);

	memset(p, 3, MIB);
	test_evict(p, MIB);
	CHECK(mprotect(p, MIB / 2, PROT_READ) == 0);
	test_handler(SIGSEGV, 0, note_and_jump);
	for (size_t i = 0; i < 8; i++) {
		touch(p + i * PAGE, true);
		CHECK(last.si_code == SEGV_ACCERR && last.si_addr == p + i * PAGE);
		CHECK(p[i * PAGE] == 3);
	}
	CHECK(mprotect(p, PAGE, PROT_NONE) == 0);
	touch(p, false);
	CHECK(last.si_code == SEGV_ACCERR && calls == 9);
}

static void go_round(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)si;
	(void)uc;
	for (size_t i = 0; i < 128; i++)
		managed[i * PAGE]++;
	test_evict(managed, MIB);
	managed[0]++;
	calls++;
}

void test_fault_in_a_handler(void)
{
	static const int signos[] = { SIGUSR1, SIGSEGV, SIGBUS, SIGTRAP, SIGALRM };

	managed = tap_map(MIB);
	for (int i = 0; i < 5; i++) {
		test_handler(signos[i], 0, go_round);
		CHECK(raise(signos[i]) == 0 && calls == i + 1);
	}
	CHECK(managed[5 * PAGE] == 5 && managed[0] == 10);
}

static void fault_again(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)uc;
	managed[0]++; /* the engine's: served */
	*(volatile char *)si->si_addr = 1;
}

static void nested_sigbus(void)
{
	managed = tap_map(MIB);
	test_handler(SIGBUS, 0, fault_again);
	*(volatile char *)test_truncated_file() = 1;
}

void test_sigbus_in_its_own_handler_kills(void)
{
	CHECK(test_child(nested_sigbus) == SIGBUS);
}

static volatile int depth;

static void nest(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)uc;
	managed[(size_t)depth * PAGE]++;
	test_evict(managed, MIB);
	if (++depth < 4)
		*(volatile char *)si->si_addr = 1;
	siglongjmp(back, 1);
}

void test_nodefer_sigbus_nests(void)
{
	char *p = test_truncated_file();

	managed = tap_map(MIB);
	test_handler(SIGBUS, SA_NODEFER, nest);
	touch(p, true);
	CHECK(depth == 4 && managed[3 * PAGE] == 1);
}

/* ---- crash handlers -------------------------------------------------------------------------------- */

static int report[2];
static int crash_signo;
static volatile char *volatile nowhere = (volatile char *)16;

static void dump(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	void *trace[32];
	int n = backtrace(trace, 32);
	long sum = 0;
	char line[64] = { 0 };

	/* The memory around the stack pointer, and a part of the heap. */
	for (int i = 0; i < 64; i++)
		sum += ((unsigned char *)uc->uc_mcontext.gregs[REG_RSP])[i];
	for (size_t i = 0; i < 64; i++)
		sum += managed[i * PAGE];
	line[0] = (char)signo;
	line[1] = n > 2;
	line[2] = si->si_code > 0;
	line[3] = sum != 0;
	CHECK(write(report[1], line, 4) == 4);
	signal(signo, SIG_DFL);
	raise(signo);
}

static void crash(void)
{
	managed = tap_map(MIB);
	memset(managed, 1, MIB);
	test_evict(managed, MIB);
	test_handler(crash_signo, SA_ONSTACK, dump);
	if (crash_signo == SIGBUS)
		*(volatile char *)test_truncated_file() = 1;
	else if (crash_signo == SIGSEGV)
		*nowhere = 1;
	else
		abort();
}

static void check_dump(void)
{
	char line[4] = { 0 };

	CHECK(read(report[0], line, 4) == 4);
	CHECK(line[0] == crash_signo && line[1] == 1 && line[3] == 1);
	CHECK(line[2] == (crash_signo != SIGABRT));
}

void test_crash_handler_dumps_and_dies(void)
{
	static const int signos[] = { SIGBUS, SIGSEGV, SIGABRT };

	CHECK(pipe(report) == 0);
	for (int i = 0; i < 3; i++) {
		crash_signo = signos[i];
		CHECK(test_child(crash) == crash_signo);
		check_dump();
	}
}

static void crash_on_fiber(void)
{
	char *stack = tap_map(MIB);

	test_on_stack(stack, MIB, crash);
}

void test_crash_on_a_fiber(void)
{
	CHECK(pipe(report) == 0);
	crash_signo = SIGSEGV;
	CHECK(test_child(crash_on_fiber) == SIGSEGV);
	check_dump();
	crash_signo = SIGBUS;
	CHECK(test_child(crash_on_fiber) == SIGBUS);
	check_dump();
}

static void read_everything(int signo, siginfo_t *si, void *uc)
{
	long sum = 0;

	(void)signo;
	(void)uc;
	for (size_t i = 0; i < MIB; i += PAGE)
		sum += managed[i];
	CHECK(sum == 256);
	CHECK(mprotect((void *)((uintptr_t)si->si_addr & ~(PAGE - 1)), PAGE, PROT_READ | PROT_WRITE) ==
	      0);
	calls++;
}

/* What garbage collectors and check-pointers do: write faults on protected managed memory. */
void test_sigsegv_upcall_in_handler(void)
{
	managed = tap_map(MIB);
	for (size_t i = 0; i < MIB; i += PAGE)
		managed[i] = 1;
	test_handler(SIGSEGV, 0, read_everything);
	for (int round = 0; round < 3; round++) {
		CHECK(mprotect(managed, MIB, PROT_READ) == 0);
		test_evict(managed, MIB);
		for (size_t i = 0; i < 32; i++)
			managed[i * PAGE + 1]++;
	}
	CHECK(calls == 96 && managed[31 * PAGE + 1] == 3);
}

static void come_back(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)si;
	(void)uc;
	calls++;
}

static void return_to_the_fault(void)
{
	test_handler(SIGBUS, (int)SA_RESETHAND, come_back);
	*(volatile char *)test_truncated_file() = 1;
}

void test_resethand_sigbus_kills_the_second_time(void)
{
	CHECK(test_child(return_to_the_fault) == SIGBUS);
}

static void map_over(int signo, siginfo_t *si, void *uc)
{
	void *page = (void *)((uintptr_t)si->si_addr & ~(PAGE - 1));

	(void)signo;
	(void)uc;
	CHECK(mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == page);
	calls++;
}

void test_handler_repairs_the_mapping(void)
{
	char *p = test_truncated_file();

	test_handler(SIGBUS, 0, map_over);
	*(volatile char *)(p + 9) = 4;
	CHECK(p[9] == 4 && p[8] == 0 && calls == 1);
}

/* ---- many at once -------------------------------------------------------------------------------------- */

static volatile bool stop;
static volatile int per_signal[65];

static void count(int signo, siginfo_t *si, void *uc)
{
	(void)si;
	(void)uc;
	managed[(size_t)signo * PAGE]++;
	__atomic_fetch_add(&per_signal[signo], 1, __ATOMIC_RELAXED);
}

static void *work(void *arg)
{
	volatile char *p = tap_map(2 * MIB);
	unsigned char turn = 0;

	while (!stop) {
		turn++;
		for (size_t i = 0; i < 2 * MIB; i += PAGE)
			p[i] = (char)turn;
		for (size_t i = 0; i < 2 * MIB; i += PAGE)
			CHECK(p[i] == (char)turn);
	}
	return arg;
}

void test_threads_and_timers(void)
{
	static const int signos[] = { SIGALRM, SIGUSR1, SIGUSR2, SIGBUS, SIGHUP };
	struct itimerval it = { { 0, 500 }, { 0, 500 } };
	pthread_t t[4];

	managed = tap_map(MIB);
	for (int i = 0; i < 5; i++)
		test_handler(signos[i], i & 1 ? SA_RESTART : SA_NODEFER, count);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, work, NULL) == 0);
	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
	for (int i = 0; i < 2000; i++) {
		CHECK(pthread_kill(t[i % 4], signos[i % 5]) == 0);
		if (i % 7 == 0)
			CHECK(kill(getpid(), SIGBUS) == 0);
		if (i % 16 == 0)
			test_evict(managed, MIB);
	}
	it = (struct itimerval){ { 0, 0 }, { 0, 0 } };
	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
	stop = true;
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
	for (int i = 1; i < 5; i++)
		CHECK(per_signal[signos[i]] > 0);
}

void test_vfork_child_and_handlers(void)
{
	struct sigaction old;
	int status;
	pid_t pid;

	test_handler(SIGBUS, 0, come_back);
	test_handler(SIGUSR1, 0, come_back);
	pid = vfork();
	if (pid == 0) {
		signal(SIGUSR1, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_sigaction == come_back);
	CHECK(raise(SIGUSR1) == 0 && raise(SIGBUS) == 0 && calls == 2);
}

static void fork_inside(int signo, siginfo_t *si, void *uc)
{
	int status;
	pid_t pid = fork();

	(void)signo;
	(void)si;
	(void)uc;
	managed[0]++;
	if (pid) {
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		calls++;
	}
}

void test_fork_in_a_handler(void)
{
	pid_t me = getpid();

	managed = tap_map(MIB);
	test_handler(SIGUSR1, 0, fork_inside);
	for (int i = 0; i < 5; i++) {
		CHECK(raise(SIGUSR1) == 0);
		if (getpid() != me) { /* the child returns through its own copy of the frame */
			test_evict(managed, MIB);
			_exit(managed[0] != i + 1);
		}
	}
	CHECK(calls == 5 && managed[0] == 5);
}
