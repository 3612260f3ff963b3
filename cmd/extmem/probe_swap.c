/* SPDX-License-Identifier: MIT */
/* The place where pages would go. */
#include "probe.h"
#include "../../src/core/uffd_compat.h"
#include "../../src/options_impl.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define BLOCK 4096
#define TMPFS_ID 0x01021994 /* statfs f_type */

static const char *swap_path(const struct em_options *o)
{
	const char *tmpdir = getenv("TMPDIR");

	if (o->swap_path[0])
		return o->swap_path;
	return tmpdir && *tmpdir && !access(tmpdir, W_OK | X_OK) ? tmpdir : "/var/tmp";
}

/* The path, or its directory if it is to be created. */
static const char *existing(const char *path, char *buf, size_t len, struct stat *st)
{
	char *slash;

	if (!stat(path, st))
		return path;
	snprintf(buf, len, "%s", path);
	slash = strrchr(buf, '/');
	if (!slash)
		strcpy(buf, ".");
	else
		slash[slash == buf] = '\0';
	return stat(buf, st) ? NULL : buf;
}

void probe_swap_usable(const struct em_options *o, struct probe_result *r)
{
	char err[400];

	if (em_options_check_store(o, err, sizeof(err)))
		probe_set(r, PROBE_MISSING, "%s", err);
	else
		probe_set(r, PROBE_AVAILABLE, "%.400s", swap_path(o));
}

static int open_unnamed(const char *dir)
{
	char name[4096 + 32];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	/* A file system without O_TMPFILE. */
	snprintf(name, sizeof(name), "%s/.extmem-doctor-XXXXXX", dir);
	fd = mkostemp(name, O_DIRECT | O_CLOEXEC);
	if (fd >= 0)
		unlink(name);
	return fd;
}

/* Only a file of our own is written to: an existing one may hold somebody's data. */
static const char *direct_io(int fd, bool own)
{
	unsigned char *buf =
		mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buf == MAP_FAILED)
		return "mmap";
	memset(buf, 1, BLOCK);
	if (own && pwrite(fd, buf, BLOCK, 0) != BLOCK)
		return "direct write";
	if (pread(fd, buf + BLOCK, BLOCK, 0) < 0)
		return "direct read";
	errno = EIO;
	return own && memcmp(buf, buf + BLOCK, BLOCK) ? "direct read" : NULL;
}

void probe_swap_direct(const struct em_options *o, struct probe_result *r)
{
	char buf[4096];
	struct stat st;
	const char *path = existing(swap_path(o), buf, sizeof(buf), &st), *failed;
	bool own;
	int fd;

	if (!path) {
		probe_errno(r, "swap path", errno);
		return;
	}
	own = S_ISDIR(st.st_mode);
	fd = own ? open_unnamed(path) : open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0) {
		probe_errno(r, "opening with O_DIRECT", errno);
		return;
	}
	failed = direct_io(fd, own);
	if (failed)
		probe_errno(r, failed, errno);
	else
		probe_set(r, PROBE_AVAILABLE,
			  own ? "a page written and read back"
			      : "a page read (nothing written to it)");
	close(fd);
}

static bool space(const char *path, const struct stat *st, uint64_t *bytes, bool *tmpfs)
{
	struct statfs fs;
	int fd;

	*tmpfs = false;
	if (S_ISBLK(st->st_mode)) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, BLKGETSIZE64, bytes))
			*bytes = 0;
		if (fd >= 0)
			close(fd);
		return *bytes != 0;
	}
	if (statfs(path, &fs))
		return false;
	*tmpfs = fs.f_type == TMPFS_ID;
	*bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	return true;
}

void probe_swap_space(const struct em_options *o, struct probe_result *r)
{
	uint64_t bytes, ram = em_memory_available_bytes();
	char buf[4096];
	struct stat st;
	const char *path = existing(swap_path(o), buf, sizeof(buf), &st);
	bool tmpfs;

	if (!path || !space(path, &st, &bytes, &tmpfs)) {
		probe_errno(r, "free space unknown", errno);
		return;
	}
	if (o->swap_size_bytes && o->swap_size_bytes < bytes)
		bytes = o->swap_size_bytes;
	if (bytes < BLOCK)
		probe_set(r, PROBE_MISSING, "no space left in %.300s", path);
	else if (tmpfs)
		probe_set(r, PROBE_WARNING, "%s, but %.300s is a tmpfs: itself in memory",
			  probe_size(bytes), path);
	else
		probe_set(r, bytes < ram ? PROBE_WARNING : PROBE_AVAILABLE,
			  "%s%s the %s of memory here", probe_size(bytes),
			  bytes < ram ? ", less than" : ", beside", probe_size(ram));
}
