/* SPDX-License-Identifier: MIT */
/*
 * Regions that all threads use at once.  Each has a rule that makes it verifiable:
 *   counters  atomic increments; the sum is known: an update lost between write-protect
 *             and drop shows
 *   first     word i of a page belongs to thread i; all rush to the same fresh pages: a
 *             write that another thread's fill overwrites shows
 *   seq       a page holds one version throughout; one writer at a time discards and
 *             rewrites it, readers without a lock accept only versions of that time
 */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SHARED_PAGES MIN_REGION_PAGES
#define STRIDE 8u /* words between the words of two threads: one cache line */

struct first_page {
	int32_t lock; /* -1: exclusive, else users */
	uint64_t word[MAX_THREADS];
};

struct seq_page {
	int32_t lock;
	uint32_t version;
	uint64_t seq; /* odd while the writer is at it */
};

static uint64_t *counters, *count_want;
static uint64_t *firsts;
static struct first_page *first_want;
static uint64_t *seqs;
static struct seq_page *seq_want;
static uint64_t *ticks, tick_want, tick_next;

static uint64_t *map_shared_pages(void)
{
	void *p = mmap(NULL, SHARED_PAGES * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return p;
}

static uint64_t seq_word(uint32_t version, size_t page, unsigned i)
{
	if (version == 0)
		return 0;
	return ((uint64_t)version << 32) | (mix64(version ^ (page << 32) ^ ((uint64_t)i << 48)) >> 32);
}

void shared_init(void)
{
	counters = map_shared_pages();
	count_want = outside_alloc(SHARED_PAGES * 8);
	firsts = map_shared_pages();
	first_want = outside_alloc(SHARED_PAGES * sizeof(*first_want));
	seqs = map_shared_pages();
	seq_want = outside_alloc(SHARED_PAGES * sizeof(*seq_want));
	ticks = map_shared_pages();
}

/* ---- counters ---- */

void op_count(struct thread *t)
{
	size_t page, hot = rnd_below(t, SHARED_PAGES);
	unsigned i;

	for (i = 0; i < 24; i++) {
		page = rnd(t) & 1 ? hot : rnd_below(t, SHARED_PAGES);
		__atomic_fetch_add(&counters[page * WORDS + rnd_below(t, WORDS)], 1,
				   __ATOMIC_RELAXED);
		__atomic_fetch_add(&count_want[page], 1, __ATOMIC_RELAXED);
		if (i == 12 && rnd_below(t, 8) == 0)
			madvise(counters + page * WORDS, PG * (1 + rnd_below(t, SHARED_PAGES - page)),
				rnd(t) & 1 ? 21 /* PAGEOUT */ : 20 /* COLD */);
	}
}

static void counters_check(void)
{
	size_t page;
	unsigned i;

	for (page = 0; page < SHARED_PAGES; page++) {
		uint64_t sum = 0;

		for (i = 0; i < WORDS; i++)
			sum += counters[page * WORDS + i];
		if (sum != count_want[page])
			fail("counters of page %zu at %p: %llu increments, sum %llu", page,
			     (void *)(counters + page * WORDS),
			     (unsigned long long)count_want[page], (unsigned long long)sum);
	}
}

/* ---- first touch ---- */

static bool lock_shared(int32_t *lock)
{
	int32_t v = __atomic_load_n(lock, __ATOMIC_RELAXED);

	while (v >= 0)
		if (__atomic_compare_exchange_n(lock, &v, v + 1, false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return true;
	return false;
}

static bool lock_exclusive(int32_t *lock)
{
	int32_t v = 0;

	return __atomic_compare_exchange_n(lock, &v, -1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

static void first_fail(size_t page, unsigned id, uint64_t found)
{
	fail("first touch: word of thread %u in page %zu at %p: expected %#llx, found %#llx", id,
	     page, (void *)(firsts + page * WORDS + id * STRIDE),
	     (unsigned long long)first_want[page].word[id], (unsigned long long)found);
}

static void first_use(struct thread *t, size_t page)
{
	struct first_page *f = &first_want[page];
	volatile uint64_t *w = firsts + page * WORDS + t->id * STRIDE;

	if (!lock_shared(&f->lock))
		return;
	if (rnd(t) & 1) { /* else the first access is a write */
		if (*w != f->word[t->id])
			first_fail(page, t->id, *w);
	}
	f->word[t->id] = make_word(t);
	*w = f->word[t->id];
	if (*w != f->word[t->id])
		first_fail(page, t->id, *w);
	__atomic_fetch_sub(&f->lock, 1, __ATOMIC_RELEASE);
}

static void first_page_check(size_t page)
{
	unsigned i;

	for (i = 0; i < cfg.threads; i++)
		if (firsts[page * WORDS + i * STRIDE] != first_want[page].word[i])
			first_fail(page, i, firsts[page * WORDS + i * STRIDE]);
}

/* Makes pages fresh that the cursor will reach soon. */
static void first_discard(struct thread *t, size_t page)
{
	size_t n = 0, want = 1 + rnd_below(t, 32), i;
	uint64_t *at = firsts + page * WORDS;

	while (n < want && page + n < SHARED_PAGES && lock_exclusive(&first_want[page + n].lock)) {
		first_page_check(page + n);
		n++;
	}
	if (n && rnd_below(t, 4)) {
		if (madvise(at, n * PG, MADV_DONTNEED) != 0)
			fail("madvise DONTNEED: %s", strerror(errno));
	} else if (n) {
		if (mmap(at, n * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			 -1, 0) != (void *)at)
			fail("mmap FIXED: %s", strerror(errno));
	}
	for (i = page; i < page + n; i++) {
		memset(first_want[i].word, 0, sizeof(first_want[i].word));
		__atomic_store_n(&first_want[i].lock, 0, __ATOMIC_RELEASE);
	}
}

/* The clock is the cursor: without talking to each other all come to the same page. */
void op_first(struct thread *t)
{
	struct timespec now;
	size_t page, i;

	clock_gettime(CLOCK_MONOTONIC, &now);
	page = ((size_t)now.tv_sec * 1000000000u + (size_t)now.tv_nsec) / 20000 % SHARED_PAGES;
	for (i = 0; i < 12; i++)
		first_use(t, (page + i) % SHARED_PAGES);
	if (rnd_below(t, 6) == 0)
		first_discard(t, (page + 32 + rnd_below(t, 32)) % SHARED_PAGES);
}

/* ---- versions ---- */

static void seq_fail(size_t page, unsigned i, uint64_t found, uint32_t lo, uint32_t hi)
{
	fail("versions: page %zu word %u at %p: found %#llx, expected version %u to %u", page, i,
	     (void *)(seqs + page * WORDS + i), (unsigned long long)found, lo, hi);
}

static void seq_exact(size_t page)
{
	uint32_t v = seq_want[page].version;
	unsigned i;

	for (i = 0; i < WORDS; i++) {
		uint64_t w = ((volatile uint64_t *)seqs)[page * WORDS + i];

		if (w != seq_word(v, page, i))
			seq_fail(page, i, w, v, v);
	}
}

/* The ways to get rid of the old version before the new one is written. */
static void seq_clear(struct thread *t, void *at, uint64_t *kind)
{
	int bad = 0;

	*kind = rnd_below(t, 7);
	if (*kind == 0 || *kind == 1)
		bad = madvise(at, PG, MADV_DONTNEED);
	else if (*kind == 2)
		bad = mmap(at, PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			   0) != at;
	else if (*kind == 3)
		bad = mprotect(at, PG, PROT_READ) || mprotect(at, PG, PROT_READ | PROT_WRITE);
	else if (*kind == 4)
		madvise(at, PG, 21 /* PAGEOUT */);
	if (bad)
		fail("versions: operation %d on %p: %s", (int)*kind, at, strerror(errno));
}

static void seq_write(struct thread *t, size_t page)
{
	struct seq_page *s = &seq_want[page];
	uint64_t text[WORDS], kind, *at = seqs + page * WORDS;
	unsigned i;

	if (!lock_exclusive(&s->lock))
		return;
	seq_exact(page);
	for (i = 0; i < WORDS; i++)
		text[i] = seq_word(s->version + 1, page, i);
	__atomic_fetch_add(&s->seq, 1, __ATOMIC_SEQ_CST);
	seq_clear(t, at, &kind);
	if (kind <= 2 && (at[rnd_below(t, WORDS)] != 0 || at[0] != 0))
		fail("versions: page %zu not zero after operation %d", page, (int)kind);
	if (kind == 6) {
		if (write(t->pipe[1], text, PG) != (ssize_t)PG ||
		    read(t->pipe[0], at, PG) != (ssize_t)PG)
			fail("versions: through a pipe into %p: %s", (void *)at, strerror(errno));
	} else {
		for (i = 0; i < WORDS; i++)
			__atomic_store_n(&at[i], text[i], __ATOMIC_RELAXED);
	}
	__atomic_store_n(&s->version, s->version + 1, __ATOMIC_RELEASE);
	__atomic_fetch_add(&s->seq, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&s->lock, 0, __ATOMIC_RELEASE);
}

static void seq_read(size_t page)
{
	struct seq_page *s = &seq_want[page];
	uint64_t seen[WORDS], before, after;
	uint32_t lo, hi, v;
	unsigned i;

	before = __atomic_load_n(&s->seq, __ATOMIC_SEQ_CST);
	lo = __atomic_load_n(&s->version, __ATOMIC_SEQ_CST);
	for (i = 0; i < WORDS; i++)
		seen[i] = __atomic_load_n(&seqs[page * WORDS + i], __ATOMIC_ACQUIRE);
	after = __atomic_load_n(&s->seq, __ATOMIC_SEQ_CST);
	hi = __atomic_load_n(&s->version, __ATOMIC_SEQ_CST);
	for (i = 0; i < WORDS; i++) {
		v = (uint32_t)(seen[i] >> 32);
		if (before == after && !(before & 1)) {
			if (seen[i] != seq_word(lo, page, i))
				seq_fail(page, i, seen[i], lo, lo);
		} else if (seen[i] != 0 &&
			   (seen[i] != seq_word(v, page, i) || v < lo || v > hi + 1)) {
			seq_fail(page, i, seen[i], lo, hi + 1);
		}
	}
}

void op_seq(struct thread *t)
{
	/* A few pages much used, so that readers meet writers. */
	size_t page = rnd(t) & 1 ? rnd_below(t, 4) * 60 : rnd_below(t, SHARED_PAGES);

	if (rnd_below(t, 3) == 0)
		seq_write(t, page);
	else
		seq_read(page);
}

/* ---- all ---- */

/* Nobody else is at work. */
void shared_check_exact(void)
{
	size_t page;

	counters_check();
	for (page = 0; page < SHARED_PAGES; page++) {
		first_page_check(page);
		seq_exact(page);
	}
}

/* In a child forked in the midst of it all. */
void shared_check_loosely(struct thread *t)
{
	size_t page;
	unsigned i;

	for (page = 0; page < SHARED_PAGES; page++)
		for (i = 0; i < WORDS; i++) {
			uint64_t w = seqs[page * WORDS + i];

			if (w != 0 && w != seq_word((uint32_t)(w >> 32), page, i))
				seq_fail(page, i, w, 0, 0);
			w = firsts[page * WORDS + i];
			if (i % STRIDE ? w != 0 : !word_valid(i / STRIDE, w))
				first_fail(page, i / STRIDE, w);
		}
	/* This thread's own words cannot have been on their way. */
	for (page = 0; page < SHARED_PAGES; page++)
		if (first_want[page].lock == 0 &&
		    firsts[page * WORDS + t->id * STRIDE] != 0 &&
		    firsts[page * WORDS + t->id * STRIDE] != first_want[page].word[t->id])
			first_fail(page, t->id, firsts[page * WORDS + t->id * STRIDE]);
}

void shared_tick_sigsafe(void)
{
	uint64_t n = __atomic_fetch_add(&tick_next, 1, __ATOMIC_RELAXED);
	uint64_t at = mix64(n) % (SHARED_PAGES * WORDS);

	__atomic_fetch_add(&ticks[at], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&tick_want, 1, __ATOMIC_RELAXED);
}

void shared_tick_check(void)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < SHARED_PAGES * WORDS; i++)
		sum += ticks[i];
	if (sum != tick_want)
		fail("signal handler: %llu increments, sum %llu", (unsigned long long)tick_want,
		     (unsigned long long)sum);
	if (cfg.timer && !cfg.quiet)
		printf("torture: %llu signals handled\n", (unsigned long long)tick_want);
}
