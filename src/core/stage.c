/* SPDX-License-Identifier: MIT */
/*
 * The stage: frames that hold prefetched pages until they are touched.
 *
 * Frames come in chunks of EM_CHUNK_FRAMES.  One chunk takes neighbouring pages of one block,
 * whatever their slots; the frames of those among them that are not in the store stay empty.
 * Chunks are given out by the service thread alone; they come back frame by frame from the threads
 * that map the pages.  When none is free the oldest chunk's untouched pages go back to
 * SWAPPED: their content is in the store still.
 *
 * The memory of the chunks is charged to the budget.  Chunks that were not needed for a while give theirs back:
 * what a program that reads at random needs is every page for its own.
 */
#include "core.h"

#include "meta.h"
#include "standby.h"
#include "sys.h"

enum {
	CHUNKS_MAX = 64,
	READ_OVER = 4,
	/* Nobody comes for a page that waits since so many ticks and since that part of the budget was evicted. */
	STALE_TICKS = 10,
	STALE_PART = 8,
};

static struct {
	struct em_chunk chunk[CHUNKS_MAX];
	uint32_t n;    /* chunks allowed; the service's */
	uint32_t want; /* by the budget, which may have changed */
	uint32_t flush; /* everything back to the store, once */
	uint32_t used; /* chunks with memory */
	uint32_t busy; /* the most in use at a time since the last tick */
	uint64_t clock, tick;
} stage;

int em_stage_init(uint32_t budget_pages)
{
	em_stage_set_budget(budget_pages);
	stage.n = stage.want;
	return 0;
}

void em_stage_set_budget(uint64_t budget_pages)
{
	uint64_t n = budget_pages / 1024;

	n = n < 1 ? 1 : n > CHUNKS_MAX ? CHUNKS_MAX : n;
	__atomic_store_n(&stage.want, (uint32_t)n, __ATOMIC_RELEASE);
}

void em_stage_flush(void)
{
	__atomic_store_n(&stage.flush, 1, __ATOMIC_RELEASE);
}

uint32_t em_stage_pages(void)
{
	return __atomic_load_n(&stage.used, __ATOMIC_RELAXED) * EM_CHUNK_FRAMES;
}

/* Every thread that reads ahead needs room for its window twice, one being consumed and one on its
   way, and a chunk is seldom full. */
uint32_t em_stage_window_max(uint32_t readers)
{
	uint32_t w = stage.n * EM_CHUNK_FRAMES / 4 / (readers ? readers : 1);

	return w < 8 ? 8 : w;
}

struct em_chunk *em_stage_chunk(uint32_t frame)
{
	return &stage.chunk[frame / EM_CHUNK_FRAMES];
}

uint32_t em_stage_frame(const struct em_chunk *c, uint32_t pos)
{
	return (uint32_t)(c - stage.chunk) * EM_CHUNK_FRAMES + pos;
}

void em_stage_put(struct em_chunk *c, uint32_t n)
{
	__atomic_fetch_sub(&c->left, n, __ATOMIC_ACQ_REL);
}

/* The service owns the chunk structure; a page of it that is still STAGED may be mapped at any
   moment by a faulting thread, hence the takes. */
static void reclaim_chunk(struct em_chunk *c)
{
	uint32_t wasted = 0;

	for (uint32_t i = 0; i < c->n; i++) {
		em_word_t *wp = c->word[i], w;

		if (!wp)
			continue;
		w = em_word_load(wp);
		if (!em_word_is_free(w) || em_word_state(w) != EM_STAGED ||
		    em_word_slot(w) != em_stage_frame(c, i))
			continue;
		if (!em_word_take_slot(wp, &w, EM_SWAPPED, c->slot[i]))
			continue;
		wasted++;
	}
	if (!wasted)
		return;
	em_stage_put(c, wasted);
	em_stat_add(prefetched_unused, wasted);
	em_host_wasted(c->base, wasted);
}

static struct em_chunk *free_chunk(void)
{
	for (uint32_t i = 0; i < stage.used; i++)
		if (!__atomic_load_n(&stage.chunk[i].left, __ATOMIC_ACQUIRE))
			return &stage.chunk[i];
	return NULL;
}

static struct em_chunk *new_chunk(void)
{
	struct em_chunk *c = &stage.chunk[stage.used];

	if (stage.used == stage.n)
		return NULL;
	c->frame = em_meta_alloc_frames(EM_CHUNK_FRAMES);
	if (!c->frame)
		return NULL;
	__atomic_store_n(&stage.used, stage.used + 1, __ATOMIC_RELAXED);
	return c;
}

static struct em_chunk *oldest_chunk(void)
{
	struct em_chunk *old = NULL;

	for (uint32_t i = 0; i < stage.used; i++) {
		struct em_chunk *c = &stage.chunk[i];

		if (!c->io_left && (!old || c->age < old->age))
			old = c;
	}
	return old;
}

