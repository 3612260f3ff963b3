/* SPDX-License-Identifier: MIT */
/* What each io_uring request does with its pointers. */
#include <linux/io_uring.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"
#include "uring.h"

/* Numbers that the headers of Debian 12 do not have. */
enum { READ_MULTISHOT = 49, WAITID = 50, FUTEX_WAIT = 51, FUTEX_WAITV = 53, BIND = 56, EPOLL_WAIT = 59,
       READV_FIXED = 60, WRITEV_FIXED = 61, PIPE = 62, LAST_KNOWN = 62, SOCKADDR = 128 };

static void paths(struct em_hold *h, const struct io_uring_sqe *s)
{
	em_hold_string(h, s->addr);
	em_hold_string(h, s->addr2);
}

static void xattr(struct em_hold *h, const struct io_uring_sqe *s, enum em_ptr_dir dir)
{
	em_hold_string(h, s->addr);
	em_hold_range(h, s->addr2, s->len, dir);
	if (s->opcode == IORING_OP_SETXATTR || s->opcode == IORING_OP_GETXATTR)
		em_hold_string(h, s->addr3);
}

static void waitv(struct em_hold *h, const struct io_uring_sqe *s)
{
	const struct em_ptr p = { EM_PTR_WAITV, EM_DIR_OUT, 0, 1 };
	const long arg[6] = { (long)s->addr, s->len };

	em_hold_nested(h, &p, arg);
}

/* A command of a driver: NVMe's has a buffer; of others every word that points to managed memory counts. */
static void command(struct em_hold *h, const struct io_uring_sqe *s)
{
	const uint64_t *w = (const uint64_t *)&s->addr3;

	em_hold_range(h, s->addr, s->len ? s->len : 4096, EM_DIR_OUT);
	em_hold_range(h, w[0], 4096, EM_DIR_OUT);
	if ((s->cmd_op >> 8 & 0xff) == 'N' && w[3])
		em_hold_range(h, w[3], (uint32_t)(w[4] >> 32), EM_DIR_OUT);
}

/* Where the data goes to or comes from, unless the kernel picks a buffer itself. */
static bool data(struct em_hold *h, const struct io_uring_sqe *s)
{
	bool picks = s->flags & IOSQE_BUFFER_SELECT;

	switch (s->opcode) {
	case IORING_OP_READ:
	case IORING_OP_RECV:
	case IORING_OP_EPOLL_CTL:
		if (!picks)
			em_hold_range(h, s->addr, s->opcode == IORING_OP_EPOLL_CTL ? 12 : s->len,
				      EM_DIR_OUT);
		return true;
	case IORING_OP_SEND:
	case IORING_OP_SEND_ZC:
		em_hold_range(h, s->addr2, SOCKADDR, EM_DIR_IN);
		/* fall through */
	case IORING_OP_WRITE:
		if (!picks)
			em_hold_range(h, s->addr, s->len, EM_DIR_IN);
		return true;
	case IORING_OP_READV:
		em_hold_iov(h, s->addr, s->len, EM_DIR_OUT);
		return true;
	case IORING_OP_WRITEV:
		em_hold_iov(h, s->addr, s->len, EM_DIR_IN);
		return true;
	case READV_FIXED:
	case WRITEV_FIXED:
		em_hold_range(h, s->addr, s->len * 16ul, EM_DIR_IN);
		return true;
	case IORING_OP_SENDMSG:
	case IORING_OP_SENDMSG_ZC:
		em_hold_msg(h, s->addr, EM_DIR_IN);
		return true;
	case IORING_OP_RECVMSG:
		em_hold_msg(h, s->addr, EM_DIR_OUT);
		return true;
	default:
		return false;
	}
}

static void other(struct em_hold *h, const struct io_uring_sqe *s)
{
	switch (s->opcode) {
	case IORING_OP_TIMEOUT:
	case IORING_OP_LINK_TIMEOUT:
		em_hold_range(h, s->addr, 16, EM_DIR_IN);
		break;
	case IORING_OP_TIMEOUT_REMOVE:
		em_hold_range(h, s->addr2, 16, EM_DIR_IN);
		break;
	case IORING_OP_ACCEPT:
		em_hold_range(h, s->addr, SOCKADDR, EM_DIR_OUT);
		em_hold_range(h, s->addr2, 4, EM_DIR_OUT);
		break;
	case IORING_OP_CONNECT:
	case BIND:
		em_hold_range(h, s->addr, SOCKADDR, EM_DIR_IN);
		break;
	case IORING_OP_OPENAT:
	case IORING_OP_UNLINKAT:
	case IORING_OP_MKDIRAT:
		em_hold_string(h, s->addr);
		break;
	case IORING_OP_OPENAT2:
		em_hold_string(h, s->addr);
		em_hold_range(h, s->addr2, s->len < 4096 ? s->len : 0, EM_DIR_IN);
		break;
	case IORING_OP_STATX:
		em_hold_string(h, s->addr);
		em_hold_range(h, s->addr2, 256, EM_DIR_OUT);
		break;
	case IORING_OP_RENAMEAT:
	case IORING_OP_SYMLINKAT:
	case IORING_OP_LINKAT:
		paths(h, s);
		break;
	case IORING_OP_FILES_UPDATE:
		em_hold_range(h, s->addr, s->len * 4ul, EM_DIR_OUT);
		break;
	case IORING_OP_SETXATTR:
	case IORING_OP_FSETXATTR:
		xattr(h, s, EM_DIR_IN);
		break;
	case IORING_OP_GETXATTR:
	case IORING_OP_FGETXATTR:
		xattr(h, s, EM_DIR_OUT);
		break;
	case IORING_OP_URING_CMD:
		command(h, s);
		break;
	case WAITID:
		em_hold_range(h, s->addr2, 128, EM_DIR_OUT);
		break;
	case FUTEX_WAIT:
	case FUTEX_WAIT + 1:
	case PIPE:
		em_hold_range(h, s->addr, 8, EM_DIR_OUT);
		break;
	case FUTEX_WAITV:
		waitv(h, s);
		break;
	case EPOLL_WAIT:
		em_hold_range(h, s->addr, s->len * 12ul, EM_DIR_OUT);
		break;
	default:
		if (s->opcode > LAST_KNOWN)
			em_hold_range(h, s->addr, s->len, EM_DIR_OUT);
		break;
	}
}

void em_uring_hold_request(struct em_hold *h, const struct io_uring_sqe *s)
{
	if (!data(h, s))
		other(h, s);
}
