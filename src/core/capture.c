/* SPDX-License-Identifier: MIT */
/*
 * To protect one scattered victim takes a call and an interruption of every processor that runs the
 * program.  Here a batch takes one interruption:
 *
 *   own      each page is made the process's own, writable one (MADV_POPULATE_WRITE): neither the zero page nor
 *            one shared with a forked process, which a write would exchange for another
 *   hold     vmsplice: the pipe refers to the pages themselves, nothing is copied
 *   unmap    one process_madvise for all; until then the program reads and writes them
 *   take     nobody can change them now: the content goes from the pipe into frames of standby, or into others
 *            and is written from there
 *
 * From the first step to the third the page must stay the same one.  What could exchange it: fork, which waits
 * for us, and KSM, with which none of this is done (em_capture_stop).  The victims are LOCKED until they
 * are unmapped, so nothing of the engine's does.
 */
#include "capture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "meta.h"
#include "standby.h"
#include "sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif
#ifndef SPLICE_F_NONBLOCK
#define SPLICE_F_NONBLOCK 2
#endif
#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#endif

/* So many neighbours and more are protected with one call, without a copy; frames for so many batches
   at once, or that part of the budget. */
enum { RUN_PROTECTED = 16, REFUSALS = 8, AREAS = 10, BUDGET_PART = 64, FIRST_PART = 16 };

static struct {
	struct em_mutex lock; /* of the frames */
	struct em_mutex pipe_lock;
	uint32_t made, nfree;
	uint32_t idle; /* the fewest free since the last tick */
	struct em_frames free[AREAS];
} cap;

void em_capture_stop(void)
{
	struct em_thread *t = em_thread_self();

	if (!t || !(__atomic_fetch_and(&em_uffd.features, ~(uint32_t)EM_FEAT_CAPTURE, __ATOMIC_SEQ_CST) &
		    EM_FEAT_CAPTURE))
		return;
	em_engine.opt.feature_mask |= EM_FEAT_CAPTURE; /* for children */
	em_enter(t, true);
	em_mutex_lock(&cap.pipe_lock); /* who is at it comes to an end */
	em_mutex_unlock(&cap.pipe_lock);
	em_leave(t, true);
}

static bool is_on(void)
{
	return __atomic_load_n(&em_uffd.features, __ATOMIC_SEQ_CST) & EM_FEAT_CAPTURE;
}

/* ---- frames ------------------------------------------------------------------------------ */

static void areas_free_one(void)
{
	struct em_frames *f = &cap.free[--cap.nfree];

	em_meta_free_frames((void *)f->base, f->pages);
	cap.made--;
}

static bool may_make(uint32_t pages)
{
	uint64_t limit = (uint64_t)__atomic_load_n(&em_budget.limit, __ATOMIC_RELAXED);

	/* One area in any case: it is what a small budget can spare, and enough. */
	return cap.made < AREAS && (cap.made + 1) * (uint64_t)pages <=
					   limit / (cap.made ? BUDGET_PART : FIRST_PART);
}

static bool frames_get(struct em_batch *b)
{
	uint32_t batch = __atomic_load_n(&em_budget.batch, __ATOMIC_RELAXED);
	uint32_t pages = b->n > batch ? EM_BATCH_PAGES : batch;

	em_mutex_lock(&cap.lock);
	while (cap.nfree && cap.free[cap.nfree - 1].pages < b->n)
		areas_free_one();
	if (cap.nfree) {
		b->frames = cap.free[--cap.nfree];
	} else if (may_make(pages)) {
		b->frames.base = (uintptr_t)em_meta_alloc_frames(pages);
		b->frames.pages = pages;
		cap.made += b->frames.base != 0;
	}
	if (cap.nfree < cap.idle)
		cap.idle = cap.nfree;
	em_mutex_unlock(&cap.lock);
	return b->frames.base != 0;
}

/* A budget that has become smaller has fewer. */
void em_capture_done(struct em_batch *b)
{
	if (!b->frames.base)
		return;
	em_mutex_lock(&cap.lock);
	cap.free[cap.nfree++] = b->frames;
	if (!may_make(0))
		areas_free_one();
	em_mutex_unlock(&cap.lock);
	b->frames.base = 0;
}

