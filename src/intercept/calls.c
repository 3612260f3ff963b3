/* SPDX-License-Identifier: MIT */
#include "calls.h"

#include <sys/syscall.h>

#define K EM_CALL_KNOWN
#define P(how, dir, arg, size) { EM_PTR_##how, EM_DIR_##dir, arg, size }
#define IN(arg, n) P(FIXED, IN, arg, n)
#define OUT(arg, n) P(FIXED, OUT, arg, n)
#define INBUF(arg, len) P(LEN, IN, arg, len)
#define OUTBUF(arg, len) P(LEN, OUT, arg, len)
#define INVEC(arg, cnt, sz) P(LEN_OF, IN, arg, (cnt) | (sz) << 4)
#define OUTVEC(arg, cnt, sz) P(LEN_OF, OUT, arg, (cnt) | (sz) << 4)
#define STR(arg) P(STR, IN, arg, 0)
#define CALL(nr, fl, ...) [SYS_##nr] = { .flags = K | (fl), .ptr = { __VA_ARGS__ } }
#define NOPTR(nr) [SYS_##nr] = { .flags = K | EM_CALL_NOPTR }
#define SPECIAL(nr) [SYS_##nr] = { .flags = K | EM_CALL_SPECIAL }

/* Sizes of kernel structures on x86-64. */
enum {
	STAT = 144, STATFS = 120, STATX = 256, TIMESPEC = 16, ITIMER = 32, RUSAGE = 144,
	SIGINFO = 128, SOCKADDR = 128, UTSNAME = 390, SYSINFO = 112, EPOLL = 12, RLIMIT = 16,
};

