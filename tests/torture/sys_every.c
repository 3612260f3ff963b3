/* SPDX-License-Identifier: MIT */
/*
 * Every entry of the call table that has a pointer: once with its buffers in ordinary memory and
 * once in memory that has been evicted.  Both must end alike, and not with EFAULT.  Calls that would change the
 * machine are made so that the kernel refuses them after it has read their arguments.
 */
#define _GNU_SOURCE
#include "sys.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "../../src/intercept/newcalls.h"

struct arg {
	enum { VALUE, BUFFER, NESTED, FD } kind;
	long n;
	const char *text;
	size_t len; /* of the text */
	long to;    /* NESTED: offset in the buffer of a pointer to n2 more bytes */
	long n2;
};

#define V(n) { VALUE, n, 0, 0, 0, 0 }
#define B(n) { BUFFER, n, 0, 0, 0, 0 }
#define S(t) { BUFFER, sizeof(t), t, sizeof(t), 0, 0 }
#define I(n, t) { BUFFER, n, t, sizeof(t) - 1, 0, 0 } /* n bytes that begin so */
#define N(n, t, at, n2) { NESTED, n, t, sizeof(t) - 1, at, n2 }
#define F(k) { FD, k, 0, 0, 0, 0 }
#define CWD V(AT_FDCWD)
#define NO S("/nonexistent/a path of some length")
#define ID S("no such thing")

enum { FILE_FD, PIPE_R, PIPE_W, SOCK_A, SOCK_B, DIR_FD, EPOLL_FD, TIMER_FD, NULL_FD, NFDS };

