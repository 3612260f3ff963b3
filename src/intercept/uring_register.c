/* SPDX-License-Identifier: MIT */
/*
 * io_uring_register: what the kernel keeps by it stays pinned until the ring is closed.
 */
#include "uring.h"

#include <errno.h>
#include <sys/mman.h>

#include "../core/meta.h"
#include "../core/sys.h"

enum {
	OP_BUFFERS = 0, OP_BUFFERS2 = 15, OP_BUFFERS_UPDATE = 16, OP_RING_FDS = 20, OP_PBUF_RING = 22,
	OP_CLONE_BUFFERS = 30, OP_ZCRX = 32, OP_RESIZE = 33, OP_MEM_REGION = 34,
};

static void keep_vector(struct em_hold *h, struct em_ring *r, uintptr_t v, uint32_t n)
{
	struct iovec one;

	for (uint32_t i = 0; i < n && i < 16384; i++) {
		if (em_hold_get(h, &one, v + i * sizeof(one), sizeof(one)))
			return;
		em_uring_keep(h, r, (uintptr_t)one.iov_base, one.iov_len);
	}
	em_hold_range(h, v, n * sizeof(one), EM_DIR_IN);
}

/* Its own memory, if the program has brought it; else the kernel's, which is mapped after the call. */
static void keep_pbuf_ring(struct em_hold *h, struct em_ring *r, uintptr_t arg)
{
	struct io_uring_buf_reg reg;

	if (!em_hold_get(h, &reg, arg, sizeof(reg)) && reg.ring_addr)
		em_uring_keep(h, r, reg.ring_addr, reg.ring_entries * sizeof(struct io_uring_buf));
}

static void note_pbuf_ring(struct em_hold *h, struct em_ring *r, uintptr_t arg)
{
	enum { KERNELS = 1, SHIFT = 16 };
	struct io_uring_buf_reg reg;
	size_t bytes;
	int i = 0;

	while (i < EM_RING_PBUFS && r->pbuf[i].n)
		i++;
	if (i == EM_RING_PBUFS || em_hold_get(h, &reg, arg, sizeof(reg)))
		return;
	bytes = reg.ring_entries * sizeof(struct io_uring_buf);
	if (reg.pad & KERNELS) /* `flags` in later headers */
		reg.ring_addr = (uint64_t)em_sys_mmap(NULL, bytes, PROT_READ, MAP_SHARED, r->fd,
						      0x80000000l | (long)reg.bgid << SHIFT);
	if (em_is_err((long)reg.ring_addr))
		return;
	r->pbuf[i].known = em_meta_alloc(reg.ring_entries * sizeof(uint64_t));
	if (!r->pbuf[i].known)
		return;
	r->pbuf[i].entry = (const struct io_uring_buf *)reg.ring_addr;
	r->pbuf[i].n = reg.ring_entries;
	em_uring_look_at_buffers(h, r);
}

static void hold_register(struct em_hold *h, struct em_ring *r, unsigned op, const long *a)
{
	uint64_t x[6];

	em_hold_range(h, (uintptr_t)a[2], (size_t)(unsigned)a[3] * 32 + 256, EM_DIR_OUT);
	if (op == OP_BUFFERS) {
		keep_vector(h, r, (uintptr_t)a[2], (uint32_t)a[3]);
	} else if (op == OP_BUFFERS2 && !em_hold_get(h, x, (uintptr_t)a[2], 32)) {
		keep_vector(h, r, x[2], (uint32_t)x[0]);
		em_hold_range(h, x[3], (uint32_t)x[0] * 8ul, EM_DIR_IN);
	} else if (op == OP_BUFFERS_UPDATE && !em_hold_get(h, x, (uintptr_t)a[2], 32)) {
		keep_vector(h, r, x[1], (uint32_t)x[3]);
		em_hold_range(h, x[2], (uint32_t)x[3] * 8ul, EM_DIR_IN);
	} else if (op == OP_PBUF_RING) {
		keep_pbuf_ring(h, r, (uintptr_t)a[2]);
	} else if ((op == 6 || op == 13 || op == 14) && !em_hold_get(h, x, (uintptr_t)a[2], 32)) {
		/* file tables: a list of descriptors, and tags */
		em_hold_range(h, x[1], 65536, EM_DIR_IN);
		em_hold_range(h, x[2], 65536, EM_DIR_IN);
	}
}

/* Numbers of registered rings belong to the thread; the kernel tells which it has chosen. */
static void note_ring_fds(struct em_hold *h, const long *a, long n)
{
	struct {
		uint32_t offset, resv;
		uint64_t data;
	} u;

	for (long i = 0; i < n && i < EM_RING_NUMBERS; i++)
		if (!em_hold_get(h, &u, (uintptr_t)a[2] + (size_t)i * sizeof(u), sizeof(u)) &&
		    u.offset < EM_RING_NUMBERS)
			h->t->ring[u.offset] = em_uring_find((int)u.data);
}

long em_uring_register(struct em_regs *regs)
{
	const unsigned by_index = 1u << 31;
	const long *a = regs->arg;
	unsigned op = (unsigned)a[1] & ~by_index;
	struct em_hold h;
	struct em_ring *r;
	long ret;

	if (op == OP_RESIZE || op == OP_CLONE_BUFFERS || op == OP_ZCRX || op == OP_MEM_REGION)
		return -EINVAL; /* as by an older kernel */
	em_hold_begin(&h, regs->rsp);
	if (h.err)
		return h.err;
	r = em_uring_visit(&h, (int)a[0], (unsigned)a[1] & by_index ? EM_RING_REGISTERED : 0, NULL);
	if (r) {
		em_mutex_lock(&em_uring_lock);
		hold_register(&h, r, op, a);
		em_mutex_unlock(&em_uring_lock);
	}
	ret = em_hold_ready(&h);
	if (!ret)
		ret = em_syscall4(SYS_io_uring_register, a[0], a[1], a[2], a[3]);
	if ((op == OP_RING_FDS && ret > 0) || (op == OP_PBUF_RING && !ret && r)) {
		em_enter(h.t, true);
		h.inside = true;
		em_mutex_lock(&em_uring_lock);
		if (op == OP_RING_FDS)
			note_ring_fds(&h, a, ret);
		else
			note_pbuf_ring(&h, r, (uintptr_t)a[2]);
		em_mutex_unlock(&em_uring_lock);
	}
	em_hold_end(&h);
	return ret;
}
