/* SPDX-License-Identifier: MIT */
/* Synchronous transfers: what is written comes back, and nothing else ever does. */
#include "common.h"

static int plan[8], plan_n, plan_at;

static int planned(bool write, em_slot_t slot, uint32_t n)
{
	(void)write, (void)slot, (void)n;
	return plan_at < plan_n ? plan[plan_at++] : 0;
}

static const struct em_store_inject inject = {.before = planned};

static void set_plan(struct em_store *st, int n, ...)
{
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		plan[i] = va_arg(ap, int);
	va_end(ap);
	plan_n = n;
	plan_at = 0;
	st->inject = n ? &inject : NULL;
}

static void round_trip(void **state)
{
	struct em_store *st = open_store(0);
	uint64_t *w = pages_new(1024), *r = pages_new(1024);
	em_slot_t first;

	(void)state;
	assert_int_equal(em_slots_alloc(st, 1024, &first), 1024);
	assert_true(first != EM_SLOT_NONE);
	pages_fill(w, 1024, 7);
	assert_int_equal(em_store_writev(st, first, &(struct iovec){w, 1024 * 4096}, 1), 0);
	assert_int_equal(em_store_read(st, first, r, 1024), 0);
	assert_true(pages_are(r, 1024, 7));
	assert_int_equal(em_store_read(st, first + 1023, r, 1), 0);
	assert_true(pages_are(r, 1, 7 + 1023));
	em_store_close(st);
}

static void scattered(void **state)
{
	struct em_store *st = open_store(0);
	uint64_t *w = pages_new(3000), *r = pages_new(3000);
	struct iovec iov[1500];
	em_slot_t first;

	(void)state;
	/* 1500 elements, more than one call may carry, out of order in memory */
	for (int i = 0; i < 1500; i++)
		iov[i] = (struct iovec){w + (size_t)(1499 - i) * 2 * 512, 8192};
	assert_int_equal(em_slots_alloc(st, 1024, &first), 1024);
	for (int i = 0; i < 1500; i++)
		pages_fill(iov[i].iov_base, 2, 2 * (uint64_t)i);
	assert_int_equal(em_store_writev(st, first, iov, 1500), 0);
	assert_int_equal(em_store_read(st, first, r, 3000), 0);
	assert_true(pages_are(r, 3000, 0));
	memset(w, 0, 3000 * 4096);
	assert_int_equal(em_store_readv(st, first, iov, 1500), 0);
	for (int i = 0; i < 1500; i++)
		assert_true(pages_are(iov[i].iov_base, 2, 2 * (uint64_t)i));
	em_store_close(st);
}

static void short_transfers_are_finished(void **state)
{
	struct em_store *st = open_store(0);
	uint64_t *w = pages_new(64), *r = pages_new(64);
	struct iovec iov[16];
	em_slot_t first;

	(void)state;
	for (int i = 0; i < 16; i++)
		iov[i] = (struct iovec){w + i * 4 * 512, 4 * 4096};
	assert_int_equal(em_slots_alloc(st, 64, &first), 64);
	pages_fill(w, 64, 99);
	/* a page; six pages; not a whole page; interrupted; a page and a half; the rest */
	set_plan(st, 6, 4096, 6 * 4096, 512, -EINTR, 6144, -EAGAIN);
	assert_int_equal(em_store_writev(st, first, iov, 16), 0);
	assert_int_equal(plan_at, 6);
	set_plan(st, 6, 4096, 6 * 4096, 512, -EINTR, 6144, -EAGAIN);
	assert_int_equal(em_store_read(st, first, r, 64), 0);
	assert_int_equal(plan_at, 6);
	assert_true(pages_are(r, 64, 99));
	em_store_close(st);
}

static void errors_are_errors(void **state)
{
	struct em_store *st = open_store(0);
	uint64_t *p = pages_new(4);
	em_slot_t first;

	(void)state;
	assert_int_equal(em_slots_alloc(st, 4, &first), 4);
	set_plan(st, 1, -EIO);
	assert_int_equal(em_store_read(st, first, p, 4), -EIO);
	set_plan(st, 2, 4096, -ENOSPC);
	assert_int_equal(em_store_writev(st, first, &(struct iovec){p, 4 * 4096}, 1), -ENOSPC);
	set_plan(st, 0);
	/* beyond the end of the file: never zeros */
	assert_int_equal(em_store_read(st, 3 * EM_EXTENT_SLOTS, p, 1), -EIO);
	assert_int_equal(em_store_read(st, EM_EXTENT_SLOTS - 1, p, 2), -EIO);
	/* endless short transfers end */
	set_plan(st, 8, 512, 512, 512, 512, 512, 512, 512, 512);
	assert_int_equal(em_store_read(st, first, p, 1), -EIO);
	em_store_close(st);
}

