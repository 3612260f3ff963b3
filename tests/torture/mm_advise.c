/* SPDX-License-Identifier: MIT */
/* madvise: each advice does what its manual page promises, and no content is lost. */
#define _GNU_SOURCE
#include "mm.h"

#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)

enum { COLD = 20, PAGEOUT = 21, POPULATE_READ = 22, POPULATE_WRITE = 23, COLLAPSE = 25,
       GUARD_INSTALL = 102, GUARD_REMOVE = 103 };

static void advise_dontneed(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 1);
	mm_evict(p, MIB);
	CHECK(madvise(p + PG, MIB - PG, MADV_DONTNEED) == 0);
	CHECK(mm_holds(p, PG, 1));
	CHECK(mm_zero(p + PG, MIB - PG));
	mm_fill(p, BIG, 2);
	mm_evict(p, BIG);
	CHECK(mm_holds(p, BIG, 2));
	CHECK(madvise(p, BIG, MADV_DONTNEED) == 0);
	CHECK(mm_zero(p, BIG));
	CHECK(madvise(p, BIG, MADV_DONTNEED) == 0);
	CHECK(mm_zero(p, BIG));
	munmap(p, BIG);
}

static void advise_dontneed_protected(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 3);
	mm_evict(p, MIB);
	CHECK(mprotect(p, BIG, PROT_NONE) == 0);
	CHECK(madvise(p, BIG, MADV_DONTNEED) == 0);
	CHECK(mm_segv(p, false, SEGV_ACCERR));
	CHECK(mprotect(p, BIG, PROT_READ) == 0);
	CHECK(mm_zero(p, BIG));
	munmap(p, BIG);
}

static void advise_bad_arguments(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 4);
	CHECK_ERRNO(madvise(p + 1, PG, MADV_DONTNEED), -1, EINVAL);
	CHECK_ERRNO(madvise(p, PG, 4711), -1, EINVAL);
	CHECK_ERRNO(madvise(p, -1ul, MADV_DONTNEED), -1, EINVAL);
	CHECK_ERRNO(madvise(p, BIG, MADV_REMOVE), -1, EINVAL);
	CHECK(madvise(p, 0, MADV_DONTNEED) == 0);
	CHECK(mm_holds(p, BIG, 4));
	/* A hole is reported, the rest is done. */
	CHECK(munmap(p + MIB, PG) == 0);
	CHECK_ERRNO(madvise(p, BIG, MADV_DONTNEED), -1, ENOMEM);
	CHECK(mm_zero(p, MIB) && mm_zero(p + MIB + PG, BIG - MIB - PG));
	CHECK_ERRNO(madvise(p + MIB, PG, MADV_DONTNEED), -1, ENOMEM);
	/* The length is rounded up to whole pages. */
	mm_fill(p, MIB, 5);
	CHECK(madvise(p, PG + 1, MADV_DONTNEED) == 0);
	CHECK(mm_zero(p, 2 * PG) && p[2 * PG] != 0);
	munmap(p, BIG);
}

static void advise_free(void)
{
	char *p = mm_map(BIG);
	uint64_t first;
	size_t i;

	mm_fill(p, BIG, 6);
	mm_evict(p, BIG / 2);
	CHECK(madvise(p, BIG, MADV_FREE) == 0);
	/* What is written after the advice stays; around it is the old or zeros. */
	for (i = 0; i < BIG; i += PG)
		memset(p + i + 8, 0x5a, 8);
	mm_evict(p, BIG);
	for (i = 0; i < BIG; i += PG) {
		CHECK(((uint64_t *)(p + i))[1] == 0x5a5a5a5a5a5a5a5aull);
		memcpy(&first, p + i, 8);
		CHECK(first == 0 ? mm_zero(p + i + 16, PG - 16) : ((uint64_t *)(p + i))[2] != 0);
	}
	munmap(p, BIG);
}

