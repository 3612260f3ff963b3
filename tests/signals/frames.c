/* SPDX-License-Identifier: MIT */
/* Where handlers run, what is in their frames, and how they are left. */
#include "signals.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define STACK (256 * 1024ul)

static volatile int calls, depth_max, depth;
static volatile uintptr_t handler_sp;
static char *fiber_stack;

static uintptr_t sp_now(void)
{
	uintptr_t sp;

	__asm__ volatile("mov %%rsp, %0" : "=r"(sp));
	return sp;
}

static void note_sp(int signo, siginfo_t *si, void *uc)
{
	volatile char room[3000];

	(void)signo;
	(void)si;
	(void)uc;
	memset((char *)room, 1, sizeof(room));
	handler_sp = sp_now();
	calls++;
}

static bool on(uintptr_t sp, const void *stack, size_t bytes)
{
	return sp - (uintptr_t)stack < bytes;
}

static void itimer(long us)
{
	struct itimerval it = { { 0, us }, { 0, us } };

	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
}

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
		test_evict(fiber_stack, STACK);
		CHECK(raw_tgkill(SIGUSR1) == 0 && calls == i + 1);
		CHECK(on(handler_sp, fiber_stack, STACK));
	}
}

void test_frame_on_an_evicted_stack(void)
{
	fiber_stack = test_map(2 * MIB) + MIB;
	test_handler(SIGUSR1, 0, note_sp);
	test_on_stack(fiber_stack, STACK, evicted_signals);
	CHECK(calls == 50);
}

#define FIBERS 16
static ucontext_t fibers[FIBERS], scheduler;
static volatile bool over;
static volatile uint64_t spins;

static void *evict_all(void *arg)
{
	while (!over)
		test_evict(arg, FIBERS * STACK);
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
	char *stacks = test_map(FIBERS * STACK);
	pthread_t t;
	sigset_t set;

	test_handler(SIGALRM, SA_RESTART, note_sp);
	for (int i = 0; i < FIBERS; i++) {
		CHECK(getcontext(&fibers[i]) == 0);
		fibers[i].uc_stack.ss_sp = stacks + (size_t)i * STACK;
		fibers[i].uc_stack.ss_size = STACK;
		fibers[i].uc_link = &scheduler;
		makecontext(&fibers[i], (void (*)(void))spin, 1, i);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(pthread_create(&t, NULL, evict_all, stacks) == 0);
	CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	itimer(200);
	while (calls < 1500)
		for (int i = 0; i < FIBERS; i++)
			CHECK(swapcontext(&scheduler, &fibers[i]) == 0);
	itimer(0);
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
	while (calls < 1500)
		CHECK(deep(60) == 60);
}

void test_storm_with_deep_calls(void)
{
	char *stack = test_map(FIBERS * STACK);
	pthread_t t;
	sigset_t set;

	test_handler(SIGALRM, 0, note_sp);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(pthread_create(&t, NULL, evict_all, stack) == 0);
	CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	itimer(200);
	test_on_stack(stack, STACK, dive);
	itimer(0);
	over = true;
	CHECK(pthread_join(t, NULL) == 0);
}

static void evict_own_frame(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)signo;
	test_evict(fiber_stack, STACK);
	CHECK(si->si_code == SI_TKILL && uc->uc_mcontext.gregs[REG_RSP] != 0);
	test_evict(fiber_stack, STACK);
	calls++;
}

static void send_some(void)
{
	for (int i = 0; i < 20; i++)
		CHECK(raise(SIGUSR1) == 0);
}

/* rt_sigreturn must find the frame. */
void test_handler_outlives_its_frame(void)
{
	fiber_stack = test_map(MIB);
	test_handler(SIGUSR1, 0, evict_own_frame);
	test_on_stack(fiber_stack, STACK, send_some);
	CHECK(calls == 20);
}

/* ---- what is in the frame ---------------------------------------------------------------- */

static uint64_t bit(int signo)
{
	return 1ull << (signo - 1);
}

static uint64_t mask_now(void)
{
	uint64_t m = 0;

	CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &m, 8) == 0);
	return m;
}

static uint64_t saved_mask, inside_mask;

static void look_at_masks(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)signo;
	(void)si;
	memcpy(&saved_mask, &uc->uc_sigmask, 8);
	inside_mask = mask_now();
	calls++;
}

/* With handler threads it is the kernel that writes the frame, and in the kernel SIGSYS stays open
   (docs/limits.md). */
static uint64_t as_framed(uint64_t mask)
{
	const char *delivery = getenv("EXTMEM_DELIVERY");

	return delivery && !strncmp(delivery, "thread", 6) ? mask & ~bit(SIGSYS) : mask;
}

