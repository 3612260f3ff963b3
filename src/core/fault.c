/* SPDX-License-Identifier: MIT */
/*
 * The fault engine: what happens when a managed page is touched and is not there, or
 * is write-protected.  The same code serves the upcall, the handler threads and the
 * system-call hooks.  Runs inside an engine section.  Here is what decides; what is done
 * then is in minor.c and swapin.c.
 */
#include "fault.h"

enum { COMING_TURNS = 10000 };

static struct em_region *region_of(const struct em_block *b, em_word_t w)
{
	return __atomic_load_n(&b->seg[(w & EM_W_SEG) >> EM_W_SEG_SHIFT], __ATOMIC_ACQUIRE);
}

/* ---- the decision ---------------------------------------------------------------------------- */

/* One step; EM_FAULT_DONE: the page is usable or worth another look. *again: look again. */
static enum em_fault_result step(struct em_site *s, em_word_t w, bool *again)
{
	*again = true;
	switch (em_word_state(w)) {
	case EM_HOLE:
		return EM_FAULT_NOT_OURS;
	case EM_ABSENT:
		return em_minor_first_touch(s, w);
	case EM_SWAPPED:
		return em_swapin_demand(s, w);
	case EM_STAGED:
		return em_swapin_staged(s, w);
	case EM_CLEAN:
		if (s->write)
			return em_minor_upgrade(s, w);
		*again = false;
		return EM_FAULT_DONE;
	case EM_DIRTY:
		if (s->write && (w & EM_W_MAYBE_WP))
			return em_minor_upgrade(s, w);
		*again = false;
		return EM_FAULT_DONE;
	case EM_WRITEBACK:
		if (s->write)
			return em_minor_upgrade(s, w);
		*again = false;
		return EM_FAULT_DONE;
	case EM_FAILED:
		/* Perhaps the store has come back.  Not where the kernel has been told to raise SIGBUS
		   by itself: that stays until the page is discarded. */
		if (em_engine.opt.delivery == EM_DELIVERY_UPCALL)
			return em_swapin_demand(s, w);
		return EM_FAULT_FAILED;
	default: /* in transit: em_fault has waited for it */
		return EM_FAULT_DONE;
	}
}

/*
 * A writer may take a page that is being written, and then it may be out again before the kernel has come to read
 * it for that write.  An upcall's process is told so (EFAULT); with handler threads the kernel waits for one of
 * them, and has the store's file locked meanwhile, which the handler needs to bring the page in.
 */
static bool may_steal(void)
{
	return em_engine.opt.delivery == EM_DELIVERY_UPCALL;
}

static bool must_wait(em_word_t w, bool write)
{
	if (em_word_state(w) == EM_WRITEBACK)
		return (w & EM_W_LOCKED) || (write && !may_steal());
	return (w & EM_W_LOCKED) || !em_state_is_stable(em_word_state(w));
}

enum em_fault_result em_fault(struct em_thread *t, uintptr_t addr, bool write)
{
	struct em_site s = { .t = t, .addr = em_page_down(addr), .write = write };
	enum em_fault_result res;
	bool nomem, again, waited = false;
	em_word_t w;

