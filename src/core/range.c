/* SPDX-License-Identifier: MIT */
#include "range.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "sys.h"
#include "uffd_compat.h"

static struct em_mutex map_lock;
static const struct em_thread *map_owner; /* who holds it */
static uint64_t op_ids;

enum { CHECK_EVERY = 64 };

#define HOLE_CLEAR (EM_W_TAG | EM_W_STAMP | EM_W_SEG | EM_W_MAYBE_WP)
#define ABSENT_CLEAR (EM_W_TAG | EM_W_STAMP | EM_W_MAYBE_WP)

/* The lock before the section: whoever waits for it must not hold up a fork. */
static void block_signals(struct em_range_op *op)
{
	uint64_t all = ~0ull;

	op->t = em_thread_self();
	if (!op->t)
		em_panic("extmem: no memory for a thread context\n");
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &op->mask, sizeof(all));
}

static void begin(struct em_range_op *op)
{
	em_enter(op->t, false);
	__atomic_store_n(&map_owner, op->t, __ATOMIC_RELAXED);
	op->id = ++op_ids;
	em_retire_poll();
}

void em_range_enter(struct em_range_op *op)
{
	block_signals(op);
	em_mutex_lock(&map_lock);
	begin(op);
}

bool em_range_try_enter(struct em_range_op *op, uint64_t wait_ms)
{
	uint64_t end = em_now_ns() + wait_ms * 1000000;
	const struct timespec pause = { 0, 1000000 };

	block_signals(op);
	while (!em_mutex_trylock(&map_lock)) {
		if (em_now_ns() > end) {
			em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &op->mask, NULL, sizeof(op->mask));
			return false;
		}
		em_syscall2(SYS_nanosleep, &pause, NULL);
	}
	begin(op);
	return true;
}

void em_range_leave(struct em_range_op *op)
{
	if (op->id % CHECK_EVERY == 0)
		em_space_check(op->t);
	em_leave(op->t, false);
	__atomic_store_n(&map_owner, NULL, __ATOMIC_RELAXED);
	em_mutex_unlock(&map_lock);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &op->mask, NULL, sizeof(op->mask));
}

void em_range_leave_refilled(struct em_range_op *op, uintptr_t start, uintptr_t end)
{
	bool held = em_hazard_held(start, end);

	em_range_leave(op);
	if (!held)
		return;
	em_enter(op->t, true);
	em_hazard_refill(op->t, start, end);
	em_leave(op->t, true);
}

bool em_range_settles(const struct em_thread *t, uintptr_t addr)
{
	bool managed;

	if (t->depth || __atomic_load_n(&map_owner, __ATOMIC_RELAXED) == t)
		return false;
	em_mutex_lock(&map_lock); /* blocks and regions are given back under it: no section is needed */
	managed = em_range_region_at(addr) != NULL;
	em_mutex_unlock(&map_lock);
	return managed;
}

/* ---- locking -------------------------------------------------------------------------- */

struct walk {
	struct em_range_op *op;
	uintptr_t start, end;
	enum em_range_action action;
	uint32_t resident;
	int err;
};

static void lock_pages(struct em_block *b, uintptr_t start, uintptr_t end)
{
	for (uintptr_t a = start; a < end; a += EM_PAGE_SIZE) {
		em_word_t *wp = &b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];

		if (em_word_state(em_word_load(wp)) != EM_HOLE)
			em_word_lock(wp);
	}
}

static void lock_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct walk *w = arg;
	bool nomem;

	if (!b && end - start >= EM_BLOCK_SIZE)
		return; /* lazy: nothing there */
	if (!b)
		b = em_space_block(start, &nomem);
	if (!b) {
		w->err = -ENOMEM;
		return;
	}
	lock_pages(b, start, end);
	b->range_op = w->op->id;
}

int em_range_lock(struct em_range_op *op, uintptr_t start, uintptr_t end)
{
	struct walk w = { .op = op };
	struct em_span_visit v = { lock_block, &w };

	em_space_walk(start, end, &v);
	if (w.err)
		em_range_finish(op, start, end, EM_RANGE_KEEP);
	return w.err;
}

/* ---- finishing -------------------------------------------------------------------------- */

uint32_t em_range_free_content(uintptr_t addr, em_word_t w)
{
	em_slot_t slot = em_word_slot(w);
	enum em_state st = em_word_state(w);

	if (st == EM_STAGED)
		em_stage_discard(w, &slot);
	if ((st == EM_STAGED || st == EM_SWAPPED || st == EM_CLEAN || st == EM_FAILED) &&
	    slot != EM_SLOT_NONE)
		em_slots_free(em_engine.store, slot);
	if (st != EM_CLEAN && st != EM_DIRTY)
		return 0;
	em_event(addr, EXTMEM_EV_GONE, (uint32_t)((w & EM_W_TAG) >> EM_W_TAG_SHIFT));
	return 1;
}

