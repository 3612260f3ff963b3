/* SPDX-License-Identifier: MIT */
/* The file behind a store: descriptors and synchronous transfers. [sigsafe] */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>

enum {
	CUT = 32,		/* elements of a partial vector on the stack */
	AGAIN_TRIES = 1000,	/* of a transfer that fails for want of resources, 1 ms apart */
	SHORT_TRIES = 8,	/* of a transfer that moves less than a page */
};

uint64_t em_store_now_ns(void)
{
	struct timespec ts = {0, 0};

	em_syscall2(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void em_store_pause_1ms(void)
{
	struct timespec ts = {0, 1000000};

	em_syscall2(SYS_nanosleep, &ts, NULL);
}

void em_store_wait_held(const struct em_store *st, bool write, em_slot_t slot, uint32_t n)
{
	uint64_t since = st->inject ? em_store_now_ns() : 0;

	while (em_store_held(st, write, slot, n, since))
		em_store_pause_1ms();
}

int em_fd_raise(int fd, int min)
{
	long r = -EINVAL;

	/* EINVAL: min is above RLIMIT_NOFILE; EMFILE: everything above min is taken. */
	for (; min > 2; min /= 2) {
		r = em_syscall3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, min);
		if (r != -EINVAL && r != -EMFILE)
			break;
	}
	if (em_is_err(r))
		return fd;
	em_sys_close(fd);
	return (int)r;
}

/*
 * Pairs with em_store_move_fd: a section that entered in phase p is waited for by the
 * move that ends phase p.  The phase is read again after the count went up: if a move
 * came between, it may have missed us, so try the new phase.
 */
int em_store_fd_enter(struct em_store *st, uint32_t *phase)
{
	for (;;) {
		uint32_t p = __atomic_load_n(&st->phase, __ATOMIC_SEQ_CST);

		__atomic_fetch_add(&st->users[p & 1], 1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&st->phase, __ATOMIC_SEQ_CST) == p) {
			*phase = p;
			return __atomic_load_n(&st->fd, __ATOMIC_SEQ_CST);
		}
		em_store_fd_exit(st, p);
	}
}

void em_store_fd_exit(struct em_store *st, uint32_t phase)
{
	__atomic_fetch_sub(&st->users[phase & 1], 1, __ATOMIC_SEQ_CST);
}

const char *em_store_name(const struct em_store *st)
{
	return st->name;
}

size_t em_store_fds(const struct em_store *st, int *fds, size_t max)
{
	const int all[] = {st->fd, st->lock_fd, st->lock_dir, st->child_fd, st->spare_fd};
	size_t n = 0;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i] >= 0 && n < max)
			fds[n++] = all[i];
	return n + em_spin_fds(st, fds + n, max - n);
}

/*
 * The old descriptor stays open here until no transfer uses its number any more; the
 * lock covers lock_fd and lock_dir, and keeps two moves apart.
 */
static int move_fd_locked(struct em_store *st, int old, int fd_min)
{
	int *const all[] = {&st->fd, &st->lock_fd, &st->lock_dir, &st->child_fd, &st->spare_fd};
	uint32_t p = st->phase;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		long fd;

		if (*all[i] != old)
			continue;
		fd = em_syscall3(SYS_fcntl, old, F_DUPFD_CLOEXEC, fd_min);
		if (fd == -EINVAL || fd == -EMFILE)
			fd = em_syscall3(SYS_fcntl, old, F_DUPFD_CLOEXEC, 3);
		if (em_is_err(fd))
			return (int)fd;
		__atomic_store_n(all[i], (int)fd, __ATOMIC_SEQ_CST);
		if (i == 0) {
			__atomic_store_n(&st->phase, p + 1, __ATOMIC_SEQ_CST);
			while (__atomic_load_n(&st->users[p & 1], __ATOMIC_SEQ_CST))
				em_syscall0(SYS_sched_yield);
		}
		em_sys_close(old);
		return 0;
	}
	return em_spin_move_fd(st, old, fd_min);
}

int em_store_move_fd(struct em_store *st, int old, int fd_min)
{
	int err;

	if (old < 0)
		return -EBADF;
	em_mutex_lock(&st->slots.lock);
	err = move_fd_locked(st, old, fd_min);
	em_mutex_unlock(&st->slots.lock);
	return err;
}

