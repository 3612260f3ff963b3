/* SPDX-License-Identifier: MIT */
/*
 * mremap: the page words follow the pages.
 *
 * A mapping that may move is unregistered first.  Linux copies a mapping with its userfaultfd
 * context, may merge the copy with a registered neighbour, and then takes the context off the
 * result, neighbour and all (seen on 6.18): the neighbour's missing pages would read as zeros.  An
 * unregistered mapping does not merge with registered ones; and it moves even when it
 * consists of several (6.17), as it would natively.  Afterwards everything is registered again.
 * Unregistering lifts the write protection, so clean pages become dirty ones.
 *
 * While it is not registered, who touches it sees zeros instead of what is in the store.  That
 * matters where other threads may do so: not at the old address, which is gone for them at any
 * moment, but at a target that is in use, and where the old mapping stays (DONTUNMAP).  There the content is
 * brought in first, and what does not fit moves in pieces.
 */
#include <errno.h>
#include <sys/mman.h>

#include "range.h"
#include "standby.h"
#include "sys.h"
#include "uffd_compat.h"

#ifndef MREMAP_MAYMOVE
#define MREMAP_MAYMOVE 1
#define MREMAP_FIXED 2
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

struct mremap_call {
	uintptr_t old, addr;
	size_t old_len, new_len; /* page-rounded */
	int flags;
	uintptr_t to; /* result */
	bool present; /* all content is to be mapped while it moves */
};

/* What the word becomes at its new address.  userfaultfd's protection does not survive a move on all
   kernels, so a clean page turns dirty, and may or may not be protected. */
static em_word_t moved_word(uintptr_t old, uintptr_t to, em_word_t w)
{
	em_slot_t slot = em_word_slot(w);
	em_word_t keep = w & (EM_W_PINNED | EM_W_STAMP);

	switch (em_word_state(w)) {
	case EM_CLEAN:
		em_slots_free(em_engine.store, slot);
		/* fall through */
	case EM_DIRTY:
		em_event(old, EXTMEM_EV_GONE, (uint32_t)((w & EM_W_TAG) >> EM_W_TAG_SHIFT));
		return keep | EM_W_MAYBE_WP | EM_DIRTY;
	case EM_STAGED:
		if (em_frame_is_standby(slot)) {
			em_standby_moved(slot, to);
			return em_word_with_slot(keep | EM_STAGED, slot);
		}
		em_stage_discard(w, &slot);
		/* fall through */
	case EM_SWAPPED:
		return em_word_with_slot(keep | EM_SWAPPED, slot);
	case EM_FAILED:
		return em_word_with_slot(keep | EM_FAILED, slot);
	default:
		return keep | EM_ABSENT;
	}
}

struct move {
	const struct mremap_call *c;
	struct em_region *r;
	uintptr_t absent_from; /* start of the run of absent pages at the new place not added yet */
	int err;
};

static void add_absent(struct move *m, uintptr_t upto)
{
	if (m->absent_from < upto && em_space_add(m->absent_from, upto, m->r))
		m->err = -ENOMEM;
}

static void move_page(struct move *m, struct em_block *b, uintptr_t a)
{
	em_word_t *wp = &b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];
	em_word_t w = em_word_load(wp), moved;
	uintptr_t to = m->c->to + (a - m->c->old);

	if (em_word_state(w) == EM_HOLE || em_word_state(w) == EM_ABSENT)
		return;
	moved = moved_word(a, to, w);
	add_absent(m, to);
	m->absent_from = to + EM_PAGE_SIZE;
	if (em_space_adopt(to, moved | EM_W_LOCKED, m->r))
		m->err = -ENOMEM;
	if (em_word_state(moved) == EM_DIRTY)
		em_event(to, EXTMEM_EV_FIRST_TOUCH, 1);
	/* The content has left the old address: nothing to free there any more. */
	while (!__atomic_compare_exchange_n(
		wp, &w, (w & (EM_W_SEG | EM_W_LOCKED | EM_W_WAITERS)) | EM_ABSENT, false,
		__ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
		; /* somebody may begin to wait meanwhile */
}

static void move_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct move *m = arg;

	if (!b)
		return;
	for (uintptr_t a = start; a < end; a += EM_PAGE_SIZE)
		move_page(m, b, a);
}

static void unprotected_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	for (uintptr_t a = start; b && a < end; a += EM_PAGE_SIZE) {
		em_word_t *wp = &b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];
		em_word_t w = em_word_load(wp);

		if (em_word_state(w) == EM_CLEAN &&
		    em_word_take_slot(wp, &w, EM_DIRTY, EM_SLOT_NONE))
			em_slots_free(em_engine.store, em_word_slot(w));
	}
}