	s.b = em_space_block(addr, &nomem);
	if (!s.b)
		return nomem ? EM_FAULT_NOMEM : EM_FAULT_NOT_OURS;
	s.wp = &s.b->word[(addr >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];
	for (;;) {
		w = em_word_load(s.wp);
		if (must_wait(w, write)) {
			if (!waited)
				em_stat_inc(faults_waited);
			waited = true;
			em_word_wait(s.wp, w);
			continue;
		}
		s.r = region_of(s.b, w);
		if (!s.r && em_word_state(w) != EM_HOLE)
			continue; /* being unmapped under our eyes: the word is about to change */
		res = step(&s, w, &again);
		/* Who waited for a handler thread goes on at once, and may have discarded the page already. */
		if (res != EM_FAULT_DONE || !again || s.served)
			break;
	}
	/* The mapping went away while we waited: let the access find out by itself. */
	if (res == EM_FAULT_NOT_OURS && waited)
		res = EM_FAULT_DONE;
	return res;
}

/*
 * A page thrown away by a system call that we did not see (a site that could not be patched) is empty, as it would
 * be natively, and so it has no copy in the store any more, nor gets one by a write that is under way.  If it is
 * mapped after all it can only be protected.
 */
void em_fault_resync(uintptr_t addr)
{
	em_word_t *wp = em_space_word(addr), w = wp ? em_word_load(wp) : 0;
	enum em_state st = em_word_state(w);
	uint32_t done;
	int ret;

	if ((st != EM_DIRTY && st != EM_CLEAN && st != EM_WRITEBACK) || (w & EM_W_LOCKED) ||
	    !em_word_take_slot(wp, &w, EM_UPGRADE, EM_SLOT_NONE))
		return;
	em_stat_inc(faults_spurious);
	ret = em_uffd_zero(em_page_down(addr), 1, &done);
	em_word_release(wp, EM_DIRTY, EM_SLOT_NONE, EM_W_MAYBE_WP, ret ? EM_W_MAYBE_WP : 0);
	if (st == EM_CLEAN)
		em_slots_free(em_engine.store, em_word_slot(w));
}

/* The kernel may read (write) a page under a hazard in exactly these states. */
static bool usable(em_word_t w, bool write)
{
	enum em_state st = em_word_state(w);

	if (w & EM_W_LOCKED)
		return false;
	if (write)
		return st == EM_DIRTY && !(w & EM_W_MAYBE_WP);
	return st == EM_DIRTY || st == EM_CLEAN || st == EM_WRITEBACK;
}

bool em_fault_is_there(uintptr_t addr, bool write)
{
	em_word_t *wp = em_space_word(addr);

	return wp && usable(em_word_load(wp), write);
}

/* Its mapping is about to be registered, by a range operation that does not wait for us. */
static bool is_coming(em_word_t *wp, uint32_t *turns)
{
	if (!wp || em_word_state(em_word_load(wp)) != EM_ABSENT || ++*turns > COMING_TURNS)
		return false;
	em_give_way(*turns);
	return true;
}

static int fault_page(struct em_thread *t, uintptr_t a, bool write)
{
	uint32_t turns = 0;

	for (;;) {
		em_word_t *wp = em_space_word(a);

		if (wp && usable(em_word_load(wp), write))
			return 0;
		switch (em_fault(t, a, write)) {
		case EM_FAULT_DONE:
			if (!em_space_word(a) || em_word_state(em_word_load(em_space_word(a))) == EM_HOLE)
				return 0;
			continue;
		case EM_FAULT_NOT_OURS:
			if (is_coming(wp, &turns))
				continue;
			return 0;
		case EM_FAULT_NOMEM:
		case EM_FAULT_FULL:
			return -ENOMEM;
		case EM_FAULT_FAILED:
			return -EFAULT;
		}
	}
}

int em_fault_range(struct em_thread *t, uintptr_t addr, size_t len, bool write)
{
	uintptr_t end = em_page_up(addr + len);
	int ret;

	for (uintptr_t a = em_page_down(addr); a < end; a += EM_PAGE_SIZE) {
		if (!em_space_value(a)) {
			a = (a & ~(EM_BLOCK_SIZE - 1)) + EM_BLOCK_SIZE - EM_PAGE_SIZE;
			continue;
		}
		ret = fault_page(t, a, write);
		if (ret)
			return ret;
	}
	return 0;
}

/* ---- from outside a section ------------------------------------------------------------------- */

static long range_for(const long *arg)
{
	struct em_thread *t = em_thread_self();
	long ret;

	em_enter(t, true);
	ret = em_fault_range(t, (uintptr_t)arg[0], (size_t)arg[1], arg[2]);
	em_leave(t, true);
	return ret;
}

int em_fault_in(struct em_thread *t, uintptr_t addr, size_t len, bool write)
{
	const long arg[EM_PROXY_ARGS] = { (long)addr, (long)len, write };

	return (int)em_proxy_call(t, range_for, arg);
}

static long fault_for(const long *arg)
{
	struct em_thread *t = em_thread_self();
	long res;

	em_enter(t, true);
	res = em_fault(t, (uintptr_t)arg[0], arg[1]);
	em_leave(t, true);
	return res;
}

enum em_fault_result em_fault_serve(struct em_thread *t, uintptr_t addr, bool write)
{
	const long arg[EM_PROXY_ARGS] = { (long)addr, write };

	return (enum em_fault_result)em_proxy_call(t, fault_for, arg);
}
