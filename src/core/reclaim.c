/* SPDX-License-Identifier: MIT */
/*
 * Reclaim: victims leave memory in batches.
 *
 *   claim     lock the victims; clean ones go to DROPPING and are unmapped at once, dirty ones get slots
 *   protect   write-protect spans of dirty victims, one ioctl (one shootdown) a span (protect.c)
 *   keep      copy into a frame of standby and unmap, where there is a frame (standby.c); else:
 *   write     one gathered write per run of slots; a write fault may steal a page meanwhile (writeback.c)
 *   finish    unmap, in one batch, what nobody stole or holds
 *
 * Without write protection a dirty victim is lifted out of the address space first (lift.c).
 *
 * Against the kernel's own accesses (hazards): victims are claimed, then the hazards are looked at
 * once for the batch; a system call publishes its hazard, then looks at the pages.  One of
 * the two sees the other.  The same pair again before DROPPING.
 */
#include "reclaim.h"

#include <sys/mman.h>

#include "capture.h"
#include "lift.h"
#include "meta.h"
#include "range.h"
#include "standby.h"
#include "sys.h"

enum { STALE_TRIES = 32 };

/* ---- batch objects ----------------------------------------------------------------- */

static struct em_mutex pool_lock;
static struct em_batch *pool;

struct em_batch *em_batch_get(void)
{
	struct em_batch *b;

	em_mutex_lock(&pool_lock);
	b = pool;
	if (b)
		pool = b->next;
	em_mutex_unlock(&pool_lock);
	if (!b) {
		b = em_meta_alloc(sizeof(*b));
		if (b)
			b->iov = em_meta_alloc(3 * EM_BATCH_PAGES * sizeof(*b->iov));
		if (!b || !b->iov)
			return NULL;
		b->copy_from = b->iov + EM_BATCH_PAGES;
		b->copy_to = b->copy_from + EM_BATCH_PAGES;
	}
	b->n = b->nio = b->io_done = b->captured = 0;
	return b;
}

void em_batch_put(struct em_batch *b)
{
	em_mutex_lock(&pool_lock);
	b->next = pool;
	pool = b;
	em_mutex_unlock(&pool_lock);
}

/* ---- victims -------------------------------------------------------------------------- */

/* Shell sort by address: no recursion, no libc, at most EM_BATCH_PAGES elements, mostly sorted.  Page numbers
   may have EXTMEM_VICTIM_FAR on them. */
void em_reclaim_sort(extmem_page_t *p, size_t n)
{
	for (size_t gap = n / 2; gap; gap /= 2)
		for (size_t i = gap; i < n; i++) {
			extmem_page_t x = p[i];
			size_t j = i;

			for (; j >= gap && p[j - gap] << 1 > x << 1; j -= gap)
				p[j] = p[j - gap];
			p[j] = x;
		}
}

/* The victim stays: unlocked, as it was. */
void em_victim_let_go(struct em_victim *v)
{
	if (v->kind == V_STANDBY) {
		em_standby_let_go(v, EM_SLOT_NONE);
		return;
	}
	em_word_unlock(v->wp, 0);
	em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
	v->kind = V_SKIP;
}

/* A dirty victim that could not be written stays in memory, dirty. */
void em_victim_undo(struct em_victim *v)
{
	em_word_t w = em_word_load(v->wp);

	if (v->kind == V_STANDBY) {
		em_slots_free(em_engine.store, v->slot);
		em_standby_let_go(v, EM_SLOT_NONE);
		return;
	}
	if (v->kind == V_DIRTY && em_word_state(w) == EM_WRITEBACK && em_word_slot(w) == v->slot &&
	    em_word_take_slot(v->wp, &w, EM_UPGRADE, EM_SLOT_NONE)) {
		/* Protected still, and said so in the same step in which it becomes DIRTY. */
		em_word_release(v->wp, EM_DIRTY, EM_SLOT_NONE, 0, EM_W_MAYBE_WP);
		em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
	}
	em_slots_free(em_engine.store, v->slot);
	v->kind = V_SKIP;
}

