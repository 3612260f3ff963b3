/* SPDX-License-Identifier: MIT */
/*
 * Handler-thread delivery: the classic userfaultfd loop.  n threads read fault messages and run the same
 * fault engine; the faulting thread sleeps in the kernel until woken.  Kept as the second mode
 * and as the baseline that the upcall is measured against.
 */
#include "core.h"

#include <signal.h>

#include "sys.h"
#include "uffd_compat.h"

enum { AGAIN_MAX = 16, PLACES = 8 };

/* Pages that were asked for although they are there, and how often in a row: the faults of several threads come
   here in turn. */
struct again {
	uintptr_t addr[PLACES];
	uint32_t n[PLACES];
};

/* Not a race any more: the page has been discarded unseen. */
static bool is_stuck(struct again *a, uintptr_t addr, bool write)
{
	uint32_t i = (addr >> EM_PAGE_SHIFT) % PLACES;

	if (a->addr[i] != addr || !em_fault_is_there(addr, write)) {
		a->addr[i] = addr;
		a->n[i] = 0;
		return false;
	}
	return ++a->n[i] % AGAIN_MAX == 0;
}

static void serve(struct em_thread *t, struct again *again, const struct uffd_msg *m)
{
	uintptr_t addr = em_page_down(m->arg.pagefault.address);
	bool write = m->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	uint64_t start = em_cycles();
	enum em_fault_result res;

	em_enter(t, false);
	if (is_stuck(again, addr, write))
		em_fault_resync(addr);
	res = em_fault(t, addr, write);
	em_leave(t, false);
	em_stats_fault_time(em_cycles_to_ns(em_cycles() - start));
	if (res == EM_FAULT_FAILED || res == EM_FAULT_NOMEM || res == EM_FAULT_FULL)
		em_uffd_poison(addr);
	/* COPY wakes by itself; a page that somebody else had filled does not. */
	em_uffd_wake(addr, EM_PAGE_SIZE);
}

static void handler_main(void *arg)
{
	struct em_thread *t = em_thread_self();
	struct again again = { 0 };
	struct uffd_msg m;

	(void)arg;
	if (!t)
		em_panic("extmem: no memory for a handler thread's context\n");
	for (;;) {
		long n = em_syscall3(SYS_read, em_uffd.fd, &m, sizeof(m));

		if (n == (long)sizeof(m) && m.event == UFFD_EVENT_PAGEFAULT)
			serve(t, &again, &m);
		else if (n == -9) /* EBADF: the process is going away */
			return;
	}
}

int em_handlers_start(unsigned n)
{
	int ret = 0;

	for (unsigned i = 0; i < n && !ret; i++)
		ret = em_rawthread_start(handler_main, NULL);
	return ret;
}
