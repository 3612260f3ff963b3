/* SPDX-License-Identifier: MIT */
/*
 * userfaultfd and the madvise family: one small function per operation, each probed, none chosen
 * by kernel version.
 */
#include "core.h"

#include <errno.h>
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "sys.h"
#include "uffd_compat.h"

struct em_uffd em_uffd = { .fd = -1, .pidfd = -1, .dev_fd = -1, .pipe = { -1, -1 } };

#ifndef PR_GET_MEMORY_MERGE
#define PR_GET_MEMORY_MERGE 68 /* 6.4 */
#endif

static const int pidfd_self_group = -10002; /* PIDFD_SELF_THREAD_GROUP, 6.14 */
#define DROP_RUNS 512 /* below UIO_MAXIOV */

/* Moves fd to a number where programs rarely look. */
static int move_high(long fd, int fd_min)
{
	long high;

	if (fd < 0)
		return (int)fd;
	high = em_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd_min);
	if (high < 0)
		return (int)fd;
	em_sys_close((int)fd);
	return (int)high;
}

/* Three ways in, least privilege first; in thread mode faults inside the kernel are worth having, so
   there the order is reversed. */
static long open_any(enum em_delivery delivery)
{
	const int flags = O_CLOEXEC | (delivery == EM_DELIVERY_UPCALL ? O_NONBLOCK : 0);
	const int full = flags, user = flags | UFFD_USER_MODE_ONLY;
	bool thread = delivery == EM_DELIVERY_THREAD;
	long fd;

	fd = em_syscall1(SYS_userfaultfd, thread ? full : user);
	if (fd < 0)
		fd = em_syscall1(SYS_userfaultfd, thread ? user : full);
	if (fd >= 0 || em_uffd.dev_fd < 0)
		return fd;
	return em_syscall3(SYS_ioctl, em_uffd.dev_fd, USERFAULTFD_IOC_NEW, flags);
}

/*
 * Kept for the children of fork: until then the program may have changed its user or its root
 * directory, or may have set a filter that refuses the system call.
 */
static void open_device(int fd_min)
{
	if (em_uffd.dev_fd < 0)
		em_uffd.dev_fd = move_high(em_syscall4(SYS_openat, AT_FDCWD, "/dev/userfaultfd",
						       O_RDWR | O_CLOEXEC, 0), fd_min);
}

static long handshake(int fd, uint64_t want, uint64_t *have)
{
	struct uffdio_api api = { .api = UFFD_API, .features = want };
	long ret = em_sys_ioctl(fd, UFFDIO_API, &api);

	*have = api.features;
	return ret;
}