const struct em_call em_calls[EM_CALL_MAX] = {
	/* memory and processes: range operations, fork, signals, descriptors */
	SPECIAL(mmap), SPECIAL(munmap), SPECIAL(mremap), SPECIAL(madvise), SPECIAL(brk),
	SPECIAL(mlock), SPECIAL(mlock2), SPECIAL(munlock), SPECIAL(mlockall), SPECIAL(munlockall),
	SPECIAL(clone), SPECIAL(clone3), SPECIAL(fork), SPECIAL(vfork), SPECIAL(exit),
	SPECIAL(exit_group), SPECIAL(rt_sigaction), SPECIAL(rt_sigprocmask),
	SPECIAL(sigaltstack), SPECIAL(rt_sigsuspend), SPECIAL(ppoll), SPECIAL(pselect6),
	SPECIAL(epoll_pwait), SPECIAL(epoll_pwait2), SPECIAL(close), SPECIAL(close_range),
	SPECIAL(dup2), SPECIAL(dup3), SPECIAL(process_madvise),
	SPECIAL(unshare), SPECIAL(setns),

	/* no pointers */
	NOPTR(mprotect), NOPTR(lseek), NOPTR(getpid), NOPTR(gettid), NOPTR(getppid),
	NOPTR(sched_yield), NOPTR(dup), NOPTR(fsync), NOPTR(fdatasync), NOPTR(ftruncate),
	NOPTR(getuid), NOPTR(geteuid), NOPTR(getgid), NOPTR(getegid), NOPTR(kill),
	NOPTR(tgkill), NOPTR(tkill), NOPTR(socket), NOPTR(listen), NOPTR(shutdown),
	NOPTR(epoll_create1), NOPTR(eventfd2), NOPTR(flock), NOPTR(fallocate), NOPTR(umask),
	NOPTR(setpgid), NOPTR(getpgid), NOPTR(getpgrp), NOPTR(setsid), NOPTR(getsid),
	NOPTR(alarm), NOPTR(pause), NOPTR(membarrier), NOPTR(fchmod),
	NOPTR(fchown), NOPTR(fchdir), NOPTR(sync), NOPTR(getpriority), NOPTR(setpriority),
	NOPTR(timerfd_create), NOPTR(inotify_init1), NOPTR(setuid), NOPTR(setgid),
	NOPTR(sched_get_priority_max), NOPTR(sched_get_priority_min), NOPTR(pkey_alloc),
	NOPTR(pkey_mprotect), NOPTR(readahead), NOPTR(fadvise64), NOPTR(timer_delete),
	NOPTR(timer_getoverrun), NOPTR(pidfd_open), NOPTR(pidfd_getfd), NOPTR(restart_syscall),

	/* data in and out */
	CALL(read, EM_CALL_PIECES, OUTBUF(1, 2)),
	CALL(write, EM_CALL_PIECES, INBUF(1, 2)),
	CALL(pread64, EM_CALL_PIECES | EM_CALL_PIECES_AT, OUTBUF(1, 2)),
	CALL(pwrite64, EM_CALL_PIECES | EM_CALL_PIECES_AT, INBUF(1, 2)),
	CALL(readv, EM_CALL_PIECES_IOV, P(IOV, OUT, 1, 2)),
	CALL(writev, EM_CALL_PIECES_IOV, P(IOV, IN, 1, 2)),
	CALL(preadv, 0, P(IOV, OUT, 1, 2)),
	CALL(pwritev, 0, P(IOV, IN, 1, 2)),
	CALL(preadv2, 0, P(IOV, OUT, 1, 2)),
	CALL(pwritev2, 0, P(IOV, IN, 1, 2)),
	CALL(sendfile, 0, OUT(2, 8)),
	CALL(splice, 0, OUT(1, 8), OUT(3, 8)),
	SPECIAL(vmsplice),
	CALL(copy_file_range, 0, OUT(1, 8), OUT(3, 8)),
	/* The remote side may be ourselves; if not, the addresses mean nothing here and do no harm. */
	CALL(process_vm_readv, 0, P(IOV, OUT, 1, 2), P(IOV, IN, 3, 4)),
	CALL(process_vm_writev, 0, P(IOV, IN, 1, 2), P(IOV, OUT, 3, 4)),
	CALL(getrandom, 0, OUTBUF(0, 1)),
	CALL(getdents, 0, OUTBUF(1, 2)),
	CALL(getdents64, 0, OUTBUF(1, 2)),

	/* sockets */
	CALL(connect, 0, INBUF(1, 2)),
	CALL(bind, 0, INBUF(1, 2)),
	CALL(accept, 0, P(LENP, OUT, 1, 2), OUT(2, 4)),
	CALL(accept4, 0, P(LENP, OUT, 1, 2), OUT(2, 4)),
	CALL(getsockname, 0, P(LENP, OUT, 1, 2), OUT(2, 4)),
	CALL(getpeername, 0, P(LENP, OUT, 1, 2), OUT(2, 4)),
	CALL(socketpair, 0, OUT(3, 8)),
	CALL(setsockopt, 0, INBUF(3, 4)),
	CALL(getsockopt, 0, P(LENP, OUT, 3, 4), OUT(4, 4)),
	CALL(sendto, 0, INBUF(1, 2), INBUF(4, 5)),
	CALL(recvfrom, 0, OUTBUF(1, 2), P(LENP, OUT, 4, 5), OUT(5, 4)),
	CALL(sendmsg, 0, P(MSG, IN, 1, 0)),
	CALL(recvmsg, 0, P(MSG, OUT, 1, 0)),
	CALL(sendmmsg, 0, P(MMSG, OUT, 1, 2)),
	CALL(recvmmsg, 0, P(MMSG, OUT, 1, 2), OUT(4, TIMESPEC)),

	/* paths */
	CALL(open, 0, STR(0)), CALL(creat, 0, STR(0)), CALL(openat, 0, STR(1)),
	CALL(openat2, 0, STR(1), INBUF(2, 3)),
	CALL(stat, 0, STR(0), OUT(1, STAT)), CALL(lstat, 0, STR(0), OUT(1, STAT)),
	CALL(fstat, 0, OUT(1, STAT)), CALL(newfstatat, 0, STR(1), OUT(2, STAT)),
	CALL(statx, 0, STR(1), OUT(4, STATX)),
	CALL(statfs, 0, STR(0), OUT(1, STATFS)), CALL(fstatfs, 0, OUT(1, STATFS)),
	CALL(access, 0, STR(0)), CALL(faccessat, 0, STR(1)), CALL(faccessat2, 0, STR(1)),
	CALL(chdir, 0, STR(0)), CALL(chroot, 0, STR(0)), CALL(getcwd, 0, OUTBUF(0, 1)),
	CALL(rename, 0, STR(0), STR(1)), CALL(renameat, 0, STR(1), STR(3)),
	CALL(renameat2, 0, STR(1), STR(3)), CALL(mkdir, 0, STR(0)), CALL(mkdirat, 0, STR(1)),
	CALL(rmdir, 0, STR(0)), CALL(link, 0, STR(0), STR(1)),
	CALL(linkat, 0, STR(1), STR(3)), CALL(unlink, 0, STR(0)), CALL(unlinkat, 0, STR(1)),
	CALL(symlink, 0, STR(0), STR(1)), CALL(symlinkat, 0, STR(0), STR(2)),
	CALL(readlink, 0, STR(0), OUTBUF(1, 2)), CALL(readlinkat, 0, STR(1), OUTBUF(2, 3)),
	CALL(chmod, 0, STR(0)), CALL(fchmodat, 0, STR(1)), CALL(chown, 0, STR(0)),
	CALL(lchown, 0, STR(0)), CALL(fchownat, 0, STR(1)), CALL(truncate, 0, STR(0)),
	CALL(mknod, 0, STR(0)), CALL(mknodat, 0, STR(1)), CALL(utime, 0, STR(0), IN(1, 16)),
	CALL(utimes, 0, STR(0), IN(1, 32)), CALL(futimesat, 0, STR(1), IN(2, 32)),
	CALL(utimensat, 0, STR(1), IN(2, 32)), CALL(memfd_create, 0, STR(0)),
	CALL(inotify_add_watch, 0, STR(1)),
	CALL(mount, 0, STR(0), STR(1), STR(2), STR(4)), CALL(umount2, 0, STR(0)),
	CALL(setxattr, 0, STR(0), STR(1), INBUF(2, 3)),
	CALL(lsetxattr, 0, STR(0), STR(1), INBUF(2, 3)),
	CALL(fsetxattr, 0, STR(1), INBUF(2, 3)),
	CALL(getxattr, 0, STR(0), STR(1), OUTBUF(2, 3)),
	CALL(lgetxattr, 0, STR(0), STR(1), OUTBUF(2, 3)),
	CALL(fgetxattr, 0, STR(1), OUTBUF(2, 3)),
	CALL(listxattr, 0, STR(0), OUTBUF(1, 2)), CALL(llistxattr, 0, STR(0), OUTBUF(1, 2)),
	CALL(flistxattr, 0, OUTBUF(1, 2)), CALL(removexattr, 0, STR(0), STR(1)),
	CALL(execve, EM_CALL_EXEC, STR(0), P(STRV, IN, 1, 0), P(STRV, IN, 2, 0)),
	CALL(execveat, EM_CALL_EXEC, STR(1), P(STRV, IN, 2, 0), P(STRV, IN, 3, 0)),

	/* waiting */
	CALL(poll, 0, OUTVEC(0, 1, 8)),
	CALL(select, 0, P(FDSET, OUT, 1, 0), P(FDSET, OUT, 2, 0), P(FDSET, OUT, 3, 0), OUT(4, 16)),
	CALL(epoll_wait, 0, OUTVEC(1, 2, EPOLL)),
	CALL(epoll_ctl, 0, IN(3, EPOLL)),
	CALL(wait4, 0, OUT(1, 4), OUT(3, RUSAGE)),
	CALL(waitid, 0, OUT(2, SIGINFO), OUT(4, RUSAGE)),
	CALL(futex, 0, OUT(0, 4), IN(3, TIMESPEC), OUT(4, 4)),
	CALL(nanosleep, 0, IN(0, TIMESPEC), OUT(1, TIMESPEC)),
	CALL(clock_nanosleep, 0, IN(2, TIMESPEC), OUT(3, TIMESPEC)),
	CALL(rt_sigpending, 0, OUT(0, 8)),
	CALL(rt_sigtimedwait, 0, IN(0, 8), OUT(1, SIGINFO), IN(2, TIMESPEC)),
	CALL(rt_sigqueueinfo, 0, IN(2, SIGINFO)),
	CALL(signalfd4, 0, IN(1, 8)),

	/* time, limits, identity, the rest */
	CALL(gettimeofday, 0, OUT(0, 16), OUT(1, 8)),
	CALL(clock_gettime, 0, OUT(1, TIMESPEC)), CALL(clock_getres, 0, OUT(1, TIMESPEC)),
	CALL(clock_settime, 0, IN(1, TIMESPEC)), CALL(time, 0, OUT(0, 8)),
	CALL(getitimer, 0, OUT(1, ITIMER)), CALL(setitimer, 0, IN(1, ITIMER), OUT(2, ITIMER)),
	CALL(timer_create, 0, IN(1, 64), OUT(2, 4)),
	CALL(timer_settime, 0, IN(2, ITIMER), OUT(3, ITIMER)),
	CALL(timer_gettime, 0, OUT(1, ITIMER)),
	CALL(timerfd_settime, 0, IN(2, ITIMER), OUT(3, ITIMER)),
	CALL(timerfd_gettime, 0, OUT(1, ITIMER)),
	CALL(times, 0, OUT(0, 32)), CALL(getrusage, 0, OUT(1, RUSAGE)),
	CALL(getrlimit, 0, OUT(1, RLIMIT)), CALL(setrlimit, 0, IN(1, RLIMIT)),
	CALL(prlimit64, 0, IN(2, RLIMIT), OUT(3, RLIMIT)),
	CALL(uname, 0, OUT(0, UTSNAME)), CALL(sysinfo, 0, OUT(0, SYSINFO)),
	CALL(pipe, 0, OUT(0, 8)), CALL(pipe2, 0, OUT(0, 8)),
	CALL(getgroups, 0, OUTVEC(1, 0, 4)), CALL(setgroups, 0, INVEC(1, 0, 4)),
	CALL(getresuid, 0, OUT(0, 4), OUT(1, 4), OUT(2, 4)),
	CALL(getresgid, 0, OUT(0, 4), OUT(1, 4), OUT(2, 4)),
	CALL(capget, 0, OUT(0, 8), OUT(1, 24)), CALL(capset, 0, OUT(0, 8), IN(1, 24)),
	CALL(sched_setaffinity, 0, INBUF(2, 1)), CALL(sched_getaffinity, 0, OUTBUF(2, 1)),
	CALL(sched_setparam, 0, IN(1, 4)), CALL(sched_getparam, 0, OUT(1, 4)),
	CALL(sched_setscheduler, 0, IN(2, 4)), CALL(getcpu, 0, OUT(0, 4), OUT(1, 4)),
	CALL(sched_setattr, 0, IN(1, 56)), CALL(sched_getattr, 0, OUTBUF(1, 2)),
	CALL(mincore, 0, P(PAGES, OUT, 2, 1)),
	CALL(ioctl, 0, P(IOCTL, OUT, 2, 0)),
	CALL(fcntl, 0, P(UNKNOWN, OUT, 2, 0)),
	CALL(prctl, 0, P(UNKNOWN, OUT, 1, 0), P(UNKNOWN, OUT, 2, 0)),
	CALL(arch_prctl, 0, P(UNKNOWN, OUT, 1, 0)),
	CALL(sethostname, 0, INBUF(0, 1)), CALL(semop, 0, INVEC(1, 2, 6)),
	CALL(semtimedop, 0, INVEC(1, 2, 6), IN(3, TIMESPEC)),
	CALL(msgsnd, 0, P(LEN, IN, 1, 2)), CALL(msgrcv, 0, P(LEN, OUT, 1, 2)),
};
