/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "queue.h"

#define EPOCH_MIN 16
#define SLAB_FIRST 2
#define SLAB_MAX 256
#define CLEAN_STEPS 4 /* chunks of each list, for each chunk that fills up */

static struct em_queue_chunk *chunk_get(struct em_queues *qs)
{
	struct em_queue_chunk *c = qs->free;

	if (c) {
		qs->free = c->next;
	} else {
		if (!qs->slab_left) {
			qs->slab = qs->host->alloc(qs->slab_next * sizeof(*c));
			if (!qs->slab && qs->slab_next > 1)
				qs->slab = qs->host->alloc((qs->slab_next = 1) * sizeof(*c));
			if (!qs->slab)
				return NULL;
			qs->slab_left = qs->slab_next;
			qs->chunks += qs->slab_next;
			/* never more than a sixteenth of what there is beyond the first
			   few: a small budget must not pay for a big step */
			if (qs->slab_next < SLAB_MAX && qs->chunks >= 16ull * qs->slab_next)
				qs->slab_next *= 2;
		}
		c = qs->slab++;
		qs->slab_left--;
	}
	c->next = NULL;
	c->head = c->tail = 0;
	return c;
}

static void chunk_put(struct em_queues *qs, struct em_queue_chunk *c)
{
	c->next = qs->free;
	qs->free = c;
}

static bool entry_counts(struct em_queues *qs, unsigned list, const struct em_queue_chunk *c,
			 unsigned i, extmem_page_t *page, uint8_t *tag)
{
	*page = (extmem_page_t)(c->high[i] & 15) << 32 | c->low[i];
	*tag = qs->host->tag_get(*page);
	return (*tag & EM_TAG_LIST) == list && *tag >> EM_TAG_EPOCH_SHIFT == c->high[i] >> 4;
}

/* Moves the entries of c that count into the room left in `into` (or NULL), the rest
   to the front of c. */
static void chunk_squeeze(struct em_queues *qs, unsigned list, struct em_queue_chunk *into,
			  struct em_queue_chunk *c)
{
	unsigned i, w = 0;
	extmem_page_t page;
	uint8_t tag;

	for (i = c->head; i < c->tail; i++) {
		if (!entry_counts(qs, list, c, i, &page, &tag)) {
			qs->entries--;
		} else if (into && into->tail < EM_QUEUE_CHUNK_ENTRIES) {
			into->low[into->tail] = c->low[i];
			into->high[into->tail++] = c->high[i];
		} else {
			c->low[w] = c->low[i];
			c->high[w++] = c->high[i];
		}
	}
	c->head = 0;
	c->tail = (uint16_t)w;
}

/* The last chunk is left alone: it is being filled. */
static void queue_clean(struct em_queues *qs, unsigned list)
{
	struct em_queue *q = &qs->list[list];
	struct em_queue_chunk *c;
	int steps;

	for (steps = 0; steps < CLEAN_STEPS; steps++) {
		c = q->cleaned ? q->cleaned->next : q->first;
		if (!c || c == q->last) {
			q->cleaned = NULL;
			return;
		}
		chunk_squeeze(qs, list, q->cleaned, c);
		if (c->head != c->tail || !q->cleaned) {
			q->cleaned = c;
		} else {
			q->cleaned->next = c->next;
			chunk_put(qs, c);
		}
	}
}

static int queue_extend(struct em_queues *qs, struct em_queue *q)
{
	uint64_t resident = qs->host->resident_pages();
	struct em_queue_chunk *c;
	unsigned i;

	if (qs->entries > resident + resident / 8 * 3 + EM_QUEUE_SLACK)
		for (i = 1; i <= EM_QUEUE_LISTS; i++)
			queue_clean(qs, i);
	c = chunk_get(qs);
	if (!c)
		return -ENOMEM;
	if (q->last)
		q->last->next = c;
	else
		q->first = c;
	q->last = c;
	return 0;
}

static void epoch_step(struct em_queue *q)
{
	if (q->epoch_left--)
		return;
	q->epoch = (q->epoch + 1) & 15;
	q->epoch_left = q->live / 8 > EPOCH_MIN ? q->live / 8 : EPOCH_MIN;
}

static void left_list(struct em_queues *qs, uint8_t tag)
{
	struct em_queue *q = &qs->list[tag & EM_TAG_LIST];

	if ((tag & EM_TAG_LIST) && q->live)
		q->live--;
}

int em_queues_init(struct em_queues *qs, const struct extmem_policy_host *host)
{
	qs->host = host;
	qs->slab_next = SLAB_FIRST;
	return queue_extend(qs, &qs->list[1]);
}

int em_queue_push(struct em_queues *qs, unsigned list, extmem_page_t page, uint8_t user)
{
	struct em_queue *q = &qs->list[list];
	struct em_queue_chunk *c;
	int err = 0;

	left_list(qs, qs->host->tag_get(page));
	if (!q->last || q->last->tail == EM_QUEUE_CHUNK_ENTRIES)
		err = queue_extend(qs, q);
	if (err) {
		qs->lost++;
		qs->host->tag_set(page, user & EM_TAG_USER);
		return err;
	}
	epoch_step(q);
	err = qs->host->tag_set(page, (uint8_t)(q->epoch << EM_TAG_EPOCH_SHIFT |
						(user & EM_TAG_USER) | list));
	if (err)
		return err;
	c = q->last;
	c->low[c->tail] = (uint32_t)page;
	c->high[c->tail++] = (uint8_t)(q->epoch << 4 | (page >> 32 & 15));
	qs->entries++;
	q->live++;
	return 0;
}

/* The oldest chunk that has entries, or NULL. */
static struct em_queue_chunk *queue_front(struct em_queues *qs, struct em_queue *q)
{
	struct em_queue_chunk *c;

	while ((c = q->first) && c->head == c->tail) {
		if (c == q->last) {
			c->head = c->tail = 0;
			return NULL;
		}
		if (q->cleaned == c)
			q->cleaned = NULL;
		q->first = c->next;
		chunk_put(qs, c);
	}
	return c;
}

bool em_queue_pop(struct em_queues *qs, unsigned list, extmem_page_t *page, uint8_t *user)
{
	struct em_queue *q = &qs->list[list];
	struct em_queue_chunk *c;
	uint8_t tag;

	while ((c = queue_front(qs, q))) {
		bool counts = entry_counts(qs, list, c, c->head++, page, &tag);

		qs->entries--;
		if (!counts)
			continue;
		em_queue_remove(qs, *page, tag);
		*user = tag & EM_TAG_USER;
		return true;
	}
	q->live = 0;
	return false;
}

void em_queue_remove(struct em_queues *qs, extmem_page_t page, uint8_t tag)
{
	left_list(qs, tag);
	qs->host->tag_set(page, tag & (uint8_t)~EM_TAG_LIST);
}

void em_queue_gone(struct em_queues *qs, const struct extmem_event *ev)
{
	left_list(qs, (uint8_t)ev->info);
}
