/* SPDX-License-Identifier: MIT */
/*
 * The asynchronous queue on io_uring. [sigsafe]
 *
 * Straight on the system calls: liburing is built with stack protectors, which need
 * thread-local storage that a raw service thread may not have.
 *
 * The data file is a registered file: its number may change (em_store_move_fd) while
 * requests are queued.  Every request in flight has a `struct req`; it has at most one entry in
 * the rings at a time and the rings have at least `depth` entries, so they cannot overflow.
 */
#include "internal.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>
#include <time.h>

#include "../core/meta.h"

enum {
	CUT = 16,	/* elements of a partial vector */
	MAX_TRIES = 16, /* then the request is finished synchronously */
};

struct req {
	struct em_io *io;
	uint64_t done; /* bytes, whole pages */
	unsigned tries;
	uint32_t next_free;
	struct iovec cut[CUT];
};

struct em_uring {
	int fd;
	bool ext_arg;
	unsigned depth;
	uint32_t *sq_head, *sq_tail, *sq_flags, *sq_array;
	uint32_t *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	void *sq_ring, *cq_ring;
	size_t sq_bytes, cq_bytes, sqes_bytes, req_bytes;
	uint32_t free_req; /* head of the free list, UINT32_MAX: none */
	uint32_t in_kernel; /* entries handed over and not completed */
	struct req req[];
};

int *em_uring_fd(struct em_ioq *q)
{
	return &q->ring->fd;
}

/* ---- set-up ------------------------------------------------------------------- */

static long setup(unsigned depth, struct io_uring_params *p)
{
	/* Fewer interruptions of the thread by completions: 5.19. */
	static const uint32_t flags[] = {
#ifdef IORING_SETUP_COOP_TASKRUN
		IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
#endif
		IORING_SETUP_CLAMP, 0};
	long fd = -EINVAL;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]) && fd == -EINVAL; i++) {
		em_memzero(p, sizeof(*p));
		p->flags = flags[i];
		fd = em_syscall2(SYS_io_uring_setup, depth, p);
	}
	return fd;
}

/* Never where the kernel likes: the program may be about to map something of its own there.  A
   place of ours cannot be named: mapping a ring with an address, MAP_FIXED or not, and moving it
   with mremap end in EINVAL (seen on 6.1.y, 6.12 and 6.18).  So in the low range that the kernel
   uses for MAP_32BIT only. */
static void *map_ring(int fd, size_t bytes, uint64_t off)
{
	long p = em_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_POPULATE | MAP_32BIT, fd, (int64_t)off);

	return em_is_err(p) ? NULL : (void *)p;
}

static void unmap_ring(void *ring, size_t bytes)
{
	if (ring)
		em_sys_munmap(ring, bytes);
}