static const struct call {
	long nr;
	const char *name;
	struct arg a[6];
} calls[] = {
#define C(name, ...) { SYS_##name, #name, { __VA_ARGS__ } }
	/* data */
	C(read, F(FILE_FD), B(9000), V(9000)), C(write, F(FILE_FD), B(9000), V(9000)),
	C(pread64, F(FILE_FD), B(9000), V(9000), V(10)),
	C(pwrite64, F(FILE_FD), B(9000), V(9000), V(10)),
	C(readv, F(FILE_FD), N(16, "", 0, 5000), V(1)), C(writev, F(FILE_FD), N(16, "", 0, 5000), V(1)),
	C(preadv, F(FILE_FD), N(16, "", 0, 5000), V(1), V(0)),
	C(pwritev, F(FILE_FD), N(16, "", 0, 5000), V(1), V(0)),
	C(preadv2, F(FILE_FD), N(16, "", 0, 5000), V(1), V(0), V(0), V(0)),
	C(pwritev2, F(FILE_FD), N(16, "", 0, 5000), V(1), V(0), V(0), V(0)),
	C(vmsplice, F(PIPE_W), N(16, "", 0, 5000), V(1), V(2)),
	C(getrandom, B(600), V(600)),
	C(sendfile, F(PIPE_W), F(FILE_FD), B(8), V(10)),
	C(splice, F(FILE_FD), B(8), F(PIPE_W), V(0), V(10)),
	C(copy_file_range, F(FILE_FD), B(8), F(FILE_FD), I(8, "\0\x40"), V(100)),
	C(getdents, F(DIR_FD), B(4096), V(4096)), C(getdents64, F(DIR_FD), B(4096), V(4096)),
	C(process_vm_readv, V(-1), N(16, "", 0, 100), V(1), N(16, "", 0, 100), V(1), V(0)),
	C(process_vm_writev, V(-1), N(16, "", 0, 100), V(1), N(16, "", 0, 100), V(1), V(0)),
	/* sockets */
	C(sendto, F(SOCK_A), B(100), V(100), V(MSG_DONTWAIT), V(0), V(0)),
	C(recvfrom, F(SOCK_B), B(100), V(100), V(MSG_DONTWAIT), B(128), I(4, "\x80")),
	C(sendmsg, F(SOCK_A), N(56, "", 16, 16), V(MSG_DONTWAIT)),
	C(recvmsg, F(SOCK_B), N(56, "", 0, 100), V(MSG_DONTWAIT)),
	C(sendmmsg, F(SOCK_A), B(64), V(1), V(MSG_DONTWAIT)),
	C(recvmmsg, F(SOCK_B), B(64), V(1), V(MSG_DONTWAIT), B(16)),
	C(connect, F(SOCK_A), I(110, "\1\0/nonexistent/socket"), V(110)),
	C(bind, F(SOCK_A), I(110, "\1\0/nonexistent/socket"), V(110)),
	C(accept, F(SOCK_A), B(110), I(4, "\x6e")), C(accept4, F(SOCK_A), B(110), I(4, "\x6e"), V(0)),
	C(getsockname, F(SOCK_A), B(110), I(4, "\x6e")),
	C(getpeername, F(SOCK_A), B(110), I(4, "\x6e")),
	C(socketpair, V(AF_UNIX), V(SOCK_STREAM), V(0), B(8)),
	C(setsockopt, F(SOCK_A), V(SOL_SOCKET), V(SO_RCVTIMEO), B(16), V(16)),
	C(getsockopt, F(SOCK_A), V(SOL_SOCKET), V(SO_RCVTIMEO), B(16), I(4, "\x10")),
	/* paths */
	C(open, NO, V(0)), C(creat, NO, V(0600)), C(openat, CWD, NO, V(0)),
	C(openat2, CWD, NO, B(24), V(24)), C(stat, S("/"), B(144)), C(lstat, S("/"), B(144)),
	C(fstat, F(FILE_FD), B(144)), C(newfstatat, CWD, S("/"), B(144), V(0)),
	C(statx, CWD, S("/"), V(0), V(0x7ff), B(256)), C(statfs, S("/"), B(120)),
	C(fstatfs, F(FILE_FD), B(120)), C(ustat, V(0), B(32)), C(sysfs, V(1), S("ext4")),
	C(access, NO, V(0)), C(faccessat, CWD, NO, V(0)), C(faccessat2, CWD, NO, V(0), V(0)),
	C(chdir, NO), C(chroot, NO), C(getcwd, B(4096), V(4096)), C(rename, NO, NO),
	C(renameat, CWD, NO, CWD, NO), C(renameat2, CWD, NO, CWD, NO, V(0)), C(mkdir, NO, V(0700)),
	C(mkdirat, CWD, NO, V(0700)), C(rmdir, NO), C(link, NO, NO), C(linkat, CWD, NO, CWD, NO, V(0)),
	C(unlink, NO), C(unlinkat, CWD, NO, V(0)), C(symlink, NO, NO), C(symlinkat, NO, CWD, NO),
	C(readlink, S("/proc/self/exe"), B(512), V(512)),
	C(readlinkat, CWD, S("/proc/self/exe"), B(512), V(512)), C(chmod, NO, V(0600)),
	C(fchmodat, CWD, NO, V(0600)), C(fchmodat2, CWD, NO, V(0600), V(0)), C(chown, NO, V(0), V(0)),
	C(lchown, NO, V(0), V(0)), C(fchownat, CWD, NO, V(0), V(0), V(0)), C(truncate, NO, V(0)),
	C(mknod, NO, V(0), V(0)), C(mknodat, CWD, NO, V(0), V(0)), C(utime, NO, B(16)),
	C(utimes, NO, B(32)), C(futimesat, CWD, NO, B(32)), C(utimensat, CWD, NO, B(32), V(0)),
	C(memfd_create, ID, V(1)), C(inotify_add_watch, V(-1), NO, V(1)),
	C(fanotify_mark, V(-1), V(1), V(1), CWD, NO),
	C(name_to_handle_at, CWD, S("/"), I(136, "\x80"), B(8), V(0)),
	C(open_by_handle_at, F(DIR_FD), I(136, "\x80"), V(0)), C(lookup_dcookie, V(0), B(100), V(100)),
	C(setxattr, NO, S("user.x"), B(10), V(10), V(0)),
	C(lsetxattr, NO, S("user.x"), B(10), V(10), V(0)),
	C(fsetxattr, F(PIPE_R), S("user.x"), B(10), V(10), V(0)),
	C(getxattr, S("/"), S("user.x"), B(10), V(10)),
	C(lgetxattr, S("/"), S("user.x"), B(10), V(10)),
	C(fgetxattr, F(FILE_FD), S("user.x"), B(10), V(10)), C(listxattr, S("/"), B(4096), V(4096)),
	C(llistxattr, S("/"), B(4096), V(4096)), C(flistxattr, F(FILE_FD), B(4096), V(4096)),
	C(removexattr, NO, S("user.x")), C(lremovexattr, NO, S("user.x")),
	C(fremovexattr, F(FILE_FD), S("user.x")),
	C(setxattrat, CWD, NO, V(0), S("user.x"), N(16, "", 0, 8), V(16)),
	C(getxattrat, CWD, S("/"), V(0), S("user.x"), N(16, "", 0, 8), V(16)),
	C(listxattrat, CWD, S("/"), V(0), B(4096), V(4096)), C(removexattrat, CWD, NO, V(0), S("user.x")),
	C(file_getattr, CWD, S("/"), B(24), V(24), V(0)), C(file_setattr, CWD, NO, B(24), V(24), V(0)),
	C(cachestat, F(FILE_FD), B(16), B(40), V(0)),
	C(execve, NO, N(16, "", 0, 8), N(16, "", 0, 8)),
	C(execveat, CWD, NO, N(16, "", 0, 8), N(16, "", 0, 8), V(0)),
	/* mounts and the machine */
	C(mount, ID, NO, ID, V(0), B(100)), C(umount2, NO, V(0)), C(pivot_root, NO, NO),
	C(swapon, NO, V(0)), C(swapoff, NO), C(acct, NO), C(open_tree, CWD, NO, V(0)),
	C(open_tree_attr, CWD, NO, V(0), B(32), V(32)), C(move_mount, CWD, NO, CWD, NO, V(0)),
	C(fsopen, ID, V(0)), C(fspick, CWD, NO, V(0)), C(fsconfig, F(FILE_FD), V(1), ID, ID, V(0)),
	C(mount_setattr, CWD, NO, V(0), B(32), V(32)),
	C(statmount, I(24, "\x18"), B(512), V(512), V(0)), C(listmount, I(24, "\x18"), B(80), V(10), V(0)),
	C(listns, I(24, "\x18"), B(80), V(10), V(0)),
	C(quotactl, V(0x80000700), NO, V(0), B(100)), C(quotactl_fd, F(FILE_FD), V(0x80000700), V(0), B(100)),
	C(sethostname, B(100), V(100)), C(setdomainname, B(100), V(100)),
	C(reboot, V(0), V(0), V(0), ID), C(syslog, V(10), B(100), V(100)),
	C(init_module, B(100), V(100), ID), C(finit_module, V(-1), ID, V(0)),
	C(delete_module, ID, V(04000)), C(kexec_load, V(0), V(1), N(32, "", 0, 100), V(0x1000)),
	C(kexec_file_load, V(-1), V(-1), V(10), ID, V(0)),
	/* waiting */
	C(poll, I(8, "\0\0\0\0\1"), V(1), V(0)),
	C(select, V(64), B(8), B(8), B(8), B(16)), C(epoll_wait, F(EPOLL_FD), B(120), V(10), V(0)),
	C(epoll_ctl, F(EPOLL_FD), V(3), F(PIPE_R), B(12)), C(wait4, V(-1), B(4), V(1), B(144)),
	C(waitid, V(0), V(0), B(128), V(5), B(144)), C(futex, I(32, "\5"), V(128), V(5), B(16)),
	C(futex_waitv, N(24, "\5", 8, 32), V(1), V(0), B(16), V(1)),
	C(futex_wake, B(32), V(1), V(1), V(130)), C(futex_wait, I(32, "\5"), V(4), V(~0u), V(130), B(16), V(1)),
	C(futex_requeue, N(48, "", 8, 32), V(0), V(1), V(1)), C(nanosleep, B(16), B(16)),
	C(clock_nanosleep, V(1), V(0), B(16), B(16)), C(rt_sigpending, B(8), V(8)),
	C(rt_sigtimedwait, I(8, "\0\2"), B(128), B(16), V(8)),
	C(rt_sigqueueinfo, V(-1), V(0), I(128, "")), C(rt_tgsigqueueinfo, V(-1), V(-1), V(0), I(128, "")),
	C(pidfd_send_signal, F(FILE_FD), V(0), B(128), V(0)), C(signalfd, V(-1), I(8, "\0\2"), V(8)),
	C(signalfd4, V(-1), I(8, "\0\2"), V(8), V(0)),
	/* requests */
	C(io_setup, V(4), B(8)), C(io_getevents, V(0), V(0), V(1), B(32), B(16)),
	C(io_pgetevents, V(0), V(0), V(1), B(32), B(16), N(16, "", 0, 8)),
	/* kept by the kernel: a size that it refuses */
	C(set_tid_address, B(4)), C(rseq, B(32), V(1), V(0), V(0)), C(set_robust_list, B(24), V(1)),
	C(get_robust_list, V(0), B(8), B(8)),
	/* time */
	C(gettimeofday, B(16), B(8)), C(settimeofday, I(16, "\0\0\0\0\0\0\0\0\xff\xff\xff\xff"), V(0)),
	C(clock_gettime, V(2), B(16)), C(clock_getres, V(2), B(16)),
	C(clock_settime, V(0), I(16, "\0\0\0\0\0\0\0\0\xff\xff\xff\xff")), C(time, B(8)),
	C(adjtimex, B(208)), C(clock_adjtime, V(0), B(208)), C(getitimer, V(1), B(32)),
	C(setitimer, V(1), B(32), B(32)), C(timer_create, V(1), I(64, "\0\0\0\0\0\0\0\0\0\0\0\0\1"), B(4)),
	C(timer_settime, V(0), V(0), B(32), B(32)), C(timer_gettime, V(0), B(32)),
	C(timerfd_settime, F(TIMER_FD), V(0), B(32), B(32)), C(timerfd_gettime, F(TIMER_FD), B(32)),
	C(times, B(32)),
	/* limits and scheduling */
	C(getrusage, V(0), B(144)), C(getrlimit, V(7), B(16)), C(setrlimit, V(99), B(16)),
	C(prlimit64, V(0), V(7), V(0), B(16)), C(uname, B(390)), C(sysinfo, B(112)), C(pipe, B(8)),
	C(pipe2, B(8), V(0)), C(getgroups, V(1000), B(4000)), C(setgroups, V(1), B(4)),
	C(getresuid, B(4), B(4), B(4)), C(getresgid, B(4), B(4), B(4)), C(capget, B(8), B(24)),
	C(capset, B(8), B(24)), C(sched_setaffinity, V(0), V(8), B(8)),
	C(sched_getaffinity, V(0), V(128), B(128)), C(sched_setparam, V(0), B(4)),
	C(sched_getparam, V(0), B(4)), C(sched_setscheduler, V(0), V(0), B(4)),
	C(sched_rr_get_interval, V(0), B(16)), C(sched_setattr, V(0), I(48, "\x30"), V(0)),
	C(sched_getattr, V(0), B(56), V(56), V(0)), C(getcpu, B(4), B(4), V(0)),
	C(mincore, V(0), V(0), B(8)), C(mbind, V(0), V(4096), V(2), B(8), V(64), V(0)),
	C(set_mempolicy, V(0), B(8), V(64)), C(get_mempolicy, B(4), B(512), V(4096), V(0), V(0)),
	C(migrate_pages, V(0), V(64), B(8), B(8)), C(move_pages, V(0), V(1), B(8), B(4), B(4), V(0)),
	/* queues, keys, security */
	C(semop, V(-1), B(6), V(1)), C(semtimedop, V(-1), B(6), V(1), B(16)),
	C(semctl, V(0), V(0), V(3), B(128)), C(shmctl, V(0), V(3), B(128)), C(msgctl, V(0), V(3), B(128)),
	C(msgsnd, V(-1), B(20), V(10), V(0)), C(msgrcv, V(-1), B(20), V(10), V(0), V(04000)),
	C(mq_open, ID, V(0), V(0), B(64)), C(mq_unlink, ID), C(mq_timedsend, V(-1), B(10), V(10), V(0), B(16)),
	C(mq_timedreceive, V(-1), B(10), V(10), B(4), B(16)), C(mq_notify, V(-1), B(64)),
	C(mq_getsetattr, V(-1), B(64), B(64)), C(add_key, ID, ID, B(10), V(10), V(0)),
	C(request_key, ID, ID, ID, V(0)), C(keyctl, V(31), B(8), V(8)), C(seccomp, V(2), V(0), B(4)),
	C(bpf, V(1), B(120), V(120)), C(perf_event_open, I(128, "\0\0\0\0\x80"), V(0), V(0), V(-1), V(8)),
	C(ptrace, V(12), V(-1), V(0), B(256)), C(landlock_create_ruleset, B(8), V(8), V(0)),
	C(landlock_add_rule, V(-1), V(1), B(16), V(0)), C(lsm_get_self_attr, V(100), B(100), I(4, "\x64"), V(0)),
	C(lsm_set_self_attr, V(100), B(100), V(100), V(0)), C(lsm_list_modules, B(100), I(4, "\x64"), V(0)),
	/* by another argument */
	C(ioctl, F(PIPE_R), V(0x541b), B(4)), C(ioctl, F(FILE_FD), V(0x5401), B(64)),
	C(ioctl, F(SOCK_A), V(0x8912), N(16, "", 8, 400)), C(ioctl, F(FILE_FD), V(0x2285), N(88, "", 16, 64)),
	C(fcntl, F(FILE_FD), V(F_GETLK), B(32)), C(fcntl, F(FILE_FD), V(16), B(8)),
	C(prctl, V(15), S("a name")), C(prctl, V(16), B(16)), C(prctl, V(2), B(4)),
	C(prctl, V(22), V(2), N(16, "\1", 8, 8)), C(prctl, V(35), V(15), B(4), V(0), V(0)),
	C(prctl, V(0x41555856), B(512), V(512), V(0), V(0)), C(arch_prctl, V(0x1003), B(8)),
	C(modify_ldt, V(0), B(100), V(100)),
};

