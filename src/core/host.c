/* SPDX-License-Identifier: MIT */
/*
 * The engine's side of the policy interface: events go through a bounded lock-free queue, so that a
 * fault never waits for the policy; whoever needs victims, or finds the queue full, takes the
 * policy lock and hands the events on in batches.
 *
 * Queue: Vyukov's bounded MPMC queue (2010), one consumer at a time (the policy lock).
 */
#include "core.h"

#include "meta.h"
#include "sys.h"

#define RING 4096u
#define BATCH 64u
/* Pages that one fault's content may name, and as a part of the budget. */
#define CONTENT_MAX 1024u
#define CONTENT_PART 16u

struct cell {
	uint64_t seq;
	struct extmem_event ev;
};

/* Memory that a policy asked for: it is given back when another takes its place. */
struct piece {
	struct piece *next;
	size_t bytes;
	void *p;
};

static struct {
	struct em_mutex lock; /* the policy lock */
	const struct extmem_policy_ops *ops;
	const struct extmem_prefetch_ops *pf;
	void *state, *pf_state;
	struct cell *ring;
	uint64_t head, tail;
	uintptr_t scan_hand;
	/* Threads that asked for pages ahead since the last tick, and between the two before. */
	uint32_t epoch; /* from 1: a new thread has asked in none */
	uint32_t readers, readers_before;
	struct piece *pieces; /* memory of the policy in use */
} host;

/* ---- services for plug-ins ---------------------------------------------------------- */

static void *host_alloc(size_t bytes)
{
	return em_meta_alloc(bytes);
}

/* For policies: called under the policy lock, or before there is more than one thread. */
static void *host_alloc_noted(size_t bytes)
{
	struct piece *n = em_meta_alloc(sizeof(*n));

	if (!n)
		return NULL;
	n->p = em_meta_alloc(bytes);
	if (!n->p) {
		em_meta_free(n, sizeof(*n));
		return NULL;
	}
	n->bytes = bytes;
	n->next = host.pieces;
	host.pieces = n;
	return n->p;
}

static void free_pieces(struct piece *n)
{
	while (n) {
		struct piece *next = n->next;

		em_meta_free(n->p, n->bytes);
		em_meta_free(n, sizeof(*n));
		n = next;
	}
}

static uint64_t host_budget_pages(void)
{
	return (uint64_t)__atomic_load_n(&em_budget.limit, __ATOMIC_RELAXED);
}

static uint64_t host_resident_pages(void)
{
	return (uint64_t)__atomic_load_n(&em_budget.resident, __ATOMIC_RELAXED);
}

static em_word_t word_of(extmem_page_t page)
{
	em_word_t *wp = em_space_word(page << EM_PAGE_SHIFT);

	return wp ? em_word_load(wp) : 0;
}

static uint8_t host_tag_get(extmem_page_t page)
{
	return (uint8_t)((word_of(page) & EM_W_TAG) >> EM_W_TAG_SHIFT);
}

static int host_tag_set(extmem_page_t page, uint8_t tag)
{
	em_word_t *wp = em_space_word(page << EM_PAGE_SHIFT), w, next;

	if (!wp)
		return -2; /* ENOENT */
	w = em_word_load(wp);
	do {
		if (em_word_state(w) == EM_HOLE)
			return -2;
		next = (w & ~EM_W_TAG) | ((em_word_t)tag << EM_W_TAG_SHIFT);
	} while (!__atomic_compare_exchange_n(wp, &w, next, false, __ATOMIC_ACQ_REL,
					      __ATOMIC_ACQUIRE));
	return 0;
}

static int host_is_resident(extmem_page_t page)
{
	em_word_t w = word_of(page);

	return em_word_is_free(w) && !(w & EM_W_PINNED) &&
	       (em_word_state(w) == EM_CLEAN || em_word_state(w) == EM_DIRTY);
}

static int host_is_clean(extmem_page_t page)
{
	em_word_t w = word_of(page);

	return em_word_is_free(w) && em_word_state(w) == EM_CLEAN;
}

static int host_is_out(extmem_page_t page)
{
	em_word_t w = page >> (EM_ADDR_BITS - EM_PAGE_SHIFT) ? 0 : word_of(page);

	return em_word_is_free(w) && em_word_state(w) == EM_SWAPPED;
}

#define SERVICES(how_to_alloc) { \
	.size = sizeof(struct extmem_policy_host), \
	.alloc = how_to_alloc, \
	.budget_pages = host_budget_pages, \
	.resident_pages = host_resident_pages, \
	.tag_get = host_tag_get, \
	.tag_set = host_tag_set, \
	.is_resident = host_is_resident, \
	.is_clean = host_is_clean, \
	.is_out = host_is_out, \
}

static const struct extmem_policy_host services = SERVICES(host_alloc_noted);
static const struct extmem_policy_host pf_services = SERVICES(host_alloc);

