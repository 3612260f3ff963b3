/* SPDX-License-Identifier: MIT */
/*
 * Robust mutexes of a thread that ends.  The kernel walks the thread's list, marks each futex that it still
 * owns and wakes who waits.  It stops without a word at an entry that is not in memory, and the waiters wait
 * for ever.  So where an entry lies in managed memory the walk is made here, by the kernel's rules
 * (kernel/futex/core.c), and the kernel finds no list any more.
 */
#include <linux/futex.h>
#include <stddef.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"
#include "hook.h"
#include "special.h"

enum { PI = 1 }; /* in the pointer to an entry */

struct walk {
	struct em_regs *r;
	uintptr_t at; /* of the head */
	struct robust_list_head head;
	bool act;     /* else: only look */
	bool managed; /* an entry is */
};

static void wake_one(uint32_t *futex)
{
	em_syscall4(SYS_futex, futex, FUTEX_WAKE, 1, NULL);
}

static void mark_held(uint32_t *futex, bool pi, bool pending)
{
	uint32_t v = __atomic_load_n(futex, __ATOMIC_RELAXED), tid = (uint32_t)em_sys_gettid();

	if (pending && !pi && !v) {
		wake_one(futex);
		return;
	}
	while ((v & FUTEX_TID_MASK) == tid) {
		uint32_t died = (v & FUTEX_WAITERS) | FUTEX_OWNER_DIED;

		if (!__atomic_compare_exchange_n(futex, &v, died, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			continue;
		if (!pi && (died & FUTEX_WAITERS))
			wake_one(futex);
		return;
	}
}

static void mark(struct walk *w, uintptr_t entry, bool pending)
{
	uintptr_t futex = (entry & ~(uintptr_t)PI) + (uintptr_t)w->head.futex_offset;
	struct em_hold h;
	uint32_t v;

	w->managed |= em_space_may_manage(futex, sizeof(v));
	if (!w->act || futex % sizeof(v) || em_hold_fetch(w->r, &v, (void *)futex, sizeof(v)))
		return;
	em_hold_begin(&h, w->r->rsp);
	em_hold_range(&h, futex, sizeof(v), EM_DIR_OUT);
	if (!em_hold_ready(&h))
		mark_held((uint32_t *)futex, entry & PI, pending);
	em_hold_end(&h);
}

static void walk(struct walk *w, bool act)
{
	uintptr_t entry = (uintptr_t)w->head.list.next, next = 0;
	uintptr_t pending = (uintptr_t)w->head.list_op_pending;
	bool bad = false;

	w->act = act;
	for (int left = ROBUST_LIST_LIMIT; left && !bad && (entry & ~(uintptr_t)PI) != w->at; left--) {
		/* First: the entry belongs to another thread as soon as its futex is marked. */
		bad = em_hold_fetch(w->r, &next, (void *)(entry & ~(uintptr_t)PI), sizeof(next));
		if ((entry ^ pending) & ~(uintptr_t)PI)
			mark(w, entry, false);
		entry = next;
	}
	if (pending)
		mark(w, pending, true);
}

void em_robust_leave(struct em_regs *r)
{
	struct walk w = { .r = r };
	size_t bytes;

	if (em_syscall3(SYS_get_robust_list, 0, &w.at, &bytes) || !w.at ||
	    em_hold_fetch(r, &w.head, (void *)w.at, sizeof(w.head)))
		return;
	walk(&w, false);
	if (!w.managed)
		return;
	walk(&w, true);
	em_syscall2(SYS_set_robust_list, NULL, sizeof(w.head));
}