void em_capture_tick(void)
{
	em_mutex_lock(&cap.lock);
	if (cap.idle && cap.nfree)
		areas_free_one();
	cap.idle = cap.nfree;
	em_mutex_unlock(&cap.lock);
}

/* ---- the steps ----------------------------------------------------------------------------- */

/* b->take[from..n) as runs of addresses. */
static uint32_t build_runs(struct em_batch *b, uint32_t from, uint32_t n)
{
	struct iovec *run = b->iov;
	uint32_t nrun = 0;

	for (uint32_t i = from; i < n; i++) {
		uintptr_t addr = b->v[b->take[i]].addr;

		if (nrun && (uintptr_t)run[nrun - 1].iov_base + run[nrun - 1].iov_len == addr) {
			run[nrun - 1].iov_len += EM_PAGE_SIZE;
		} else {
			run[nrun].iov_base = (void *)addr;
			run[nrun++].iov_len = EM_PAGE_SIZE;
		}
	}
	return nrun;
}

static bool is_candidate(const struct em_victim *v, bool without_frame)
{
	return ((v->kind == V_DIRTY && without_frame) || v->kind == V_KEPT) &&
	       !(em_word_load(v->wp) & EM_W_MAYBE_WP);
}

/* The victims that lie scattered; without_frame: those that do not go to standby, too. */
static uint32_t choose(struct em_batch *b, bool without_frame)
{
	uint32_t n = 0;

	for (uint32_t i = 0, end; i < b->n; i = end) {
		for (end = i + 1; end < b->n && b->v[end].addr == b->v[end - 1].addr + EM_PAGE_SIZE; end++)
			;
		if (end - i >= RUN_PROTECTED)
			continue;
		for (uint32_t k = i; k < end; k++)
			if (is_candidate(&b->v[k], without_frame))
				b->take[n++] = (uint16_t)k;
	}
	return n;
}

/* Those that cannot be had (mprotect, protected) are left out: how many remain. */
static uint32_t make_own(struct em_batch *b, uint32_t n)
{
	uint32_t kept = 0, refused = 0;

	for (uint32_t at = 0; at < n && refused < REFUSALS;) {
		uint32_t nrun = build_runs(b, at, n);
		long ret = em_syscall5(SYS_process_madvise, em_uffd.pidfd, b->iov, nrun,
				       MADV_POPULATE_WRITE, 0);
		uint32_t good = ret > 0 ? (uint32_t)(ret >> EM_PAGE_SHIFT) : 0;

		for (uint32_t i = 0; i < good; i++)
			b->take[kept++] = b->take[at + i];
		at += good;
		if (at < n) {
			at++;
			refused++;
		}
	}
	return kept;
}

/* Where its content goes: to standby, or where it is written from. */
static void *frame_of(struct em_batch *b, uint32_t i)
{
	if (b->v[i].kind == V_KEPT || b->v[i].kind == V_STANDBY)
		return em_standby_content(b->v[i].frame);
	return (void *)(b->frames.base + i * EM_PAGE_SIZE);
}

/* Into the frames of the victims take[from..n). */
static void take_content(struct em_batch *b, uint32_t from, uint32_t n)
{
	for (uint32_t i = from; i < n; i++) {
		b->iov[i - from].iov_base = frame_of(b, b->take[i]);
		b->iov[i - from].iov_len = EM_PAGE_SIZE;
	}
	if (em_syscall3(SYS_readv, em_uffd.pipe[0], b->iov, n - from) !=
	    (long)((n - from) * EM_PAGE_SIZE))
		em_panic("extmem: pages that were taken out of memory cannot be read from a pipe\n");
}

