/* SPDX-License-Identifier: MIT */
#include "core.h"

enum {
	GROUP_SHIFT = EM_PAGE_SHIFT + 4,
	CONTROL = 16, /* one group of 16 pages in so many */
	WINDOW = 64,  /* control pages from one verdict to the next */
	/* Of a hundred control pages so many are written: a page in vain takes a write to the store, which costs
	   more than the fault that the others are spared. */
	BEGIN = 88,
	END = 75,
};

static bool is_control(uintptr_t addr)
{
	/* Fibonacci hashing (Knuth, The Art of Computer Programming 6.4). */
	return !((addr >> GROUP_SHIFT) * 0x9e3779b97f4a7c15ull >> 32 & (CONTROL - 1));
}

bool em_update_expected(const struct em_region *r, uintptr_t addr)
{
	if (em_engine.opt.expect_writes == EM_EXPECT_WRITES_ALWAYS)
		return true;
	return __atomic_load_n(&r->update.expected, __ATOMIC_RELAXED) && !is_control(addr);
}

void em_update_came(struct em_region *r, uintptr_t addr)
{
	struct em_update *u = &r->update;
	uint32_t came, written;
	bool expected;

	if (em_engine.opt.expect_writes == EM_EXPECT_WRITES_NO || !is_control(addr))
		return;
	came = __atomic_add_fetch(&u->came, 1, __ATOMIC_RELAXED);
	if (came < WINDOW)
		return;
	written = __atomic_load_n(&u->written, __ATOMIC_RELAXED);
	expected = __atomic_load_n(&u->expected, __ATOMIC_RELAXED);
	__atomic_store_n(&u->expected, written * 100 >= came * (expected ? END : BEGIN),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&u->came, came / 2, __ATOMIC_RELAXED);
	__atomic_store_n(&u->written, written / 2, __ATOMIC_RELAXED);
}

void em_update_written(struct em_region *r, uintptr_t addr)
{
	if (em_engine.opt.expect_writes != EM_EXPECT_WRITES_NO && is_control(addr))
		__atomic_fetch_add(&r->update.written, 1, __ATOMIC_RELAXED);
}
