/* SPDX-License-Identifier: MIT */
/* mremap in all its forms, within one thread's regions. */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/* What page `from` was is now page `to`. */
static void shadow_move(struct region *a, size_t from, struct region *b, size_t to, size_t n,
			bool dontunmap)
{
	size_t i;

	for (i = 0; i < n; i++) {
		memcpy(shadow_page(b, to + i), shadow_page(a, from + i), PG);
		b->meta[to + i] = a->meta[from + i];
		if (dontunmap) {
			memset(shadow_page(a, from + i), 0, PG);
			a->meta[from + i].freed = 0;
		} else {
			a->meta[from + i].state = PG_HOLE;
		}
	}
}

static bool whole_and_alike(struct region *r)
{
	size_t i;

	for (i = 0; i < r->npages; i++)
		if (r->meta[i].state != PG_RW)
			return false;
	return true;
}

static void resize(struct thread *t, struct region *r)
{
	size_t old = r->npages, now;
	void *p;

	now = MIN_REGION_PAGES + rnd_below(t, r->cap - MIN_REGION_PAGES + 1);
	p = mremap(r->base, old * PG, now * PG, MREMAP_MAYMOVE);
	if (p == MAP_FAILED) {
		/* Advice and protection have split the mapping: not to be resized. */
		if (errno == EFAULT && now > old)
			return;
		fail("mremap from %zu to %zu pages: %s", old, now, strerror(errno));
	}
	if (now < old && p != (void *)r->base)
		fail("shrinking moved %p to %p", (void *)r->base, p);
	r->base = p;
	for (; old < now; old++) {
		memset(shadow_page(r, old), 0, PG);
		memset(&r->meta[old], 0, sizeof(r->meta[old]));
		r->meta[old].state = PG_RW;
	}
	r->npages = now;
	note(t, r, 0, now, "mremap resized", (uint64_t)p);
	page_check(t, r, now - 1, "after mremap");
	page_check(t, r, rnd_below(t, now), "after mremap");
}

/* Moves a run of one region over a run of another (or of the same). */
static void move_fixed(struct thread *t, bool dontunmap)
{
	struct region *a = &t->reg[rnd_below(t, NREG - 1)], *b = &t->reg[rnd_below(t, NREG - 1)];
	size_t from, to, n, room, i;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (dontunmap ? MREMAP_DONTUNMAP : 0);
	void *p;

	if (!pick_run(t, a, PG_NONE, true, pick_len(t, a), &from, &n) ||
	    !pick_run(t, b, PG_NONE, false, n, &to, &room))
		return;
	if (n > room)
		n = room;
	if (a == b && from < to + n && to < from + n)
		return;
	p = mremap(region_page(a, from), n * PG, n * PG, flags, region_page(b, to));
	if (p == MAP_FAILED) {
		if (errno != EFAULT && errno != EINVAL && errno != ENOMEM)
			fail("mremap FIXED of %zu pages: %s", n, strerror(errno));
		/* The kernel may have unmapped the target before it refused. */
		for (i = 0; i < n; i++)
			b->meta[to + i].state = PG_HOLE;
		return;
	}
	if (p != (void *)region_page(b, to))
		fail("mremap FIXED to %p went to %p", (void *)region_page(b, to), p);
	note(t, a, from, n, dontunmap ? "mremap from here, kept" : "mremap from here", (uint64_t)p);
	shadow_move(a, from, b, to, n, dontunmap);
	for (i = 0; i < n; i++) {
		page_check(t, b, to + i, "after mremap FIXED");
		page_check(t, a, from + i, "source of mremap");
	}
}

/* Moves the whole region to a place of the kernel's choice, or into a fresh mapping. */
static void move_whole(struct thread *t, struct region *r)
{
	void *p, *to;

	to = mmap(NULL, r->npages * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		  0);
	if (to == MAP_FAILED)
		fail("mmap of a target: %s", strerror(errno));
	p = mremap(r->base, r->npages * PG, r->npages * PG, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (p == MAP_FAILED && (errno == EFAULT || errno == EINVAL))
		return;
	if (p != to)
		fail("mremap of a region to %p gave %p: %s", to, p, strerror(errno));
	r->base = p;
	note(t, r, 0, r->npages, "mremap moved", (uint64_t)p);
}

void op_remap(struct thread *t)
{
	struct region *r = &t->reg[rnd_below(t, NREG - 1)];
	uint64_t kind = rnd_below(t, 8);

	if (kind >= 4)
		move_fixed(t, kind >= 6);
	else if (!whole_and_alike(r))
		return;
	else if (kind < 3)
		resize(t, r);
	else
		move_whole(t, r);
}
