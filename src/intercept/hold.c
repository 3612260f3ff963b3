/* SPDX-License-Identifier: MIT */
/*
 * Runs in hook context: reading the program's strings, vectors and headers takes upcalls like
 * any other access of the program.
 */
#include <stdbool.h>
#include <stddef.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"

enum { IOV_MAX_COUNT = 1024, UNKNOWN_BYTES = 4096, STRV_MAX = 1 << 20, STRING_MAX = 128 << 10 };

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
	h->err = h->t ? 0 : -12; /* ENOMEM */
	if (h->t)
		h->mark = em_hazard_begin(h->t, sp);
}

void em_hold_end(struct em_hold *h)
{
	if (h->t)
		em_hazard_pop(h->t, h->mark);
}

void em_hold_range(struct em_hold *h, uintptr_t addr, size_t len, enum em_ptr_dir dir)
{
	int ret;

	len = clip(len);
	if (!addr || !len || h->err || addr + len < addr || !em_space_may_manage(addr, len))
		return;
	em_hazard_push(h->t, addr, len, h->sp);
	ret = em_fault_in(h->t, addr, len, dir == EM_DIR_OUT);
	if (ret)
		h->err = ret;
	h->n++;
}

/* Bytes of [p, p + n) up to and with the first zero, 0 if there is none; *n is cut to what can be read.  A string
   may run into memory that is not mapped, and then the kernel shall say EFAULT, not we die. */
static size_t find_zero(uintptr_t p, size_t *n)
{
	char buf[256];
	struct iovec to = { buf, 0 }, from = { (void *)p, 0 };
	long got;

	for (size_t off = 0; off < *n; off += (size_t)got) {
		to.iov_len = *n - off < sizeof(buf) ? *n - off : sizeof(buf);
		from.iov_base = (void *)(p + off);
		from.iov_len = to.iov_len;
		got = em_syscall6(SYS_process_vm_readv, em_sys_getpid(), (long)&to, 1, (long)&from, 1,
				  0);
		if (got <= 0) {
			*n = off;
			return 0;
		}
		for (long i = 0; i < got; i++)
			if (!buf[i])
				return off + (size_t)i + 1;
	}
	return 0;
}

static void hold_string(struct em_hold *h, uintptr_t p)
{
	if (!p || !em_space_may_manage(p, EM_PAGE_SIZE))
		return;
	/* Page by page: held first, then looked at. */
	for (size_t total = 0; total < STRING_MAX && !h->err;) {
		size_t n = EM_PAGE_SIZE - (p & EM_PAGE_MASK), want = n;

		em_hold_range(h, p, n, EM_DIR_IN);
		if (find_zero(p, &n) || n < want)
			return;
		p += n;
		total += n;
	}
}

/* The vector may be large and its strings many: they are held as one hull where they
   outnumber the hazards (em_hazard_push). */
static void hold_strings(struct em_hold *h, uintptr_t p)
{
	char *const *v = (char *const *)p;
	size_t n = 0;

	if (!p)
		return;
	while (v[n] && n < STRV_MAX) {
		hold_string(h, (uintptr_t)v[n]);
		n++;
	}
	em_hold_range(h, p, (n + 1) * sizeof(*v), EM_DIR_IN);
}

static void hold_iov(struct em_hold *h, uintptr_t p, long n, enum em_ptr_dir dir)
{
	const struct iovec *v = (const struct iovec *)p;

	if (!p || n <= 0 || n > IOV_MAX_COUNT)
		return;
	for (long i = 0; i < n; i++)
		em_hold_range(h, (uintptr_t)v[i].iov_base, v[i].iov_len, dir);
	em_hold_range(h, p, (size_t)n * sizeof(*v), EM_DIR_IN);
}

struct user_msghdr {
	uintptr_t name;
	int namelen;
	uintptr_t iov;
	size_t iovlen;
	uintptr_t control;
	size_t controllen;
	unsigned flags;
};

