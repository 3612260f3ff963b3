/* SPDX-License-Identifier: MIT */
/*
 * Hazards: ranges that the kernel may access, and that reclaim leaves alone.  Those of a thread live as long
 * as its system call; pins live until they are dropped, for memory that the kernel uses after
 * the call that named it has returned.
 */
#include "core.h"

#include <signal.h>
#include <sys/mman.h>

#include "meta.h"
#include "sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif

/* ---- hazard ranges ------------------------------------------------------------------- */

/*
 * A range whose call never returned (siglongjmp out of a handler that interrupted it,
 * exec in a vfork child) is recognised by its stack pointer: the frames of live calls lie above the
 * current one.  Calls on another stack are left alone: the alternate signal stack, whose handler may
 * have interrupted a call that goes on afterwards, and fibers when they are far away.
 */
static bool on_other_stack(const struct em_thread *t, uintptr_t a, uintptr_t b)
{
	uintptr_t base = t->alt.sp;
	size_t size = t->alt.size;
	stack_t ss;

	if (em_engine.opt.delivery != EM_DELIVERY_UPCALL) { /* the kernel has the program's own */
		if (em_syscall2(SYS_sigaltstack, NULL, &ss) < 0)
			return true;
		base = (uintptr_t)ss.ss_sp;
		size = ss.ss_flags & SS_DISABLE ? 0 : ss.ss_size;
	}
	return t->alt.disarmed || (b - base < size && a - base >= size);
}

/* Entry i of a thread, NULL: there is no memory for it. */
static struct em_hazard *entry(struct em_thread *t, uint32_t i)
{
	struct em_hazard *chunk;

	if (i < EM_HAZARDS)
		return &t->hazard[i];
	i -= EM_HAZARDS;
	if (i / EM_HAZARD_CHUNK >= EM_HAZARD_CHUNKS)
		return NULL;
	chunk = __atomic_load_n(&t->more_hazards[i / EM_HAZARD_CHUNK], __ATOMIC_ACQUIRE);
	return chunk ? &chunk[i % EM_HAZARD_CHUNK] : NULL;
}

/* Room for one more, kept for good: few calls have that many buffers, and those come again. */
static struct em_hazard *make_room(struct em_thread *t, uint32_t i)
{
	struct em_hazard *chunk, *none = NULL;
	uint64_t all = ~0ull, old;
	uint32_t k;

