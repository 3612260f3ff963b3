/* SPDX-License-Identifier: MIT */
/* mmap and munmap */
#define _GNU_SOURCE
#include "mm.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

static void map_fresh_is_zero(void)
{
	char *p = mm_map(BIG);

	CHECK(mm_zero(p, BIG));
	mm_evict(p, BIG);
	CHECK(mm_zero(p, BIG));
	CHECK(munmap(p, BIG) == 0);
}

static void map_content_survives(void)
{
	char *p = mm_map(BIG);
	unsigned i;

	for (i = 0; i < 3; i++) {
		mm_fill(p, BIG, i);
		mm_evict(p, BIG);
		CHECK(mm_holds(p, BIG, i));
		CHECK(mm_holds(p, BIG, i));
	}
	CHECK(munmap(p, BIG) == 0);
}

static void map_hint_is_honoured(void)
{
	char *p = mm_map(BIG), *q;

	mm_fill(p, BIG, 1);
	CHECK(munmap(p, BIG) == 0);
	q = mmap(p, BIG, RW, ANON, -1, 0);
	CHECK(q == p);
	CHECK(mm_zero(p, BIG));
	q = mmap(p, MIB, RW, ANON, -1, 0);
	CHECK(q != MAP_FAILED && q != p);
	munmap(p, BIG);
	munmap(q, MIB);
}

static void map_fixed_over_part(void)
{
	char *p = mm_map(BIG), *q = p + MIB + 3 * PG;

	mm_fill(p, BIG, 2);
	mm_fill(q, MIB, 3);
	CHECK(mmap(q, MIB, RW, ANON | MAP_FIXED, -1, 0) == (void *)q);
	CHECK(mm_zero(q, MIB));
	CHECK(mm_holds(p, MIB + 3 * PG, 2));
	mm_fill(q, MIB, 4);
	mm_evict(p, BIG);
	CHECK(mm_holds(q, MIB, 4));
	munmap(p, BIG);
}

static void map_fixed_one_page_over(void)
{
	char *p = mm_map(BIG);
	size_t i;

	mm_fill(p, BIG, 5);
	for (i = 0; i < BIG; i += 16 * PG)
		CHECK(mmap(p + i, PG, RW, ANON | MAP_FIXED, -1, 0) == (void *)(p + i));
	for (i = 0; i < BIG; i += 16 * PG) {
		CHECK(mm_zero(p + i, PG));
		p[i] = 1;
	}
	mm_evict(p, BIG);
	for (i = 0; i < BIG; i += 16 * PG)
		CHECK(p[i] == 1 && mm_zero(p + i + 8, PG - 8) && p[i + PG] != 0);
	munmap(p, BIG);
}

static void map_file_over_managed(void)
{
	char *p = mm_map(BIG), text[PG];
	int fd = memfd_create("mm", 0);

	memset(text, 'x', PG);
	CHECK(fd >= 0 && write(fd, text, PG) == (ssize_t)PG);
	mm_fill(p, BIG, 6);
	CHECK(mmap(p + MIB, PG, RW, MAP_SHARED | MAP_FIXED, fd, 0) == (void *)(p + MIB));
	CHECK(p[MIB] == 'x' && p[MIB + PG - 1] == 'x');
	p[MIB] = 'y';
	CHECK(pread(fd, text, 1, 0) == 1 && text[0] == 'y');
	CHECK(mm_holds(p, MIB, 6));
	/* And anonymous memory back in its place. */
	CHECK(mmap(p + MIB, PG, RW, ANON | MAP_FIXED, -1, 0) == (void *)(p + MIB));
	CHECK(mm_zero(p + MIB, PG));
	p[MIB] = 'z';
	CHECK(pread(fd, text, 1, 0) == 1 && text[0] == 'y');
	munmap(p, BIG);
	close(fd);
}

static void map_noreplace(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 7);
	CHECK_ERRNO(mmap(p + PG, PG, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), MAP_FAILED, EEXIST);
	CHECK(munmap(p + MIB, MIB) == 0);
	CHECK_ERRNO(mmap(p + MIB, MIB + PG, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), MAP_FAILED,
		    EEXIST);
	CHECK(mmap(p + MIB, MIB, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == (void *)(p + MIB));
	CHECK(mm_zero(p + MIB, MIB));
	CHECK(mm_holds(p, MIB, 7));
	munmap(p, BIG);
}