/* Locks those that can leave.  How many are resident, these and others. */
static size_t claim(struct em_batch *b, const extmem_page_t *page, size_t n)
{
	size_t there = 0;

	b->n = 0;
	for (size_t i = 0; i < n; i++) {
		uintptr_t addr = page[i] << EM_PAGE_SHIFT;
		em_word_t *wp = em_space_word(addr), w;
		enum em_state st;

		if (!wp || !em_word_trylock(wp, &w)) {
			/* In transit (then its owner will tell the policy) or gone. */
			if (wp && em_state_is_resident(em_word_state(w))) {
				em_event(addr, EXTMEM_EV_EVICT_FAILED, 0);
				there++;
			}
			continue;
		}
		st = em_word_state(w);
		there += st == EM_CLEAN || st == EM_DIRTY;
		if ((st != EM_CLEAN && st != EM_DIRTY) || (w & EM_W_PINNED)) {
			em_word_unlock(wp, 0);
			if (st == EM_CLEAN || st == EM_DIRTY)
				em_event(addr, EXTMEM_EV_EVICT_FAILED, 0);
			continue;
		}
		b->v[b->n].addr = addr;
		b->v[b->n].wp = wp;
		b->v[b->n].far = page[i] & EXTMEM_VICTIM_FAR;
		b->v[b->n].slot = em_word_slot(w);
		b->v[b->n++].kind = st == EM_CLEAN ? V_CLEAN : V_DIRTY;
	}
	return there;
}

/* The victims are sorted by address; gap pages lie between them. */
static void look(const struct em_batch *b, struct em_hazard_view *hv)
{
	hv->n = 0;
	hv->overflow = false;
	if (b->n)
		em_hazard_look(hv, b->v[0].addr, b->v[b->n - 1].addr + EM_PAGE_SIZE);
}

static void respect_hazards(struct em_batch *b, struct em_hazard_view *hv)
{
	look(b, hv);
	if (!hv->n && !hv->overflow)
		return;
	for (uint32_t i = 0; i < b->n; i++)
		if (em_hazard_covers(hv, b->v[i].addr))
			em_victim_let_go(&b->v[i]);
}

/* ---- unmapping ------------------------------------------------------------------------- */

void em_victim_count(const struct em_victim *v, bool clean)
{
	struct em_region *r = em_range_region_at(v->addr);

	if (r)
		__atomic_fetch_add(clean ? &r->stats.pages_dropped_clean : &r->stats.pages_out,
				   1, __ATOMIC_RELAXED);
}

/* The victims of one kind as runs of addresses. */
static uint32_t collect_runs(struct em_batch *b, enum victim_kind kind)
{
	struct iovec *run = b->iov;
	uint32_t nrun = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != kind)
			continue;
		if (nrun && (uintptr_t)run[nrun - 1].iov_base + run[nrun - 1].iov_len == v->addr) {
			run[nrun - 1].iov_len += EM_PAGE_SIZE;
		} else {
			run[nrun].iov_base = (void *)v->addr;
			run[nrun++].iov_len = EM_PAGE_SIZE;
		}
	}
	return nrun;
}

static void publish_unmapped(struct em_victim *v, em_word_t stamp, enum victim_kind kind)
{
	if (v->frame == EM_SLOT_NONE)
		em_word_release(v->wp, EM_SWAPPED, v->slot, EM_W_STAMP, stamp);
	else
		em_standby_publish(v, stamp);
	em_event(v->addr, EXTMEM_EV_EVICTED, 0);
	if (kind != V_KEPT)
		em_victim_count(v, kind == V_CLEAN);
}

