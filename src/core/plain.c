/* SPDX-License-Identifier: MIT */
/*
 * A forked child that cannot have a userfaultfd: by a filter of the program's own, or a limit of the system's.
 * Its parent's content comes back from the store into memory that is not registered with anything, and stays: the
 * child is managed no longer.  It is alone and inside our hook, so nobody sees a page too early.
 *
 * What cannot be brought back ends the child: the page would read as zeros.
 */
#include <errno.h>
#include <fcntl.h>

#include "range.h"
#include "sys.h"

struct plain {
	bool count;	/* only */
	int64_t away;
	char *room;	/* of our own */
};

/* The program cannot write there (PROT_NONE, PROT_READ): the kernel can. */
static int write_through(uintptr_t addr, em_slot_t slot, char *room)
{
	int ret = em_store_read(em_engine.store, slot, room, 1);
	long fd, n;

	if (ret)
		return ret;
	fd = em_syscall4(SYS_openat, AT_FDCWD, "/proc/self/mem", O_WRONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return (int)fd;
	n = em_syscall4(SYS_pwrite64, fd, room, EM_PAGE_SIZE, addr);
	em_sys_close((int)fd);
	return n == (long)EM_PAGE_SIZE ? 0 : -EFAULT;
}

static void bring_back(uintptr_t addr, em_slot_t slot, char *room)
{
	int ret = em_store_read(em_engine.store, slot, (void *)addr, 1);

	if (ret == -EFAULT && !em_range_is_whole(addr, addr + EM_PAGE_SIZE))
		return; /* MADV_DONTFORK */
	if (ret == -EFAULT)
		ret = write_through(addr, slot, room);
	if (ret)
		em_panic("extmem: fork: the child gets no userfaultfd (a seccomp filter of the program's?), "
			 "and cannot read its memory back\n");
}

static void visit(void *arg, uintptr_t start, uintptr_t end, struct em_block *b)
{
	struct plain *p = arg;

	for (uintptr_t a = start; b && a < end; a += EM_PAGE_SIZE) {
		em_word_t w = em_word_load(&b->word[(a >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)]);
		enum em_state st = em_word_state(w);
		uint32_t slot = em_word_slot(w);

		if (st != EM_STAGED && st != EM_SWAPPED && st != EM_FAILED)
			continue;
		if (st == EM_STAGED)
			slot = em_stage_chunk(slot)->slot[em_stage_pos(slot)];
		if (p->count)
			p->away++;
		else
			bring_back(a, slot, p->room);
	}
}

void em_plain_child(struct em_range_op *op)
{
	const uintptr_t end = 1ul << EM_ADDR_BITS;
	struct plain p = { .count = true, .room = op->t->bounce };
	struct em_span_visit v = { visit, &p };

	em_space_walk(0, end, &v);
	if (em_budget_used() + p.away > em_budget.hard)
		em_panic("extmem: fork: the child gets no userfaultfd (a seccomp filter of the program's?), "
			 "and without one its content does not fit into memory\n");
	p.count = false;
	if (em_range_lock(op, 0, end))
		em_panic("extmem: fork: no memory for the child\n");
	em_space_walk(0, end, &v);
	em_range_finish(op, 0, end, EM_RANGE_UNMAP);
	em_engine.lock_future = true;
	if (!em_engine.plain)
		em_say("extmem: fork: the child gets no userfaultfd (a seccomp filter of the program's?): all "
		       "its memory stays in memory, beyond its budget if need be\n");
	em_engine.plain = true;
}
