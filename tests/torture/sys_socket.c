/* SPDX-License-Identifier: MIT */
/* Sockets: buffers, addresses, headers and control messages in cold memory. */
#define _GNU_SOURCE
#include "sys.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static void socket_stream(void)
{
	int *sv;
	char *a;

	sys_reset();
	sv = spot(2 * sizeof(int));
	a = spot(16 * PG);
	cold();
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
	mm_fill(a, 8 * PG, 1);
	cold();
	CHECK(send(sv[0], a, 8 * PG, 0) == 8 * PG);
	cold();
	CHECK(recv(sv[1], a + 8 * PG, 8 * PG, MSG_WAITALL) == 8 * PG);
	CHECK(mm_holds(a + 8 * PG, 8 * PG, 1));
	cold();
	CHECK(send(sv[0], a, 100, 0) == 100);
	cold();
	CHECK(recv(sv[1], a + PG, 200, MSG_PEEK) == 100);
	cold();
	CHECK(recv(sv[1], a + 2 * PG, 200, 0) == 100);
	CHECK(memcmp(a, a + 2 * PG, 100) == 0 && memcmp(a, a + PG, 100) == 0);
	close(sv[0]);
	close(sv[1]);
}

/* A datagram is gone once the kernel has given it out: a call that fails half-way loses it. */
static void socket_datagrams_with_addresses(void)
{
	struct sockaddr_in *a, *from;
	socklen_t *len;
	int s[2], i;
	char *buf;

	sys_reset();
	a = spot(sizeof(*a));
	from = spot(sizeof(*from));
	len = spot(sizeof(*len));
	buf = spot(4 * PG);
	s[0] = socket(AF_INET, SOCK_DGRAM, 0);
	s[1] = socket(AF_INET, SOCK_DGRAM, 0);
	a->sin_family = AF_INET;
	a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cold();
	CHECK(bind(s[1], (struct sockaddr *)a, sizeof(*a)) == 0);
	*len = sizeof(*a);
	cold();
	CHECK(getsockname(s[1], (struct sockaddr *)a, len) == 0 && a->sin_port != 0);
	for (i = 0; i < 8; i++) {
		mm_fill(buf, PG, (uint64_t)i);
		cold();
		CHECK(sendto(s[0], buf, PG, 0, (struct sockaddr *)a, sizeof(*a)) == PG);
		*len = sizeof(*from);
		cold();
		CHECK(recvfrom(s[1], buf + 2 * PG, 2 * PG, 0, (struct sockaddr *)from, len) == PG);
		CHECK(mm_holds(buf + 2 * PG, PG, (uint64_t)i));
		CHECK(*len == sizeof(*from) && from->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	}
	close(s[0]);
	close(s[1]);
}

struct message {
	struct msghdr hdr;
	struct iovec iov[3];
	struct sockaddr_un name;
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int)) + 64];
	} control;
};

static struct message *message(char *buf, size_t part)
{
	struct message *m = spot(sizeof(*m));
	int i;

	for (i = 0; i < 3; i++)
		m->iov[i] = (struct iovec){ buf + (size_t)i * 3 * PG, part };
	m->hdr.msg_iov = m->iov;
	m->hdr.msg_iovlen = 3;
	m->hdr.msg_control = &m->control;
	m->hdr.msg_controllen = CMSG_SPACE(sizeof(int));
	return m;
}

static void socket_messages_with_descriptors(void)
{
	struct message *out, *in;
	struct cmsghdr *c;
	char *a, *b, x = 0;
	int sv[2], fds[2], got;

	sys_reset();
	a = spot(10 * PG);
	b = spot(10 * PG);
	out = message(a, PG);
	in = message(b, PG);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0 && pipe(fds) == 0);
	mm_fill(a, 10 * PG, 2);
	c = CMSG_FIRSTHDR(&out->hdr);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fds[1], sizeof(int));
	cold();
	CHECK(sendmsg(sv[0], &out->hdr, 0) == 3 * PG);
	cold();
	CHECK(recvmsg(sv[1], &in->hdr, 0) == 3 * PG);
	CHECK(memcmp(b, a, PG) == 0 && memcmp(b + 3 * PG, a + 3 * PG, PG) == 0 &&
	      memcmp(b + 6 * PG, a + 6 * PG, PG) == 0);
	c = CMSG_FIRSTHDR(&in->hdr);
	CHECK(c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)));
	memcpy(&got, CMSG_DATA(c), sizeof(int));
	CHECK(write(got, "!", 1) == 1 && read(fds[0], &x, 1) == 1 && x == '!');
	close(got);
	close(fds[0]);
	close(fds[1]);
	close(sv[0]);
	close(sv[1]);
}

