/* SPDX-License-Identifier: MIT */
/*
 * Pages that stay in memory: mlock, and what the engine itself needs there.
 */
#include <errno.h>

#include "range.h"
#include "sys.h"

/*
 * What the engine itself keeps in memory (alternate stacks, thread blocks) the program cannot let go of with
 * munlock.  With more of it than fits here it cannot let go of anything.
 */
enum { KEPT = 64 };
static struct {
	struct em_mutex lock;
	bool overflow;
	struct {
		uintptr_t start, end;
	} range[KEPT];
} kept;

/* [engine] */
static void keep(uintptr_t start, uintptr_t end)
{
	int at = -1;

	em_mutex_lock(&kept.lock);
	for (int k = KEPT - 1; k >= 0; k--) {
		if (!kept.range[k].end)
			at = k;
		else if (kept.range[k].start <= start && kept.range[k].end >= end)
			goto out;
	}
	if (at >= 0) {
		kept.range[at].start = start;
		kept.range[at].end = end;
	} else {
		kept.overflow = true;
	}
out:
	em_mutex_unlock(&kept.lock);
}

void em_pin_unmapped(uintptr_t start, uintptr_t end)
{
	em_mutex_lock(&kept.lock);
	for (int k = 0; k < KEPT; k++)
		if (kept.range[k].start >= start && kept.range[k].end <= end)
			kept.range[k].start = kept.range[k].end = 0;
	em_mutex_unlock(&kept.lock);
}

static bool is_kept(uintptr_t page)
{
	for (int k = 0; k < KEPT; k++)
		if (page >= kept.range[k].start && page < kept.range[k].end)
			return true;
	return kept.overflow;
}

struct pin {
	bool on;
	uint64_t already; /* were pinned */
};

static void pin_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	const struct pin *p = arg;

	for (uintptr_t a = start; b && a < end; a += EM_PAGE_SIZE) {
		em_word_t *wp = &b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];

		if (em_word_state(em_word_load(wp)) != EM_HOLE && (p->on || !is_kept(a)))
			em_word_pin(wp, p->on);
	}
}

static void count_pinned(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct pin *p = arg;

	for (uintptr_t a = start; b && a < end; a += EM_PAGE_SIZE)
		p->already += !!(em_word_load(em_space_word(a)) & EM_W_PINNED);
}

/* Three quarters of the budget may be pinned in all. [engine] */
bool em_pin_allowed(uintptr_t start, uintptr_t end)
{
	struct pin p = { true, 0 };
	struct em_span_visit v = { count_pinned, &p };
	uint64_t pages = (end - start) >> EM_PAGE_SHIFT, most = (uint64_t)em_budget.limit * 3 / 4;

	if (pages > most)
		return false;
	em_space_walk(start, end, &v);
	return pages - p.already + (uint64_t)em_budget.pinned <= most;
}

/* Under a hazard, so that nothing leaves between coming in and being marked. [engine] */
int em_pin_range(struct em_thread *t, uintptr_t start, uintptr_t end)
{
	struct pin p = { true, 0 };
	struct em_span_visit v = { pin_block, &p };
	uint32_t mark = t->nhazards;
	int ret;

	em_hazard_push(t, start, end - start, (uintptr_t)&p);
	ret = em_fault_range(t, start, end - start, true);
	if (!ret)
		em_space_walk(start, end, &v);
	em_hazard_pop(t, mark);
	return ret;
}

static long pin_for(const long *arg)
{
	struct em_thread *t = em_thread_self();
	int ret;

	em_enter(t, true);
	keep((uintptr_t)arg[0], (uintptr_t)arg[1]);
	ret = em_pin_range(t, (uintptr_t)arg[0], (uintptr_t)arg[1]);
	em_leave(t, true);
	return ret;
}

int em_range_pin(uintptr_t addr, size_t len)
{
	const long arg[EM_PROXY_ARGS] = { (long)em_page_down(addr), (long)em_page_up(addr + len) };

	return (int)em_proxy_call(em_thread_self(), pin_for, arg);
}

/* The pages are brought in and marked PINNED, which reclaim never chooses, and then locked by the
   kernel. */
long em_range_mlock(long nr, uintptr_t addr, size_t len, long flags)
{
	uintptr_t start = em_page_down(addr), end = em_page_up(addr + len);
	struct pin p = { false, 0 };
	struct em_span_visit v = { pin_block, &p };
	struct em_thread *t = em_thread_self();
	long ret = 0;

	if (end <= start || !em_space_may_manage(addr, len))
		return em_syscall3(nr, addr, len, flags);
	em_enter(t, true);
	if (nr != SYS_munlock)
		ret = em_pin_allowed(start, end) ? em_pin_range(t, start, end) : -ENOMEM;
	if (!ret) {
		ret = em_syscall3(nr, addr, len, flags);
		/* What was locked before it failed will refuse to be dropped, and is marked then. */
		if (nr == SYS_munlock || ret)
			em_space_walk(start, end, &v);
	}
	em_leave(t, true);
	return ret;
}

long em_range_munlockall(void)
{
	struct pin p = { false, 0 };
	struct em_span_visit v = { pin_block, &p };
	struct em_thread *t = em_thread_self();
	long ret = em_syscall0(SYS_munlockall);

	em_engine.lock_future = em_engine.plain;
	em_enter(t, true);
	em_space_walk(0, 1ul << EM_ADDR_BITS, &v);
	em_leave(t, true);
	return ret;
}
