/* SPDX-License-Identifier: MIT */
#include "calls.h"

#include "newcalls.h"

#define K EM_CALL_KNOWN
#define P(how, dir, arg, size) { EM_PTR_##how, EM_DIR_##dir, arg, size }
#define IN(arg, n) P(FIXED, IN, arg, n)
#define OUT(arg, n) P(FIXED, OUT, arg, n)
#define INBUF(arg, len) P(LEN, IN, arg, len)
#define OUTBUF(arg, len) P(LEN, OUT, arg, len)
#define INVEC(arg, cnt, sz) P(LEN_OF, IN, arg, (cnt) | (sz) << 4)
#define OUTVEC(arg, cnt, sz) P(LEN_OF, OUT, arg, (cnt) | (sz) << 4)
#define UPTO(arg, len, pages) P(UPTO, OUT, arg, (len) | (pages) << 4)
#define INUPTO(arg, len, pages) P(UPTO, IN, arg, (len) | (pages) << 4)
#define OUTLENP(arg, len) P(LENP, OUT, arg, len), OUT(len, 4)
#define STR(arg) P(STR, IN, arg, 0)
#define BITS(arg, n) P(BITS, IN, arg, n)
#define BY_CALL P(BY_CALL, OUT, 0, 0)
#define CALL(nr, ...) [SYS_##nr] = { .flags = K, .ptr = { __VA_ARGS__ } }
#define TRANSFER(nr, ...) [SYS_##nr] = { .flags = K | EM_CALL_TRANSFER, .ptr = { __VA_ARGS__ } }
#define ASYNC(nr, ...) [SYS_##nr] = { .flags = K | EM_CALL_ASYNC, .ptr = { __VA_ARGS__ } }
#define REMAPS(nr, ...) [SYS_##nr] = { .flags = K | EM_CALL_REMAPS, .ptr = { __VA_ARGS__ } }
#define EXEC(nr, ...) [SYS_##nr] = { .flags = K | EM_CALL_EXEC, .ptr = { __VA_ARGS__ } }
#define NOPTR(nr) [SYS_##nr] = { .flags = K | EM_CALL_NOPTR }
#define SPECIAL(nr) [SYS_##nr] = { .flags = K | EM_CALL_SPECIAL }
#define MAPPING(nr) [SYS_##nr] = { .flags = K | EM_CALL_SPECIAL | EM_CALL_REMAPS }

/* Sizes of kernel structures on x86-64. */
enum {
	STAT = 144, STATFS = 120, STATX = 256, TIMESPEC = 16, ITIMER = 32, RUSAGE = 144,
	SIGINFO = 128, UTSNAME = 390, SYSINFO = 112, EPOLL = 12, RLIMIT = 16, SIGEVENT = 64,
	TIMEX = 208, MQ_ATTR = 64, USTAT = 32, XATTR_PAGES = 17, PATH_PAGES = 2,
};

