/* SPDX-License-Identifier: MIT */
/*
 * The call table: what each system call does with its pointers.
 *
 * With SIGBUS delivery the kernel gets EFAULT where the program would get an upcall, so a buffer
 * in managed memory must be resident, and writable if the kernel writes, before the call,
 * and stay so during it.
 */
#ifndef EM_INTERCEPT_CALLS_H
#define EM_INTERCEPT_CALLS_H

#include <stdint.h>

enum em_ptr_how {
	EM_PTR_END = 0,
	EM_PTR_FIXED,	/* size bytes */
	EM_PTR_LEN,	/* args[size & 15] bytes, and size >> 4 more */
	EM_PTR_UPTO,	/* args[size & 15] bytes, of which the kernel touches at most size >> 4 times 4096 */
	EM_PTR_LEN_OF,	/* args[size & 15] elements of size >> 4 bytes */
	EM_PTR_LENP,	/* *(unsigned *)args[size] bytes */
	EM_PTR_BITS,	/* bitmap of args[size] bits */
	EM_PTR_PAGES,	/* one byte per page of args[size] (mincore) */
	EM_PTR_FDSET,	/* bitmap of args[0] bits */
	EM_PTR_PINNED,	/* size bytes that the kernel goes on using: stay in memory */
	EM_PTR_UNKNOWN, /* cannot tell: a page, both ways */
	/* With pointers inside, looked into wherever they lie themselves (nested.c, multiplex.c) */
	EM_PTR_NESTED,
	EM_PTR_STR = EM_PTR_NESTED, /* zero-terminated */
	EM_PTR_STRV,	/* NULL-terminated array of strings */
	EM_PTR_IOV,	/* iovec array of args[size] elements, with what they point to */
	EM_PTR_REMOTE,	/* the same, in the memory of the process args[0] */
	EM_PTR_MSG,	/* msghdr, with what it points to */
	EM_PTR_MMSG,	/* mmsghdr array of args[size] elements */
	EM_PTR_MASK6,	/* { mask pointer, size } of pselect6 and io_pgetevents */
	EM_PTR_SIZED,	/* a structure that says its size: u32 at offset `size` */
	EM_PTR_HANDLE,	/* file_handle */
	EM_PTR_FPROG,	/* sock_fprog */
	EM_PTR_XATTR,	/* xattr_args of args[5] bytes */
	EM_PTR_WAITV,	/* futex_waitv array of args[size] elements; size 15: two */
	EM_PTR_SEGMENTS,/* kexec_segment array of args[size] elements */
	EM_PTR_BY_CALL, /* what another argument says: em_hold_multiplex */
};

enum em_ptr_dir { EM_DIR_IN = 0, EM_DIR_OUT = 1 }; /* OUT: the kernel writes (and may read) */

struct em_ptr {
	uint8_t how, dir, arg;
	uint16_t size;
};

enum em_call_flags {
	EM_CALL_KNOWN = 1,
	EM_CALL_NOPTR = 2,	/* no pointers at all */
	EM_CALL_SPECIAL = 4,	/* the range operations, processes, signals, descriptors */
	EM_CALL_TRANSFER = 8,	/* data that may be larger than what may be held: transfer.c */
	EM_CALL_ASYNC = 16,	/* the kernel uses the memory after the call: uring.c, aio.c */
	EM_CALL_REMAPS = 32,	/* memory that could be read may be gone afterwards */
	EM_CALL_EXEC = 64,	/* replaces the program if it succeeds */
};

#define EM_CALL_PTRS 6
struct em_call {
	uint8_t flags;
	struct em_ptr ptr[EM_CALL_PTRS];
};

#define EM_CALL_MAX 512
extern const struct em_call em_calls[EM_CALL_MAX];

#endif
