/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "transfers.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int fd[2];
static size_t amount;

static void *send_in_odd_pieces(void *arg)
{
	for (size_t at = 0; at < amount;) {
		size_t n = at % 77777 + 1;

		if (n > amount - at)
			n = amount - at;
		CHECK(send(fd[1], (char *)arg + at, n, 0) == (ssize_t)n);
		at += n;
	}
	CHECK(shutdown(fd[1], SHUT_WR) == 0);
	return NULL;
}

static void receive_all(ssize_t expected)
{
	char *to = empty_buffer();
	pthread_t t;

	amount = (size_t)expected;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	CHECK(pthread_create(&t, NULL, send_in_odd_pieces, full_buffer()) == 0);
	CHECK(recv(fd[0], to, LARGE, MSG_WAITALL) == expected);
	CHECK(is_data(to, (size_t)expected, 0) && (expected == LARGE || !to[expected]));
	CHECK(recv(fd[0], to, LARGE, MSG_WAITALL) == 0);
	CHECK(pthread_join(t, NULL) == 0);
}

void test_stream_waits_for_all(void)
{
	receive_all(LARGE);
}

void test_stream_ends_before_all(void)
{
	receive_all(LARGE / 2 + 12345);
}

void test_stream_nonblocking(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	ssize_t sent, got;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
	CHECK(recv(fd[0], to, LARGE, 0) == -1 && errno == EAGAIN);
	for (size_t at = 0; at < LARGE; at += (size_t)got) {
		size_t full = at;

		while ((sent = full % 2 ? send(fd[1], from + full, LARGE - full, 0)
					: write(fd[1], from + full, LARGE - full)) > 0)
			full += (size_t)sent;
		CHECK(full > at && (full == LARGE || errno == EAGAIN));
		got = read(fd[0], to, LARGE);
		CHECK(got == (ssize_t)(full - at) && is_data(to, (size_t)got, at));
		CHECK(read(fd[0], to, LARGE) == -1 && errno == EAGAIN);
	}
}

void test_pipe_takes_what_fits(void)
{
	char *from = full_buffer();

	CHECK(pipe2(fd, O_NONBLOCK) == 0 && fcntl(fd[1], F_SETPIPE_SZ, MIB) == MIB);
	CHECK(write(fd[1], from, LARGE) == MIB);
	CHECK(write(fd[1], from, LARGE) == -1 && errno == EAGAIN);
	drain(fd[0], MIB, 0);
	CHECK(write(fd[1], from + MIB, LARGE - MIB) == MIB);
	drain(fd[0], MIB, MIB);
}

void test_pipe_gives_what_it_has(void)
{
	char *from = full_buffer(), *to = empty_buffer();

	CHECK(pipe(fd) == 0 && fcntl(fd[1], F_SETPIPE_SZ, MIB) == MIB);
	for (size_t n = 200000; n <= MIB; n += 84857) {
		CHECK(write(fd[1], from, n) == (ssize_t)n);
		CHECK(read(fd[0], to, LARGE) == (ssize_t)n && is_data(to, n, 0));
	}
}

static volatile int signals;

static void count(int n)
{
	(void)n;
	signals++;
}

static void *read_some_and_go(void *arg)
{
	drain(fd[0], 600000, 0);
	close(fd[0]);
	return arg;
}

static ssize_t write_to_one_who_goes(void)
{
	pthread_t t;
	ssize_t n;

	signal(SIGPIPE, count);
	CHECK(pthread_create(&t, NULL, read_some_and_go, NULL) == 0);
	n = write(fd[1], full_buffer(), LARGE);
	CHECK(pthread_join(t, NULL) == 0);
	return n;
}

void test_socket_peer_goes_away(void)
{
	ssize_t n;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	n = write_to_one_who_goes();
	CHECK(n >= 600000 && n < (ssize_t)LARGE && signals == 0);
	CHECK(write(fd[1], "x", 1) == -1 && errno == EPIPE && signals == 1);
}

