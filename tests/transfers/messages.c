/* SPDX-License-Identifier: MIT */
/* Messages are never split. */
#define _GNU_SOURCE
#include "transfers.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static size_t message = 700001; /* larger than a piece */

static void messages(int type, int fd[2])
{
	int room = 8 << 20;

	CHECK(socketpair(AF_UNIX, type, 0, fd) == 0);
	if (setsockopt(fd[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room))) {
		CHECK(errno == EPERM);
		message = 150001;
	}
}

void test_datagram_is_whole(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	int fd[2];

	messages(SOCK_DGRAM, fd);
	for (int i = 0; i < 3; i++) {
		CHECK(send(fd[1], from + i, message, 0) == (ssize_t)message);
		CHECK(write(fd[1], from, 5) == 5);
		CHECK(recv(fd[0], to, LARGE, 0) == (ssize_t)message && is_data(to, message, (size_t)i));
		CHECK(read(fd[0], to, LARGE) == 5);
		evict(from, LARGE);
		evict(to, LARGE);
	}
}

void test_datagram_is_cut_off(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	size_t room = message / 2;
	int fd[2];

	messages(SOCK_DGRAM, fd);
	CHECK(send(fd[1], from, message, 0) == (ssize_t)message && write(fd[1], from, 5) == 5);
	CHECK(recv(fd[0], to, room, MSG_PEEK) == (ssize_t)room && is_data(to, room, 0));
	memset(to, 0, room);
	CHECK(recv(fd[0], to, room, MSG_TRUNC) == (ssize_t)message && is_data(to, room, 0));
	CHECK(!to[room] && read(fd[0], to, LARGE) == 5);
}

void test_packets_keep_their_ends(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	struct iovec v[2] = { { from, message / 3 }, { from + message / 3, message - message / 3 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	int fd[2];

	messages(SOCK_SEQPACKET, fd);
	CHECK(sendmsg(fd[1], &m, MSG_EOR) == (ssize_t)message && write(fd[1], from, 5) == 5);
	v[0] = (struct iovec){ to, PAGE };
	v[1] = (struct iovec){ to + PAGE, LARGE - PAGE };
	CHECK(recvmsg(fd[0], &m, 0) == (ssize_t)message && is_data(to, message, 0));
	CHECK(!(m.msg_flags & MSG_TRUNC));
	CHECK(recvmsg(fd[0], &m, 0) == 5);
}

enum { MESSAGES = 4 };
static struct mmsghdr mm[MESSAGES];
static struct iovec mv[MESSAGES];

static struct mmsghdr *list(char *p, size_t each, size_t step)
{
	memset(mm, 0, sizeof(mm));
	for (size_t i = 0; i < MESSAGES; i++) {
		mv[i] = (struct iovec){ p + i * step, each };
		mm[i].msg_hdr.msg_iov = &mv[i];
		mm[i].msg_hdr.msg_iovlen = 1;
	}
	return mm;
}

void test_many_datagrams(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	int fd[2];

	messages(SOCK_DGRAM, fd);
	CHECK(sendmmsg(fd[1], list(from, message, 1), MESSAGES, 0) == MESSAGES);
	for (int i = 0; i < MESSAGES; i++)
		CHECK(mm[i].msg_len == message);
	CHECK(recvmmsg(fd[0], list(to, 600000, 600000), MESSAGES, 0, NULL) == MESSAGES);
	for (size_t i = 0; i < MESSAGES; i++) {
		CHECK(mm[i].msg_len == (message < 600000 ? message : 600000));
		CHECK(!!(mm[i].msg_hdr.msg_flags & MSG_TRUNC) == (message > 600000));
		CHECK(is_data(to + i * 600000, mm[i].msg_len, i));
	}
}

void test_many_datagrams_wait_for_one(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	struct timespec soon = { 0, 1000000 };
	int fd[2];

	messages(SOCK_DGRAM, fd);
	CHECK(send(fd[1], from, message, 0) == (ssize_t)message);
	CHECK(send(fd[1], from + 1, message, 0) == (ssize_t)message);
	CHECK(recvmmsg(fd[0], list(to, message, 700001), MESSAGES, MSG_WAITFORONE, NULL) == 2);
	CHECK(is_data(to, message, 0) && is_data(to + 700001, message, 1));
	CHECK(recvmmsg(fd[0], list(to, message, 700001), MESSAGES, MSG_DONTWAIT, &soon) == -1);
	CHECK(errno == EAGAIN);
}
