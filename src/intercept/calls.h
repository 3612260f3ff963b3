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
	EM_PTR_LEN,	/* args[size] bytes */
	EM_PTR_LEN_OF,	/* args[size & 15] elements of size >> 4 bytes */
	EM_PTR_LENP,	/* *(int *)args[size] bytes */
	EM_PTR_STR,	/* zero-terminated */
	EM_PTR_STRV,	/* NULL-terminated array of strings */
	EM_PTR_IOV,	/* iovec array of args[size] elements, with what they point to */
	EM_PTR_MSG,	/* msghdr, with what it points to */
	EM_PTR_MMSG,	/* mmsghdr array of args[size] elements */
	EM_PTR_FDSET,	/* bitmap of args[0] bits */
	EM_PTR_IOCTL,	/* size and direction from the request in args[1] */
	EM_PTR_SIGMASK6,/* pselect6's { mask pointer, size } */
	EM_PTR_PAGES,	/* one byte per page of args[size] (mincore) */
	EM_PTR_UNKNOWN, /* cannot tell: a page, both ways */
};

enum em_ptr_dir { EM_DIR_IN = 0, EM_DIR_OUT = 1 }; /* OUT: the kernel writes (and may read) */

struct em_ptr {
	uint8_t how, dir, arg;
	uint16_t size;
};

enum em_call_flags {
	EM_CALL_KNOWN = 1,
	EM_CALL_PIECES = 2,	/* args[1], args[2] are a buffer that may be done in pieces; args[3] moves
				   along for the p- variants (PIECES_AT) */
	EM_CALL_PIECES_AT = 4,
	EM_CALL_SPECIAL = 8,	/* special.c or the range operations handle it */
	EM_CALL_PIECES_IOV = 16,
	EM_CALL_EXEC = 64,	/* replaces the program if it succeeds */
	EM_CALL_NOPTR = 32,	/* no pointers at all */
};

#define EM_CALL_PTRS 6
struct em_call {
	uint8_t flags;
	struct em_ptr ptr[EM_CALL_PTRS];
};

#define EM_CALL_MAX 512
extern const struct em_call em_calls[EM_CALL_MAX];

#endif
