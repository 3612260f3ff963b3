/* SPDX-License-Identifier: MIT */
/* Requests that the kernel works on after the call: io_uring and Linux AIO. */
#define _GNU_SOURCE
#include "sys.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct ring {
	int fd;
	struct io_uring_params p;
	char *sq;
	struct io_uring_sqe *sqes;
	unsigned pending;
};

static unsigned *at(struct ring *r, unsigned off)
{
	return (unsigned *)(r->sq + off);
}

static bool ring_open(struct ring *r, unsigned flags)
{
	memset(r, 0, sizeof(*r));
	r->p.flags = flags;
	r->fd = (int)syscall(SYS_io_uring_setup, 8, &r->p);
	if (r->fd < 0)
		return false;
	r->sq = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	if (r->sq == MAP_FAILED)
		r->sq = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
			     IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, 8 * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		       IORING_OFF_SQES);
	return r->sq != MAP_FAILED && r->sqes != MAP_FAILED;
}

static void ring_close(struct ring *r)
{
	munmap(r->sq, 4096);
	munmap(r->sqes, 8 * sizeof(*r->sqes));
	close(r->fd);
}

static struct io_uring_sqe *request(struct ring *r, int op, int fd, void *addr, size_t len)
{
	unsigned tail = *at(r, r->p.sq_off.tail), i = tail & (r->p.sq_entries - 1);
	struct io_uring_sqe *s = &r->sqes[i];