static int map_rings(struct em_uring *r, const struct io_uring_params *p)
{
	char *sq, *cq;

	r->sq_bytes = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	r->cq_bytes = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	r->sqes_bytes = p->sq_entries * sizeof(struct io_uring_sqe);
	r->sq_ring = map_ring(r->fd, r->sq_bytes, IORING_OFF_SQ_RING);
	r->cq_ring = map_ring(r->fd, r->cq_bytes, IORING_OFF_CQ_RING);
	r->sqes = map_ring(r->fd, r->sqes_bytes, IORING_OFF_SQES);
	sq = r->sq_ring;
	cq = r->cq_ring;
	if (!sq || !cq || !r->sqes)
		return -ENOMEM;
	r->sq_head = (uint32_t *)(sq + p->sq_off.head);
	r->sq_tail = (uint32_t *)(sq + p->sq_off.tail);
	r->sq_flags = (uint32_t *)(sq + p->sq_off.flags);
	r->sq_array = (uint32_t *)(sq + p->sq_off.array);
	r->sq_mask = *(uint32_t *)(sq + p->sq_off.ring_mask);
	r->cq_head = (uint32_t *)(cq + p->cq_off.head);
	r->cq_tail = (uint32_t *)(cq + p->cq_off.tail);
	r->cq_mask = *(uint32_t *)(cq + p->cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(cq + p->cq_off.cqes);
	r->ext_arg = p->features & IORING_FEAT_EXT_ARG;
	return 0;
}

void em_uring_destroy(struct em_ioq *q)
{
	struct em_uring *r = q->ring;

	q->ring = NULL;
	unmap_ring(r->sq_ring, r->sq_bytes);
	unmap_ring(r->cq_ring, r->cq_bytes);
	unmap_ring(r->sqes, r->sqes_bytes);
	em_sys_close(r->fd);
	em_meta_free(r, r->req_bytes);
}

static int register_file(struct em_uring *r, struct em_store *st)
{
	uint32_t phase;
	int fd = em_store_fd_enter(st, &phase);
	long err = em_syscall4(SYS_io_uring_register, r->fd, IORING_REGISTER_FILES, &fd, 1);

	em_store_fd_exit(st, phase);
	return (int)err;
}

int em_uring_create(struct em_ioq *q, int fd_min)
{
	size_t bytes = sizeof(struct em_uring) + q->depth * sizeof(struct req);
	struct em_uring *r = em_meta_alloc(bytes);
	struct io_uring_params p;
	long fd;
	int err;

	if (!r)
		return -ENOMEM;
	fd = setup(q->depth, &p);
	if (em_is_err(fd)) {
		em_meta_free(r, bytes);
		return (int)fd;
	}
	r->fd = em_fd_raise((int)fd, fd_min);
	r->req_bytes = bytes;
	q->ring = r;
	err = map_rings(r, &p);
	if (!err && p.sq_entries < q->depth)
		err = -ENOMEM;
	if (!err)
		err = register_file(r, q->st);
	if (err) {
		em_uring_destroy(q);
		return err;
	}
	r->depth = q->depth;
	for (uint32_t i = 0; i < r->depth; i++)
		r->req[i].next_free = i + 1 < r->depth ? i + 1 : UINT32_MAX;
	return 0;
}

/* ---- requests ----------------------------------------------------------------- */

/* Queues the rest of request i; max: bytes at most, 0: all. */
static void queue_sqe(struct em_uring *r, uint32_t i, uint64_t max)
{
	struct req *q = &r->req[i];
	uint32_t tail = *r->sq_tail, at = tail & r->sq_mask;
	struct io_uring_sqe *sqe = &r->sqes[at];
	const struct iovec *iov = q->io->iov;
	int cnt = q->io->iovcnt;

	if (q->done || max || cnt > EM_IOV_MAX) {
		cnt = em_iov_cut(iov, cnt, q->done, max ? max : UINT64_MAX, q->cut, CUT);
		iov = q->cut;
	}
	em_memzero(sqe, sizeof(*sqe));
	sqe->opcode = q->io->write ? IORING_OP_WRITEV : IORING_OP_READV;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = 0;
	sqe->off = (uint64_t)q->io->slot * EM_SLOT_SIZE + q->done;
	sqe->addr = (uintptr_t)iov;
	sqe->len = (uint32_t)cnt;
	sqe->user_data = i;
	r->sq_array[at] = at;
	/* pairs with the kernel's acquire: the entry is complete before the tail says so */
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static void complete(struct em_ioq *q, uint32_t i, int res);

/* limit < 0: as if the kernel had completed it so. */
void em_uring_submit(struct em_ioq *q, struct em_io *io, int limit)
{
	struct em_uring *r = q->ring;
	uint32_t i = r->free_req;
	struct req *rq = &r->req[i];

	r->free_req = rq->next_free;
	rq->io = io;
	rq->done = 0;
	rq->tries = 0;
	if (limit < 0)
		complete(q, i, limit);
	else
		queue_sqe(r, i, (uint64_t)limit);
}

static void finish(struct em_ioq *q, uint32_t i, int result)
{
	struct em_uring *r = q->ring;
	struct req *rq = &r->req[i];

	em_ioq_done(q, rq->io, result);
	rq->io = NULL;
	rq->next_free = r->free_req;
	r->free_req = i;
}

static void finish_sync(struct em_ioq *q, uint32_t i)
{
	struct em_io *io = q->ring->req[i].io;

	finish(q, i, em_store_transfer(q->st, io->write, io->slot, io->iov, io->iovcnt,
				       q->ring->req[i].done));
}

static void complete(struct em_ioq *q, uint32_t i, int res)
{
	struct req *rq = &q->ring->req[i];
	bool again = res == -EAGAIN || res == -EINTR || res == -ECANCELED || res == -ENOMEM;
	int limit;

	if (res < 0 && !again) {
		finish(q, i, res);
		return;
	}
	if (res == 0) { /* end of file: nothing was ever written there */
		finish(q, i, -EIO);
		return;
	}
	if (res > 0)
		rq->done += (uint64_t)res & ~(uint64_t)(EM_SLOT_SIZE - 1);
	if (rq->done >= (uint64_t)rq->io->npages * EM_SLOT_SIZE) {
		finish(q, i, 0);
		return;
	}
	if ((again || res < (int)EM_SLOT_SIZE) && ++rq->tries > MAX_TRIES) {
		finish_sync(q, i);
		return;
	}
	limit = em_store_injected(q->st, rq->io->write,
				  rq->io->slot + (uint32_t)(rq->done / EM_SLOT_SIZE),
				  rq->io->npages - (uint32_t)(rq->done / EM_SLOT_SIZE));
	if (limit == -EAGAIN || limit == -EINTR) /* to be tried again anyhow */
		queue_sqe(q->ring, i, 0);
	else if (limit < 0)
		finish(q, i, limit);
	else
		queue_sqe(q->ring, i, (uint64_t)limit);
}

static void collect(struct em_ioq *q)
{
	struct em_uring *r = q->ring;
	uint32_t head = *r->cq_head;

	/* pairs with the kernel's release of the tail: the entries are complete */
	while (head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) {
		const struct io_uring_cqe *cqe = &r->cqes[head & r->cq_mask];
		uint32_t i = (uint32_t)cqe->user_data;
		int res = cqe->res;

		/* release: the kernel reuses the entry only after we have read it */
		__atomic_store_n(r->cq_head, ++head, __ATOMIC_RELEASE);
		r->in_kernel--;
		complete(q, i, res);
	}
}

/* ---- entering the kernel ------------------------------------------------------- */

static uint32_t queued(const struct em_uring *r)
{
	return *r->sq_tail - __atomic_load_n(r->sq_head, __ATOMIC_ACQUIRE);
}

static void poll_ring(struct em_uring *r, uint64_t wait_ns)
{
	struct timespec ts = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
	struct pollfd pfd = {.fd = __atomic_load_n(&r->fd, __ATOMIC_RELAXED), .events = POLLIN};

	em_syscall5(SYS_ppoll, &pfd, 1, &ts, NULL, 0);
}

/* Submits all that is queued and waits up to wait_ns for a completion (0: does not wait). */
static long enter(struct em_uring *r, uint64_t wait_ns, unsigned flags)
{
	struct __kernel_timespec ts = {(long long)(wait_ns / 1000000000u),
				       (long long)(wait_ns % 1000000000u)};
	struct io_uring_getevents_arg arg = {.ts = (uintptr_t)&ts};
	uint32_t n = queued(r);
	int fd = __atomic_load_n(&r->fd, __ATOMIC_SEQ_CST);
	long ret;

	if (wait_ns && r->ext_arg) {
		flags |= IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
		ret = em_syscall6(SYS_io_uring_enter, fd, n, 1, flags, (long)&arg, sizeof(arg));
	} else {
		ret = em_syscall6(SYS_io_uring_enter, fd, n, 0, flags, 0, 0);
	}
	/* What was consumed is what left the ring, also when an error is reported for the wait. */
	r->in_kernel += n - queued(r);
	if (em_is_err(ret) && fd != __atomic_load_n(&r->fd, __ATOMIC_SEQ_CST))
		return -EINTR; /* em_ioq_move_fd came between */
	if (wait_ns && !r->ext_arg && !em_is_err(ret))
		poll_ring(r, wait_ns);
	return ret;
}

/*
 * The kernel does not take the queued requests (a seccomp filter installed since, no
 * memory): they are withdrawn, which only we can do and the kernel does not look meanwhile,
 * and executed here.
 */
static void drain_sync(struct em_ioq *q)
{
	struct em_uring *r = q->ring;
	uint32_t head = __atomic_load_n(r->sq_head, __ATOMIC_ACQUIRE), tail = *r->sq_tail;

	__atomic_store_n(r->sq_tail, head, __ATOMIC_RELEASE);
	for (; head != tail; head++)
		finish_sync(q, (uint32_t)r->sqes[head & r->sq_mask].user_data);
}

int em_uring_flush(struct em_ioq *q)
{
	struct em_uring *r = q->ring;

	while (queued(r)) {
		long ret = enter(r, 0, 0);

		if (ret == -EINTR)
			continue;
		if (ret == -EBUSY && r->in_kernel) { /* completions wait to be collected */
			enter(r, 0, IORING_ENTER_GETEVENTS);
			collect(q);
			continue;
		}
		if (em_is_err(ret) || ret == 0) {
			drain_sync(q);
			break;
		}
	}
	return 0;
}

static bool kernel_has_work(const struct em_uring *r)
{
	uint32_t mask = IORING_SQ_CQ_OVERFLOW;

#ifdef IORING_SQ_TASKRUN
	mask |= IORING_SQ_TASKRUN;
#endif
	return __atomic_load_n(r->sq_flags, __ATOMIC_RELAXED) & mask;
}

bool em_uring_ready(const struct em_ioq *q)
{
	const struct em_uring *r = q->ring;

	return *r->cq_head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) || kernel_has_work(r);
}

void em_uring_reap(struct em_ioq *q, unsigned wait_us)
{
	struct em_uring *r = q->ring;
	uint64_t end = 0, now, left;
	long ret;

	collect(q);
	em_uring_flush(q); /* requests that go on after a short transfer, and any others */
	if (!q->done && kernel_has_work(r)) {
		enter(r, 0, IORING_ENTER_GETEVENTS);
		collect(q);
		em_uring_flush(q);
	}
	while (wait_us && !q->done && (r->in_kernel || queued(r))) {
		now = em_store_now_ns();
		if (!end)
			end = now + (uint64_t)wait_us * 1000;
		if (now >= end)
			break;
		left = end - now;
		ret = enter(r, left, 0);
		/* whoever may not enter any more can still sleep until a completion */
		if (em_is_err(ret) && ret != -ETIME && ret != -EINTR)
			poll_ring(r, left < 1000000 ? left : 1000000);
		collect(q);
		em_uring_flush(q);
	}
}