static void map_bad_arguments(void)
{
	char *p = mm_map(BIG);

	CHECK_ERRNO(mmap(NULL, 0, RW, ANON, -1, 0), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mmap(p + 1, MIB, RW, ANON | MAP_FIXED, -1, 0), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mmap(NULL, MIB, RW, MAP_ANONYMOUS, -1, 0), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mmap(NULL, 1ul << 48, RW, ANON, -1, 0), MAP_FAILED, ENOMEM);
	CHECK_ERRNO(mmap(NULL, -1ul, RW, ANON, -1, 0), MAP_FAILED, ENOMEM);
	CHECK_ERRNO(mmap((void *)(1ul << 47), MIB, RW, ANON | MAP_FIXED, -1, 0), MAP_FAILED,
		    ENOMEM);
	CHECK_ERRNO(mmap(NULL, MIB, RW, MAP_PRIVATE, -1, 0), MAP_FAILED, EBADF);
	munmap(p, BIG);
}

static void map_length_is_rounded_up(void)
{
	char *p = mmap(NULL, MIB + 1, RW, ANON, -1, 0);

	CHECK(p != MAP_FAILED);
	mm_fill(p, MIB + PG, 8);
	CHECK(mm_holds(p, MIB + PG, 8));
	CHECK(munmap(p, MIB + 1) == 0);
	CHECK(mm_segv(p + MIB, false, SEGV_MAPERR));
}