uint64_t em_iov_bytes(const struct iovec *iov, int cnt)
{
	uint64_t n = 0;

	for (int i = 0; i < cnt; i++)
		n += iov[i].iov_len;
	return n;
}

int em_iov_cut(const struct iovec *iov, int cnt, uint64_t skip, uint64_t max, struct iovec *out,
	       int cap)
{
	int n = 0;

	for (int i = 0; i < cnt && n < cap && max; i++) {
		uint64_t len = iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		len -= skip;
		if (len > max)
			len = max;
		out[n].iov_base = (char *)iov[i].iov_base + skip;
		out[n++].iov_len = len;
		max -= len;
		skip = 0;
	}
	return n;
}

/*
 * Asked for each write, 0.1 us: the program may lower the limit at any time, and SIGXFSZ
 * would kill it for a file it does not know of.
 */
int em_store_check_fsize(const struct em_store *st, uint64_t end)
{
	struct rlimit lim;

	if (st->device)
		return 0;
	if (em_is_err(em_syscall4(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &lim)))
		return 0;
	return end > lim.rlim_cur ? -EFBIG : 0;
}

/* The limit was lowered between the check and the call: the signal is pending, since callers block
   all signals, and must not be delivered. */
void em_store_drop_sigxfsz(long result)
{
	const struct timespec now = {0, 0};
	uint64_t set = 1ull << (SIGXFSZ - 1);

	if (result == -EFBIG)
		em_syscall4(SYS_rt_sigtimedwait, &set, NULL, &now, sizeof(set));
}

/* One call to the kernel. */
static long transfer_once(struct em_store *st, bool write, uint64_t off, const struct iovec *iov,
			  int cnt)
{
	uint32_t phase;
	int fd = em_store_fd_enter(st, &phase);
	/* the last argument is the high half of the offset, unused on 64 bit */
	long r = em_syscall5(write ? SYS_pwritev : SYS_preadv, fd, iov, cnt, off, 0);

	em_store_fd_exit(st, phase);
	em_store_drop_sigxfsz(r);
	return r;
}

int em_store_transfer(struct em_store *st, bool write, em_slot_t slot, const struct iovec *iov,
		      int cnt, uint64_t done)
{
	uint64_t total = em_iov_bytes(iov, cnt), base = (uint64_t)slot * EM_SLOT_SIZE;
	unsigned again = 0, tiny = 0;
	struct iovec cut[CUT];

	if (write && em_store_check_fsize(st, base + total))
		return -EFBIG;
	em_store_wait_held(st, write, slot, (uint32_t)(total / EM_SLOT_SIZE));
	while (done < total) {
		long r = em_store_injected(st, write, (em_slot_t)((base + done) / EM_SLOT_SIZE),
					   (uint32_t)((total - done) / EM_SLOT_SIZE));

		if (r == 0 && done == 0 && cnt <= EM_IOV_MAX) {
			r = transfer_once(st, write, base, iov, cnt);
		} else if (r >= 0) {
			int n = em_iov_cut(iov, cnt, done, r ? (uint64_t)r : total, cut, CUT);

			r = transfer_once(st, write, base + done, cut, n);
		}
		if (r == -EINTR)
			continue;
		if ((r == -EAGAIN || r == -ENOMEM) && ++again < AGAIN_TRIES) {
			em_store_pause_1ms();
			continue;
		}
		if (em_is_err(r))
			return (int)r;
		/* O_DIRECT goes on at a page boundary only: what came of a page comes again. */
		done += (uint64_t)r & ~(uint64_t)(EM_SLOT_SIZE - 1);
		if (r == 0 || (r < (long)EM_SLOT_SIZE && ++tiny >= SHORT_TRIES))
			return -EIO;
	}
	return 0;
}

int em_store_read(struct em_store *st, em_slot_t slot, void *buf, size_t n)
{
	struct iovec iov = {buf, n * EM_SLOT_SIZE};

	return em_store_transfer(st, false, slot, &iov, 1, 0);
}

int em_store_readv(struct em_store *st, em_slot_t slot, const struct iovec *iov, int iovcnt)
{
	return em_store_transfer(st, false, slot, iov, iovcnt, 0);
}

int em_store_writev(struct em_store *st, em_slot_t slot, const struct iovec *iov, int iovcnt)
{
	return em_store_transfer(st, true, slot, iov, iovcnt, 0);
}
