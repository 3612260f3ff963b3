/* SPDX-License-Identifier: MIT */
/* Memory that the kernel holds on to: O_DIRECT, vmsplice, mlock; and what mincore says of it. */
#define _GNU_SOURCE
#include "mm.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)

static int direct_file(void)
{
	const char *dir = getenv("TMPDIR");
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/mm_direct.%d", dir ? dir : "/var/tmp", (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	unlink(path);
	return fd;
}

static volatile int stop;

static void *pressure(void *arg)
{
	char *p = mm_map(BIG);
	uint64_t i;

	for (i = 0; !stop; i++) {
		mm_fill(p, BIG, i);
		madvise(arg, 2 * BIG, 21 /* MADV_PAGEOUT */);
	}
	munmap(p, BIG);
	return NULL;
}

/* The device reads and writes the pages while others want them out. */
static void direct_io_keeps_its_pages(void)
{
	char *p = mm_map(2 * BIG), *q = p + BIG;
	int fd = direct_file();
	pthread_t tid;
	uint64_t i;
	size_t at;

	if (fd < 0)
		SKIP("no O_DIRECT in TMPDIR");
	stop = 0;
	pthread_create(&tid, NULL, pressure, p);
	for (i = 0; i < 12; i++) {
		size_t chunk = PG << i % 8;
		bool ok = true;

		mm_fill(p, BIG, i);
		for (at = 0; ok && at < BIG; at += chunk)
			ok = pwrite(fd, p + at, chunk, (off_t)at) == (ssize_t)chunk;
		for (at = 0; ok && at < BIG; at += chunk)
			ok = pread(fd, q + at, chunk, (off_t)at) == (ssize_t)chunk;
		if (!ok || !mm_holds(q, BIG, i) || !mm_holds(p, BIG, i)) {
			stop = 1;
			pthread_join(tid, NULL);
		}
		CHECK(!stop);
	}
	stop = 1;
	pthread_join(tid, NULL);
	close(fd);
	munmap(p, 2 * BIG);
}

/* Old pages or new ones, but not some of each because some have left memory in between. */
static bool one_version(const char *got, size_t bytes, uint64_t old, uint64_t new)
{
	uint64_t first;

	mm_fill(&first, sizeof(first), old);
	return mm_holds(got, bytes, memcmp(got, &first, sizeof(first)) == 0 ? old : new);
}

static bool read_all(int fd, char *to, size_t bytes)
{
	ssize_t n;

	for (; bytes; bytes -= (size_t)n, to += n) {
		n = read(fd, to, bytes);
		if (n <= 0)
			return false;
	}
	return true;
}

static void splice_and_change(unsigned flags)
{
	char *p = mm_map(BIG), *got = mm_map(MIB);
	struct iovec v = { p, 16 * PG };
	int fd[2], i;

	CHECK(pipe(fd) == 0);
	for (i = 0; i < 6; i++) {
		mm_fill(p, BIG, 21);
		mm_evict(p, BIG);
		CHECK(vmsplice(fd[1], &v, 1, flags) == 16 * PG);
		madvise(p, 5 * PG, 21 /* MADV_PAGEOUT */);
		if (i % 2)
			mm_evict(p, BIG);
		mm_fill(p, BIG, 22);
		CHECK(read_all(fd[0], got, 16 * PG));
		CHECK(one_version(got, 16 * PG, 21, 22));
		CHECK(mm_holds(p, BIG, 22));
	}
	close(fd[0]);
	close(fd[1]);
	munmap(p, BIG);
	munmap(got, MIB);
}

static void vmsplice_shows_one_version(void)
{
	splice_and_change(0);
}

static void vmsplice_of_a_gift(void)
{
	splice_and_change(SPLICE_F_GIFT);
}

