/* SPDX-License-Identifier: MIT */
/*
 * Calls that meet a transfer which does not come to an end: stalled SWITCH [TEST].  While the file SWITCH exists
 * the store stalls (EXTMEM_INJECT).  One thread waits for the store, another makes the call; then the store
 * goes on, and all must be as if it had never stopped.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <tap.h>
#include <unistd.h>

enum { PAGES = 1024, HALF = PAGES / 2, WORDS = 512, READ_PAGE = 7, WAITS = 0, GONE, OK, ZERO };

static const char *stall_file;
static uint64_t (*area)[WORDS], (*moved)[WORDS];
static volatile int found;

static void stall(void)
{
	CHECK(close(open(stall_file, O_CREAT | O_WRONLY, 0600)) == 0);
}

static void go_on(void)
{
	CHECK(unlink(stall_file) == 0);
}

static void fill(void)
{
	for (uint64_t i = 0; i < PAGES; i++)
		for (uint64_t w = 0; w < WORDS; w++)
			area[i][w] = i << 20 | w << 1 | 1;
}

static bool is_right(uint64_t (*p)[WORDS], uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		for (uint64_t w = 0; w < WORDS; w++)
			if (p[i][w] != (i << 20 | w << 1 | 1))
				return false;
	return true;
}

static bool is_zero(uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		for (uint64_t w = 0; w < WORDS; w++)
			if (area[i][w])
				return false;
	return true;
}

/* ---- who waits for the store ---------------------------------------------------------------- */

static sigjmp_buf jump;

static void on_segv(int n)
{
	(void)n;
	siglongjmp(jump, 1);
}

static void *wait_for_a_read(void *arg)
{
	uint64_t v;

	if (sigsetjmp(jump, 1)) {
		found = GONE;
		return arg;
	}
	v = *(volatile uint64_t *)&area[READ_PAGE][3];
	CHECK(v == 0 || v == (READ_PAGE << 20 | 7));
	found = v ? OK : ZERO;
	return arg;
}

/* Room for these is made by writing others. */
static void *wait_for_a_write(void *arg)
{
	volatile char *p = arg;

	for (size_t i = 0; i < PAGES; i++)
		p[i * PAGE] = 1;
	return arg;
}

static pthread_t waiting;

static void begin(bool write)
{
	char *other = write ? tap_map(PAGES * PAGE) : NULL;

	unlink(stall_file); /* of a test that failed */
	area = tap_map(PAGES * PAGE);
	fill();
	if (!write)
		madvise(area, PAGES * PAGE, MADV_PAGEOUT);
	usleep(30000);
	signal(SIGSEGV, on_segv);
	stall();
	CHECK(pthread_create(&waiting, NULL, write ? wait_for_a_write : wait_for_a_read, other) == 0);
	usleep(50000);
}

/* ---- what they meet --------------------------------------------------------------------------- */

static void *call_munmap(void *arg)
{
	CHECK(munmap(area, HALF * PAGE) == 0);
	return arg;
}

static void *call_mremap(void *arg)
{
	char *to = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	moved = mremap(area, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	CHECK((char *)moved == to);
	return arg;
}

static void *call_mremap_shrink(void *arg)
{
	CHECK(mremap(area, PAGES * PAGE, PAGE, 0) == area);
	return arg;
}

static void *call_mmap_over(void *arg)
{
	CHECK(mmap(area, HALF * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == area);
	return arg;
}

static void *call_discard(void *arg)
{
	CHECK(madvise(area, HALF * PAGE, MADV_DONTNEED) == 0);
	return arg;
}

static void *call_mprotect(void *arg)
{
	CHECK(mprotect(area, HALF * PAGE, PROT_NONE) == 0);
	return arg;
}

static void *call_fork(void *arg)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(!is_right(area, 0, PAGES));
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	return arg;
}

static void *call_vfork(void *arg)
{
	int status;
	pid_t pid = vfork();

	if (!pid) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	return arg;
}

static void meet(bool write, void *(*call)(void *))
{
	pthread_t t;

	begin(write);
	CHECK(pthread_create(&t, NULL, call, NULL) == 0);
	usleep(100000);
	CHECK(write || found == WAITS || !getenv("EXTMEM_INJECT"));
	go_on();
	CHECK(pthread_join(waiting, NULL) == 0 && pthread_join(t, NULL) == 0);
}

static void with_munmap(bool write)
{
	meet(write, call_munmap);
	CHECK(write || found != ZERO);
	CHECK(is_right(area, HALF, PAGES) && msync(area, PAGE, MS_ASYNC) == -1);
}

static void with_mremap(bool write)
{
	meet(write, call_mremap);
	CHECK(write || found != ZERO);
	CHECK(is_right(moved, 0, PAGES));
}

static void with_mremap_shrink(bool write)
{
	meet(write, call_mremap_shrink);
	CHECK(write || found != ZERO);
	CHECK(is_right(area, 0, 1) && msync(area[1], PAGE, MS_ASYNC) == -1);
}

static void with_mmap_over(bool write)
{
	meet(write, call_mmap_over);
	CHECK(write || found != GONE);
	CHECK(is_zero(0, HALF) && is_right(area, HALF, PAGES));
}

static void with_discard(bool write)
{
	meet(write, call_discard);
	CHECK(write || found != GONE);
	CHECK(is_zero(0, HALF) && is_right(area, HALF, PAGES));
}

static void with_mprotect(bool write)
{
	meet(write, call_mprotect);
	CHECK(write || found != ZERO);
	CHECK(mprotect(area, HALF * PAGE, PROT_READ | PROT_WRITE) == 0);
	CHECK(is_right(area, 0, PAGES));
}

static void with_fork(bool write)
{
	meet(write, call_fork);
	CHECK(write || found == OK);
	CHECK(is_right(area, 0, PAGES));
}

static void with_vfork(bool write)
{
	meet(write, call_vfork);
	CHECK(write || found == OK);
	CHECK(is_right(area, 0, PAGES));
}

/* The store does not go on: the process need not wait for it. */
static void with_exit(bool write)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		begin(write);
		exit(3);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	go_on();
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void with_exec(bool write)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		begin(write);
		execl("/bin/sh", "sh", "-c", "exit 3", NULL);
	}
	usleep(200000);
	CHECK(pid > 0);
	go_on(); /* the program that is executed is managed, and may need the store */
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

#define CALLS(X) \
	X(munmap) X(mremap) X(mremap_shrink) X(mmap_over) X(discard) X(mprotect) X(fork) X(vfork) \
	X(exit) X(exec)
#define BOTH(call) \
	static void call##_meets_a_read(void) { with_##call(false); } \
	static void call##_meets_a_write(void) { with_##call(true); }
CALLS(BOTH)

int main(int argc, char **argv)
{
#define ENTRIES(call) TAP_ENTRY_OF(call##_meets_a_read) TAP_ENTRY_OF(call##_meets_a_write)
#define TAP_ENTRY_OF(fn) { #fn, fn },
	static const struct tap_test tests[] = { CALLS(ENTRIES) };

	if (argc < 2)
		return 2;
	stall_file = argv[1];
	unlink(stall_file);
	return tap_run(tests, sizeof(tests) / sizeof(tests[0]), argc > 2 ? argv[2] : NULL);
}
