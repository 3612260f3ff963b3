/* SPDX-License-Identifier: MIT */
/*
 * The program's memory as the hooks read it: an address that is not there must give the kernel's EFAULT, not a
 * fault in the hook.  The kernel is asked: rt_sigprocmask copies the set before it refuses
 * the operation, and has no effect.
 */
#include <errno.h>
#include <signal.h>
#include <sys/uio.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"

enum { NO_SUCH_HOW = 99 };

/* Changes whenever memory may have gone; see em_thread.readable. */
static uint64_t epoch = 1;

void em_user_remapped(void)
{
	__atomic_fetch_add(&epoch, 1, __ATOMIC_SEQ_CST);
}

static bool page_readable(struct em_thread *t, uintptr_t page)
{
	struct em_readable *r = &t->readable[(page >> EM_PAGE_SHIFT) % EM_READABLE_PAGES];
	uint64_t now = __atomic_load_n(&epoch, __ATOMIC_ACQUIRE);

	if (r->page == page && r->epoch == now)
		return true;
	/* Not its first bytes: a null pointer means no set at all. */
	if (em_syscall4(SYS_rt_sigprocmask, NO_SUCH_HOW, page + 8, NULL, 8) == -EFAULT)
		return false;
	r->page = page;
	r->epoch = now;
	return true;
}

bool em_user_readable(struct em_thread *t, uintptr_t addr, size_t n)
{
	if (!n)
		return true;
	if (addr + n < addr || (addr + n) >> EM_ADDR_BITS)
		return false;
	for (uintptr_t a = em_page_down(addr); a < addr + n; a += EM_PAGE_SIZE)
		if (!page_readable(t, a))
			return false;
	return true;
}

/* By the kernel, which knows what may be written; by hand where a filter refuses that. */
int em_user_put(struct em_hold *h, uintptr_t dst, const void *src, size_t n)
{
	struct iovec from = { (void *)src, n }, to = { (void *)dst, n };
	long ret;

	em_hold_range(h, dst, n, EM_DIR_OUT);
	ret = em_hold_ready(h);
	if (ret)
		return (int)ret;
	ret = em_syscall6(SYS_process_vm_writev, em_sys_getpid(), (long)&from, 1, (long)&to, 1, 0);
	if (ret == (long)n)
		return 0;
	if (ret != -ENOSYS && ret != -EPERM)
		return -EFAULT;
	if (!em_user_readable(h->t, dst, n))
		return -EFAULT;
	em_memcpy((void *)dst, src, n);
	return 0;
}

int em_hold_fetch(const struct em_regs *r, void *dst, const void *src, size_t n)
{
	struct em_hold h;
	int ret;

	em_hold_begin(&h, r->rsp);
	ret = h.err ? h.err : em_hold_get(&h, dst, (uintptr_t)src, n);
	em_hold_end(&h);
	return ret;
}

int em_hold_store(const struct em_regs *r, void *dst, const void *src, size_t n)
{
	struct em_hold h;
	int ret;

	em_hold_begin(&h, r->rsp);
	ret = h.err ? h.err : em_user_put(&h, (uintptr_t)dst, src, n);
	em_hold_end(&h);
	return ret;
}