void test_frame_masks(void)
{
	struct sigaction sa = { .sa_sigaction = look_at_masks, .sa_flags = SA_SIGINFO };
	static const int combos[][2] = { { 0, 0 }, { SIGBUS, 0 }, { SIGSTKFLT, 0 },
					 { SIGBUS, SIGSTKFLT }, { SIGSYS, SIGHUP } };

	for (unsigned i = 0; i < 5; i++) {
		uint64_t before = (combos[i][0] ? bit(combos[i][0]) : 0) |
				  (combos[i][1] ? bit(combos[i][1]) : 0);

		sigemptyset(&sa.sa_mask);
		sigaddset(&sa.sa_mask, i & 1 ? SIGBUS : SIGQUIT);
		CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
		CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8) == 0);
		CHECK(raise(SIGUSR1) == 0);
		CHECK(saved_mask == as_framed(before));
		CHECK(inside_mask == (before | bit(SIGUSR1) | bit(i & 1 ? SIGBUS : SIGQUIT)));
		CHECK(mask_now() == before);
	}
	CHECK(calls == 5);
}

static void block_sigbus(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)si;
	if (signo == SIGUSR1)
		sigaddset(&uc->uc_sigmask, SIGBUS);
	else
		sigemptyset(&uc->uc_sigmask);
	calls++;
}

void test_handler_changes_the_mask(void)
{
	volatile char *p = test_map(MIB);

	p[0] = 5;
	test_handler(SIGUSR1, 0, block_sigbus);
	test_handler(SIGUSR2, 0, block_sigbus);
	test_handler(SIGBUS, 0, note_sp);
	CHECK(raise(SIGUSR1) == 0 && mask_now() == bit(SIGBUS));
	test_evict((void *)p, MIB);
	CHECK(p[0] == 5); /* the engine's faults do not care */
	CHECK(raise(SIGBUS) == 0 && calls == 1);
	CHECK(raise(SIGUSR2) == 0 && mask_now() == 0 && calls == 3);
}

static void skip_trap(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	CHECK(signo == SIGILL && si->si_code > 0);
	CHECK(si->si_addr == (void *)uc->uc_mcontext.gregs[REG_RIP]);
	uc->uc_mcontext.gregs[REG_RIP] += 2;
	uc->uc_mcontext.gregs[REG_RAX] = 4711;
	calls++;
}

void test_handler_changes_registers(void)
{
	long rax = 1;

	test_handler(SIGILL, 0, skip_trap);
	__asm__ volatile("ud2" : "+a"(rax) : : "memory");
	CHECK(rax == 4711 && calls == 1);
}

static void spoil_vectors(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)si;
	(void)uc;
	__asm__ volatile("pxor %%xmm0, %%xmm0\n pxor %%xmm15, %%xmm15" : : : "xmm0", "xmm15");
	calls++;
}

static void vectors(void)
{
	for (int i = 0; i < 100; i++) {
		uint64_t a = 0x1111222233334444ull + (uint64_t)i, b = ~a, c = 0, d = 0;
		long ret;

		test_evict(fiber_stack, STACK);
		__asm__ volatile("movq %5, %%xmm0\n movq %6, %%xmm15\n syscall\n"
				 "movq %%xmm0, %1\n movq %%xmm15, %2"
				 : "=a"(ret), "=&r"(c), "=&r"(d)
				 : "0"(SYS_tgkill), "D"(getpid()), "r"(a), "r"(b),
				   "S"(syscall(SYS_gettid)), "d"(SIGUSR1)
				 : "rcx", "r11", "memory", "xmm0", "xmm15");
		CHECK(ret == 0 && c == a && d == b);
	}
}

void test_vector_registers_survive(void)
{
	fiber_stack = test_map(MIB);
	test_handler(SIGUSR1, 0, spoil_vectors);
	test_on_stack(fiber_stack, STACK, vectors);
	CHECK(calls == 100);
}

static uint32_t mxcsr_inside;

static void look_at_fpu(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)signo;
	(void)si;
	__asm__ volatile("stmxcsr %0" : "=m"(mxcsr_inside));
	CHECK(uc->uc_mcontext.fpregs && uc->uc_mcontext.fpregs->mxcsr == 0x5f80);
	uc->uc_mcontext.fpregs->mxcsr = 0x3f80;
}

void test_handler_has_fresh_fpu(void)
{
	uint32_t odd = 0x5f80, after;

	test_handler(SIGUSR1, 0, look_at_fpu);
	__asm__ volatile("ldmxcsr %0" : : "m"(odd));
	CHECK(raise(SIGUSR1) == 0);
	__asm__ volatile("stmxcsr %0" : "=m"(after));
	CHECK(mxcsr_inside == 0x1f80 && after == 0x3f80);
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
	CHECK(on(sp_now(), alt, 32768));
	calls++;
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
	CHECK(raise(SIGUSR1) == 0 && calls == 1);
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
	CHECK(on(sp_now(), alt + 32768, small));
	calls++;
}

