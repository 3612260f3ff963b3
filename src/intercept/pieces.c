/* SPDX-License-Identifier: MIT */
/*
 * One transfer in several system calls.  The caller must not be able to tell: a piece that comes short ends it,
 * an error or a signal after the first piece gives what is done, and what one call would have got without
 * waiting is got.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "signals.h"
#include "transfer.h"

struct piece {
	long nr, a[6];
	struct msghdr m;
};

static void as_message(const struct em_transfer *x, struct piece *p, long nr, size_t done)
{
	int flags = x->flags | (x->nowait ? MSG_DONTWAIT : 0);

	/* A peer that goes away after the first piece is told by the count, not by a signal. */
	if (!x->out && done) {
		p->m.msg_control = NULL;
		p->m.msg_controllen = 0;
		flags |= MSG_NOSIGNAL;
	}
	p->nr = nr;
	p->a[1] = (long)&p->m;
	p->a[2] = flags;
}

/* One piece of the transfer, `done` bytes into it. */
static void describe_piece(const struct em_transfer *x, struct iovec *v, int n, size_t done,
			   struct piece *p)
{
	const long *a = x->r->arg;

	*p = (struct piece){ .a = { a[0], (long)v, n }, .m = x->msg };
	p->m.msg_iov = v;
	p->m.msg_iovlen = (size_t)n;
	switch (x->r->nr) {
	case SYS_getrandom:
		p->nr = SYS_getrandom;
		p->a[0] = (long)v->iov_base;
		p->a[1] = (long)v->iov_len;
		p->a[2] = a[2];
		return;
	case SYS_pread64:
	case SYS_preadv:
	case SYS_pwrite64:
	case SYS_pwritev:
		p->nr = x->out ? SYS_preadv : SYS_pwritev;
		p->a[3] = a[3] + (long)done;
		return;
	case SYS_preadv2:
	case SYS_pwritev2:
		p->nr = x->r->nr;
		p->a[3] = a[3] == -1 ? -1 : a[3] + (long)done;
		p->a[5] = a[5] | (x->nowait ? RWF_NOWAIT : 0);
		return;
	default:
		break;
	}
	if (x->socket) {
		as_message(x, p, x->out ? SYS_recvmsg : SYS_sendmsg, done);
	} else if (x->nowait) {
		p->nr = x->out ? SYS_preadv2 : SYS_pwritev2;
		p->a[3] = -1;
		p->a[5] = RWF_NOWAIT;
	} else {
		p->nr = x->out ? SYS_readv : SYS_writev;
	}
}

/* At the limit for the size of files the kernel returns what fits, and raises SIGXFSZ for the next call. */
static long call_without_sigxfsz(const struct piece *p)
{
	uint64_t set = EM_SIG_BIT(SIGXFSZ), old, pending = 0;
	long ret;

	em_syscall4(SYS_rt_sigprocmask, SIG_BLOCK, &set, &old, sizeof(set));
	em_syscall2(SYS_rt_sigpending, &pending, sizeof(pending));
	ret = em_plain_syscall(p->nr, p->a, NULL);
	if (ret == -EFBIG)
		em_swallow(SIGXFSZ, pending);
	if (!(old & set))
		em_syscall4(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof(set));
	return ret;
}

static long call_piece(const struct em_transfer *x, struct iovec *v, int n, size_t done,
		       struct em_thread *t)
{
	struct piece p;

	describe_piece(x, v, n, done, &p);
	if (done && x->kind == EM_FD_FILE && !x->out)
		return call_without_sigxfsz(&p);
	/* Files are not interrupted. */
	if (x->kind == EM_FD_FILE || x->nowait)
		return em_plain_syscall(p.nr, p.a, NULL);
	return (done ? em_next_syscall : em_first_syscall)(p.nr, p.a, &t->stop);
}

static long held_piece(const struct em_transfer *x, struct iovec *v, int n, size_t done)
{
	struct em_hold h;
	long ret;

	em_hold_begin(&h, x->r->rsp);
	for (int i = 0; i < n; i++)
		em_hold_range(&h, (uintptr_t)v[i].iov_base, v[i].iov_len,
			      x->out ? EM_DIR_OUT : EM_DIR_IN);
	em_hold_range(&h, (uintptr_t)x->msg.msg_name, x->msg.msg_namelen, EM_DIR_IN);
	em_hold_range(&h, (uintptr_t)x->msg.msg_control, x->msg.msg_controllen, EM_DIR_IN);
	ret = em_hold_ready(&h);
	if (!ret)
		ret = call_piece(x, v, n, done, h.t);
	em_hold_end(&h);
	if (h.n)
		em_stat_inc(syscalls_held);
	return ret;
}

/* A pipe or socket gives what it has: asking it for more after a full piece might wait for ever. */
static bool goes_on(const struct em_transfer *x)
{
	struct pollfd p = { .fd = (int)x->r->arg[0], .events = POLLIN };

	if (x->kind == EM_FD_FILE || x->r->nr == SYS_getrandom || (x->flags & MSG_WAITALL))
		return true;
	if (!x->out)
		return true;
	return em_syscall3(SYS_poll, &p, 1, 0) > 0;
}

/* A handler ran since the first piece: the kernel would go on for as long as it need not wait. */
static bool goes_on_without_waiting(struct em_transfer *x, long ret)
{
	if (ret != -EINTR || x->nowait || x->r->nr == SYS_getrandom)
		return false;
	x->nowait = true;
	return true;
}

/* Piece after piece until one comes short; an error after the first is the next call's. */
static long in_pieces(struct em_transfer *x)
{
	size_t done = 0, bytes, piece = em_transfer_piece();
	struct iovec v[EM_PIECE_IOVS];
	long ret;

	do {
		struct em_cursor here = x->at;
		int n = em_cursor_next(x->r, &x->at, v, piece, &bytes);

		if (n <= 0)
			return done ? (long)done : n;
		ret = held_piece(x, v, n, done);
		if (ret < 0 && done && goes_on_without_waiting(x, ret)) {
			x->at = here;
			ret = held_piece(x, v, n, done);
			em_cursor_next(x->r, &x->at, v, piece, &bytes);
		}
		if (ret < 0)
			return done ? (long)done : ret;
		done += (size_t)ret;
	} while ((size_t)ret == bytes && x->at.left && goes_on(x));
	return (long)done;
}

/* A handler that interrupts a transfer may make one itself. */
long em_transfer_pieces(struct em_transfer *x)
{
	struct em_thread *t = em_thread_self();
	uint32_t outer;
	long ret;

	if (!t)
		return -ENOMEM;
	outer = t->stop;
	ret = in_pieces(x);
	t->stop |= outer;
	return ret;
}
