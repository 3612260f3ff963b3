/* SPDX-License-Identifier: MIT */
/*
 * Reclaim: victims leave memory in batches.
 *
 *   claim     lock the victims; clean ones go to DROPPING and are unmapped at once, dirty ones get slots
 *   protect   write-protect spans of dirty victims, one ioctl (one shootdown) a span
 *   write     one gathered write per run of slots; a write fault may steal a page meanwhile
 *   finish    unmap, in one batch, what nobody stole or holds
 *
 * Without write protection a dirty victim is lifted out of the address space first (lift.c).
 *
 * Against the kernel's own accesses (hazards): victims are claimed, then the hazards are looked at
 * once for the batch; a system call publishes its hazard, then looks at the pages.  One of
 * the two sees the other.  The same pair again before DROPPING.
 */
#include "core.h"

#include <errno.h>
#include <sys/mman.h>

#include "lift.h"
#include "meta.h"
#include "range.h"
#include "sys.h"

/* Nanoseconds: protecting one more page on the way (0.1-0.17 us), a fault that lifts the protection
   again, an ioctl that is not made (1-24 us, by how many processors must hear of it). */
enum { GAP_PAGES = 32, GAP_PAGE_NS = 150, GAP_LIFT_NS = 4000, GAP_SAVES_NS = 12000,
       GAP_ROUND = 2048 };

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
			b->iov = em_meta_alloc(EM_BATCH_PAGES * sizeof(*b->iov));
		if (!b || !b->iov)
			return NULL;
	}
	b->n = b->nio = b->io_done = 0;
	return b;
}

void em_batch_put(struct em_batch *b)
{
	em_mutex_lock(&pool_lock);
	b->next = pool;
	pool = b;
	em_mutex_unlock(&pool_lock);
}

/* ---- claim ---------------------------------------------------------------------------- */

/* Shell sort by address: no recursion, no libc, at most EM_BATCH_PAGES elements, mostly sorted. */
static void sort_pages(extmem_page_t *p, size_t n)
{
	for (size_t gap = n / 2; gap; gap /= 2)
		for (size_t i = gap; i < n; i++) {
			extmem_page_t x = p[i];
			size_t j = i;

			for (; j >= gap && p[j - gap] > x; j -= gap)
				p[j] = p[j - gap];
			p[j] = x;
		}
}

static void claim(struct em_batch *b, const extmem_page_t *page, size_t n)
{
	b->n = 0;
	for (size_t i = 0; i < n; i++) {
		uintptr_t addr = page[i] << EM_PAGE_SHIFT;
		em_word_t *wp = em_space_word(addr), w;
		enum em_state st;

		if (!wp || !em_word_trylock(wp, &w)) {
			/* In transit (then its owner will tell the policy) or gone. */
			if (wp && em_state_is_resident(em_word_state(w)))
				em_event(addr, EXTMEM_EV_EVICT_FAILED, 0);
			continue;
		}
		st = em_word_state(w);
		if ((st != EM_CLEAN && st != EM_DIRTY) || (w & EM_W_PINNED)) {
			em_word_unlock(wp, 0);
			if (st == EM_CLEAN || st == EM_DIRTY)
				em_event(addr, EXTMEM_EV_EVICT_FAILED, 0);
			continue;
		}
		b->v[b->n].addr = addr;
		b->v[b->n].wp = wp;
		b->v[b->n].slot = em_word_slot(w);
		b->v[b->n++].kind = st == EM_CLEAN ? V_CLEAN : V_DIRTY;
	}
}

/* The victim stays: unlocked, as it was. */
static void let_go(struct em_victim *v)
{
	em_word_unlock(v->wp, 0);
	em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
	v->kind = V_SKIP;
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
			let_go(&b->v[i]);
}

/* ---- unmapping ------------------------------------------------------------------------- */

static void count_region(const struct em_victim *v, enum victim_kind kind)
{
	struct em_region *r = em_range_region_at(v->addr);

	if (r)
		__atomic_fetch_add(kind == V_CLEAN ? &r->stats.pages_dropped_clean : &r->stats.pages_out,
				   1, __ATOMIC_RELAXED);
}

