/* SPDX-License-Identifier: MIT */
/*
 * The service thread: background reclaim, prefetch reads and fetches.
 *
 * It is started by the first fault that needs it, so a program that fits its budget never has
 * one.  All asynchronous I/O is submitted here and nowhere else: io_uring delivers completions as work
 * of the submitting task, and in one of the program's own threads that would show as spurious
 * EINTR of epoll_wait and friends.
 *
 * It stays inside its engine section while anything is in flight, so fork waits for it, and marks a
 * quiescent point (section += 2) each turn, so deferred frees do not wait.
 */
#include "core.h"

#include "capture.h"
#include "fetch.h"
#include "meta.h"
#include "standby.h"
#include "sys.h"

enum { BATCHES = 4, QUEUE = 512, FETCH_QUEUE = 4096, IOQ_DEPTH = 128, IDLE_US = 100000, REAP_US = 1000 };

static struct {
	uint32_t state; /* 0 none, 1 starting or running, 2 cannot be had */
	uint32_t kick;	/* futex: 1 = work may be there */
	uint32_t sleeping;
	struct em_ioq *ioq;
	/* Ranges to prefetch. */
	struct em_mutex lock;
	struct extmem_range range[QUEUE];
	uint32_t head, tail;
	/* Single pages to fetch. */
	extmem_page_t fetch[FETCH_QUEUE];
	uint32_t fetch_head, fetch_tail;
	/* The thread's own. */
	struct extmem_range current;
	struct em_fetch *fetch_free;
	bool fetches; /* something was to be fetched */
	struct em_batch *free[BATCHES];
	uint32_t nfree;
	uint32_t leaving; /* victims of the batches in flight */
	bool reclaiming;
	uint64_t last_tick;
	uint32_t stop;
	struct em_rawthread thread;
} sv;

/* ---- work ---------------------------------------------------------------------------- */

static bool pop_range(void)
{
	bool have;

	em_mutex_lock(&sv.lock);
	have = sv.head != sv.tail;
	if (have)
		sv.current = sv.range[sv.tail++ % QUEUE];
	em_mutex_unlock(&sv.lock);
	return have;
}

static void complete(struct em_io *io);

/* room_for was asked before, so there is a place; any other refusal completes the request at once. */
static void submit(struct em_io *io)
{
	int ret = em_ioq_submit(sv.ioq, io);

	if (!ret)
		return;
	io->result = ret;
	complete(io);
}

static bool room_for(uint32_t n)
{
	return em_ioq_inflight(sv.ioq) + n <= IOQ_DEPTH;
}

static void consume(uint32_t n)
{
	if (n > sv.current.npages)
		n = sv.current.npages;
	sv.current.first += n;
	sv.current.npages -= n;
}

/* Neighbouring ranges, as of a stride, share a chunk and mostly a read. */
static void add_neighbours(struct em_chunk *c)
{
	uint32_t used;

	while (sv.current.npages || pop_range()) {
		used = em_stage_add(c, sv.current.first, sv.current.npages);
		if (!used)
			return;
		consume(used);
	}
}

static bool start_prefetch(void)
{
	bool progress = false;

	while (room_for(EM_CHUNK_IOS)) {
		struct em_chunk *c;
		uint32_t used;

		if (!sv.current.npages && !pop_range())
			break;
		used = em_stage_start(sv.current.first, sv.current.npages, &c);
		if (!used) {
			/* Every frame is on its way: the rest of the range is demand-read if needed. */
			sv.current.npages = 0;
			break;
		}
		consume(used);
		if (!c)
			continue;
		add_neighbours(c);
		for (uint32_t i = 0, nio = c->nio; i < nio; i++)
			submit(&c->io[i]);
		/* At once, or the kernel merges a window of chunks into one request: its pages would
		   arrive together, late, and nothing be under way in the meantime. */
		em_ioq_flush(sv.ioq);
		progress = true;
	}
	return progress;
}

static bool pop_fetch(extmem_page_t *page)
{
	bool have;

	em_mutex_lock(&sv.lock);
	have = sv.fetch_head != sv.fetch_tail;
	if (have)
		*page = sv.fetch[sv.fetch_tail++ % FETCH_QUEUE];
	em_mutex_unlock(&sv.lock);
	return have;
}

static bool start_fetching(void)
{
	extmem_page_t page;
	bool progress = false;

	if (!sv.fetches && __atomic_load_n(&sv.fetch_head, __ATOMIC_RELAXED)) {
		sv.fetches = true;
		sv.fetch_free = em_fetch_pool();
	}
	while (sv.fetch_free && room_for(1) && em_fetch_has_room() && pop_fetch(&page)) {
		struct em_fetch *f = sv.fetch_free;

		if (!em_fetch_start(f, page))
			continue;
		sv.fetch_free = f->next;
		submit(&f->io);
		progress = true;
	}
	return progress;
}