	memset(s, 0, sizeof(*s));
	s->opcode = (unsigned char)op;
	s->fd = fd;
	s->addr = (uintptr_t)addr;
	s->len = (unsigned)len;
	at(r, r->p.sq_off.array)[i] = i;
	__atomic_store_n(at(r, r->p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	r->pending++;
	return s;
}

/* As liburing does: a sleeping thread is woken. */
static long submit(struct ring *r, unsigned wait)
{
	unsigned flags = wait ? IORING_ENTER_GETEVENTS : 0;
	long n = r->pending;

	if ((r->p.flags & IORING_SETUP_SQPOLL) &&
	    (*(volatile unsigned *)at(r, r->p.sq_off.flags) & IORING_SQ_NEED_WAKEUP))
		flags |= IORING_ENTER_SQ_WAKEUP;
	r->pending = 0;
	return syscall(SYS_io_uring_enter, r->fd, n, wait, flags, NULL, 0);
}

/* The result of the next completion; waits for it. */
static int result(struct ring *r)
{
	struct io_uring_cqe *c = (void *)(r->sq + r->p.cq_off.cqes);
	unsigned head = *at(r, r->p.cq_off.head);
	int res;

	while (__atomic_load_n(at(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE) == head)
		submit(r, 1);
	res = c[head & (r->p.cq_entries - 1)].res;
	__atomic_store_n(at(r, r->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
	return res;
}

static int data_file(void)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/async", sys_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	unlink(path);
	return fd;
}

static void file_through(struct ring *r)
{
	int fd = data_file(), i;
	struct iovec *v;
	char *a, *b;

	sys_reset();
	v = spot(2 * sizeof(*v));
	a = spot(4 * PG);
	b = spot(4 * PG);
	for (i = 0; i < 4; i++) {
		mm_fill(a, 4 * PG, (uint64_t)i);
		v[0] = (struct iovec){ b, 3 * PG };
		v[1] = (struct iovec){ b + 3 * PG, PG };
		cold();
		request(r, IORING_OP_WRITE, fd, a, 4 * PG);
		CHECK(submit(r, 1) == 1 && result(r) == 4 * PG);
		cold();
		request(r, i & 1 ? IORING_OP_READV : IORING_OP_READ, fd, i & 1 ? (char *)v : b,
			i & 1 ? 2 : 4 * PG);
		CHECK(submit(r, 1) == 1 && result(r) == 4 * PG);
		CHECK(mm_holds(b, 4 * PG, (uint64_t)i));
	}
	close(fd);
}

static void uring_files(void)
{
	struct ring r;

	if (!ring_open(&r, 0))
		SKIP("no io_uring");
	file_through(&r);
	ring_close(&r);
}

static void uring_with_a_polling_thread(void)
{
	struct ring r;

	if (!ring_open(&r, IORING_SETUP_SQPOLL))
		SKIP("no io_uring with SQPOLL");
	CHECK(r.p.flags & IORING_SETUP_SQPOLL);
	file_through(&r);
	ring_close(&r);
}

/* The buffer is asked for long before the data comes. */
static void uring_waits_for_a_socket(void)
{
	struct ring r;
	char *a;
	int sv[2], i;

	if (!ring_open(&r, 0))
		SKIP("no io_uring");
	sys_reset();
	a = spot_pages(16 * PG);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
	for (i = 0; i < 8; i++) {
		memset(a, 0, 16 * PG);
		cold();
		request(&r, IORING_OP_RECV, sv[0], a + i * PG, 2 * PG);
		request(&r, IORING_OP_NOP, -1, NULL, 0); /* the same user_data */
		CHECK(submit(&r, 0) == 2);
		CHECK(result(&r) == 0);
		cold();
		CHECK(send(sv[1], "here it is", 10, 0) == 10);
		CHECK(result(&r) == 10 && memcmp(a + i * PG, "here it is", 10) == 0);
	}
	ring_close(&r);
	close(sv[0]);
	close(sv[1]);
}

/* The kernel keeps the pages: what it writes there must be what the program sees. */
static void uring_registered_buffers(void)
{
	int fd = data_file(), i;
	struct iovec v;
	struct ring r;
	char *a, *b;

	if (!ring_open(&r, 0))
		SKIP("no io_uring");
	sys_reset();
	a = spot_pages(8 * PG);
	b = spot_pages(8 * PG);
	v = (struct iovec){ a, 8 * PG };
	cold();
	if (syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &v, 1) != 0)
		SKIP("registering buffers is refused");
	for (i = 0; i < 4; i++) {
		mm_fill(b, 8 * PG, (uint64_t)i + 40);
		CHECK(pwrite(fd, b, 8 * PG, 0) == 8 * PG);
		cold();
		request(&r, IORING_OP_READ_FIXED, fd, a, 8 * PG);
		CHECK(submit(&r, 1) == 1 && result(&r) == 8 * PG);
		CHECK(mm_holds(a, 8 * PG, (uint64_t)i + 40));
		mm_fill(a, 8 * PG, (uint64_t)i + 80);
		cold();
		request(&r, IORING_OP_WRITE_FIXED, fd, a, 8 * PG);
		CHECK(submit(&r, 1) == 1 && result(&r) == 8 * PG);
		CHECK(pread(fd, b, 8 * PG, 0) == 8 * PG && mm_holds(b, 8 * PG, (uint64_t)i + 80));
	}
	ring_close(&r);
	close(fd);
}

static void uring_provided_buffers(void)
{
	struct io_uring_sqe *s;
	struct ring r;
	int sv[2], i;
	char *a;

	if (!ring_open(&r, 0))
		SKIP("no io_uring");
	sys_reset();
	a = spot_pages(4 * PG);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
	for (i = 0; i < 4; i++) {
		cold();
		s = request(&r, IORING_OP_PROVIDE_BUFFERS, 1, a + i * PG, PG);
		s->buf_group = 7;
		CHECK(submit(&r, 1) == 1 && result(&r) >= 0);
		s = request(&r, IORING_OP_RECV, sv[0], NULL, PG);
		s->flags = IOSQE_BUFFER_SELECT;
		s->buf_group = 7;
		CHECK(submit(&r, 0) == 1);
		cold();
		CHECK(send(sv[1], "provided", 8, 0) == 8);
		CHECK(result(&r) == 8 && memcmp(a + i * PG, "provided", 8) == 0);
	}
	ring_close(&r);
	close(sv[0]);
	close(sv[1]);
}

static void uring_paths_and_times(void)
{
	struct io_uring_sqe *s;
	struct ring r;
	char *path, *sx;
	int64_t *ts;
	int fd;

	if (!ring_open(&r, 0))
		SKIP("no io_uring");
	sys_reset();
	path = spot_text("/proc/self/exe");
	sx = spot(256);
	ts = spot(16);
	ts[1] = 1000000;
	cold();
	request(&r, IORING_OP_OPENAT, AT_FDCWD, path, 0);
	CHECK(submit(&r, 1) == 1);
	fd = result(&r);
	CHECK(fd >= 0);
	close(fd);
	cold();
	s = request(&r, IORING_OP_STATX, AT_FDCWD, path, 0x7ff);
	s->addr2 = (uintptr_t)sx;
	CHECK(submit(&r, 1) == 1 && result(&r) == 0 && sx[0] != 0);
	cold();
	request(&r, IORING_OP_TIMEOUT, -1, ts, 1);
	CHECK(submit(&r, 1) == 1 && result(&r) == -ETIME);
	ring_close(&r);
}

static void aio_files(void)
{
	struct iocb *io, **list;
	struct io_event *ev;
	aio_context_t *ctx;
	int fd = data_file(), i;
	char *a, *b;

	sys_reset();
	ctx = spot(sizeof(*ctx));
	io = spot(2 * sizeof(*io));
	list = spot(2 * sizeof(*list));
	ev = spot(4 * sizeof(*ev));
	a = spot_pages(8 * PG);
	b = spot_pages(8 * PG);
	cold();
	if (syscall(SYS_io_setup, 8, ctx) != 0)
		SKIP("no AIO");
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT);
	for (i = 0; i < 20; i++) {
		mm_fill(a, 8 * PG, (uint64_t)i);
		memset(io, 0, 2 * sizeof(*io));
		io[0] = (struct iocb){ .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = (unsigned)fd,
				       .aio_buf = (uintptr_t)a, .aio_nbytes = 8 * PG };
		list[0] = &io[0];
		cold();
		CHECK(syscall(SYS_io_submit, *ctx, 1, list) == 1);
		cold();
		CHECK(syscall(SYS_io_getevents, *ctx, 1, 4, ev, NULL) == 1 && ev->res == 8 * PG);
		io[1] = io[0];
		io[1].aio_lio_opcode = IOCB_CMD_PREAD;
		io[1].aio_buf = (uintptr_t)b;
		list[0] = &io[1];
		cold();
		CHECK(syscall(SYS_io_submit, *ctx, 1, list) == 1);
		cold();
		CHECK(syscall(SYS_io_getevents, *ctx, 1, 4, ev, NULL) == 1 && ev->res == 8 * PG);
		CHECK(ev->obj == (uintptr_t)&io[1] && mm_holds(b, 8 * PG, (uint64_t)i));
	}
	CHECK(syscall(SYS_io_destroy, *ctx) == 0);
	close(fd);
}

const struct mm_test sys_async_tests[] = {
	SYS_TEST(uring_files), SYS_TEST(uring_with_a_polling_thread),
	SYS_TEST(uring_waits_for_a_socket), SYS_TEST(uring_registered_buffers),
	SYS_TEST(uring_provided_buffers), SYS_TEST(uring_paths_and_times), SYS_TEST(aio_files), { 0 }
};
