/* SPDX-License-Identifier: MIT */
/*
 * Memory that is given back to the kernel for good, because somebody else has to decide what its missing
 * pages are: the kernel at fork (MADV_WIPEONFORK), or the program with a userfaultfd of its own.
 *
 * What is in the store comes back first; what was never touched stays untouched, so that a
 * userfaultfd of the program sees its faults.
 */
#include <errno.h>

#include "range.h"

enum { TRIES = 16 };

struct release {
	uint64_t pages; /* with content */
	uint64_t away;	/* of these not mapped */
	struct em_thread *bring_in; /* NULL: only look */
	int err;
};

static void visit(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct release *r = arg;

	for (uintptr_t a = start; b && a < end && !r->err; a += EM_PAGE_SIZE) {
		enum em_state st = em_word_state(
			em_word_load(&b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)]));

		if (st == EM_HOLE || st == EM_ABSENT)
			continue;
		r->pages++;
		r->away += st != EM_CLEAN && st != EM_DIRTY;
		if (r->bring_in)
			r->err = em_fault_range(r->bring_in, a, EM_PAGE_SIZE, true);
	}
}

static struct release look(struct em_thread *t, uintptr_t start, uintptr_t end, bool bring_in)
{
	struct release r = { .bring_in = bring_in ? t : NULL };
	struct em_span_visit v = { visit, &r };

	em_enter(t, true);
	em_space_walk(start, end, &v);
	em_leave(t, true);
	return r;
}

/* -EAGAIN: not all is there.  Another thread has asked for a page to be paged out, or unmapped and mapped. */
static int let_go(uintptr_t start, uintptr_t end)
{
	struct release r = { 0 };
	struct em_span_visit v = { visit, &r };
	struct em_range_op op;
	int ret;

	em_range_enter(&op);
	ret = em_range_lock(&op, start, end);
	if (!ret) {
		em_space_walk(start, end, &v);
		if (r.away)
			ret = -EAGAIN;
		else
			ret = em_range_unregister(start, end);
		em_range_finish(&op, start, end, ret ? EM_RANGE_KEEP : EM_RANGE_UNMAP);
	}
	em_range_leave(&op);
	return ret;
}

int em_range_release(uintptr_t start, uintptr_t end)
{
	struct em_thread *t = em_thread_self();
	uint32_t mark = em_hazard_begin(t, (uintptr_t)&t);
	int ret = -EAGAIN;

	em_hazard_push(t, start, end - start, (uintptr_t)&t);
	for (int i = 0; i < TRIES && ret == -EAGAIN; i++) {
		ret = -ENOMEM;
		if (look(t, start, end, false).pages <= (uint64_t)em_budget.limit * 3 / 4)
			ret = look(t, start, end, true).err;
		if (!ret)
			ret = let_go(start, end);
	}
	em_hazard_pop(t, mark);
	return ret;
}
