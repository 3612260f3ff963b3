/* SPDX-License-Identifier: MIT */
/*
 * The lock file of a tree of processes (share.c).  What it must be: open for writing, the same for the
 * whole tree, and open again at any fork, for which it needs a path.  Ordinary context.
 *
 * A memory file has one below /proc.  Without /proc, or where memfd_create is refused, the place of
 * the locks is /dev/null: nothing but bytes' numbers is needed of a file, and there they begin
 * at a random number.  Should two trees meet all the same, each takes some of the other's bytes
 * for those of its own living processes, and room in the store is taken back later.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define NOEXEC_SEAL 8 /* MFD_NOEXEC_SEAL: demanded where vm.memfd_noexec is 2 */

static int open_memory(void)
{
	int fd = memfd_create("extmem-locks", MFD_CLOEXEC);

	if (fd < 0 && errno != ENOSYS)
		fd = memfd_create("extmem-locks", MFD_CLOEXEC | NOEXEC_SEAL);
	return fd < 0 ? -errno : fd;
}

/* A multiple of EM_PROC_MAX, below 2^62.  Not from AT_RANDOM: /proc/locks shows it to all. */
static uint64_t random_base(void)
{
	struct timespec ts;
	uint64_t v;

	if (getrandom(&v, sizeof(v), GRND_NONBLOCK) != sizeof(v)) {
		clock_gettime(CLOCK_MONOTONIC, &ts);
		v = ((uint64_t)ts.tv_nsec << 32 | (uint32_t)getpid()) * 0x9e3779b97f4a7c15u;
	}
	return v >> 2 & ~(uint64_t)(EM_PROC_MAX - 1);
}

static int open_null(struct em_lockfile *lf)
{
	struct flock l = {.l_type = F_WRLCK, .l_start = 0, .l_len = 1};

	lf->dir_fd = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
	lf->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	lf->base = random_base();
	l.l_start = (off_t)lf->base;
	if (lf->fd >= 0 && lf->dir_fd >= 0 && !fcntl(lf->fd, F_OFD_SETLK, &l)) {
		l.l_type = F_UNLCK;
		fcntl(lf->fd, F_OFD_SETLK, &l);
		return 0;
	}
	em_lockfile_close(lf);
	return -errno;
}

int em_lockfile_open(bool no_memfd, struct em_lockfile *lf)
{
	int memory = no_memfd ? -ENOSYS : open_memory();

	*lf = (struct em_lockfile){.fd = memory, .dir_fd = -1};
	if (memory >= 0)
		lf->dir_fd = open("/proc/thread-self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (lf->dir_fd >= 0) {
		/* thread-self is another directory in every thread and process */
		close(lf->dir_fd);
		lf->dir_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
		return 0;
	}
	if (!open_null(lf)) {
		if (memory >= 0)
			close(memory);
		return 0;
	}
	/* everything works but fork */
	*lf = (struct em_lockfile){.fd = memory, .dir_fd = -1};
	return memory < 0 ? memory : 0;
}

void em_lockfile_close(struct em_lockfile *lf)
{
	int saved = errno;

	if (lf->fd >= 0)
		close(lf->fd);
	if (lf->dir_fd >= 0)
		close(lf->dir_fd);
	lf->fd = lf->dir_fd = -1;
	errno = saved;
}

enum em_store_locks em_store_check_locks(bool no_memfd)
{
	struct em_lockfile lf;
	enum em_store_locks kind;

	if (em_lockfile_open(no_memfd, &lf))
		return EM_LOCKS_NONE;
	kind = lf.dir_fd < 0 ? EM_LOCKS_NO_FORK : lf.base ? EM_LOCKS_NULL : EM_LOCKS_MEMORY;
	em_lockfile_close(&lf);
	return kind;
}
