/* SPDX-License-Identifier: MIT */
/* mprotect */
#define _GNU_SOURCE
#include "mm.h"

#include <string.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)

static void protect_none(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 1);
	CHECK(mprotect(p + MIB, MIB, PROT_NONE) == 0);
	CHECK(mm_segv(p + MIB, false, SEGV_ACCERR));
	CHECK(mm_segv(p + 2 * MIB - 1, true, SEGV_ACCERR));
	CHECK(mm_holds(p, MIB, 1));
	mm_evict(p, BIG);
	CHECK(mm_segv(p + MIB + PG, false, SEGV_ACCERR));
	CHECK(mprotect(p + MIB, MIB, RW) == 0);
	CHECK(mm_holds(p, BIG, 1));
	munmap(p, BIG);
}

static void protect_read_only(void)
{
	char *p = mm_map(BIG);
	size_t i;

	mm_fill(p, BIG, 2);
	CHECK(mprotect(p, BIG, PROT_READ) == 0);
	CHECK(mm_segv(p + 17, true, SEGV_ACCERR));
	mm_evict(p, BIG);
	for (i = 0; i < BIG; i += 32 * PG)
		CHECK(mm_segv(p + i, true, SEGV_ACCERR));
	CHECK(mm_holds(p, BIG, 2));
	CHECK(mprotect(p, BIG, RW) == 0);
	mm_fill(p, BIG, 3);
	CHECK(mm_holds(p, BIG, 3));
	munmap(p, BIG);
}

static void protect_never_touched(void)
{
	char *p = mmap(NULL, BIG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	CHECK(mm_segv(p, false, SEGV_ACCERR));
	CHECK(mprotect(p, MIB, PROT_READ) == 0);
	CHECK(mm_zero(p, MIB));
	CHECK(mm_segv(p, true, SEGV_ACCERR));
	CHECK(mprotect(p, 2 * MIB, RW) == 0);
	mm_fill(p, 2 * MIB, 4);
	CHECK(mm_segv(p + 2 * MIB, true, SEGV_ACCERR));
	CHECK(mm_holds(p, 2 * MIB, 4));
	munmap(p, BIG);
}

static void protect_bad_arguments(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 5);
	CHECK_ERRNO(mprotect(p + 1, PG, RW), -1, EINVAL);
	CHECK_ERRNO(mprotect(p, PG, 0x4000), -1, EINVAL);
	CHECK_ERRNO(mprotect(p, -PG, RW), -1, ENOMEM);
	CHECK(mprotect(p, 0, PROT_NONE) == 0);
	CHECK(munmap(p + MIB, MIB) == 0);
	/* The part before the hole is changed all the same. */
	CHECK_ERRNO(mprotect(p, 2 * MIB, PROT_READ), -1, ENOMEM);
	CHECK(mm_segv(p + PG, true, SEGV_ACCERR));
	CHECK(mm_holds(p, MIB, 5));
	CHECK_ERRNO(mprotect(p + MIB, PG, PROT_READ), -1, ENOMEM);
	munmap(p, BIG);
}

static void protect_every_other_page(void)
{
	char *p = mm_map(BIG);
	size_t i;

	mm_fill(p, BIG, 6);
	for (i = 0; i < BIG; i += 2 * PG)
		CHECK(mprotect(p + i, PG, PROT_READ) == 0);
	mm_evict(p, BIG);
	for (i = 0; i < BIG; i += 2 * PG) {
		if (i % (64 * PG) == 0)
			CHECK(mm_segv(p + i, true, SEGV_ACCERR));
		CHECK(mm_probe(p + i + PG, true, NULL) == 0);
	}
	CHECK(mprotect(p, BIG, RW) == 0);
	CHECK(mm_holds(p, BIG, 6));
	munmap(p, BIG);
}

static char *barrier_base;
static volatile unsigned barrier_hits, barrier_wrong;

static void on_barrier(int sig, siginfo_t *info, void *uc)
{
	char *page = (char *)((uintptr_t)info->si_addr & ~(PG - 1));

	(void)sig;
	(void)uc;
	if (page < barrier_base || page >= barrier_base + BIG || info->si_code != SEGV_ACCERR)
		barrier_wrong++;
	barrier_hits++;
	mprotect(page, PG, RW);
}

/* The write barrier of garbage collectors: every first write is seen just once. */
static void protect_write_barrier(void)
{
	struct sigaction sa = { .sa_sigaction = on_barrier, .sa_flags = SA_SIGINFO }, old;
	char *p = mm_map(BIG);
	unsigned round;

	barrier_base = p;
	mm_fill(p, BIG, 7);
	sigaction(SIGSEGV, &sa, &old);
	for (round = 0; round < 2; round++) {
		barrier_hits = barrier_wrong = 0;
		CHECK(mprotect(p, BIG, PROT_READ) == 0);
		mm_evict(p, BIG);
		mm_fill(p, BIG, 8 + round);
		CHECK(barrier_hits == BIG / PG && barrier_wrong == 0);
		CHECK(mm_holds(p, BIG, 8 + round));
	}
	sigaction(SIGSEGV, &old, NULL);
	munmap(p, BIG);
}

static void protect_kernel_obeys(void)
{
	char *p = mm_map(BIG), text[2 * PG];
	int fds[2];

	mm_fill(p, BIG, 10);
	memset(text, 'k', sizeof(text));
	CHECK(pipe(fds) == 0);
	CHECK(mprotect(p + MIB, PG, PROT_NONE) == 0 && mprotect(p + 2 * MIB, PG, PROT_READ) == 0);
	mm_evict(p, BIG);
	CHECK_ERRNO(write(fds[1], p + MIB, 1), -1, EFAULT);
	CHECK(write(fds[1], text, 10) == 10);
	CHECK_ERRNO(read(fds[0], p + 2 * MIB, 10), -1, EFAULT);
	CHECK_ERRNO(read(fds[0], p + MIB, 10), -1, EFAULT);
	CHECK(write(fds[1], p + 2 * MIB, 8) == 8);
	CHECK(read(fds[0], text, sizeof(text)) == 18 && text[9] == 'k');
	CHECK(memcmp(text + 10, p + 2 * MIB, 8) == 0);
	/* As far as it goes: the first page can be written, the second cannot. */
	memset(text, 'm', sizeof(text));
	CHECK(write(fds[1], text, 2 * PG) == 2 * PG);
	CHECK(read(fds[0], p + 2 * MIB - PG, 2 * PG) == PG);
	CHECK(p[2 * MIB - 1] == 'm' && p[2 * MIB - PG] == 'm' && p[2 * MIB] != 'm');
	close(fds[0]);
	close(fds[1]);
	munmap(p, BIG);
}

const struct mm_test mm_protect_tests[] = {
	MM_TEST(protect_none), MM_TEST(protect_read_only), MM_TEST(protect_never_touched),
	MM_TEST(protect_bad_arguments), MM_TEST(protect_every_other_page),
	MM_TEST(protect_write_barrier), MM_TEST(protect_kernel_obeys), { 0 }
};
