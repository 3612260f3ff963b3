/* SPDX-License-Identifier: MIT */
/*
 * Range operations that take the registration off memory: meanwhile the kernel fills what is missing with zeros
 * for whoever touches it.  So all content has to be mapped before, and is held until it is locked.
 */
#include <errno.h>

#include "range.h"

enum { TRIES = 16 };

struct look {
	struct em_range_content found;
	struct em_thread *bring_in; /* NULL: only look */
	bool but_failed;	    /* what cannot be read has no content to see */
	int err;
};

static int bring_in(const struct look *l, uintptr_t a)
{
	int ret = em_fault_range(l->bring_in, a, EM_PAGE_SIZE, true);

	return ret == -EFAULT && l->but_failed ? 0 : ret;
}

static void visit(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct look *l = arg;

	for (uintptr_t a = start; b && a < end && !l->err; a += EM_PAGE_SIZE) {
		enum em_state st = em_word_state(
			em_word_load(&b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)]));

		if (st == EM_HOLE || st == EM_ABSENT || (st == EM_FAILED && l->but_failed))
			continue;
		l->found.pages++;
		l->found.away += st != EM_CLEAN && st != EM_DIRTY;
		if (l->bring_in)
			l->err = bring_in(l, a);
	}
}

static void look(struct look *l, uintptr_t start, uintptr_t end)
{
	struct em_span_visit v = { visit, l };

	em_space_walk(start, end, &v);
}

struct em_range_content em_range_content(uintptr_t start, uintptr_t end)
{
	struct em_thread *t = em_thread_self();
	struct look l = { .bring_in = NULL };

	em_enter(t, true);
	look(&l, start, end);
	em_leave(t, true);
	return l.found;
}

static int bring_all_in(struct em_thread *t, uintptr_t start, uintptr_t end, bool but_failed)
{
	struct look l = { .bring_in = t, .but_failed = but_failed };

	em_enter(t, true);
	look(&l, start, end);
	em_leave(t, true);
	return l.err;
}

/* -EAGAIN: not all is there.  Another thread has asked for a page to be paged out, or unmapped and mapped. */
static int enter(struct em_range_op *op, uintptr_t start, uintptr_t end, bool but_failed)
{
	struct look l = { .but_failed = but_failed };
	int ret;

	em_range_enter(op);
	ret = em_range_lock(op, start, end);
	if (!ret) {
		look(&l, start, end);
		if (!l.found.away)
			return 0;
		em_range_finish(op, start, end, EM_RANGE_KEEP);
		ret = -EAGAIN;
	}
	em_range_leave(op);
	return ret;
}

int em_range_enter_present(struct em_range_op *op, uintptr_t start, uintptr_t end, bool but_failed)
{
	struct em_thread *t = em_thread_self();
	uint32_t mark = em_hazard_begin(t, (uintptr_t)&t);
	int ret = -EAGAIN;

	em_hazard_push(t, start, end - start, (uintptr_t)&t);
	for (int i = 0; i < TRIES && ret == -EAGAIN; i++) {
		ret = bring_all_in(t, start, end, but_failed);
		if (!ret)
			ret = enter(op, start, end, but_failed);
	}
	em_hazard_pop(t, mark); /* locked now, or given up */
	return ret;
}
