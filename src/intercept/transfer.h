/* SPDX-License-Identifier: MIT */
/* Transfers that may be larger than what a call may hold: see transfer.c. */
#ifndef EM_INTERCEPT_TRANSFER_H
#define EM_INTERCEPT_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "../core/sys.h"
#include "hold.h"

enum { EM_PIECE_IOVS = 16 };

/* Where a transfer is in the caller's buffers. */
struct em_cursor {
	uintptr_t vector; /* the element in hand, 0: `one` is all there is */
	struct iovec one;
	long left;	  /* elements, this one included */
	size_t offset;	  /* in it */
};

enum em_fd_kind { EM_FD_FILE, EM_FD_STREAM, EM_FD_MESSAGES };

struct em_transfer {
	struct em_regs *r;
	struct em_cursor at;
	size_t total;
	struct msghdr msg; /* name and control data */
	int flags;
	enum em_fd_kind kind;
	bool out, socket, managed;
	bool nowait; /* interrupted: what can be had without waiting, and no more */
};

/* In the place of em_first_syscall (signals.h) where a signal changes nothing. */
static inline long em_plain_syscall(long nr, const long *a, uint32_t *stop)
{
	(void)stop;
	return em_syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The most that one call holds. */
size_t em_transfer_piece(void);
int em_cursor_next(struct em_regs *r, struct em_cursor *c, struct iovec *out, size_t most,
		   size_t *bytes);
long em_transfer_whole(struct em_regs *r, const struct em_call *c, const long *a);
/* The same for the first of several calls, and for those that follow, which a signal ends. */
long em_transfer_first(struct em_regs *r, const struct em_call *c, const long *a);
long em_transfer_next(struct em_regs *r, const struct em_call *c, const long *a);
/* pieces.c: more than one call may hold, to or from something that has no messages. */
long em_transfer_pieces(struct em_transfer *x);
/* messages.c */
long em_transfer_messages(struct em_regs *r, const struct em_call *c);
long em_transfer_process(struct em_regs *r, const struct em_call *c);

#endif
