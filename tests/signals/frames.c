/* SPDX-License-Identifier: MIT */
/* What is in the frames of handlers, which flags they obey, and how they are left. */
#include "signals.h"

#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int depth_max, depth;
static char *fiber_stack;

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
	test_calls++;
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
	CHECK(test_calls == 5);
}

static void block_sigbus(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)si;
	if (signo == SIGUSR1)
		sigaddset(&uc->uc_sigmask, SIGBUS);
	else
		sigemptyset(&uc->uc_sigmask);
	test_calls++;
}

void test_handler_changes_the_mask(void)
{
	volatile char *p = tap_map(MIB);

	p[0] = 5;
	test_handler(SIGUSR1, 0, block_sigbus);
	test_handler(SIGUSR2, 0, block_sigbus);
	test_handler(SIGBUS, 0, test_note_sp);
	CHECK(raise(SIGUSR1) == 0 && mask_now() == bit(SIGBUS));
	test_evict((void *)p, MIB);
	CHECK(p[0] == 5); /* the engine's faults do not care */
	CHECK(raise(SIGBUS) == 0 && test_calls == 1);
	CHECK(raise(SIGUSR2) == 0 && mask_now() == 0 && test_calls == 3);
}

static void skip_trap(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	CHECK(signo == SIGILL && si->si_code > 0);
	CHECK(si->si_addr == (void *)uc->uc_mcontext.gregs[REG_RIP]);
	uc->uc_mcontext.gregs[REG_RIP] += 2;
	uc->uc_mcontext.gregs[REG_RAX] = 4711;
	test_calls++;
}

void test_handler_changes_registers(void)
{
	long rax = 1;

	test_handler(SIGILL, 0, skip_trap);
	__asm__ volatile("ud2" : "+a"(rax) : : "memory");
	CHECK(rax == 4711 && test_calls == 1);
}

static void spoil_vectors(int signo, siginfo_t *si, void *uc)
{
	(void)signo;
	(void)si;
	(void)uc;
	__asm__ volatile("pxor %%xmm0, %%xmm0\n pxor %%xmm15, %%xmm15" : : : "xmm0", "xmm15");
	test_calls++;
}

static void vectors(void)
{
	for (int i = 0; i < 100; i++) {
		uint64_t a = 0x1111222233334444ull + (uint64_t)i, b = ~a, c = 0, d = 0;
		long ret;

		test_evict(fiber_stack, TEST_STACK);
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
	fiber_stack = tap_map(MIB);
	test_handler(SIGUSR1, 0, spoil_vectors);
	test_on_stack(fiber_stack, TEST_STACK, vectors);
	CHECK(test_calls == 100);
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

/* ---- flags -------------------------------------------------------------------------------------- */

static void twice(void)
{
	struct sigaction set, old;

	test_handler(SIGUSR1, (int)SA_RESETHAND, test_note_sp);
	CHECK(sigaction(SIGUSR1, NULL, &set) == 0);
	CHECK(raise(SIGUSR1) == 0 && test_calls == 1);
	CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK(((unsigned)old.sa_flags & SA_RESETHAND) && old.sa_restorer == set.sa_restorer);
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
	if (depth < 5 && ++test_calls < 50)
		CHECK(raise(signo) == 0);
	depth--;
}

void test_nodefer_nests(void)
{
	test_handler(SIGUSR1, SA_NODEFER, nest);
	CHECK(raise(SIGUSR1) == 0 && depth_max == 5);
	depth_max = 0;
	test_handler(SIGUSR1, 0, nest);
	test_calls = 40;
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
	struct kernel_action act = { (void *)test_note_sp, SA_SIGINFO, NULL, 0 };

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
	struct kernel_action act = { (void *)test_note_sp, SA_SIGINFO | 0x04000000, (void *)own_restorer, 0 };
	volatile char *p = tap_map(MIB);

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

/* ---- ways out ------------------------------------------------------------------------------------- */

static sigjmp_buf back;
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
	static char alt[32768];
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	char *data = tap_map(4 * MIB);
	volatile int jumps = 0;

	CHECK(sigaltstack(&ss, NULL) == 0);
	for (int turn = 0; turn < 2; turn++) {
		test_handler(SIGALRM, turn ? SA_ONSTACK : 0, jump_if_armed);
		test_itimer(300);
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
		test_itimer(0);
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
	volatile char *p = tap_map(MIB);

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
