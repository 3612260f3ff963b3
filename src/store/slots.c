/* SPDX-License-Identifier: MIT */
/*
 * The slots of this process: bitmaps of its own extents. [sigsafe]
 *
 * Successive runs ascend through an extent and then go on in the extent with the most free
 * slots, so that one eviction batch becomes few large writes.  Short runs are skipped at
 * first and used up only when longer ones are rare and the store cannot, or had better not, grow.
 */
#include "internal.h"

#include <errno.h>

#include "slots.h"

enum {
	SLACK = 64,	    /* `longest` is exact below this */
	RETRY_NS = 1000000, /* a full store is asked again after 1 ms */
	SWEEP_FREES = EM_EXTENT_SLOTS,
};

/* Runs shorter than min are passed over unless more than grow_above percent of our slots
   are used: beyond that rather take another extent. */
static const struct level {
	uint32_t min, grow_above;
} levels[] = {{32, 50}, {8, 75}, {1, 0}};

static struct em_extent *find_extent(const struct em_store *st, em_slot_t slot)
{
	uint32_t e = slot / EM_EXTENT_SLOTS;
	struct em_extent **leaf = st->slots.dir[e / EM_DIR_LEAF];

	return leaf ? leaf[e % EM_DIR_LEAF] : NULL;
}

/* Slots that exist in an extent: not slot 0, and not beyond the end of the store. */
static void extent_range(const struct em_store *st, uint32_t e, uint32_t *first, uint32_t *end)
{
	uint64_t base = (uint64_t)e * EM_EXTENT_SLOTS;

	*first = e == 0;
	*end = EM_EXTENT_SLOTS;
	if (base + *end > st->limit_slots)
		*end = (uint32_t)(st->limit_slots - base);
}

/* ---- runs in a bitmap ---------------------------------------------------------- */

static uint32_t next_free(const uint64_t *bits, uint32_t pos)
{
	uint64_t w;

	if (pos >= EM_EXTENT_SLOTS)
		return EM_EXTENT_SLOTS;
	w = bits[pos / 64] & ~0ull << pos % 64;
	for (pos /= 64; !w;) {
		if (++pos == EM_EXTENT_WORDS)
			return EM_EXTENT_SLOTS;
		w = bits[pos];
	}
	return pos * 64 + (uint32_t)__builtin_ctzll(w);
}

static uint32_t run_at(const uint64_t *bits, uint32_t pos, uint32_t max)
{
	uint32_t n = 0;

	while (n < max && pos + n < EM_EXTENT_SLOTS) {
		uint32_t b = (pos + n) % 64;
		uint64_t w = ~(bits[(pos + n) / 64] >> b);
		uint32_t len = w ? (uint32_t)__builtin_ctzll(w) : 64;

		if (len > 64 - b)
			len = 64 - b;
		n += len;
		if (len < 64 - b)
			break;
	}
	return n < max ? n : max;
}

/* Upper bound of the run around a free bit: exact below SLACK. */
static uint32_t run_around(const uint64_t *bits, uint32_t pos)
{
	uint32_t n = run_at(bits, pos, SLACK), p = pos;

	while (n < SLACK && p > 0 && bits[(p - 1) / 64] >> (p - 1) % 64 & 1) {
		p--;
		n++;
	}
	return n < SLACK ? n : EM_EXTENT_SLOTS;
}

/* First run of at least min from pos on, at most want; 0 if none, then *longest is the longest
   seen. */
static uint32_t find_run(const uint64_t *bits, uint32_t *pos, uint32_t min, uint32_t want,
			 uint32_t *longest)
{
	uint32_t p = *pos, n;

	*longest = 0;
	for (;; p += n) {
		p = next_free(bits, p);
		if (p == EM_EXTENT_SLOTS)
			return 0;
		n = run_at(bits, p, want);
		if (n >= min)
			break;
		if (n > *longest)
			*longest = n;
	}
	*pos = p;
	return n;
}

static void clear_run(uint64_t *bits, uint32_t pos, uint32_t n)
{
	while (n) {
		uint32_t b = pos % 64, len = n < 64 - b ? n : 64 - b;
		uint64_t mask = (len == 64 ? ~0ull : (1ull << len) - 1) << b;

		bits[pos / 64] &= ~mask;
		pos += len;
		n -= len;
	}
}

/* ---- own extents --------------------------------------------------------------- */

static int reserve_own(struct em_slots *s)
{
	uint32_t cap = s->own_cap ? 2 * s->own_cap : 64;
	struct em_extent **own;
	uint16_t *nfree, *longest;

	if (s->nown < s->own_cap)
		return 0;
	own = em_array_grown(s->own, s->nown, cap, sizeof(*own));
	nfree = em_array_grown(s->nfree, s->nown, cap, sizeof(*nfree));
	longest = em_array_grown(s->longest, s->nown, cap, sizeof(*longest));
	if (!own || !nfree || !longest) {
		em_array_free(own, cap, sizeof(*own));
		em_array_free(nfree, cap, sizeof(*nfree));
		em_array_free(longest, cap, sizeof(*longest));
		return -ENOMEM;
	}
	em_array_free(s->own, s->own_cap, sizeof(*own));
	em_array_free(s->nfree, s->own_cap, sizeof(*nfree));
	em_array_free(s->longest, s->own_cap, sizeof(*longest));
	s->own = own;
	s->nfree = nfree;
	s->longest = longest;
	s->own_cap = cap;
	return 0;
}