static uint32_t chunks_in_use(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < stage.used; i++)
		n += __atomic_load_n(&stage.chunk[i].left, __ATOMIC_RELAXED) != 0;
	return n;
}

static struct em_chunk *take_chunk(void)
{
	struct em_chunk *c = free_chunk();
	uint32_t busy = chunks_in_use() + 1;

	if (busy > stage.busy)
		stage.busy = busy;
	if (!c)
		c = new_chunk();
	if (c)
		return c;
	c = oldest_chunk();
	/* Some thread will come to it yet, unless it has been passed over often.  To read the same
	   page twice is worse than not to read ahead. */
	if (!c || stage.clock++ - c->age < 2 * stage.n)
		return NULL;
	reclaim_chunk(c);
	return __atomic_load_n(&c->left, __ATOMIC_ACQUIRE) ? NULL : c;
}

/* The last chunk's memory; its pages are dropped or, if that is not wanted, hold it.  False: it is in use. */
static bool drop_last_chunk(bool with_pages)
{
	struct em_chunk *c = &stage.chunk[stage.used - 1];

	if (c->io_left)
		return false;
	if (with_pages)
		reclaim_chunk(c);
	if (__atomic_load_n(&c->left, __ATOMIC_ACQUIRE))
		return false;
	em_meta_free_frames(c->frame, EM_CHUNK_FRAMES);
	__atomic_store_n(&stage.used, stage.used - 1, __ATOMIC_RELAXED);
	return true;
}

/* One whose pages are being read or mapped at this moment ends it until the next turn. */
void em_stage_settle(void)
{
	bool flush = __atomic_load_n(&stage.flush, __ATOMIC_ACQUIRE);
	uint32_t most;

	stage.n = __atomic_load_n(&stage.want, __ATOMIC_ACQUIRE);
	most = flush ? 0 : stage.n;
	while (stage.used > most)
		if (!drop_last_chunk(true))
			return;
	if (flush)
		__atomic_store_n(&stage.flush, 0, __ATOMIC_RELEASE);
}

static bool is_stale(const struct em_chunk *c)
{
	uint64_t evicted = __atomic_load_n(&em_budget.evict_clock, __ATOMIC_RELAXED) - c->evicted;

	return !c->io_left && __atomic_load_n(&c->left, __ATOMIC_RELAXED) &&
	       stage.tick - c->tick >= STALE_TICKS &&
	       evicted >= (uint64_t)__atomic_load_n(&em_budget.limit, __ATOMIC_RELAXED) / STALE_PART;
}

/* Half of what nobody needed since the last time goes. */
void em_stage_tick(void)
{
	uint32_t spare, least;

	stage.tick++;
	for (uint32_t i = 0; i < stage.used; i++)
		if (is_stale(&stage.chunk[i]))
			reclaim_chunk(&stage.chunk[i]);
	spare = stage.used > stage.busy ? stage.used - stage.busy : 0;
	least = stage.used - (spare + 1) / 2;
	while (stage.used > least && drop_last_chunk(false))
		;
	stage.busy = chunks_in_use();
}

static struct em_io *new_read(struct em_chunk *c, uint32_t pos, em_slot_t slot)
{
	struct em_io *io = &c->io[c->nio];
	struct iovec *iov = &c->iov[c->nio];

	iov->iov_base = c->frame + pos * EM_PAGE_SIZE;
	iov->iov_len = 0;
	*io = (struct em_io){ .slot = slot, .iov = iov, .iovcnt = 1, .cookie = c };
	c->nio++;
	return io;
}

static uint32_t first_of(const struct em_chunk *c, const struct em_io *io)
{
	return (uint32_t)(((char *)io->iov->iov_base - c->frame) / EM_PAGE_SIZE);
}

/*
 * Takes the page for frame pos and appends it to the chunk's reads.  A read goes on over a few pages
 * that are not wanted when the slots do the same: what comes into their frames is never
 * looked at, and costs less than another request.
 */
static bool add_page(struct em_chunk *c, uint32_t pos, em_word_t *wp, em_word_t w)
{
	struct em_io *io = c->nio ? &c->io[c->nio - 1] : NULL;
	em_slot_t slot = em_word_slot(w);
	uint32_t n = 1;

	if (io) {
		n = pos + 1 - first_of(c, io);
		if (slot - io->slot + 1 != n || n - io->npages > READ_OVER + 1)
			io = NULL;
	}
	if (!io && c->nio == EM_CHUNK_IOS)
		return false;
	c->slot[pos] = slot;
	c->word[pos] = wp;
	if (!em_word_take(wp, &w, EM_FILLING)) {
		c->word[pos] = NULL;
		return true; /* changed under our eyes: one that is not wanted */
	}
	if (!io) {
		io = new_read(c, pos, slot);
		n = 1;
	}
	io->npages = n;
	io->iov->iov_len = n * EM_PAGE_SIZE;
	return true;
}