static void map_sparse_and_huge(void)
{
	size_t size = 16ul << 30, step = 64 * MIB + 5 * PG, i;
	char *p = mmap(NULL, size, RW, ANON | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	for (i = 0; i + PG <= size; i += step)
		mm_fill(p + i, PG, i);
	for (i = 0; i + PG <= size; i += step) {
		CHECK(mm_holds(p + i, PG, i));
		CHECK(p[i + PG] == 0);
	}
	CHECK(munmap(p, size) == 0);
	CHECK(mm_segv(p + step, false, SEGV_MAPERR));
}

/* Calls whose ends lie in the midst of what was touched, or not, and that reach over much of it. */
static void map_terabyte_in_parts(void)
{
	const size_t size = 1ul << 40, gib = 1ul << 30, far = size - gib;
	const size_t from[] = { 3 * gib - PG, 7 * gib + 2 * MIB, 11 * gib - PG, 600 * gib };
	const size_t end[] = { 5 * gib + PG, 9 * gib - PG, 12 * gib + 2 * MIB, far };
	size_t i, k, at[8];
	char *p = mmap(NULL, size, RW, ANON | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	for (i = 0; i < 4; i++) {
		at[2 * i] = from[i] - PG;
		at[2 * i + 1] = end[i];
		mm_fill(p + from[i], PG, 20);
		mm_fill(p + end[i] - PG, PG, 20);
	}
	for (k = 0; k < 8; k++)
		mm_fill(p + at[k], PG, k);
	CHECK(madvise(p + from[0], end[0] - from[0], MADV_DONTNEED) == 0);
	CHECK(munmap(p + from[1], end[1] - from[1]) == 0);
	CHECK(mmap(p + from[2], end[2] - from[2], RW, ANON | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
	      p + from[2]);
	CHECK(madvise(p + from[3], end[3] - from[3], MADV_DONTNEED) == 0);
	for (k = 0; k < 8; k++)
		CHECK(mm_holds(p + at[k], PG, k));
	for (i = 0; i < 4; i++)
		if (i != 1)
			CHECK(mm_zero(p + from[i], PG) && mm_zero(p + end[i] - PG, PG));
	CHECK(mm_segv(p + from[1], false, SEGV_MAPERR));
	CHECK(mm_segv(p + end[1] - PG, false, SEGV_MAPERR));
	CHECK(munmap(p, size) == 0);
	CHECK(mm_segv(p, false, SEGV_MAPERR) && mm_segv(p + far, false, SEGV_MAPERR));
}

static void map_populate(void)
{
	char *p = mmap(NULL, BIG, RW, ANON | MAP_POPULATE, -1, 0);

	CHECK(p != MAP_FAILED);
	CHECK(mm_zero(p, BIG));
	mm_fill(p, BIG, 9);
	CHECK(mm_holds(p, BIG, 9));
	munmap(p, BIG);
}

static bool write_there(void *p)
{
	mm_fill(p, BIG, 10);
	return true;
}

static void map_shared_is_shared(void)
{
	char *p = mmap(NULL, BIG, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	CHECK(mm_in_child(write_there, p));
	CHECK(mm_holds(p, BIG, 10));
	munmap(p, BIG);
}

static void map_private_is_private(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 11);
	mm_evict(p, BIG);
	CHECK(mm_in_child(write_there, p));
	CHECK(mm_holds(p, BIG, 11));
	munmap(p, BIG);
}

static void map_growsdown_and_32bit(void)
{
	char *p = mmap(NULL, MIB, RW, ANON | MAP_GROWSDOWN | MAP_STACK, -1, 0);

	CHECK(p != MAP_FAILED);
	mm_fill(p, MIB, 12);
	CHECK(mm_holds(p, MIB, 12));
	munmap(p, MIB);
	p = mmap(NULL, BIG, RW, ANON | MAP_32BIT, -1, 0);
	CHECK(p != MAP_FAILED && (uintptr_t)p + BIG <= 1ul << 32);
	mm_fill(p, BIG, 13);
	mm_evict(p, BIG);
	CHECK(mm_holds(p, BIG, 13));
	munmap(p, BIG);
}

static void map_locked(void)
{
	char *p = mmap(NULL, MIB, RW, ANON | MAP_LOCKED, -1, 0);
	unsigned char vec[MIB / PG];
	unsigned i;

	if (p == MAP_FAILED)
		SKIP("RLIMIT_MEMLOCK is too small");
	mm_fill(p, MIB, 14);
	mm_evict(p, MIB);
	CHECK(mincore(p, MIB, vec) == 0);
	for (i = 0; i < MIB / PG; i++)
		CHECK(vec[i] & 1);
	CHECK(mm_holds(p, MIB, 14));
	munmap(p, MIB);
}

/* What a just-in-time compiler does. */
static void map_executable(void)
{
	static const unsigned char code[] = { 0xb8, 0x2a, 0, 0, 0, 0xc3 }; /* mov $42,%eax; ret */
	char *p = mm_map(BIG);
	size_t i;
	int (*f)(void);

	for (i = 0; i < BIG; i += 64 * PG)
		memcpy(p + i, code, sizeof(code));
	CHECK(mprotect(p, BIG, PROT_READ | PROT_EXEC) == 0);
	mm_evict(p, BIG);
	for (i = 0; i < BIG; i += 64 * PG) {
		char *at = p + i;

		memcpy(&f, &at, sizeof(f));
		CHECK(f() == 42);
	}
	CHECK(mprotect(p, BIG, RW) == 0);
	p[1] = 43;
	CHECK(mprotect(p, BIG, PROT_READ | PROT_EXEC) == 0);
	memcpy(&f, &p, sizeof(f));
	CHECK(f() == 43);
	munmap(p, BIG);
}

static void unmap_whole(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 15);
	CHECK(munmap(p, BIG) == 0);
	CHECK(mm_segv(p, false, SEGV_MAPERR));
	CHECK(mm_segv(p + 123, true, SEGV_MAPERR));
	CHECK(mm_segv(p + BIG - 1, false, SEGV_MAPERR));
	CHECK(munmap(p, BIG) == 0); /* nothing there is no error */
}

static void unmap_parts(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, MIB, 16);
	mm_fill(p + MIB, MIB, 17);
	mm_fill(p + 2 * MIB, MIB, 18);
	mm_fill(p + 3 * MIB, MIB, 19);
	CHECK(munmap(p + MIB, MIB) == 0);
	CHECK(mm_segv(p + MIB, true, SEGV_MAPERR));
	CHECK(mm_holds(p, MIB, 16) && mm_holds(p + 2 * MIB, MIB, 18));
	CHECK(munmap(p, 3 * PG) == 0);
	CHECK(mm_segv(p + 3 * PG - 1, false, SEGV_MAPERR));
	CHECK(mm_probe(p + 3 * PG, true, NULL) == 0);
	CHECK(munmap(p + BIG - PG, PG) == 0);
	CHECK(mm_segv(p + BIG - PG, false, SEGV_MAPERR));
	CHECK(mm_holds(p + 3 * MIB, MIB - PG, 19));
	CHECK(munmap(p, BIG) == 0); /* over holes too */
	CHECK(mm_segv(p + 2 * MIB, false, SEGV_MAPERR));
}

static void unmap_bad_arguments(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 20);
	CHECK_ERRNO(munmap(p + 1, PG), -1, EINVAL);
	CHECK_ERRNO(munmap(p, 0), -1, EINVAL);
	CHECK_ERRNO(munmap(p, -1ul), -1, EINVAL);
	CHECK_ERRNO(munmap((void *)-PG, PG), -1, EINVAL);
	CHECK(mm_holds(p, BIG, 20));
	CHECK(munmap(p, 1) == 0);
	CHECK(mm_segv(p + PG - 1, false, SEGV_MAPERR));
	munmap(p, BIG);
}

