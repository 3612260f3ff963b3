/* SPDX-License-Identifier: MIT */
/* mremap */
#define _GNU_SOURCE
#include "mm.h"

#include <stdlib.h>
#include <string.h>

#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static void remap_grow(void)
{
	char *p = mm_map(BIG), *q;

	mm_fill(p, BIG, 1);
	mm_evict(p, BIG);
	q = mremap(p, BIG, 3 * BIG, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED);
	if (q != p)
		CHECK(mm_segv(p, false, SEGV_MAPERR));
	CHECK(mm_holds(q, BIG, 1));
	CHECK(mm_zero(q + BIG, 2 * BIG));
	mm_fill(q, 3 * BIG, 2);
	CHECK(mm_holds(q, 3 * BIG, 2));
	munmap(q, 3 * BIG);
}

static void remap_grow_in_place(void)
{
	char *p = mm_map(2 * BIG);

	CHECK(munmap(p + BIG, BIG) == 0);
	mm_fill(p, BIG, 3);
	CHECK(mremap(p, BIG, 2 * BIG, 0) == (void *)p);
	CHECK(mm_holds(p, BIG, 3) && mm_zero(p + BIG, BIG));
	munmap(p, 2 * BIG);
}

static void remap_cannot_grow_in_place(void)
{
	char *p = mm_map(2 * BIG);

	mm_fill(p, 2 * BIG, 4);
	CHECK(mprotect(p + BIG, PG, PROT_READ) == 0);
	CHECK_ERRNO(mremap(p, BIG, BIG + PG, 0), MAP_FAILED, ENOMEM);
	CHECK(mm_holds(p, 2 * BIG, 4));
	munmap(p, 2 * BIG);
}

static void remap_shrink(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 5);
	CHECK(mremap(p, BIG, MIB + PG, 0) == (void *)p);
	CHECK(mm_segv(p + MIB + PG, false, SEGV_MAPERR));
	CHECK(mm_holds(p, MIB + PG, 5));
	CHECK(mremap(p, MIB + PG, PG, MREMAP_MAYMOVE) == (void *)p);
	CHECK(mm_segv(p + PG, true, SEGV_MAPERR));
	CHECK(mm_holds(p, PG, 5));
	munmap(p, BIG);
}

static void remap_small_to_big_and_back(void)
{
	char *p = mm_map(64 * 1024), *q;

	mm_fill(p, 64 * 1024, 6);
	q = mremap(p, 64 * 1024, BIG, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED);
	CHECK(mm_holds(q, 64 * 1024, 6) && mm_zero(q + 64 * 1024, BIG - 64 * 1024));
	mm_fill(q, BIG, 7);
	mm_evict(q, BIG);
	CHECK(mremap(q, BIG, 64 * 1024, 0) == (void *)q);
	CHECK(mm_holds(q, 64 * 1024, 7));
	p = mremap(q, 64 * 1024, 2 * BIG, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED && mm_holds(p, 64 * 1024, 7) &&
	      mm_zero(p + 64 * 1024, 2 * BIG - 64 * 1024));
	munmap(p, 2 * BIG);
}

static void remap_fixed(void)
{
	char *p = mm_map(BIG), *q = mm_map(BIG);

	mm_fill(p, BIG, 8);
	mm_fill(q, BIG, 9);
	mm_evict(p, BIG);
	CHECK(mremap(p, BIG, BIG, MREMAP_MAYMOVE | MREMAP_FIXED, q) == (void *)q);
	CHECK(mm_segv(p, false, SEGV_MAPERR));
	CHECK(mm_segv(p + BIG - 1, true, SEGV_MAPERR));
	CHECK(mm_holds(q, BIG, 8));
	munmap(q, BIG);
}

