/* SPDX-License-Identifier: MIT */
/* System calls that read and write a thread's regions: pipes, files, sockets. */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Fits an empty pipe of 16 buffers even if each of IOVS writes begins a new one. */
#define PIECE 28672u
#define IOVS 7

void sys_open(struct thread *t)
{
	const char *dir = getenv("TMPDIR");
	char path[512];

	if (t->file > 0) {
		close(t->pipe[0]);
		close(t->pipe[1]);
		close(t->sock[0]);
		close(t->sock[1]);
		close(t->dgram[0]);
		close(t->dgram[1]);
		close(t->file);
	}
	snprintf(path, sizeof(path), "%s/torture-XXXXXX", dir ? dir : "/tmp");
	if (pipe2(t->pipe, O_CLOEXEC) != 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, t->sock) != 0 ||
	    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, t->dgram) != 0)
		fail("pipe or socketpair: %s", strerror(errno));
	t->file = mkostemp(path, O_CLOEXEC);
	if (t->file < 0)
		fail("%s: %s", path, strerror(errno));
	unlink(path);
}

static int cut(struct thread *t, uint64_t *base, size_t words, struct iovec *iov)
{
	int n = 0;

	while (words) {
		size_t take = n == IOVS - 1 ? words : 1 + rnd_below(t, words);

		iov[n++] = (struct iovec){ base, take * 8 };
		base += take;
		words -= take;
	}
	return n;
}

