/* SPDX-License-Identifier: MIT */
/* On which stack a handler runs, wherever its pages are, and what happens where a stack ends. */
#include "signals.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static char *fiber_stack;

/* ---- on stacks whose pages are elsewhere -------------------------------------------- */

static long raw_tgkill(int signo)
{
	long ret;

	/* From a stack pointer whose page, and all below it, has left; no touch in between. */
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(SYS_tgkill), "D"(getpid()), "S"(syscall(SYS_gettid)), "d"(signo)
			 : "rcx", "r11", "memory");
	return ret;
}

static void evicted_signals(void)
{
	for (int i = 0; i < 50; i++) {
		test_evict(fiber_stack, TEST_STACK);
		CHECK(raw_tgkill(SIGUSR1) == 0 && test_calls == i + 1);
		CHECK(test_on(test_handler_sp, fiber_stack, TEST_STACK));
	}
}

void test_frame_on_an_evicted_stack(void)
{
	fiber_stack = tap_map(2 * MIB) + MIB;
	test_handler(SIGUSR1, 0, test_note_sp);
	test_on_stack(fiber_stack, TEST_STACK, evicted_signals);
	CHECK(test_calls == 50);
}

#define FIBERS 16
static ucontext_t fibers[FIBERS], scheduler;
static volatile bool over;
static volatile uint64_t spins;

static void *evict_all(void *arg)
{
	while (!over)
		test_evict(arg, FIBERS * TEST_STACK);
	return NULL;
}

static void spin(int me)
{
	volatile uint64_t own[64];

	for (int i = 0; i < 64; i++)
		own[i] = (uint64_t)me * 1000 + (uint64_t)i;
	while (!over) {
		for (int i = 0; i < 64; i++)
			CHECK(own[i] == (uint64_t)me * 1000 + (uint64_t)i);
		spins++;
		CHECK(swapcontext(&fibers[me], &scheduler) == 0);
	}
}

/* Asynchronous signals while a thread changes between fibers whose stacks are being evicted. */
void test_storm_on_evicted_fibers(void)
{
	char *stacks = tap_map(FIBERS * TEST_STACK);
	pthread_t t;
	sigset_t set;

	test_handler(SIGALRM, SA_RESTART, test_note_sp);
	for (int i = 0; i < FIBERS; i++) {
		CHECK(getcontext(&fibers[i]) == 0);
		fibers[i].uc_stack.ss_sp = stacks + (size_t)i * TEST_STACK;
		fibers[i].uc_stack.ss_size = TEST_STACK;
		fibers[i].uc_link = &scheduler;
		makecontext(&fibers[i], (void (*)(void))spin, 1, i);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(pthread_create(&t, NULL, evict_all, stacks) == 0);
	CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	test_itimer(200);
	while (test_calls < 1500)
		for (int i = 0; i < FIBERS; i++)
			CHECK(swapcontext(&scheduler, &fibers[i]) == 0);
	test_itimer(0);
	over = true;
	CHECK(pthread_join(t, NULL) == 0 && spins > 0);
}

static unsigned deep(unsigned n)
{
	volatile unsigned char room[2048];

	memset((void *)room, (int)n, sizeof(room));
	if (n && deep(n - 1) != n - 1)
		return ~0u;
	return room[77] == (unsigned char)n && room[2000] == (unsigned char)n ? n : ~0u;
}

static void dive(void)
{
	while (test_calls < 1500)
		CHECK(deep(60) == 60);
}

void test_storm_with_deep_calls(void)
{
	char *stack = tap_map(FIBERS * TEST_STACK);
	pthread_t t;
	sigset_t set;

	test_handler(SIGALRM, 0, test_note_sp);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(pthread_create(&t, NULL, evict_all, stack) == 0);
	CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	test_itimer(200);
	test_on_stack(stack, TEST_STACK, dive);
	test_itimer(0);
	over = true;
	CHECK(pthread_join(t, NULL) == 0);
}

static void evict_own_frame(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)signo;
	test_evict(fiber_stack, TEST_STACK);
	CHECK(si->si_code == SI_TKILL && uc->uc_mcontext.gregs[REG_RSP] != 0);
	test_evict(fiber_stack, TEST_STACK);
	test_calls++;
}

static void send_some(void)
{
	for (int i = 0; i < 20; i++)
		CHECK(raise(SIGUSR1) == 0);
}

/* rt_sigreturn must find the frame. */
void test_handler_outlives_its_frame(void)
{
	fiber_stack = tap_map(MIB);
	test_handler(SIGUSR1, 0, evict_own_frame);
	test_on_stack(fiber_stack, TEST_STACK, send_some);
	CHECK(test_calls == 20);
}