static void vmsplice_gives_what_there_is_room_for(void)
{
	char *p = mm_map(BIG), *got = mm_map(BIG);
	struct iovec v[3] = { { p + 100, 5000 }, { p + MIB, 0 }, { p + 2 * MIB + 7, 900000 } };
	int fd[2];

	mm_fill(p, BIG, 23);
	mm_evict(p, BIG);
	CHECK(pipe(fd) == 0);
	CHECK(vmsplice(fd[1], v, 1, 0) == 5000);
	CHECK(read(fd[0], got, BIG) == 5000 && memcmp(got, p + 100, 5000) == 0);
	mm_evict(p, BIG);
	/* 16 pages, and the ends of the first element share two of them. */
	CHECK(vmsplice(fd[1], v, 3, 0) == 5000 + 14 * 4096 - 7);
	CHECK_ERRNO(vmsplice(fd[1], v, 1, SPLICE_F_NONBLOCK), -1, EAGAIN);
	CHECK(read(fd[0], got, BIG) == 5000 + 14 * 4096 - 7);
	CHECK(memcmp(got + 5000, p + 2 * MIB + 7, 14 * 4096 - 7) == 0);
	if (fcntl(fd[1], F_SETPIPE_SZ, (int)MIB) == (int)MIB) {
		v[2].iov_base = p;
		v[2].iov_len = BIG;
		CHECK(vmsplice(fd[1], v + 2, 1, 0) == (ssize_t)MIB);
		CHECK(read_all(fd[0], got, MIB) && memcmp(got, p, MIB) == 0);
	}
	CHECK(munmap(p + MIB, PG) == 0);
	v[0] = (struct iovec){ p + MIB - PG, 2 * PG };
	CHECK(vmsplice(fd[1], v, 1, 0) == PG);
	v[0] = (struct iovec){ p + MIB, PG };
	CHECK_ERRNO(vmsplice(fd[1], v, 1, 0), -1, EFAULT);
	close(fd[0]);
	close(fd[1]);
	munmap(p, BIG);
	munmap(got, BIG);
}

static void vmsplice_out_of_a_pipe(void)
{
	char *p = mm_map(BIG), *q = mm_map(BIG);
	struct iovec v = { p + PG, 8 * PG };
	int fd[2];

	mm_fill(q, BIG, 24);
	mm_evict(p, BIG);
	CHECK(pipe(fd) == 0);
	CHECK(write(fd[1], q, 8 * PG) == 8 * PG);
	CHECK(vmsplice(fd[0], &v, 1, 0) == 8 * PG);
	CHECK(mm_holds(p + PG, 8 * PG, 24) && mm_zero(p, PG) && mm_zero(p + 9 * PG, PG));
	close(fd[0]);
	close(fd[1]);
	munmap(p, BIG);
	munmap(q, BIG);
}

static void mincore_tells_what_is_there(void)
{
	static unsigned char vec[BIG / PG];
	char *p = mm_map(BIG);
	size_t i;

	p[3 * MIB] = 1;
	CHECK(mincore(p, BIG, vec) == 0 && (vec[3 * MIB / PG] & 1) && !(vec[MIB / PG] & 1));
	mm_fill(p, MIB, 1);
	/* What is touched is there, unless it has gone again already. */
	for (i = 0, vec[0] = 0; i < 1000 && !(vec[0] & 1); i++)
		CHECK(*(volatile char *)p && mincore(p, PG, vec) == 0);
	CHECK(vec[0] & 1);
	CHECK(madvise(p, MIB, MADV_DONTNEED) == 0 && mincore(p, MIB, vec) == 0);
	for (i = 0; i < MIB / PG; i++)
		CHECK(!(vec[i] & 1));
	munmap(p, BIG);
}

static size_t budget_bytes(void)
{
	const char *text = getenv("EXTMEM_DRAM");
	char *end = NULL;
	size_t n = text ? strtoull(text, &end, 10) : 0;

	return n << (!end ? 0 : *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20 : 0);
}