static void remap_fixed_part_over_part(void)
{
	char *p = mm_map(BIG), *q = mm_map(BIG), *from = p + MIB + PG, *to = q + 2 * MIB - PG;

	mm_fill(p, BIG, 10);
	mm_fill(q, BIG, 11);
	mm_fill(from, MIB, 12);
	mm_evict(p, BIG);
	CHECK(mremap(from, MIB, MIB, MREMAP_MAYMOVE | MREMAP_FIXED, to) == (void *)to);
	CHECK(mm_segv(from, false, SEGV_MAPERR));
	CHECK(mm_segv(from + MIB - 1, false, SEGV_MAPERR));
	CHECK(mm_holds(to, MIB, 12));
	CHECK(mm_holds(p, MIB + PG, 10) && mm_holds(q, 2 * MIB - PG, 11));
	CHECK(mm_probe(from + MIB, true, NULL) == 0 && mm_probe(from - 1, true, NULL) == 0);
	munmap(p, BIG);
	munmap(q, BIG);
}

static void remap_fixed_and_resize(void)
{
	char *p = mm_map(BIG), *q = mm_map(2 * BIG);

	mm_fill(p, BIG, 13);
	mm_fill(q, 2 * BIG, 14);
	CHECK(mremap(p, BIG, 2 * BIG, MREMAP_MAYMOVE | MREMAP_FIXED, q) == (void *)q);
	CHECK(mm_holds(q, BIG, 13) && mm_zero(q + BIG, BIG));
	p = mm_map(BIG);
	CHECK(mremap(q, 2 * BIG, MIB, MREMAP_MAYMOVE | MREMAP_FIXED, p) == (void *)p);
	CHECK(mm_holds(p, MIB, 13));
	CHECK(mm_segv(q + BIG, false, SEGV_MAPERR) && mm_segv(q, false, SEGV_MAPERR));
	munmap(p, BIG);
}

