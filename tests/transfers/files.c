/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "transfers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VECTORS = 100, HOLE = 3 << 19 };

/* Elements of odd lengths, some of them empty, LARGE bytes in all. */
static int split(char *p, struct iovec *v)
{
	size_t at = 0;

	for (int i = 0; i < VECTORS; i++) {
		size_t n = i % 5 == 4 ? 0 : (size_t)(i + 1) * 761 % 65000;

		if (i == VECTORS - 1 || n > LARGE - at)
			n = LARGE - at;
		v[i] = (struct iovec){ p + at, n };
		at += n;
	}
	CHECK(at == LARGE);
	return VECTORS;
}

void test_file_vectors(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	struct iovec out[VECTORS], in[VECTORS];
	int file = scratch_file(0), n = split(from, out);

	CHECK(split(to, in) == n);
	CHECK(writev(file, out, n) == (ssize_t)LARGE && lseek(file, 0, SEEK_CUR) == (off_t)LARGE);
	CHECK(lseek(file, 0, SEEK_SET) == 0 && readv(file, in, n) == (ssize_t)LARGE);
	CHECK(is_data(to, LARGE, 0) && readv(file, in, n) == 0);
}

void test_file_offsets(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	struct iovec out[VECTORS], in[VECTORS];
	int file = scratch_file(0), n = split(from, out);

	split(to, in);
	CHECK(pwritev2(file, out, n, 12345, RWF_DSYNC) == (ssize_t)LARGE);
	CHECK(lseek(file, 0, SEEK_CUR) == 0);
	CHECK(pwritev2(file, out, n, -1, 0) == (ssize_t)LARGE);
	CHECK(lseek(file, 0, SEEK_CUR) == (off_t)LARGE);
	CHECK(lseek(file, 0, SEEK_END) == (off_t)LARGE + 12345);
	CHECK(preadv(file, in, n, 0) == (ssize_t)LARGE && is_data(to, LARGE, 0));
	CHECK(preadv2(file, in, n, MIB, 0) == (ssize_t)(LARGE + 12345 - MIB));
	CHECK(is_data(to, LARGE - MIB, MIB) && is_data(to + LARGE - MIB, 12345, LARGE - 12345));
	CHECK(lseek(file, 77, SEEK_SET) == 77);
	CHECK(preadv2(file, in, n, -1, 0) == (ssize_t)LARGE);
	CHECK(is_data(to, LARGE - 77, 77) && lseek(file, 0, SEEK_CUR) == (off_t)LARGE + 77);
}

void test_file_append(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	int file = scratch_file(O_APPEND);
	struct iovec v = { from, LARGE };

	CHECK(write(file, "start", 5) == 5 && lseek(file, 0, SEEK_SET) == 0);
	CHECK(write(file, from, LARGE) == (ssize_t)LARGE);
	CHECK(lseek(file, 0, SEEK_CUR) == (off_t)LARGE + 5);
	CHECK(pwrite(file, from, LARGE, 1) == (ssize_t)LARGE); /* Linux appends all the same */
	CHECK(fcntl(file, F_SETFL, 0) == 0);
	CHECK(pwritev2(file, &v, 1, 0, RWF_APPEND) == (ssize_t)LARGE);
	CHECK(lseek(file, 0, SEEK_END) == 3 * (off_t)LARGE + 5);
	for (int i = 0; i < 3; i++) {
		CHECK(pread(file, to, LARGE, 5 + i * (off_t)LARGE) == (ssize_t)LARGE);
		CHECK(is_data(to, LARGE, 0));
	}
}

static volatile int signals;

static void count(int n)
{
	(void)n;
	signals++;
}

/* What fits is written, and the signal is for the next call. */
void test_file_size_limit(void)
{
	struct rlimit most = { MIB, MIB };
	char *from = full_buffer();
	int file = scratch_file(0);

	signal(SIGXFSZ, count);
	CHECK(setrlimit(RLIMIT_FSIZE, &most) == 0);
	CHECK(write(file, from, LARGE) == MIB && signals == 0);
	CHECK(write(file, from, LARGE) == -1 && errno == EFBIG && signals == 1);
	CHECK(pwrite(file, from, LARGE, MIB / 2 + 1) == MIB / 2 - 1 && signals == 1);
}

void test_file_hole_in_the_buffer(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	int file = scratch_file(0);
	struct iovec v[2] = { { from, PAGE }, { from + PAGE, LARGE - PAGE } };

	CHECK(munmap(from + HOLE, PAGE) == 0 && munmap(to + HOLE, PAGE) == 0);
	CHECK(pwrite(file, from, LARGE, 0) == HOLE && lseek(file, 0, SEEK_END) == HOLE);
	CHECK(pwritev(file, v, 2, 0) == HOLE);
	CHECK(pwrite(file, from + HOLE, LARGE - HOLE, 0) == -1 && errno == EFAULT);
	CHECK(pwrite(file, from + HOLE + PAGE, LARGE - HOLE - PAGE, HOLE + PAGE) > 0);
	CHECK(pread(file, to, LARGE, 0) == HOLE && is_data(to, HOLE, 0));
	CHECK(pread(file, to + HOLE, LARGE - HOLE, 0) == -1 && errno == EFAULT);
	CHECK(!to[HOLE + PAGE]);
}

void test_pipe_hole_in_the_buffer(void)
{
	char *from = full_buffer();
	int fd[2];

	CHECK(munmap(from + MIB / 2, PAGE) == 0);
	CHECK(pipe(fd) == 0 && fcntl(fd[1], F_SETPIPE_SZ, MIB) == MIB);
	CHECK(write(fd[1], from, LARGE) == MIB / 2);
	drain(fd[0], MIB / 2, 0);
	CHECK(write(fd[1], from + MIB / 2, MIB) == -1 && errno == EFAULT);
}

void test_process_vm_large(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	struct iovec r[2] = { { from, LARGE / 3 }, { from + LARGE / 3, LARGE - LARGE / 3 } };
	struct iovec l[VECTORS];

	for (int i = 0; i < 2; i++) {
		CHECK(process_vm_readv(getpid(), l, (size_t)split(to, l), r, 2, 0) == (ssize_t)LARGE);
		CHECK(is_data(to, LARGE, 0));
		memset(to, 0, LARGE);
		evict(from, LARGE);
	}
	r[0].iov_base = to;
	r[1].iov_base = to + LARGE / 3;
	CHECK(process_vm_writev(getpid(), l, (size_t)split(from, l), r, 2, 0) == (ssize_t)LARGE);
	CHECK(is_data(to, LARGE, 0));
}

void test_process_vm_hole(void)
{
	char *from = full_buffer(), *to = empty_buffer();
	struct iovec l = { to, LARGE }, r = { from, LARGE };

	CHECK(munmap(from + HOLE, PAGE) == 0);
	CHECK(process_vm_readv(getpid(), &l, 1, &r, 1, 0) == HOLE && is_data(to, HOLE, 0));
	CHECK(!to[HOLE]);
	r = (struct iovec){ from + HOLE, LARGE - HOLE };
	CHECK(process_vm_readv(getpid(), &l, 1, &r, 1, 0) == -1 && errno == EFAULT);
}
