/* SPDX-License-Identifier: MIT */
/*
 * Memory that becomes executable: libraries are patched; code that the program made itself, or may
 * still make, is left alone, and its system calls are trapped.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "../core/core.h"
#include "../core/line.h"
#include "../core/sys.h"
#include "hold.h"
#include "plan.h"
#include "trap.h"

enum { SCAN_BYTES = 64 * 1024 };
#define SCAN_MAX (64ul << 20) /* to look through more would take longer than traps cost */

/* Copies out of reach of faults: a file may be shorter than its mapping. */
static bool copy_out(void *to, uintptr_t from, size_t n)
{
	struct iovec local = { to, n }, remote = { (void *)from, n };
	struct em_hold h;
	long got = -EFAULT;

	em_hold_begin(&h, (uintptr_t)__builtin_frame_address(0));
	em_hold_range(&h, from, n, EM_DIR_IN);
	if (!h.err)
		got = em_syscall6(SYS_process_vm_readv, em_sys_getpid(), (long)&local, 1,
				  (long)&remote, 1, 0);
	em_hold_end(&h);
	return got == (long)n;
}

/* What cannot be read is taken for code with system calls. */
static bool may_call(uintptr_t addr, size_t len)
{
	bool found = false;
	uint8_t *buf;
	long ret;

	if (len > SCAN_MAX)
		return true;
	ret = em_sys_mmap(NULL, SCAN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0);
	if (em_is_err(ret))
		return true;
	buf = (uint8_t *)ret;
	for (size_t off = 0; off < len && !found; off += SCAN_BYTES - 1) {
		size_t n = len - off < SCAN_BYTES ? len - off : SCAN_BYTES;

		found = !copy_out(buf, addr + off, n) || em_plan_has_syscall(buf, n);
	}
	em_sys_munmap(buf, SCAN_BYTES);
	return found;
}

static bool is_looked_for(int prot)
{
	return (prot & PROT_EXEC) && !em_trap_on && em_engine.opt.syscalls != EM_SYSCALLS_PATCH;
}

void em_exec_protected(uintptr_t addr, size_t len, int prot)
{
	if (!is_looked_for(prot))
		return;
	if (prot & PROT_WRITE)
		em_trap_want("memory is writable and executable");
	else if (!(prot & PROT_READ) || may_call(addr, em_page_up(len)))
		em_trap_want("memory with system calls in it was made executable");
}

static void log_line(void *arg, const char *object, uint64_t vaddr, const char *what)
{
	struct em_line line;

	(void)arg;
	em_line_start(&line, "extmem: ");
	em_line_text(&line, object);
	em_line_text(&line, "+0x");
	em_line_number(&line, vaddr, 16);
	em_line_text(&line, ": ");
	em_line_text(&line, what);
	em_line_say(&line);
}

static void log_counts(const char *path, const struct em_patch_report *report)
{
	struct em_line line;

	em_line_start(&line, "extmem: ");
	em_line_text(&line, path);
	em_line_text(&line, ": ");
	em_line_number(&line, report->sites_patched, 10);
	em_line_text(&line, " of ");
	em_line_number(&line, report->sites_found, 10);
	em_line_text(&line, " system calls patched");
	em_line_say(&line);
}

/* Returns how many system calls remain that may pass pointers. */
static unsigned patch_file(uintptr_t addr, const long *arg)
{
	struct em_patch_report report;
	bool tell = em_engine.opt.verbose;
	char path[256], link[40];
	struct em_line line;
	long n;

	em_memzero(&report, sizeof(report));
	path[0] = 0;
	if (tell) {
		em_line_start(&line, "/proc/self/fd/");
		em_line_number(&line, (uint64_t)arg[4], 10);
		em_memcpy(link, line.text, line.n + 1 < sizeof(link) ? line.n + 1 : sizeof(link));
		n = em_syscall3(SYS_readlink, link, path, sizeof(path) - 1);
		path[em_is_err(n) ? 0 : n] = 0;
	}
	em_patch_mapping((void *)addr, (size_t)arg[1], (int)arg[2], (int)arg[4], arg[5], &report,
			 tell ? log_line : NULL, path);
	if (tell && report.sites_found)
		log_counts(path, &report);
	return report.missed;
}

void em_exec_mapped(uintptr_t addr, const long *arg)
{
	bool private = (arg[3] & MAP_TYPE) == MAP_PRIVATE;
	unsigned missed = 0;

	if (private && !(arg[3] & MAP_ANONYMOUS))
		missed = patch_file(addr, arg);
	if (!is_looked_for((int)arg[2]))
		return;
	if (!private)
		em_trap_want("shared memory is executable");
	else if (arg[2] & PROT_WRITE)
		em_trap_want("memory is writable and executable");
	else if (missed)
		em_trap_want("a mapped file has system calls that could not be patched");
}