/* Collects the victims in DROPPING into runs, unmaps them, publishes them as SWAPPED. */
static uint32_t drop(struct em_batch *b, enum victim_kind kind)
{
	struct iovec *run = b->iov;
	bool *ok = b->ok;
	uint32_t nrun = 0, gone = 0, k = 0;
	em_word_t stamp = (em_word_t)em_evict_stamp() << EM_W_STAMP_SHIFT;

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
	if (!nrun)
		return 0;
	em_uffd_drop(run, nrun, ok);
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != kind)
			continue;
		while (v->addr >= (uintptr_t)run[k].iov_base + run[k].iov_len)
			k++;
		/* A run that was refused may be gone in part; what is locked (mlockall) says so alone. */
		if (ok[k] || !em_sys_madvise((void *)v->addr, EM_PAGE_SIZE, MADV_DONTNEED)) {
			em_word_release(v->wp, EM_SWAPPED, v->slot, EM_W_STAMP, stamp);
			em_event(v->addr, EXTMEM_EV_EVICTED, 0);
			count_region(v, kind);
			gone++;
		} else {
			/* Locked into memory behind our back (mlockall): it stays. */
			em_word_pin(v->wp, true);
			em_word_release(v->wp, EM_CLEAN, v->slot, 0, 0);
			em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
		}
		v->kind = V_SKIP;
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

/* ---- protecting ------------------------------------------------------------------------- */

/* How many pages that stay may be protected to reach the next victim: fewer, the more of them are written
   soon, each at the price of a fault. */
static struct {
	uint32_t passed, lifted, most;
} gaps = { .most = GAP_PAGES };

void em_reclaim_gap_lifted(void)
{
	__atomic_fetch_add(&gaps.lifted, 1, __ATOMIC_RELAXED);
}

static void note_gaps(uint32_t n)
{
	uint32_t passed = __atomic_add_fetch(&gaps.passed, n, __ATOMIC_RELAXED), lifted, most;

	if (passed < GAP_ROUND)
		return;
	lifted = __atomic_load_n(&gaps.lifted, __ATOMIC_RELAXED);
	most = GAP_SAVES_NS /
	       (GAP_PAGE_NS + (lifted < passed ? lifted : passed) * (uint64_t)GAP_LIFT_NS / passed);
	__atomic_store_n(&gaps.most, most ? most : 1, __ATOMIC_RELAXED);
	/* The past counts half. */
	__atomic_fetch_sub(&gaps.passed, passed / 2, __ATOMIC_RELAXED);
	__atomic_fetch_sub(&gaps.lifted, lifted / 2, __ATOMIC_RELAXED);
}

struct span {
	struct em_batch *b;
	const struct em_hazard_view *hv;
	uintptr_t start, end;
	uint32_t ngap;
};

/* Locks the pages between the span's end and addr, all in one block; gives up on the first that
   cannot be had. */
static bool lock_gap(struct span *s, uintptr_t addr)
{
	uint32_t keep = s->ngap;
	uintptr_t a;

	if (addr - s->end > __atomic_load_n(&gaps.most, __ATOMIC_RELAXED) * EM_PAGE_SIZE || (addr ^ s->end) >> EM_BLOCK_SHIFT)
		return addr == s->end;
	for (a = s->end; a < addr; a += EM_PAGE_SIZE) {
		em_word_t *wp = em_space_word(a), w;

		if (s->ngap == EM_BATCH_PAGES || !wp || !em_word_trylock(wp, &w))
			break;
		s->b->gap[s->ngap++] = wp;
		if (em_word_state(w) == EM_HOLE ||
		    (em_word_state(w) == EM_DIRTY && em_hazard_covers(s->hv, a)))
			break;
	}
	if (a == addr)
		return true;
	while (s->ngap > keep)
		em_word_unlock(s->b->gap[--s->ngap], 0);
	return false;
}

/* Hazards pushed after the batch's look find LOCKED words and wait, so the view is still good for the
   victims; gap pages are locked after it and need a look of their own. */
static bool gap_is_held(struct span *s)
{
	struct em_hazard_view *hv = &s->b->hv_again;

	if (!s->ngap)
		return false;
	em_hazard_look(hv, s->start, s->end);
	if (!hv->n && !hv->overflow)
		return false;
	for (uintptr_t a = s->start; a < s->end; a += EM_PAGE_SIZE)
		if (em_hazard_covers(hv, a))
			return true;
	return false;
}

