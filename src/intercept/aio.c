/* SPDX-License-Identifier: MIT */
/*
 * Linux AIO: the memory of a request is pinned from io_submit until its completion is in the context's
 * ring, which is mapped into the program, at the address that is its handle.
 */
#include <errno.h>
#include <linux/aio_abi.h>

#include "../core/core.h"
#include "../core/meta.h"
#include "../core/sys.h"
#include "flight.h"
#include "signals.h"
#include "transfer.h"

enum { CONTEXTS = 64, RING_MAGIC = 0xa10a10a1 };

/* As the kernel has it in fs/aio.c; libaio reads it too. */
struct aio_ring {
	uint32_t id, nr, head, tail, magic, compat, incompat, header_length;
	struct io_event event[];
};

struct context {
	uintptr_t handle; /* 0: free */
	uint32_t seen;
	struct em_flights flights;
};

static struct em_mutex lock;
static struct context *contexts[CONTEXTS];

static struct context *find(uintptr_t handle, bool make)
{
	struct context *c = NULL;
	int i;

	for (i = 0; i < CONTEXTS && contexts[i]; i++) {
		if (contexts[i]->handle == handle)
			return contexts[i];
		if (!contexts[i]->handle)
			c = contexts[i];
	}
	if (!make || (!c && i == CONTEXTS))
		return NULL;
	if (!c)
		c = contexts[i] = em_meta_alloc(sizeof(*c));
	if (c) {
		c->handle = handle;
		c->seen = ((struct aio_ring *)handle)->tail;
	}
	return c;
}

static void look(struct context *c)
{
	const struct aio_ring *r = (const struct aio_ring *)c->handle;
	uint32_t tail = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE);

	for (; c->seen != tail && c->seen < r->nr; c->seen = (c->seen + 1) % r->nr)
		em_flight_complete(&c->flights, r->event[c->seen].obj);
}

static void record(struct em_hold *h, struct context *c, uintptr_t at)
{
	struct em_flight *f;
	struct iocb io;

	if (em_hold_get(h, &io, at, sizeof(io)))
		return;
	f = em_flight_begin(&c->flights, at);
	if (!f)
		return;
	em_hold_range(h, at, sizeof(io), EM_DIR_OUT);
	h->pins = &f->pins;
	if (io.aio_lio_opcode == IOCB_CMD_PREAD || io.aio_lio_opcode == IOCB_CMD_PWRITE)
		em_hold_range(h, io.aio_buf, io.aio_nbytes,
			      io.aio_lio_opcode == IOCB_CMD_PREAD ? EM_DIR_OUT : EM_DIR_IN);
	else if (io.aio_lio_opcode == IOCB_CMD_PREADV || io.aio_lio_opcode == IOCB_CMD_PWRITEV)
		em_hold_iov(h, io.aio_buf, (long)io.aio_nbytes,
			    io.aio_lio_opcode == IOCB_CMD_PREADV ? EM_DIR_OUT : EM_DIR_IN);
	h->pins = NULL;
}

/* The requests from number `first` on were not taken. */
static void take_back(struct em_hold *h, struct context *c, const long *a, long first)
{
	uintptr_t at;

	for (long i = first; i < a[1]; i++)
		if (!em_hold_get(h, &at, (uintptr_t)a[2] + (size_t)i * sizeof(at), sizeof(at)))
			em_flight_complete(&c->flights, at);
}

static bool is_ring(struct em_thread *t, uintptr_t handle)
{
	const struct aio_ring *r = (const struct aio_ring *)handle;

	return em_user_readable(t, handle, sizeof(*r)) && r->magic == RING_MAGIC && r->nr &&
	       em_user_readable(t, handle, sizeof(*r) + r->nr * sizeof(struct io_event));
}

/* Looks what has completed; `make`: the call submits. */
static struct context *visit(struct em_hold *h, uintptr_t handle, bool make)
{
	struct context *c;

	if (!h->inside)
		em_enter(h->t, true);
	h->inside = true;
	em_mutex_lock(&lock);
	c = is_ring(h->t, handle) ? find(handle, make) : NULL;
	if (c)
		look(c);
	return c;
}

static long submit(struct em_regs *r)
{
	const long *a = r->arg;
	struct em_hold h;
	struct context *c;
	uintptr_t at;
	long ret;

	em_hold_begin(&h, r->rsp);
	if (h.err)
		return h.err;
	c = visit(&h, (uintptr_t)a[0], true);
	for (long i = 0; c && i < a[1]; i++) {
		if (em_hold_get(&h, &at, (uintptr_t)a[2] + (size_t)i * sizeof(at), sizeof(at)))
			break;
		record(&h, c, at);
	}
	em_mutex_unlock(&lock);
	ret = em_hold_ready(&h);
	if (!ret)
		ret = em_syscall3(SYS_io_submit, a[0], a[1], a[2]);
	c = visit(&h, (uintptr_t)a[0], false);
	if (c)
		take_back(&h, c, a, ret < 0 ? 0 : ret);
	em_mutex_unlock(&lock);
	em_hold_end(&h);
	return ret;
}

static long get_events(struct em_regs *r, const struct em_call *c)
{
	struct em_hold h;
	struct {
		uintptr_t set;
		size_t size;
	} m;
	uint64_t mask;
	long a[6], ret;

	em_memcpy(a, r->arg, sizeof(a));
	em_hold_begin(&h, r->rsp);
	if (h.err)
		return h.err;
	em_hold_call(&h, c, r->nr, a);
	if (r->nr == SYS_io_pgetevents && a[5] && !em_hold_get(&h, &m, (uintptr_t)a[5], sizeof(m)) &&
	    m.set && m.size == 8 && !em_hold_get(&h, &mask, m.set, 8)) {
		mask = em_sigmask_to_kernel(mask);
		m.set = (uintptr_t)&mask;
		a[5] = (long)&m;
	}
	ret = em_hold_ready(&h);
	if (!ret)
		ret = em_syscall6(r->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	visit(&h, (uintptr_t)a[0], false);
	em_mutex_unlock(&lock);
	em_hold_end(&h);
	return ret;
}

static long destroy(struct em_regs *r)
{
	struct em_hold h;
	struct context *c;
	long ret = em_syscall1(SYS_io_destroy, r->arg[0]); /* waits for what is in flight */

	em_hold_begin(&h, r->rsp);
	if (h.err || ret)
		return ret;
	em_enter(h.t, true);
	h.inside = true;
	em_mutex_lock(&lock);
	c = find((uintptr_t)r->arg[0], false);
	if (c) {
		em_flights_end(&c->flights);
		c->handle = 0;
	}
	em_mutex_unlock(&lock);
	em_hold_end(&h);
	return ret;
}

long em_aio_call(struct em_regs *r, const struct em_call *c)
{
	switch (r->nr) {
	case SYS_io_submit:
		return submit(r);
	case SYS_io_destroy:
		return destroy(r);
	case SYS_io_getevents:
	case SYS_io_pgetevents:
		return get_events(r, c);
	default:
		return em_transfer_whole(r, c, r->arg);
	}
}
