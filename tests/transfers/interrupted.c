/* SPDX-License-Identifier: MIT */
/* Signals in the middle: a part that is done is returned, with SA_RESTART too. */
#define _GNU_SOURCE
#include "transfers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int fd[2];
static size_t to_read;
static pthread_t writer;
static volatile int signals;

static void count(int n)
{
	(void)n;
	signals++;
}

static void handle(int signo, int flags)
{
	struct sigaction sa = { .sa_handler = count, .sa_flags = flags };

	CHECK(sigaction(signo, &sa, NULL) == 0);
}

/* Is there no room any more, and nobody who is about to make some? */
static void wait_until_full(void)
{
	struct pollfd p = { .fd = fd[1], .events = POLLOUT };
	int before = -1, now = 0;

	while (poll(&p, 1, 0) || before != now) {
		before = now;
		usleep(20000);
		CHECK(ioctl(fd[0], FIONREAD, &now) == 0);
	}
}

static void *read_and_interrupt(void *arg)
{
	drain(fd[0], to_read, 0);
	wait_until_full();
	CHECK(pthread_kill(writer, SIGUSR1) == 0);
	return arg;
}

static size_t interrupted_write(int flags, size_t amount)
{
	char *from = full_buffer();
	pthread_t t;
	ssize_t n;

	to_read = amount;
	writer = pthread_self();
	handle(SIGUSR1, flags);
	CHECK(pthread_create(&t, NULL, read_and_interrupt, NULL) == 0);
	n = write(fd[1], from, LARGE);
	CHECK(signals == 1 && n > (ssize_t)to_read && n < (ssize_t)LARGE);
	CHECK(pthread_join(t, NULL) == 0);
	drain(fd[0], (size_t)n - to_read, to_read);
	return (size_t)n;
}

void test_interrupted_pipe_write(void)
{
	CHECK(pipe(fd) == 0);
	CHECK(interrupted_write(0, MIB + 4096) == to_read + 65536);
}

void test_interrupted_pipe_write_restarting(void)
{
	/* In the middle of a piece, and where one begins. */
	for (int i = 0; i < 2; i++) {
		signals = 0;
		CHECK(pipe(fd) == 0);
		CHECK(interrupted_write(SA_RESTART, i ? MIB - 65536 : MIB + 4096) == to_read + 65536);
	}
}

void test_interrupted_socket_write(void)
{
	for (int i = 0; i < 2; i++) {
		signals = 0;
		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
		interrupted_write(i ? SA_RESTART : 0, MIB + 4096);
	}
}

static void *send_and_interrupt(void *arg)
{
	int left = 1;

	CHECK(send(fd[1], arg, to_read, 0) == (ssize_t)to_read);
	while (left) {
		usleep(10000);
		CHECK(ioctl(fd[0], FIONREAD, &left) == 0);
	}
	usleep(20000);
	CHECK(pthread_kill(writer, SIGUSR1) == 0);
	return NULL;
}

void test_interrupted_waitall(void)
{
	char *from = full_buffer();

	for (int i = 0; i < 4; i++) {
		char *to = empty_buffer();
		pthread_t t;

		/* At the end of a piece, and in the middle of one. */
		to_read = MIB + (i / 2) * 54321;
		signals = 0;
		writer = pthread_self();
		handle(SIGUSR1, i & 1 ? SA_RESTART : 0);
		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
		CHECK(pthread_create(&t, NULL, send_and_interrupt, from) == 0);
		CHECK(recv(fd[0], to, LARGE, MSG_WAITALL) == (ssize_t)to_read);
		CHECK(signals == 1 && is_data(to, to_read, 0));
		CHECK(pthread_join(t, NULL) == 0);
	}
}

void test_interrupted_recvmmsg(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	struct iovec v[3] = { { to, MIB }, { to + MIB, MIB }, { to + 2 * MIB, MIB } };
	struct mmsghdr m[3];
	pthread_t t;

	memset(m, 0, sizeof(m));
	for (int i = 0; i < 3; i++) {
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	to_read = 100000;
	writer = pthread_self();
	handle(SIGUSR1, SA_RESTART);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd) == 0);
	CHECK(pthread_create(&t, NULL, send_and_interrupt, from) == 0);
	CHECK(recvmmsg(fd[0], m, 3, 0, NULL) == 1 && signals == 1);
	CHECK(m[0].msg_len == to_read && is_data(to, to_read, 0));
	CHECK(pthread_join(t, NULL) == 0);
}

