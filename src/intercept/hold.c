/* SPDX-License-Identifier: MIT */
#include "hold.h"

#include <errno.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "flight.h"

enum { UNKNOWN_BYTES = 4096, LARGEST_HOLD = 64 << 20 };

#define MAX_RW_BYTES 0x7ffff000ul /* the kernel transfers no more in one call */

static size_t clip(size_t len)
{
	return len < MAX_RW_BYTES ? len : MAX_RW_BYTES;
}

void em_hold_begin(struct em_hold *h, uintptr_t sp)
{
	h->t = em_thread_self();
	h->sp = sp;
	h->n = 0;
	h->inside = false;
	h->pins = NULL;
	h->err = h->t ? 0 : -ENOMEM;
	if (h->t)
		h->mark = em_hazard_begin(h->t, sp);
}

int em_hold_ready(struct em_hold *h)
{
	if (h->inside)
		em_leave(h->t, true);
	h->inside = false;
	return h->err;
}

void em_hold_end(struct em_hold *h)
{
	em_hold_ready(h);
	if (h->t)
		em_hazard_pop(h->t, h->mark);
}

void em_hold_range(struct em_hold *h, uintptr_t addr, size_t len, enum em_ptr_dir dir)
{
	int ret;

	if (len > LARGEST_HOLD)
		len = LARGEST_HOLD;
	if (!addr || !len || h->err || addr + len < addr || !em_space_may_manage(addr, len))
		return;
	if (!h->pins)
		em_hazard_push(h->t, addr, len, h->sp);
	else if (!em_flight_pin(h->pins, addr, len))
		h->err = -ENOMEM;
	if (em_proxy_is_stranger(h->t)) {
		ret = em_fault_in(h->t, addr, len, dir == EM_DIR_OUT);
	} else {
		if (!h->inside)
			em_enter(h->t, true);
		h->inside = true;
		ret = em_fault_range(h->t, addr, len, dir == EM_DIR_OUT);
	}
	if (ret)
		h->err = ret;
	h->n++;
}

int em_hold_get(struct em_hold *h, void *dst, uintptr_t src, size_t n)
{
	em_hold_range(h, src, n, EM_DIR_IN);
	if (h->err || !em_user_readable(h->t, src, n))
		return -EFAULT;
	em_memcpy(dst, (const void *)src, n);
	return 0;
}

/* The bytes at p that the kernel may touch, for a pointer with nothing inside. */
static size_t length(struct em_hold *h, const struct em_ptr *p, const long *arg)
{
	size_t len = (size_t)arg[p->size & 7], most = (size_t)(p->size >> 4) * 4096;
	unsigned n;

	switch (p->how) {
	case EM_PTR_FIXED:
		return p->size;
	case EM_PTR_LEN:
		return len > MAX_RW_BYTES ? clip(len) : len + (p->size >> 4);
	case EM_PTR_UPTO:
		return len < most ? len : most;
	case EM_PTR_LEN_OF:
		return (size_t)(unsigned)len * (p->size >> 4);
	case EM_PTR_LENP:
		return em_hold_get(h, &n, (uintptr_t)len, sizeof(n)) ? 0 : n;
	case EM_PTR_BITS:
		/* More than a page of them is EINVAL. */
		return len > 8 * 4096 ? 0 : (len + 63) / 64 * 8;
	case EM_PTR_PAGES:
		return (len + EM_PAGE_MASK) >> EM_PAGE_SHIFT;
	case EM_PTR_FDSET:
		return (int)arg[0] < 0 ? 0 : ((size_t)(unsigned)arg[0] + 63) / 64 * 8;
	default:
		return UNKNOWN_BYTES;
	}
}

void em_hold_ptr(struct em_hold *h, const struct em_ptr *p, const long *arg)
{
	uintptr_t a = (uintptr_t)arg[p->arg];

	if (p->how >= EM_PTR_NESTED) {
		em_hold_nested(h, p, arg);
	} else if (p->how == EM_PTR_PINNED) {
		if (a && em_space_may_manage(a, p->size))
			em_range_pin(a, p->size);
	} else {
		em_hold_range(h, a, length(h, p, arg), p->dir);
	}
}

static const struct em_ptr unknown[EM_CALL_PTRS] = {
	{ EM_PTR_UNKNOWN, EM_DIR_OUT, 0, 0 }, { EM_PTR_UNKNOWN, EM_DIR_OUT, 1, 0 },
	{ EM_PTR_UNKNOWN, EM_DIR_OUT, 2, 0 }, { EM_PTR_UNKNOWN, EM_DIR_OUT, 3, 0 },
	{ EM_PTR_UNKNOWN, EM_DIR_OUT, 4, 0 }, { EM_PTR_UNKNOWN, EM_DIR_OUT, 5, 0 },
};

static const struct em_ptr *pointers(const struct em_call *c)
{
	return c->flags & EM_CALL_KNOWN ? c->ptr : unknown;
}

/* A pointer's first byte tells for most; a buffer that begins outside and ends inside managed memory
   is found through its length. */
bool em_hold_needed(const struct em_call *c, const long *arg)
{
	const struct em_ptr *p = pointers(c);

	for (int i = 0; i < EM_CALL_PTRS && p[i].how != EM_PTR_END; i++) {
		uintptr_t a = (uintptr_t)arg[p[i].arg];
		size_t len = p[i].how == EM_PTR_LEN || p[i].how == EM_PTR_UPTO
				     ? clip((size_t)arg[p[i].size & 7])
				     : 4096;

		if (p[i].how == EM_PTR_BY_CALL)
			return true;
		if (a < EM_PAGE_SIZE)
			continue;
		if (p[i].how == EM_PTR_LEN_OF)
			len = clip((size_t)(unsigned)arg[p[i].size & 7] * (p[i].size >> 4));
		if (p[i].how > EM_PTR_STR || em_space_may_manage(a, len))
			return true;
	}
	return false;
}

void em_hold_call(struct em_hold *h, const struct em_call *c, long nr, const long *arg)
{
	const struct em_ptr *p = pointers(c);

	for (int i = 0; i < EM_CALL_PTRS && p[i].how != EM_PTR_END; i++)
		if (p[i].how == EM_PTR_BY_CALL)
			em_hold_multiplex(h, nr, arg);
		else
			em_hold_ptr(h, &p[i], arg);
}
