/* SPDX-License-Identifier: MIT */
/*
 * Reading around lone faults where it pays.
 *
 * Access in no order may still be dense: a merge sort compares lines all over the text, and within a short
 * while all pages near a fault are wanted too.  Reading them with the page costs little: one transfer of
 * 32 KiB takes hardly longer than one of 4.  Where access is sparse as well, seven pages of eight would
 * push out better ones.
 *
 * Which of the two it is shows in groups that are never read around (one in CONTROL, by a hash
 * of their number): how many more faults of the same group follow the first one while what had
 * been brought along would still be resident?  Those are the faults saved.  The kernel
 * adapts its swap read-ahead by hits on the pages read (Linux, swap_vma_readahead, 4.14), which
 * needs accessed bits; control groups need none, and are as good an estimate while nothing is read around.
 *
 * A neighbour stays for about as long as the inactive list, a tenth of the budget, turns over.
 */
#include "around.h"

#include <errno.h>
#include <stdbool.h>

enum {
	TABLE = 4096,	/* control groups watched at a time */
	CONTROL = 16,
	ROUND = 128,	/* control groups a decision is made by */
	ON = 100,	/* more faults in a hundred groups, to begin */
	OFF = 70,	/* to go on */
	STAMP_BITS = 31,
	TURNOVER = 10,
	WINDOW_LEAST = 64,
};

int em_around_init(struct em_around *a, const struct extmem_policy_host *host)
{
	a->host = host;
	a->seen = host->alloc(TABLE * sizeof(*a->seen));
	return a->seen ? 0 : -ENOMEM;
}

static uint32_t hash(uint64_t group)
{
	return (uint32_t)(group * 0x9e3779b97f4a7c15ull >> 32);
}

static void decide(struct em_around *a)
{
	uint32_t groups = __atomic_exchange_n(&a->groups, 0, __ATOMIC_RELAXED);
	uint32_t more = __atomic_exchange_n(&a->more, 0, __ATOMIC_RELAXED);

	if (groups < ROUND / 2) /* another thread was here just now */
		return;
	__atomic_store_n(&a->on, more * 100ull >= groups * (uint64_t)(a->on ? OFF : ON),
			 __ATOMIC_RELAXED);
}

/* A fault in a control group, at time `now`. */
static void watch(struct em_around *a, uint64_t group, uint32_t h, uint32_t now)
{
	uint64_t window = a->host->budget_pages() / TURNOVER, *at, was;
	uint32_t age;

	if (window < WINDOW_LEAST)
		window = WINDOW_LEAST;
	/* In a large budget a part of the control groups is enough. */
	if ((h >> 16) % (window / CONTROL / TABLE + 1))
		return;
	at = &a->seen[h / CONTROL % TABLE];
	was = __atomic_load_n(at, __ATOMIC_RELAXED);
	age = (now - (uint32_t)was) & ((1u << STAMP_BITS) - 1);
	if (was >> STAMP_BITS == group && age < window) {
		__atomic_fetch_add(&a->more, 1, __ATOMIC_RELAXED);
		return;
	}
	__atomic_store_n(at, group << STAMP_BITS | (now & ((1u << STAMP_BITS) - 1)),
			 __ATOMIC_RELAXED);
	if (__atomic_add_fetch(&a->groups, 1, __ATOMIC_RELAXED) >= ROUND)
		decide(a);
}

size_t em_around_fault(struct em_around *a, const struct extmem_fault *f, struct extmem_range *out)
{
	uint64_t group = f->page / EM_AROUND_PAGES, first, end;
	uint32_t h = hash(group), on = __atomic_load_n(&a->on, __ATOMIC_RELAXED);
	bool control = h % CONTROL == 0;
	uint32_t now = __atomic_fetch_add(&a->clock, on && !control ? EM_AROUND_PAGES : 1,
					  __ATOMIC_RELAXED);

	if (control) {
		watch(a, group, h, now);
		return 0;
	}
	if (!on)
		return 0;
	first = group * EM_AROUND_PAGES;
	end = first + EM_AROUND_PAGES;
	if (first < f->region_first)
		first = f->region_first;
	if (end > f->region_end)
		end = f->region_end;
	*out = (struct extmem_range){ first, (uint32_t)(end - first) };
	return 1;
}
