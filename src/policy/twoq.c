/* SPDX-License-Identifier: MIT */
/*
 * 2q: active and inactive list, without accessed bits.
 *
 * A stock kernel tells a pager of faults, not of uses: a page that is resident may be used
 * a million times unseen.  What tells the hot page from the cold one is how soon it comes
 * back after it was evicted.  Pages enter the inactive list, a FIFO (A1in of T. Johnson
 * and D. Shasha, "2Q", VLDB 1994).  One that comes back soon would have stayed had that
 * list been a little longer; it enters the active list (Am; the refault distance takes the
 * place of A1out, as in J. Weiner's workingset detection in Linux 3.15).  The active list
 * gives its oldest back to the inactive list when it outgrows its share.  A scan passes
 * through the inactive list and leaves the active one alone.
 *
 * How soon is soon (distances in evictions):
 *   up to half the inactive list	always
 *   up to out=P % of the budget	while the active list has room; when it is full,
 *					one page in ADMIT_NEAR up to its own length, one in
 *					ADMIT_FAR beyond
 *   more				never
 * A loop over more than fits is why: where every page comes back too late, LRU keeps none
 * of them in time.  Here the first comers stay and hit in every round, and the slow
 * exchange lets another working set take over.
 *
 * A page that was out for longer than that leaves before all others: it passes through a short
 * list of its own and is not kept on standby, so a scan of what was long gone takes next to no
 * memory from the others.  What the program says it will not need is in that list as well.
 *
 * A reference that is seen (a write to a clean page, an accessed bit) counts once the page
 * is no longer young: one soon after the fault belongs to the same use (2Q's correlated
 * reference), else a scan that reads and then writes would look hot.
 *
 * in=P     the inactive list gets at least P % of the pages (10)
 * out=P    how far back a page may have gone out to be active, % of the budget (200)
 * cluster  see cluster.h (on)
 */
#include <errno.h>

#include "args.h"
#include "cluster.h"
#include "registry.h"

enum { INACTIVE = 1, ACTIVE = 2, LAST = 3 };

#define TAG_REF 0x04u
#define TAG_ADVISED 0x08u /* in LAST because the program will not need it soon */

/* One in so many enters a full active list, see list_for(). */
#define ADMIT_NEAR 4
#define ADMIT_FAR 64

/* The size of LAST: a part of the budget, but what some streams have mapped and not come to yet must have its
   place, except where the budget is so small that it would be most of it. */
#define LAST_PART 256
#define LAST_LEAST 512
#define LAST_MOST 10

struct twoq {
	struct em_queues qs;
	unsigned in_percent, out_percent;
	uint64_t total; /* pages in both lists when memory is full, see note_total() */
	uint32_t dice;
	bool cluster;
	uint64_t advised; /* pages in LAST with that tag, or more: they may have left unseen */
	bool scanning;	  /* pages came to LAST since victims were asked for */
};

static int twoq_init(const struct extmem_policy_host *host, const char *args, void **state,
		     char *err, size_t err_len)
{
	struct twoq *q = host->alloc(sizeof(*q));
	struct em_arg a;

	if (!q)
		return -ENOMEM;
	q->in_percent = 10;
	q->out_percent = 200;
	q->cluster = true;
	while (em_args_next(&args, &a)) {
		if (em_arg_is(&a, "in") && em_arg_number(&a, 1, 100, &q->in_percent))
			continue;
		if (em_arg_is(&a, "out") && em_arg_number(&a, 0, 1000, &q->out_percent))
			continue;
		if (em_arg_is(&a, "cluster") && em_arg_switch(&a, &q->cluster))
			continue;
		em_args_complain(&a, "2q", "in=1..100, out=0..1000, cluster=on|off", err, err_len);
		return -EINVAL;
	}
	*state = q;
	return em_queues_init(&q->qs, host);
}

/*
 * The size of the lists is taken when victims are asked for, and follows downwards slowly.  Between
 * two bursts of eviction it goes up and down by the engine's reserve; a limit that
 * went along would let in three of four pages that arrive, and throw out as many.
 */
static void note_total(struct twoq *q)
{
	uint64_t now = q->qs.list[ACTIVE].live + q->qs.list[INACTIVE].live;
	uint64_t budget = q->qs.host->budget_pages();

	q->total = now > q->total ? now : q->total - (q->total - now) / 64;
	if (q->total > budget)
		q->total = budget;
}

/* The most pages that the active list may have. */
static uint64_t active_limit(const struct twoq *q)
{
	return q->total * (100 - q->in_percent) / 100;
}

static bool one_in(struct twoq *q, uint32_t n)
{
	q->dice = q->dice * 1664525 + 1013904223;
	return (q->dice >> 16) % n == 0;
}

/* Where a page that comes back belongs. */
static unsigned list_for(struct twoq *q, uint32_t info)
{
	uint64_t distance = info & ~EXTMEM_NEIGHBOUR;

	if (distance > q->qs.host->budget_pages() * q->out_percent / 100)
		return LAST;
	if (info & EXTMEM_NEIGHBOUR)
		return INACTIVE;
	if (distance <= q->qs.list[INACTIVE].live / 2)
		return ACTIVE;
	if (q->qs.list[ACTIVE].live < active_limit(q))
		return ACTIVE;
	return one_in(q, distance <= q->qs.list[ACTIVE].live ? ADMIT_NEAR : ADMIT_FAR) ? ACTIVE
										       : INACTIVE;
}