static void advise_keeps_content(void)
{
	static const int advice[] = { MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
				      MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE,
				      MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, COLD, PAGEOUT,
				      POPULATE_READ, POPULATE_WRITE, MADV_HUGEPAGE, COLLAPSE };
	char *p = mm_map(BIG);
	unsigned i;

	for (i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
		mm_fill(p, BIG, i);
		mm_evict(p, MIB);
		if (madvise(p, BIG, advice[i]) != 0)
			CHECK(errno == EINVAL || errno == EAGAIN || errno == ENOMEM ||
			      errno == EBUSY);
		CHECK(mm_holds(p, BIG, i));
		mm_fill(p, BIG, i + 100);
		if (madvise(p + MIB, MIB, advice[i]) != 0)
			CHECK(errno == EINVAL || errno == EAGAIN || errno == ENOMEM ||
			      errno == EBUSY);
		CHECK(mm_holds(p, BIG, i + 100));
	}
	munmap(p, BIG);
}

static void advise_populate_obeys_protection(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 8);
	if (madvise(p, PG, POPULATE_READ) != 0)
		SKIP("no MADV_POPULATE_READ (Linux 5.14)");
	CHECK(mprotect(p, MIB, PROT_READ) == 0);
	CHECK_ERRNO(madvise(p, MIB, POPULATE_WRITE), -1, EINVAL);
	CHECK(madvise(p, MIB, POPULATE_READ) == 0);
	CHECK(mprotect(p, MIB, PROT_NONE) == 0);
	CHECK_ERRNO(madvise(p, MIB, POPULATE_READ), -1, EINVAL);
	CHECK(mprotect(p, MIB, RW) == 0);
	CHECK(mm_holds(p, BIG, 8));
	munmap(p, BIG);
}

static void advise_process_madvise(void)
{
	char *p = mm_map(BIG);
	struct iovec iov[2] = { { p, MIB }, { p + 2 * MIB, MIB } };
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	mm_fill(p, BIG, 9);
	if (fd < 0)
		SKIP("no pidfd_open");
	if (syscall(SYS_process_madvise, fd, iov, 2, PAGEOUT, 0) < 0)
		CHECK(errno == EPERM || errno == ENOSYS || errno == EINVAL);
	if (syscall(SYS_process_madvise, fd, iov, 2, MADV_WILLNEED, 0) < 0)
		CHECK(errno == EPERM || errno == ENOSYS || errno == EINVAL);
	CHECK(mm_holds(p, BIG, 9));
	/* From Linux 6.13 on a process may discard its own. */
	if (syscall(SYS_process_madvise, fd, iov, 2, MADV_DONTNEED, 0) == 2 * MIB) {
		CHECK(mm_zero(p, MIB) && mm_zero(p + 2 * MIB, MIB));
		CHECK(p[MIB] != 0 && p[3 * MIB] != 0);
	}
	close(fd);
	munmap(p, BIG);
}

/* Small enough for the smallest budget, within which it has to stay. */
#define WIPED (MIB / 2)

static bool child_sees_zeros(void *p)
{
	return mm_zero(p, WIPED) && mm_holds((char *)p + MIB, BIG - MIB, 11);
}

static bool child_sees_all(void *p)
{
	return mm_holds(p, MIB, 10) && mm_holds((char *)p + MIB, BIG - MIB, 11);
}

static void advise_wipeonfork(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, MIB, 10);
	mm_fill(p + MIB, BIG - MIB, 11);
	mm_evict(p, MIB);
	if (madvise(p, WIPED, MADV_WIPEONFORK) != 0)
		SKIP("no MADV_WIPEONFORK (Linux 4.14)");
	CHECK(mm_in_child(child_sees_zeros, p));
	CHECK(mm_holds(p, MIB, 10));
	CHECK(madvise(p, WIPED, MADV_KEEPONFORK) == 0);
	CHECK(mm_in_child(child_sees_all, p));
	CHECK(mm_holds(p, MIB, 10) && mm_holds(p + MIB, BIG - MIB, 11));
	munmap(p, BIG);
}

static bool child_lacks_first(void *p)
{
	return mm_segv(p, false, SEGV_MAPERR) && mm_segv((char *)p + MIB - 1, true, SEGV_MAPERR) &&
	       mm_holds((char *)p + MIB, BIG - MIB, 11);
}