static void flush_span(struct span *s, uint32_t first, uint32_t last)
{
	bool held = gap_is_held(s);
	int ret = held ? -EBUSY : em_uffd_protect(s->start, s->end - s->start, true);
	uint32_t passed = 0;

	for (uint32_t i = 0; i < s->ngap; i++) {
		bool dirty = em_word_state(em_word_load(s->b->gap[i])) == EM_DIRTY;

		passed += dirty;
		em_word_unlock(s->b->gap[i], dirty && !held ? EM_W_MAYBE_WP : 0);
	}
	for (uint32_t i = first; i < last; i++) {
		struct em_victim *v = &s->b->v[i];

		if (v->kind != V_DIRTY)
			continue;
		if (ret) { /* part of the span may be protected */
			em_slots_free(em_engine.store, v->slot);
			em_word_unlock(v->wp, held ? 0 : EM_W_MAYBE_WP);
			em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
			v->kind = V_SKIP;
		} else {
			em_word_release(v->wp, EM_WRITEBACK, v->slot, EM_W_MAYBE_WP, 0);
		}
	}
	s->ngap = 0;
	note_gaps(passed);
}

/* All dirty victims are LOCKED and have slots. */
static void protect(struct em_batch *b, const struct em_hazard_view *hv)
{
	struct span s = { .b = b, .hv = hv };
	uint32_t first = 0;
	bool open = false;

	for (uint32_t i = 0; i < b->n; i++) {
		if (b->v[i].kind != V_DIRTY)
			continue;
		if (open && !lock_gap(&s, b->v[i].addr)) {
			flush_span(&s, first, i);
			open = false;
		}
		if (!open) {
			s.start = b->v[i].addr;
			first = i;
			open = true;
		}
		s.end = b->v[i].addr + EM_PAGE_SIZE;
	}
	if (open)
		flush_span(&s, first, b->n);
}

/* ---- writing ---------------------------------------------------------------------------- */

/* Slots for the dirty victims, in address order.  Without room in the store the rest stays, and so does
   everything for a while after writes have failed. */
static void assign_slots(struct em_batch *b)
{
	uint32_t want = 0, have = 0;
	bool may = em_io_may_write();
	em_slot_t next = 0;

	for (uint32_t i = 0; i < b->n; i++)
		want += b->v[i].kind == V_DIRTY;
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != V_DIRTY)
			continue;
		if (!have && may)
			have = em_slots_alloc(em_engine.store, want, &next);
		if (!have) {
			em_io_full(may);
			let_go(v);
			want--;
			continue;
		}
		v->slot = next++;
		have--;
		want--;
	}
}

/* One request per run of consecutive slots.  Victims beyond the request table are put back. */
static void build_io(struct em_batch *b)
{
	const uint32_t max_io = sizeof(b->io) / sizeof(b->io[0]);
	uint32_t niov = 0;
	struct em_io *io = NULL;

	b->nio = b->io_done = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != V_DIRTY && v->kind != V_LIFTED)
			continue;
		if (!io || v->slot != io->slot + io->npages) {
			if (b->nio == max_io) {
				if (v->kind == V_LIFTED)
					em_lift_settle(b, v, -EAGAIN); /* moved back */
				else
					em_victim_undo(v);
				continue;
			}
			io = &b->io[b->nio++];
			io->write = true;
			io->slot = v->slot;
			io->iov = &b->iov[niov];
			io->iovcnt = 0;
			io->npages = 0;
			io->cookie = b;
			io->result = 0;
		}
		b->iov[niov].iov_base = em_victim_source(b, v);
		b->iov[niov++].iov_len = EM_PAGE_SIZE;
		io->iovcnt++;
		io->npages++;
	}
}

void *em_victim_source(struct em_batch *b, const struct em_victim *v)
{
	return v->kind == V_LIFTED ? em_lift_frame(b, (uint32_t)(v - b->v)) : (void *)v->addr;
}

/* A dirty victim that could not be written stays in memory, dirty. */
void em_victim_undo(struct em_victim *v)
{
	em_word_t w = em_word_load(v->wp);

	if (v->kind == V_DIRTY && em_word_state(w) == EM_WRITEBACK && em_word_slot(w) == v->slot &&
	    em_word_take_slot(v->wp, &w, EM_UPGRADE, EM_SLOT_NONE)) {
		/* Protected still, and said so in the same step in which it becomes DIRTY. */
		em_word_release(v->wp, EM_DIRTY, EM_SLOT_NONE, 0, EM_W_MAYBE_WP);
		em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
	}
	em_slots_free(em_engine.store, v->slot);
	v->kind = V_SKIP;
}

/* ---- the batch ------------------------------------------------------------------------------ */