static void add_extent(struct em_store *st, struct em_extent *x, uint32_t e)
{
	struct em_slots *s = &st->slots;
	uint32_t first, end, i = s->nown++;

	extent_range(st, e, &first, &end);
	for (uint32_t w = 0; w < EM_EXTENT_WORDS; w++)
		x->free[w] = ~0ull;
	clear_run(x->free, 0, first);
	clear_run(x->free, end, EM_EXTENT_SLOTS - end);
	x->number = e;
	x->index = i;
	s->own[i] = x;
	s->nfree[i] = s->longest[i] = (uint16_t)(end - first);
	s->total_free += end - first;
	s->dir[e / EM_DIR_LEAF][e % EM_DIR_LEAF] = x;
	s->cur = i;
	s->pos = 0;
	s->dry = UINT32_MAX;
}

static int take_extent(struct em_store *st)
{
	struct em_slots *s = &st->slots;
	struct em_extent *x;
	long e;
	int err = reserve_own(s);

	if (err)
		return err;
	x = em_meta_alloc(sizeof(*x));
	if (!x)
		return -ENOMEM;
	e = em_share_take(st);
	if (e < 0) {
		em_meta_free(x, sizeof(*x));
		s->take_failed_ns = em_store_now_ns();
		s->take_error = (int)e;
		return (int)e;
	}
	s->take_failed_ns = 0;
	if (!s->dir[e / EM_DIR_LEAF]) {
		s->dir[e / EM_DIR_LEAF] = em_meta_alloc(EM_DIR_LEAF * sizeof(x));
		if (!s->dir[e / EM_DIR_LEAF]) {
			em_share_give(st, (uint32_t)e);
			em_meta_free(x, sizeof(*x));
			return -ENOMEM;
		}
	}
	add_extent(st, x, (uint32_t)e);
	return 0;
}

static void free_extent(struct em_extent *x)
{
	if (x->born)
		em_meta_free(x->born, EM_EXTENT_SLOTS * sizeof(*x->born));
	if (x->deferred)
		em_meta_free(x->deferred, sizeof(*x->deferred));
	em_meta_free(x, sizeof(*x));
}

void em_slots_give_if_empty(struct em_store *st, struct em_extent *x)
{
	struct em_slots *s = &st->slots;
	uint32_t first, end, i = x->index, last;

	if (!__atomic_load_n(&st->shared->forked, __ATOMIC_RELAXED))
		return;
	extent_range(st, x->number, &first, &end);
	if (s->nfree[i] != end - first || s->total_free < 3 * EM_EXTENT_SLOTS)
		return;
	s->total_free -= s->nfree[i];
	s->dir[x->number / EM_DIR_LEAF][x->number % EM_DIR_LEAF] = NULL;
	last = --s->nown;
	s->own[i] = s->own[last];
	s->own[i]->index = i;
	s->nfree[i] = s->nfree[last];
	s->longest[i] = s->longest[last];
	if (s->cur == i || s->cur == last) {
		s->cur = 0;
		s->pos = 0;
	}
	em_share_give(st, x->number);
	free_extent(x);
}

void em_slots_release(struct em_slots *s, struct em_extent *x, uint32_t bit)
{
	uint32_t run;

	x->free[bit / 64] |= 1ull << bit % 64;
	s->nfree[x->index]++;
	s->total_free++;
	run = run_around(x->free, bit);
	if (run > s->longest[x->index])
		s->longest[x->index] = (uint16_t)run;
	if (run >= s->dry)
		s->dry = run + 1;
}

/* ---- entry points -------------------------------------------------------------- */

static uint32_t take_run(struct em_slots *s, uint32_t n, em_slot_t *first)
{
	struct em_extent *x = s->own[s->cur];

	if (s->forks && !x->born) {
		x->born = em_meta_alloc(EM_EXTENT_SLOTS * sizeof(*x->born));
		if (!x->born)
			return 0;
	}
	clear_run(x->free, s->pos, n);
	if (x->born)
		for (uint32_t i = 0; i < n; i++)
			x->born[s->pos + i] = s->forks;
	s->nfree[s->cur] = (uint16_t)(s->nfree[s->cur] - n);
	s->total_free -= n;
	s->used += n;
	*first = x->number * EM_EXTENT_SLOTS + s->pos;
	s->pos += n;
	return n;
}

