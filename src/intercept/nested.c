/* SPDX-License-Identifier: MIT */
/* Pointers with pointers inside: vectors, messages, strings, structures that say their size. */
#include <errno.h>
#include <sys/uio.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"

enum {
	IOV_MAX_COUNT = 1024,
	STRV_MAX = 1 << 20,
	STRING_MAX = 128 << 10,
	SOME = 16, /* elements looked at in one go */
};

/* ---- strings --------------------------------------------------------------------------- */

static bool has_zero(uintptr_t p, size_t n)
{
	for (const volatile char *c = (const char *)p; n; c++, n--)
		if (!*c)
			return true;
	return false;
}

/* Page by page: held first, then looked at.  It may run into memory that is not there. */
void em_hold_string(struct em_hold *h, uintptr_t p)
{
	if (p < EM_PAGE_SIZE)
		return;
	for (size_t total = 0; total < STRING_MAX && !h->err;) {
		size_t n = EM_PAGE_SIZE - (p & EM_PAGE_MASK);

		em_hold_range(h, p, n, EM_DIR_IN);
		/* Outside there is nothing to be done, but it may go on into a managed page. */
		if (!em_space_may_manage(p, n) && !em_space_may_manage(p + n, 1))
			return;
		if (h->err || !em_user_readable(h->t, p, 1) || has_zero(p, n))
			return;
		p += n;
		total += n;
	}
}

static void hold_strings(struct em_hold *h, uintptr_t p)
{
	uintptr_t s[SOME];

	for (size_t n = 0; p && n < STRV_MAX && !h->err; n++, p += sizeof(s[0])) {
		if (em_hold_get(h, s, p, sizeof(s[0])) || !s[0])
			return;
		em_hold_string(h, s[0]);
	}
}

/* ---- vectors and messages ---------------------------------------------------------------- */

void em_hold_iov(struct em_hold *h, uintptr_t p, long n, enum em_ptr_dir dir)
{
	struct iovec v[SOME];

	if (!p || n <= 0 || n > IOV_MAX_COUNT)
		return;
	for (long i = 0; i < n && !h->err; i += SOME) {
		long some = n - i < SOME ? n - i : SOME;

		if (em_hold_get(h, v, p + (size_t)i * sizeof(*v), (size_t)some * sizeof(*v)))
			return;
		for (long k = 0; k < some; k++)
			em_hold_range(h, (uintptr_t)v[k].iov_base, v[k].iov_len, dir);
	}
}

void em_hold_msg(struct em_hold *h, uintptr_t p, enum em_ptr_dir dir)
{
	struct em_user_msghdr m;

	if (!p || em_hold_get(h, &m, p, sizeof(m)))
		return;
	if (m.namelen > 0)
		em_hold_range(h, m.name, (size_t)m.namelen, dir);
	em_hold_iov(h, m.iov, (long)m.iovlen, dir);
	em_hold_range(h, m.control, m.controllen, dir);
	if (dir == EM_DIR_OUT)
		em_hold_range(h, p, sizeof(m), dir);
}

/* The kernel writes the length of each, also when it sends. */
static void hold_mmsg(struct em_hold *h, uintptr_t p, unsigned n, enum em_ptr_dir dir)
{
	const size_t each = sizeof(struct em_user_mmsghdr);

	if (!p)
		return;
	if (n > IOV_MAX_COUNT)
		n = IOV_MAX_COUNT;
	for (unsigned i = 0; i < n && !h->err; i++)
		em_hold_msg(h, p + i * each, dir);
	em_hold_range(h, p, n * each, EM_DIR_OUT);
}

/* ---- structures ------------------------------------------------------------------------------ */

void em_hold_fprog(struct em_hold *h, uintptr_t p)
{
	struct {
		unsigned short len;
		uintptr_t filter;
	} prog;

	if (p && !em_hold_get(h, &prog, p, sizeof(prog)))
		em_hold_range(h, prog.filter, prog.len * 8ul, EM_DIR_IN);
}