/* ngiven: so many victims are in b->page already; 0: the policy names up to `want`. */
static size_t pick(struct em_batch *b, uint32_t want, size_t ngiven)
{
	extmem_page_t *page = b->page;
	size_t n = ngiven;

	if (want > EM_BATCH_PAGES)
		want = EM_BATCH_PAGES;
	if (!ngiven)
		n = em_host_victims(want, page);
	sort_pages(page, n);
	claim(b, page, n);
	respect_hazards(b, &b->hv);
	b->dropped = drop_clean(b);
	if (em_uffd.features & EM_FEAT_WP) {
		assign_slots(b);
		protect(b, &b->hv);
	} else {
		assign_slots(b);
		em_lift_victims(b);
	}
	build_io(b);
	em_stat_inc(evict_batches);
	return n;
}

bool em_batch_start(struct em_batch *b, uint32_t want)
{
	return pick(b, want, 0) != 0;
}

static bool is_stolen(const struct em_victim *v)
{
	em_word_t w = em_word_load(v->wp);

	return v->kind == V_DIRTY && (em_word_state(w) != EM_WRITEBACK || em_word_slot(w) != v->slot);
}

static void set_errors(struct em_batch *b, em_slot_t slot, uint32_t n, int err)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (b->v[i].slot >= slot && b->v[i].slot < slot + n)
			b->v[i].err = err;
}

enum { SPLIT_FAILURES = 16 };

/* A gathered write that failed is done again in halves, so that one bad place does not keep its
   neighbours in memory; but not for long, because the whole store may be at fault.  The
   victims from io->slot + first on get their errors. */
static void write_halves(struct em_batch *b, const struct em_io *io, uint32_t first, uint32_t n,
			 int err, uint32_t *failures)
{
	uint32_t half = n / 2;

	if (n == 1 || ++*failures > SPLIT_FAILURES) {
		set_errors(b, io->slot + first, n, err);
		return;
	}
	for (uint32_t at = first, len = half; at < first + n; at += len, len = n - half) {
		err = em_store_writev(em_engine.store, io->slot + at, io->iov + at, (int)len);
		if (err)
			write_halves(b, io, at, len, err, failures);
		else
			set_errors(b, io->slot + at, len, 0);
	}
}

/* A gathered write may fail for one page that the kernel cannot read (PROT_NONE): then each goes by
   itself, through a copy made by the kernel.  A page that was stolen, and perhaps unmapped, meanwhile
   does not matter. */
static int write_one_by_one(struct em_batch *b, struct em_io *io)
{
	int ret = 0;

	for (uint32_t i = 0; i < b->n && !ret; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != V_DIRTY || v->slot < io->slot || v->slot >= io->slot + io->npages)
			continue;
		ret = em_store_write_copied(v->addr, v->slot);
		if (ret && is_stolen(v))
			ret = 0;
	}
	return ret;
}

static void settle_io(struct em_batch *b, struct em_io *io)
{
	uint32_t failures = 0;

	if (io->result == -EFAULT)
		io->result = write_one_by_one(b, io);
	set_errors(b, io->slot, io->npages, io->result);
	if (!io->result)
		return;
	em_io_write_failed(io->slot, io->result);
	if (io->result == -EIO)
		write_halves(b, io, 0, io->npages, io->result, &failures);
}

/* How the batch fared, for the pause that follows if nothing could be written. */
static void count_written(const struct em_batch *b)
{
	uint32_t ok = 0, failed = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		if (b->v[i].kind == V_SKIP)
			continue;
		if (b->v[i].err)
			failed++;
		else
			ok++;
	}
	em_stat_add(bytes_written, (uint64_t)ok * EM_PAGE_SIZE);
	em_io_batch_written(ok, failed);
}

/* Written and not stolen: DROPPING. */
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

		if (v->kind != V_DIRTY || !em_hazard_covers(hv, v->addr))
			continue;
		em_word_release(v->wp, EM_CLEAN, v->slot, 0, 0);
		em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
		v->kind = V_SKIP;
	}
}

uint32_t em_batch_finish(struct em_batch *b)
{
	uint32_t gone;

	for (uint32_t i = 0; i < b->nio; i++)
		settle_io(b, &b->io[i]);
	count_written(b);
	claim_written(b);
	keep_held(b);
	gone = drop(b, V_DIRTY) + em_lift_finish(b);
	em_stat_add(pages_out, gone);
	return gone + b->dropped;
}

static uint32_t run_inline(struct em_batch *b)
{
	for (uint32_t i = 0; i < b->nio; i++)
		b->io[i].result = em_store_writev(em_engine.store, b->io[i].slot, b->io[i].iov,
						  b->io[i].iovcnt);
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
	return gone;
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
		c->b->page[c->n++] = a >> EM_PAGE_SHIFT;
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