/* The extent with the most free slots among those that may have a run of min. */
static uint32_t best_extent(const struct em_slots *s, uint32_t min)
{
	uint32_t best = UINT32_MAX, most = 0;

	for (uint32_t i = 0; i < s->nown; i++) {
		if (s->nfree[i] > most && s->longest[i] >= min) {
			most = s->nfree[i];
			best = i;
		}
	}
	return best;
}

/*
 * Ends: each round either finds a run, or moves to position 0 of an extent, or lowers
 * `longest` of an extent, searched from 0, below min.
 */
static uint32_t alloc_own(struct em_slots *s, uint32_t want, uint32_t min, em_slot_t *first)
{
	uint32_t n, pos, longest;

	if (min >= s->dry)
		return 0;
	for (;;) {
		if (s->cur < s->nown && s->longest[s->cur] >= min) {
			pos = s->pos;
			n = find_run(s->own[s->cur]->free, &pos, min, want, &longest);
			if (n) {
				s->pos = pos;
				return take_run(s, n, first);
			}
			if (s->pos == 0)
				s->longest[s->cur] = (uint16_t)longest;
		}
		s->cur = best_extent(s, min);
		s->pos = 0;
		if (s->cur == UINT32_MAX)
			break;
	}
	s->dry = min;
	return 0;
}

static bool may_take(const struct em_slots *s)
{
	return !s->take_failed_ns || em_store_now_ns() - s->take_failed_ns > RETRY_NS;
}

static uint32_t alloc_locked(struct em_store *st, uint32_t want, em_slot_t *first)
{
	struct em_slots *s = &st->slots;
	uint64_t mine;
	uint32_t n;

	if (s->ndeferred && s->frees >= SWEEP_FREES)
		em_slots_sweep(st);
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		uint32_t min = want < levels[i].min ? want : levels[i].min;

		n = alloc_own(s, want, min, first);
		if (n)
			return n;
		mine = (uint64_t)s->nown * EM_EXTENT_SLOTS;
		if ((mine - s->total_free) * 100 < mine * levels[i].grow_above || !may_take(s))
			continue;
		/* slots short: before another extent, those that only the dead still kept */
		if (s->ndeferred) {
			em_slots_sweep(st);
			n = alloc_own(s, want, min, first);
		}
		if (!n && !take_extent(st))
			n = alloc_own(s, want, min, first);
		if (n)
			return n;
	}
	return 0;
}

uint32_t em_slots_alloc(struct em_store *st, uint32_t want, em_slot_t *first)
{
	uint32_t n;

	if (!want)
		return 0;
	if (want > EM_RUN_MAX)
		want = EM_RUN_MAX;
	em_mutex_lock(&st->slots.lock);
	n = alloc_locked(st, want, first);
	em_mutex_unlock(&st->slots.lock);
	return n;
}

int em_slots_error(const struct em_store *st)
{
	int err = __atomic_load_n(&st->slots.take_error, __ATOMIC_RELAXED);

	return err ? err : -ENOSPC;
}

void em_slots_free(struct em_store *st, em_slot_t slot)
{
	struct em_slots *s = &st->slots;
	uint32_t bit = slot % EM_EXTENT_SLOTS;
	struct em_extent *x;

	if (slot == EM_SLOT_NONE)
		return;
	em_mutex_lock(&s->lock);
	x = find_extent(st, slot);
	if (!x || x->free[bit / 64] >> bit % 64 & 1)
		goto out_unlock;
	if (x->deferred && x->deferred->bits[bit / 64] >> bit % 64 & 1)
		goto out_unlock;
	s->used--;
	s->frees++;
	if (em_slots_held_by_child(s, x->born ? x->born[bit] : 0, s->forks)) {
		em_slots_defer(s, x, bit);
	} else {
		em_slots_release(s, x, bit);
		em_slots_give_if_empty(st, x);
	}
out_unlock:
	em_mutex_unlock(&s->lock);
}

uint64_t em_slots_used(const struct em_store *st)
{
	return __atomic_load_n(&st->slots.used, __ATOMIC_RELAXED);
}

uint64_t em_slots_limit(const struct em_store *st)
{
	return st->limit_known ? st->limit_slots - 1 : 0;
}

void em_slots_reset(struct em_store *st)
{
	struct em_slots *s = &st->slots;

	for (uint32_t i = 0; i < s->nown; i++)
		free_extent(s->own[i]);
	for (size_t i = 0; i < sizeof(s->dir) / sizeof(s->dir[0]); i++)
		if (s->dir[i])
			em_meta_free(s->dir[i], EM_DIR_LEAF * sizeof(*s->dir[i]));
	em_array_free(s->own, s->own_cap, sizeof(*s->own));
	em_array_free(s->nfree, s->own_cap, sizeof(*s->nfree));
	em_array_free(s->longest, s->own_cap, sizeof(*s->longest));
	em_array_free(s->children, s->children_cap, sizeof(*s->children));
	em_memzero(s, sizeof(*s));
	s->dry = UINT32_MAX;
}
