/* SPDX-License-Identifier: MIT */
/*
 * vmsplice.  A pipe keeps the pages that it is given.  Ours may leave and come back as other pages meanwhile,
 * and then the reader would see some of what the program wrote afterwards and miss the rest.  So the
 * pipe gets pages of its own: a copy, of the time of the call.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "../core/core.h"
#include "../core/meta.h"
#include "../core/sys.h"
#include "hold.h"
#include "special.h"
#include "transfer.h"

enum { STAGE_BYTES = 256 << 10, STAGES = 32, FRAGMENTS = 16, NONBLOCK = 2, EFAULT_ERR = -14 };

/* ---- pages to give away ------------------------------------------------------------------ */

static char *stages[STAGES];

static char *stage_get(void)
{
	uint64_t all = ~0ull, old;
	char *p;

	for (int i = 0; i < STAGES; i++) {
		p = __atomic_exchange_n(&stages[i], NULL, __ATOMIC_ACQUIRE);
		if (p)
			return p;
	}
	/* The allocator's lock must not be held across a signal handler. */
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	p = em_meta_alloc(STAGE_BYTES);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	return p;
}

/* The pages are the pipe's now.  Where they cannot be let go of (mlockall), the place is not used again. */
static bool stage_renew(char *p)
{
	return !em_sys_madvise(p, STAGE_BYTES, MADV_DONTNEED) ||
	       !em_sys_madvise(p, STAGE_BYTES, 24 /* MADV_DONTNEED_LOCKED, 5.18 */);
}

static void stage_put(char *p)
{
	for (int i = 0; i < STAGES; i++) {
		char *none = NULL;

		if (__atomic_compare_exchange_n(&stages[i], &none, p, false, __ATOMIC_RELEASE,
						__ATOMIC_RELAXED))
			return;
	}
}

/* ---- one piece ------------------------------------------------------------------------------ */

struct piece {
	struct em_regs *r;
	const struct iovec *v;
	long left;	  /* elements */
	size_t off;	  /* in the first of them */
	char *stage;
	size_t used;	  /* of the stage */
	struct iovec frag[FRAGMENTS];
	long n;
	size_t bytes;
	bool bad;	  /* ends before memory that cannot be read */
};

/* The kernel copies: what cannot be read is an error, not a signal. */
static size_t copy_out(struct piece *p, char *to, uintptr_t from, size_t len)
{
	struct iovec dst = { to, len }, src = { (void *)from, len };
	struct em_hold h;
	long got = 0;

	em_hold_begin(&h, p->r->rsp);
	em_hold_range(&h, from, len, EM_DIR_IN);
	if (!h.err)
		got = em_syscall6(SYS_process_vm_readv, em_sys_getpid(), (long)&dst, 1, (long)&src,
				  1, 0);
	em_hold_end(&h);
	return got > 0 ? (size_t)got : 0;
}

/* The same offset in its page, for those who give whole pages. */
static void add_copy(struct piece *p, uintptr_t addr, size_t len)
{
	size_t in_page = addr & EM_PAGE_MASK, room = STAGE_BYTES - p->used - in_page, got;
	char *to = p->stage + p->used + in_page;

	if (len > room)
		len = room;
	got = copy_out(p, to, addr, len);
	p->bad = got < len;
	if (!got)
		return;
	p->frag[p->n++] = (struct iovec){ to, got };
	p->bytes += got;
	p->used += em_page_up(in_page + got);
	p->off += got;
}

static void fill(struct piece *p)
{
	p->n = 0;
	p->used = p->bytes = 0;
	while (p->left && p->n < FRAGMENTS && p->used < STAGE_BYTES && !p->bad) {
		uintptr_t addr = (uintptr_t)p->v->iov_base + p->off;
		size_t len = p->v->iov_len - p->off;

		if (len && em_space_may_manage(addr, len)) {
			add_copy(p, addr, len);
		} else if (len) {
			p->frag[p->n++] = (struct iovec){ (void *)addr, len };
			p->bytes += len;
			p->off += len;
		}
		if (p->off == p->v->iov_len) {
			p->v++;
			p->left--;
			p->off = 0;
		}
	}
}

/* The kernel gives what the pipe has room for and never waits for more: so do the pieces after the first. */
static long to_pipe(struct em_regs *r)
{
	struct piece p = { .r = r, .v = (const struct iovec *)r->arg[1], .left = r->arg[2] };
	long done = 0, ret, flags = r->arg[3];
	bool fresh = true;

	p.stage = stage_get();
	if (!p.stage)
		return -12; /* ENOMEM */
	do {
		fill(&p);
		ret = p.n ? em_syscall4(SYS_vmsplice, r->arg[0], p.frag, p.n, flags)
			  : p.bad ? EFAULT_ERR : 0;
		fresh = stage_renew(p.stage);
		if (ret > 0)
			done += ret;
		flags |= NONBLOCK;
	} while (ret > 0 && (size_t)ret == p.bytes && p.left && fresh);
	if (fresh)
		stage_put(p.stage);
	return done ? done : ret;
}

static bool any_managed(const struct iovec *v, long n)
{
	for (long i = 0; i < n; i++)
		if (v[i].iov_len && em_space_may_manage((uintptr_t)v[i].iov_base, v[i].iov_len))
			return true;
	return false;
}

static bool is_there(struct em_regs *r, const struct iovec *v, long n)
{
	struct em_hold h;
	bool there;

	em_hold_begin(&h, r->rsp);
	em_hold_range(&h, (uintptr_t)v, (size_t)n * sizeof(*v), EM_DIR_IN);
	there = !h.err && em_user_readable(h.t, (uintptr_t)v, (size_t)n * sizeof(*v));
	em_hold_end(&h);
	return there;
}

int em_special_vmsplice(struct em_regs *r)
{
	static const struct em_call from_pipe = { .flags = EM_CALL_KNOWN,
						  .ptr = { { EM_PTR_IOV, EM_DIR_OUT, 1, 2 } } };
	const struct iovec *v = (const struct iovec *)r->arg[1];
	long n = r->arg[2], mode = em_syscall2(SYS_fcntl, r->arg[0], F_GETFL);

	if (n > 0 && n <= 1024 && is_there(r, v, n) && mode >= 0 && (mode & O_ACCMODE) != O_RDONLY &&
	    any_managed(v, n)) {
		r->ret = to_pipe(r);
		return EM_HOOK_DONE;
	}
	r->ret = em_transfer_whole(r, &from_pipe, r->arg);
	return EM_HOOK_DONE;
}