/* The range stays where it is: registered as before, clean pages dirty. */
static void register_again(const struct mremap_call *c)
{
	struct em_span_visit v = { unprotected_block, NULL };

	em_space_walk(c->old, c->old + c->old_len, &v);
	if (em_range_register(c->old, c->old + c->old_len))
		em_panic("extmem: mremap: memory cannot be registered again\n");
}

static void unlock_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	(void)arg;
	for (uintptr_t a = start; b && a < end; a += EM_PAGE_SIZE) {
		em_word_t *wp = &b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];

		if (em_word_load(wp) & EM_W_LOCKED)
			em_word_unlock(wp, 0);
	}
}

/* The words of what has content are locked until the new place is registered: reclaim must not come before. */
static void finish_moved(struct em_range_op *op, const struct mremap_call *c)
{
	size_t common = c->old_len < c->new_len ? c->old_len : c->new_len;
	struct move m = { .c = c, .absent_from = c->to };
	struct em_span_visit v = { move_block, &m }, unlock = { unlock_block, NULL };

	m.r = em_region_new(c->to, c->to + c->new_len, EM_REGION_MMAP);
	if (!m.r)
		em_panic("extmem: mremap: no memory for the region\n");
	em_space_walk(c->old, c->old + common, &v);
	add_absent(&m, c->to + c->new_len);
	if (m.err)
		em_panic("extmem: mremap: no memory for page descriptors\n");
	if (c->present)
		em_hazard_populate(c->to, c->to + c->new_len);
	if (em_uffd_register(c->to, c->new_len))
		em_panic("extmem: mremap: moved memory cannot be registered again\n");
	em_space_walk(c->to, c->to + common, &unlock);
	if ((c->flags & MREMAP_DONTUNMAP) && em_range_register(c->old, c->old + c->old_len))
		em_panic("extmem: mremap: memory cannot be registered again\n");
	em_range_finish(op, c->old, c->old + c->old_len,
			c->flags & MREMAP_DONTUNMAP ? EM_RANGE_DISCARD : EM_RANGE_UNMAP);
}

static void finish_in_place(struct em_range_op *op, const struct mremap_call *c)
{
	struct em_region *r = em_range_region_at(c->old);
	uintptr_t old_end = c->old + c->old_len, new_end = c->old + c->new_len;

	if (new_end < old_end) {
		em_range_finish(op, new_end, old_end, EM_RANGE_UNMAP);
		em_range_finish(op, c->old, new_end, EM_RANGE_KEEP);
		return;
	}
	if (new_end > old_end && r && !em_uffd_register(old_end, new_end - old_end)) {
		if (r->end < new_end)
			r->end = new_end;
		if (em_space_add(old_end, new_end, r))
			em_panic("extmem: mremap: no memory for page descriptors\n");
	}
	em_range_finish(op, c->old, old_end, EM_RANGE_KEEP);
}

static bool manages(const struct mremap_call *c)
{
	return em_range_region_at(c->old) ||
	       em_range_region_at(c->old + c->old_len - EM_PAGE_SIZE);
}

/* Pages that were there before their mapping was adopted become known: dirty, and charged. */
static void adopt_present(struct em_range_op *op, uintptr_t start, uintptr_t end)
{
	unsigned char present[256];
	const size_t step = sizeof(present) * EM_PAGE_SIZE;

	for (uintptr_t a = start; a < end; a += step) {
		size_t n = end - a < step ? end - a : step;
		uint32_t found = 0;

		if (em_syscall3(SYS_mincore, a, n, present))
			return;
		for (size_t i = 0; i < n / EM_PAGE_SIZE; i++) {
			uintptr_t page = a + i * EM_PAGE_SIZE;
			bool nomem;
			em_word_t *wp, w;

			if (!(present[i] & 1) || !em_space_block(page, &nomem))
				continue;
			wp = em_space_word(page);
			w = em_word_load(wp);
			if (em_word_state(w) != EM_ABSENT || !em_word_take(wp, &w, EM_FILLING))
				continue;
			em_word_release(wp, EM_DIRTY, EM_SLOT_NONE, 0, EM_W_MAYBE_WP);
			em_event(page, EXTMEM_EV_FIRST_TOUCH, 1);
			found++;
		}
		em_charge(op->t, found);
	}
}

/* A mapping that was too small to manage has grown (realloc): from now on it is managed. */
static bool grows_into_ours(const struct mremap_call *c)
{
	return c->new_len >= em_engine.min_map && c->old_len < em_engine.min_map &&
	       !em_engine.lock_future && em_maps_private_anonymous(c->old);
}

