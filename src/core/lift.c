/* SPDX-License-Identifier: MIT */
#include "lift.h"

#include "capture.h"

#include <errno.h>
#include <sys/mman.h>

#include "meta.h"
#include "sys.h"
#include "uffd_compat.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* 5.7 */
#endif
#ifndef MREMAP_MAYMOVE
#define MREMAP_MAYMOVE 1
#define MREMAP_FIXED 2
#endif

#define LIFT_BYTES (EM_BATCH_PAGES * EM_PAGE_SIZE)

static bool lift_area(struct em_batch *b)
{
	if (!b->lift_base)
		b->lift_base = (uintptr_t)em_meta_alloc_addresses(LIFT_BYTES);
	return b->lift_base != 0;
}

void *em_lift_frame(struct em_batch *b, uint32_t index)
{
	return (void *)((b->frames.base ? b->frames.base : b->lift_base) + index * EM_PAGE_SIZE);
}

/* The page tables move, the data does not; the old mapping stays, registered and empty. */
static bool lift_one(struct em_batch *b, uint32_t i)
{
	void *to = em_lift_frame(b, i);
	long ret = em_syscall5(SYS_mremap, b->v[i].addr, EM_PAGE_SIZE, EM_PAGE_SIZE,
			       MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);

	em_stat_inc(shootdowns);
	if (em_is_err(ret))
		return false;
	em_syscall3(SYS_mprotect, to, EM_PAGE_SIZE, PROT_READ | PROT_WRITE);
	return true;
}

void em_lift_victims(struct em_batch *b)
{
	bool have = lift_area(b);

	b->lifted = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != V_DIRTY)
			continue;
		/* What fork and mremap suspect is never so: nothing is write-protected here. */
		em_word_release(v->wp, EM_LIFTING, EM_SLOT_NONE, EM_W_MAYBE_WP, 0);
		if (have && lift_one(b, i)) {
			v->kind = V_LIFTED;
			continue;
		}
		em_word_release(v->wp, EM_DIRTY, EM_SLOT_NONE, 0, 0);
		em_slots_free(em_engine.store, v->slot);
		em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
		v->kind = V_SKIP;
	}
}

void em_lift_settle(struct em_batch *b, struct em_victim *v, int err)
{
	em_word_t stamp = (em_word_t)em_evict_stamp() << EM_W_STAMP_SHIFT;
	uint32_t done;

	v->kind = V_SKIP;
	if (!err) {
		em_word_release(v->wp, EM_SWAPPED, v->slot, EM_W_STAMP, stamp);
		em_event(v->addr, EXTMEM_EV_EVICTED, 0);
		em_victim_count(v, false);
		b->lifted++;
		return;
	}
	if (em_uffd_copy(v->addr, em_lift_frame(b, (uint32_t)(v - b->v)), 1, false, &done))
		em_panic("extmem: a page that could not be written could not be put back either\n");
	em_slots_free(em_engine.store, v->slot);
	if (em_uffd.features & EM_FEAT_WP)
		__atomic_fetch_add(&em_budget.resident, 1, __ATOMIC_RELAXED);
	em_word_release(v->wp, EM_DIRTY, EM_SLOT_NONE, 0, 0);
	em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
}

uint32_t em_lift_finish(struct em_batch *b)
{
	uint32_t n = b->lifted;

	b->lifted = 0;
	__atomic_fetch_add(&em_budget.evict_clock, n, __ATOMIC_RELAXED);
	if (em_uffd.features & EM_FEAT_WP) {
		em_capture_done(b);
		return n;
	}
	em_uncharge(n);
	/* One fresh mapping in place of what was moved here. */
	if (b->lift_base)
		em_sys_mmap((void *)b->lift_base, LIFT_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	return n;
}
