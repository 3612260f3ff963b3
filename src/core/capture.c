/* SPDX-License-Identifier: MIT */
/*
 * To protect one scattered victim takes a call and an interruption of every processor that runs the
 * program.  Here a batch takes one interruption:
 *
 *   own      each page is made the process's own, writable one (MADV_POPULATE_WRITE): neither the zero page nor
 *            one shared with a forked process, which a write would exchange for another
 *   hold     vmsplice: the pipe refers to the pages themselves, nothing is copied
 *   unmap    one process_madvise for all; until then the program reads and writes them
 *   take     nobody can change them now: the content goes from the pipe into frames, and is written from there
 *
 * Between the first step and the third the page must stay the same one.  Only fork (which waits for us), and
 * merging by KSM could exchange it.
 */
#include "capture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "meta.h"
#include "sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Neighbours from so many on are protected with one call, without a copy. */
enum { RUN_PROTECTED = 16, REFUSALS = 8, AREAS = 64 };
#define AREA_BYTES (EM_BATCH_PAGES * EM_PAGE_SIZE)

static struct {
	struct em_mutex lock; /* of the frames */
	struct em_mutex pipe_lock;
	uint32_t made, nfree;
	uintptr_t free[AREAS];
} cap;

/* ---- frames ------------------------------------------------------------------------------ */

static uint32_t areas_at_most(void)
{
	uint64_t n = (uint64_t)__atomic_load_n(&em_budget.limit, __ATOMIC_RELAXED) / 32 / EM_BATCH_PAGES;

	return n < AREAS ? (uint32_t)n : AREAS;
}

static bool area_get(struct em_batch *b)
{
	if (b->lift_base)
		return true;
	em_mutex_lock(&cap.lock);
	if (cap.nfree) {
		b->lift_base = cap.free[--cap.nfree];
	} else if (cap.made < areas_at_most()) {
		b->lift_base = (uintptr_t)em_meta_alloc(AREA_BYTES);
		cap.made += b->lift_base != 0;
	}
	em_mutex_unlock(&cap.lock);
	return b->lift_base != 0;
}

void em_capture_done(struct em_batch *b)
{
	if (!b->lift_base)
		return;
	em_mutex_lock(&cap.lock);
	cap.free[cap.nfree++] = b->lift_base;
	b->lift_base = 0;
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

static bool is_candidate(const struct em_victim *v)
{
	return v->kind == V_DIRTY && !(em_word_load(v->wp) & EM_W_MAYBE_WP);
}

/* The victims that lie scattered. */
static uint32_t choose(struct em_batch *b)
{
	uint32_t n = 0;

	for (uint32_t i = 0, end; i < b->n; i = end) {
		for (end = i + 1; end < b->n && b->v[end].addr == b->v[end - 1].addr + EM_PAGE_SIZE; end++)
			;
		if (end - i >= RUN_PROTECTED)
			continue;
		for (uint32_t k = i; k < end; k++)
			if (is_candidate(&b->v[k]))
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

/* Into the frames of the victims take[from..n). */
static void take_content(struct em_batch *b, uint32_t from, uint32_t n)
{
	uint64_t want = (uint64_t)(n - from) * EM_PAGE_SIZE;

	for (uint32_t i = from; i < n; i++) {
		b->iov[i - from].iov_base = (void *)(b->lift_base + b->take[i] * EM_PAGE_SIZE);
		b->iov[i - from].iov_len = EM_PAGE_SIZE;
	}
	if (em_syscall3(SYS_readv, em_uffd.pipe[0], b->iov, n - from) != (long)want)
		em_panic("extmem: a page that was taken out of memory cannot be read\n");
}

static void publish(struct em_batch *b, uint32_t from, uint32_t n, uint32_t nrun)
{
	uint32_t k = 0;

	(void)nrun;
	for (uint32_t i = from; i < n; i++) {
		struct em_victim *v = &b->v[b->take[i]];

		while (v->addr >= (uintptr_t)b->iov[k].iov_base + b->iov[k].iov_len)
			k++;
		if (b->ok[k] || !em_sys_madvise((void *)v->addr, EM_PAGE_SIZE, MADV_DONTNEED)) {
			em_word_release(v->wp, EM_LIFTING, EM_SLOT_NONE, 0, 0);
			v->kind = V_LIFTED;
		} else {
			/* Locked into memory behind our back (mlockall): it stays. */
			em_word_pin(v->wp, true);
			em_slots_free(em_engine.store, v->slot);
			em_victim_let_go(v);
		}
	}
}

/* How many of take[from..n) the pipe took. */
static uint32_t hold_and_unmap(struct em_batch *b, uint32_t from, uint32_t n)
{
	uint32_t nrun = build_runs(b, from, n);
	long ret = em_syscall4(SYS_vmsplice, em_uffd.pipe[1], b->iov, nrun, SPLICE_F_NONBLOCK);
	uint32_t held = ret > 0 ? (uint32_t)(ret >> EM_PAGE_SHIFT) : 0;

	if (!held)
		return 0;
	nrun = build_runs(b, from, from + held);
	em_uffd_drop(b->iov, nrun, b->ok);
	publish(b, from, from + held, nrun);
	take_content(b, from, from + held);
	return held;
}

void em_capture_victims(struct em_batch *b)
{
	uint32_t n, at, held = 1;

	b->lifted = 0;
	if (!(em_uffd.features & EM_FEAT_CAPTURE))
		return;
	n = choose(b);
	if (!n || !area_get(b))
		return;
	n = make_own(b, n);
	em_mutex_lock(&cap.pipe_lock);
	for (at = 0; at < n && held; at += held)
		held = hold_and_unmap(b, at, n);
	em_mutex_unlock(&cap.pipe_lock);
}