/* Many small ones may not lock what one large one may not. */
static void mlock_adds_up(void)
{
	static unsigned char vec[MIB / PG];
	char *p = mm_map(BIG), *q = mm_map(BIG);
	const size_t step = MIB / 8;
	struct rlimit rl;
	size_t got, i;

	CHECK(getrlimit(RLIMIT_MEMLOCK, &rl) == 0);
	if (geteuid() != 0 && rl.rlim_cur < BIG)
		SKIP("RLIMIT_MEMLOCK is too small");
	mm_fill(p, BIG, 1);
	mm_evict(p, BIG);
	for (got = 0; got < BIG && mlock(p + got, step) == 0; got += step)
		CHECK(mlock(p, step) == 0); /* again costs nothing */
	CHECK(got == BIG || errno == ENOMEM);
	CHECK(got > 0 && (!budget_bytes() || got <= budget_bytes() || got == BIG));
	mm_fill(q, BIG, 2);
	CHECK(mm_holds(q, BIG, 2) && mm_holds(p, BIG, 1));
	mm_evict(p, BIG);
	for (i = 0; i < got; i += step) {
		CHECK(mincore(p + i, step, vec) == 0);
		CHECK((vec[0] & 1) && (vec[step / PG - 1] & 1));
	}
	CHECK(munlock(p, got) == 0);
	CHECK(mlock(q, step) == 0 && munlock(q, step) == 0);
	for (i = 0; i < got; i += step)
		CHECK(mlock(p + BIG - got + i, step) == 0);
	CHECK(munlockall() == 0);
	CHECK(mlock(q, step) == 0);
	CHECK(munmap(q, BIG) == 0); /* the lock goes with it */
	q = mm_map(BIG);
	CHECK(mlock(q, step) == 0 && munlock(q, step) == 0);
	munmap(q, BIG);
	munmap(p, BIG);
}

static bool locks_nothing(void *p)
{
	const struct rlimit little = { 8 * PG, 8 * PG }, none = { 0, 0 };

	if (setrlimit(RLIMIT_MEMLOCK, &little) || (geteuid() == 0 && seteuid(65534)))
		return false;
	errno = 0;
	if (mlock(p, 16 * PG) != -1 || errno != ENOMEM || mlock(p, 4 * PG) != 0)
		return false;
	if (munlock(p, 4 * PG) || setrlimit(RLIMIT_MEMLOCK, &none))
		return false;
	errno = 0;
	return mlock(p, PG) == -1 && errno == EPERM && mm_holds(p, BIG, 1);
}

static void mlock_obeys_the_limit(void)
{
	char *p = mm_map(BIG);

	mm_fill(p, BIG, 1);
	mm_evict(p, BIG);
	CHECK(mm_in_child(locks_nothing, p));
	munmap(p, BIG);
}

/* A part is locked, and the whole is to leave. */
static void mlock_of_everything_and_back(void)
{
	char *p = mm_map(BIG), *q;

	mm_fill(p, BIG, 1);
	mm_evict(p, BIG / 2);
	if (mlockall(MCL_CURRENT) != 0)
		SKIP("RLIMIT_MEMLOCK is too small");
	q = mm_map(BIG);
	mm_fill(q, BIG, 2);
	mm_evict(p, BIG);
	CHECK(mm_holds(p, BIG, 1) && mm_holds(q, BIG, 2));
	CHECK(munlockall() == 0);
	mm_evict(p, BIG);
	CHECK(mm_holds(p, BIG, 1) && mm_holds(q, BIG, 2));
	munmap(p, BIG);
	munmap(q, BIG);
}

const struct mm_test mm_kernel_tests[] = {
	MM_TEST(direct_io_keeps_its_pages), MM_TEST(vmsplice_shows_one_version),
	MM_TEST(vmsplice_of_a_gift), MM_TEST(vmsplice_gives_what_there_is_room_for),
	MM_TEST(vmsplice_out_of_a_pipe), MM_TEST(mincore_tells_what_is_there),
	MM_TEST(mlock_adds_up), MM_TEST(mlock_obeys_the_limit),
	MM_TEST(mlock_of_everything_and_back), { 0 }
};