/* ---- alternate stacks ---------------------------------------------------------------------- */

static char alt[65536];

static void look_at_altstack(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	stack_t ss, other = { .ss_sp = alt, .ss_size = 16384 };

	(void)signo;
	(void)si;
	CHECK(sigaltstack(NULL, &ss) == 0 && ss.ss_flags == SS_ONSTACK && ss.ss_sp == alt);
	CHECK(sigaltstack(&other, NULL) == -1 && errno == EPERM);
	CHECK(uc->uc_stack.ss_sp == alt && uc->uc_stack.ss_size == 32768);
	CHECK(test_on(test_sp(), alt, 32768));
	test_calls++;
}

static void *fresh_thread(void *arg)
{
	stack_t ss;

	CHECK(sigaltstack(NULL, &ss) == 0 && ss.ss_flags == SS_DISABLE);
	return arg;
}

void test_altstack_reads_back(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = 32768 }, old;
	pthread_t t;

	CHECK(sigaltstack(NULL, &old) == 0 && old.ss_flags == SS_DISABLE);
	CHECK(sigaltstack(&ss, &old) == 0 && old.ss_flags == SS_DISABLE && old.ss_size == 0);
	CHECK(sigaltstack(NULL, &old) == 0 && old.ss_sp == alt && old.ss_size == 32768);
	CHECK(old.ss_flags == 0);
	test_handler(SIGUSR1, SA_ONSTACK, look_at_altstack);
	CHECK(raise(SIGUSR1) == 0 && test_calls == 1);
	ss.ss_size = 2047;
	CHECK(sigaltstack(&ss, NULL) == -1 && errno == ENOMEM);
	ss.ss_flags = 4;
	CHECK(sigaltstack(&ss, NULL) == -1 && errno == EINVAL);
	CHECK(sigaltstack((void *)~0xffful, NULL) == -1 && errno == EFAULT);
	CHECK(pthread_create(&t, NULL, fresh_thread, NULL) == 0 && pthread_join(t, NULL) == 0);
	ss.ss_flags = SS_DISABLE;
	CHECK(sigaltstack(&ss, NULL) == 0 && sigaltstack(NULL, &old) == 0);
	CHECK(old.ss_flags == SS_DISABLE);
}

static char *managed;
static size_t small = 8192;

static void fault_inside(int signo, siginfo_t *si, void *uc)
{
	(void)si;
	(void)uc;
	for (size_t i = 0; i < 64; i++)
		managed[i * PAGE]++;
	test_evict(managed, MIB);
	if (signo == SIGUSR1)
		CHECK(raise(SIGUSR2) == 0);
	managed[3 * PAGE]++;
	CHECK(test_on(test_sp(), alt + 32768, small));
	test_calls++;
}

/* Nested handlers with faults in them on 8 KiB: what lies below stays as it was. */
void test_altstack_small_and_nested(void)
{
	stack_t ss = { .ss_sp = alt + 32768 };

	if (getauxval(AT_MINSIGSTKSZ) > 2048)
		small = 16384; /* two frames with AVX-512 or AMX state leave nothing of 8 KiB */
	ss.ss_size = small;
	memset(alt, 0x5a, sizeof(alt));
	managed = tap_map(MIB);
	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, SA_ONSTACK, fault_inside);
	test_handler(SIGUSR2, SA_ONSTACK, fault_inside);
	for (int i = 0; i < 20; i++)
		CHECK(raise(SIGUSR1) == 0);
	CHECK(test_calls == 40);
	for (size_t i = 0; i < 32768; i++)
		CHECK(alt[i] == 0x5a);
	for (size_t i = 32768 + small; i < sizeof(alt); i++)
		CHECK(alt[i] == 0x5a);
}

static void nest_without_end(int signo, siginfo_t *si, void *uc)
{
	(void)si;
	(void)uc;
	raise(signo);
}

static void overflow_altstack(void)
{
	stack_t ss = { .ss_sp = alt + 32768, .ss_size = 16384 };

	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, SA_ONSTACK | SA_NODEFER, nest_without_end);
	raise(SIGUSR1);
}

void test_altstack_overflow_kills(void)
{
	CHECK(test_child(overflow_altstack) == SIGSEGV);
}

static ucontext_t in_handler, outside;

static void other_work(void)
{
	CHECK(raise(SIGUSR2) == 0);
	CHECK(swapcontext(&outside, &in_handler) == 0);
}

