/* SPDX-License-Identifier: MIT */
/*
 * em_space_is_valid: does every word agree with the counters, slots and regions?  For builds with
 * -Ddebug_checks=true, at quiet points: the map lock held, the gate closed, nothing in flight.
 *
 *   sum of a block's words by segment  = seg_pages, and seg is set just where that is not 0
 *   sum of a region's words and lazies = region->pages; sum of regions = em_regions_pages
 *   resident words = em_budget.resident;  PINNED words = em_budget.pinned
 *   a word is stable and unowned; it has a slot just where its state says so
 *   no slot belongs to two words; each page on standby has a frame of its own, and each frame is on a list
 */
#include "core.h"

#include "meta.h"
#include "range.h"
#include "standby.h"
#include "sys.h"

#ifdef EM_DEBUG

struct check {
	const char *bad;
	int64_t resident, pinned;
	uint64_t pages;
	uint32_t standby;
	uint8_t *slot_seen; /* one bit a slot; NULL in the first round, which finds the largest */
	uint64_t slots;
};

static void complain(struct check *c, const char *what)
{
	if (!c->bad)
		c->bad = what;
}

static bool has_slot(enum em_state st)
{
	return st == EM_SWAPPED || st == EM_CLEAN;
}

static void check_slot(struct check *c, em_slot_t slot)
{
	if (slot == EM_SLOT_NONE)
		complain(c, "a page without a slot");
	if (slot >= c->slots)
		c->slots = slot + 1ull;
	if (!c->slot_seen)
		return;
	if (c->slot_seen[slot / 8] & (1u << slot % 8))
		complain(c, "two pages in one slot");
	c->slot_seen[slot / 8] |= (uint8_t)(1u << slot % 8);
}

static void check_staged(struct check *c, uint32_t frame)
{
	em_slot_t slot = em_frame_slot(frame);

	if (em_frame_is_standby(frame))
		c->standby++;
	if (!em_frame_is_standby(frame) || slot != EM_SLOT_NONE)
		check_slot(c, slot);
}

static void check_word(struct check *c, em_word_t w)
{
	enum em_state st = em_word_state(w);

	if (!em_word_is_free(w))
		complain(c, "a page that somebody owns");
	if (em_state_is_resident(st))
		c->resident++;
	c->pinned += !!(w & EM_W_PINNED);
	if ((w & EM_W_MAYBE_WP) && st != EM_DIRTY && st != EM_HOLE)
		complain(c, "MAYBE_WP on a page that is not dirty");
	if (has_slot(st))
		check_slot(c, em_word_slot(w));
	else if (st == EM_STAGED)
		check_staged(c, em_word_slot(w));
	else if ((st == EM_DIRTY || st == EM_ABSENT) && em_word_slot(w) != EM_SLOT_NONE)
		complain(c, "a slot that belongs to no content");
}

static void check_block(struct check *c, struct em_block *b)
{
	uint16_t pages[EM_SEGS] = { 0 };

	for (uint32_t i = 0; i < EM_BLOCK_PAGES; i++) {
		em_word_t w = b->word[i];

		if (em_word_state(w) == EM_HOLE)
			continue;
		check_word(c, w);
		pages[(w & EM_W_SEG) >> EM_W_SEG_SHIFT]++;
		c->pages++;
	}
	for (uint32_t i = 0; i < EM_SEGS; i++)
		if (pages[i] != b->seg_pages[i] || !pages[i] != !b->seg[i])
			complain(c, "a block that miscounts its pages");
}

static void check_span(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct check *c = arg;

	if (b)
		check_block(c, b);
	else
		c->pages += (end - start) >> EM_PAGE_SHIFT;
}

static void check_regions(struct check *c)
{
	uint64_t pages = 0;

	for (struct em_region *r = em_regions; r; r = r->next) {
		pages += r->pages;
		if (r->next && r->next->prev != r)
			complain(c, "a broken list of regions");
	}
	if (pages != em_regions_pages || pages != c->pages)
		complain(c, "regions that miscount their pages");
}

static void walk(struct check *c)
{
	struct em_span_visit v = { check_span, c };

	c->resident = c->pinned = 0;
	c->pages = 0;
	c->standby = 0;
	em_space_walk(0, 1ul << EM_ADDR_BITS, &v);
}

static const char *find_fault(void)
{
	struct check c = { 0 };
	size_t bytes;

	walk(&c);
	bytes = (c.slots + 8) / 8;
	c.slot_seen = em_meta_alloc(bytes);
	if (!c.slot_seen)
		return c.bad;
	walk(&c);
	em_meta_free(c.slot_seen, bytes);
	check_regions(&c);
	if (c.resident + em_standby_pages() != em_budget.resident)
		complain(&c, "resident pages miscounted");
	if (!em_standby_is_valid(c.standby))
		complain(&c, "frames of standby that do not belong to their pages");
	if (c.pinned != em_budget.pinned)
		complain(&c, "pinned pages miscounted");
	return c.bad;
}

void em_space_check(struct em_thread *t)
{
	const char *bad;

	em_gate_close(t);
	bad = find_fault();
	em_gate_open();
	if (!bad)
		return;
	em_say("extmem: internal check: ");
	em_say(bad);
	em_panic("\n");
}

#endif
