/* SPDX-License-Identifier: MIT */
/* The break, /proc/self/maps, mincore, mlock, msync, stacks in managed memory, another userfaultfd. */
#define _GNU_SOURCE
#include "mm.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)

/* sbrk in whole pages above whatever malloc has; nothing allocates meanwhile. */
static void break_grows_and_shrinks(void)
{
	char *top = sbrk(0), *p;

	CHECK(top != (void *)-1);
	p = (char *)(((uintptr_t)top + PG - 1) & ~(PG - 1));
	CHECK(brk(p + BIG) == 0 && sbrk(0) == p + BIG);
	CHECK(mm_zero(p, BIG));
	mm_fill(p, BIG, 1);
	mm_evict(p, BIG);
	CHECK(mm_holds(p, BIG, 1));
	CHECK(brk(p + MIB) == 0 && sbrk(0) == p + MIB);
	CHECK(mm_segv(p + MIB, false, SEGV_MAPERR));
	CHECK(mm_holds(p, MIB, 1));
	CHECK(brk(p + BIG) == 0);
	CHECK(mm_zero(p + MIB, BIG - MIB));
	CHECK(mm_holds(p, MIB, 1));
	CHECK(brk(p + BIG + 5) == 0 && sbrk(0) == p + BIG + 5);
	p[BIG + 4] = 1;
	CHECK(p[BIG + PG - 1] == 0);
	CHECK(brk(top) == 0 && sbrk(0) == top);
}

static void break_bad_arguments(void)
{
	char *top = sbrk(0);

	/* The kernel keeps the break, which glibc takes for success. */
	CHECK(brk((void *)4096) == 0 && sbrk(0) == top);
	CHECK_ERRNO(brk((void *)(1ul << 47)), -1, ENOMEM);
	CHECK(sbrk(0) == top);
	CHECK((char *)syscall(SYS_brk, 0) == top);
}

static void break_split_by_munmap(void)
{
	char *top = sbrk(0), *p = (char *)(((uintptr_t)top + PG - 1) & ~(PG - 1));

	CHECK(brk(p + BIG) == 0);
	mm_fill(p, BIG, 2);
	CHECK(madvise(p + MIB, MIB, MADV_DONTNEED) == 0);
	CHECK(mm_zero(p + MIB, MIB) && mm_holds(p, MIB, 2));
	CHECK(munmap(p + MIB, PG) == 0);
	CHECK(mm_segv(p + MIB, true, SEGV_MAPERR));
	CHECK(mm_holds(p, MIB, 2));
	CHECK(brk(top) == 0);
}

static void maps_show_ranges(void)
{
	char *p = mm_map(BIG);
	size_t i;

	mm_fill(p, BIG, 3);
	mm_evict(p, BIG);
	for (i = 0; i < BIG; i += MIB / 2)
		CHECK(strcmp(mm_perms(p + i), "rw-p") == 0);
	CHECK(mprotect(p + MIB, MIB, PROT_NONE) == 0);
	CHECK(mprotect(p + 2 * MIB, MIB, PROT_READ) == 0);
	CHECK(strcmp(mm_perms(p + MIB), "---p") == 0);
	CHECK(strcmp(mm_perms(p + 2 * MIB + PG), "r--p") == 0);
	CHECK(strcmp(mm_perms(p + 3 * MIB), "rw-p") == 0);
	CHECK(munmap(p, MIB) == 0);
	CHECK(strcmp(mm_perms(p + MIB - PG), "") == 0);
	munmap(p, BIG);
}

static void mincore_is_plausible(void)
{
	static unsigned char vec[BIG / PG];
	char *p = mm_map(BIG);
	size_t i;

	mm_fill(p, BIG, 4);
	memset(vec, 0xff, sizeof(vec));
	CHECK(mincore(p, BIG, vec) == 0);
	for (i = 0; i < BIG / PG; i++)
		CHECK((vec[i] & 0xfe) == 0);
	CHECK_ERRNO(mincore(p + 1, PG, vec), -1, EINVAL);
	CHECK(munmap(p + MIB, PG) == 0);
	CHECK_ERRNO(mincore(p, BIG, vec), -1, ENOMEM);
	CHECK(mm_holds(p, MIB, 4));
	munmap(p, BIG);
}

static void mlock_keeps_resident(void)
{
	static unsigned char vec[MIB / PG];
	char *p = mm_map(BIG);
	size_t i;

	mm_fill(p, BIG, 5);
	mm_evict(p, BIG);
	if (mlock(p, MIB / 2) != 0)
		SKIP("RLIMIT_MEMLOCK is too small");
	mm_evict(p + MIB, MIB);
	CHECK(mincore(p, MIB / 2, vec) == 0);
	for (i = 0; i < MIB / 2 / PG; i++)
		CHECK(vec[i] & 1);
	CHECK(munlock(p, MIB / 2) == 0);
	mm_evict(p, BIG);
	CHECK(mm_holds(p, BIG, 5));
	CHECK(munmap(p + MIB, PG) == 0);
	CHECK_ERRNO(mlock(p + MIB, PG), -1, ENOMEM);
	munmap(p, BIG);
}

static void msync_of_anonymous(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 6);
	CHECK(msync(p, BIG, MS_SYNC) == 0);
	CHECK(msync(p, BIG, MS_ASYNC) == 0);
	CHECK_ERRNO(msync(p, PG, MS_ASYNC | MS_SYNC), -1, EINVAL);
	CHECK_ERRNO(msync(p + 1, PG, MS_SYNC), -1, EINVAL);
	CHECK(mm_holds(p, BIG, 6));
	munmap(p, BIG);
}

