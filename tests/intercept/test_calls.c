/* SPDX-License-Identifier: MIT */
/* Ordinary life under a patched libc. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <cmocka.h>

#include "stub.h"

extern char **environ;
extern long regs_check(void);
extern long regs_result;

static struct em_patch_report report;

static void print_line(void *arg, const char *object, uint64_t vaddr, const char *what)
{
	(void)arg;
	printf("# %s %#lx: %s\n", object, (unsigned long)vaddr, what);
}

static int patch(void **state)
{
	struct timespec a, b;
	int ret;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &a);
	ret = stub_patch_all(&report, getenv("VERBOSE") ? print_line : NULL, NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("# %u objects, %u sites, %u patched, %.2f ms\n", report.objects,
	       report.sites_found, report.sites_patched,
	       (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6);
	return ret;
}

#define SEEN(nr, statement)                                  \
	do {                                                 \
		unsigned long before_ = stub_count[nr];      \
		statement;                                   \
		assert_true(stub_count[nr] > before_);       \
	} while (0)

static void counts_add_up(void **state)
{
	(void)state;
	assert_int_equal(report.sites_found, report.sites_patched + report.unpatched);
	assert_true(report.sites_patched > 400);
	assert_true(report.unpatched < 10);
	assert_int_equal(stub_patch_all(&report, NULL, NULL), -EALREADY);
}

static void plain_calls_are_seen(void **state)
{
	struct stat st;
	char buf[16];
	void *p = NULL;
	int fd = -1;

	(void)state;
	SEEN(SYS_getpid, assert_int_equal(getpid(), syscall(SYS_getpid)));
	SEEN(SYS_getppid, assert_true(getppid() > 0));
	SEEN(SYS_openat, fd = open("/proc/self/exe", O_RDONLY));
	SEEN(SYS_read, assert_int_equal(read(fd, buf, 4), 4));
	assert_memory_equal(buf, "\177ELF", 4);
	SEEN(SYS_newfstatat, assert_int_equal(stat("/", &st), 0));
	SEEN(SYS_mmap, p = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0));
	assert_memory_equal(p, "\177ELF", 4);
	SEEN(SYS_munmap, munmap(p, 8192));
	SEEN(SYS_close, close(fd));
	assert_int_equal(read(fd, buf, 1), -1);
	assert_int_equal(errno, EBADF);
}

static void calls_inside_libc_are_seen(void **state)
{
	char line[64];
	char *volatile big;
	FILE *f = NULL;
	void *p = NULL;

	(void)state;
	SEEN(SYS_openat, f = fopen("/proc/self/comm", "r"));
	SEEN(SYS_read, assert_non_null(fgets(line, sizeof(line), f)));
	SEEN(SYS_close, fclose(f));
	SEEN(SYS_mmap, big = malloc(16 << 20));
	assert_non_null(big);
	memset(big, 1, 16 << 20);
	SEEN(SYS_munmap, free(big));
	SEEN(SYS_brk, p = sbrk(4096));
	assert_true(p != (void *)-1);
	SEEN(SYS_clock_nanosleep, usleep(10));
}

static void registers_and_red_zone_survive(void **state)
{
	unsigned long before = stub_count[SYS_getppid];

	(void)state;
	assert_int_equal(regs_check(), 0);
	assert_int_equal(regs_result, getppid());
	assert_int_equal(stub_count[SYS_getppid], before + 2);
}

static void fork_exec_and_pipes_work(void **state)
{
	char *argv[] = { "sh", "-c", "exit 7", NULL };
	int status, fds[2];
	char c = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		c = 'x';
		_exit(write(fds[1], &c, 1) == 1 ? 5 : 6);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 5);
	assert_int_equal(read(fds[0], &c, 1), 1);
	assert_int_equal(c, 'x');
	assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_int_equal(WEXITSTATUS(system("exit 3")), 3);
	SEEN(SYS_vfork, pid = vfork(); if (pid == 0) _exit(9));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 9);
}

static void *add_up(void *arg)
{
	for (int i = 0; i < 1000; i++)
		__atomic_fetch_add((long *)arg, syscall(SYS_gettid) > 0, __ATOMIC_RELAXED);
	return arg;
}

static void threads_start_and_end(void **state)
{
	pthread_t thread[8];
	long sum = 0;
	void *ret;

	(void)state;
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 8; i++)
			assert_int_equal(pthread_create(&thread[i], NULL, add_up, &sum), 0);
		for (int i = 0; i < 8; i++) {
			assert_int_equal(pthread_join(thread[i], &ret), 0);
			assert_ptr_equal(ret, &sum);
		}
	}
	assert_int_equal(sum, 20 * 8 * 1000);
}

static volatile sig_atomic_t signals;
static sigjmp_buf jump;

static void on_signal(int sig)
{
	signals++;
	if (sig == SIGUSR2)
		siglongjmp(jump, 1);
}

static void signals_return_and_interrupt(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct timespec second = { .tv_sec = 1 };
	timer_t timer;
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec soon = { .it_value.tv_nsec = 20000000 };

	(void)state;
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	raise(SIGUSR1);
	assert_int_equal(signals, 1);
	if (!sigsetjmp(jump, 1))
		raise(SIGUSR2);
	assert_int_equal(signals, 2);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &ev, &timer), 0);
	timer_settime(timer, 0, &soon, NULL);
	assert_int_equal(nanosleep(&second, NULL), -1);
	assert_int_equal(errno, EINTR);
	timer_delete(timer);
}

static int cleaned;

static void cleanup(void *arg)
{
	cleaned += *(int *)arg;
}

static void *block_in_read(void *arg)
{
	int one = 1;
	char c;

	pthread_cleanup_push(cleanup, &one);
	if (read(*(int *)arg, &c, 1) < 0)
		perror("read");
	pthread_cleanup_pop(0);
	return NULL;
}

/* Compiled with -fexceptions: the cleanup runs only if unwinding passes the hook. */
static void cancelled_thread_runs_its_cleanup(void **state)
{
	pthread_t thread;
	int fds[2];
	void *ret;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	for (int i = 1; i <= 20; i++) {
		assert_int_equal(pthread_create(&thread, NULL, block_in_read, &fds[0]), 0);
		usleep(i % 4 * 1000);
		assert_int_equal(pthread_cancel(thread), 0);
		assert_int_equal(pthread_join(thread, &ret), 0);
		assert_ptr_equal(ret, PTHREAD_CANCELED);
		/* Early cancellations come before the push. */
		if (i % 4 == 0)
			cleaned = 0;
		else if (i % 4 == 3)
			assert_true(cleaned >= 1);
	}
}

