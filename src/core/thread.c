/* SPDX-License-Identifier: MIT */
/*
 * Thread contexts, the gate and deferred frees.
 *
 * Contexts are never freed, only recycled, so the list can be walked without a lock.
 */
#include "core.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "meta.h"
#include "sys.h"

static __thread struct em_thread *self __attribute__((tls_model("initial-exec")));

static struct em_thread *threads;
static uint32_t shared_storage; /* `self` may be another task's */
static uint32_t gate; /* 0 open, 1 closed */

struct retired {
	struct retired *next;
	void *p;
	void (*fn)(void *);
};
static struct retired *retired;


struct em_thread *em_thread_first(void)
{
	return __atomic_load_n(&threads, __ATOMIC_ACQUIRE);
}

/* em_thread.used: 0 free, 1 in use, or on its way out: the thread still has a few instructions to go, on
   which it may take an upcall on the context's alternate stack. */
enum { EXITING = 2, CLAIMED = 3 };

enum { GATE_SPINS = 200 };

static bool is_gone(int tid)
{
	return em_syscall2(SYS_tkill, tid, 0) == -ESRCH;
}

/* A process that shared our memory may have been killed without a word. */
static bool is_free(const struct em_thread *t, uint32_t used)
{
	return !used || ((used == EXITING || (used == 1 && t->stranger)) && is_gone(t->tid));
}

static void context_reset(struct em_thread *t);

static struct em_thread *recycle(int tid)
{
	for (struct em_thread *t = em_thread_first(); t; t = t->next) {
		uint32_t unused = __atomic_load_n(&t->used, __ATOMIC_ACQUIRE);

		if (!is_free(t, unused))
			continue;
		if (!__atomic_compare_exchange_n(&t->used, &unused, CLAIMED, false,
						 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		context_reset(t);
		t->tid = tid;
		__atomic_store_n(&t->used, 1, __ATOMIC_RELEASE);
		return t;
	}
	return NULL;
}

static struct em_thread *context_new(int tid, uint32_t used)
{
	struct em_thread *t = em_meta_alloc(sizeof(*t));

	if (!t)
		return NULL;
	t->bounce = em_meta_alloc_frames(EM_BOUNCE_PAGES);
	if (!t->bounce)
		return NULL;
	t->used = used;
	t->tid = tid;
	t->next = em_thread_first();
	while (!__atomic_compare_exchange_n(&threads, &t->next, t, false, __ATOMIC_ACQ_REL,
					    __ATOMIC_ACQUIRE))
		;
	return t;
}

static struct em_thread *find_by_tid(int tid)
{
	for (struct em_thread *t = em_thread_first(); t; t = t->next)
		if (__atomic_load_n(&t->used, __ATOMIC_ACQUIRE) == 1 && t->tid == tid)
			return t;
	return NULL;
}

/* A context may be made while signals are open (first hooked call of a thread): the allocator's lock
   must not be held across a handler, so block them here. */
static struct em_thread *context_make(void)
{
	int tid = (int)em_sys_gettid();
	uint64_t all = ~0ull, old;
	struct em_thread *t;

	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	t = recycle(tid);
	if (!t)
		t = context_new(tid, 1);
	if (t) {
		t->stranger = em_engine.pid && em_sys_getpid() != em_engine.pid;
		if (!shared_storage || !self)
			self = t;
		em_upcall_thread_start(t);
	}
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	return t;
}

struct em_thread *em_thread_self(void)
{
	struct em_thread *t = self;

	if (__builtin_expect(t && !shared_storage, 1))
		return t;
	if (t) {
		int tid = (int)em_sys_gettid();

		if (t->tid != tid || t->used != 1)
			t = find_by_tid(tid);
	}
	return t ? t : context_make();
}

void em_thread_share_storage(void)
{
	struct em_thread *t;

	em_thread_self(); /* found by `self` for the last time */
	__atomic_store_n(&shared_storage, 1, __ATOMIC_RELEASE);
	for (t = em_thread_first(); t; t = t->next)
		if (!__atomic_load_n(&t->used, __ATOMIC_ACQUIRE))
			return;
	t = context_new(0, 0);
	if (t)
		em_upcall_thread_prepare(t);
}

static void context_reset(struct em_thread *t)
{
	t->nhazards = 0;
	em_memzero(t->touch, sizeof(t->touch));
	em_memzero(&t->upgrade, sizeof(t->upgrade));
	t->rmw = 0;
	t->refused_addr = 0;
	em_memzero(&t->alt, sizeof(t->alt));
	t->moving = NULL;
	t->waiting = false;
	t->own_blocked = t->own_pending = 0;
	t->in_vfork = false;
	em_memzero(t->ring, sizeof(t->ring));
	t->stranger = false;
	em_memzero(&t->stream, sizeof(t->stream));
}

void em_thread_exit(void)
{
	struct em_thread *t = self ? em_thread_self() : NULL;

	if (!t)
		return;
	context_reset(t);
	if (t->lent.p)
		em_sys_munmap(t->lent.p, t->lent.bytes);
	t->lent.p = NULL;
	__atomic_store_n(&t->used, EXITING, __ATOMIC_RELEASE);
}

/* ---- engine sections and the gate --------------------------------------------- */

void em_enter(struct em_thread *t, bool block_signals)
{
	uint64_t all = ~0ull;

	if (t->depth) {
		t->depth++;
		return;
	}
	/* Blocked first: a handler that came while depth is 1 already would run the program's code
	   as if inside a section. */
	if (block_signals)
		em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &t->saved_mask, sizeof(all));
	t->depth = 1;
	for (;;) {
		__atomic_fetch_add(&t->section, 1, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&gate, __ATOMIC_SEQ_CST))
			return;
		/* Dekker with em_gate_close: one of us sees the other. */
		__atomic_fetch_add(&t->section, 1, __ATOMIC_SEQ_CST);
		em_gate_wait();
	}
}

