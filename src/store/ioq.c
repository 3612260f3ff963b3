/* SPDX-License-Identifier: MIT */
/* The asynchronous queue: entry points, and the plain queue, executing at submission. [sigsafe] */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>

#include "../core/meta.h"

int em_ioq_create(struct em_store *st, unsigned depth, int fd_min, struct em_ioq **out)
{
	struct em_ioq *q;

	if (!depth || depth > 4096)
		return -EINVAL;
	q = em_meta_alloc(sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->st = st;
	q->depth = depth;
	q->done_tail = &q->done;
	/* whatever keeps io_uring from working, the plain queue does the same more slowly */
	if (!st->no_uring)
		em_uring_create(q, fd_min);
	*out = q;
	return 0;
}

static void destroy(struct em_ioq *q)
{
	if (q->ring)
		em_uring_destroy(q);
	em_meta_free(q, sizeof(*q));
}

void em_ioq_destroy(struct em_ioq *q)
{
	destroy(q);
}

/*
 * The ring's memory is shared with the parent: unmapping and closing are all that may
 * be done.  What was in flight completes in the parent.
 */
void em_ioq_abandon(struct em_ioq *q)
{
	destroy(q);
}

bool em_ioq_is_uring(const struct em_ioq *q)
{
	return q->ring != NULL;
}

unsigned em_ioq_inflight(const struct em_ioq *q)
{
	return q->inflight;
}

size_t em_ioq_fds(const struct em_ioq *q, int *fds, size_t max)
{
	if (!q->ring || !max)
		return 0;
	fds[0] = *em_uring_fd((struct em_ioq *)q);
	return 1;
}

int em_ioq_move_fd(struct em_ioq *q, int old, int fd_min)
{
	int *ring_fd = q->ring ? em_uring_fd(q) : NULL;
	long fd;

	if (!ring_fd || *ring_fd != old)
		return -EBADF;
	fd = em_syscall3(SYS_fcntl, old, F_DUPFD_CLOEXEC, fd_min);
	if (fd == -EINVAL || fd == -EMFILE)
		fd = em_syscall3(SYS_fcntl, old, F_DUPFD_CLOEXEC, 3);
	if (em_is_err(fd))
		return (int)fd;
	__atomic_store_n(ring_fd, (int)fd, __ATOMIC_SEQ_CST);
	em_sys_close(old);
	return 0;
}

/* What would be refused by the kernel with more than an error, and injected failures. */
static int admit(struct em_ioq *q, const struct em_io *io)
{
	uint64_t bytes = (uint64_t)io->npages * EM_SLOT_SIZE;
	int r;

	if (bytes != em_iov_bytes(io->iov, io->iovcnt))
		return -EINVAL;
	if (io->write) {
		r = em_store_check_fsize(q->st, (uint64_t)io->slot * EM_SLOT_SIZE + bytes);
		if (r)
			return r;
	}
	/* the plain queue's transfers ask the hook themselves */
	return q->ring ? em_store_injected(q->st, io->write, io->slot, io->npages) : 0;
}

static void start(struct em_ioq *q, struct em_io *io)
{
	int r = admit(q, io);

	io->next = NULL;
	if (q->ring)
		em_uring_submit(q, io, r);
	else if (r < 0)
		em_ioq_done(q, io, r);
	else
		em_ioq_done(q, io, em_store_transfer(q->st, io->write, io->slot, io->iov,
						     io->iovcnt, 0));
}

/* A request that is to be late: the plain queue's transfers wait by themselves. */
static bool is_held(const struct em_ioq *q, const struct em_io *io)
{
	return q->ring &&
	       em_store_held(q->st, io->write, io->slot, io->npages, io->since_ns);
}

int em_ioq_submit(struct em_ioq *q, struct em_io *io)
{
	if (q->inflight >= q->depth)
		return -EAGAIN;
	q->inflight++;
	if (q->st->inject) {
		io->since_ns = em_store_now_ns();
		if (is_held(q, io)) {
			io->next = q->held;
			q->held = io;
			return 0;
		}
	}
	start(q, io);
	return 0;
}

static void start_held(struct em_ioq *q)
{
	for (struct em_io **at = &q->held; *at;) {
		struct em_io *io = *at;

		if (is_held(q, io)) {
			at = &io->next;
		} else {
			*at = io->next;
			start(q, io);
		}
	}
}

int em_ioq_flush(struct em_ioq *q)
{
	return q->ring ? em_uring_flush(q) : 0;
}

bool em_ioq_ready(const struct em_ioq *q)
{
	return q->done || (q->ring && em_uring_ready(q));
}

struct em_io *em_ioq_reap(struct em_ioq *q, unsigned wait_us)
{
	struct em_io *list;

	if (q->held) {
		start_held(q);
		if (q->held && !q->done && wait_us)
			em_store_pause_1ms();
		wait_us = 0;
	}
	if (q->ring)
		em_uring_reap(q, q->done ? 0 : wait_us);
	list = q->done;
	q->done = NULL;
	q->done_tail = &q->done;
	for (struct em_io *io = list; io; io = io->next)
		q->inflight--;
	return list;
}