static void hold_msg(struct em_hold *h, uintptr_t p, enum em_ptr_dir dir)
{
	const struct user_msghdr *m = (const struct user_msghdr *)p;

	if (!p)
		return;
	if (m->namelen > 0)
		em_hold_range(h, m->name, (size_t)m->namelen, dir);
	hold_iov(h, m->iov, (long)m->iovlen, dir);
	em_hold_range(h, m->control, m->controllen, dir);
	em_hold_range(h, p, sizeof(*m), dir);
}

struct user_mmsghdr {
	struct user_msghdr hdr;
	unsigned len;
};

static void hold_mmsg(struct em_hold *h, uintptr_t p, long n)
{
	struct user_mmsghdr *v = (struct user_mmsghdr *)p;

	for (long i = 0; p && i < n && i < IOV_MAX_COUNT; i++)
		hold_msg(h, (uintptr_t)&v[i].hdr, EM_DIR_OUT);
	if (p && n > 0 && n <= IOV_MAX_COUNT)
		em_hold_range(h, p, (size_t)n * sizeof(*v), EM_DIR_OUT);
}

/* An iovec array, message or vector may lie outside managed memory and point into it. */
static bool is_nested(uint8_t how)
{
	return how == EM_PTR_IOV || how == EM_PTR_MSG || how == EM_PTR_MMSG || how == EM_PTR_STRV ||
	       how == EM_PTR_SIGMASK6;
}

static void hold_ptr(struct em_hold *h, const struct em_ptr *p, const long *arg)
{
	uintptr_t a = (uintptr_t)arg[p->arg];
	size_t len = 0;

	switch (p->how) {
	case EM_PTR_FIXED:
		len = p->size;
		break;
	case EM_PTR_LEN:
		len = (size_t)arg[p->size];
		break;
	case EM_PTR_LEN_OF:
		len = (size_t)(unsigned)arg[p->size & 15] * (p->size >> 4);
		break;
	case EM_PTR_LENP:
		len = arg[p->size] ? (size_t) * (unsigned *)arg[p->size] : 0;
		break;
	case EM_PTR_FDSET:
		len = ((size_t)(unsigned)arg[0] + 63) / 64 * 8;
		break;
	case EM_PTR_PAGES:
		len = ((size_t)arg[p->size] + EM_PAGE_MASK) >> EM_PAGE_SHIFT;
		break;
	case EM_PTR_IOCTL:
		len = ((unsigned long)arg[1] >> 16) & 0x3fff;
		if (!len)
			len = 256; /* terminals and other old ones without size bits */
		break;
	case EM_PTR_UNKNOWN:
		len = UNKNOWN_BYTES;
		break;
	case EM_PTR_SIGMASK6:
		len = 16;
		break;
	case EM_PTR_STR:
		hold_string(h, a);
		return;
	case EM_PTR_STRV:
		hold_strings(h, a);
		return;
	case EM_PTR_IOV:
		hold_iov(h, a, arg[p->size], p->dir);
		return;
	case EM_PTR_MSG:
		hold_msg(h, a, p->dir);
		return;
	case EM_PTR_MMSG:
		hold_mmsg(h, a, arg[p->size]);
		return;
	default:
		return;
	}
	em_hold_range(h, a, len, p->dir);
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
		size_t len = p[i].how == EM_PTR_LEN ? clip((size_t)arg[p[i].size]) : 4096;

		if (a < EM_PAGE_SIZE)
			continue;
		if (is_nested(p[i].how) || em_space_may_manage(a, len))
			return true;
	}
	return false;
}

void em_hold_call(struct em_hold *h, const struct em_call *c, const long *arg)
{
	const struct em_ptr *p = pointers(c);

	for (int i = 0; i < EM_CALL_PTRS && p[i].how != EM_PTR_END; i++)
		hold_ptr(h, &p[i], arg);
}