void em_leave(struct em_thread *t, bool block_signals)
{
	if (--t->depth)
		return;
	__atomic_fetch_add(&t->section, 1, __ATOMIC_SEQ_CST);
	if (block_signals)
		em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &t->saved_mask, NULL,
			    sizeof(t->saved_mask));
}

void em_gate_wait(void)
{
	while (__atomic_load_n(&gate, __ATOMIC_SEQ_CST))
		em_futex_wait(&gate, 1, 0);
}

bool em_gate_closed(void)
{
	return __atomic_load_n(&gate, __ATOMIC_SEQ_CST);
}

/* The caller holds the map lock, so there is one closer at a time.  Everybody inside leaves by itself: nobody
   inside waits for the map lock (em_range_enter takes it before it enters the section). */
void em_gate_close(struct em_thread *me)
{
	__atomic_store_n(&gate, 1, __ATOMIC_SEQ_CST);
	em_service_kick();
	for (struct em_thread *t = em_thread_first(); t; t = t->next) {
		unsigned turns = 0;

		if (t == me)
			continue;
		while (__atomic_load_n(&t->section, __ATOMIC_SEQ_CST) & 1) {
			if (++turns < GATE_SPINS)
				em_cpu_relax();
			else
				em_give_way(turns - GATE_SPINS + 1);
		}
	}
}

void em_gate_open(void)
{
	__atomic_store_n(&gate, 0, __ATOMIC_SEQ_CST);
	em_futex_wake(&gate, 1 << 30);
}

/* ---- deferred frees --------------------------------------------------------------- */

/*
 * A retired object is freed once every thread has been seen outside, or in a later section than at
 * the time it was retired.  One generation is in the waiting at a time: the list is sealed with
 * a snapshot of all sections, and freed when all have moved on.
 */
static struct retired *sealed;

struct snapshot {
	struct em_thread *t;
	uint64_t section;
};
static struct snapshot *snap;
static uint32_t nsnap, snap_cap;

void em_retire(void *p, void (*fn)(void *))
{
	struct retired *r = em_meta_alloc(sizeof(*r));

	if (!r)
		return; /* leaked rather than freed under a reader */
	r->p = p;
	r->fn = fn;
	r->next = retired;
	retired = r;

}

static bool sealed_is_over(const struct em_thread *me)
{
	for (uint32_t i = 0; i < nsnap; i++) {
		if (snap[i].t == me)
			continue;
		if ((snap[i].section & 1) &&
		    __atomic_load_n(&snap[i].t->section, __ATOMIC_SEQ_CST) == snap[i].section)
			return false;
	}
	return true;
}

static bool seal(void)
{
	uint32_t n = 0;

	for (struct em_thread *t = em_thread_first(); t; t = t->next)
		n++;
	if (n > snap_cap) {
		struct snapshot *s = em_meta_alloc((n + 64) * sizeof(*s));

		if (!s)
			return false;
		em_meta_free(snap, snap_cap * sizeof(*s));
		snap = s;
		snap_cap = n + 64;
	}
	sealed = retired;
	retired = NULL;
	nsnap = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (struct em_thread *t = em_thread_first(); t && nsnap < snap_cap; t = t->next) {
		snap[nsnap].t = t;
		snap[nsnap++].section = __atomic_load_n(&t->section, __ATOMIC_SEQ_CST);
	}
	return true;
}

/* The caller is inside itself but must not keep pointers to retired objects across this call. */
void em_retire_poll(void)
{
	if (sealed && !sealed_is_over(em_thread_self()))
		return;
	while (sealed) {
		struct retired *r = sealed;

		sealed = r->next;
		r->fn(r->p);
		em_meta_free(r, sizeof(*r));
	}
	if (retired)
		seal();
}

/* In a forked child only the caller exists; everybody else's context is free again. */
void em_thread_fork_child(struct em_thread *me)
{
	for (struct em_thread *t = em_thread_first(); t; t = t->next) {
		if (t == me)
			continue;
		context_reset(t);
		t->depth = 0;
		t->section &= ~1ull;
		t->used = 0;
	}
	me->tid = (int)em_sys_gettid();
	me->stranger = false;
	self = me;
	shared_storage = 0;
	__atomic_store_n(&gate, 0, __ATOMIC_SEQ_CST);
}