static void disarmed(int signo, siginfo_t *si, void *uc)
{
	static char other[65536];
	stack_t ss;

	(void)si;
	(void)uc;
	CHECK(sigaltstack(NULL, &ss) == 0 && ss.ss_flags == SS_DISABLE);
	CHECK(test_on(test_sp(), alt, 32768) == (signo == SIGUSR1));
	test_calls++;
	if (signo == SIGUSR2)
		return;
	CHECK(getcontext(&outside) == 0);
	outside.uc_stack.ss_sp = other;
	outside.uc_stack.ss_size = sizeof(other);
	makecontext(&outside, other_work, 0);
	CHECK(swapcontext(&in_handler, &outside) == 0);
}

void test_altstack_autodisarm(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = 32768, .ss_flags = (int)(1u << 31) }, old;

	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, SA_ONSTACK, disarmed);
	test_handler(SIGUSR2, SA_ONSTACK, disarmed);
	CHECK(raise(SIGUSR1) == 0 && test_calls == 2);
	CHECK(sigaltstack(NULL, &old) == 0 && old.ss_sp == alt && old.ss_flags == ss.ss_flags);
}

static void note_and_evict(int signo, siginfo_t *si, void *uc)
{
	test_note_sp(signo, si, uc);
	test_evict(managed, MIB);
}

void test_altstack_of_its_own_managed(void)
{
	stack_t ss = { .ss_size = 65536 };

	managed = tap_map(MIB);
	ss.ss_sp = managed + 65536;
	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, SA_ONSTACK, note_and_evict);
	for (int i = 0; i < 30; i++) {
		CHECK(raise(SIGUSR1) == 0 && test_on(test_handler_sp, managed + 65536, 65536));
		managed[9 * PAGE]++;
	}
	CHECK(test_calls == 30 && managed[9 * PAGE] == 30);
}

void test_no_onstack_runs_where_it_is(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	uintptr_t here = test_sp();

	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, 0, test_note_sp);
	CHECK(raise(SIGUSR1) == 0 && test_handler_sp < here && here - test_handler_sp < 65536);
	test_handler(SIGUSR1, SA_ONSTACK, test_note_sp);
	CHECK(raise(SIGUSR1) == 0 && test_on(test_handler_sp, alt, sizeof(alt)));
}

/* ---- stacks that end ------------------------------------------------------------------------------ */

static sigjmp_buf back;

static void jump_back(int signo, siginfo_t *si, void *uc)
{
	(void)uc;
	CHECK(signo == SIGSEGV && si->si_code > 0 && test_on(test_sp(), alt, sizeof(alt)));
	siglongjmp(back, 1);
}

static unsigned endless(volatile unsigned *n)
{
	volatile unsigned m = *n + 1;

	return *n < 1u << 31 ? endless(&m) + *n : 0;
}

static void overflow_fiber(void)
{
	volatile unsigned zero = 0;

	if (sigsetjmp(back, 1) == 0)
		endless(&zero);
	else
		test_calls++;
}

void test_stack_overflow_is_caught(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };

	fiber_stack = tap_map(MIB);
	CHECK(mprotect(fiber_stack, PAGE, PROT_NONE) == 0);
	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGSEGV, SA_ONSTACK, jump_back);
	for (int i = 0; i < 3; i++)
		test_on_stack(fiber_stack, TEST_STACK, overflow_fiber);
	CHECK(test_calls == 3);
}

static void overflow_without_altstack(void)
{
	fiber_stack = tap_map(MIB);
	CHECK(mprotect(fiber_stack, PAGE, PROT_NONE) == 0);
	test_handler(SIGSEGV, 0, jump_back);
	test_on_stack(fiber_stack, TEST_STACK, overflow_fiber);
}

void test_stack_overflow_kills(void)
{
	CHECK(test_child(overflow_without_altstack) == SIGSEGV);
}

static volatile int segv_code = -1;

static void note_segv(int signo, siginfo_t *si, void *uc)
{
	(void)uc;
	CHECK(signo == SIGSEGV && test_on(test_sp(), alt, sizeof(alt)));
	segv_code = si->si_code;
	test_itimer(0);
	siglongjmp(back, 1);
}

/* The frame of a signal cannot be written: SIGSEGV comes in its place. */
void test_frame_on_no_stack(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	char *none = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGSEGV, SA_ONSTACK, note_segv);
	test_handler(SIGALRM, 0, test_note_sp);
	test_itimer(1000);
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("mov %0, %%rsp\n 1: pause\n jmp 1b" : : "r"(none + MIB / 2) : "memory");
	test_itimer(0);
	CHECK(segv_code == SI_KERNEL);
}
