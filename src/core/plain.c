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
#include <sys/uio.h>

#include "range.h"
#include "standby.h"
#include "sys.h"

struct plain {
	bool count;	/* only */
	int64_t away;
	char *room;	/* of our own */
};

/* The program cannot write there (PROT_NONE, PROT_READ): the kernel can. */
static int write_forced(uintptr_t addr, const char *from)
{
	long fd, n;

	fd = em_syscall4(SYS_openat, AT_FDCWD, "/proc/self/mem", O_WRONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return (int)fd;
	n = em_syscall4(SYS_pwrite64, fd, from, EM_PAGE_SIZE, addr);
	em_sys_close((int)fd);
	return n == (long)EM_PAGE_SIZE ? 0 : -EFAULT;
}

static int write_copy(uintptr_t addr, char *from)
{
	struct iovec local = { from, EM_PAGE_SIZE }, remote = { (void *)addr, EM_PAGE_SIZE };
	long n;

	/* A filter that kills for one of the pair does so for the other. */
	if (em_engine.opt.feature_mask & EM_FEAT_VM_READ)
		return -EFAULT;
	n = em_syscall6(SYS_process_vm_writev, em_sys_getpid(), (long)&local, 1, (long)&remote, 1, 0);
	return n == (long)EM_PAGE_SIZE ? 0 : -EFAULT;
}

/* from: the content, if it is in memory. */
static void bring_back(uintptr_t addr, em_slot_t slot, char *from, char *room)
{
	int ret = from ? write_copy(addr, from)
		       : em_store_read(em_engine.store, slot, (void *)addr, 1);

	if (ret == -EFAULT && !em_range_is_whole(addr, addr + EM_PAGE_SIZE))
		return; /* MADV_DONTFORK */
	if (ret == -EFAULT && !from) {
		ret = em_store_read(em_engine.store, slot, room, 1);
		from = room;
		if (!ret)
			ret = -EFAULT;
	}
	if (ret == -EFAULT)
		ret = write_forced(addr, from);
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
		if (p->count)
			p->away++;
		else if (st == EM_STAGED && em_frame_is_standby(slot))
			bring_back(a, EM_SLOT_NONE, em_standby_content(slot), p->room);
		else
			bring_back(a, st == EM_STAGED ? em_frame_slot(slot) : slot, NULL, p->room);
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
	em_standby_shrink(UINT32_MAX);
	em_engine.lock_future = true;
	if (!em_engine.plain)
		em_say("extmem: fork: the child gets no userfaultfd (a seccomp filter of the program's?): all "
		       "its memory stays in memory, beyond its budget if need be\n");
	em_engine.plain = true;
}