#define NCALLS (sizeof(calls) / sizeof(calls[0]))

static int fds[NFDS];
static char plain[1 << 16];
static size_t plain_used;

static void *memory(bool is_cold, size_t n)
{
	if (is_cold)
		return spot(n);
	plain_used += (n + 31) & ~31ul;
	memset(plain + plain_used - ((n + 31) & ~31ul), 0, n);
	return plain + plain_used - ((n + 31) & ~31ul);
}

static long make(const struct arg *a, bool is_cold)
{
	long part[2];
	char *p;

	if (a->kind == VALUE)
		return a->n;
	if (a->kind == FD)
		return fds[a->n];
	p = memory(is_cold, (size_t)a->n);
	if (a->text)
		memcpy(p, a->text, a->len);
	if (a->kind == NESTED) {
		part[0] = (long)memory(is_cold, (size_t)a->n2);
		part[1] = a->n2;
		memcpy(p + a->to, part, a->to + 16 <= a->n ? 16 : 8);
	}
	return (long)p;
}

static void prepare(void)
{
	char some[300] = "x";

	lseek(fds[FILE_FD], 0, SEEK_SET);
	while (read(fds[PIPE_R], some, sizeof(some)) > 0)
		;
	if (write(fds[PIPE_W], "y", 1) != 1 || send(fds[SOCK_A], some, 100, MSG_DONTWAIT) != 100)
		recv(fds[SOCK_B], some, 300, MSG_DONTWAIT);
}