static char *stack_target;
static volatile int stack_result;

static int deep(unsigned n)
{
	volatile char frame[1024];
	int r;

	memset((char *)frame, (int)n, sizeof(frame));
	if (n % 16 == 0)
		mm_evict(stack_target, BIG);
	r = n ? deep(n - 1) : mm_holds(stack_target, BIG, 7);
	return frame[77] == (char)n ? r : 0;
}

static void *stack_thread(void *arg)
{
	(void)arg;
	mm_fill(stack_target, BIG, 7);
	stack_result = deep(128);
	return NULL;
}

/* A program may give a thread any memory as its stack. */
static void stack_of_thread_is_managed(void)
{
	char *stack = mm_map(BIG);
	pthread_attr_t attr;
	pthread_t tid;

	stack_target = mm_map(BIG);
	stack_result = 0;
	pthread_attr_init(&attr);
	CHECK(pthread_attr_setstack(&attr, stack, BIG) == 0);
	CHECK(pthread_create(&tid, &attr, stack_thread, NULL) == 0);
	CHECK(pthread_join(tid, NULL) == 0);
	CHECK(stack_result == 1);
	munmap(stack, BIG);
	munmap(stack_target, BIG);
}

static ucontext_t fiber_main, fiber[3];

static void fiber_body(void)
{
	unsigned i;

	for (i = 0; i < 6; i++) {
		if (!deep(20))
			stack_result = 0;
		swapcontext(&fiber[0], &fiber_main);
	}
}

/* Fibers: evicted while they wait, continued on the cold stack. */
static void stack_of_fiber_is_managed(void)
{
	char *stack = mm_map(2 * MIB);
	unsigned i;

	stack_target = mm_map(BIG);
	mm_fill(stack_target, BIG, 7);
	stack_result = 1;
	getcontext(&fiber[0]);
	fiber[0].uc_stack.ss_sp = stack;
	fiber[0].uc_stack.ss_size = 2 * MIB;
	fiber[0].uc_link = &fiber_main;
	makecontext(&fiber[0], fiber_body, 0);
	for (i = 0; i < 6; i++) {
		swapcontext(&fiber_main, &fiber[0]);
		mm_evict(stack, 2 * MIB);
	}
	CHECK(stack_result == 1);
	munmap(stack, 2 * MIB);
	munmap(stack_target, BIG);
}

static volatile int alt_hits;

static void on_alt(int sig)
{
	volatile char frame[2048];

	(void)sig;
	memset((char *)frame, 1, sizeof(frame));
	alt_hits += frame[100];
}

/* The kernel itself writes to the alternate stack: it must not be missing then. */
static void stack_of_signals_is_managed(void)
{
	struct sigaction sa = { .sa_handler = on_alt, .sa_flags = SA_ONSTACK }, old;
	char *stack = mm_map(BIG);
	stack_t ss = { .ss_sp = stack + MIB, .ss_size = 65536 }, was;
	unsigned i;

	mm_fill(stack, BIG, 8);
	CHECK(sigaltstack(&ss, &was) == 0);
	CHECK(sigaction(SIGUSR1, &sa, &old) == 0);
	for (i = 0; i < 5; i++) {
		mm_evict(stack, BIG);
		CHECK(raise(SIGUSR1) == 0);
	}
	CHECK(alt_hits == 5);
	CHECK(sigaltstack(&was, &ss) == 0 && ss.ss_sp == stack + MIB && ss.ss_size == 65536);
	sigaction(SIGUSR1, &old, NULL);
	CHECK(mm_holds(stack, MIB, 8));
	munmap(stack, BIG);
}

/* A range has one userfaultfd at most; the program's comes first. */
static void userfaultfd_of_the_program(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_SIGBUS };
	char *p = mm_map(BIG);
	struct uffdio_register reg = { .range = { (uintptr_t)p, BIG },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zero = { .range = { (uintptr_t)p + 2 * MIB, PG } };
	siginfo_t info;

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		SKIP("no userfaultfd for user faults");
	mm_fill(p, MIB / 2, 5); /* what the smallest budget can hold */
	mm_evict(p, MIB);
	CHECK(ioctl(fd, UFFDIO_REGISTER, &reg) == 0);
	CHECK(mm_holds(p, MIB / 2, 5));
	CHECK(mm_probe(p + 2 * MIB, false, &info) == SIGBUS);
	CHECK(ioctl(fd, UFFDIO_ZEROPAGE, &zero) == 0);
	CHECK(mm_zero(p + 2 * MIB, PG));
	close(fd);
	munmap(p, BIG);
}

const struct mm_test mm_misc_tests[] = {
	MM_TEST(break_grows_and_shrinks), MM_TEST(break_bad_arguments),
	MM_TEST(break_split_by_munmap), MM_TEST(maps_show_ranges), MM_TEST(mincore_is_plausible),
	MM_TEST(mlock_keeps_resident), MM_TEST(msync_of_anonymous),
	MM_TEST(stack_of_thread_is_managed), MM_TEST(stack_of_fiber_is_managed),
	MM_TEST(stack_of_signals_is_managed), MM_TEST(userfaultfd_of_the_program), { 0 }
};