/* So many pages that nobody is expected to need again stay for the use they came for.  When no more come,
   those that are there have had theirs. */
static uint64_t last_limit(struct twoq *q, size_t want)
{
	uint64_t budget = q->qs.host->budget_pages(), n = budget / LAST_PART;
	uint64_t live = q->qs.list[LAST].live, step = want / 8 + 1;

	if (n < LAST_LEAST)
		n = LAST_LEAST < budget / LAST_MOST ? LAST_LEAST : budget / LAST_MOST;
	if (!q->scanning && live < n + step)
		n = live > step ? live - step : 0;
	q->scanning = false;
	return n;
}

/* What the program has given up goes before what is beyond the limit of the list. */
static bool next_last(struct twoq *q, uint64_t limit, extmem_page_t *page)
{
	uint64_t left = q->qs.list[LAST].live;
	uint8_t user;

	for (; left && (q->advised || q->qs.list[LAST].live > limit); left--) {
		bool over = q->qs.list[LAST].live > limit;

		if (!em_queue_pop(&q->qs, LAST, page, &user))
			break;
		if (user & TAG_ADVISED)
			q->advised -= q->advised != 0;
		/* else it is for those behind it */
		if ((user & TAG_ADVISED) || over || em_queue_push(&q->qs, LAST, *page, 0))
			return true;
	}
	q->advised = 0;
	return false;
}

static void referenced(struct twoq *q, extmem_page_t page)
{
	uint8_t tag = q->qs.host->tag_get(page);

	if ((tag & EM_TAG_LIST) && !(tag & TAG_REF) && !em_queue_is_young(&q->qs, tag))
		q->qs.host->tag_set(page, tag | TAG_REF);
}

static void twoq_event(struct twoq *q, const struct extmem_event *ev)
{
	unsigned list;
	uint8_t tag;

	switch (ev->kind) {
	case EXTMEM_EV_SWAP_IN:
	case EXTMEM_EV_PREFETCH_USED:
		list = list_for(q, ev->info);
		q->scanning |= list == LAST;
		em_queue_push(&q->qs, list, ev->page, 0);
		break;
	case EXTMEM_EV_FIRST_TOUCH:
	case EXTMEM_EV_EVICT_FAILED:
		em_queue_push(&q->qs, INACTIVE, ev->page, 0);
		break;
	case EXTMEM_EV_WRITE:
	case EXTMEM_EV_REFERENCE:
		referenced(q, ev->page);
		break;
	case EXTMEM_EV_GONE:
		em_queue_gone(&q->qs, ev);
		break;
	case EXTMEM_EV_COLD:
		tag = q->qs.host->tag_get(ev->page) & EM_TAG_LIST;
		if (tag && !em_queue_push(&q->qs, LAST, ev->page, TAG_ADVISED))
			q->advised++;
		break;
	default:
		break; /* EVICTED: see em_queue_gone() */
	}
}

static void twoq_events(void *state, const struct extmem_event *ev, size_t n)
{
	for (; n; n--, ev++)
		twoq_event(state, ev);
}

/* Gives what the active list has too much of back, at most `most` pages at a time. */
static void demote(struct twoq *q, size_t most)
{
	uint64_t limit = active_limit(q);
	extmem_page_t page;
	uint8_t user;

	for (; most && q->qs.list[ACTIVE].live > limit; most--) {
		if (!em_queue_pop(&q->qs, ACTIVE, &page, &user))
			return;
		em_queue_push(&q->qs, user & TAG_REF ? ACTIVE : INACTIVE, page, 0);
	}
}

/* The next page of the inactive list, else whatever there is.  A page referenced
   meanwhile gets its second chance in the active list. */
static bool next_victim(struct twoq *q, extmem_page_t *page)
{
	uint8_t user;

	while (em_queue_pop(&q->qs, INACTIVE, page, &user))
		if (!(user & TAG_REF) || em_queue_push(&q->qs, ACTIVE, *page, 0))
			return true;
	return em_queue_pop(&q->qs, LAST, page, &user) || em_queue_pop(&q->qs, ACTIVE, page, &user);
}

/* This victim and what leaves with it, from `list`. */
static size_t take(struct twoq *q, unsigned list, extmem_page_t page, size_t want,
		   extmem_page_t *out)
{
	if (q->cluster)
		return em_cluster_take(&q->qs, list, page, want, out);
	*out = page;
	return 1;
}

static size_t twoq_evict(void *state, size_t want, extmem_page_t *out)
{
	struct twoq *q = state;
	uint64_t limit = last_limit(q, want);
	extmem_page_t page;
	size_t n = 0;

	while (n < want && next_last(q, limit, &page))
		n += take(q, LAST, page, want - n, out + n);
	for (size_t i = 0; i < n; i++)
		out[i] |= EXTMEM_VICTIM_FAR;
	note_total(q);
	demote(q, 2 * want + 16);
	while (n < want && next_victim(q, &page))
		n += take(q, INACTIVE, page, want - n, out + n);
	return n;
}

const struct extmem_policy_ops em_policy_2q = {
	.size = sizeof(struct extmem_policy_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "2q",
	.description = "active and inactive list by refault distance (Johnson & Shasha 1994, "
		       "Weiner 2014); args: in=PERCENT,out=PERCENT,cluster=on|off",
	.init = twoq_init,
	.events = twoq_events,
	.evict = twoq_evict,
};
