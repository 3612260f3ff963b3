/* SPDX-License-Identifier: MIT */
/*
 * The stage: frames that hold prefetched pages until they are touched.
 *
 * Frames come in chunks of EM_CHUNK_FRAMES.  One chunk takes one run of neighbouring pages of
 * one block, whatever their slots.  Chunks are given out by the service thread alone; they come
 * back frame by frame from the threads that map the pages.  When none is free the oldest chunk's
 * untouched pages go back to SWAPPED: their content is in the store still.
 *
 * The memory of the chunks that were ever used stays charged to the budget.
 */
#include "core.h"

#include "meta.h"
#include "sys.h"

enum { CHUNKS_MAX = 64 };

static struct {
	struct em_chunk chunk[CHUNKS_MAX];
	uint32_t n;    /* chunks allowed */
	uint32_t used; /* chunks with memory */
	uint64_t clock;
} stage;

int em_stage_init(uint32_t budget_pages)
{
	uint32_t n = budget_pages / 1024;

	stage.n = n < 1 ? 1 : n > CHUNKS_MAX ? CHUNKS_MAX : n;
	return 0;
}

/* A window must fit the stage twice: one being consumed, one on its way. */
uint32_t em_stage_window_max(void)
{
	uint32_t w = stage.n * EM_CHUNK_FRAMES / 4;

	return w < 8 ? 8 : w;
}

struct em_chunk *em_stage_chunk(uint32_t frame)
{
	return &stage.chunk[frame / EM_CHUNK_FRAMES];
}

static uint32_t frame_index(const struct em_chunk *c, uint32_t pos)
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
		    em_word_slot(w) != frame_index(c, i))
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
	c->frame = em_meta_alloc(EM_CHUNK_FRAMES * EM_PAGE_SIZE);
	if (!c->frame)
		return NULL;
	stage.used++;
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

static struct em_chunk *take_chunk(void)
{
	struct em_chunk *c = free_chunk();

	if (!c)
		c = new_chunk();
	if (c)
		return c;
	c = oldest_chunk();
	if (!c)
		return NULL;
	reclaim_chunk(c);
	return __atomic_load_n(&c->left, __ATOMIC_ACQUIRE) ? NULL : c;
}

/* Appends the page to the chunk's reads; false when its slot would need one read too many. */
static bool add_read(struct em_chunk *c, uint32_t pos, em_slot_t slot)
{
	struct em_io *io = c->nio ? &c->io[c->nio - 1] : NULL;

	if (!io || io->slot + io->npages != slot) {
		if (c->nio == EM_CHUNK_IOS)
			return false;
		io = &c->io[c->nio];
		c->iov[c->nio].iov_base = c->frame + pos * EM_PAGE_SIZE;
		c->iov[c->nio].iov_len = 0;
		io->write = false;
		io->slot = slot;
		io->iov = &c->iov[c->nio];
		io->iovcnt = 1;
		io->npages = 0;
		io->result = 0;
		io->cookie = c;
		c->nio++;
	}
	io->npages++;
	io->iov->iov_len += EM_PAGE_SIZE;
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

uint32_t em_stage_start(extmem_page_t first, uint32_t n, struct em_chunk **chunk)
{
	uint32_t passed = skip_to_swapped(&first, n), k = 0;
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
	c->nio = 0;
	c->base = first << EM_PAGE_SHIFT;
	for (; k < n; k++) {
		em_word_t *wp = em_space_word((first + k) << EM_PAGE_SHIFT), w;

		if (!wp)
			break;
		w = em_word_load(wp);
		if (!em_word_is_free(w) || em_word_state(w) != EM_SWAPPED)
			break;
		if (!add_read(c, k, em_word_slot(w)))
			break;
		c->slot[k] = em_word_slot(w);
		c->word[k] = wp;
		if (!em_word_take(wp, &w, EM_FILLING)) {
			struct em_io *io = &c->io[c->nio - 1];

			io->npages--;
			io->iov->iov_len -= EM_PAGE_SIZE;
			if (!io->npages)
				c->nio--;
			break;
		}
	}
	c->n = k;
	if (!k)
		return passed + 1;
	c->io_left = c->nio;
	c->age = ++stage.clock;
	__atomic_store_n(&c->left, k, __ATOMIC_RELEASE);
	em_stat_add(prefetched, k);
	*chunk = c;
	return passed + k;
}

void em_stage_finish(struct em_chunk *c)
{
	uint32_t pos = 0, lost = 0;

	for (uint32_t i = 0; i < c->nio; i++) {
		struct em_io *io = &c->io[i];

		for (uint32_t k = 0; k < io->npages; k++, pos++) {
			if (io->result) {
				/* Whoever needs it reads it again and reports the error. */
				em_word_release(c->word[pos], EM_SWAPPED, c->slot[pos], 0, 0);
				c->word[pos] = NULL;
				lost++;
			} else {
				em_word_release(c->word[pos], EM_STAGED, frame_index(c, pos), 0, 0);
			}
		}
		if (!io->result)
			em_stat_add(bytes_read, (uint64_t)io->npages * EM_PAGE_SIZE);
	}
	if (lost)
		em_stage_put(c, lost);
}

void em_stage_discard(em_word_t w, em_slot_t *slot)
{
	struct em_chunk *c = em_stage_chunk(em_word_slot(w));

	*slot = c->slot[em_stage_pos(em_word_slot(w))];
	em_stage_put(c, 1);
	em_stat_inc(prefetched_unused);
}