static void finish_page(struct walk *k, struct em_block *b, uintptr_t a)
{
	em_word_t *wp = &b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];
	em_word_t w = em_word_load(wp);

	if (em_word_state(w) == EM_HOLE)
		return;
	if (k->action == EM_RANGE_KEEP) {
		em_word_unlock(wp, 0);
		return;
	}
	k->resident += em_range_free_content(a, w);
	if (k->action == EM_RANGE_DISCARD) {
		em_word_release(wp, EM_ABSENT, EM_SLOT_NONE, ABSENT_CLEAR, 0);
	} else {
		em_word_pin(wp, false);
		em_word_release(wp, EM_HOLE, EM_SLOT_NONE, HOLE_CLEAR, 0);
		em_space_forget(b, (uint32_t)((w & EM_W_SEG) >> EM_W_SEG_SHIFT));
	}
}

static void finish_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct walk *k = arg;
	bool nomem;

	if (!b && k->action != EM_RANGE_UNMAP && k->action != EM_RANGE_VACATE)
		return;
	if (!b && end - start >= EM_BLOCK_SIZE && em_space_drop_lazy(start, end))
		return;
	if (end - start > EM_BLOCK_SIZE) { /* touched meanwhile: block by block */
		for (uintptr_t a = start; a < end; a += EM_BLOCK_SIZE)
			finish_block(arg, a, a + EM_BLOCK_SIZE, NULL);
		return;
	}
	if (!b)
		b = em_space_block(start, &nomem);
	if (!b)
		return;
	if (b->range_op != k->op->id) {
		if (k->action == EM_RANGE_KEEP)
			return;
		lock_pages(b, start, end);
	}
	for (uintptr_t a = start; a < end; a += EM_PAGE_SIZE)
		finish_page(k, b, a);
}

void em_range_finish(struct em_range_op *op, uintptr_t start, uintptr_t end,
		     enum em_range_action action)
{
	struct walk k = { .op = op, .action = action };
	struct em_span_visit v = { finish_block, &k };

	em_space_walk(start, end, &v);
	em_uncharge(k.resident);
	if (action == EM_RANGE_DISCARD)
		em_stat_add(pages_discarded, k.resident);
	if (action == EM_RANGE_UNMAP || action == EM_RANGE_VACATE)
		em_pin_unmapped(start, end);
	if (action == EM_RANGE_UNMAP)
		em_space_trim(start, end);
}

/* ---- adopting ------------------------------------------------------------------------------ */

struct em_region *em_range_region_at(uintptr_t addr)
{
	uintptr_t v = em_space_value(addr);
	em_word_t *wp;

	if (em_entry_is_lazy(v))
		return (struct em_region *)(v & ~EM_ENTRY_LAZY);
	wp = em_space_word(addr);
	if (!wp || em_word_state(em_word_load(wp)) == EM_HOLE)
		return NULL;
	return ((struct em_block *)v)->seg[(em_word_load(wp) & EM_W_SEG) >> EM_W_SEG_SHIFT];
}

uint64_t em_range_adopted;

int em_range_adopt(uintptr_t start, uintptr_t end, enum em_region_kind kind)
{
	struct em_region *r = NULL;
	int ret;

	if ((end - 1) >> EM_ADDR_BITS)
		return -ERANGE; /* asked for by a hint on a machine with five-level page tables */
	if (kind == EM_REGION_HEAP) {
		r = em_range_region_at(start - EM_PAGE_SIZE);
		if (r && r->kind == EM_REGION_HEAP)
			r->end = end;
		else
			r = NULL;
	}
	if (!r)
		r = em_region_new(start, end, kind);
	/* First the words: whoever touches it meanwhile gets zeros from the kernel, and none of our faults.  Calls
	   that begin now find words and wait; those before have their pages then. */
	ret = r ? em_space_add(start, end, r) : -ENOMEM;
	if (!ret) {
		em_hazard_populate(start, end);
		__atomic_fetch_add(&em_range_adopted, 1, __ATOMIC_SEQ_CST);
		ret = em_uffd_register(start, end - start);
	}
	if (ret) {
		struct em_range_op op = { .id = ++op_ids };

		em_range_finish(&op, start, end, EM_RANGE_UNMAP);
	}
	return ret;
}

/* ---- registration of what is managed already ------------------------------------------ */

struct registration {
	bool on;
	int err;
};

static void register_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct registration *r = arg;
	uintptr_t a = start, run;

	if (!b && end - start >= EM_BLOCK_SIZE) {
		if (!r->err)
			r->err = r->on ? em_uffd_register(a, end - a)
				       : em_uffd_unregister(a, end - a);
		return;
	}
	while (a < end && !r->err) {
		for (run = a; run < end && em_range_region_at(run); run += EM_PAGE_SIZE)
			;
		if (run > a)
			r->err = r->on ? em_uffd_register(a, run - a) : em_uffd_unregister(a, run - a);
		a = run > a ? run : a + EM_PAGE_SIZE;
	}
}

static int set_registration(uintptr_t start, uintptr_t end, bool on)
{
	struct registration r = { .on = on };
	struct em_span_visit v = { register_block, &r };

	em_space_walk(start, end, &v);
	return r.err;
}

int em_range_register(uintptr_t start, uintptr_t end)
{
	return set_registration(start, end, true);
}