int em_host_start(const struct extmem_policy_ops *ops, const struct extmem_prefetch_ops *pf,
		  const struct em_options *o, char *err, size_t err_len)
{
	int ret;

	host.ring = em_meta_alloc(RING * sizeof(*host.ring));
	if (!host.ring)
		return -12;
	for (uint64_t i = 0; i < RING; i++)
		host.ring[i].seq = i;
	host.epoch = 1;
	host.ops = ops;
	host.pf = pf;
	ret = ops->init(&services, o->policy_args, &host.state, err, err_len);
	if (!ret)
		ret = pf->init(&pf_services, o->prefetch_args, &host.pf_state, err, err_len);
	return ret;
}

const char *em_host_policy_name(void)
{
	return host.ops ? host.ops->name : "";
}

const char *em_host_prefetch_name(void)
{
	return host.pf ? host.pf->name : "";
}

/* ---- events ------------------------------------------------------------------------------ */

static void drain_locked(void)
{
	struct extmem_event ev[BATCH];
	uint32_t n;

	do {
		for (n = 0; n < BATCH; n++) {
			struct cell *c = &host.ring[host.tail % RING];

			if (__atomic_load_n(&c->seq, __ATOMIC_ACQUIRE) != host.tail + 1)
				break;
			ev[n] = c->ev;
			__atomic_store_n(&c->seq, host.tail + RING, __ATOMIC_RELEASE);
			__atomic_store_n(&host.tail, host.tail + 1, __ATOMIC_RELAXED);
		}
		if (n)
			host.ops->events(host.state, ev, n);
	} while (n == BATCH);
}

/* Whoever holds everybody up may have lost its processor, in the policy or with an event half
   written, and gets it back sooner when those who wait give up theirs. */
static void wait_for_room(const struct cell *c, uint64_t pos)
{
	for (uint32_t turn = 0; __atomic_load_n(&c->seq, __ATOMIC_ACQUIRE) != pos; turn++) {
		if (turn)
			em_give_way(turn);
		em_mutex_lock(&host.lock);
		drain_locked();
		em_mutex_unlock(&host.lock);
	}
}

/* Long before the queue is full, by one thread, and nobody waits for it. */
static void drain_early(uint64_t pos)
{
	if (pos < __atomic_load_n(&host.tail, __ATOMIC_RELAXED) + RING / 2 ||
	    !em_mutex_trylock(&host.lock))
		return;
	drain_locked();
	em_mutex_unlock(&host.lock);
}

void em_event(uintptr_t addr, enum extmem_event_kind kind, uint32_t info)
{
	uint64_t pos = __atomic_fetch_add(&host.head, 1, __ATOMIC_RELAXED);
	struct cell *c = &host.ring[pos % RING];

	if (__builtin_expect(__atomic_load_n(&c->seq, __ATOMIC_ACQUIRE) != pos, 0))
		wait_for_room(c, pos);
	c->ev.page = addr >> EM_PAGE_SHIFT;
	c->ev.kind = (uint32_t)kind;
	c->ev.info = info;
	__atomic_store_n(&c->seq, pos + 1, __ATOMIC_RELEASE);
	if (pos % BATCH == 0)
		drain_early(pos);
}

/* ---- victims -------------------------------------------------------------------------------- */

struct scan {
	extmem_page_t *out;
	size_t n, want;
	uintptr_t hand;
};

static void scan_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct scan *s = arg;

	if (!b)
		return;
	for (uintptr_t a = start; a < end && s->n < s->want; a += EM_PAGE_SIZE)
		if (host_is_resident(a >> EM_PAGE_SHIFT)) {
			s->out[s->n++] = a >> EM_PAGE_SHIFT;
			s->hand = a + EM_PAGE_SIZE;
		}
}

/* A policy that knows no page although memory is full has lost some (or is a poor one): a clock over
   the address space takes its place, so that the program never starves. */
static size_t scan_victims(size_t want, extmem_page_t *out)
{
	struct scan s = { .out = out, .want = want };
	struct em_span_visit v = { scan_block, &s };
	uintptr_t from = host.scan_hand;

	s.hand = from;
	em_space_walk(from, 1ul << EM_ADDR_BITS, &v);
	if (!s.n)
		em_space_walk(0, from, &v);
	host.scan_hand = s.hand;
	em_stat_add(evict_scanned, s.n);
	return s.n;
}

size_t em_host_victims(size_t want, extmem_page_t *out)
{
	size_t n;

	em_mutex_lock(&host.lock);
	drain_locked();
	n = host.ops->evict(host.state, want, out);
	if (n > want)
		n = want;
	if (!n)
		n = scan_victims(want, out);
	em_mutex_unlock(&host.lock);
	return n;
}

void em_host_tick(uint64_t now_ns)
{
	__atomic_store_n(&host.readers_before, __atomic_exchange_n(&host.readers, 0, __ATOMIC_RELAXED),
			 __ATOMIC_RELAXED);
	__atomic_fetch_add(&host.epoch, 1, __ATOMIC_RELAXED);
	if (!em_mutex_trylock(&host.lock))
		return;
	if (host.ops->tick) {
		drain_locked();
		host.ops->tick(host.state, now_ns);
	}
	em_mutex_unlock(&host.lock);
}

/* ---- another policy ----------------------------------------------------------------------- */

/* Tags mean something else to the new policy, those of pages in the store too.  A page in transit announces
   itself; what is announced twice is queued once. */
