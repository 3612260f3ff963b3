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

#ifdef __cplusplus
}
#endif
#endif
