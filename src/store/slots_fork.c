/* SPDX-License-Identifier: MIT */
/*
 * Slots and children: a slot that was given out before a fork may be in the child's page words too.  When
 * it is freed here it is not free before all such children are gone.  [sigsafe]
 */
#include "slots.h"

#include <errno.h>

enum { FORKS_MAX = UINT16_MAX };

/* The first of our children forked after `number`, as an index; nchildren if none. */
static uint32_t child_after(const struct em_slots *s, uint32_t number)
{
	uint32_t lo = 0, hi = s->nchildren;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (s->children[mid].number > number)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

bool em_slots_held_by_child(const struct em_slots *s, uint32_t born, uint32_t freed)
{
	uint32_t i = child_after(s, born);

	return i < s->nchildren && s->children[i].number <= freed;
}

static void sweep_extent(struct em_slots *s, struct em_extent *x)
{
	struct em_deferred *d = x->deferred;

	for (uint32_t w = 0; w < EM_EXTENT_WORDS; w++) {
		for (uint64_t m = d->bits[w]; m; m &= m - 1) {
			uint32_t bit = w * 64 + (uint32_t)__builtin_ctzll(m);

			if (em_slots_held_by_child(s, x->born ? x->born[bit] : 0, d->when[bit]))
				continue;
			d->bits[w] &= ~(1ull << bit % 64);
			d->n--;
			s->ndeferred--;
			em_slots_release(s, x, bit);
		}
	}
	if (!d->n) {
		x->deferred = NULL;
		em_meta_free(d, sizeof(*d));
	}
}

void em_slots_sweep(struct em_store *st)
{
	struct em_slots *s = &st->slots;
	uint32_t kept = 0;

	s->frees = 0;
	for (uint32_t i = 0; i < s->nchildren; i++)
		if (em_share_child_alive(st, &s->children[i]))
			s->children[kept++] = s->children[i];
	if (kept == s->nchildren)
		return;
	s->nchildren = kept;
	/* backwards: an extent that is given away is replaced by the last one */
	for (uint32_t i = s->nown; i-- > 0;) {
		struct em_extent *x = s->own[i];

		if (!x->deferred)
			continue;
		sweep_extent(s, x);
		em_slots_give_if_empty(st, x);
	}
}

/* Without memory for the mark the slot stays taken for good: a loss, but never wrong. */
void em_slots_defer(struct em_slots *s, struct em_extent *x, uint32_t bit)
{
	if (!x->deferred)
		x->deferred = em_meta_alloc(sizeof(*x->deferred));
	if (!x->deferred)
		return;
	x->deferred->bits[bit / 64] |= 1ull << bit % 64;
	x->deferred->when[bit] = s->forks;
	x->deferred->n++;
	s->ndeferred++;
}

/*
 * Fork counts fit 16 bits: before they overflow, each count becomes the number of
 * children, still remembered, that were forked up to it.  That keeps every comparison of a
 * child's number with a slot's count as it was.
 */
static void renumber(struct em_slots *s)
{
	for (uint32_t i = 0; i < s->nown; i++) {
		struct em_extent *x = s->own[i];

		for (uint32_t b = 0; b < EM_EXTENT_SLOTS; b++) {
			if (x->born)
				x->born[b] = (uint16_t)child_after(s, x->born[b]);
			if (x->deferred)
				x->deferred->when[b] =
					(uint16_t)child_after(s, x->deferred->when[b]);
		}
	}
	for (uint32_t i = 0; i < s->nchildren; i++)
		s->children[i].number = (uint16_t)(i + 1);
	s->forks = (uint16_t)s->nchildren;
}

int em_slots_prepare_fork(struct em_store *st)
{
	struct em_slots *s = &st->slots;
	uint32_t cap = s->children_cap ? 2 * s->children_cap : 64;
	struct em_child *children;

	if (s->nchildren == s->children_cap || s->forks == FORKS_MAX)
		em_slots_sweep(st);
	if (s->forks == FORKS_MAX) {
		if (s->nchildren >= FORKS_MAX)
			return -EAGAIN;
		renumber(s);
	}
	if (s->nchildren < s->children_cap)
		return 0;
	children = em_array_grown(s->children, s->nchildren, cap, sizeof(*children));
	if (!children)
		return -ENOMEM;
	em_array_free(s->children, s->children_cap, sizeof(*children));
	s->children = children;
	s->children_cap = cap;
	return 0;
}

void em_slots_forked(struct em_store *st, uint32_t proc, uint32_t gen)
{
	struct em_slots *s = &st->slots;
	struct em_child *c = &s->children[s->nchildren++];

	c->number = ++s->forks;
	c->proc = proc;
	c->gen = gen;
}