static void hand_over_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct extmem_event ev[BATCH];
	size_t n = 0;

	(void)arg;
	for (uintptr_t a = start; b && a < end; a += EM_PAGE_SIZE) {
		em_word_t w = em_word_load(&b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)]);

		if (w & EM_W_TAG)
			host_tag_set(a >> EM_PAGE_SHIFT, 0);
		if (!em_state_is_resident(em_word_state(w)))
			continue;
		ev[n++] = (struct extmem_event){ a >> EM_PAGE_SHIFT, EXTMEM_EV_FIRST_TOUCH, 0 };
		if (n == BATCH) {
			host.ops->events(host.state, ev, n);
			n = 0;
		}
	}
	if (n)
		host.ops->events(host.state, ev, n);
	drain_locked(); /* faults go on meanwhile, and the queue is short */
}

int em_host_switch(const struct extmem_policy_ops *ops, const char *args, char *err, size_t err_len)
{
	struct em_span_visit v = { hand_over_block, NULL };
	struct piece *old;
	void *state = NULL;
	int ret;

	em_mutex_lock(&host.lock);
	drain_locked();
	old = host.pieces;
	host.pieces = NULL;
	ret = ops->init(&services, args, &state, err, err_len);
	if (ret) {
		free_pieces(host.pieces);
		host.pieces = old;
		em_mutex_unlock(&host.lock);
		return ret;
	}
	__atomic_store_n(&host.ops, ops, __ATOMIC_RELEASE);
	host.state = state;
	em_space_walk(0, 1ul << EM_ADDR_BITS, &v);
	em_mutex_unlock(&host.lock);
	free_pieces(old);
	return 0;
}

/* ---- prefetching ------------------------------------------------------------------------------ */

uint32_t em_host_readers(void)
{
	uint32_t now = __atomic_load_n(&host.readers, __ATOMIC_RELAXED);
	uint32_t before = __atomic_load_n(&host.readers_before, __ATOMIC_RELAXED);

	return now > before ? now : before;
}

static void count_reader(struct em_thread *t)
{
	uint32_t epoch = __atomic_load_n(&host.epoch, __ATOMIC_RELAXED);

	if (t->stream_epoch == epoch)
		return;
	t->stream_epoch = epoch;
	__atomic_fetch_add(&host.readers, 1, __ATOMIC_RELAXED);
}

/* A region that stands in for another of its block does not contain the page: then the block is all that is
   known. */
static void set_bounds(struct extmem_fault *f, const struct em_region *r)
{
	f->region_first = __atomic_load_n(&r->start, __ATOMIC_RELAXED) >> EM_PAGE_SHIFT;
	f->region_end = __atomic_load_n(&r->end, __ATOMIC_RELAXED) >> EM_PAGE_SHIFT;
	if (f->page >= f->region_first && f->page < f->region_end)
		return;
	f->region_first = f->page & ~(extmem_page_t)(EM_BLOCK_PAGES - 1);
	f->region_end = f->region_first + EM_BLOCK_PAGES;
}

size_t em_host_prefetch(struct em_thread *t, const struct em_region *r, uintptr_t addr,
			uint32_t npages, bool write, bool hit, struct extmem_range *out)
{
	struct extmem_fault f = {
		.page = addr >> EM_PAGE_SHIFT,
		.npages = npages,
		.write = write,
		.hit = hit,
		.advice = r->advice,
		.window_max = em_stage_window_max(em_host_readers()),
	};
	size_t n;

	set_bounds(&f, r);
	n = host.pf->fault(host.pf_state, &t->stream, &f, out, EM_PREFETCH_RANGES);
	/* Neighbours come by the fault's own read and need no window. */
	if (n && !(out[0].first <= f.page && f.page - out[0].first < out[0].npages))
		count_reader(t);
	return n;
}

/* The service looks at each page, and until it is through nothing is evicted in the background and no fork goes
   on: so not at more than the stage has frames for, whatever a prefetcher names. */
void em_host_prefetch_queue(const struct extmem_range *range, size_t n)
{
	const uint32_t most = 4 * em_stage_window_max(1);

	for (size_t i = 0; i < n; i++)
		if (range[i].npages)
			em_service_prefetch(range[i].first,
					    range[i].npages < most ? range[i].npages : most);
}

void em_host_content(struct em_thread *t, uintptr_t addr, const void *content, uint32_t npages)
{
	uint64_t most = host_budget_pages() / CONTENT_PART;
	extmem_page_t out[CONTENT_MAX];
	size_t n;

	if (!host.pf->content || !most)
		return;
	if (most > CONTENT_MAX)
		most = CONTENT_MAX;
	n = host.pf->content(host.pf_state, &t->stream, addr >> EM_PAGE_SHIFT, content,
			     npages * (EM_PAGE_SIZE / sizeof(uint64_t)), out, most);
	if (n)
		em_service_fetch(out, n < most ? n : most);
}

void em_host_wasted(uintptr_t addr, uint32_t npages)
{
	if (host.pf->wasted)
		host.pf->wasted(host.pf_state, addr >> EM_PAGE_SHIFT, npages);
}