void test_pipe_reader_goes_away(void)
{
	CHECK(pipe(fd) == 0);
	CHECK(write_to_one_who_goes() >= 600000 && signals == 1);
}

/* The descriptor comes with the first byte, and once. */
void test_stream_message_with_descriptor(void)
{
	char space[2][CMSG_SPACE(sizeof(int))], *to = empty_buffer();
	struct iovec v = { full_buffer(), LARGE };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = space[0],
			    .msg_controllen = sizeof(space[0]) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	size_t got = 0, descriptors = 0;
	pid_t pid;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
			       .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(c), &fd[1], sizeof(int));
	pid = fork();
	if (!pid)
		_exit(sendmsg(fd[1], &m, 0) != (ssize_t)LARGE);
	close(fd[1]);
	while (got < LARGE) {
		ssize_t n;

		v = (struct iovec){ to, LARGE };
		m = (struct msghdr){ .msg_iov = &v, .msg_iovlen = 1, .msg_control = space[1],
				     .msg_controllen = sizeof(space[1]) };
		n = recvmsg(fd[0], &m, 0);
		CHECK(n > 0 && is_data(to, (size_t)n, got) && !(m.msg_flags & MSG_CTRUNC));
		if (m.msg_controllen)
			CHECK(++descriptors == 1 && got == 0);
		got += (size_t)n;
	}
	CHECK(got == LARGE && descriptors == 1);
}

/* ---- memory that becomes managed under a call ------------------------------------------------------- */

static void *read_one_page(void *arg)
{
	CHECK(read(fd[0], arg, PAGE) == (ssize_t)PAGE);
	return NULL;
}

static void *read_two_parts(void *arg)
{
	struct iovec v[2] = { { arg, 100 }, { (char *)arg + 100, PAGE - 100 } };

	CHECK(readv(fd[0], v, 2) == (ssize_t)PAGE);
	return NULL;
}

/* A thread sleeps over the third page of p while `change` happens. */
static void change_under_a_reader(const char *from, char *p, void (*change)(char *p),
				  void *(*reader)(void *))
{
	pthread_t t;

	CHECK(pipe(fd) == 0);
	CHECK(pthread_create(&t, NULL, reader, p + 2 * PAGE) == 0);
	usleep(100000);
	change(p);
	CHECK(write(fd[1], from, PAGE) == (ssize_t)PAGE);
	CHECK(pthread_join(t, NULL) == 0 && is_data(p + 2 * PAGE, PAGE, 0));
	close(fd[0]);
	close(fd[1]);
	CHECK(munmap(p, LARGE) == 0);
}

static void grow(char *p)
{
	CHECK(mremap(p, 4 * PAGE, LARGE, 0) == p);
}

static void replace(char *p)
{
	CHECK(mmap(p, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
}

/* Addresses of which the neighbours are free as well, as far as one entry of an address table may reach. */
static char *map_apart(size_t bytes, int flags)
{
	const size_t apart = 2 * MIB, room = LARGE + 2 * apart;
	char *p = mmap(NULL, room, PROT_NONE, MAP_ANONYMOUS | MAP_SHARED, -1, 0), *at;

	CHECK(p != MAP_FAILED && munmap(p, room) == 0);
	at = (char *)(((uintptr_t)p + apart - 1) & ~(apart - 1));
	p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags, -1, 0);
	CHECK(p == at);
	return p;
}

void test_read_sleeps_while_its_mapping_grows(void)
{
	char *from = full_buffer();

	for (int i = 0; i < 2; i++)
		change_under_a_reader(from, map_apart(4 * PAGE, MAP_PRIVATE), grow,
				      i ? read_two_parts : read_one_page);
}

void test_read_sleeps_while_its_mapping_is_replaced(void)
{
	char *from = full_buffer();

	for (int i = 0; i < 2; i++)
		change_under_a_reader(from, map_apart(LARGE, MAP_SHARED), replace,
				      i ? read_two_parts : read_one_page);
}