/* Nested handlers with faults in them on 8 KiB: what lies below stays as it was. */
void test_altstack_small_and_nested(void)
{
	stack_t ss = { .ss_sp = alt + 32768 };

	if (getauxval(AT_MINSIGSTKSZ) > 2048)
		small = 16384; /* two frames with AVX-512 or AMX state leave nothing of 8 KiB */
	ss.ss_size = small;
	memset(alt, 0x5a, sizeof(alt));
	managed = test_map(MIB);
	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, SA_ONSTACK, fault_inside);
	test_handler(SIGUSR2, SA_ONSTACK, fault_inside);
	for (int i = 0; i < 20; i++)
		CHECK(raise(SIGUSR1) == 0);
	CHECK(calls == 40);
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
	CHECK(on(sp_now(), alt, 32768) == (signo == SIGUSR1));
	calls++;
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
	CHECK(raise(SIGUSR1) == 0 && calls == 2);
	CHECK(sigaltstack(NULL, &old) == 0 && old.ss_sp == alt && old.ss_flags == ss.ss_flags);
}

static void note_and_evict(int signo, siginfo_t *si, void *uc)
{
	note_sp(signo, si, uc);
	test_evict(managed, MIB);
}

void test_altstack_of_its_own_managed(void)
{
	stack_t ss = { .ss_size = 65536 };

	managed = test_map(MIB);
	ss.ss_sp = managed + 65536;
	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, SA_ONSTACK, note_and_evict);
	for (int i = 0; i < 30; i++) {
		CHECK(raise(SIGUSR1) == 0 && on(handler_sp, managed + 65536, 65536));
		managed[9 * PAGE]++;
	}
	CHECK(calls == 30 && managed[9 * PAGE] == 30);
}

void test_no_onstack_runs_where_it_is(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	uintptr_t here = sp_now();

	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGUSR1, 0, note_sp);
	CHECK(raise(SIGUSR1) == 0 && handler_sp < here && here - handler_sp < 65536);
	test_handler(SIGUSR1, SA_ONSTACK, note_sp);
	CHECK(raise(SIGUSR1) == 0 && on(handler_sp, alt, sizeof(alt)));
}

/* ---- flags -------------------------------------------------------------------------------------- */

static void twice(void)
{
	struct sigaction old;

	test_handler(SIGUSR1, (int)SA_RESETHAND, note_sp);
	CHECK(raise(SIGUSR1) == 0 && calls == 1);
	CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK((unsigned)old.sa_flags & SA_RESETHAND);
	raise(SIGUSR1);
}

void test_resethand_once(void)
{
	CHECK(test_child(twice) == SIGUSR1);
}

static void nest(int signo, siginfo_t *si, void *uc)
{
	(void)si;
	(void)uc;
	if (++depth > depth_max)
		depth_max = depth;
	if (depth < 5 && ++calls < 50)
		CHECK(raise(signo) == 0);
	depth--;
}

void test_nodefer_nests(void)
{
	test_handler(SIGUSR1, SA_NODEFER, nest);
	CHECK(raise(SIGUSR1) == 0 && depth_max == 5);
	depth_max = 0;
	test_handler(SIGUSR1, 0, nest);
	calls = 40;
	CHECK(raise(SIGUSR1) == 0 && depth_max == 1);
}

struct kernel_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static void no_restorer(void)
{
	struct kernel_action act = { (void *)note_sp, SA_SIGINFO, NULL, 0 };

	CHECK(syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, 8) == 0);
	raise(SIGUSR1);
}

void test_without_restorer_kills(void)
{
	CHECK(test_child(no_restorer) == SIGSEGV);
}

static volatile int restored __attribute__((used));

void own_restorer(void);
__asm__(".text\n"
	"own_restorer:\n"
	"incl restored(%rip)\n"
	"mov $15, %eax\n"
	"syscall\n"
	"hlt\n");

void test_restorer_of_its_own(void)
{
	struct kernel_action act = { (void *)note_sp, SA_SIGINFO | 0x04000000, (void *)own_restorer, 0 };
	volatile char *p = test_map(MIB);

	CHECK(syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, 8) == 0);
	for (int i = 0; i < 10; i++) {
		uint64_t mask = i & 1 ? bit(SIGBUS) : 0;

		CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8) == 0);
		CHECK(raise(SIGUSR1) == 0 && restored == i + 1 && mask_now() == mask);
		p[0]++;
		test_evict((void *)p, MIB);
	}
	CHECK(p[0] == 10);
}

/* ---- stacks that end ------------------------------------------------------------------------------ */

static sigjmp_buf back;