/* Unmapped in runs b->iov, b->ok. */
static void mark_unmapped(struct em_batch *b, uint32_t from, uint32_t n)
{
	uint32_t k = 0;

	for (uint32_t i = from; i < n; i++) {
		struct em_victim *v = &b->v[b->take[i]];

		while (v->addr >= (uintptr_t)b->iov[k].iov_base + b->iov[k].iov_len)
			k++;
		if (b->ok[k] || !em_sys_madvise((void *)v->addr, EM_PAGE_SIZE, MADV_DONTNEED)) {
			em_word_release(v->wp, EM_LIFTING, EM_SLOT_NONE, EM_W_MAYBE_WP, 0);
			v->kind = v->kind == V_KEPT ? V_STANDBY : V_LIFTED;
		} else {
			/* Locked into memory behind our back (mlockall): it stays. */
			em_word_pin(v->wp, true);
		}
	}
}

/* Their content is in their frames.  That of one that stays is looked at by nobody, but its frame was in use. */
static void publish(struct em_batch *b, uint32_t from, uint32_t n)
{
	em_word_t stamp = (em_word_t)em_evict_stamp() << EM_W_STAMP_SHIFT;
	uint32_t gone = 0, lifted = 0;

	for (uint32_t i = from; i < n; i++) {
		struct em_victim *v = &b->v[b->take[i]];

		switch (v->kind) {
		case V_LIFTED: /* its frame is charged as such */
			lifted++;
			break;
		case V_STANDBY:
			em_standby_publish(v, stamp);
			em_event(v->addr, EXTMEM_EV_EVICTED, 0);
			v->kind = V_SKIP;
			gone++;
			break;
		case V_KEPT:
			em_standby_return(v);
			em_victim_let_go(v);
			break;
		case V_DIRTY:
			em_slots_free(em_engine.store, v->slot);
			em_victim_let_go(v);
			break;
		}
	}
	b->dropped += gone;
	b->captured += lifted;
	em_uncharge(gone + lifted);
	__atomic_fetch_add(&em_budget.evict_clock, gone, __ATOMIC_RELAXED);
}

/* How many of take[from..n) the pipe took: fewer than all if it is full, or at one that the kernel
   cannot read. */
static uint32_t hold(struct em_batch *b, uint32_t from, uint32_t n)
{
	uint32_t nrun = build_runs(b, from, n);
	long ret;

	if (!em_uffd.pipe_sized) {
		em_uffd.pipe_sized = true;
		em_syscall3(SYS_fcntl, em_uffd.pipe[1], F_SETPIPE_SZ, EM_BATCH_PAGES * EM_PAGE_SIZE);
	}
	ret = em_syscall4(SYS_vmsplice, em_uffd.pipe[1], b->iov, nrun, SPLICE_F_NONBLOCK);
	if (ret == -ENOSYS || ret == -EPERM || ret == -EACCES || ret == -EBADF)
		__atomic_fetch_and(&em_uffd.features, ~(uint32_t)EM_FEAT_CAPTURE, __ATOMIC_SEQ_CST);
	return ret > 0 ? (uint32_t)(ret >> EM_PAGE_SHIFT) : 0;
}

static uint32_t hold_and_unmap(struct em_batch *b, uint32_t from, uint32_t n)
{
	uint32_t held = is_on() ? hold(b, from, n) : 0;

	if (!held)
		return 0;
	em_uffd_drop(b->iov, build_runs(b, from, from + held), b->ok);
	mark_unmapped(b, from, from + held);
	take_content(b, from, from + held);
	publish(b, from, from + held);
	return held;
}

static bool needs_frames(const struct em_batch *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (b->v[b->take[i]].kind == V_DIRTY)
			return true;
	return false;
}

void em_capture_victims(struct em_batch *b)
{
	uint32_t n, at, held = 1;

	b->lifted = b->captured = 0;
	b->captures = false;
	if (!is_on())
		return;
	n = choose(b, true);
	if (needs_frames(b, n) && !frames_get(b))
		n = choose(b, false);
	if (!n)
		return;
	b->captures = true;
	n = make_own(b, n);
	em_mutex_lock(&cap.pipe_lock);
	for (at = 0; at < n && held; at += held)
		held = hold_and_unmap(b, at, n);
	em_mutex_unlock(&cap.pipe_lock);
}