/* Moves the start of an iovec array on by `done` bytes. */
static void advance(struct iovec **iov, int *n, size_t done)
{
	while (*n && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n && done) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

static bool again(struct thread *t, ssize_t got, const char *call)
{
	if (got > 0)
		return false;
	if (got < 0 && errno == EINTR)
		return true;
	fail("%s of thread %u gave %zd: %s", call, t->id, got, got < 0 ? strerror(errno) : "end");
}

static void send_all(struct thread *t, int fd, uint64_t *src, size_t words, bool vec)
{
	struct iovec store[IOVS], *iov = store;
	int n = cut(t, src, words, store);
	ssize_t got;
	size_t left = words * 8;

	while (left) {
		got = vec ? writev(fd, iov, n) : write(fd, iov->iov_base, iov->iov_len);
		if (again(t, got, "write"))
			continue;
		advance(&iov, &n, (size_t)got);
		left -= (size_t)got;
	}
}

static void receive_all(struct thread *t, int fd, uint64_t *dst, size_t words, bool vec)
{
	struct iovec store[IOVS], *iov = store;
	int n = cut(t, dst, words, store);
	size_t left = words * 8;
	ssize_t got;

	while (left) {
		got = vec ? readv(fd, iov, n) : read(fd, iov->iov_base, iov->iov_len);
		if (again(t, got, "read"))
			continue;
		advance(&iov, &n, (size_t)got);
		left -= (size_t)got;
	}
}

static void via_stream(struct thread *t, int in, int out, uint64_t *src, uint64_t *dst,
		       size_t words)
{
	while (words) {
		size_t n = words < PIECE / 8 ? words : PIECE / 8;

		send_all(t, in, src, n, rnd(t) & 1);
		receive_all(t, out, dst, n, rnd(t) & 1);
		src += n;
		dst += n;
		words -= n;
	}
}

/* A datagram comes as a whole or the test has lost one. */
static void via_datagram(struct thread *t, uint64_t *src, uint64_t *dst, size_t words)
{
	struct iovec iov[IOVS];
	struct msghdr msg = { .msg_iov = iov };
	ssize_t got;

	while (words) {
		size_t n = words < PIECE / 8 ? words : PIECE / 8;

		msg.msg_iovlen = (size_t)cut(t, src, n, iov);
		do
			got = rnd(t) & 1 ? sendmsg(t->dgram[0], &msg, 0)
					 : send(t->dgram[0], src, n * 8, 0);
		while (got < 0 && errno == EINTR);
		if (got != (ssize_t)n * 8)
			fail("datagram of %zu bytes: sent %zd: %s", n * 8, got, strerror(errno));
		msg.msg_iovlen = (size_t)cut(t, dst, n, iov);
		do
			got = rnd(t) & 1 ? recvmsg(t->dgram[1], &msg, 0)
					 : recv(t->dgram[1], dst, n * 8, 0);
		while (got < 0 && errno == EINTR);
		if (got != (ssize_t)n * 8)
			fail("datagram of %zu bytes: received %zd: %s", n * 8, got,
			     strerror(errno));
		src += n;
		dst += n;
		words -= n;
	}
}

static void via_file(struct thread *t, uint64_t *src, uint64_t *dst, size_t words)
{
	off_t at = (off_t)rnd_below(t, 100000);
	size_t done = 0, bytes = words * 8;
	ssize_t got;

	while (done < bytes) {
		got = pwrite(t->file, (char *)src + done, bytes - done, at + (off_t)done);
		if (!again(t, got, "pwrite"))
			done += (size_t)got;
	}
	for (done = 0; done < bytes;) {
		got = pread(t->file, (char *)dst + done, bytes - done, at + (off_t)done);
		if (!again(t, got, "pread"))
			done += (size_t)got;
	}
}

/* What may not be accessed, the kernel may not access either. */
static void refused(struct thread *t)
{
	struct region *r = pick_region(t);
	size_t page, n;
	ssize_t got;
	char byte = 1;

	if (!pick_run(t, r, PG_NONE, true, 1, &page, &n) || r->meta[page].state == PG_RW)
		return;
	if (pwrite(t->file, &byte, 1, 0) != 1)
		fail("pwrite: %s", strerror(errno));
	got = pread(t->file, region_page(r, page), 1, 0);
	if (got != -1 || errno != EFAULT)
		fail("pread into a page without write permission gave %zd, errno %d", got, errno);
	if (r->meta[page].state == PG_NONE) {
		/* A pipe: file systems differ in how far they get. */
		got = write(t->pipe[1], region_page(r, page), 8);
		if (got != -1 || errno != EFAULT)
			fail("write from PROT_NONE gave %zd, errno %d", got, errno);
	}
	page_check(t, r, page, "after a refused system call");
}

static bool prepare(struct thread *t, struct region *r, size_t page, size_t n)
{
	for (; n--; page++) {
		if (r->meta[page].freed && r->meta[page].state != PG_RW)
			return false;
		page_settle(t, r, page);
	}
	return true;
}

void op_sys(struct thread *t)
{
	struct region *a = pick_region(t), *b = pick_region(t);
	size_t from, to, n, m, skip_a, skip_b, words, i;
	uint64_t *src, *dst, *copy;

	if (rnd_below(t, 6) == 0) {
		refused(t);
		return;
	}
	if (!pick_run(t, a, PG_RO, false, pick_len(t, a), &from, &n) ||
	    !pick_run(t, b, PG_RW, false, n, &to, &m))
		return;
	n = n < m ? n : m;
	if ((a == b && from < to + n && to < from + n) || !prepare(t, a, from, n) ||
	    !prepare(t, b, to, n))
		return;
	skip_a = rnd_below(t, 2) * rnd_below(t, WORDS);
	skip_b = rnd_below(t, 2) * rnd_below(t, WORDS);
	words = n * WORDS - (skip_a > skip_b ? skip_a : skip_b);
	src = region_page(a, from) + skip_a;
	dst = region_page(b, to) + skip_b;
	note(t, b, to, n, "system call wrote here", words);
	switch (rnd_below(t, 4)) {
	case 0:
		via_stream(t, t->pipe[1], t->pipe[0], src, dst, words);
		break;
	case 1:
		via_stream(t, t->sock[0], t->sock[1], src, dst, words);
		break;
	case 2:
		via_datagram(t, src, dst, words);
		break;
	default:
		via_file(t, src, dst, words);
	}
	copy = shadow_page(b, to) + skip_b;
	memcpy(copy, shadow_page(a, from) + skip_a, words * 8);
	for (i = 0; i < n; i++) {
		page_check(t, b, to + i, "after a system call");
		page_check(t, a, from + i, "source of a system call");
	}
}
