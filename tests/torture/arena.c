/* SPDX-License-Identifier: MIT */
/* Operations of one thread on its own regions: access, mapping, protection, advice. */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static const int prot_of[] = {
	[PG_NONE] = PROT_NONE, [PG_RO] = PROT_READ, [PG_RW] = PROT_READ | PROT_WRITE
};

static void set_state(struct region *r, size_t page, size_t n, enum page_state s)
{
	while (n--) {
		r->meta[page].state = s;
		page++;
	}
}

static void set_zero(struct region *r, size_t page, size_t n)
{
	memset(shadow_page(r, page), 0, n * PG);
	while (n--)
		r->meta[page++].freed = 0;
}

static void region_map(struct thread *t, struct region *r)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	r->npages = MIN_REGION_PAGES + rnd_below(t, r->cap / 2 - MIN_REGION_PAGES + 1);
	if (rnd_below(t, 4) == 0)
		flags |= MAP_NORESERVE;
	r->base = mmap(NULL, r->npages * PG, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (r->base == MAP_FAILED)
		fail("mmap of %zu pages: %s", r->npages, strerror(errno));
	set_zero(r, 0, r->npages);
	set_state(r, 0, r->npages, PG_RW);
	note(t, r, 0, r->npages, "mmap", (uint64_t)r->base);
}

void arena_init(struct thread *t)
{
	unsigned i;
	size_t pages = cfg.bytes / PG / cfg.threads / 2;

	if (pages < MIN_REGION_PAGES)
		pages = MIN_REGION_PAGES;
	for (i = 0; i < NREG; i++) {
		struct region *r = &t->reg[i];

		r->is_brk = i == NREG - 1;
		if (r->is_brk && t->id != 0)
			continue;
		r->cap = 2 * pages;
		r->words = outside_alloc(r->cap * PG);
		r->meta = outside_alloc(r->cap * sizeof(*r->meta));
		if (!r->is_brk)
			region_map(t, r);
	}
}

struct region *pick_region(struct thread *t)
{
	struct region *r = &t->reg[rnd_below(t, NREG)];

	return r->npages ? r : &t->reg[0];
}

/* Mostly a few pages, now and then half a region or all of it. */
size_t pick_len(struct thread *t, struct region *r)
{
	switch (rnd_below(t, 16)) {
	case 0:
		return r->npages;
	case 1:
	case 2:
		return 1 + rnd_below(t, 128);
	default:
		return 1 + rnd_below(t, 12);
	}
}

/* A run of at most max pages from at_least on; `same`: all in the state of the first. */
bool pick_run(struct thread *t, struct region *r, enum page_state at_least, bool same, size_t max,
	      size_t *page, size_t *n)
{
	unsigned tries;
	size_t p, i;

	for (tries = 0; tries < 8; tries++) {
		p = max >= r->npages ? 0 : rnd_below(t, r->npages);
		if (r->meta[p].state < at_least) {
			max = 1;
			continue;
		}
		for (i = 1; i < max && p + i < r->npages; i++)
			if (same ? r->meta[p + i].state != r->meta[p].state
				 : r->meta[p + i].state < at_least)
				break;
		*page = p;
		*n = i;
		return true;
	}
	return false;
}

void write_page(struct thread *t, struct region *r, size_t page, unsigned words)
{
	volatile uint64_t *mem = region_page(r, page);
	uint64_t *want = shadow_page(r, page);
	unsigned i;

	page_settle(t, r, page);
	if (words >= WORDS) {
		for (i = 0; i < WORDS; i++)
			want[i] = make_word(t);
		memcpy(region_page(r, page), want, PG);
	}
	for (i = 0; words < WORDS && i < words; i++) {
		unsigned w = (unsigned)rnd_below(t, WORDS);

		want[w] = make_word(t);
		mem[w] = want[w];
	}
	note(t, r, page, 1, "write", words);
}

void op_rw(struct thread *t)
{
	struct region *r = pick_region(t);
	size_t page, n, i;
	uint64_t kind = rnd_below(t, 8);

	if (!pick_run(t, r, kind < 4 ? PG_RO : PG_RW, false, pick_len(t, r), &page, &n))
		return;
	for (i = page; i < page + n; i++) {
		if (kind < 4) {
			page_check(t, r, i, "read");
			continue;
		}
		if (kind & 1)
			page_check(t, r, i, "read before write");
		write_page(t, r, i, kind < 6 ? 1 + (unsigned)rnd_below(t, 6) : WORDS);
	}
}