static void hold_mask6(struct em_hold *h, uintptr_t p)
{
	struct {
		uintptr_t set;
		size_t size;
	} m;

	if (p && !em_hold_get(h, &m, p, sizeof(m)))
		em_hold_range(h, m.set, 8, EM_DIR_IN);
}

/* The kernel refuses sizes beyond a page. */
static void hold_sized(struct em_hold *h, const struct em_ptr *p, uintptr_t a)
{
	uint32_t size;

	if (!a || em_hold_get(h, &size, a + p->size, sizeof(size)))
		return;
	em_hold_range(h, a, size < 8 || size > EM_PAGE_SIZE ? 64 : size, p->dir);
}

static void hold_handle(struct em_hold *h, uintptr_t p, enum em_ptr_dir dir)
{
	uint32_t bytes;

	if (p && !em_hold_get(h, &bytes, p, sizeof(bytes)))
		em_hold_range(h, p, 8 + (size_t)(bytes > 4096 ? 0 : bytes), dir);
}

static void hold_xattr(struct em_hold *h, uintptr_t p, enum em_ptr_dir dir)
{
	struct {
		uint64_t value;
		uint32_t size, flags;
	} x;

	if (p && !em_hold_get(h, &x, p, sizeof(x)))
		em_hold_range(h, x.value, x.size < 65536 ? x.size : 65536, dir);
}

static void hold_waitv(struct em_hold *h, uintptr_t p, unsigned n)
{
	struct {
		uint64_t val, uaddr;
		uint32_t flags, reserved;
	} w;

	for (unsigned i = 0; p && i < n && i < 128; i++) {
		if (em_hold_get(h, &w, p + i * sizeof(w), sizeof(w)))
			return;
		em_hold_range(h, w.uaddr, 8, EM_DIR_OUT);
	}
}

static void hold_segments(struct em_hold *h, uintptr_t p, unsigned long n)
{
	struct {
		uintptr_t buf;
		size_t bufsz;
		uintptr_t mem;
		size_t memsz;
	} s;

	for (unsigned long i = 0; p && i < n && i < 16; i++) {
		if (em_hold_get(h, &s, p + i * sizeof(s), sizeof(s)))
			return;
		em_hold_range(h, s.buf, s.bufsz, EM_DIR_IN);
	}
}

void em_hold_nested(struct em_hold *h, const struct em_ptr *p, const long *arg)
{
	uintptr_t a = (uintptr_t)arg[p->arg];

	switch (p->how) {
	case EM_PTR_STR:
		em_hold_string(h, a);
		break;
	case EM_PTR_STRV:
		hold_strings(h, a);
		break;
	case EM_PTR_REMOTE:
		/* Addresses of another process mean nothing here. */
		if (arg[0] == em_sys_getpid())
			em_hold_iov(h, a, arg[p->size], p->dir);
		else
			em_hold_range(h, a, (size_t)(arg[p->size] & 1023) * 16, EM_DIR_IN);
		break;
	case EM_PTR_IOV:
		em_hold_iov(h, a, arg[p->size], p->dir);
		break;
	case EM_PTR_MSG:
		em_hold_msg(h, a, p->dir);
		break;
	case EM_PTR_MMSG:
		hold_mmsg(h, a, (unsigned)arg[p->size], p->dir);
		break;
	case EM_PTR_MASK6:
		hold_mask6(h, a);
		break;
	case EM_PTR_SIZED:
		hold_sized(h, p, a);
		break;
	case EM_PTR_HANDLE:
		hold_handle(h, a, p->dir);
		break;
	case EM_PTR_FPROG:
		em_hold_fprog(h, a);
		break;
	case EM_PTR_XATTR:
		hold_xattr(h, a, p->dir);
		break;
	case EM_PTR_WAITV:
		hold_waitv(h, a, p->size == 15 ? 2 : (unsigned)arg[p->size & 7]);
		break;
	case EM_PTR_SEGMENTS:
		hold_segments(h, a, (unsigned long)arg[p->size]);
		break;
	default:
		break;
	}
}