/* A refused MREMAP_FIXED may have unmapped its target before it was refused. */
static enum em_range_action target_action(const struct mremap_call *c, long ret)
{
	unsigned char present[64];
	const size_t step = sizeof(present) * EM_PAGE_SIZE;

	if (!em_is_err(ret))
		return EM_RANGE_VACATE;
	for (size_t off = 0; off < c->new_len; off += step) {
		size_t n = c->new_len - off < step ? c->new_len - off : step;

		if (em_syscall3(SYS_mincore, c->addr + off, n, present) == -ENOMEM)
			return EM_RANGE_UNMAP;
	}
	return EM_RANGE_KEEP;
}

static bool may_move(const struct mremap_call *c)
{
	return (c->flags & MREMAP_FIXED) || (c->flags & MREMAP_DONTUNMAP) ||
	       ((c->flags & MREMAP_MAYMOVE) && c->new_len > c->old_len);
}

static void finish(struct em_range_op *op, struct mremap_call *c, bool managed, bool grown, long ret)
{
	if (c->flags & MREMAP_FIXED)
		em_range_finish(op, c->addr, c->addr + c->new_len, target_action(c, ret));
	if (em_is_err(ret)) {
		em_range_finish(op, c->old, c->old + c->old_len, EM_RANGE_KEEP);
		return;
	}
	c->to = (uintptr_t)ret;
	if (managed && c->to == c->old)
		finish_in_place(op, c);
	else if (managed)
		finish_moved(op, c);
	else if (grown && !em_range_adopt(c->to, c->to + c->new_len, EM_REGION_MMAP))
		adopt_present(op, c->to, c->to + c->old_len);
	if (c->flags & MREMAP_FIXED)
		em_space_trim(c->addr, c->addr + c->new_len);
}

static long do_mremap(const struct mremap_call *c, int flags)
{
	return em_syscall5(SYS_mremap, c->old, c->old_len, c->new_len, flags, c->addr);
}

/* The range is locked. */
static long mremap_managed(struct mremap_call *c)
{
	long ret = -ENOMEM;

	if (!may_move(c))
		return do_mremap(c, c->flags);
	if (!(c->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)))
		ret = do_mremap(c, 0); /* where there is room, nothing has to be unregistered */
	if (ret != -ENOMEM)
		return ret;
	if (em_range_unregister(c->old, c->old + c->old_len))
		em_panic("extmem: mremap: memory cannot be unregistered\n");
	ret = do_mremap(c, c->flags);
	/* Before reclaim can see them at the new place. */
	if (!em_is_err(ret) && (uintptr_t)ret != c->old)
		em_pin_moved(c->old, c->old_len, (uintptr_t)ret);
	else
		register_again(c);
	return ret;
}

static int enter(struct em_range_op *op, const struct mremap_call *c)
{
	uintptr_t end = c->old + c->old_len;
	int ret;

	if (c->present)
		return em_range_enter_present(op, c->old, end, true);
	em_range_enter(op);
	ret = em_range_lock(op, c->old, end);
	if (ret)
		em_range_leave(op);
	return ret;
}

static long remap(struct mremap_call *c)
{
	bool managed, grown;
	struct em_range_op op;
	long ret = enter(&op, c);

	if (ret)
		return ret == -EAGAIN ? -ENOMEM : ret;
	managed = manages(c);
	grown = !managed && grows_into_ours(c);
	if (c->new_len > c->old_len && (managed || grown) &&
	    em_budget_refuses(op.t, (c->new_len - c->old_len) >> EM_PAGE_SHIFT))
		ret = -ENOMEM;
	if (!ret && (c->flags & MREMAP_FIXED))
		ret = em_range_lock(&op, c->addr, c->addr + c->new_len);
	if (ret) {
		em_range_finish(&op, c->old, c->old + c->old_len, EM_RANGE_KEEP);
	} else {
		ret = managed ? mremap_managed(c) : do_mremap(c, c->flags);
		finish(&op, c, managed, grown, ret);
	}
	if (!em_is_err(ret) && managed)
		em_range_leave_refilled(&op, c->to, c->to + c->new_len);
	else
		em_range_leave(&op);
	return ret;
}

/* ---- where others look on --------------------------------------------------------------- */

struct piece {
	uint64_t left; /* pages with content that it may have */
	uintptr_t end;
	bool full;
};

static void measure(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct piece *p = arg;

	for (uintptr_t a = start; b && a < end && !p->full; a += EM_PAGE_SIZE) {
		enum em_state st = em_word_state(
			em_word_load(&b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)]));

		if (st == EM_HOLE || st == EM_ABSENT)
			continue;
		if (!p->left) {
			p->full = true;
			p->end = a;
		} else {
			p->left--;
		}
	}
}

