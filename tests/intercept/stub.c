/* SPDX-License-Identifier: MIT */
#include <linux/sched.h>
#include <sys/mman.h>

#include "../../src/core/sys.h"
#include "stub.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT volatile unsigned long stub_count[STUB_CALLS];
EXPORT volatile unsigned long stub_total;
EXPORT int stub_last_mapping;

extern uint8_t em_tramp_area[], em_tramp_area_end[];

EXPORT int stub_patch_all(struct em_patch_report *report, em_patch_log_fn log, void *arg)
{
	return em_patch_all(report, log, arg);
}

EXPORT void stub_area(uint64_t *lo, uint64_t *hi)
{
	*lo = (uint64_t)em_tramp_area;
	*hi = (uint64_t)em_tramp_area_end;
}

int em_hook_dispatch(struct em_regs *regs)
{
	struct em_patch_report report = { 0 };
	const long *a = regs->arg;
	int n;

	if (regs->nr >= 0 && regs->nr < STUB_CALLS)
		__atomic_fetch_add(&stub_count[regs->nr], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&stub_total, 1, __ATOMIC_RELAXED);
	if (regs->nr == SYS_vfork || regs->nr == SYS_clone3 ||
	    (regs->nr == SYS_clone && (a[0] & CLONE_VM)))
		return EM_HOOK_RAW;
	regs->ret = em_syscall6(regs->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (regs->nr == SYS_clone && regs->ret == 0)
		em_patch_fork_child();
	if (regs->nr == SYS_mmap && (a[3] & MAP_PRIVATE) && (a[2] & PROT_EXEC) && (int)a[4] >= 0 &&
	    !em_is_err(regs->ret)) {
		n = em_patch_mapping((void *)regs->ret, a[1], a[2], a[4], a[5], &report,
				     NULL, "");
		if (n > 0)
			stub_last_mapping = n;
	}
	return EM_HOOK_DONE;
}