/* First page of the range that is SWAPPED, in *first; how many were passed over. */
static uint32_t skip_to_swapped(extmem_page_t *first, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++, (*first)++) {
		em_word_t *wp = em_space_word(*first << EM_PAGE_SHIFT);
		em_word_t w = wp ? em_word_load(wp) : 0;

		if (em_word_is_free(w) && em_word_state(w) == EM_SWAPPED)
			break;
	}
	return i;
}

/* Frames from pos on for [first, first + n); those of pages that are not SWAPPED stay empty. */
static uint32_t fill(struct em_chunk *c, uint32_t pos, extmem_page_t first, uint32_t n)
{
	uint32_t k, have = 0;

	for (; c->n < pos; c->n++)
		c->word[c->n] = NULL;
	for (k = 0; k < n; k++) {
		em_word_t *wp = em_space_word((first + k) << EM_PAGE_SHIFT);
		em_word_t w = wp ? em_word_load(wp) : 0;

		c->word[pos + k] = NULL;
		if (!em_word_is_free(w) || em_word_state(w) != EM_SWAPPED)
			continue;
		if (!add_page(c, pos + k, wp, w))
			break;
		have += c->word[pos + k] != NULL;
	}
	c->n = pos + k;
	c->io_left = c->nio;
	__atomic_fetch_add(&c->left, have, __ATOMIC_RELEASE);
	em_stat_add(prefetched, have);
	return k;
}

uint32_t em_stage_start(extmem_page_t first, uint32_t n, struct em_chunk **chunk)
{
	uint32_t passed = skip_to_swapped(&first, n), k;
	uint32_t room = EM_BLOCK_PAGES - (uint32_t)(first % EM_BLOCK_PAGES);
	struct em_chunk *c;

	*chunk = NULL;
	if (passed == n)
		return n;
	c = take_chunk();
	if (!c)
		return 0;
	n -= passed;
	if (n > EM_CHUNK_FRAMES)
		n = EM_CHUNK_FRAMES;
	if (n > room)
		n = room;
	c->nio = c->n = 0;
	c->base = first << EM_PAGE_SHIFT;
	c->age = ++stage.clock;
	c->tick = stage.tick;
	c->evicted = __atomic_load_n(&em_budget.evict_clock, __ATOMIC_RELAXED);
	k = fill(c, 0, first, n);
	if (!c->nio)
		return passed + 1;
	*chunk = c;
	return passed + k;
}

uint32_t em_stage_add(struct em_chunk *c, extmem_page_t first, uint32_t n)
{
	extmem_page_t base = c->base >> EM_PAGE_SHIFT, end = base + EM_CHUNK_FRAMES;

	if (end > (base | (EM_BLOCK_PAGES - 1)) + 1)
		end = (base | (EM_BLOCK_PAGES - 1)) + 1;
	if (first < base + c->n || first >= end)
		return 0;
	return fill(c, (uint32_t)(first - base), first, n < end - first ? n : (uint32_t)(end - first));
}

static uint32_t finish_read(struct em_chunk *c, const struct em_io *io)
{
	uint32_t pos = first_of(c, io), end = pos + io->npages, lost = 0;

	for (; pos < end; pos++) {
		if (!c->word[pos])
			continue;
		if (!io->result) {
			em_word_release(c->word[pos], EM_STAGED, em_stage_frame(c, pos), 0, 0);
			continue;
		}
		/* Whoever needs it reads it again and reports the error. */
		em_word_release(c->word[pos], EM_SWAPPED, c->slot[pos], 0, 0);
		c->word[pos] = NULL;
		lost++;
	}
	return lost;
}

void em_stage_finish(struct em_chunk *c)
{
	uint32_t lost = 0;

	for (uint32_t i = 0; i < c->nio; i++) {
		const struct em_io *io = &c->io[i];

		lost += finish_read(c, io);
		if (!io->result)
			em_stat_add(bytes_read, (uint64_t)io->npages * EM_PAGE_SIZE);
	}
	if (lost)
		em_stage_put(c, lost);
}

em_slot_t em_frame_slot(uint32_t frame)
{
	return em_frame_is_standby(frame) ? em_standby_slot(frame)
					  : em_stage_chunk(frame)->slot[em_stage_pos(frame)];
}

void em_stage_discard(em_word_t w, em_slot_t *slot)
{
	struct em_chunk *c;

	if (em_frame_is_standby(em_word_slot(w))) {
		*slot = em_standby_slot(em_word_slot(w));
		em_standby_put(em_word_slot(w), false);
		return;
	}
	c = em_stage_chunk(em_word_slot(w));
	*slot = c->slot[em_stage_pos(em_word_slot(w))];
	em_stage_put(c, 1);
	em_stat_inc(prefetched_unused);
}