/* As far from start as content can be held at once. */
static uintptr_t piece_end(uintptr_t start, uintptr_t end)
{
	struct piece p = { .left = (uint64_t)em_budget.limit / 4, .end = end };
	struct em_span_visit v = { measure, &p };
	struct em_thread *t = em_thread_self();

	em_enter(t, true);
	em_space_walk(start, end, &v);
	em_leave(t, true);
	return p.end;
}

static bool others_look_on(const struct mremap_call *c)
{
	const int known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
	bool legal = (c->flags & MREMAP_MAYMOVE) && !(c->flags & ~known) &&
		     (!(c->flags & MREMAP_DONTUNMAP) || c->old_len == c->new_len);

	if (!legal || !em_space_may_manage(c->old, c->old_len))
		return false;
	return (c->flags & MREMAP_DONTUNMAP) ||
	       ((c->flags & MREMAP_FIXED) && em_maps_accessible(c->addr, c->addr + c->new_len));
}

static bool is_one_mapping(const struct mremap_call *c)
{
	struct em_mapping m;

	return em_maps_find(c->old, &m) && m.start <= c->old && m.end >= c->old + c->old_len;
}

/* What has moved goes back; the target is gone, as it is after the kernel's own refusal. */
static void move_back(const struct mremap_call *c, size_t len)
{
	struct mremap_call back = { .old = c->addr, .addr = c->old, .old_len = len, .new_len = len,
				    .flags = MREMAP_MAYMOVE | MREMAP_FIXED };

	if (len && em_is_err(remap(&back)))
		em_say("extmem: mremap: a part has moved, the rest cannot, and nor can the part go back\n");
}

/* The last piece brings along what the mapping grows by. */
static long move_in_pieces(const struct mremap_call *c)
{
	size_t done = 0;
	long ret = 0;

	while (done < c->old_len && !em_is_err(ret)) {
		struct mremap_call p = *c;
		uintptr_t end = piece_end(p.old + done, p.old + p.old_len);

		p.old += done;
		p.addr += done;
		p.old_len = end - p.old;
		p.new_len = end == c->old + c->old_len ? c->new_len - done : p.old_len;
		p.present = true;
		ret = remap(&p);
		if (!em_is_err(ret))
			done += p.old_len;
	}
	if (!em_is_err(ret))
		return (long)c->addr;
	move_back(c, done);
	return ret;
}

static long move_large(const struct mremap_call *c)
{
	struct mremap_call m = *c;
	long ret = 0;

	if (m.new_len < m.old_len) {
		ret = em_range_munmap(m.old + m.new_len, m.old_len - m.new_len);
		m.old_len = m.new_len;
	}
	if (!(m.flags & MREMAP_FIXED)) {
		ret = em_sys_mmap(NULL, m.new_len, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		m.addr = (uintptr_t)ret;
		m.flags |= MREMAP_FIXED;
	}
	return em_is_err(ret) ? ret : move_in_pieces(&m);
}

static long remap_looked_on(struct mremap_call *c)
{
	c->present = piece_end(c->old, c->old + c->old_len) == c->old + c->old_len;
	/* Several mappings at once move as the kernel at hand can. */
	return c->present || !is_one_mapping(c) ? remap(c) : move_large(c);
}

long em_range_mremap(uintptr_t old, size_t old_len, size_t new_len, int flags, uintptr_t addr)
{
	struct mremap_call c = { .old = old,
				 .addr = addr,
				 .old_len = em_page_up(old_len),
				 .new_len = em_page_up(new_len),
				 .flags = flags };
	bool fixed = flags & MREMAP_FIXED;
	/* What the kernel refuses anyway, overlapping ranges among it, it shall refuse itself. */
	bool sane = old_len && new_len && !(old & EM_PAGE_MASK) && c.old_len >= old_len &&
		    c.new_len >= new_len && old + c.old_len > old &&
		    (!fixed || (!(addr & EM_PAGE_MASK) && addr + c.new_len > addr &&
				(addr + c.new_len <= old || old + c.old_len <= addr)));
	bool touches = sane && (em_space_may_manage(old, c.old_len) ||
				(fixed && em_space_may_manage(addr, c.new_len)));
	bool grows = sane && c.new_len >= em_engine.min_map && c.old_len < em_engine.min_map;

	if (!touches && !grows)
		return em_syscall5(SYS_mremap, old, old_len, new_len, flags, addr);
	return others_look_on(&c) ? remap_looked_on(&c) : remap(&c);
}