/* A victim in DROPPING that stays after all. */
static void stay(struct em_victim *v)
{
	bool dirty = v->slot == EM_SLOT_NONE;

	if (v->frame != EM_SLOT_NONE)
		em_standby_return(v);
	em_word_release(v->wp, dirty ? EM_DIRTY : EM_CLEAN, v->slot, 0, dirty ? EM_W_MAYBE_WP : 0);
	em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
	v->kind = V_SKIP;
}

/* Unmaps the victims in DROPPING, publishes them as SWAPPED, or STAGED where they are kept in standby. */
static uint32_t drop(struct em_batch *b, enum victim_kind kind)
{
	const struct iovec *run = b->iov;
	em_word_t stamp = (em_word_t)em_evict_stamp() << EM_W_STAMP_SHIFT;
	uint32_t nrun, gone = 0, k = 0;

	em_standby_copy(b, kind);
	for (uint32_t i = 0; kind == V_KEPT && i < b->n; i++)
		if (b->v[i].kind == V_KEPT && b->v[i].frame == EM_SLOT_NONE)
			stay(&b->v[i]);
	nrun = collect_runs(b, kind);
	if (!nrun)
		return 0;
	em_uffd_drop(b->iov, nrun, b->ok);
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != kind)
			continue;
		while (v->addr >= (uintptr_t)run[k].iov_base + run[k].iov_len)
			k++;
		/* A run that was refused may be gone in part; what is locked (mlockall) says so alone. */
		if (b->ok[k] || !em_sys_madvise((void *)v->addr, EM_PAGE_SIZE, MADV_DONTNEED)) {
			publish_unmapped(v, stamp, kind);
			gone++;
			v->kind = V_SKIP;
		} else {
			/* Locked into memory behind our back (mlockall): it stays. */
			em_word_pin(v->wp, true);
			stay(v);
		}
	}
	em_uncharge(gone);
	__atomic_fetch_add(&em_budget.evict_clock, gone, __ATOMIC_RELAXED);
	return gone;
}

static uint32_t drop_clean(struct em_batch *b)
{
	uint32_t gone;

	for (uint32_t i = 0; i < b->n; i++)
		if (b->v[i].kind == V_CLEAN)
			em_word_release(b->v[i].wp, EM_DROPPING, b->v[i].slot, 0, 0);
	gone = drop(b, V_CLEAN);
	em_stat_add(pages_dropped_clean, gone);
	return gone;
}

/* ---- the batch ------------------------------------------------------------------------------ */

/* What no address can be is left out: sorting goes by all bits of a page number. */
static size_t leave_out_impossible(extmem_page_t *page, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		if (!((page[i] & ~EXTMEM_VICTIM_FAR) >> (EM_ADDR_BITS - EM_PAGE_SHIFT)))
			page[k++] = page[i];
	return k;
}

/* Those that the policy names.  It may name pages by the thousand that have left already: it need not know. */
static size_t claim_victims(struct em_batch *b, uint32_t want)
{
	size_t n, kept;

	for (int tries = 0; tries < STALE_TRIES; tries++) {
		n = em_host_victims(want, b->page);
		kept = leave_out_impossible(b->page, n);
		em_reclaim_sort(b->page, kept);
		if (claim(b, b->page, kept) || !n)
			break;
	}
	return n;
}

/* ngiven: so many victims are in b->page already; 0: the policy names up to `want`. */
static size_t pick(struct em_batch *b, uint32_t want, size_t ngiven)
{
	extmem_page_t *page = b->page;
	size_t n = ngiven;

	if (want > EM_BATCH_PAGES)
		want = EM_BATCH_PAGES;
	if (ngiven) {
		em_reclaim_sort(page, n);
		claim(b, page, n);
	} else {
		n = claim_victims(b, want);
	}
	respect_hazards(b, &b->hv);
	em_standby_assign(b);
	b->dropped = drop_clean(b);
	em_writeback_assign_slots(b);
	if (em_uffd.features & EM_FEAT_WP) {
		em_capture_victims(b);
		em_protect_victims(b, &b->hv);
	} else {
		em_lift_victims(b);
	}
	b->dropped += drop(b, V_KEPT);
	em_writeback_build(b); /* from here on b->iov is the requests' */
	em_stat_inc(evict_batches);
	return n;
}