static void advise_dontfork(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, MIB, 10);
	mm_fill(p + MIB, BIG - MIB, 11);
	mm_evict(p, MIB);
	CHECK(madvise(p, MIB, MADV_DONTFORK) == 0);
	CHECK(mm_in_child(child_lacks_first, p));
	CHECK(mm_holds(p, MIB, 10));
	CHECK(madvise(p, MIB, MADV_DOFORK) == 0);
	CHECK(mm_in_child(child_sees_all, p));
	munmap(p, BIG);
}

/* What was not inherited is free for the child, and what it maps there is its own. */
static bool child_uses_the_hole(void *at)
{
	char *p = at, *q;

	if (!mm_segv(p + MIB, false, SEGV_MAPERR) || !mm_holds(p, MIB, 10) ||
	    !mm_holds(p + 2 * MIB, BIG - 2 * MIB, 12))
		return false;
	q = mmap(p + MIB, MIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (q != p + MIB || !mm_zero(q, MIB))
		return false;
	mm_fill(q, MIB, 13);
	mm_evict(p, BIG);
	return mm_holds(q, MIB, 13) && mm_holds(p, MIB, 10) &&
	       mm_holds(p + 2 * MIB, BIG - 2 * MIB, 12) && munmap(p, BIG) == 0;
}

static void advise_dontfork_in_the_middle(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, MIB, 10);
	mm_fill(p + MIB, MIB, 11);
	mm_fill(p + 2 * MIB, BIG - 2 * MIB, 12);
	mm_evict(p, BIG);
	mm_holds(p + MIB, PG, 11);
	CHECK(madvise(p + MIB, MIB, MADV_DONTFORK) == 0);
	CHECK(mm_in_child(child_uses_the_hole, p));
	CHECK(mm_holds(p + MIB, MIB, 11));
	munmap(p, BIG);
}

static bool child_lacks_gigabytes(void *at)
{
	char *p = at;

	return mm_segv(p + (1ul << 30), true, SEGV_MAPERR) && mm_holds(p, MIB, 14) &&
	       mmap(p + (1ul << 30), MIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		    0) == p + (1ul << 30);
}

static void advise_dontfork_never_touched(void)
{
	char *p = mmap(NULL, 4ul << 30, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	mm_fill(p, MIB, 14);
	CHECK(madvise(p + (1ul << 30), 1ul << 30, MADV_DONTFORK) == 0);
	CHECK(mm_in_child(child_lacks_gigabytes, p));
	CHECK(mm_zero(p + (1ul << 30), MIB));
	munmap(p, 4ul << 30);
}

static void advise_guard(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 12);
	if (madvise(p + MIB, PG, GUARD_INSTALL) != 0)
		SKIP("no MADV_GUARD_INSTALL (Linux 6.13)");
	CHECK(mm_probe(p + MIB, false, NULL) == SIGSEGV);
	CHECK(mm_probe(p + MIB, true, NULL) == SIGSEGV);
	mm_evict(p, BIG);
	CHECK(mm_probe(p + MIB, false, NULL) == SIGSEGV);
	CHECK(mm_holds(p, MIB, 12));
	CHECK(madvise(p + MIB, PG, GUARD_REMOVE) == 0);
	CHECK(mm_zero(p + MIB, PG));
	mm_fill(p + MIB, PG, 13);
	CHECK(mm_holds(p + MIB, PG, 13));
	munmap(p, BIG);
}

const struct mm_test mm_advise_tests[] = {
	MM_TEST(advise_dontneed), MM_TEST(advise_dontneed_protected),
	MM_TEST(advise_bad_arguments), MM_TEST(advise_free), MM_TEST(advise_keeps_content),
	MM_TEST(advise_populate_obeys_protection), MM_TEST(advise_process_madvise),
	MM_TEST(advise_wipeonfork), MM_TEST(advise_dontfork),
	MM_TEST(advise_dontfork_in_the_middle), MM_TEST(advise_dontfork_never_touched),
	MM_TEST(advise_guard), { 0 }
};