/* Single-steps a patched call; every address on the way must unwind to this function. */
static struct {
	uint64_t lo, hi, want;
	unsigned in_area, steps, lost;
	volatile bool stop;
} walk;

static _Unwind_Reason_Code frame(struct _Unwind_Context *ctx, void *arg)
{
	if (_Unwind_GetIP(ctx) - walk.want < 4096)
		*(bool *)arg = true;
	return _URC_NO_REASON;
}

static void on_step(int sig, siginfo_t *info, void *context)
{
	uint64_t pc = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	bool found = false;

	(void)sig;
	(void)info;
	if (walk.stop) { /* trap flag off */
		((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x100;
		return;
	}
	_Unwind_Backtrace(frame, &found);
	walk.steps++;
	walk.in_area += pc - walk.lo < walk.hi - walk.lo;
	if (!found) {
		walk.lost++;
		fprintf(stderr, "lost at %#lx\n", (unsigned long)pc);
	}
}

static __attribute__((noinline)) void step_through(void)
{
	char c;

	__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc");
	getppid();
	read(-1, &c, 0);
	walk.stop = true;
}

static void every_step_of_the_way_unwinds(void **state)
{
	struct sigaction sa = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };

	(void)state;
	stub_area(&walk.lo, &walk.hi);
	walk.want = (uint64_t)step_through;
	sigaction(SIGTRAP, &sa, NULL);
	step_through();
	assert_true(walk.steps > 60);
	assert_true(walk.in_area >= 6);
	assert_int_equal(walk.lost, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_add_up),
		cmocka_unit_test(plain_calls_are_seen),
		cmocka_unit_test(calls_inside_libc_are_seen),
		cmocka_unit_test(registers_and_red_zone_survive),
		cmocka_unit_test(fork_exec_and_pipes_work),
		cmocka_unit_test(threads_start_and_end),
		cmocka_unit_test(signals_return_and_interrupt),
		cmocka_unit_test(cancelled_thread_runs_its_cleanup),
		cmocka_unit_test(every_step_of_the_way_unwinds),
	};

	return cmocka_run_group_tests(tests, patch, NULL);
}