bool em_batch_start(struct em_batch *b, uint32_t want)
{
	return pick(b, want, 0) != 0;
}

/* Written and not stolen: DROPPING, but for those that somebody waits for. */
static void claim_written(struct em_batch *b)
{
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];
		em_word_t w;
		int err;

		if (v->kind == V_SKIP)
			continue;
		err = v->err;
		if (v->kind == V_LIFTED) {
			em_lift_settle(b, v, err);
			continue;
		}
		if (err) {
			em_victim_undo(v);
			continue;
		}
		w = em_word_load(v->wp);
		if (em_word_state(w) != EM_WRITEBACK || em_word_slot(w) != v->slot ||
		    (w & EM_W_LOCKED) || !em_word_take(v->wp, &w, EM_DROPPING)) {
			em_slots_free(em_engine.store, v->slot);
			em_stat_inc(evict_cancelled);
			em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
			v->kind = V_SKIP;
		} else if (w & EM_W_WAITERS) {
			stay(v);
		}
	}
}

static void keep_held(struct em_batch *b)
{
	struct em_hazard_view *hv = &b->hv;

	look(b, hv);
	if (!hv->n && !hv->overflow)
		return;
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind == V_DIRTY && em_hazard_covers(hv, v->addr))
			stay(v);
	}
}

uint32_t em_batch_finish(struct em_batch *b)
{
	uint32_t gone;

	em_writeback_settle(b);
	claim_written(b);
	keep_held(b);
	gone = drop(b, V_DIRTY) + em_lift_finish(b);
	em_stat_add(pages_out, gone);
	return gone + b->dropped;
}

static uint32_t run_inline(struct em_batch *b)
{
	em_writeback_now(b);
	return em_batch_finish(b);
}

static uint32_t one_batch(uint32_t want)
{
	struct em_batch *b = em_batch_get();
	uint32_t gone = 0;

	if (!b)
		return 0;
	if (pick(b, want, 0))
		gone = run_inline(b);
	em_batch_put(b);
	return gone;
}

uint32_t em_reclaim_inline(struct em_thread *t, uint32_t want)
{
	uint32_t gone = one_batch(want);

	(void)t;
	em_stat_add(evictions_inline, gone);
	/* Nothing else can be had. */
	return gone ? gone : em_standby_shrink(want);
}

uint32_t em_reclaim_now(uint32_t want)
{
	uint32_t gone = one_batch(want);

	em_stat_add(evictions_background, gone);
	return gone;
}

struct collect {
	size_t n;
	struct em_batch *b;
	uint32_t gone;
};

static void collect_flush(struct collect *c)
{
	pick(c->b, EM_BATCH_PAGES, c->n);
	c->gone += run_inline(c->b);
	c->n = 0;
}

static void collect_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *blk)
{
	struct collect *c = arg;

	if (!blk)
		return;
	for (uintptr_t a = start; a < end; a += EM_PAGE_SIZE) {
		em_word_t w = em_word_load(&blk->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)]);

		if (em_word_state(w) != EM_CLEAN && em_word_state(w) != EM_DIRTY)
			continue;
		c->b->page[c->n++] = a >> EM_PAGE_SHIFT | EXTMEM_VICTIM_FAR;
		if (c->n == EM_BATCH_PAGES)
			collect_flush(c);
	}
}

void em_reclaim_range(struct em_thread *t, uintptr_t start, uintptr_t end)
{
	struct collect c = { .b = em_batch_get() };
	struct em_span_visit v = { collect_block, &c };

	(void)t;
	if (!c.b)
		return;
	em_space_walk(start, end, &v);
	if (c.n)
		collect_flush(&c);
	em_batch_put(c.b);
	em_stat_add(evictions_inline, c.gone);
}
