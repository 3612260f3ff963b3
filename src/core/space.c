/* SPDX-License-Identifier: MIT */
/*
 * The address space: a two-level table by address >> 21, lock-free to read.
 *
 * Writers hold the map lock, with one exception: a faulting thread turns a lazy entry into a block
 * by compare-and-swap.  Blocks and regions leave through em_retire, so a reader inside an
 * engine section may use what it loaded.
 */
#include "core.h"

#include <sys/mman.h>

#include "meta.h"
#include "sys.h"

uintptr_t em_space_l1[1ul << EM_L1_BITS];
struct em_region *em_regions;
uint64_t em_regions_pages;
struct em_region_stats em_regions_closed;

static struct {
	struct em_mutex lock;
	struct em_block *free;
} blocks;

#define L2_ENTRIES (1ul << EM_L2_BITS)
#define SLAB_BLOCKS 16

/* Which 512 GiB have ever had an entry of the first level: nobody need look through the others. */
#define L0_SHIFT (EM_BLOCK_SHIFT + EM_L2_BITS + 9)
static uint8_t used[1ul << (EM_ADDR_BITS - L0_SHIFT)];

static uintptr_t *l1_of(uintptr_t addr)
{
	return &em_space_l1[addr >> (EM_BLOCK_SHIFT + EM_L2_BITS)];
}

/* Before the entry for addr gets a value. */
static void mark_used(uintptr_t addr)
{
	__atomic_store_n(&used[addr >> L0_SHIFT], 1, __ATOMIC_RELEASE);
}

/* Where the next entry of the first level is that may have a value. */
static uintptr_t next_l1(uintptr_t addr)
{
	if (!__atomic_load_n(&used[addr >> L0_SHIFT], __ATOMIC_ACQUIRE))
		return (addr | ((1ul << L0_SHIFT) - 1)) + 1;
	return (addr | (EM_L1_SPAN - 1)) + 1;
}

bool em_space_may_manage(uintptr_t addr, size_t len)
{
	const uintptr_t top = (1ul << EM_ADDR_BITS) - 1;
	uintptr_t last = addr + (len ? len - 1 : 0);

	/* Nothing is managed up there, and a length may be anything the program thinks of. */
	if (last < addr || last > top)
		last = top;
	for (uintptr_t a = addr & ~(EM_BLOCK_SIZE - 1); a <= last; a += EM_BLOCK_SIZE) {
		if (em_space_value(a))
			return true;
		if (!*l1_of(a))
			a = next_l1(a) - EM_BLOCK_SIZE;
	}
	return false;
}

static struct em_block *block_alloc(uintptr_t base)
{
	struct em_block *b;

	em_mutex_lock(&blocks.lock);
	if (!blocks.free) {
		b = em_meta_alloc(sizeof(*b) * SLAB_BLOCKS);
		for (int i = 0; b && i < SLAB_BLOCKS; i++) {
			b[i].next_free = blocks.free;
			blocks.free = &b[i];
		}
	}
	b = blocks.free;
	if (b)
		blocks.free = b->next_free;
	em_mutex_unlock(&blocks.lock);
	if (b) {
		em_memzero(b, sizeof(*b));
		b->base = base;
	}
	return b;
}

static void block_free(void *p)
{
	struct em_block *b = p;

	em_mutex_lock(&blocks.lock);
	b->next_free = blocks.free;
	blocks.free = b;
	em_mutex_unlock(&blocks.lock);
}

/* The entry for addr, its table made if need be: by range operations, and by a fault in a lazy GiB. */
static uintptr_t *entry_make(uintptr_t addr)
{
	uintptr_t *l1 = l1_of(addr), cur = __atomic_load_n(l1, __ATOMIC_ACQUIRE), *l2;

	mark_used(addr);
	while (!cur || em_entry_is_lazy(cur)) {
		l2 = em_meta_alloc(L2_ENTRIES * sizeof(*l2));
		if (!l2)
			return NULL;
		for (size_t i = 0; cur && i < L2_ENTRIES; i++)
			l2[i] = cur;
		if (__atomic_compare_exchange_n(l1, &cur, (uintptr_t)l2, false, __ATOMIC_ACQ_REL,
						__ATOMIC_ACQUIRE))
			cur = (uintptr_t)l2;
		else
			em_meta_free(l2, L2_ENTRIES * sizeof(*l2));
	}
	return &((uintptr_t *)cur)[(addr >> EM_BLOCK_SHIFT) & (L2_ENTRIES - 1)];
}