static void finish_fetch(struct em_fetch *f)
{
	em_fetch_finish(f);
	f->next = sv.fetch_free;
	sv.fetch_free = f;
}

static uint32_t finish_batch(struct em_batch *b)
{
	uint32_t gone;

	sv.leaving -= em_batch_leaving(b);
	gone = em_batch_finish(b);
	em_stat_add(evictions_background, gone);
	sv.free[sv.nfree++] = b;
	return gone;
}

static bool start_reclaim(void)
{
	bool progress = false;

	/* What is on its way out counts as gone for the decision, or we would overshoot. */
	while (sv.nfree && room_for(EM_BATCH_IOS) && em_budget_tight(sv.reclaiming, sv.leaving)) {
		struct em_batch *b = sv.free[--sv.nfree];

		sv.reclaiming = true;
		if (!em_batch_start(b, em_budget.batch)) {
			sv.free[sv.nfree++] = b;
			break;
		}
		sv.leaving += em_batch_leaving(b);
		if (!b->nio) {
			/* Nothing could be had: all victims are locked or held.  Whoever has them may be
			   waiting for what is in flight here, so no second attempt before that. */
			if (!finish_batch(b))
				break;
			progress = true;
			continue;
		}
		progress = true;
		for (uint32_t i = 0, nio = b->nio; i < nio; i++)
			submit(&b->io[i]);
	}
	if (!em_budget_tight(true, sv.leaving))
		sv.reclaiming = false;
	return progress;
}

static void finish_cleaning(struct em_batch *b)
{
	em_standby_clean_finish(b);
	b->of_standby = false;
	sv.free[sv.nfree++] = b;
}

/* Pages on standby are written before their frames are needed. */
static bool start_cleaning(void)
{
	bool progress = false;

	while (sv.nfree && room_for(EM_BATCH_IOS) && em_standby_low()) {
		struct em_batch *b = sv.free[--sv.nfree];

		if (!em_standby_clean_start(b)) {
			sv.free[sv.nfree++] = b;
			break;
		}
		b->of_standby = true;
		for (uint32_t i = 0, nio = b->nio; i < nio; i++)
			submit(&b->io[i]);
		progress = true;
	}
	return progress;
}

static void complete(struct em_io *io)
{
	if (io->write) {
		struct em_batch *b = io->cookie;

		if (++b->io_done < b->nio)
			return;
		if (b->of_standby)
			finish_cleaning(b);
		else
			finish_batch(b);
	} else if (io->fetch) {
		finish_fetch(io->cookie);
	} else {
		struct em_chunk *c = io->cookie;

		if (--c->io_left == 0)
			em_stage_finish(c);
	}
}

static bool reap(unsigned wait_us)
{
	struct em_io *io = em_ioq_reap(sv.ioq, wait_us), *next;
	bool any = io != NULL;

	for (; io; io = next) {
		next = io->next;
		complete(io);
	}
	return any;
}

static void tick(void)
{
	uint64_t now = em_now_ns();

	if (now - sv.last_tick < 100000000)
		return;
	sv.last_tick = now;
	em_host_tick(now);
	if (!em_gate_closed()) {
		em_stage_tick();
		em_capture_tick();
	}
}

/* ---- life ------------------------------------------------------------------------------ */

static void idle(struct em_thread *t)
{
	em_leave(t, false);
	__atomic_store_n(&sv.sleeping, 1, __ATOMIC_SEQ_CST);
	/* Pairs with em_service_kick: it sets kick, then looks at sleeping. */
	if (!__atomic_exchange_n(&sv.kick, 0, __ATOMIC_SEQ_CST) && !em_gate_closed())
		em_futex_wait(&sv.kick, 0, IDLE_US);
	__atomic_store_n(&sv.sleeping, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&sv.kick, 0, __ATOMIC_SEQ_CST);
	em_enter(t, false); /* sleeps while a fork is on */
}

static bool prepare(void)
{
	sv.nfree = 0;
	for (uint32_t i = 0; i < BATCHES; i++) {
		struct em_batch *b = em_batch_get();

		if (b)
			sv.free[sv.nfree++] = b;
	}
	return !em_ioq_create(em_engine.store, IOQ_DEPTH, em_engine.fd_min, &sv.ioq);
}