/* Takes back what was unmapped, unless somebody else has got it meanwhile. */
static void refill(struct thread *t, struct region *r)
{
	size_t p, n;
	void *at;

	for (p = 0; p < r->npages; p += n) {
		n = 1;
		if (r->meta[p].state != PG_HOLE)
			continue;
		while (p + n < r->npages && r->meta[p + n].state == PG_HOLE)
			n++;
		at = mmap(region_page(r, p), n * PG, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (at == MAP_FAILED && errno == EEXIST)
			continue;
		if (at != (void *)region_page(r, p))
			fail("mmap NOREPLACE gave %p: %s", at, strerror(errno));
		set_zero(r, p, n);
		set_state(r, p, n, PG_RW);
		note(t, r, p, n, "mmap into hole", n);
	}
}

static void replace_region(struct thread *t, struct region *r)
{
	size_t p, n;

	region_check(t, r, "before unmapping the region");
	for (p = 0; p < r->npages; p += n) {
		n = 1;
		if (r->meta[p].state == PG_HOLE)
			continue;
		while (p + n < r->npages && r->meta[p + n].state != PG_HOLE)
			n++;
		if (munmap(region_page(r, p), n * PG) != 0)
			fail("munmap of a region: %s", strerror(errno));
	}
	region_map(t, r);
}

void op_map(struct thread *t)
{
	struct region *r = &t->reg[rnd_below(t, NREG - 1)];
	size_t page, n;
	uint64_t kind = rnd_below(t, 16);

	if (kind == 0) {
		replace_region(t, r);
		return;
	}
	if (kind < 6) {
		refill(t, r);
		return;
	}
	if (!pick_run(t, r, PG_NONE, false, pick_len(t, r), &page, &n))
		return;
	if (kind < 11) {
		if (munmap(region_page(r, page), n * PG) != 0)
			fail("munmap of %zu pages: %s", n, strerror(errno));
		set_state(r, page, n, PG_HOLE);
		note(t, r, page, n, "munmap", n);
		return;
	}
	if (mmap(region_page(r, page), n * PG, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)region_page(r, page))
		fail("mmap FIXED: %s", strerror(errno));
	set_zero(r, page, n);
	set_state(r, page, n, PG_RW);
	note(t, r, page, n, "mmap FIXED over", n);
}

void op_prot(struct thread *t)
{
	struct region *r = pick_region(t);
	size_t page, n, i;
	enum page_state to = PG_NONE + rnd_below(t, 5);

	if (to > PG_RW || rnd_below(t, 3) == 0)
		to = PG_RW;
	if (!pick_run(t, r, PG_NONE, false, to == PG_RW ? r->npages : pick_len(t, r), &page, &n))
		return;
	if (mprotect(region_page(r, page), n * PG, prot_of[to]) != 0)
		fail("mprotect of %zu pages to %d: %s", n, prot_of[to], strerror(errno));
	set_state(r, page, n, to);
	note(t, r, page, n, "mprotect", prot_of[to]);
	for (i = page; i < page + n && to >= PG_RO && rnd_below(t, 3); i++)
		page_check(t, r, i, "after mprotect");
}

void op_advise(struct thread *t)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_FREE, MADV_WILLNEED, MADV_SEQUENTIAL, MADV_RANDOM,
		MADV_NORMAL, MADV_PAGEOUT, MADV_COLD, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_PAGEOUT, MADV_DONTNEED
	};
	struct region *r = pick_region(t);
	int adv = advice[rnd_below(t, sizeof(advice) / sizeof(advice[0]))];
	bool populate = adv == MADV_POPULATE_READ || adv == MADV_POPULATE_WRITE;
	size_t page, n, i;

	if (!pick_run(t, r, populate ? PG_RW : PG_NONE, false, pick_len(t, r), &page, &n))
		return;
	note(t, r, page, n, "madvise", (uint64_t)adv);
	if (madvise(region_page(r, page), n * PG, adv) != 0) {
		/* Kernels may lack an advice or be short of something, but say so. */
		if (errno != EINVAL && errno != EAGAIN && errno != ENOMEM)
			fail("madvise %d of %zu pages: %s", adv, n, strerror(errno));
		if (adv == MADV_DONTNEED)
			fail("madvise DONTNEED of %zu pages: %s", n, strerror(errno));
	}
	if (adv == MADV_DONTNEED)
		set_zero(r, page, n);
	for (i = page; i < page + n && adv == MADV_FREE; i++)
		r->meta[i].freed = 1;
	for (i = page; i < page + n && rnd_below(t, 4); i++)
		page_check(t, r, i, "after madvise");
}