/* Segment of r in b, taking a free one if need be; when all are taken the last one stands in: only the
   attribution of statistics suffers. */
static uint32_t block_seg(struct em_block *b, struct em_region *r)
{
	uint32_t i;

	for (i = 0; i < EM_SEGS; i++)
		if (b->seg[i] == r)
			return i;
	for (i = 0; i < EM_SEGS; i++)
		if (!b->seg[i])
			break;
	if (i == EM_SEGS)
		return EM_SEGS - 1;
	__atomic_store_n(&b->seg[i], r, __ATOMIC_RELEASE);
	return i;
}

struct em_block *em_space_block(uintptr_t addr, bool *nomem)
{
	uintptr_t v = em_space_value(addr), *e;
	struct em_block *b;

	*nomem = false;
	if (!v)
		return NULL;
	if (!em_entry_is_lazy(v))
		return (struct em_block *)v;
	e = entry_make(addr);
	if (!e) {
		*nomem = true;
		return NULL;
	}
	v = __atomic_load_n(e, __ATOMIC_ACQUIRE);
	if (!em_entry_is_lazy(v))
		return (struct em_block *)v;
	b = block_alloc(addr & ~(EM_BLOCK_SIZE - 1));
	if (!b) {
		*nomem = true;
		return NULL;
	}
	b->seg[0] = (struct em_region *)(v & ~EM_ENTRY_LAZY);
	b->seg_pages[0] = EM_BLOCK_PAGES;
	for (uint32_t i = 0; i < EM_BLOCK_PAGES; i++)
		b->word[i] = EM_ABSENT;
	if (__atomic_compare_exchange_n(e, &v, (uintptr_t)b, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return b;
	block_free(b); /* nobody has seen it */
	return em_entry_is_lazy(v) ? NULL : (struct em_block *)v;
}

em_word_t *em_space_word(uintptr_t addr)
{
	uintptr_t v = em_space_value(addr);

	if (!v || em_entry_is_lazy(v))
		return NULL;
	return &((struct em_block *)v)->word[(addr >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];
}

static void count_pages(struct em_region *r, int64_t n)
{
	__atomic_fetch_add(&r->pages, (uint64_t)n, __ATOMIC_RELAXED);
	__atomic_fetch_add(&em_regions_pages, (uint64_t)n, __ATOMIC_RELAXED);
}

/* The block behind an entry for writing words, made if the entry is empty. */
static struct em_block *block_for_add(uintptr_t addr)
{
	uintptr_t *e = entry_make(addr);
	struct em_block *b;
	bool nomem;

	if (!e)
		return NULL;
	if (*e)
		return em_space_block(addr, &nomem);
	b = block_alloc(addr & ~(EM_BLOCK_SIZE - 1));
	if (b)
		__atomic_store_n(e, (uintptr_t)b, __ATOMIC_RELEASE);
	return b;
}

int em_space_adopt(uintptr_t addr, em_word_t w, struct em_region *r)
{
	struct em_block *b = block_for_add(addr);
	uint32_t seg;

	if (!b)
		return -12; /* ENOMEM */
	seg = block_seg(b, r);
	b->seg_pages[seg]++;
	count_pages(b->seg[seg], 1);
	w = (w & ~(EM_W_SEG | EM_W_WAITERS)) | ((em_word_t)seg << EM_W_SEG_SHIFT);
	__atomic_store_n(&b->word[(addr >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)], w,
			 __ATOMIC_RELEASE);
	return 0;
}

int em_space_add(uintptr_t start, uintptr_t end, struct em_region *r)
{
	uintptr_t a = start;

	while (a < end) {
		uintptr_t *e;

		if (!(a & (EM_L1_SPAN - 1)) && end - a >= EM_L1_SPAN && !*l1_of(a)) {
			count_pages(r, EM_BLOCK_PAGES << EM_L2_BITS);
			mark_used(a);
			__atomic_store_n(l1_of(a), (uintptr_t)r | EM_ENTRY_LAZY, __ATOMIC_RELEASE);
			a += EM_L1_SPAN;
			continue;
		}
		e = entry_make(a);
		if (!e)
			return -12;
		if (!(a & (EM_BLOCK_SIZE - 1)) && end - a >= EM_BLOCK_SIZE && !*e) {
			count_pages(r, EM_BLOCK_PAGES);
			__atomic_store_n(e, (uintptr_t)r | EM_ENTRY_LAZY, __ATOMIC_RELEASE);
			a += EM_BLOCK_SIZE;
			continue;
		}
		if (em_space_adopt(a, EM_ABSENT, r))
			return -12;
		a += EM_PAGE_SIZE;
	}
	return 0;
}

static void region_free(void *p)
{
	em_meta_free(p, sizeof(struct em_region));
}

static void region_uncount(struct em_region *r, int64_t n)
{
	count_pages(r, -n);
	if (__atomic_load_n(&r->pages, __ATOMIC_RELAXED))
		return;
	if (r->prev)
		r->prev->next = r->next;
	else
		em_regions = r->next;
	if (r->next)
		r->next->prev = r->prev;
	em_regions_closed.faults_first_touch += r->stats.faults_first_touch;
	em_regions_closed.faults_major += r->stats.faults_major;
	em_regions_closed.faults_prefetch_hit += r->stats.faults_prefetch_hit;
	em_regions_closed.faults_write_protect += r->stats.faults_write_protect;
	em_regions_closed.pages_in += r->stats.pages_in;
	em_regions_closed.pages_out += r->stats.pages_out;
	em_regions_closed.pages_dropped_clean += r->stats.pages_dropped_clean;
	em_retire(r, region_free);
}

void em_space_forget(struct em_block *b, uint32_t seg)
{
	struct em_region *r = b->seg[seg];

	if (--b->seg_pages[seg] == 0)
		__atomic_store_n(&b->seg[seg], NULL, __ATOMIC_RELEASE);
	region_uncount(r, 1);
}

bool em_space_drop_lazy(uintptr_t base, uintptr_t end)
{
	bool l1 = end - base == EM_L1_SPAN;
	uintptr_t *e = l1 ? l1_of(base) : entry_make(base);
	uintptr_t v = e ? __atomic_load_n(e, __ATOMIC_ACQUIRE) : 0;

	if (!em_entry_is_lazy(v))
		return false;
	if (!__atomic_compare_exchange_n(e, &v, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return false;
	region_uncount((struct em_region *)(v & ~EM_ENTRY_LAZY),
		       l1 ? EM_BLOCK_PAGES << EM_L2_BITS : EM_BLOCK_PAGES);
	return true;
}

void em_space_trim(uintptr_t start, uintptr_t end)
{
	if (end > 1ul << EM_ADDR_BITS)
		end = 1ul << EM_ADDR_BITS;
	for (uintptr_t a = start & ~(EM_BLOCK_SIZE - 1); a < end; a += EM_BLOCK_SIZE) {
		uintptr_t v = em_space_value(a);
		struct em_block *b;
		uint32_t i;

		if (!*l1_of(a) || em_entry_is_lazy(*l1_of(a)))
			a = next_l1(a) - EM_BLOCK_SIZE;
		if (!v || em_entry_is_lazy(v))
			continue;
		b = (struct em_block *)v;
		for (i = 0; i < EM_SEGS && !b->seg[i]; i++)
			;
		if (i < EM_SEGS)
			continue;
		__atomic_store_n(entry_make(a), 0, __ATOMIC_RELEASE);
		em_retire(b, block_free);
	}
}

struct em_region *em_region_new(uintptr_t start, uintptr_t end, enum em_region_kind kind)
{
	struct em_region *r = em_meta_alloc(sizeof(*r));

	if (!r)
		return NULL;
	r->start = start;
	r->end = end;
	r->kind = (uint8_t)kind;
	r->next = em_regions;
	if (em_regions)
		em_regions->prev = r;
	em_regions = r;
	return r;
}

void em_space_walk(uintptr_t start, uintptr_t end, const struct em_span_visit *v)
{
	uintptr_t a = start;

	if (end > (1ul << EM_ADDR_BITS))
		end = 1ul << EM_ADDR_BITS;
	while (a < end) {
		uintptr_t stop = (a & ~(EM_BLOCK_SIZE - 1)) + EM_BLOCK_SIZE;
		uintptr_t l1 = __atomic_load_n(l1_of(a), __ATOMIC_ACQUIRE), val;

		if (!l1) {
			a = next_l1(a);
			continue;
		}
		if (em_entry_is_lazy(l1) && !(a & (EM_L1_SPAN - 1)) && end - a >= EM_L1_SPAN) {
			v->fn(v->arg, a, a + EM_L1_SPAN, NULL);
			a += EM_L1_SPAN;
			continue;
		}
		if (stop > end)
			stop = end;
		val = em_space_value(a);
		if (val)
			v->fn(v->arg, a, stop,
			      em_entry_is_lazy(val) ? NULL : (struct em_block *)val);
		a = stop;
	}
}