static bool probe_process_madvise(int pidfd)
{
	long p = em_sys_mmap(NULL, EM_PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec iov = { (void *)p, EM_PAGE_SIZE };
	bool ok = false;

	if (em_is_err(p))
		return false;
	*(volatile char *)p = 1;
	if (em_syscall5(SYS_process_madvise, pidfd, &iov, 1, MADV_DONTNEED, 0) ==
	    (long)EM_PAGE_SIZE)
		ok = *(volatile char *)p == 0;
	em_sys_munmap((void *)p, EM_PAGE_SIZE);
	return ok;
}

static void open_pidfd(uint32_t mask, int fd_min)
{
	em_uffd.features &= ~(uint32_t)EM_FEAT_PROCESS_MADVISE;
	if (mask & EM_FEAT_PROCESS_MADVISE)
		return;
	if (probe_process_madvise(pidfd_self_group)) {
		em_uffd.pidfd = pidfd_self_group;
		em_uffd.features |= EM_FEAT_PROCESS_MADVISE;
		return;
	}
	em_uffd.pidfd = move_high(em_syscall2(SYS_pidfd_open, em_sys_getpid(), 0), fd_min);
	if (em_uffd.pidfd >= 0 && probe_process_madvise(em_uffd.pidfd)) {
		em_uffd.features |= EM_FEAT_PROCESS_MADVISE;
	} else if (em_uffd.pidfd >= 0) {
		em_sys_close(em_uffd.pidfd);
		em_uffd.pidfd = -1;
	}
}

static int open_fd(enum em_delivery delivery, uint32_t mask, int fd_min)
{
	uint64_t want = 0, have;
	long fd = open_any(delivery), ret;

	if (fd < 0)
		return (int)fd;
	ret = handshake((int)fd, 0, &have);
	em_sys_close((int)fd);
	if (ret < 0)
		return (int)ret;
	if (delivery == EM_DELIVERY_UPCALL) {
		if (!(have & UFFD_FEATURE_SIGBUS))
			return -ENOSYS;
		want |= UFFD_FEATURE_SIGBUS;
		em_uffd.features |= EM_FEAT_SIGBUS;
	}
	if ((have & UFFD_FEATURE_PAGEFAULT_FLAG_WP) && !(mask & EM_FEAT_WP)) {
		want |= UFFD_FEATURE_PAGEFAULT_FLAG_WP;
		em_uffd.features |= EM_FEAT_WP;
	}
	if ((have & UFFD_FEATURE_MOVE) && !(mask & EM_FEAT_MOVE)) {
		want |= UFFD_FEATURE_MOVE;
		em_uffd.features |= EM_FEAT_MOVE;
	}
	fd = open_any(delivery);
	if (fd < 0)
		return (int)fd;
	ret = handshake((int)fd, want, &have);
	if (ret < 0) {
		em_sys_close((int)fd);
		return (int)ret;
	}
	em_uffd.fd = move_high(fd, fd_min);
	return 0;
}

/* For capture.c, which does nothing where KSM may merge all memory (a setting that exec hands on).  The pipe's size
   is set when it is used first: a user may have so many large ones and no more. */
static void open_pipe(uint32_t mask, int fd_min)
{
	int fd[2];

	/* With handler threads a page gone behind our back would be asked of one, which waits for us. */
	if ((mask & EM_FEAT_CAPTURE) || !(em_uffd.features & EM_FEAT_SIGBUS) ||
	    !(em_uffd.features & EM_FEAT_PROCESS_MADVISE) ||
	    em_syscall5(SYS_prctl, PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1 ||
	    em_is_err(em_syscall2(SYS_pipe2, fd, O_CLOEXEC)))
		return;
	em_uffd.pipe[0] = move_high(fd[0], fd_min);
	em_uffd.pipe[1] = move_high(fd[1], fd_min);
	em_uffd.pipe_sized = false;
	em_uffd.features |= EM_FEAT_CAPTURE;
}

int em_uffd_open(enum em_delivery delivery, uint32_t mask, int fd_min)
{
	int ret;

	open_device(fd_min);
	ret = open_fd(delivery, mask, fd_min);
	if (ret)
		return ret;
	open_pidfd(mask, fd_min);
	open_pipe(mask, fd_min);
	return 0;
}

/* The inherited descriptor still speaks for the parent's address space: close it before anything. */
int em_uffd_reopen(enum em_delivery delivery, uint32_t mask, int fd_min)
{
	em_sys_close(em_uffd.fd);
	if (em_uffd.pidfd >= 0)
		em_sys_close(em_uffd.pidfd);
	for (int i = 0; i < 2; i++)
		if (em_uffd.pipe[i] >= 0)
			em_sys_close(em_uffd.pipe[i]);
	em_uffd.fd = em_uffd.pidfd = em_uffd.pipe[0] = em_uffd.pipe[1] = -1;
	em_uffd.features = 0;
	return em_uffd_open(delivery, mask, fd_min);
}

int em_uffd_register(uintptr_t start, size_t len)
{
	struct uffdio_register reg = {
		.range = { .start = start, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (em_uffd.features & EM_FEAT_WP)
		reg.mode |= UFFDIO_REGISTER_MODE_WP;
	em_stat_inc(uffd_ioctls);
	return (int)em_sys_ioctl(em_uffd.fd, UFFDIO_REGISTER, &reg);
}

int em_uffd_unregister(uintptr_t start, size_t len)
{
	struct uffdio_range r = { .start = start, .len = len };

	return (int)em_sys_ioctl(em_uffd.fd, UFFDIO_UNREGISTER, &r);
}

void em_uffd_poison(uintptr_t addr)
{
	struct uffdio_poison p = { .range = { .start = addr, .len = EM_PAGE_SIZE } };

	em_sys_ioctl(em_uffd.fd, UFFDIO_POISON, &p);
}

/* The kernel fills and protects within one mapping at a time, and mprotect may have split ours: a run that
   is refused is done again page by page. */
static bool may_span_mappings(long ret, uint32_t npages)
{
	return (ret == -ENOENT || ret == -EINVAL) && npages > 1;
}

static long copy_once(uintptr_t dst, uintptr_t src, uint32_t npages, bool wp, uint32_t *done)
{
	struct uffdio_copy c = {
		.dst = dst,
		.src = src,
		.len = (uint64_t)npages * EM_PAGE_SIZE,
		.mode = wp ? UFFDIO_COPY_MODE_WP : 0,
	};
	long ret = em_sys_ioctl(em_uffd.fd, UFFDIO_COPY, &c);

	em_stat_inc(uffd_ioctls);
	if (c.copy > 0)
		*done += (uint32_t)((uint64_t)c.copy >> EM_PAGE_SHIFT);
	return ret;
}

int em_uffd_copy(uintptr_t dst, const void *src, uint32_t npages, bool wp, uint32_t *done)
{
	uint32_t most = npages;

	*done = 0;
	while (*done < npages) {
		uint32_t n = npages - *done < most ? npages - *done : most;
		uintptr_t off = *done * EM_PAGE_SIZE;
		long ret = copy_once(dst + off, (uintptr_t)src + off, n, wp, done);

		if (may_span_mappings(ret, n))
			most = 1;
		else if (ret < 0 && ret != -EAGAIN && ret != -EINTR)
			return (int)ret; /* EAGAIN: a part was done, go on with the rest */
	}
	return 0;
}

static long zero_once(uintptr_t dst, uint32_t npages, uint32_t *done)
{
	struct uffdio_zeropage z = {
		.range = { .start = dst, .len = (uint64_t)npages * EM_PAGE_SIZE },
	};
	long ret = em_sys_ioctl(em_uffd.fd, UFFDIO_ZEROPAGE, &z);

	em_stat_inc(uffd_ioctls);
	if (z.zeropage > 0)
		*done += (uint32_t)((uint64_t)z.zeropage >> EM_PAGE_SHIFT);
	return ret;
}

int em_uffd_zero(uintptr_t dst, uint32_t npages, uint32_t *done)
{
	uint32_t most = npages;

	*done = 0;
	while (*done < npages) {
		uint32_t n = npages - *done < most ? npages - *done : most;
		long ret = zero_once(dst + *done * EM_PAGE_SIZE, n, done);

		if (may_span_mappings(ret, n))
			most = 1;
		else if (ret < 0 && ret != -EAGAIN && ret != -EINTR)
			return (int)ret;
	}
	return 0;
}

static long protect_once(uintptr_t start, size_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = start, .len = len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	long ret;

	do {
		em_stat_inc(uffd_ioctls);
		ret = em_sys_ioctl(em_uffd.fd, UFFDIO_WRITEPROTECT, &wp);
	} while (ret == -EAGAIN || ret == -EINTR);
	if (on)
		em_stat_inc(shootdowns);
	return ret;
}

int em_uffd_protect(uintptr_t start, size_t len, bool on)
{
	long ret = protect_once(start, len, on);

	if (!may_span_mappings(ret, (uint32_t)(len >> EM_PAGE_SHIFT)))
		return (int)ret;
	ret = 0;
	for (size_t off = 0; off < len && !ret; off += EM_PAGE_SIZE)
		ret = protect_once(start + off, EM_PAGE_SIZE, on);
	return (int)ret;
}

int em_uffd_move(uintptr_t dst, uintptr_t src, size_t len)
{
	struct uffdio_move m = { .dst = dst, .src = src, .len = len };
	long ret;

	em_stat_inc(uffd_ioctls);
	em_stat_inc(shootdowns);
	ret = em_sys_ioctl(em_uffd.fd, UFFDIO_MOVE, &m);
	return (int)ret;
}

void em_uffd_wake(uintptr_t start, size_t len)
{
	struct uffdio_range r = { .start = start, .len = len };

	em_sys_ioctl(em_uffd.fd, UFFDIO_WAKE, &r);
}

void em_uffd_drop(struct iovec *runs, uint32_t n, bool *ok)
{
	uint32_t i = 0;

	for (uint32_t k = 0; k < n; k++)
		ok[k] = true;
	while ((em_uffd.features & EM_FEAT_PROCESS_MADVISE) && i < n) {
		uint32_t m = n - i < DROP_RUNS ? n - i : DROP_RUNS;
		long ret = em_syscall5(SYS_process_madvise, em_uffd.pidfd, runs + i, m,
				       MADV_DONTNEED, 0);

		em_stat_inc(shootdowns);
		if (ret <= 0)
			break;
		while (i < n && ret >= (long)runs[i].iov_len)
			ret -= (long)runs[i++].iov_len;
		if (ret > 0)
			break; /* stopped inside run i: redo that one below */
	}
	for (; i < n; i++) {
		em_stat_inc(shootdowns);
		ok[i] = em_sys_madvise(runs[i].iov_base, runs[i].iov_len, MADV_DONTNEED) == 0;
	}
}
