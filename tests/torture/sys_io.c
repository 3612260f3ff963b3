/* SPDX-License-Identifier: MIT */
/* Files and pipes. */
#define _GNU_SOURCE
#include "sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int file(int flags)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/data", sys_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
	unlink(path);
	return fd;
}

static void io_read_write(void)
{
	int fd = file(0);
	char *a, *b;

	sys_reset();
	a = spot(3 * PG + 24);
	b = spot(3 * PG + 24);
	mm_fill(a, 3 * PG + 24, 1);
	cold();
	CHECK(write(fd, a, 3 * PG + 24) == 3 * PG + 24);
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	cold();
	CHECK(read(fd, b, 3 * PG + 24) == 3 * PG + 24);
	CHECK(mm_holds(b, 3 * PG + 24, 1));
	cold();
	CHECK(pwrite(fd, b + 8, 2 * PG, 1000) == 2 * PG);
	cold();
	CHECK(pread(fd, a, 2 * PG, 1000) == 2 * PG);
	CHECK(memcmp(a, b + 8, 2 * PG) == 0);
	CHECK(read(fd, a, 100) == 0); /* at the end */
	close(fd);
}

static void io_one_byte_each(void)
{
	int fds[2], i;
	char *a;

	sys_reset();
	a = spot_pages(16 * PG);
	CHECK(pipe(fds) == 0);
	for (i = 0; i < 16; i++) {
		a[i * PG + 4095] = (char)(i + 1);
		cold();
		CHECK(write(fds[1], a + i * PG + 4095, 1) == 1);
		cold();
		CHECK(read(fds[0], a + ((i + 5) % 16) * PG, 1) == 1);
		CHECK(a[((i + 5) % 16) * PG] == i + 1);
	}
	close(fds[0]);
	close(fds[1]);
}

static void io_vectors(void)
{
	volatile int negative = -1;
	int fd = file(0), i;
	struct iovec *v;
	char *a;

	sys_reset();
	v = spot(16 * sizeof(*v));
	a = spot_pages(64 * PG);
	mm_fill(a, 64 * PG, 2);
	for (i = 0; i < 16; i++)
		v[i] = (struct iovec){ a + i * 4 * PG + 8 * i, PG + 64 * (size_t)i };
	cold();
	CHECK(writev(fd, v, 16) == 16 * PG + 64 * 120);
	cold();
	CHECK(pwritev(fd, v, 16, 1 << 20) == 16 * PG + 64 * 120);
	for (i = 0; i < 16; i++)
		memset(v[i].iov_base, 0, v[i].iov_len);
	cold();
	CHECK(preadv(fd, v, 16, 1 << 20) == 16 * PG + 64 * 120);
	CHECK(mm_holds(a, 64 * PG, 2));
	memset(a, 0, 64 * PG);
	cold();
	lseek(fd, 0, SEEK_SET);
	CHECK(readv(fd, v, 16) == 16 * PG + 64 * 120);
	cold();
	CHECK(preadv2(fd, v, 16, 0, 0) == 16 * PG + 64 * 120);
	CHECK(a[0] != 0 && a[60 * PG + 8 * 15] != 0 && a[61 * PG + 960 + 200] == 0);
	CHECK_ERRNO(writev(fd, v, negative), -1, EINVAL);
	close(fd);
}

/* In one call, as a whole: a regular file gives what it has. */
static void io_larger_than_the_budget(void)
{
	const size_t n = 24 * MIB;
	int fd = file(0);
	char *a;

	sys_reset();
	a = spot_pages(n);
	mm_fill(a, n, 3);
	CHECK(write(fd, a, n) == (ssize_t)n);
	memset(a, 0, n);
	CHECK(pread(fd, a, n, 0) == (ssize_t)n);
	CHECK(mm_holds(a, n, 3));
	lseek(fd, 0, SEEK_SET);
	madvise(a, n, MADV_DONTNEED);
	CHECK(read(fd, a, n) == (ssize_t)n);
	CHECK(mm_holds(a, n, 3));
	close(fd);
}

/* What is waiting comes at once, as far as there is room: a short count means to those who wait for edges that
   nothing is left.  More than is waiting must not be waited for. */
static void io_all_that_a_stream_has(void)
{
	const size_t n = 3 * MIB, waiting = 900 * 1024;
	struct iovec v[48];
	int fds[2], i;
	char *a;

	sys_reset();
	a = spot_pages(n);
	mm_fill(a, waiting, 5);
	for (i = 0; i < 48; i++)
		v[i] = (struct iovec){ a + i * 65536, 65536 };
	CHECK(pipe(fds) == 0);
	CHECK(fcntl(fds[1], F_SETPIPE_SZ, MIB) >= (int)MIB);
	CHECK(write(fds[1], a, waiting) == (ssize_t)waiting);
	memset(a, 0, n);
	cold();
	CHECK(readv(fds[0], v, 48) == (ssize_t)waiting);
	CHECK(mm_holds(a, waiting, 5));
	CHECK(write(fds[1], a, waiting) == (ssize_t)waiting);
	memset(a, 0, n);
	cold();
	CHECK(read(fds[0], a, n) == (ssize_t)waiting);
	CHECK(mm_holds(a, waiting, 5));
	close(fds[0]);
	close(fds[1]);
}

static void io_direct(void)
{
	int fd = file(O_DIRECT);
	char *a;

	if (fd < 0)
		SKIP("no O_DIRECT here");
	sys_reset();
	a = spot_pages(16 * PG);
	mm_fill(a, 8 * PG, 4);
	cold();
	CHECK(pwrite(fd, a, 8 * PG, 0) == 8 * PG);
	cold();
	CHECK(pread(fd, a + 8 * PG, 8 * PG, 0) == 8 * PG);
	CHECK(mm_holds(a + 8 * PG, 8 * PG, 4));
	close(fd);
}

