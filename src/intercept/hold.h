/* SPDX-License-Identifier: MIT */
/*
 * Holding a system call's managed buffers: resident, writable where the kernel writes, and out of
 * reclaim's reach until the call has returned.
 *
 *	em_hold_begin, em_hold_call or em_hold_range ..., em_hold_ready, the call, em_hold_end
 *
 * Between the first range and em_hold_ready the thread is inside an engine section, so memory of the program is
 * read with em_hold_get only, which holds it first.
 */
#ifndef EM_INTERCEPT_HOLD_H
#define EM_INTERCEPT_HOLD_H

#include <stdbool.h>
#include <stddef.h>

#include "calls.h"
#include "hook.h"

/* Held beyond the call: see flight.c. */
struct em_pinned {
	struct em_pinned *next;
	uintptr_t start;
	size_t len;
	uint32_t handle;
};

struct em_hold {
	struct em_thread *t;
	uintptr_t sp;
	uint32_t mark;
	uint32_t n; /* ranges held */
	int err;    /* -EFAULT, -ENOMEM: the call cannot be made */
	bool inside;
	struct em_pinned **pins; /* ranges are pinned and listed here instead */
};

void em_hold_begin(struct em_hold *h, uintptr_t sp);
/* Holds [addr, addr + len) if any of it may be managed. */
void em_hold_range(struct em_hold *h, uintptr_t addr, size_t len, enum em_ptr_dir dir);
/* Copies from the program: held, and looked whether it is there.  0 or -EFAULT, which the kernel shall say. */
int em_hold_get(struct em_hold *h, void *dst, uintptr_t src, size_t n);
/* Holds what the table says of the call. */
void em_hold_call(struct em_hold *h, const struct em_call *c, long nr, const long *arg);
void em_hold_ptr(struct em_hold *h, const struct em_ptr *p, const long *arg);
/* All is held. 0 or -errno: the call cannot be made. */
int em_hold_ready(struct em_hold *h);
void em_hold_end(struct em_hold *h);

/* Quick: does the call point at managed memory at all? */
bool em_hold_needed(const struct em_call *c, const long *arg);

/* user.c: can [addr, addr + n) be read?  Must be held if it is managed. */
bool em_user_readable(struct em_thread *t, uintptr_t addr, size_t n);
/* Memory may have gone: what was readable need not be any more. */
void em_user_remapped(void);
/* To the program's memory, not inside a section.  0 or -EFAULT. */
int em_user_put(struct em_hold *h, uintptr_t dst, const void *src, size_t n);
/* The same for a hook that holds nothing else: the program's memory to and from.  0 or -EFAULT. */
int em_hold_fetch(const struct em_regs *r, void *dst, const void *src, size_t n);
int em_hold_store(const struct em_regs *r, void *dst, const void *src, size_t n);

/* nested.c */
void em_hold_nested(struct em_hold *h, const struct em_ptr *p, const long *arg);
void em_hold_string(struct em_hold *h, uintptr_t p);
void em_hold_iov(struct em_hold *h, uintptr_t p, long n, enum em_ptr_dir dir);
void em_hold_msg(struct em_hold *h, uintptr_t p, enum em_ptr_dir dir);
void em_hold_fprog(struct em_hold *h, uintptr_t p);
/* multiplex.c: calls whose pointers depend on an argument */
void em_hold_multiplex(struct em_hold *h, long nr, const long *arg);
/* ioctl.c */
void em_hold_ioctl(struct em_hold *h, unsigned long request, uintptr_t p);

struct em_user_msghdr {
	uintptr_t name;
	int namelen;
	uintptr_t iov;
	size_t iovlen;
	uintptr_t control;
	size_t controllen;
	unsigned flags;
};

struct em_user_mmsghdr {
	struct em_user_msghdr hdr;
	unsigned len;
};

/* transfer.c: read, write and their kin, in pieces when they are large. */
long em_transfer(struct em_regs *r, const struct em_call *c);
/* uring.c, aio.c */
long em_uring_call(struct em_regs *r, const struct em_call *c);
long em_aio_call(struct em_regs *r, const struct em_call *c);
void em_uring_closed(unsigned first, unsigned last);
void em_requests_fork_child(void);

#endif
