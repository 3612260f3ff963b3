/* SPDX-License-Identifier: MIT */
/* The heap: sbrk as a region of thread 0, and malloc in every thread. */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * The break is shared with malloc, so this runs while the world stands still.
 * Chunks of malloc may come to lie above the region: then it only stays.
 */
static void brk_change(struct thread *t, struct region *r)
{
	char *top = sbrk(0);
	size_t old = r->npages, n, i;

	if (r->npages && r->base + r->npages * PG != top)
		return;
	if (r->npages == 0) {
		n = PG - ((uintptr_t)top & (PG - 1));
		if (sbrk((intptr_t)n) == (void *)-1)
			return;
		r->base = top + n;
	}
	n = rnd_below(t, r->cap);
	if (r->npages && rnd_below(t, 3) == 0)
		n = 0;
	if (sbrk(((intptr_t)n - (intptr_t)old) * (intptr_t)PG) == (void *)-1)
		fail("sbrk from %zu to %zu pages: %s", old, n, strerror(errno));
	for (i = old; i < n; i++) {
		memset(&r->meta[i], 0, sizeof(r->meta[i]));
		memset(shadow_page(r, i), 0, PG);
		r->meta[i].state = PG_RW;
	}
	r->npages = n;
	note(t, r, 0, n, "sbrk", n);
	if (n)
		page_check(t, r, n - 1, "after sbrk");
}

void op_brk(struct thread *t)
{
	struct region *r = &t->reg[NREG - 1];
	size_t i;

	if (t->id != 0)
		return;
	/* Protected pages at the top would stay protected when the break comes back. */
	for (i = 0; i < r->npages; i++)
		if (r->meta[i].state != PG_RW)
			return;
	brk_change(t, r);
}

static uint64_t block_word(struct block *b, size_t i)
{
	return mix64(b->key + i);
}

static void block_check(struct thread *t, struct block *b, size_t words)
{
	size_t i;

	for (i = 0; i < words; i++)
		if (((volatile uint64_t *)b->p)[i] != block_word(b, i))
			fail("malloc block %p of %zu words of thread %u: word %zu at %p: expected "
			     "%#llx, found %#llx", (void *)b->p, b->words, t->id, i,
			     (void *)(b->p + i), (unsigned long long)block_word(b, i),
			     (unsigned long long)b->p[i]);
}

void blocks_check(struct thread *t)
{
	unsigned i;

	for (i = 0; i < NBLOCKS; i++)
		if (t->block[i].p)
			block_check(t, &t->block[i], t->block[i].words);
}

static size_t block_size(struct thread *t)
{
	switch (rnd_below(t, 40)) {
	case 0:
		return (1u << 20) + rnd_below(t, 1u << 19); /* a mapping of its own */
	case 1:
	case 2:
		return 1 + rnd_below(t, 200000);
	default:
		return 1 + rnd_below(t, 6000);
	}
}

static void block_alloc(struct thread *t, struct block *b)
{
	size_t bytes = block_size(t), i;
	uint64_t kind = rnd_below(t, 3);
	void *p = NULL;

	if (kind == 0)
		p = calloc(1, bytes);
	else if (kind == 1)
		p = malloc(bytes);
	else if (posix_memalign(&p, 64u << rnd_below(t, 8), bytes) != 0)
		p = NULL;
	if (!p)
		fail("malloc of %zu bytes: %s", bytes, strerror(errno));
	b->p = p;
	b->words = bytes / 8;
	b->key = rnd(t);
	for (i = 0; i < b->words; i++) {
		if (kind == 0 && b->p[i] != 0)
			fail("calloc gave %#llx at %p", (unsigned long long)b->p[i],
			     (void *)(b->p + i));
		b->p[i] = block_word(b, i);
	}
}

static void block_realloc(struct thread *t, struct block *b)
{
	size_t words = 1 + block_size(t) / 8, keep = words < b->words ? words : b->words, i;
	uint64_t *p = realloc(b->p, words * 8);

	if (!p)
		fail("realloc to %zu words: %s", words, strerror(errno));
	b->p = p;
	block_check(t, b, keep);
	for (i = keep; i < words; i++)
		b->p[i] = block_word(b, i);
	b->words = words;
}

void op_malloc(struct thread *t)
{
	unsigned i;

	for (i = 0; i < 4; i++) {
		struct block *b = &t->block[rnd_below(t, NBLOCKS)];

		if (!b->p) {
			block_alloc(t, b);
		} else if (rnd_below(t, 3) == 0) {
			block_realloc(t, b);
		} else {
			block_check(t, b, b->words);
			free(b->p);
			b->p = NULL;
		}
	}
	if (rnd_below(t, 64) == 0)
		malloc_trim(0);
}