/* Nothing is in flight.  Everything goes but what is queued, which the next thread finds. */
static void finish(struct em_thread *t)
{
	struct em_ioq *q = sv.ioq;

	while (sv.nfree)
		em_batch_put(sv.free[--sv.nfree]);
	sv.ioq = NULL;
	sv.fetches = false;
	em_ioq_destroy(q);
	sv.reclaiming = false;
	em_leave(t, false);
	em_thread_exit();
}

static void service_main(void *arg)
{
	struct em_thread *t = em_thread_self();

	(void)arg;
	em_enter(t, false);
	if (!t || !prepare()) {
		__atomic_store_n(&sv.state, 2, __ATOMIC_RELEASE);
		em_leave(t, false);
		return;
	}
	for (;;) {
		bool busy = false, closing = em_gate_closed();

		__atomic_fetch_add(&t->section, 2, __ATOMIC_SEQ_CST); /* quiescent point */
		tick();
		if (!closing) {
			em_stage_settle();
			busy |= em_standby_settle();
			busy |= start_fetching();
			busy |= start_prefetch();
			busy |= start_cleaning();
			busy |= start_reclaim();
			em_ioq_flush(sv.ioq);
		}
		if (em_ioq_inflight(sv.ioq)) {
			reap(busy ? 0 : REAP_US);
			continue;
		}
		busy |= reap(0);
		if (__atomic_load_n(&sv.stop, __ATOMIC_ACQUIRE)) {
			finish(t);
			return;
		}
		if (!busy || closing)
			idle(t);
	}
}

static void start(void)
{
	uint32_t none = 0;

	/* In a vfork child it would be a thread of the child, and die with it while it owns pages. */
	if (em_sys_getpid() != em_engine.pid)
		return;
	if (!__atomic_compare_exchange_n(&sv.state, &none, 1, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return;
	if (em_rawthread_start_in(&sv.thread, service_main, NULL))
		__atomic_store_n(&sv.state, 2, __ATOMIC_RELEASE);
}

void em_service_kick(void)
{
	uint32_t state = __atomic_load_n(&sv.state, __ATOMIC_ACQUIRE);

	if (state == 0 && !em_gate_closed())
		start();
	if (state != 1)
		return;
	if (!__atomic_exchange_n(&sv.kick, 1, __ATOMIC_SEQ_CST) &&
	    __atomic_load_n(&sv.sleeping, __ATOMIC_SEQ_CST))
		em_futex_wake(&sv.kick, 1);
}

void em_service_stop(void)
{
	if (__atomic_load_n(&sv.state, __ATOMIC_ACQUIRE) != 1)
		return;
	__atomic_store_n(&sv.stop, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&sv.thread.alive, __ATOMIC_ACQUIRE)) {
		em_service_kick();
		em_syscall0(SYS_sched_yield);
	}
	em_rawthread_join(&sv.thread);
	__atomic_store_n(&sv.stop, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&sv.state, 0, __ATOMIC_RELEASE);
}

bool em_service_running(void)
{
	return __atomic_load_n(&sv.state, __ATOMIC_ACQUIRE) == 1;
}

void em_service_prefetch(extmem_page_t first, uint32_t npages)
{
	bool queued = false;

	if (__atomic_load_n(&sv.state, __ATOMIC_ACQUIRE) == 2)
		return;
	em_mutex_lock(&sv.lock);
	if (sv.head - sv.tail < QUEUE) {
		sv.range[sv.head % QUEUE].first = first;
		sv.range[sv.head++ % QUEUE].npages = npages;
		queued = true;
	}
	em_mutex_unlock(&sv.lock);
	if (queued)
		em_service_kick();
}

void em_service_fetch(const extmem_page_t *page, size_t n)
{
	size_t i = 0;

	if (__atomic_load_n(&sv.state, __ATOMIC_ACQUIRE) == 2)
		return;
	em_mutex_lock(&sv.lock);
	for (; i < n && sv.fetch_head - sv.fetch_tail < FETCH_QUEUE; i++)
		sv.fetch[sv.fetch_head++ % FETCH_QUEUE] = page[i];
	em_mutex_unlock(&sv.lock);
	if (i)
		em_service_kick();
}

size_t em_service_fds(int *fds, size_t max)
{
	return sv.ioq ? em_ioq_fds(sv.ioq, fds, max) : 0;
}

/* The thread did not come along, and its ring belongs to the parent.  The batches it held are lost: a few
   kilobytes a fork. */
void em_service_fork_child(void)
{
	char *mem;

	for (uint32_t i = 0; i < sv.nfree; i++)
		em_batch_put(sv.free[i]);
	if (sv.ioq)
		em_ioq_abandon(sv.ioq);
	mem = sv.thread.mem;
	em_memzero(&sv, sizeof(sv));
	sv.thread.mem = mem;
}
