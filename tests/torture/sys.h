/* SPDX-License-Identifier: MIT */
/* System calls whose arguments lie in managed memory that has been evicted. */
#ifndef SYS_H
#define SYS_H

#include "mm.h"

/*
 * n zeroed bytes of managed memory that straddle a page boundary (if n > 1), 16-byte
 * aligned for n >= 32.  Valid until sys_reset.
 */
void *spot(size_t n);
/* A copy of a string there. */
char *spot_text(const char *text);
/* Page-aligned, n bytes. */
char *spot_pages(size_t n);
/* Everything given out so far leaves memory. */
void cold(void);
void sys_reset(void);
/* A directory of our own, in unmanaged memory. */
const char *sys_dir(void);

#define SYS_TEST(f) { #f, f }

extern const struct mm_test sys_io_tests[], sys_socket_tests[], sys_path_tests[],
	sys_wait_tests[], sys_misc_tests[], sys_every_tests[], sys_async_tests[];

#endif
