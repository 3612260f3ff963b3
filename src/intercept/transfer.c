/* SPDX-License-Identifier: MIT */
/*
 * read, write and their kin.  What is larger than what a call may hold is carried out
 *   - in pieces, where the kernel itself could have stopped between them: files, pipes, streams (pieces.c);
 *   - through memory of our own, where it is one message: datagrams, packets, character devices.
 * Either way the caller sees what one call would have given it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "signals.h"
#include "transfer.h"

#ifndef RWF_ATOMIC
#define RWF_ATOMIC 0x40
#endif

enum { KEEP_BYTES = 1 << 20, LARGEST_MESSAGE = 64 << 20 };

/* A quarter of the budget, at most 8 MiB, at least 64 KiB: several threads may hold at once. */
size_t em_transfer_piece(void)
{
	size_t quarter = em_page_down((size_t)em_budget.limit * EM_PAGE_SIZE / 4);

	return quarter > 8u << 20 ? 8u << 20 : quarter < 65536 ? 65536 : quarter;
}

/* ---- the caller's vector ------------------------------------------------------------------- */

/* Up to `most` bytes in up to EM_PIECE_IOVS elements from the cursor on; how many elements. */
int em_cursor_next(struct em_regs *r, struct em_cursor *c, struct iovec *out, size_t most,
		   size_t *bytes)
{
	int n = 0;

	*bytes = 0;
	while (c->left && n < EM_PIECE_IOVS && *bytes < most) {
		struct iovec v = c->one;
		size_t len;

		if (c->vector && em_hold_fetch(r, &v, (void *)c->vector, sizeof(v)))
			return -EFAULT;
		len = v.iov_len - c->offset;
		if (len > most - *bytes)
			len = most - *bytes;
		if (len) {
			out[n].iov_base = (char *)v.iov_base + c->offset;
			out[n++].iov_len = len;
			*bytes += len;
			c->offset += len;
		}
		if (c->offset == v.iov_len) {
			c->offset = 0;
			c->vector += c->vector ? sizeof(v) : 0;
			c->left--;
		}
	}
	return n;
}

/* -EFAULT, -EINVAL: the kernel shall say it.  *managed: extmem is concerned. */
static long total_bytes(struct em_regs *r, uintptr_t v, long n, bool *managed)
{
	struct iovec some[16];
	size_t sum = 0;

	if (n < 0 || n > 1024)
		return -EINVAL;
	*managed = em_space_may_manage(v, (size_t)n * sizeof(*some));
	for (long i = 0; i < n; i += 16) {
		long k = n - i < 16 ? n - i : 16;

		if (em_hold_fetch(r, some, (struct iovec *)v + i, (size_t)k * sizeof(*some)))
			return -EFAULT;
		while (k--) {
			if ((ssize_t)some[k].iov_len < 0)
				return -EINVAL;
			if (some[k].iov_len > 0x7ffff000)
				some[k].iov_len = 0x7ffff000;
			sum += some[k].iov_len;
			*managed |= em_space_may_manage((uintptr_t)some[k].iov_base, some[k].iov_len);
		}
	}
	return sum > 0x7ffff000 ? 0x7ffff000 : (long)sum;
}

/* ---- one call with everything held ------------------------------------------------------------ */

typedef long (*call_fn)(long nr, const long *a, uint32_t *stop);

static long try_whole(struct em_regs *r, const struct em_call *c, const long *a, call_fn call)
{
	struct em_hold h;
	long ret;

	em_hold_begin(&h, r->rsp);
	if (!h.err)
		em_hold_call(&h, c, r->nr, a);
	ret = em_hold_ready(&h);
	if (!ret)
		ret = call(r->nr, a, &h.t->stop);
	em_hold_end(&h);
	if (h.n)
		em_stat_inc(syscalls_held);
	return ret;
}

/* While a transfer slept over memory that was not managed, a mapping of ours may have been laid over that: the
   kernel's EFAULT is not the program's then, and nothing was transferred. */
static long whole(struct em_regs *r, const struct em_call *c, const long *a, call_fn call)
{
	uint64_t adopted = __atomic_load_n(&em_range_adopted, __ATOMIC_ACQUIRE);
	long ret = try_whole(r, c, a, call);

	if (__builtin_expect(ret == -EFAULT, 0) && (c->flags & EM_CALL_TRANSFER) &&
	    __atomic_load_n(&em_range_adopted, __ATOMIC_ACQUIRE) != adopted)
		ret = try_whole(r, c, a, call);
	return ret;
}

long em_transfer_whole(struct em_regs *r, const struct em_call *c, const long *a)
{
	return whole(r, c, a, em_plain_syscall);
}