	if (i < EM_HAZARDS || entry(t, i))
		return entry(t, i);
	k = (i - EM_HAZARDS) / EM_HAZARD_CHUNK;
	if (k >= EM_HAZARD_CHUNKS)
		return NULL;
	/* The allocator's lock must not be held across a signal handler. */
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	chunk = em_meta_alloc(EM_HAZARD_CHUNK * sizeof(*chunk));
	if (chunk && !__atomic_compare_exchange_n(&t->more_hazards[k], &none, chunk, false,
						  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		em_meta_free(chunk, EM_HAZARD_CHUNK * sizeof(*chunk));
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	return entry(t, i);
}

/* Without room for it the last entry becomes the hull of itself and the range. */
static void push_hull(struct em_thread *t, uintptr_t addr, size_t len)
{
	struct em_hazard *h = entry(t, t->nhazards - 1);

	if (em_page_down(addr) < h->start)
		__atomic_store_n(&h->start, em_page_down(addr), __ATOMIC_RELAXED);
	if (em_page_up(addr + len) > h->end)
		__atomic_store_n(&h->end, em_page_up(addr + len), __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

uint32_t em_hazard_begin(struct em_thread *t, uintptr_t sp)
{
	if (t->in_vfork && em_sys_gettid() == t->tid) {
		/* The vfork child is gone; what it held when it left is not ours. */
		__atomic_store_n(&t->nhazards, t->vfork_mark, __ATOMIC_RELEASE);
		t->in_vfork = false;
	}
	while (t->nhazards) {
		const struct em_hazard *h = entry(t, t->nhazards - 1);

		if (h->sp > sp || sp - h->sp > (64ul << 20) || on_other_stack(t, h->sp, sp))
			break;
		__atomic_store_n(&t->nhazards, t->nhazards - 1, __ATOMIC_RELEASE);
	}
	return t->nhazards;
}

void em_hazard_push(struct em_thread *t, uintptr_t addr, size_t len, uintptr_t sp)
{
	uint32_t mark = t->nhazards;
	struct em_hazard *h = make_room(t, mark);

	if (!h) {
		push_hull(t, addr, len);
		return;
	}
	/* A signal handler may push and pop in this very place until it is ours for sure. */
	do {
		__atomic_store_n(&h->sp, sp, __ATOMIC_RELAXED);
		__atomic_store_n(&t->nhazards, mark + 1, __ATOMIC_SEQ_CST);
	} while (__atomic_load_n(&h->sp, __ATOMIC_RELAXED) != sp ||
		 __atomic_load_n(&t->nhazards, __ATOMIC_RELAXED) != mark + 1);
	__atomic_store_n(&h->start, em_page_down(addr), __ATOMIC_RELAXED);
	__atomic_store_n(&h->end, em_page_up(addr + len), __ATOMIC_RELAXED);
	/* Pairs with the compare-and-swap before em_hazard_look: either reclaim sees the range, or
	   the check of the pages that follows sees what reclaim did to them. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void em_hazard_pop(struct em_thread *t, uint32_t mark)
{
	__atomic_store_n(&t->nhazards, mark, __ATOMIC_RELEASE);
}

/* ---- pins ------------------------------------------------------------------------------ */

enum { PIN_CHUNK = 256, PIN_CHUNKS = 1024 };

struct pin {
	uintptr_t start, end; /* end 0: free */
};

static struct {
	struct em_mutex lock;
	struct pin *chunk[PIN_CHUNKS];
	uint32_t used[PIN_CHUNKS]; /* pins in it */
	uint32_t nchunks;
} pins;

static uint32_t pin_in_chunk(uint32_t k, uintptr_t start, uintptr_t end)
{
	for (uint32_t i = 0; i < PIN_CHUNK; i++) {
		struct pin *p = &pins.chunk[k][i];

		if (p->end)
			continue;
		/* A reader between the two stores sees too large a range. */
		__atomic_store_n(&p->start, start, __ATOMIC_RELAXED);
		__atomic_store_n(&p->end, end, __ATOMIC_SEQ_CST);
		__atomic_store_n(&pins.used[k], pins.used[k] + 1, __ATOMIC_SEQ_CST);
		return k * PIN_CHUNK + i + 1;
	}
	return 0;
}

uint32_t em_pin_add(uintptr_t addr, size_t len)
{
	uintptr_t start = em_page_down(addr), end = em_page_up(addr + len);
	uint32_t handle = 0, k;

	em_mutex_lock(&pins.lock);
	for (k = 0; k < pins.nchunks && !handle; k++)
		if (pins.used[k] < PIN_CHUNK)
			handle = pin_in_chunk(k, start, end);
	if (!handle && k < PIN_CHUNKS) {
		pins.chunk[k] = em_meta_alloc(PIN_CHUNK * sizeof(struct pin));
		if (pins.chunk[k]) {
			handle = pin_in_chunk(k, start, end);
			__atomic_store_n(&pins.nchunks, k + 1, __ATOMIC_SEQ_CST);
		}
	}
	em_mutex_unlock(&pins.lock);
	/* As in em_hazard_push. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return handle;
}

void em_pin_drop(uint32_t handle)
{
	uint32_t k = (handle - 1) / PIN_CHUNK;
	struct pin *p;

	if (!handle)
		return;
	em_mutex_lock(&pins.lock);
	p = &pins.chunk[k][(handle - 1) % PIN_CHUNK];
	if (p->end) {
		__atomic_store_n(&p->end, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&p->start, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&pins.used[k], pins.used[k] - 1, __ATOMIC_RELEASE);
	}
	em_mutex_unlock(&pins.lock);
}

void em_pin_fork_child(void)
{
	em_memzero(&pins.lock, sizeof(pins.lock));
	for (uint32_t k = 0; k < pins.nchunks; k++) {
		em_memzero(pins.chunk[k], PIN_CHUNK * sizeof(struct pin));
		pins.used[k] = 0;
	}
}

/* The pages move, and the kernel goes on using them. */
void em_pin_moved(uintptr_t old, size_t len, uintptr_t addr)
{
	for (uint32_t k = 0; k < __atomic_load_n(&pins.nchunks, __ATOMIC_ACQUIRE); k++) {
		for (uint32_t i = 0; i < PIN_CHUNK && pins.used[k]; i++) {
			struct pin *p = &pins.chunk[k][i];
			uintptr_t end;

			em_mutex_lock(&pins.lock);
			end = p->end;
			if (end && p->start >= old && end <= old + len) {
				p->end = ~0ul >> 1;
				__atomic_store_n(&p->start, p->start - old + addr, __ATOMIC_SEQ_CST);
				__atomic_store_n(&p->end, end - old + addr, __ATOMIC_SEQ_CST);
			}
			em_mutex_unlock(&pins.lock);
		}
	}
}

/* ---- looking ------------------------------------------------------------------------------ */

/* Calls fn for what overlaps [start, end) until it says false. */
typedef bool (*visit_fn)(void *arg, uintptr_t start, uintptr_t end);

static bool visit_one(const uintptr_t *s, const uintptr_t *e, uintptr_t start, uintptr_t end,
		      visit_fn fn, void *arg)
{
	uintptr_t a = __atomic_load_n(s, __ATOMIC_RELAXED), b = __atomic_load_n(e, __ATOMIC_RELAXED);

	return a >= end || b <= start || fn(arg, a, b);
}

static void visit(uintptr_t start, uintptr_t end, visit_fn fn, void *arg)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (struct em_thread *t = em_thread_first(); t; t = t->next) {
		uint32_t n = __atomic_load_n(&t->nhazards, __ATOMIC_ACQUIRE);

		for (uint32_t i = 0; i < n; i++) {
			const struct em_hazard *h = entry(t, i);

			if (!h || !visit_one(&h->start, &h->end, start, end, fn, arg))
				break;
		}
	}
	for (uint32_t k = 0; k < __atomic_load_n(&pins.nchunks, __ATOMIC_ACQUIRE); k++)
		for (uint32_t i = 0; i < PIN_CHUNK && __atomic_load_n(&pins.used[k], __ATOMIC_ACQUIRE); i++)
			if (!visit_one(&pins.chunk[k][i].start, &pins.chunk[k][i].end, start, end, fn,
				       arg))
				return;
}

static bool found(void *arg, uintptr_t start, uintptr_t end)
{
	(void)start;
	(void)end;
	*(bool *)arg = true;
	return false;
}

bool em_hazard_held(uintptr_t start, uintptr_t end)
{
	bool held = false;

	visit(start, end, found, &held);
	return held;
}

static bool note(void *arg, uintptr_t start, uintptr_t end)
{
	struct em_hazard_view *v = arg;

	if (v->n == sizeof(v->h) / sizeof(v->h[0])) {
		v->overflow = true;
		return false;
	}
	v->h[v->n].start = start;
	v->h[v->n++].end = end;
	return true;
}

void em_hazard_look(struct em_hazard_view *v, uintptr_t start, uintptr_t end)
{
	v->n = 0;
	v->overflow = false;
	visit(start, end, note, v);
}

/* When there were more than the view has room for, each page is looked up by itself: what was held then is held
   still, or does not matter any more, and who came later has found the page claimed and waits. */
bool em_hazard_covers(const struct em_hazard_view *v, uintptr_t page)
{
	for (uint32_t i = 0; i < v->n; i++)
		if (page >= v->h[i].start && page < v->h[i].end)
			return true;
	return v->overflow && em_hazard_held(page, page + EM_PAGE_SIZE);
}

struct part {
	struct em_thread *t;
	uintptr_t start, end;
	uintptr_t first, last; /* hull of what is held in it */
};

static bool widen(void *arg, uintptr_t start, uintptr_t end)
{
	struct part *p = arg;

	if (start < p->first)
		p->first = start;
	if (end > p->last)
		p->last = end;
	return true;
}

bool em_hazard_hull(uintptr_t *start, uintptr_t *end)
{
	struct part p = { .first = *end, .last = *start };

	visit(*start, *end, widen, &p);
	if (p.first >= p.last)
		return false;
	*start = p.first > *start ? p.first : *start;
	*end = p.last < *end ? p.last : *end;
	return true;
}

static void clip(const struct part *p, uintptr_t *start, uintptr_t *end)
{
	*start = *start > p->start ? *start : p->start;
	*end = *end < p->end ? *end : p->end;
}

static bool populate(void *arg, uintptr_t start, uintptr_t end)
{
	clip(arg, &start, &end);
	em_sys_madvise((void *)start, end - start, MADV_POPULATE_WRITE);
	return true;
}

void em_hazard_populate(uintptr_t start, uintptr_t end)
{
	struct part p = { .start = start, .end = end };

	visit(start, end, populate, &p);
}

static bool refill(void *arg, uintptr_t start, uintptr_t end)
{
	const struct part *p = arg;

	clip(p, &start, &end);
	em_fault_range(p->t, start, end - start, true);
	return true;
}

void em_hazard_refill(struct em_thread *t, uintptr_t start, uintptr_t end)
{
	struct part p = { .t = t, .start = start, .end = end };

	visit(start, end, refill, &p);
}
