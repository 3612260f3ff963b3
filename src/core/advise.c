/* SPDX-License-Identifier: MIT */
/*
 * madvise on managed memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "capture.h"
#include "range.h"
#include "sys.h"
#include "uffd_compat.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* 6.13; the pages are discarded as well */
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif

/* The kernel goes mapping by mapping and stops at one that it refuses (mlock): what lies before that is
   gone.  Returns where that is. */
static uintptr_t discarded_upto(uintptr_t addr, uintptr_t end, int advice)
{
	uintptr_t a = addr;
	long ret;

	for (; a < end; a += EM_PAGE_SIZE) {
		ret = em_sys_madvise((void *)a, EM_PAGE_SIZE, advice);
		if (ret && ret != -ENOMEM)
			break;
	}
	return a;
}

/* -ENOMEM: there are holes in the range, the rest was done all the same. */
static long discard_part(struct em_range_op *op, uintptr_t addr, uintptr_t end, int advice)
{
	long ret = addr < end ? em_sys_madvise((void *)addr, end - addr, advice) : 0;
	uintptr_t upto = ret && ret != -ENOMEM ? discarded_upto(addr, end, advice) : end;

	em_range_finish(op, addr, upto, EM_RANGE_DISCARD);
	em_range_finish(op, upto, end, EM_RANGE_KEEP);
	return ret;
}

/* A page that a call under way may be using cannot go without that call's failing: it becomes zeros where it
   is.  Not one that is protected, by us or by the program (a write would wait for the word that we hold), nor
   one that is locked: that is the kernel's to refuse, as it refuses COLD. */
static bool cleared(uintptr_t a)
{
	static const char zeros[EM_PAGE_SIZE];
	struct iovec from = { (void *)zeros, EM_PAGE_SIZE }, to = { (void *)a, EM_PAGE_SIZE };
	em_word_t *wp = em_space_word(a), w = wp ? em_word_load(wp) : 0;

	return wp && em_word_state(w) == EM_DIRTY && !(w & EM_W_MAYBE_WP) &&
	       em_hazard_held(a, a + EM_PAGE_SIZE) &&
	       !em_sys_madvise((void *)a, EM_PAGE_SIZE, MADV_COLD) &&
	       em_syscall6(SYS_process_vm_writev, em_sys_getpid(), (long)&from, 1, (long)&to, 1, 0) ==
		       (long)EM_PAGE_SIZE;
}

/* All but the pages of [first, last) that could be cleared instead. */
static long discard_around(struct em_range_op *op, uintptr_t addr, uintptr_t end, uintptr_t first,
			   uintptr_t last, int advice)
{
	long ret = 0, one;

	for (uintptr_t a = first; a < last && (!ret || ret == -ENOMEM); a += EM_PAGE_SIZE) {
		if (!cleared(a))
			continue;
		one = discard_part(op, addr, a, advice);
		ret = one ? one : ret;
		em_range_finish(op, a, a + EM_PAGE_SIZE, EM_RANGE_KEEP);
		addr = a + EM_PAGE_SIZE;
	}
	if (ret && ret != -ENOMEM) {
		em_range_finish(op, addr, end, EM_RANGE_KEEP);
		return ret;
	}
	one = discard_part(op, addr, end, advice);
	return one ? one : ret;
}

/* DONTNEED, and FREE too: the manual page allows the pages to be gone at any time after it. */
static long discard(uintptr_t addr, uintptr_t end, int advice)
{
	uintptr_t first = addr, last = end;
	struct em_range_op op;
	long ret;

	em_range_enter(&op);
	ret = em_range_lock(&op, addr, end);
	if (!ret) {
		if (advice == MADV_FREE)
			advice = MADV_DONTNEED;
		if (advice == MADV_GUARD_INSTALL || !em_hazard_hull(&first, &last))
			first = last = end;
		ret = discard_around(&op, addr, end, first, last, advice);
	}
	if (advice == MADV_GUARD_INSTALL)
		em_range_leave(&op);
	else
		em_range_leave_refilled(&op, addr, end);
	return ret;
}

struct advise {
	uint8_t advice;
};

static void advise_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct advise *a = arg;
	struct em_region *r;

	(void)end;
	if (!b) {
		r = em_range_region_at(start);
		if (r)
			r->advice = a->advice;
		return;
	}
	for (uint32_t i = 0; i < EM_SEGS; i++)
		if (b->seg[i] && b->seg[i]->start < end && b->seg[i]->end > start)
			b->seg[i]->advice = a->advice;
}

static long steer(uintptr_t addr, uintptr_t end, int advice)
{
	struct advise a = { advice == MADV_SEQUENTIAL ? EXTMEM_ADVICE_SEQUENTIAL
			    : advice == MADV_RANDOM   ? EXTMEM_ADVICE_RANDOM
						      : EXTMEM_ADVICE_NORMAL };
	struct em_span_visit v = { advise_block, &a };
	struct em_range_op op;
	long ret;

	em_range_enter(&op);
	ret = em_sys_madvise((void *)addr, end - addr, advice);
	if (!ret)
		em_space_walk(addr, end, &v);
	em_range_leave(&op);
	return ret;
}

