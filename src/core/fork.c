/* SPDX-License-Identifier: MIT */
/*
 * fork: the child gets a copy of the page words and of what is resident, but no userfaultfd, no service
 * thread, no ring.  The parent stops its engine (gate closed, nothing in flight), forks, and
 * goes on; the child, still alone and inside our hook, opens its own descriptor and
 * registers everything again before it returns to the program.
 *
 * Slots are shared without copying: see the fork protocol in store.h.
 */
#include <errno.h>
#include <sys/mman.h>

#include "../control/control.h"
#include "meta.h"
#include "range.h"
#include "sys.h"
#include "uffd_compat.h"

/* The copy of a clean page has lost its write protection: it is dirty for the child.  Its slot belongs to
   the parent and is only forgotten (em_slots_free knows). */
static void child_page(em_word_t *wp)
{
	em_word_t w = *wp & ~(EM_W_WAITERS | EM_W_PINNED | EM_W_LOCKED);

	if (em_word_state(w) == EM_CLEAN) {
		em_slots_free(em_engine.store, em_word_slot(w));
		w = em_word_with_slot(em_word_with_state(w, EM_DIRTY), EM_SLOT_NONE);
	}
	if (em_word_state(w) == EM_DIRTY)
		w |= EM_W_MAYBE_WP;
	*wp = w;
}

struct child {
	struct em_range_op *op;
	bool plain;	      /* nothing will be registered */
	uintptr_t start, end; /* run of managed pages not registered yet */
};

static void register_mapped(uintptr_t start, uintptr_t end)
{
	if (start < end && em_uffd_register(start, end - start))
		em_panic("extmem: fork: the child's memory cannot be registered\n");
}

bool em_range_is_whole(uintptr_t start, uintptr_t end)
{
	return em_syscall3(SYS_msync, start, end - start, MS_ASYNC) != -ENOMEM;
}

/* Nothing is there: something else could be (4.17). */
static bool is_empty(uintptr_t start, uintptr_t end)
{
	long p = em_sys_mmap((void *)start, end - start, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (!em_is_err(p))
		em_sys_munmap((void *)p, end - start);
	return (uintptr_t)p == start;
}

/* Without the kernel's list (no /proc, or no descriptor left): halves, until each is all or nothing. */
static void register_halves(struct child *c, uintptr_t start, uintptr_t end)
{
	uintptr_t middle = (start + (end - start) / 2) & ~(uintptr_t)EM_PAGE_MASK;

	if (em_range_is_whole(start, end)) {
		register_mapped(start, end);
	} else if (is_empty(start, end)) {
		em_range_finish(c->op, start, end, EM_RANGE_UNMAP);
	} else {
		if (middle == start)
			em_panic("extmem: fork: the child cannot tell what it inherited\n");
		register_halves(c, start, middle);
		register_halves(c, middle, end);
	}
}

/* What the kernel did not copy (MADV_DONTFORK) leaves the child's table. */
static void register_run(struct child *c)
{
	struct em_mapping m;

	if (c->start == c->end)
		return;
	if (em_range_is_whole(c->start, c->end)) {
		register_mapped(c->start, c->end);
		return;
	}
	for (uintptr_t a = c->start; a < c->end; a = m.end) {
		if (!em_maps_find(a, &m)) {
			register_halves(c, a, c->end);
			return;
		}
		if (m.start > c->end)
			m.start = m.end = c->end;
		if (m.end > c->end)
			m.end = c->end;
		if (m.start > a)
			em_range_finish(c->op, a, m.start, EM_RANGE_UNMAP);
		register_mapped(m.start > a ? m.start : a, m.end);
	}
}

static void extend_run(struct child *c, uintptr_t start, uintptr_t end)
{
	if (c->plain)
		return;
	if (start != c->end) {
		register_run(c);
		c->start = start;
	}
	c->end = end;
}

static void child_block(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct child *c = arg;

	if (!b) {
		extend_run(c, start, end);
		return;
	}
	for (uintptr_t a = start; a < end; a += EM_PAGE_SIZE) {
		em_word_t *wp = &b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];

		if (em_word_state(*wp) == EM_HOLE)
			continue;
		child_page(wp);
		extend_run(c, a, a + EM_PAGE_SIZE);
	}
}

static void start_handlers(void)
{
	if (em_engine.opt.delivery == EM_DELIVERY_THREAD &&
	    em_handlers_start(em_engine.opt.delivery_threads))
		em_panic("extmem: fork: the child gets no handler thread\n");
}

/* If this fails, missing pages of the child would read as zeros: better no child. */
static void child_start(struct em_range_op *op)
{
	struct child c = { .op = op };
	struct em_span_visit v = { child_block, &c };

	em_engine.pid = (int)em_sys_getpid();
	em_rawthread_count = 0;
	em_thread_fork_child(op->t);
	em_tasks_fork_child();
	em_pin_fork_child();
	em_service_fork_child();
	em_proxy_fork_child();
	c.plain = em_uffd_reopen(em_engine.opt.delivery, em_engine.opt.feature_mask, em_engine.fd_min);
	if (em_store_fork_child(em_engine.store))
		em_panic("extmem: fork: the child cannot use the store\n");
	em_budget.pinned = 0; /* child_page takes the marks off */
	em_space_walk(0, 1ul << EM_ADDR_BITS, &v);
	register_run(&c);
	if (c.plain)
		em_plain_child(op);
	else
		start_handlers();
	em_budget_set(em_engine.opt.dram_bytes); /* it may have been on its way there */
	em_control_fork_child();
}

long em_fork(long nr, const long *arg)
{
	struct em_range_op op;
	long ret;

	em_range_enter(&op);
	em_gate_close(op.t);
	ret = em_store_fork_prepare(em_engine.store);
	if (!ret) {
		/* A thread that is being made allocates its context outside any section. */
		em_meta_lock();
		ret = em_syscall6(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
		em_meta_unlock();
		if (ret == 0) {
			child_start(&op);
		} else {
			em_store_fork_parent(em_engine.store, ret);
			em_gate_open();
			em_stat_inc(forks);
		}
		em_space_check(op.t);
	} else {
		em_gate_open();
	}
	em_range_leave(&op);
	return ret;
}