/* Once the whole of 64 bits was searched for managed memory, seconds for each call. */
static void unmap_absurd_length(void)
{
	void *above = (void *)(1ul << 47);
	unsigned i;

	for (i = 0; i < 200; i++) {
		CHECK_ERRNO(munmap(above, 1ul << 63), -1, EINVAL);
		CHECK_ERRNO(munmap(NULL, 1ul << (48 + i % 16)), -1, EINVAL);
		CHECK(madvise(above, 1ul << 62, MADV_DONTNEED) == -1);
	}
}

static void unmap_and_map_again(void)
{
	char *p = mm_map(BIG);
	unsigned i;

	for (i = 0; i < 8; i++) {
		mm_fill(p, BIG, i);
		CHECK(munmap(p + i * MIB / 4, MIB) == 0);
		CHECK(mmap(p + i * MIB / 4, MIB, RW, ANON | MAP_FIXED, -1, 0) != MAP_FAILED);
		CHECK(mm_zero(p + i * MIB / 4, MIB));
		CHECK(mm_holds(p, i * MIB / 4, i));
	}
	munmap(p, BIG);
}

static void map_many(void)
{
	static char *p[150];
	unsigned i;

	for (i = 0; i < 150; i++) {
		p[i] = mm_map(MIB + (i % 3) * PG);
		mm_fill(p[i] + i * PG, 2 * PG, i);
	}
	for (i = 0; i < 150; i += 2)
		CHECK(munmap(p[i], MIB + (i % 3) * PG) == 0);
	for (i = 1; i < 150; i += 2) {
		CHECK(mm_holds(p[i] + i * PG, 2 * PG, i));
		munmap(p[i], MIB + (i % 3) * PG);
	}
}

const struct mm_test mm_map_tests[] = {
	MM_TEST(map_fresh_is_zero), MM_TEST(map_content_survives), MM_TEST(map_hint_is_honoured),
	MM_TEST(map_fixed_over_part), MM_TEST(map_fixed_one_page_over),
	MM_TEST(map_file_over_managed), MM_TEST(map_noreplace), MM_TEST(map_bad_arguments),
	MM_TEST(map_length_is_rounded_up), MM_TEST(map_sparse_and_huge),
	MM_TEST(map_terabyte_in_parts), MM_TEST(map_populate),
	MM_TEST(map_shared_is_shared), MM_TEST(map_private_is_private),
	MM_TEST(map_growsdown_and_32bit), MM_TEST(map_locked), MM_TEST(map_executable),
	MM_TEST(unmap_whole), MM_TEST(unmap_parts), MM_TEST(unmap_bad_arguments),
	MM_TEST(unmap_absurd_length), MM_TEST(unmap_and_map_again), MM_TEST(map_many), { 0 }
};