int em_range_unregister(uintptr_t start, uintptr_t end)
{
	return set_registration(start, end, false);
}

/* ---- mmap, munmap, brk ------------------------------------------------------------------------- */

long em_range_munmap(uintptr_t addr, size_t len)
{
	uintptr_t end = em_page_up(addr + len);
	struct em_range_op op;
	long ret;

	if ((addr & EM_PAGE_MASK) || !len || end < addr || !em_space_may_manage(addr, end - addr))
		return em_sys_munmap((void *)addr, len);
	em_range_enter(&op);
	ret = em_range_lock(&op, addr, end);
	if (!ret) {
		ret = em_sys_munmap((void *)addr, len);
		em_range_finish(&op, addr, end, ret ? EM_RANGE_KEEP : EM_RANGE_UNMAP);
	}
	em_range_leave(&op);
	return ret;
}

static bool wants_management(uintptr_t addr, size_t len, int flags)
{
	const int not_ours = MAP_STACK | MAP_GROWSDOWN | MAP_HUGETLB | MAP_LOCKED;

	if ((flags & (MAP_ANONYMOUS | MAP_TYPE)) != (MAP_ANONYMOUS | MAP_PRIVATE) ||
	    (flags & not_ours) || !len)
		return false;
	if (len >= em_engine.min_map)
		return !em_engine.lock_future;
	/* A small piece laid over managed memory (a reservation being committed), or into a hole beside it,
	   is part of it for the program, which may mremap across both. */
	if (!(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) || (addr & EM_PAGE_MASK))
		return false;
	return em_range_region_at(addr) || em_range_region_at(addr - EM_PAGE_SIZE) ||
	       em_range_region_at(em_page_up(addr + len));
}

static void populate(struct em_thread *t, uintptr_t start, uintptr_t end, int prot)
{
	uint64_t most = (uint64_t)em_budget.limit / 2 * EM_PAGE_SIZE;

	if (prot == PROT_NONE)
		return;
	if (end - start > most)
		end = start + most;
	em_enter(t, true);
	em_fault_range(t, start, end - start, prot & PROT_WRITE);
	em_leave(t, true);
}

long em_range_mmap(uintptr_t addr, size_t len, int prot, int flags, int fd, int64_t off)
{
	uintptr_t end = em_page_up(addr + len);
	bool over = (flags & MAP_FIXED) && !(addr & EM_PAGE_MASK) && end > addr &&
		    em_space_may_manage(addr, len);
	bool ours = wants_management(addr, len, flags);
	struct em_range_op op;
	long ret;

	if (!over && !ours)
		return em_sys_mmap((void *)addr, len, prot, flags, fd, off);
	em_range_enter(&op);
	ours = wants_management(addr, len, flags);
	ret = over ? em_range_lock(&op, addr, end) : 0;
	if (ours && !over && (prot & PROT_WRITE) && !(flags & MAP_NORESERVE) &&
	    em_budget_refuses(op.t, len >> EM_PAGE_SHIFT))
		ret = -ENOMEM;
	if (ret) {
		em_range_leave(&op);
		return ret;
	}
	ret = em_sys_mmap((void *)addr, len, prot, ours ? flags & ~MAP_POPULATE : flags, fd, off);
	if (over)
		em_range_finish(&op, addr, end, em_is_err(ret) ? EM_RANGE_KEEP
						: ours	       ? EM_RANGE_VACATE
							       : EM_RANGE_UNMAP);
	if (!em_is_err(ret) && ours) {
		end = em_page_up((uintptr_t)ret + len);
		ours = !em_range_adopt((uintptr_t)ret, end, EM_REGION_MMAP);
		em_space_trim((uintptr_t)ret, end);
	}
	if (!em_is_err(ret) && ours)
		em_range_leave_refilled(&op, (uintptr_t)ret, end);
	else
		em_range_leave(&op);
	if (!em_is_err(ret) && ours && (flags & MAP_POPULATE))
		populate(op.t, (uintptr_t)ret, end, prot);
	return ret;
}

long em_range_brk(uintptr_t addr)
{
	struct em_range_op op;
	uintptr_t old, old_end, new_end;
	long ret;

	em_range_enter(&op);
	old = (uintptr_t)em_syscall1(SYS_brk, 0);
	old_end = em_page_up(old);
	new_end = em_page_up(addr);
	if (addr && new_end < old_end && em_range_lock(&op, new_end, old_end)) {
		em_range_leave(&op);
		return (long)old;
	}
	if (addr && new_end > old_end &&
	    em_budget_refuses(op.t, (new_end - old_end) >> EM_PAGE_SHIFT)) {
		em_range_leave(&op);
		return (long)old;
	}
	ret = em_syscall1(SYS_brk, addr);
	if (addr && new_end < old_end)
		em_range_finish(&op, new_end, old_end,
				(uintptr_t)ret == addr ? EM_RANGE_UNMAP : EM_RANGE_KEEP);
	else if (addr && (uintptr_t)ret == addr && new_end > old_end && !em_engine.lock_future)
		em_range_adopt(old_end, new_end, EM_REGION_HEAP);
	em_range_leave(&op);
	return ret;
}
