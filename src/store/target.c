/* SPDX-License-Identifier: MIT */
/*
 * The swap path: finds out what it is, refuses what must not be overwritten, says why in one
 * line.  Ordinary context.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_DIR "/var/tmp"
#define BTRFS_MAGIC 0x9123683E
/* A killed user's file is let go when its io_uring has been torn down, a little after the
   process is gone. */
#define BUSY_TRIES 50
#define BUSY_PAUSE_NS 20000000

int em_target_refuse(const struct em_message *m, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (m->text && m->len)
		vsnprintf(m->text, m->len, fmt, ap);
	va_end(ap);
	return code;
}

int em_target_refuse_errno(const struct em_message *m, const char *path, const char *what, int e)
{
	return em_target_refuse(m, -e, "swap path %s: %s: %s; choose another with --swap", path,
				what, strerror(e));
}

static void pause_busy(void)
{
	struct timespec ts = {0, BUSY_PAUSE_NS};

	nanosleep(&ts, NULL);
}

/* ---- directories --------------------------------------------------------------- */

/* For file systems without O_TMPFILE: a name that nobody guesses, gone at once. */
static int create_unlinked(int dir)
{
	for (int tries = 0; tries < 100; tries++) {
		struct timespec ts;
		char name[64];
		int fd;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		snprintf(name, sizeof(name), ".extmem-%ld-%lx-%d", (long)getpid(),
			 (unsigned long)ts.tv_nsec ^ (unsigned long)(uintptr_t)&ts, tries);
		fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0) {
			unlinkat(dir, name, 0);
			return fd;
		}
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

static int open_in_dir(const char *path)
{
	int fd = open(path, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
	int dir;

	if (fd >= 0)
		return fd;
	/* EISDIR: kernels that do not know O_TMPFILE */
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return -errno;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	fd = create_unlinked(dir);
	close(dir);
	return fd;
}

/* btrfs: in place, without checksums of pages that change while they are being written. */
static void no_copy_on_write(int fd)
{
	struct statfs fs;
	int flags;

	if (fstatfs(fd, &fs) || (uint32_t)fs.f_type != BTRFS_MAGIC)
		return;
	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
		flags |= FS_NOCOW_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

static int open_directory(struct em_target *t, const struct em_message *m)
{
	t->fd = open_in_dir(t->path);
	if (t->fd < 0)
		return em_target_refuse_errno(m, t->path, "no file can be created there", -t->fd);
	no_copy_on_write(t->fd);
	return 0;
}

static int open_default(struct em_target *t, const struct em_message *m)
{
	const char *dir = getenv("TMPDIR");

	if (dir && dir[0]) {
		t->path = dir;
		t->fd = open_in_dir(dir);
		if (t->fd >= 0) {
			no_copy_on_write(t->fd);
			return 0;
		}
	}
	t->path = DEFAULT_DIR;
	return open_directory(t, m);
}

/* ---- named files ---------------------------------------------------------------- */

static int lock_named(struct em_target *t, const struct em_message *m)
{
	for (int i = 0; i < BUSY_TRIES; i++) {
		struct flock l = {.l_type = F_WRLCK, .l_start = EM_LOCK_STORE, .l_len = 1};

		if (!fcntl(t->fd, F_OFD_SETLK, &l))
			return 0;
		if (errno == EINTR)
			continue;
		/* shared by two it would be wrong memory for both */
		if (errno != EAGAIN && errno != EACCES)
			return em_target_refuse_errno(m, t->path,
						      "cannot be locked against another user",
					    errno);
		pause_busy();
	}
	return em_target_refuse(m, -EBUSY,
		      "swap path %s: in use by another extmem process; choose another with --swap",
		      t->path);
}

static int check_named(struct em_target *t, bool force, const struct em_message *m)
{
	const char *found;
	char buf[64];
	struct stat sb;
	bool ours;

	if (fstat(t->fd, &sb))
		return em_target_refuse_errno(m, t->path, "cannot be examined", errno);
	if (!S_ISREG(sb.st_mode))
		return em_target_refuse(m, -EINVAL,
					"swap path %s: changed while it was being opened",
			      t->path);
	found = em_probe_content(t->fd, (uint64_t)sb.st_size, buf, sizeof(buf), &ours);
	if (found && !force)
		return em_target_refuse(m, -EEXIST,
			      "swap path %s: the file is not empty, not a swap file of extmem (found: %s) "
			      "and would be overwritten; choose another, or add ,force",
			      t->path, found);
	/* memory of programs must not be readable to others: the owner may say so, others cannot */
	if (sb.st_mode & 077 && fchmod(t->fd, sb.st_mode & 0700) && sb.st_mode & 044)
		return em_target_refuse(m, -EPERM,
			      "swap path %s: others can read it and you cannot change that; choose "
			      "another with --swap",
			      t->path);
	return 0;
}

static int open_named(struct em_target *t, const struct em_store_config *cfg,
		      const struct em_message *m)
{
	int err;

	t->named = true;
	t->fd = open(t->path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (t->fd < 0)
		return em_target_refuse_errno(m, t->path, "not writable", errno);
	err = lock_named(t, m);
	if (!err)
		err = check_named(t, cfg->force, m);
	return err;
}

static int check_parent(const struct em_target *t, const struct em_message *m)
{
	char *dir = strdup(t->path), *slash;
	int err = 0;

	if (!dir)
		return em_target_refuse_errno(m, t->path, "cannot be examined", ENOMEM);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	if (faccessat(AT_FDCWD, slash ? dir : ".", W_OK | X_OK, AT_EACCESS))
		err = em_target_refuse_errno(m, t->path, "cannot be created", errno);
	free(dir);
	return err;
}

static int create_named(struct em_target *t, bool check_only, const struct em_message *m)
{
	size_t len = strlen(t->path);

	t->named = true;
	if (len && t->path[len - 1] == '/')
		return em_target_refuse_errno(m, t->path, "no such directory", ENOENT);
	if (check_only)
		return check_parent(t, m);
	t->fd = open(t->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (t->fd < 0)
		return em_target_refuse_errno(m, t->path, "cannot be created", errno);
	no_copy_on_write(t->fd);
	return lock_named(t, m);
}

/* ---- block devices --------------------------------------------------------------- */

static int open_exclusive(const char *path, bool force)
{
	int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK, fd = -1;

	for (int i = 0; i < BUSY_TRIES && fd < 0; i++) {
		fd = open(path, flags | O_EXCL);
		if (fd < 0 && (errno != EBUSY || force))
			break;
		if (fd < 0)
			pause_busy();
	}
	if (fd < 0 && errno == EBUSY && force)
		fd = open(path, flags);
	return fd < 0 ? -errno : fd;
}

static int open_device(struct em_target *t, const struct em_store_config *cfg,
		       const struct em_message *m)
{
	const char *found;
	char buf[64];
	bool ours;

	t->named = t->device = true;
	t->fd = open_exclusive(t->path, cfg->force);
	if (t->fd == -EBUSY)
		return em_target_refuse(m, -EBUSY,
			      "swap path %s: the device is in use (mounted, swap, part of another "
			      "device or another extmem process); choose another with --swap",
			      t->path);
	if (t->fd < 0)
		return em_target_refuse_errno(m, t->path, "not writable", -t->fd);
	/* with force the device may be in use, but never by another of us */
	if (lock_named(t, m))
		return -EBUSY;
	if (ioctl(t->fd, BLKGETSIZE64, &t->device_bytes))
		return em_target_refuse_errno(m, t->path, "its size cannot be found out", errno);
	found = em_probe_content(t->fd, t->device_bytes, buf, sizeof(buf), &ours);
	if (found && strcmp(found, EM_PROBE_DATA) && !cfg->force)
		return em_target_refuse(m, -EEXIST,
			      "swap path %s: the device is not empty (found: %s) and would be overwritten; "
			      "choose another, or add ,force",
			      t->path, found);
	return 0;
}

/* ---- any path ---------------------------------------------------------------------- */

static const char *kind_name(mode_t mode)
{
	if (S_ISFIFO(mode))
		return "a FIFO";
	if (S_ISSOCK(mode))
		return "a socket";
	if (S_ISCHR(mode))
		return "a character device";
	return "not a file";
}

int em_target_open(const struct em_store_config *cfg, bool check_only, struct em_target *t,
		       const struct em_message *m)
{
	struct stat sb;

	*t = (struct em_target){.path = cfg->path, .fd = -1};
	if (cfg->size_bytes && cfg->size_bytes < EM_STORE_MIN_BYTES)
		return em_target_refuse(m, -EINVAL,
					"swap size %" PRIu64 " is too small; at least %uK",
			      cfg->size_bytes, EM_STORE_MIN_BYTES >> 10);
	if (!cfg->path || !cfg->path[0])
		return open_default(t, m);
	if (stat(cfg->path, &sb)) {
		if (errno == ENOENT)
			return create_named(t, check_only, m);
		return em_target_refuse_errno(m, cfg->path, "cannot be examined", errno);
	}
	if (S_ISDIR(sb.st_mode))
		return open_directory(t, m);
	if (S_ISREG(sb.st_mode))
		return open_named(t, cfg, m);
	if (S_ISBLK(sb.st_mode))
		return open_device(t, cfg, m);
	return em_target_refuse(m, -EINVAL,
		      "swap path %s: is %s; name a directory, a file or a block device with --swap",
		      cfg->path, kind_name(sb.st_mode));
}
