/* SPDX-License-Identifier: MIT */
/*
 * extmem.h - application-aware virtual memory management for programs that link libextmem.
 *
 * A program that is run with `extmem run` needs none of this.
 */
#ifndef EXTMEM_EXTMEM_H
#define EXTMEM_EXTMEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "major.minor.patch" of the library; static storage. Context: any, signal-safe. */
const char *extmem_version(void);

/*
 * Starts managing this process: from now on its new large anonymous mappings and its heap live
 * under a budget.  Options come from the EXTMEM_* environment, as with `extmem run`.  To be called
 * once, early in main, before other threads exist.
 *
 * err: buffer for one line that says what was wrong, at most err_len bytes; may be NULL.
 * Returns 0, -EALREADY when the process is managed already, or another -errno; then nothing
 * has changed.  Context: ordinary.
 */
int extmem_start(char *err, size_t err_len);

/* 1 if the page at addr is managed, else 0. Context: any, signal-safe. */
int extmem_is_managed(const void *addr);

/*
 * Writes the statistics of this process as one JSON object (see docs/statistics.md) with a
 * final newline into buf.  Returns its length, -ENOSPC when len is too small (128 KiB always
 * suffice), -ENOTCONN when the process is not managed.  Context: ordinary.
 */
long extmem_stats_json(char *buf, size_t len);

/*
 * A page that the store could not give back when it was needed.  What the last write put there
 * is untouched in the store, if the device has kept it: the read may be tried again.
 */
struct extmem_error {
	size_t size;		   /* of this struct as the library knows it */
	void *addr;		   /* that was accessed */
	void *page;		   /* the page, 4096 bytes */
	void *region_start;	   /* the mapping it belongs to, as far as known */
	void *region_end;
	uint64_t store_offset;	   /* in bytes, in the swap file or device */
	int error;		   /* errno of the read */
};

enum extmem_error_action {
	EXTMEM_ERROR_SIGNAL = 0, /* SIGBUS, as without a callback */
	EXTMEM_ERROR_RETRY = 1,	 /* the access is repeated, and with it the read */
};

typedef int (*extmem_error_fn)(const struct extmem_error *e, void *arg);

/*
 * Sets the function that is called when a page cannot be read back, before SIGBUS is
 * raised; NULL: none.  It runs in the thread that accessed the page, in the middle of that access: in
 * the context of a signal handler, with its restrictions, on the alternate signal stack.  It may touch
 * managed memory, and may leave with siglongjmp.  It may throw the page's content away with
 * madvise(page, 4096, MADV_DONTNEED) and return EXTMEM_ERROR_RETRY: then the page is zeros.
 * It is not called for memory that a system call needs: such a call fails with EFAULT.
 *
 * Returns 0, -ENOTCONN when the process is not managed, -ENOTSUP with handler-thread
 * delivery, -ENOMEM.  Context: ordinary.
 */
int extmem_set_error_callback(extmem_error_fn fn, void *arg);

#ifdef __cplusplus
}
#endif
#endif