static void cold_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	(void)arg;
	for (uintptr_t a = start; b && a < end; a += EM_PAGE_SIZE) {
		enum em_state st = em_word_state(
			em_word_load(&b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)]));

		if (st == EM_CLEAN || st == EM_DIRTY)
			em_event(a, EXTMEM_EV_COLD, 0);
	}
}

/* Only managed pages are concerned: advice about the rest of a mixed range has no effect, as the manual
   page allows. */
static long evict_hint(uintptr_t addr, uintptr_t end, int advice)
{
	struct em_span_visit cold = { cold_block, NULL };
	struct em_thread *t = em_thread_self();

	em_enter(t, true);
	if (advice == MADV_PAGEOUT)
		em_reclaim_range(t, addr, end);
	else
		em_space_walk(addr, end, &cold);
	em_leave(t, true);
	return 0;
}

static long willneed(uintptr_t addr, uintptr_t end)
{
	extmem_page_t first = addr >> EM_PAGE_SHIFT;
	uint64_t n = (end - addr) >> EM_PAGE_SHIFT, most = 2ull * em_stage_window_max(em_host_readers());
	struct em_thread *t = em_thread_self();

	em_enter(t, true);
	em_service_prefetch(first, (uint32_t)(n < most ? n : most));
	em_leave(t, true);
	return 0;
}

/* In pieces, so that a range larger than the budget cannot hold all of it at once.  The kernel then finds
   everything in place, and still says what it thinks of the protection. */
static long populate(uintptr_t addr, uintptr_t end, int advice)
{
	struct em_thread *t = em_thread_self();
	const uintptr_t step = 64 * EM_PAGE_SIZE;
	uint32_t mark = em_hazard_begin(t, (uintptr_t)&t);
	long ret = 0;

	for (uintptr_t a = addr; a < end && !ret; a += step) {
		size_t len = end - a < step ? end - a : step;

		em_hazard_push(t, a, len, (uintptr_t)&t);
		em_enter(t, true);
		ret = em_fault_range(t, a, len, advice == MADV_POPULATE_WRITE);
		em_leave(t, true);
		if (!ret)
			ret = em_sys_madvise((void *)a, len, advice);
		em_hazard_pop(t, mark);
	}
	return ret;
}

/* The kernel decides what a child sees there; it would find zeros for what is in the store anyhow, and old
   content for what is not. */
static long release_and_advise(uintptr_t addr, uintptr_t end, int advice)
{
	int ret = em_range_release(addr, end);

	return ret ? ret : em_sys_madvise((void *)addr, end - addr, advice);
}

long em_range_madvise(uintptr_t addr, size_t len, int advice)
{
	uintptr_t end = em_page_up(addr + len);

	if ((addr & EM_PAGE_MASK) || !len || end <= addr || !em_space_may_manage(addr, len))
		return em_sys_madvise((void *)addr, len, advice);
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
	case MADV_FREE:
	case MADV_GUARD_INSTALL:
		return discard(addr, end, advice);
	case MADV_NORMAL:
	case MADV_SEQUENTIAL:
	case MADV_RANDOM:
		return steer(addr, end, advice);
	case MADV_WILLNEED:
		return willneed(addr, end);
	case MADV_COLD:
	case MADV_PAGEOUT:
		return evict_hint(addr, end, advice);
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		return populate(addr, end, advice);
	case MADV_MERGEABLE:
		em_capture_stop();
		break;
	case MADV_WIPEONFORK:
		return release_and_advise(addr, end, advice);
	default:
		break;
	}
	return em_sys_madvise((void *)addr, len, advice);
}

/* ---- process_madvise --------------------------------------------------------------- */

/*
 * Is the descriptor (or the special value) of somebody who has our memory?  Only then the kernel lets a page
 * be discarded (6.13).  An older one refuses that for all, and what else it does changes no content.
 */
static bool has_our_memory(int pidfd)
{
	static char scratch[EM_PAGE_SIZE] __attribute__((aligned(EM_PAGE_SIZE)));
	struct iovec iov = { scratch, sizeof(scratch) };

	return em_syscall5(SYS_process_madvise, pidfd, &iov, 1, MADV_DONTNEED, 0) ==
	       (long)sizeof(scratch);
}

/* On ourselves it is madvise range by range; on others the kernel's business. */
long em_range_process_madvise(const long *arg)
{
	const struct iovec *v = (const struct iovec *)arg[1];
	long done = 0, ret;

	if (!v || arg[2] <= 0 || arg[2] > 1024 || arg[4] || !has_our_memory((int)arg[0]))
		return em_syscall5(SYS_process_madvise, arg[0], arg[1], arg[2], arg[3], arg[4]);
	for (long i = 0; i < arg[2]; i++) {
		if (em_space_may_manage((uintptr_t)v[i].iov_base, v[i].iov_len))
			ret = em_range_madvise((uintptr_t)v[i].iov_base, v[i].iov_len, (int)arg[3]);
		else
			ret = em_syscall5(SYS_process_madvise, arg[0], &v[i], 1, arg[3], 0);
		if (ret < 0)
			return done ? done : ret;
		done += (long)v[i].iov_len;
	}
	return done;
}