static void *interrupt(void *arg)
{
	wait_until_full();
	CHECK(pthread_kill(writer, SIGUSR1) == 0);
	usleep(100000);
	drain(fd[0], 65536, *(int *)arg ? 0 : MIB);
	if (*(int *)arg)
		drain(fd[0], LARGE, 0);
	return NULL;
}

/* Nothing is done yet: EINTR, or the call starts again. */
void test_interrupted_before_the_first_byte(void)
{
	char *from = full_buffer();

	CHECK(pipe(fd) == 0);
	writer = pthread_self();
	for (int restart = 0; restart < 2; restart++) {
		pthread_t t;
		ssize_t n;

		CHECK(write(fd[1], from + (restart ? 0 : MIB), 65536) == 65536);
		signals = 0;
		handle(SIGUSR1, restart ? SA_RESTART : 0);
		CHECK(pthread_create(&t, NULL, interrupt, &restart) == 0);
		n = write(fd[1], from, LARGE);
		CHECK(signals == 1);
		CHECK(restart ? n == (ssize_t)LARGE : n == -1 && errno == EINTR);
		CHECK(pthread_join(t, NULL) == 0);
	}
}

static void *interrupt_somewhere(void *arg)
{
	unsigned *seed = arg;

	drain(fd[0], to_read, 0);
	for (volatile unsigned i = (unsigned)rand_r(seed) % 30000; i; i--)
		;
	CHECK(pthread_kill(writer, SIGUSR1) == 0);
	return NULL;
}

/* Between two pieces, too: the call must come back, for nobody will read any more. */
void test_interrupted_anywhere(void)
{
	char *from = full_buffer();
	unsigned seed = 1;

	writer = pthread_self();
	handle(SIGUSR1, SA_RESTART);
	for (int i = 0; i < 300; i++) {
		pthread_t t;
		ssize_t n;

		CHECK(pipe(fd) == 0);
		to_read = 1 + (size_t)rand_r(&seed) % (2 * MIB);
		if (i & 1)
			to_read = (to_read & ~0x3fffful) + 196608; /* where a piece may end */
		signals = 0;
		CHECK(pthread_create(&t, NULL, interrupt_somewhere, &seed) == 0);
		n = write(fd[1], from, LARGE);
		CHECK(signals == 1 && n >= (ssize_t)to_read && n <= (ssize_t)to_read + 65536);
		CHECK(pthread_join(t, NULL) == 0);
		close(fd[0]);
		close(fd[1]);
	}
}

static void storm(long us)
{
	struct itimerval it = { { 0, us }, { 0, us } };

	handle(SIGALRM, SA_RESTART);
	CHECK(setitimer(ITIMER_REAL, &it, NULL) == 0);
}

void test_storm_does_not_shorten_files(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	int file = scratch_file(0);

	storm(300);
	for (int i = 0; i < 30; i++) {
		CHECK(pwrite(file, from, LARGE, i * 100) == (ssize_t)LARGE);
		CHECK(pread(file, to, LARGE, i * 100) == (ssize_t)LARGE);
	}
	storm(0);
	CHECK(signals > 0 && is_data(to, LARGE, 0));
}

void test_storm_does_not_shorten_what_fits(void)
{
	char *from = full_buffer(), *to = empty_buffer();

	CHECK(pipe(fd) == 0 && fcntl(fd[1], F_SETPIPE_SZ, MIB) == MIB);
	storm(300);
	for (int i = 0; i < 100; i++) {
		CHECK(write(fd[1], from + PAGE, MIB) == MIB);
		CHECK(read(fd[0], to, LARGE) == MIB && is_data(to, MIB, PAGE));
	}
	storm(0);
	CHECK(signals > 0);
}
