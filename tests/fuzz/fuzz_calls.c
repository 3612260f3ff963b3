/* SPDX-License-Identifier: MIT */
/*
 * System calls with random arguments, each made twice: by libc, where it is hooked under extmem, and by an
 * instruction that we have written into memory ourselves, which is not patched.  Both
 * must end alike; above all no pointer may crash the hook.
 *
 *	fuzz_calls [SEED [COUNT]]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define MIB (1ul << 20)

/* Calls that only look, or whose effect does not matter here. */
static const short harmless[] = {
	SYS_read, SYS_write, SYS_open, SYS_stat, SYS_fstat, SYS_lstat, SYS_poll, SYS_ioctl, SYS_pread64,
	SYS_pwrite64, SYS_readv, SYS_writev, SYS_access, SYS_select, SYS_mincore, SYS_nanosleep,
	SYS_getitimer, SYS_sendfile, SYS_connect, SYS_accept, SYS_sendto, SYS_recvfrom, SYS_sendmsg,
	SYS_recvmsg, SYS_bind, SYS_getsockname, SYS_getpeername, SYS_socketpair, SYS_setsockopt,
	SYS_getsockopt, SYS_execve, SYS_wait4, SYS_uname, SYS_semop, SYS_semctl, SYS_msgsnd, SYS_msgrcv,
	SYS_msgctl, SYS_fcntl, SYS_getdents, SYS_getcwd, SYS_readlink, SYS_gettimeofday, SYS_getrlimit,
	SYS_getrusage, SYS_sysinfo, SYS_times, SYS_getgroups, SYS_getresuid, SYS_getresgid, SYS_capget,
	SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_statfs, SYS_fstatfs, SYS_sched_getparam,
	SYS_sched_rr_get_interval, SYS_setxattr, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr,
	SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_time, SYS_futex, SYS_sched_getaffinity,
	SYS_io_getevents, SYS_lookup_dcookie, SYS_getdents64, SYS_semtimedop, SYS_timer_settime,
	SYS_timer_gettime, SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_epoll_wait,
	SYS_epoll_ctl, SYS_utimes, SYS_get_mempolicy, SYS_mq_timedsend, SYS_mq_timedreceive, SYS_mq_notify,
	SYS_mq_getsetattr, SYS_waitid, SYS_request_key, SYS_keyctl, SYS_inotify_add_watch,
	SYS_migrate_pages, SYS_openat, SYS_newfstatat, SYS_readlinkat, SYS_faccessat, SYS_get_robust_list,
	SYS_splice, SYS_vmsplice, SYS_move_pages, SYS_utimensat, SYS_signalfd, SYS_timerfd_settime,
	SYS_timerfd_gettime, SYS_accept4, SYS_signalfd4, SYS_preadv, SYS_pwritev, SYS_perf_event_open,
	SYS_recvmmsg, SYS_fanotify_mark, SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_sendmmsg,
	SYS_getcpu, SYS_process_vm_readv, SYS_process_vm_writev, SYS_sched_getattr, SYS_getrandom,
	SYS_memfd_create, SYS_bpf, SYS_execveat, SYS_copy_file_range, SYS_preadv2, SYS_pwritev2, SYS_statx,
	SYS_openat2, SYS_faccessat2, SYS_futex_waitv, SYS_landlock_create_ruleset, SYS_landlock_add_rule,
	SYS_quotactl_fd, SYS_ppoll, SYS_pselect6, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_io_submit,
	SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_io_pgetevents, SYS_ptrace, 451,
	454, 455, 456, 457, 458, 459, 461, 464, 465, 468,
};

static uint64_t state;
static char *pool[8]; /* each PAGE of something with 2 pages before a hole */
static long (*unhooked)(long nr, const long *arg);

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* long f(long nr, const long *arg): nr in rdi, arg in rsi */
static const unsigned char code[] = {
	0x48, 0x89, 0xf8,			/* mov %rdi,%rax */
	0x48, 0x89, 0xf1,			/* mov %rsi,%rcx */
	0x48, 0x8b, 0x39,			/* mov (%rcx),%rdi */
	0x48, 0x8b, 0x71, 0x08,			/* mov 8(%rcx),%rsi */
	0x48, 0x8b, 0x51, 0x10,			/* mov 16(%rcx),%rdx */
	0x4c, 0x8b, 0x51, 0x18,			/* mov 24(%rcx),%r10 */
	0x4c, 0x8b, 0x41, 0x20,			/* mov 32(%rcx),%r8 */
	0x4c, 0x8b, 0x49, 0x28,			/* mov 40(%rcx),%r9 */
	0x0f, 0x05, 0xc3,			/* syscall; ret */
};