static void remap_dontunmap(void)
{
	char *p = mm_map(BIG), *q;

	mm_fill(p, BIG, 15);
	mm_evict(p, BIG);
	q = mremap(p, BIG, BIG, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (q == MAP_FAILED && errno == EINVAL)
		SKIP("no MREMAP_DONTUNMAP (Linux 5.7)");
	CHECK(q != MAP_FAILED && q != p);
	CHECK(mm_zero(p, BIG));
	CHECK(mm_holds(q, BIG, 15));
	mm_fill(p, BIG, 16);
	mm_evict(p, BIG);
	CHECK(mremap(p, BIG, BIG, MREMAP_MAYMOVE | MREMAP_DONTUNMAP | MREMAP_FIXED, q) == (void *)q);
	CHECK(mm_zero(p, BIG) && mm_holds(q, BIG, 16));
	CHECK_ERRNO(mremap(p, BIG, MIB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL), MAP_FAILED,
		    EINVAL);
	munmap(p, BIG);
	munmap(q, BIG);
}

static void remap_bad_arguments(void)
{
	char *p = mm_map(BIG), *q = mm_map(BIG);

	mm_fill(p, BIG, 17);
	CHECK_ERRNO(mremap(p + 1, PG, PG, MREMAP_MAYMOVE), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mremap(p, BIG, 0, MREMAP_MAYMOVE), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mremap(p, 0, BIG, MREMAP_MAYMOVE), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mremap(p, BIG, BIG, MREMAP_FIXED, q), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mremap(p, BIG, BIG, MREMAP_MAYMOVE | 0x100), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mremap(p, BIG, BIG, MREMAP_MAYMOVE | MREMAP_FIXED, q + 1), MAP_FAILED, EINVAL);
	CHECK_ERRNO(mremap(p, BIG, BIG, MREMAP_MAYMOVE | MREMAP_FIXED, p + MIB), MAP_FAILED,
		    EINVAL);
	/* ENOMEM, since Linux 6.17 EINVAL */
	CHECK(mremap(p, BIG, 1ul << 47, MREMAP_MAYMOVE) == MAP_FAILED &&
	      (errno == ENOMEM || errno == EINVAL));
	CHECK(mm_holds(p, BIG, 17));
	CHECK(munmap(q, BIG) == 0);
	CHECK_ERRNO(mremap(q, BIG, 2 * BIG, MREMAP_MAYMOVE), MAP_FAILED, EFAULT);
	munmap(p, BIG);
}

static void remap_keeps_protection(void)
{
	char *p = mm_map(BIG), *q = mm_map(BIG);

	mm_fill(p, BIG, 18);
	CHECK(mprotect(p, BIG, PROT_READ) == 0);
	CHECK(mremap(p, BIG, BIG, MREMAP_MAYMOVE | MREMAP_FIXED, q) == (void *)q);
	mm_evict(q, BIG);
	CHECK(mm_segv(q + MIB, true, SEGV_ACCERR));
	CHECK(mm_holds(q, BIG, 18));
	CHECK(mprotect(q, BIG, PROT_NONE) == 0);
	p = mremap(q, BIG, BIG + MIB, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED);
	CHECK(mm_segv(p, false, SEGV_ACCERR) && mm_segv(p + BIG, false, SEGV_ACCERR));
	CHECK(mprotect(p, BIG + MIB, RW) == 0);
	CHECK(mm_holds(p, BIG, 18) && mm_zero(p + BIG, MIB));
	munmap(p, BIG + MIB);
}

static void remap_to_and_fro(void)
{
	char *p = mm_map(BIG), *q = mm_map(BIG);
	unsigned i;

	for (i = 0; i < 10; i++) {
		char *from = i & 1 ? q : p, *to = i & 1 ? p : q;

		if (i % 3 == 0)
			mm_fill(from, BIG, i / 3 * 3 + 20);
		if (i % 2 == 0)
			mm_evict(from, BIG);
		CHECK(mremap(from, BIG, BIG, MREMAP_MAYMOVE | MREMAP_FIXED, to) == (void *)to);
		CHECK(mm_holds(to, BIG, i / 3 * 3 + 20));
		CHECK(mmap(from, BIG, RW, ANON | MAP_FIXED, -1, 0) == (void *)from);
	}
	munmap(p, BIG);
	munmap(q, BIG);
}

/* One mapping over several 2 MiB blocks with different states, moved off alignment. */
static void remap_mixed_states(void)
{
	char *p = mm_map(2 * BIG), *q = mm_map(2 * BIG + PG);
	size_t third = BIG / 2;

	mm_fill(p, third, 30);
	mm_fill(p + 2 * third, third, 31);
	mm_evict(p, 2 * BIG);
	CHECK(mm_holds(p, MIB / 2, 30));
	mm_fill(p + 2 * third, PG, 31);
	CHECK(mremap(p, 2 * BIG, 2 * BIG, MREMAP_MAYMOVE | MREMAP_FIXED, q + PG) ==
	      (void *)(q + PG));
	q += PG;
	CHECK(mm_holds(q, third, 30) && mm_zero(q + third, third));
	CHECK(mm_holds(q + 2 * third, third, 31) && mm_zero(q + 3 * third, third));
	munmap(q - PG, 2 * BIG + PG);
}

static void remap_by_realloc(void)
{
	size_t n = MIB, i;
	uint64_t *p = NULL;

	for (n = MIB / 8; n <= 4 * MIB / 8; n += MIB / 16) {
		p = realloc(p, n * 8);
		CHECK(p != NULL);
		for (i = n == MIB / 8 ? 0 : n - MIB / 16; i < n; i++)
			p[i] = i * 3;
	}
	for (n = 4 * MIB / 8; n >= MIB / 8; n -= MIB / 16) {
		p = realloc(p, n * 8);
		CHECK(p != NULL);
		for (i = 0; i < n; i++)
			CHECK(p[i] == i * 3);
	}
	free(p);
}

const struct mm_test mm_remap_tests[] = {
	MM_TEST(remap_grow), MM_TEST(remap_grow_in_place), MM_TEST(remap_cannot_grow_in_place),
	MM_TEST(remap_shrink), MM_TEST(remap_small_to_big_and_back), MM_TEST(remap_fixed),
	MM_TEST(remap_fixed_part_over_part), MM_TEST(remap_fixed_and_resize),
	MM_TEST(remap_dontunmap), MM_TEST(remap_bad_arguments), MM_TEST(remap_keeps_protection),
	MM_TEST(remap_to_and_fro), MM_TEST(remap_mixed_states), MM_TEST(remap_by_realloc), { 0 }
};
