/* SPDX-License-Identifier: MIT */
/* The asynchronous queue, on io_uring and plain. */
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "common.h"

enum { DEPTH = 16, SPAN = 2048, MAX_IOV = 24 };

static bool kernel_has_io_uring(void)
{
	struct io_uring_params p = { .flags = 0 };
	int fd = (int)syscall(SYS_io_uring_setup, 4, &p);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static struct em_ioq *open_queue(struct em_store *st, unsigned depth)
{
	struct em_ioq *q;

	assert_int_equal(em_ioq_create(st, depth, 600, &q), 0);
	if (V.no_uring)
		assert_false(em_ioq_is_uring(q));
	else
		assert_int_equal(em_ioq_is_uring(q), kernel_has_io_uring());
	return q;
}

static em_slot_t take(struct em_store *st, uint32_t n)
{
	em_slot_t first = 0, f;

	/* whole extents come in order */
	for (uint32_t got = 0; got < n;) {
		uint32_t k = em_slots_alloc(st, n - got, &f);

		assert_true(k > 0);
		if (!first)
			first = f;
		assert_int_equal(f, first + got);
		got += k;
	}
	return first;
}

static struct em_io *wait_one(struct em_ioq *q)
{
	struct em_io *io = NULL;

	for (int i = 0; i < 100 && !io; i++)
		io = em_ioq_reap(q, 100000);
	assert_non_null(io);
	return io;
}

struct op {
	struct em_io io;
	struct iovec iov[MAX_IOV];
	uint64_t *buf;
	uint32_t at;
};

static uint32_t version[SPAN];
static bool busy[SPAN];

static uint64_t content(uint32_t slot)
{
	return (uint64_t)slot << 32 | version[slot];
}

/* A random request over slots that no other request is on; false if there was no room. */
static bool prepare(struct op *op, em_slot_t base, unsigned *seed)
{
	uint32_t n = 1 + (uint32_t)rand_r(seed) % 64, at = (uint32_t)rand_r(seed) % (SPAN - n);
	int cnt = 0;

	for (uint32_t i = 0; i < n; i++)
		if (busy[at + i])
			return false;
	op->at = at;
	op->io = (struct em_io){.write = rand_r(seed) % 2, .slot = base + at, .npages = n,
				.iov = op->iov, .cookie = op};
	for (uint32_t i = 0; i < n; i++) {
		busy[at + i] = true;
		op->io.write |= !version[at + i];
	}
	for (uint32_t i = 0; i < n;) {
		uint32_t k = cnt == MAX_IOV - 1 ? n - i : 1 + (uint32_t)rand_r(seed) % 8;

		k = k > n - i ? n - i : k;
		op->iov[cnt++] = (struct iovec){op->buf + i * 512, (size_t)k * 4096};
		i += k;
	}
	op->io.iovcnt = cnt;
	for (uint32_t i = 0; i < n; i++) {
		if (op->io.write)
			version[at + i]++;
		pages_fill(op->buf + i * 512, 1, op->io.write ? content(at + i) : ~0ull);
	}
	return true;
}

static void verify(struct op *op)
{
	assert_int_equal(op->io.result, 0);
	for (uint32_t i = 0; i < op->io.npages; i++) {
		assert_true(pages_are(op->buf + i * 512, 1, content(op->at + i)));
		busy[op->at + i] = false;
	}
}

static void random_requests(struct em_store *st, int rounds)
{
	struct em_ioq *q = open_queue(st, DEPTH);
	em_slot_t base = take(st, SPAN);
	struct op ops[DEPTH], *idle[DEPTH];
	unsigned seed = (unsigned)time(NULL);
	int nidle = DEPTH, submitted = 0;

	print_message("seed %u\n", seed);
	memset(version, 0, sizeof(version));
	memset(busy, 0, sizeof(busy));
	for (int i = 0; i < DEPTH; i++) {
		ops[i].buf = pages_new(64);
		idle[i] = &ops[i];
	}
	while (submitted < rounds || nidle < DEPTH) {
		struct em_io *io;

		while (submitted < rounds && nidle && prepare(idle[nidle - 1], base, &seed)) {
			assert_int_equal(em_ioq_submit(q, &idle[--nidle]->io), 0);
			submitted++;
		}
		if (rand_r(&seed) % 2)
			assert_int_equal(em_ioq_flush(q), 0);
		io = em_ioq_reap(q, rand_r(&seed) % 2 ? 10000 : 0);
		for (struct em_io *next; io; io = next) {
			next = io->next;
			verify(io->cookie);
			idle[nidle++] = io->cookie;
		}
	}
	assert_int_equal(em_ioq_inflight(q), 0);
	assert_null(em_ioq_reap(q, 0));
	em_ioq_destroy(q);
	for (int i = 0; i < DEPTH; i++)
		munmap(ops[i].buf, 64 * 4096);
}

static void random_requests_are_right(void **state)
{
	struct em_store *st = open_store(0);

	(void)state;
	random_requests(st, 3000);
	em_store_close(st);
}

static unsigned chaos_seed;

/* Short to some pages or to less than one; never twice in a row less than one. */
static int chaos(bool write, em_slot_t slot, uint32_t n)
{
	(void)write, (void)slot;
	switch (rand_r(&chaos_seed) % 8) {
	case 0:
		return 512;
	case 1:
		return 4096 * (1 + (int)((uint32_t)rand_r(&chaos_seed) % (n ? n : 1)));
	case 2:
		usleep(100);
	}
	return 0;
}

static void short_transfers_are_finished(void **state)
{
	static const struct em_store_inject inject = {.before = chaos};
	struct em_store *st = open_store(0);

	(void)state;
	st->inject = &inject;
	random_requests(st, 1000);
	em_store_close(st);
}

static void depth_is_a_limit(void **state)
{
	struct em_store *st = open_store(0);
	struct em_ioq *q = open_queue(st, 4);
	uint64_t *p = pages_new(5);
	struct em_io io[5], *done;
	struct iovec iov[5];
	em_slot_t base = take(st, 5);
	int n = 0;

	(void)state;
	for (int i = 0; i < 5; i++) {
		iov[i] = (struct iovec){p + i * 512, 4096};
		io[i] = (struct em_io){.write = true, .slot = base + (em_slot_t)i, .iov = &iov[i],
				       .iovcnt = 1, .npages = 1};
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(em_ioq_submit(q, &io[i]), 0);
	assert_int_equal(em_ioq_submit(q, &io[4]), -EAGAIN);
	assert_int_equal(em_ioq_inflight(q), 4);
	while (n < 4)
		for (done = wait_one(q); done; done = done->next)
			n++;
	assert_int_equal(em_ioq_inflight(q), 0);
	assert_int_equal(em_ioq_submit(q, &io[4]), 0);
	assert_ptr_equal(wait_one(q), &io[4]);
	assert_null(em_ioq_reap(q, 1000)); /* nothing in flight: does not wait for ever */
	em_ioq_destroy(q);
	em_store_close(st);
}

static int fail_with;

static int failing(bool write, em_slot_t slot, uint32_t n)
{
	(void)write, (void)slot, (void)n;
	return fail_with;
}

static int one(struct em_ioq *q, bool write, em_slot_t slot, uint64_t *p, uint32_t n)
{
	struct iovec iov = {p, (size_t)n * 4096};
	struct em_io io = {.write = write, .slot = slot, .iov = &iov, .iovcnt = 1, .npages = n};

	assert_int_equal(em_ioq_submit(q, &io), 0);
	assert_ptr_equal(wait_one(q), &io);
	return io.result;
}

static void errors_are_errors(void **state)
{
	static const struct em_store_inject inject = {.before = failing};
	struct em_store *st = open_store(0);
	struct em_ioq *q = open_queue(st, 4);
	uint64_t *p = pages_new(64);
	em_slot_t base = take(st, 64);
	struct rlimit old, lim;

	(void)state;
	assert_int_equal(one(q, false, 5 * EM_EXTENT_SLOTS, p, 4), -EIO); /* end of file */
	assert_int_equal(one(q, false, EM_EXTENT_SLOTS - 2, p, 4), -EIO); /* across it */
	st->inject = &inject;
	fail_with = -EIO;
	assert_int_equal(one(q, false, base, p, 4), -EIO);
	fail_with = -ENOSPC;
	assert_int_equal(one(q, true, base, p, 4), -ENOSPC);
	st->inject = NULL;
	getrlimit(RLIMIT_FSIZE, &old);
	lim = old;
	lim.rlim_cur = 16 * 4096;
	setrlimit(RLIMIT_FSIZE, &lim); /* SIGXFSZ would end the test */
	assert_int_equal(one(q, true, 17, p, 4), -EFBIG);
	assert_int_equal(one(q, true, 1, p, 15), 0);
	setrlimit(RLIMIT_FSIZE, &old);
	em_ioq_destroy(q);
	em_store_close(st);
}

static void descriptors_move(void **state)
{
	struct em_store *st = open_store(0);
	struct em_ioq *q = open_queue(st, 4);
	uint64_t *w = pages_new(4), *r = pages_new(4);
	em_slot_t base = take(st, 4);
	int fd;

	(void)state;
	pages_fill(w, 4, 12);
	assert_int_equal(one(q, true, base, w, 4), 0);
	/* the data file's number is somebody else's now, the ring has it registered */
	fd = st->fd;
	assert_int_equal(em_store_move_fd(st, fd, 700), 0);
	assert_int_equal(dup2(open("/dev/zero", O_RDWR), fd), fd);
	assert_int_equal(one(q, false, base, r, 4), 0);
	assert_true(pages_are(r, 4, 12));
	if (em_ioq_fds(q, &fd, 1)) {
		assert_true(fd >= 600 && fcntl(fd, F_GETFD) & FD_CLOEXEC);
		assert_int_equal(em_ioq_move_fd(q, fd, 800), 0);
		assert_int_equal(fcntl(fd, F_GETFD), -1);
		memset(r, 0, 4 * 4096);
		assert_int_equal(one(q, false, base, r, 4), 0);
		assert_true(pages_are(r, 4, 12));
	}
	em_ioq_destroy(q);
	em_store_close(st);
}

static void abandoned_after_fork(void **state)
{
	struct em_store *st = open_store(0);
	struct em_ioq *q = open_queue(st, DEPTH), *mine;
	uint64_t *w = pages_new(4), *r = pages_new(4);
	em_slot_t base = take(st, 4);
	int status;
	pid_t pid;

	(void)state;
	pages_fill(w, 4, 77);
	assert_int_equal(one(q, true, base, w, 4), 0);
	assert_int_equal(em_store_fork_prepare(st), 0);
	pid = fork();
	if (!pid) {
		em_slot_t own;

		if (em_store_fork_child(st))
			_exit(1);
		em_ioq_abandon(q);
		if (em_ioq_create(st, DEPTH, 600, &mine))
			_exit(2);
		if (one(mine, false, base, r, 4) || !pages_are(r, 4, 77))
			_exit(3);
		if (em_slots_alloc(st, 4, &own) != 4 || own == base || one(mine, true, own, r, 4))
			_exit(4);
		em_ioq_destroy(mine);
		_exit(0);
	}
	em_store_fork_parent(st, pid);
	for (int i = 0; i < 100; i++) {
		memset(r, 0, 4 * 4096);
		assert_int_equal(one(q, false, base, r, 4), 0);
		assert_true(pages_are(r, 4, 77));
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(one(q, true, base, w, 4), 0);
	em_ioq_destroy(q);
	em_store_close(st);
}

/* The program installs a seccomp filter that knows nothing of io_uring. */
static int forbid_io_uring_enter(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(f) / sizeof(f[0]), f};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static void ring_forbidden_later(void **state)
{
	uint64_t *w = pages_new(256), *r = pages_new(4);
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (!pid) {
		struct em_store *st = open_store(0);
		struct em_ioq *q = open_queue(st, 4);
		em_slot_t base = take(st, 260);
		struct iovec iov = {w, 256 * 4096};
		struct em_io io = {.write = true, .slot = base, .iov = &iov, .iovcnt = 1,
				   .npages = 256};

		pages_fill(w, 256, 5);
		/* one is under way already, others come after */
		if (em_ioq_submit(q, &io) || em_ioq_flush(q) || forbid_io_uring_enter())
			_exit(1);
		if (wait_one(q) != &io || io.result)
			_exit(2);
		if (one(q, true, base + 256, w, 4) || one(q, false, base + 256, r, 4) ||
		    !pages_are(r, 4, 5))
			_exit(3);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void waits_no_longer_than_told(void **state)
{
	struct em_store *st = open_store(0);
	struct em_ioq *q = open_queue(st, 4);
	uint64_t start = em_store_now_ns();

	(void)state;
	assert_null(em_ioq_reap(q, 50000));
	assert_true(em_store_now_ns() - start < 1000000000);
	em_ioq_destroy(q);
	em_store_close(st);
}

static int group(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_requests_are_right),
		cmocka_unit_test(short_transfers_are_finished),
		cmocka_unit_test(depth_is_a_limit),
		cmocka_unit_test(errors_are_errors),
		cmocka_unit_test(descriptors_move),
		cmocka_unit_test(abandoned_after_fork),
		cmocka_unit_test(ring_forbidden_later),
		cmocka_unit_test(waits_no_longer_than_told),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group, true);
}