static char *map(size_t n, int prot)
{
	char *p = mmap(NULL, n, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(2);
	return p;
}

static void make_pool(void)
{
	char *p;

	for (int i = 0; i < 8; i++) {
		p = map(i < 4 ? 4 * PAGE : 2 * MIB, PROT_READ | PROT_WRITE);
		pool[i] = p + (i < 4 ? PAGE : MIB);
		memset(p, i & 1 ? 0 : 0x41, i < 4 ? 4 * PAGE : 2 * MIB);
		munmap(pool[i] + PAGE, i < 4 ? 2 * PAGE : MIB - PAGE);
	}
	mprotect(pool[2] - PAGE, 2 * PAGE, PROT_READ);
	mprotect(pool[3] - PAGE, 2 * PAGE, PROT_NONE);
	mprotect(pool[6] - PAGE, 2 * PAGE, PROT_READ);
	mprotect(pool[7] - PAGE, 2 * PAGE, PROT_NONE);
	p = map(PAGE, PROT_READ | PROT_WRITE);
	memcpy(p, code, sizeof(code));
	mprotect(p, PAGE, PROT_READ | PROT_EXEC);
	unhooked = (long (*)(long, const long *))p;
}

/* What is at a pointer may be a vector of such pointers itself. */
static long pointer(bool deep)
{
	char *p = pool[rnd() % 8];
	long at = (long)(rnd() % 3 == 0 ? PAGE - rnd() % 64 : rnd() % PAGE) & (rnd() & 1 ? ~7l : ~0l);

	switch (rnd() % 12) {
	case 0:
		return 0;
	case 1:
		return (long)(p + PAGE + rnd() % PAGE);
	case 2:
		return (long)rnd();
	case 3:
		return (long)(rnd() >> 17);
	case 4:
		return -(long)(rnd() % PAGE);
	default:
		break;
	}
	if (deep && p != pool[2] && p != pool[3] && p != pool[6] && p != pool[7] && !(at & 7))
		for (long i = at; i + 16 <= (long)PAGE && i < at + 256; i += 16) {
			long v[2] = { pointer(false), (long)(rnd() % 5 ? rnd() % 9000 : rnd()) };

			memcpy(p + i, v, 16);
		}
	return (long)(p + at);
}

static long argument(void)
{
	switch (rnd() % 8) {
	case 0:
		return (long)(rnd() % 12) - 1; /* a descriptor, a flag, a count */
	case 1:
		return (long)(rnd() % 20000);
	case 2:
		return 1l << rnd() % 64;
	case 3:
		return rnd() % 2 ? 8 : 16;
	default:
		return pointer(true);
	}
}

static void on_alarm(int sig)
{
	(void)sig;
}

static long outcome(long ret)
{
	return ret < 0 && ret > -4096 ? ret : 0;
}

/* The memory is the same before both calls. */
static void copy_pool(char *to, bool back)
{
	static const int writable[] = { 0, 1, 4, 5 };

	for (int i = 0; i < 4; i++) {
		char *p = pool[writable[i]] - PAGE, *q = to + 2 * (size_t)i * PAGE;

		memcpy(back ? p : q, back ? q : p, 2 * PAGE);
	}
}

static int fuzz(uint64_t seed, long count)
{
	static char saved[8 * PAGE];
	char *cold = map(3 * MIB, PROT_READ | PROT_WRITE);
	int bad = 0;

	state = seed * 0x9e3779b97f4a7c15ull + 1;
	make_pool();
	while (count--) {
		long nr = harmless[rnd() % (sizeof(harmless) / sizeof(harmless[0]))], a[6], one, other;

		for (int i = 0; i < 6; i++)
			a[i] = argument();
		if (nr == SYS_execve || nr == SYS_execveat || nr == SYS_ptrace) /* nothing that succeeds */
			a[nr == SYS_execveat] = (long)pool[2] + (long)(rnd() % PAGE);
		copy_pool(saved, false);
		one = outcome(unhooked(nr, a));
		copy_pool(saved, true);
		if (count % 64 == 0) {
			memset(cold, (int)count, 3 * MIB);
			madvise(pool[4] - MIB, MIB + PAGE, MADV_PAGEOUT);
		}
		other = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		other = other == -1 ? -errno : outcome(other);
		if (one == other || one == -EINTR || other == -EINTR || one == -EAGAIN || other == -EAGAIN)
			continue;
		/* In managed memory it is the unhooked one that may fault. */
		if (one == -EFAULT && getenv("EXTMEM_DRAM"))
			continue;
		printf("# call %ld(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx): %ld, hooked %ld\n", nr, a[0], a[1],
		       a[2], a[3], a[4], a[5], one, other);
		bad++;
	}
	return bad;
}

static int child(uint64_t seed, long count)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	struct itimerval it = { { 0, 5000 }, { 0, 5000 } };
	int null = open("/dev/null", O_RDWR), bad;

	/* 3..11: a few descriptors of all kinds; 0: nothing to read. */
	dup2(null, 0);
	if (chdir("/proc/self/fdinfo") || pipe2((int[2]){ 0, 0 }, O_NONBLOCK))
		return 2;
	sigaction(SIGALRM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	setitimer(ITIMER_REAL, &it, NULL);
	bad = fuzz(seed, count);
	memset(&it, 0, sizeof(it));
	setitimer(ITIMER_REAL, &it, NULL);
	fflush(stdout);
	return bad > 255 ? 255 : bad;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	long count = argc > 2 ? atol(argv[2]) : 6000;
	int failed = 0, rounds = 4;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < rounds; i++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0)
			_exit(child(seed + (uint64_t)i, count));
		waitpid(pid, &status, 0);
		printf("%sok %d - seed %lu, %ld calls\n", status ? "not " : "", i + 1,
		       (unsigned long)seed + (unsigned long)i, count);
		if (WIFSIGNALED(status))
			printf("# ended by signal %d\n", WTERMSIG(status));
		failed |= status;
	}
	printf("1..%d\n", rounds);
	return !!failed;
}
