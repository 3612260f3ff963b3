/* SPDX-License-Identifier: MIT */
/*
 * The program's io_uring rings: uring.c knows them and what is submitted to them, uring_ops.c what a
 * request points to, uring_register.c what is registered.
 */
#ifndef EM_INTERCEPT_URING_H
#define EM_INTERCEPT_URING_H

#include <linux/io_uring.h>

#include "../core/core.h"
#include "flight.h"
#include "hold.h"

enum {
	EM_RING_NUMBERS = 16,	 /* that a thread can register */
	EM_RING_PBUFS = 32,
	EM_RING_REGISTERED = 16, /* IORING_ENTER_REGISTERED_RING of later headers */
};

struct em_ring {
	bool used;
	int fd; /* -1: closed, but registered with a thread */
	struct io_uring_params p;
	char *sq;
	struct io_uring_sqe *sqes;
	size_t sq_bytes, sqe_bytes;
	bool emulates_thread;
	uint32_t seen;	   /* completions looked at */
	uint32_t recorded; /* submissions recorded */
	struct em_flights flights;
	/* Buffer rings: the program adds to them without a call. */
	struct {
		const struct io_uring_buf *entry;
		uint64_t *known; /* addresses that are pinned already */
		uint32_t n;
	} pbuf[EM_RING_PBUFS];
};

extern struct em_mutex em_uring_lock;

/* [engine, em_uring_lock] */
struct em_ring *em_uring_find(int fd);
/* Looks at the ring before or after a call, and at *n new submissions unless n is NULL; flags has
   EM_RING_REGISTERED if fd is a number of the thread's own.  Enters the section. */
struct em_ring *em_uring_visit(struct em_hold *h, int fd, long flags, uint32_t *n);
/* Memory that the kernel keeps: pinned until the ring is closed. */
void em_uring_keep(struct em_hold *h, struct em_ring *r, uintptr_t addr, size_t len);
void em_uring_look_at_buffers(struct em_hold *h, struct em_ring *r);

/* Holds what the request points to. */
void em_uring_hold_request(struct em_hold *h, const struct io_uring_sqe *s);
/* The system call. */
long em_uring_register(struct em_regs *regs);

#endif