const struct em_call em_calls[EM_CALL_MAX] = {
	/* memory and processes: range operations, fork, signals, descriptors */
	MAPPING(mmap), MAPPING(munmap), MAPPING(mremap), MAPPING(madvise), MAPPING(brk),
	MAPPING(process_madvise), MAPPING(mprotect), MAPPING(pkey_mprotect), REMAPS(shmdt),
	REMAPS(shmat), REMAPS(ftruncate), REMAPS(fallocate), REMAPS(remap_file_pages),
	SPECIAL(mlock), SPECIAL(mlock2), SPECIAL(munlock), SPECIAL(mlockall),
	SPECIAL(munlockall), SPECIAL(unshare), SPECIAL(setns), SPECIAL(vmsplice),
	SPECIAL(clone), SPECIAL(clone3), SPECIAL(fork), SPECIAL(vfork), SPECIAL(exit),
	SPECIAL(exit_group), SPECIAL(rt_sigaction), SPECIAL(rt_sigprocmask),
	SPECIAL(sigaltstack), SPECIAL(rt_sigsuspend), SPECIAL(rt_sigpending),
	SPECIAL(rt_sigtimedwait), SPECIAL(rt_tgsigqueueinfo), SPECIAL(kill),
	SPECIAL(tkill), SPECIAL(tgkill),
	SPECIAL(signalfd), SPECIAL(signalfd4), SPECIAL(ppoll), SPECIAL(pselect6),
	SPECIAL(epoll_pwait), SPECIAL(epoll_pwait2), SPECIAL(close), SPECIAL(close_range),
	SPECIAL(dup2), SPECIAL(dup3), SPECIAL(rt_sigreturn),

	/* no pointers, or only addresses that the kernel does not follow */
	NOPTR(lseek), NOPTR(getpid), NOPTR(gettid), NOPTR(getppid), NOPTR(sched_yield),
	NOPTR(dup), NOPTR(fsync), NOPTR(fdatasync), NOPTR(getuid), NOPTR(geteuid), NOPTR(getgid),
	NOPTR(getegid), NOPTR(socket), NOPTR(listen),
	NOPTR(shutdown), NOPTR(epoll_create), NOPTR(epoll_create1), NOPTR(eventfd), NOPTR(eventfd2),
	NOPTR(flock), NOPTR(umask), NOPTR(setpgid), NOPTR(getpgid), NOPTR(getpgrp), NOPTR(setsid),
	NOPTR(getsid), NOPTR(alarm), NOPTR(pause), NOPTR(membarrier),
	NOPTR(fchmod), NOPTR(fchown), NOPTR(fchdir), NOPTR(sync), NOPTR(syncfs),
	NOPTR(sync_file_range), NOPTR(getpriority), NOPTR(setpriority), NOPTR(timerfd_create),
	NOPTR(inotify_init), NOPTR(inotify_init1), NOPTR(inotify_rm_watch), NOPTR(setuid),
	NOPTR(setgid), NOPTR(setreuid), NOPTR(setregid), NOPTR(setresuid), NOPTR(setresgid),
	NOPTR(setfsuid), NOPTR(setfsgid), NOPTR(sched_get_priority_max),
	NOPTR(sched_get_priority_min), NOPTR(sched_getscheduler), NOPTR(pkey_alloc),
	NOPTR(pkey_free), NOPTR(readahead), NOPTR(fadvise64), NOPTR(timer_delete),
	NOPTR(timer_getoverrun), NOPTR(pidfd_open), NOPTR(pidfd_getfd), NOPTR(restart_syscall),
	NOPTR(msync), NOPTR(shmget), NOPTR(semget), NOPTR(msgget), NOPTR(tee), NOPTR(personality),
	NOPTR(ioprio_set), NOPTR(ioprio_get), NOPTR(iopl), NOPTR(ioperm), NOPTR(vhangup),
	NOPTR(kcmp), NOPTR(userfaultfd), NOPTR(memfd_secret),
	NOPTR(process_mrelease), NOPTR(set_mempolicy_home_node), NOPTR(landlock_restrict_self),
	NOPTR(fanotify_init), NOPTR(fsmount), NOPTR(io_cancel), NOPTR(map_shadow_stack),
	NOPTR(mseal), NOPTR(uretprobe), NOPTR(uprobe),
	/* gone from the kernel, or never there: ENOSYS */
	NOPTR(uselib), NOPTR(create_module), NOPTR(get_kernel_syms), NOPTR(query_module),
	NOPTR(nfsservctl), NOPTR(getpmsg), NOPTR(putpmsg), NOPTR(afs_syscall), NOPTR(tuxcall),
	NOPTR(security), NOPTR(set_thread_area), NOPTR(get_thread_area), NOPTR(epoll_ctl_old),
	NOPTR(epoll_wait_old), NOPTR(vserver), NOPTR(_sysctl),

	/* data in and out */
	TRANSFER(read, OUTBUF(1, 2)), TRANSFER(write, INBUF(1, 2)),
	TRANSFER(pread64, OUTBUF(1, 2)), TRANSFER(pwrite64, INBUF(1, 2)),
	TRANSFER(readv, P(IOV, OUT, 1, 2)), TRANSFER(writev, P(IOV, IN, 1, 2)),
	TRANSFER(preadv, P(IOV, OUT, 1, 2)), TRANSFER(pwritev, P(IOV, IN, 1, 2)),
	TRANSFER(preadv2, P(IOV, OUT, 1, 2)), TRANSFER(pwritev2, P(IOV, IN, 1, 2)),
	TRANSFER(process_vm_readv, P(IOV, OUT, 1, 2), P(REMOTE, IN, 3, 4)),
	TRANSFER(process_vm_writev, P(IOV, IN, 1, 2), P(REMOTE, OUT, 3, 4)),
	TRANSFER(getrandom, OUTBUF(0, 1)),
	CALL(sendfile, OUT(2, 8)), CALL(splice, OUT(1, 8), OUT(3, 8)),
	CALL(copy_file_range, OUT(1, 8), OUT(3, 8)),
	CALL(getdents, UPTO(1, 2, 16)), CALL(getdents64, UPTO(1, 2, 16)),

	/* sockets */
	TRANSFER(sendto, INBUF(1, 2), INUPTO(4, 5, 1)),
	TRANSFER(recvfrom, OUTBUF(1, 2), OUTLENP(4, 5)),
	TRANSFER(sendmsg, P(MSG, IN, 1, 0)), TRANSFER(recvmsg, P(MSG, OUT, 1, 0)),
	TRANSFER(sendmmsg, P(MMSG, OUT, 1, 2)),
	TRANSFER(recvmmsg, P(MMSG, OUT, 1, 2), OUT(4, TIMESPEC)),
	CALL(connect, INUPTO(1, 2, 1)), CALL(bind, INUPTO(1, 2, 1)),
	CALL(accept, OUTLENP(1, 2)), CALL(accept4, OUTLENP(1, 2)),
	CALL(getsockname, OUTLENP(1, 2)), CALL(getpeername, OUTLENP(1, 2)),
	CALL(socketpair, OUT(3, 8)), CALL(setsockopt, BY_CALL), CALL(getsockopt, BY_CALL),

	/* paths */
	CALL(open, STR(0)), CALL(creat, STR(0)), CALL(openat, STR(1)),
	CALL(openat2, STR(1), INUPTO(2, 3, 1)),
	CALL(stat, STR(0), OUT(1, STAT)), CALL(lstat, STR(0), OUT(1, STAT)),
	CALL(fstat, OUT(1, STAT)), CALL(newfstatat, STR(1), OUT(2, STAT)),
	CALL(statx, STR(1), OUT(4, STATX)),
	CALL(statfs, STR(0), OUT(1, STATFS)), CALL(fstatfs, OUT(1, STATFS)),
	CALL(ustat, OUT(1, USTAT)), CALL(sysfs, BY_CALL),
	CALL(access, STR(0)), CALL(faccessat, STR(1)), CALL(faccessat2, STR(1)),
	CALL(chdir, STR(0)), CALL(chroot, STR(0)), CALL(getcwd, UPTO(0, 1, PATH_PAGES)),
	CALL(rename, STR(0), STR(1)), CALL(renameat, STR(1), STR(3)),
	CALL(renameat2, STR(1), STR(3)), CALL(mkdir, STR(0)), CALL(mkdirat, STR(1)),
	CALL(rmdir, STR(0)), CALL(link, STR(0), STR(1)), CALL(linkat, STR(1), STR(3)),
	CALL(unlink, STR(0)), CALL(unlinkat, STR(1)), CALL(symlink, STR(0), STR(1)),
	CALL(symlinkat, STR(0), STR(2)), CALL(readlink, STR(0), UPTO(1, 2, 16)),
	CALL(readlinkat, STR(1), UPTO(2, 3, 16)), CALL(chmod, STR(0)), CALL(fchmodat, STR(1)),
	CALL(fchmodat2, STR(1)), CALL(chown, STR(0)), CALL(lchown, STR(0)), CALL(fchownat, STR(1)),
	REMAPS(truncate, STR(0)), CALL(mknod, STR(0)), CALL(mknodat, STR(1)),
	CALL(utime, STR(0), IN(1, 16)), CALL(utimes, STR(0), IN(1, 32)),
	CALL(futimesat, STR(1), IN(2, 32)), CALL(utimensat, STR(1), IN(2, 32)),
	CALL(memfd_create, STR(0)), CALL(inotify_add_watch, STR(1)), CALL(fanotify_mark, STR(4)),
	CALL(name_to_handle_at, STR(1), P(HANDLE, OUT, 2, 0), OUT(3, 8)),
	CALL(open_by_handle_at, P(HANDLE, IN, 1, 0)), CALL(lookup_dcookie, UPTO(1, 2, PATH_PAGES)),
	CALL(setxattr, STR(0), STR(1), INUPTO(2, 3, XATTR_PAGES)), CALL(lsetxattr, STR(0), STR(1), INUPTO(2, 3, XATTR_PAGES)),
	CALL(fsetxattr, STR(1), INUPTO(2, 3, XATTR_PAGES)),
	CALL(getxattr, STR(0), STR(1), UPTO(2, 3, XATTR_PAGES)),
	CALL(lgetxattr, STR(0), STR(1), UPTO(2, 3, XATTR_PAGES)),
	CALL(fgetxattr, STR(1), UPTO(2, 3, XATTR_PAGES)),
	CALL(listxattr, STR(0), UPTO(1, 2, XATTR_PAGES)),
	CALL(llistxattr, STR(0), UPTO(1, 2, XATTR_PAGES)),
	CALL(flistxattr, UPTO(1, 2, XATTR_PAGES)), CALL(removexattr, STR(0), STR(1)),
	CALL(lremovexattr, STR(0), STR(1)), CALL(fremovexattr, STR(1)),
	CALL(setxattrat, STR(1), STR(3), P(XATTR, IN, 4, 5)),
	CALL(getxattrat, STR(1), STR(3), P(XATTR, OUT, 4, 5)),
	CALL(listxattrat, STR(1), UPTO(3, 4, XATTR_PAGES)), CALL(removexattrat, STR(1), STR(3)),
	CALL(file_getattr, STR(1), UPTO(2, 3, 1)), CALL(file_setattr, STR(1), INUPTO(2, 3, 1)),
	CALL(cachestat, IN(1, 16), OUT(2, 40)),
	EXEC(execve, STR(0), P(STRV, IN, 1, 0), P(STRV, IN, 2, 0)),
	EXEC(execveat, STR(1), P(STRV, IN, 2, 0), P(STRV, IN, 3, 0)),

	/* mounts and the machine */
	CALL(mount, STR(0), STR(1), STR(2), IN(4, 4096)), CALL(umount2, STR(0)),
	CALL(pivot_root, STR(0), STR(1)), CALL(swapon, STR(0)), CALL(swapoff, STR(0)),
	CALL(acct, STR(0)), CALL(open_tree, STR(1)), CALL(open_tree_attr, STR(1), INUPTO(3, 4, 1)),
	CALL(move_mount, STR(1), STR(3)), CALL(fsopen, STR(0)), CALL(fspick, STR(1)),
	CALL(fsconfig, STR(2), BY_CALL), CALL(mount_setattr, STR(1), INUPTO(3, 4, 1)),
	CALL(statmount, P(SIZED, IN, 0, 0), OUTBUF(1, 2)),
	CALL(listmount, P(SIZED, IN, 0, 0), OUTVEC(1, 2, 8)),
	CALL(listns, P(SIZED, IN, 0, 0), OUTVEC(1, 2, 8)),
	CALL(quotactl, STR(1), BY_CALL), CALL(quotactl_fd, BY_CALL),
	CALL(sethostname, INUPTO(0, 1, 1)), CALL(setdomainname, INUPTO(0, 1, 1)),
	CALL(reboot, STR(3)), CALL(syslog, OUTBUF(1, 2)),
	CALL(init_module, INBUF(0, 1), STR(2)), CALL(finit_module, STR(1)),
	CALL(delete_module, STR(0)), CALL(kexec_load, P(SEGMENTS, IN, 2, 1)),
	CALL(kexec_file_load, INBUF(3, 2)),

	/* waiting */
	CALL(poll, OUTVEC(0, 1, 8)),
	CALL(select, P(FDSET, OUT, 1, 0), P(FDSET, OUT, 2, 0), P(FDSET, OUT, 3, 0), OUT(4, 16)),
	CALL(epoll_wait, OUTVEC(1, 2, EPOLL)), CALL(epoll_ctl, IN(3, EPOLL)),
	CALL(wait4, OUT(1, 4), OUT(3, RUSAGE)), CALL(waitid, OUT(2, SIGINFO), OUT(4, RUSAGE)),
	CALL(futex, OUT(0, 8), IN(3, TIMESPEC), OUT(4, 8)),
	CALL(futex_waitv, P(WAITV, OUT, 0, 1), IN(3, TIMESPEC)),
	CALL(futex_wake, OUT(0, 8)), CALL(futex_wait, OUT(0, 8), IN(4, TIMESPEC)),
	CALL(futex_requeue, P(WAITV, OUT, 0, 15)),
	CALL(nanosleep, IN(0, TIMESPEC), OUT(1, TIMESPEC)),
	CALL(clock_nanosleep, IN(2, TIMESPEC), OUT(3, TIMESPEC)),
	CALL(rt_sigqueueinfo, IN(2, SIGINFO)),
	CALL(pidfd_send_signal, IN(2, SIGINFO)),

	/* requests that outlive the call */
	ASYNC(io_setup, OUT(1, 8)), ASYNC(io_destroy), ASYNC(io_submit),
	ASYNC(io_getevents, OUTVEC(3, 2, 32), IN(4, TIMESPEC)),
	ASYNC(io_pgetevents, OUTVEC(3, 2, 32), IN(4, TIMESPEC), P(MASK6, IN, 5, 0)),
	ASYNC(io_uring_setup), ASYNC(io_uring_enter), ASYNC(io_uring_register),

	/* the kernel comes back to these by itself */
	CALL(set_tid_address, P(PINNED, OUT, 0, 4)), CALL(rseq, P(PINNED, OUT, 0, 32)),
	CALL(set_robust_list, P(PINNED, OUT, 0, 24)), CALL(get_robust_list, OUT(1, 8), OUT(2, 8)),

	/* time */
	CALL(gettimeofday, OUT(0, 16), OUT(1, 8)), CALL(settimeofday, IN(0, 16), IN(1, 8)),
	CALL(clock_gettime, OUT(1, TIMESPEC)), CALL(clock_getres, OUT(1, TIMESPEC)),
	CALL(clock_settime, IN(1, TIMESPEC)), CALL(time, OUT(0, 8)),
	CALL(adjtimex, OUT(0, TIMEX)), CALL(clock_adjtime, OUT(1, TIMEX)),
	CALL(getitimer, OUT(1, ITIMER)), CALL(setitimer, IN(1, ITIMER), OUT(2, ITIMER)),
	CALL(timer_create, IN(1, SIGEVENT), OUT(2, 4)),
	CALL(timer_settime, IN(2, ITIMER), OUT(3, ITIMER)), CALL(timer_gettime, OUT(1, ITIMER)),
	CALL(timerfd_settime, IN(2, ITIMER), OUT(3, ITIMER)), CALL(timerfd_gettime, OUT(1, ITIMER)),
	CALL(times, OUT(0, 32)),

	/* limits, identity, scheduling, NUMA */
	CALL(getrusage, OUT(1, RUSAGE)), CALL(getrlimit, OUT(1, RLIMIT)),
	CALL(setrlimit, IN(1, RLIMIT)), CALL(prlimit64, IN(2, RLIMIT), OUT(3, RLIMIT)),
	CALL(uname, OUT(0, UTSNAME)), CALL(sysinfo, OUT(0, SYSINFO)),
	CALL(pipe, OUT(0, 8)), CALL(pipe2, OUT(0, 8)),
	CALL(getgroups, OUTVEC(1, 0, 4)), CALL(setgroups, INVEC(1, 0, 4)),
	CALL(getresuid, OUT(0, 4), OUT(1, 4), OUT(2, 4)),
	CALL(getresgid, OUT(0, 4), OUT(1, 4), OUT(2, 4)),
	CALL(capget, OUT(0, 8), OUT(1, 24)), CALL(capset, OUT(0, 8), IN(1, 24)),
	CALL(sched_setaffinity, P(UPTO, IN, 2, 1 | 16 << 4)), CALL(sched_getaffinity, UPTO(2, 1, 16)),
	CALL(sched_setparam, IN(1, 4)), CALL(sched_getparam, OUT(1, 4)),
	CALL(sched_setscheduler, IN(2, 4)), CALL(sched_rr_get_interval, OUT(1, TIMESPEC)),
	CALL(sched_setattr, P(SIZED, OUT, 1, 0)), CALL(sched_getattr, UPTO(1, 2, 2)),
	CALL(getcpu, OUT(0, 4), OUT(1, 4)), CALL(mincore, P(PAGES, OUT, 2, 1)),
	CALL(mbind, BITS(3, 4)), CALL(set_mempolicy, BITS(1, 2)),
	CALL(get_mempolicy, OUT(0, 4), P(BITS, OUT, 1, 2), BY_CALL),
	CALL(migrate_pages, BITS(2, 1), BITS(3, 1)),
	CALL(move_pages, INVEC(2, 1, 8), INVEC(3, 1, 4), OUTVEC(4, 1, 4)),

	/* System V and POSIX queues, keys, security */
	CALL(semop, INVEC(1, 2, 6)), CALL(semtimedop, INVEC(1, 2, 6), IN(3, TIMESPEC)),
	CALL(semctl, BY_CALL), CALL(shmctl, OUT(2, 128)), CALL(msgctl, OUT(2, 128)),
	CALL(msgsnd, P(LEN, IN, 1, 2 | 8 << 4)), CALL(msgrcv, P(LEN, OUT, 1, 2 | 8 << 4)),
	CALL(mq_open, STR(0), IN(3, MQ_ATTR)), CALL(mq_unlink, STR(0)),
	CALL(mq_timedsend, INBUF(1, 2), IN(4, TIMESPEC)),
	CALL(mq_timedreceive, OUTBUF(1, 2), OUT(3, 4), IN(4, TIMESPEC)),
	CALL(mq_notify, BY_CALL), CALL(mq_getsetattr, IN(1, MQ_ATTR), OUT(2, MQ_ATTR)),
	CALL(add_key, STR(0), STR(1), INUPTO(2, 3, 257)), CALL(request_key, STR(0), STR(1), STR(2)),
	CALL(keyctl, BY_CALL), CALL(seccomp, BY_CALL), CALL(bpf, BY_CALL),
	CALL(perf_event_open, P(SIZED, OUT, 0, 4)), CALL(ptrace, BY_CALL),
	CALL(landlock_create_ruleset, INUPTO(0, 1, 1)), CALL(landlock_add_rule, IN(2, 16)),
	CALL(lsm_get_self_attr, OUTLENP(1, 2)), CALL(lsm_set_self_attr, INUPTO(1, 2, 16)),
	CALL(lsm_list_modules, OUTLENP(0, 1)),

	/* what another argument decides */
	CALL(ioctl, BY_CALL), CALL(fcntl, BY_CALL), CALL(prctl, BY_CALL), CALL(arch_prctl, BY_CALL),
	CALL(modify_ldt, OUTBUF(1, 2)),
};
