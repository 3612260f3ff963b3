/* SPDX-License-Identifier: MIT */
/* Transfers with two lists: many messages, and from process to process. */
#include <errno.h>
#include <sys/socket.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "transfer.h"

/* All that the messages of the call may fill; -1: the kernel shall look for itself. */
static long sum(struct em_regs *r, const struct em_user_mmsghdr *v, unsigned n)
{
	struct em_user_msghdr m;
	struct iovec iov;
	size_t total = 0;
	struct em_hold h;
	int bad = 0;

	em_hold_begin(&h, r->rsp);
	for (unsigned i = 0; i < n && !bad; i++) {
		bad = em_hold_get(&h, &m, (uintptr_t)&v[i].hdr, sizeof(m)) || m.iovlen > 1024;
		for (size_t k = 0; !bad && k < m.iovlen; k++) {
			bad = em_hold_get(&h, &iov, m.iov + k * sizeof(iov), sizeof(iov));
			total += bad ? 0 : iov.iov_len;
		}
	}
	em_hold_ready(&h);
	em_hold_end(&h);
	return bad ? -1 : (long)total;
}

static bool timed_out(struct em_regs *r)
{
	long ts[2];

	return r->nr == SYS_recvmmsg && r->arg[4] &&
	       (em_hold_fetch(r, ts, (void *)r->arg[4], sizeof(ts)) || (!ts[0] && !ts[1]));
}

/* Message by message where all of them are too much at once. */
long em_transfer_messages(struct em_regs *r, const struct em_call *c)
{
	const struct em_user_mmsghdr *v = (const struct em_user_mmsghdr *)r->arg[1];
	unsigned n = (unsigned)r->arg[2] > 1024 ? 1024 : (unsigned)r->arg[2], i;
	long a[6], ret = 0, total = sum(r, v, n);
	struct em_thread *t = em_thread_self();
	uint32_t outer;

	if (total < 0 || (size_t)total <= em_transfer_piece())
		return em_transfer_whole(r, c, r->arg);
	if (!t)
		return -ENOMEM;
	em_memcpy(a, r->arg, sizeof(a));
	a[2] = 1;
	outer = t->stop;
	for (i = 0; i < n; i++) {
		a[1] = (long)&v[i];
		ret = i ? em_transfer_next(r, c, a) : em_transfer_first(r, c, a);
		if (i && ret == -EINTR && !(a[3] & MSG_DONTWAIT)) {
			a[3] |= MSG_DONTWAIT; /* as far as it goes without waiting */
			ret = em_transfer_whole(r, c, a);
		}
		if (ret != 1)
			break;
		if (r->nr == SYS_recvmmsg && (a[3] & MSG_WAITFORONE))
			a[3] |= MSG_DONTWAIT;
		if (timed_out(r)) {
			i++;
			break;
		}
	}
	t->stop |= outer;
	return i ? (long)i : ret;
}

static long piece(struct em_regs *r, struct iovec *local, struct iovec *remote, bool self)
{
	bool reads = r->nr == SYS_process_vm_readv;
	struct em_hold h;
	long ret;

	em_hold_begin(&h, r->rsp);
	em_hold_range(&h, (uintptr_t)local->iov_base, local->iov_len, reads ? EM_DIR_OUT : EM_DIR_IN);
	if (self)
		em_hold_range(&h, (uintptr_t)remote->iov_base, remote->iov_len,
			      reads ? EM_DIR_IN : EM_DIR_OUT);
	ret = em_hold_ready(&h);
	if (!ret)
		ret = em_syscall6(r->nr, r->arg[0], (long)local, 1, (long)remote, 1, r->arg[5]);
	em_hold_end(&h);
	return ret;
}

/* Small ones, and those that the kernel will refuse, as they are; others in steps that end where an element
   of either side does. */
long em_transfer_process(struct em_regs *r, const struct em_call *c)
{
	const long *a = r->arg;
	struct em_cursor to = { .vector = (uintptr_t)a[1], .left = a[2] };
	struct em_cursor from = { .vector = (uintptr_t)a[3], .left = a[4] };
	struct iovec l[EM_PIECE_IOVS], f[EM_PIECE_IOVS];
	size_t most = em_transfer_piece(), done = 0, bytes;
	struct em_cursor all = to;

	if (a[2] <= 0 || a[2] > 1024 || a[4] <= 0 || a[4] > 1024 || !to.vector || !from.vector ||
	    em_cursor_next(r, &all, l, most, &bytes) <= 0 || (bytes < most && !all.left))
		return em_transfer_whole(r, c, a);
	while (to.left && from.left) {
		struct em_cursor t0 = to, f0 = from;
		size_t x, y;
		long ret;

		if (em_cursor_next(r, &to, l, most, &x) <= 0 ||
		    em_cursor_next(r, &from, f, most, &y) <= 0)
			return done ? (long)done : em_transfer_whole(r, c, a);
		x = l[0].iov_len < f[0].iov_len ? l[0].iov_len : f[0].iov_len;
		l[0].iov_len = f[0].iov_len = x;
		ret = piece(r, l, f, a[0] == em_sys_getpid());
		if (ret < 0)
			return done ? (long)done : ret;
		done += (size_t)ret;
		if ((size_t)ret < x)
			break;
		to = t0;
		from = f0;
		em_cursor_next(r, &to, l, x, &bytes);
		em_cursor_next(r, &from, f, x, &bytes);
	}
	return (long)done;
}