long em_transfer_first(struct em_regs *r, const struct em_call *c, const long *a)
{
	return whole(r, c, a, em_first_syscall);
}

long em_transfer_next(struct em_regs *r, const struct em_call *c, const long *a)
{
	return whole(r, c, a, em_next_syscall);
}

/* ---- memory of our own ----------------------------------------------------------------------------- */

/* A call that was left by a jump or a cancellation has left its memory behind: the next one takes it. */
static char *borrow(struct em_thread *t, size_t bytes, uintptr_t sp)
{
	struct em_lent *l = &t->lent;
	char *p;

	if (l->p && l->sp && l->sp <= sp)
		l->sp = 0;
	if (l->p && !l->sp && l->bytes >= bytes) {
		l->sp = sp;
		return l->p;
	}
	p = (char *)em_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (em_is_err((long)p))
		return NULL;
	if (l->p && !l->sp) {
		em_sys_munmap(l->p, l->bytes);
		l->p = NULL;
	}
	if (!l->p)
		*l = (struct em_lent){ p, bytes, sp };
	return p;
}

static void give_back(struct em_thread *t, char *p, size_t bytes)
{
	struct em_lent *l = &t->lent;

	if (p != l->p) {
		em_sys_munmap(p, bytes);
	} else if (l->bytes > KEEP_BYTES) {
		em_sys_munmap(l->p, l->bytes);
		l->p = NULL;
	} else {
		em_sys_madvise(l->p, l->bytes, MADV_DONTNEED);
		l->sp = 0;
	}
}

/* Between the caller's memory and ours, a piece at a time. */
static int copy(struct em_transfer *x, char *ours, size_t bytes)
{
	struct em_cursor c = x->at;
	struct iovec v[EM_PIECE_IOVS];
	int ret = 0;

	while (bytes && !ret) {
		size_t some, off = 0;
		int n = em_cursor_next(x->r, &c, v, bytes < 65536 ? bytes : 65536, &some);

		if (n <= 0)
			return n;
		for (int i = 0; i < n && !ret; i++) {
			char *theirs = v[i].iov_base;

			ret = x->out ? em_hold_store(x->r, theirs, ours + off, v[i].iov_len)
				     : em_hold_fetch(x->r, ours + off, theirs, v[i].iov_len);
			off += v[i].iov_len;
		}
		ours += some;
		bytes -= some;
	}
	return ret;
}

/* The call with our memory in place of the caller's; names, lengths and control data stay the caller's. */
static long call_with(struct em_transfer *x, char *ours, size_t bytes)
{
	long a[6];
	struct em_user_msghdr m;
	struct iovec v = { ours, bytes };
	const struct em_call *c = &em_calls[x->r->nr];
	long ret;

	em_memcpy(a, x->r->arg, sizeof(a));
	if (x->r->nr != SYS_recvmsg && x->r->nr != SYS_sendmsg) {
		if (x->at.vector) {
			a[1] = (long)&v;
			a[2] = 1;
		} else {
			a[1] = (long)ours;
		}
		return em_transfer_whole(x->r, c, a);
	}
	if (em_hold_fetch(x->r, &m, (void *)a[1], sizeof(m)))
		return -EFAULT;
	m.iov = (uintptr_t)&v;
	m.iovlen = 1;
	a[1] = (long)&m;
	ret = em_transfer_whole(x->r, c, a);
	if (ret >= 0 && x->out) {
		struct em_user_msghdr *to = (struct em_user_msghdr *)x->r->arg[1];

		em_hold_store(x->r, &to->namelen, &m.namelen, sizeof(m.namelen));
		em_hold_store(x->r, &to->controllen, &m.controllen,
			      sizeof(m.controllen) + sizeof(m.flags));
	}
	return ret;
}

static long through_our_memory(struct em_transfer *x)
{
	struct em_thread *t = em_thread_self();
	char *ours = t ? borrow(t, em_page_up(x->total), (uintptr_t)x->r->rsp) : NULL;
	long ret = 0;

	if (!ours)
		return em_transfer_whole(x->r, &em_calls[x->r->nr], x->r->arg);
	if (!x->out)
		ret = copy(x, ours, x->total);
	/* Not all of it is there: which error comes first is the kernel's to say. */
	if (ret)
		ret = em_transfer_whole(x->r, &em_calls[x->r->nr], x->r->arg);
	else
		ret = call_with(x, ours, x->total);
	/* Of a message that was cut off the kernel may tell the full length. */
	if (ret > 0 && x->out) {
		int bad = copy(x, ours, (size_t)ret < x->total ? (size_t)ret : x->total);

		ret = bad ? bad : ret;
	}
	give_back(t, ours, em_page_up(x->total));
	return ret;
}