static void jump_back(int signo, siginfo_t *si, void *uc)
{
	(void)uc;
	CHECK(signo == SIGSEGV && si->si_code > 0 && on(sp_now(), alt, sizeof(alt)));
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
		calls++;
}

void test_stack_overflow_is_caught(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };

	fiber_stack = test_map(MIB);
	CHECK(mprotect(fiber_stack, PAGE, PROT_NONE) == 0);
	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGSEGV, SA_ONSTACK, jump_back);
	for (int i = 0; i < 3; i++)
		test_on_stack(fiber_stack, STACK, overflow_fiber);
	CHECK(calls == 3);
}

static void overflow_without_altstack(void)
{
	fiber_stack = test_map(MIB);
	CHECK(mprotect(fiber_stack, PAGE, PROT_NONE) == 0);
	test_handler(SIGSEGV, 0, jump_back);
	test_on_stack(fiber_stack, STACK, overflow_fiber);
}

void test_stack_overflow_kills(void)
{
	CHECK(test_child(overflow_without_altstack) == SIGSEGV);
}

static volatile int segv_code = -1;

static void note_segv(int signo, siginfo_t *si, void *uc)
{
	(void)uc;
	CHECK(signo == SIGSEGV && on(sp_now(), alt, sizeof(alt)));
	segv_code = si->si_code;
	itimer(0);
	siglongjmp(back, 1);
}

/* The frame of a signal cannot be written: SIGSEGV comes in its place. */
void test_frame_on_no_stack(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	char *none = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(sigaltstack(&ss, NULL) == 0);
	test_handler(SIGSEGV, SA_ONSTACK, note_segv);
	test_handler(SIGALRM, 0, note_sp);
	itimer(1000);
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("mov %0, %%rsp\n 1: pause\n jmp 1b" : : "r"(none + MIB / 2) : "memory");
	itimer(0);
	CHECK(segv_code == SI_KERNEL);
}

/* ---- ways out ------------------------------------------------------------------------------------- */

static volatile sig_atomic_t armed;

static void jump_if_armed(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)si;
	(void)uc;
	if (armed) {
		armed = 0;
		siglongjmp(back, 1);
	}
}

void test_longjmp_out_of_everything(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = 32768 };
	char *data = test_map(4 * MIB);
	volatile int jumps = 0;

	CHECK(sigaltstack(&ss, NULL) == 0);
	for (int turn = 0; turn < 2; turn++) {
		test_handler(SIGALRM, turn ? SA_ONSTACK : 0, jump_if_armed);
		itimer(300);
		for (volatile unsigned i = 0; i < 4000; i++) {
			if (sigsetjmp(back, 1)) {
				jumps++;
				continue;
			}
			armed = 1;
			data[(i * 7 % 1024) * PAGE] = 1;
			if (i % 16 == 0)
				test_evict(data, MIB);
			armed = 0;
		}
		itimer(0);
	}
	CHECK(jumps > 0 && mask_now() == 0);
}

static void *volatile trace[64];
static volatile int traced;

static void take_trace(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)si;
	(void)uc;
	traced = backtrace((void **)trace, 64);
}

static __attribute__((noinline)) void innermost(void)
{
	CHECK(raise(SIGUSR1) == 0);
	__asm__ volatile("" : : : "memory");
}

static __attribute__((noinline)) void outermost(void)
{
	innermost();
	__asm__ volatile("" : : : "memory");
}

static bool traced_in(void (*fn)(void))
{
	for (int i = 0; i < traced; i++)
		if ((uintptr_t)trace[i] - (uintptr_t)fn < 64)
			return true;
	return false;
}

void test_backtrace_through_a_frame(void)
{
	test_handler(SIGUSR1, 0, take_trace);
	outermost();
	CHECK(traced > 3 && traced_in(innermost) && traced_in(outermost));
}

static volatile bool cleaned;

static void clean(void *arg)
{
	*(volatile bool *)arg = true;
}

static void *busy(void *arg)
{
	volatile char *p = test_map(MIB);

	pthread_cleanup_push(clean, (void *)&cleaned);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	*(volatile bool *)arg = true;
	for (size_t i = 0;; i++)
		p[i % 256 * PAGE]++;
	pthread_cleanup_pop(0);
	return NULL;
}

void test_cancel_in_managed_code(void)
{
	for (int i = 0; i < 10; i++) {
		volatile bool ready = false;
		pthread_t t;
		void *ret;

		cleaned = false;
		CHECK(pthread_create(&t, NULL, busy, (void *)&ready) == 0);
		while (!ready)
			sched_yield();
		usleep(1000);
		CHECK(pthread_cancel(t) == 0 && pthread_join(t, &ret) == 0);
		CHECK(ret == PTHREAD_CANCELED && cleaned);
	}
}