static long run(const struct call *c, bool is_cold)
{
	long a[6], ret;

	sys_reset();
	plain_used = 0;
	for (int i = 0; i < 6; i++)
		a[i] = make(&c->a[i], is_cold);
	prepare();
	cold();
	ret = syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	return ret < 0 ? -errno : 0;
}

static bool setup(void)
{
	char path[300];
	int sv[2], p[2];
	timer_t timer;

	snprintf(path, sizeof(path), "%s/every", sys_dir());
	fds[FILE_FD] = open(path, O_RDWR | O_CREAT, 0600);
	unlink(path);
	fds[DIR_FD] = open("/proc/self", O_RDONLY | O_DIRECTORY);
	fds[EPOLL_FD] = (int)syscall(SYS_epoll_create1, 0);
	fds[TIMER_FD] = timerfd_create(CLOCK_MONOTONIC, 0);
	fds[NULL_FD] = open("/dev/null", O_RDWR);
	if (pipe2(p, O_NONBLOCK) || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, sv))
		return false;
	fds[PIPE_R] = p[0];
	fds[PIPE_W] = p[1];
	fds[SOCK_A] = sv[0];
	fds[SOCK_B] = sv[1];
	signal(SIGXFSZ, SIG_IGN);
	return ftruncate(fds[FILE_FD], 40000) == 0 && fds[DIR_FD] >= 0 &&
	       timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0;
}

static void every_entry_of_the_table(void)
{
	char text[200];

	CHECK(setup());
	for (size_t i = 0; i < NCALLS; i++) {
		long hot = run(&calls[i], false), there = run(&calls[i], true);

		if (getenv("SHOW"))
			printf("# %s: %ld %ld\n", calls[i].name, hot, there);
		if (there == hot && (there != -EFAULT || hot == -EFAULT))
			continue;
		snprintf(text, sizeof(text), "%s: %ld with its buffers in memory, %ld evicted",
			 calls[i].name, hot, there);
		mm_fail(__FILE__, __LINE__, strdup(text));
	}
	for (int i = 0; i < NFDS; i++)
		close(fds[i]);
}

const struct mm_test sys_every_tests[] = { SYS_TEST(every_entry_of_the_table), { 0 } };