/* ---- which way ----------------------------------------------------------------------------------------- */

static enum em_fd_kind kind_of(struct em_transfer *x)
{
	int type = 0, len = sizeof(type);
	struct stat st;

	if (x->r->nr == SYS_getrandom || em_syscall2(SYS_fstat, x->r->arg[0], &st))
		return EM_FD_STREAM;
	x->socket = S_ISSOCK(st.st_mode);
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return EM_FD_FILE;
	if (S_ISCHR(st.st_mode))
		return x->total > LARGEST_MESSAGE ? EM_FD_STREAM : EM_FD_MESSAGES;
	if (!x->socket)
		return EM_FD_STREAM;
	em_syscall5(SYS_getsockopt, x->r->arg[0], SOL_SOCKET, SO_TYPE, &type, &len);
	return type == SOCK_STREAM ? EM_FD_STREAM : EM_FD_MESSAGES;
}

static bool must_be_whole(const struct em_transfer *x)
{
	const int odd = MSG_PEEK | MSG_OOB | MSG_ERRQUEUE | MSG_TRUNC;

	return x->kind == EM_FD_MESSAGES || (x->flags & odd) ||
	       x->r->nr == SYS_recvmsg || (x->out && x->msg.msg_name) ||
	       (x->r->nr == SYS_pwritev2 && (x->r->arg[5] & RWF_ATOMIC));
}

static long large(struct em_transfer *x)
{
	x->kind = kind_of(x);
	return must_be_whole(x) ? through_our_memory(x) : em_transfer_pieces(x);
}

/* Fills in where the data is. 0, or -errno: let the kernel say so. */
static long describe(struct em_transfer *x)
{
	const long *a = x->r->arg;
	struct em_user_msghdr m;

	x->at.one = (struct iovec){ (void *)a[1], (size_t)a[2] };
	x->at.left = 1;
	switch (x->r->nr) {
	case SYS_getrandom:
		x->at.one = (struct iovec){ (void *)a[0], (size_t)a[1] };
		break;
	case SYS_sendto:
	case SYS_recvfrom:
		x->flags = (int)a[3];
		x->msg.msg_name = (void *)a[4];
		x->msg.msg_namelen = x->out ? 0 : (unsigned)a[5];
		break;
	case SYS_sendmsg:
	case SYS_recvmsg:
		if (em_hold_fetch(x->r, &m, (void *)a[1], sizeof(m)))
			return -EFAULT;
		x->flags = (int)a[2];
		x->msg.msg_name = (void *)m.name;
		x->msg.msg_namelen = m.namelen > 0 ? (unsigned)m.namelen : 0;
		x->msg.msg_control = (void *)m.control;
		x->msg.msg_controllen = m.controllen;
		x->at.vector = m.iov;
		x->at.left = (long)m.iovlen;
		break;
	case SYS_read:
	case SYS_write:
	case SYS_pread64:
	case SYS_pwrite64:
		break;
	default:
		x->at.vector = (uintptr_t)a[1];
		x->at.left = a[2];
		break;
	}
	if (!x->at.vector) {
		x->managed = true; /* em_hold_needed */
		x->total = x->at.one.iov_len < 0x7ffff000 ? x->at.one.iov_len : 0x7ffff000;
		x->at.one.iov_len = x->total;
		return x->r->nr != SYS_getrandom && (ssize_t)x->r->arg[2] < 0 ? -EINVAL : 0;
	}
	x->total = (size_t)total_bytes(x->r, x->at.vector, x->at.left, &x->managed);
	return (long)x->total < 0 ? (long)x->total : 0;
}

long em_transfer(struct em_regs *r, const struct em_call *c)
{
	struct em_transfer x = { .r = r, .out = c->ptr[0].dir == EM_DIR_OUT };

	switch (r->nr) {
	case SYS_sendmmsg:
	case SYS_recvmmsg:
		return em_transfer_messages(r, c);
	case SYS_process_vm_readv:
	case SYS_process_vm_writev:
		return em_transfer_process(r, c);
	default:
		break;
	}
	/* Small, and that is nearly all: no need to know more. */
	if (c->ptr[0].how == EM_PTR_LEN && (size_t)r->arg[c->ptr[0].size & 7] <= em_transfer_piece())
		return em_transfer_whole(r, c, r->arg);
	if (describe(&x) || x.total <= em_transfer_piece() || !x.managed)
		return em_transfer_whole(r, c, r->arg);
	return large(&x);
}