static volatile sig_atomic_t xfsz;

static void on_xfsz(int sig)
{
	(void)sig;
	xfsz = 1;
}

static void file_size_limit_never_signals(void **state)
{
	struct rlimit old, lim;
	struct em_store *st;
	uint64_t *p = pages_new(1);
	em_slot_t first;

	(void)state;
	signal(SIGXFSZ, on_xfsz);
	getrlimit(RLIMIT_FSIZE, &old);
	lim = old;
	lim.rlim_cur = 1 << 20;
	st = open_store(0);
	assert_int_equal(em_slots_alloc(st, 1024, &first), 1024);
	setrlimit(RLIMIT_FSIZE, &lim); /* lowered by the program while we run */
	assert_int_equal(em_store_writev(st, 255, &(struct iovec){p, 4096}, 1), 0);
	assert_int_equal(em_store_writev(st, 256, &(struct iovec){p, 4096}, 1), -EFBIG);
	em_store_close(st);
	st = open_store(0); /* a bound from the start */
	assert_int_equal(em_slots_limit(st), 255);
	assert_int_equal(em_slots_alloc(st, 1024, &first), 255);
	assert_int_equal(first, 1);
	assert_int_equal(em_slots_alloc(st, 1, &first), 0);
	em_store_close(st);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_false(xfsz);
	signal(SIGXFSZ, SIG_DFL);
}

/* Another thread of the program, just between our look at the limit and the write. */
static int lower_the_limit(bool write, em_slot_t slot, uint32_t n)
{
	struct rlimit lim;

	(void)write, (void)slot, (void)n;
	getrlimit(RLIMIT_FSIZE, &lim);
	lim.rlim_cur = 1 << 20;
	setrlimit(RLIMIT_FSIZE, &lim);
	return 0;
}

static void file_size_limit_lowered_at_the_last_moment(void **state)
{
	static const struct em_store_inject lowering = {.before = lower_the_limit};
	struct em_store *st = open_store(0);
	uint64_t *p = pages_new(1);
	struct rlimit old;
	sigset_t all, before, pending;
	em_slot_t first;

	(void)state;
	getrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(em_slots_alloc(st, 1024, &first), 1024);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	st->inject = &lowering;
	assert_int_equal(em_store_writev(st, 256, &(struct iovec){p, 4096}, 1), -EFBIG);
	sigpending(&pending);
	assert_false(sigismember(&pending, SIGXFSZ));
	sigprocmask(SIG_SETMASK, &before, NULL);
	setrlimit(RLIMIT_FSIZE, &old);
	em_store_close(st);
}

static void descriptors_move(void **state)
{
	struct em_store *st = open_store(0);
	int fds[8], moved[8];
	uint64_t *w = pages_new(1), *r = pages_new(1);
	size_t n = em_store_fds(st, fds, 8);
	em_slot_t first;

	(void)state;
	assert_int_equal(n, 4);
	for (size_t i = 0; i < n; i++) {
		assert_true(fds[i] >= 500);
		assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
	}
	assert_int_equal(em_slots_alloc(st, 1, &first), 1);
	pages_fill(w, 1, 3);
	assert_int_equal(em_store_writev(st, first, &(struct iovec){w, 4096}, 1), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(em_store_move_fd(st, fds[i], 700), 0);
		assert_int_equal(fcntl(fds[i], F_GETFD), -1);
	}
	assert_int_equal(em_store_move_fd(st, fds[0], 700), -EBADF);
	assert_int_equal(em_store_fds(st, moved, 8), n);
	for (size_t i = 0; i < n; i++)
		assert_true(moved[i] >= 700 && fcntl(moved[i], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(em_store_read(st, first, r, 1), 0);
	assert_true(pages_are(r, 1, 3));
	kill_child(fork_store(st, NULL));
	em_store_close(st);
}

static int group(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(scattered),
		cmocka_unit_test(short_transfers_are_finished),
		cmocka_unit_test(errors_are_errors),
		cmocka_unit_test(file_size_limit_never_signals),
		cmocka_unit_test(file_size_limit_lowered_at_the_last_moment),
		cmocka_unit_test(descriptors_move),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group, false);
}