static void socket_many_messages(void)
{
	struct mmsghdr *out, *in;
	struct message *m;
	char *a, *b;
	int sv[2], i;

	sys_reset();
	out = spot(2 * sizeof(*out));
	in = spot(2 * sizeof(*in));
	a = spot(20 * PG);
	b = spot(20 * PG);
	mm_fill(a, 20 * PG, 3);
	for (i = 0; i < 2; i++) {
		m = message(a + i * 10 * PG, 1000);
		m->hdr.msg_control = NULL;
		m->hdr.msg_controllen = 0;
		out[i].msg_hdr = m->hdr;
		m = message(b + i * 10 * PG, 1000);
		m->hdr.msg_control = NULL;
		m->hdr.msg_controllen = 0;
		in[i].msg_hdr = m->hdr;
	}
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0);
	cold();
	CHECK(sendmmsg(sv[0], out, 2, 0) == 2);
	cold();
	CHECK(recvmmsg(sv[1], in, 2, 0, NULL) == 2);
	CHECK(in[0].msg_len == 3000 && in[1].msg_len == 3000);
	for (i = 0; i < 20; i += 3)
		if (i % 10 < 7 && i < 10)
			CHECK(memcmp(a + i * PG, b + i * PG, 1000) == 0);
	CHECK(memcmp(a + 16 * PG, b + 16 * PG, 1000) == 0);
	close(sv[0]);
	close(sv[1]);
}

static void socket_connect_and_accept(void)
{
	struct sockaddr_un *a;
	struct linger *l;
	socklen_t *len;
	int *value, s, c, d;

	sys_reset();
	a = spot(sizeof(*a));
	len = spot(sizeof(*len));
	value = spot(sizeof(*value));
	l = spot(sizeof(*l));
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path, sys_dir());
	strcat(a->sun_path, "/socket");
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	c = socket(AF_UNIX, SOCK_STREAM, 0);
	cold();
	CHECK(bind(s, (struct sockaddr *)a, sizeof(*a)) == 0 && listen(s, 2) == 0);
	cold();
	CHECK(connect(c, (struct sockaddr *)a, sizeof(*a)) == 0);
	*len = sizeof(*a);
	cold();
	d = accept4(s, (struct sockaddr *)a, len, SOCK_CLOEXEC);
	CHECK(d >= 0 && *len == sizeof(sa_family_t));
	*len = sizeof(*a);
	cold();
	CHECK(getpeername(c, (struct sockaddr *)a, len) == 0 && a->sun_family == AF_UNIX);
	*len = sizeof(*value);
	cold();
	CHECK(getsockopt(c, SOL_SOCKET, SO_TYPE, value, len) == 0 && *value == SOCK_STREAM);
	l->l_onoff = 1;
	l->l_linger = 3;
	cold();
	CHECK(setsockopt(c, SOL_SOCKET, SO_LINGER, l, sizeof(*l)) == 0);
	l->l_linger = 0;
	*len = sizeof(*l);
	cold();
	CHECK(getsockopt(c, SOL_SOCKET, SO_LINGER, l, len) == 0 && l->l_linger == 3);
	cold();
	CHECK(unlink(a->sun_path) == 0);
	close(s);
	close(c);
	close(d);
}

const struct mm_test sys_socket_tests[] = {
	SYS_TEST(socket_stream), SYS_TEST(socket_datagrams_with_addresses),
	SYS_TEST(socket_messages_with_descriptors), SYS_TEST(socket_many_messages),
	SYS_TEST(socket_connect_and_accept), { 0 }
};