static void io_offsets(void)
{
	int in = file(0), out = file(0);
	off_t *off;
	char *a;

	sys_reset();
	off = spot(2 * sizeof(*off));
	a = spot_pages(4 * PG);
	mm_fill(a, 4 * PG, 5);
	CHECK(write(in, a, 4 * PG) == 4 * PG);
	off[0] = PG;
	cold();
	CHECK(sendfile(out, in, &off[0], 2 * PG) == 2 * PG);
	CHECK(off[0] == 3 * PG);
	off[0] = 0;
	off[1] = 2 * PG;
	cold();
	CHECK(copy_file_range(in, &off[0], out, &off[1], PG, 0) == PG);
	CHECK(off[0] == PG && off[1] == 3 * PG);
	cold();
	CHECK(pread(out, a, PG, 2 * PG) == PG && mm_holds(a, PG, 5));
	close(in);
	close(out);
}

static void io_vmsplice(void)
{
	int fds[2];
	struct iovec *v;
	char *a;

	sys_reset();
	v = spot(sizeof(*v));
	a = spot_pages(8 * PG);
	mm_fill(a, 4 * PG, 6);
	*v = (struct iovec){ a, 4 * PG };
	CHECK(pipe(fds) == 0);
	cold();
	CHECK(vmsplice(fds[1], v, 1, 0) == 4 * PG);
	cold();
	CHECK(read(fds[0], a + 4 * PG, 4 * PG) == 4 * PG);
	CHECK(mm_holds(a + 4 * PG, 4 * PG, 6));
	close(fds[0]);
	close(fds[1]);
}

static void io_stdio(void)
{
	char path[300], *line = NULL, *buf;
	size_t cap = 0;
	FILE *f;
	int i;

	sys_reset();
	snprintf(path, sizeof(path), "%s/text", sys_dir());
	f = fopen(path, "w+");
	CHECK(f != NULL);
	unlink(path);
	buf = spot(65536);
	CHECK(setvbuf(f, buf, _IOFBF, 65536) == 0);
	for (i = 0; i < 20000; i++)
		fprintf(f, "line %d\n", i);
	cold();
	rewind(f);
	for (i = 0; i < 20000; i++) {
		char want[32];

		if (i % 5000 == 0)
			cold();
		snprintf(want, sizeof(want), "line %d\n", i);
		CHECK(getline(&line, &cap, f) > 0 && strcmp(line, want) == 0);
	}
	free(line);
	fclose(f);
}

static void io_eventfd_and_random(void)
{
	int fd = eventfd(5, 0);
	uint64_t *v;

	sys_reset();
	v = spot(sizeof(*v));
	*v = 7;
	cold();
	CHECK(write(fd, v, 8) == 8);
	cold();
	CHECK(read(fd, v, 8) == 8 && *v == 12);
	v = spot(256);
	cold();
	CHECK(syscall(SYS_getrandom, v, 256, 0) == 256);
	CHECK(v[0] | v[15] | v[31]);
	close(fd);
}

static void io_process_vm(void)
{
	struct iovec *v;
	char *a;

	sys_reset();
	v = spot(2 * sizeof(*v));
	a = spot_pages(8 * PG);
	mm_fill(a, 4 * PG, 8);
	v[0] = (struct iovec){ a + 4 * PG, 4 * PG };
	v[1] = (struct iovec){ a, 4 * PG };
	cold();
	if (process_vm_readv(getpid(), &v[0], 1, &v[1], 1, 0) < 0 && errno == EPERM)
		SKIP("process_vm_readv is not permitted");
	CHECK(mm_holds(a + 4 * PG, 4 * PG, 8));
	mm_fill(a, 4 * PG, 9);
	cold();
	CHECK(process_vm_writev(getpid(), &v[1], 1, &v[0], 1, 0) == 4 * PG);
	CHECK(mm_holds(a + 4 * PG, 4 * PG, 9));
}

static void io_bad_pointers(void)
{
	volatile uintptr_t low = 8;
	int fds[2];
	char *a;

	sys_reset();
	a = mm_map(2 * MIB);
	mm_fill(a, 2 * MIB, 10);
	CHECK(munmap(a + MIB, MIB) == 0);
	CHECK(pipe(fds) == 0);
	CHECK_ERRNO(write(fds[1], a + MIB, 8), -1, EFAULT);
	CHECK_ERRNO(write(fds[1], (void *)low, 8), -1, EFAULT);
	CHECK(write(fds[1], a, 8) == 8);
	CHECK_ERRNO(read(fds[0], a + MIB, 8), -1, EFAULT);
	CHECK_ERRNO(write(-1, a, 8), -1, EBADF);
	/* As far as the memory goes */
	CHECK(write(fds[1], a + MIB - PG, 2 * PG) == PG);
	munmap(a, MIB);
	close(fds[0]);
	close(fds[1]);
}

const struct mm_test sys_io_tests[] = {
	SYS_TEST(io_read_write), SYS_TEST(io_one_byte_each), SYS_TEST(io_vectors),
	SYS_TEST(io_larger_than_the_budget), SYS_TEST(io_all_that_a_stream_has),
	SYS_TEST(io_direct), SYS_TEST(io_offsets),
	SYS_TEST(io_vmsplice), SYS_TEST(io_stdio), SYS_TEST(io_eventfd_and_random),
	SYS_TEST(io_process_vm), SYS_TEST(io_bad_pointers), { 0 }
};
