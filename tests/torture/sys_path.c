/* SPDX-License-Identifier: MIT */
/* Path names and what is told about files. */
#define _GNU_SOURCE
#include "sys.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static char *path(const char *name)
{
	char text[512];

	snprintf(text, sizeof(text), "%s/%s", sys_dir(), name);
	return spot_text(text);
}

static bool touch(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0640);

	return fd >= 0 && write(fd, "abc", 3) == 3 && close(fd) == 0;
}

static void path_open_and_stat(void)
{
	struct stat *st;
	struct statx *sx;
	char *a;
	int fd;

	sys_reset();
	a = path("file");
	st = spot(sizeof(*st));
	sx = spot(sizeof(*sx));
	cold();
	CHECK(touch(a));
	cold();
	CHECK(stat(a, st) == 0 && st->st_size == 3 && S_ISREG(st->st_mode));
	memset(st, 0, sizeof(*st));
	cold();
	CHECK(lstat(a, st) == 0 && st->st_size == 3);
	cold();
	fd = openat(AT_FDCWD, a, O_RDONLY);
	CHECK(fd >= 0);
	memset(st, 0, sizeof(*st));
	cold();
	CHECK(fstat(fd, st) == 0 && st->st_size == 3);
	cold();
	CHECK(statx(AT_FDCWD, a, 0, STATX_SIZE, sx) == 0 && sx->stx_size == 3);
	cold();
	CHECK(access(a, R_OK) == 0);
	cold();
	CHECK(chmod(a, 0600) == 0);
	cold();
	CHECK(truncate(a, 1) == 0 && fstat(fd, st) == 0 && st->st_size == 1);
	cold();
	CHECK(unlink(a) == 0);
	cold();
	CHECK_ERRNO(open(a, O_RDONLY), -1, ENOENT);
	close(fd);
}

static void path_rename_and_link(void)
{
	char *a, *b, *target;
	ssize_t n;

	sys_reset();
	a = path("one");
	b = path("two");
	target = spot(2 * PG);
	CHECK(touch(a));
	cold();
	CHECK(rename(a, b) == 0);
	cold();
	CHECK(link(b, a) == 0);
	cold();
	CHECK(unlink(b) == 0);
	cold();
	CHECK(symlink(a, b) == 0);
	cold();
	n = readlink(b, target, 2 * PG);
	CHECK(n == (ssize_t)strlen(a) && memcmp(a, target, (size_t)n) == 0);
	cold();
	CHECK(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0 || errno == EINVAL);
	cold();
	CHECK(unlinkat(AT_FDCWD, a, 0) == 0);
	cold();
	CHECK(unlink(b) == 0);
}

static void path_directories(void)
{
	char *d, *back, *here, *entries;
	struct dirent *e;
	unsigned seen = 0, n = 0;
	DIR *dir;
	int fd;

	sys_reset();
	d = path("sub");
	here = spot(2 * PG);
	back = spot(2 * PG);
	entries = spot(4 * PG);
	CHECK(getcwd(back, 2 * PG) != NULL);
	cold();
	CHECK(mkdir(d, 0700) == 0);
	cold();
	CHECK(chdir(d) == 0);
	cold();
	CHECK(getcwd(here, 2 * PG) != NULL && strcmp(here, d) == 0);
	CHECK(touch("x") && touch("y") && touch("z"));
	cold();
	dir = opendir(d);
	CHECK(dir != NULL);
	while ((e = readdir(dir)) != NULL)
		seen += e->d_name[0] != '.';
	CHECK(seen == 3);
	closedir(dir);
	fd = open(d, O_RDONLY | O_DIRECTORY);
	cold();
	CHECK(syscall(SYS_getdents64, fd, entries, 4 * PG) > 3 * 24);
	for (n = 1, seen = 0; n < 512; n++)
		seen += entries[n - 1] == 0 && strchr("xyz", entries[n]) && entries[n];
	CHECK(unlink("x") == 0 && unlink("y") == 0 && unlink("z") == 0);
	cold();
	CHECK(chdir(back) == 0);
	cold();
	CHECK(rmdir(d) == 0);
	close(fd);
}

static void path_attributes(void)
{
	struct timespec *ts;
	struct statfs *fs;
	struct stat *st;
	char *a, *name, *value;

	sys_reset();
	a = path("attributes");
	ts = spot(2 * sizeof(*ts));
	st = spot(sizeof(*st));
	fs = spot(sizeof(*fs));
	name = spot_text("user.extmem");
	value = spot_text("some value");
	CHECK(touch(a));
	ts[0].tv_sec = 1000;
	ts[1].tv_sec = 2000;
	cold();
	CHECK(utimensat(AT_FDCWD, a, ts, 0) == 0);
	cold();
	CHECK(stat(a, st) == 0 && st->st_atime == 1000 && st->st_mtime == 2000);
	cold();
	CHECK(statfs(a, fs) == 0 && fs->f_bsize > 0);
	cold();
	if (setxattr(a, name, value, 10, 0) == 0) {
		memset(value, 0, 10);
		cold();
		CHECK(getxattr(a, name, value, 10) == 10 && memcmp(value, "some value", 10) == 0);
		cold();
		CHECK(listxattr(a, value, 0) > 0);
	}
	CHECK(unlink(a) == 0);
}

static void path_inotify(void)
{
	struct inotify_event *ev;
	char *a, *d;
	int fd = inotify_init1(IN_NONBLOCK);

	if (fd < 0)
		SKIP("no inotify");
	sys_reset();
	a = path("watched");
	d = spot_text(sys_dir());
	ev = spot(2 * PG);
	cold();
	CHECK(inotify_add_watch(fd, d, IN_CREATE) >= 0);
	cold();
	CHECK(touch(a));
	cold();
	CHECK(read(fd, ev, 2 * PG) > 0 && (ev->mask & IN_CREATE) && !strcmp(ev->name, "watched"));
	CHECK(unlink(a) == 0);
	close(fd);
}

/* A path that goes over into a page that is not there at all is no path. */
static void path_faults(void)
{
	char *p = mm_map(2 * MIB);

	memset(p, 'a', MIB);
	CHECK(munmap(p + MIB, MIB) == 0);
	mm_evict(p, MIB);
	CHECK_ERRNO(open(p + MIB - 10, O_RDONLY), -1, EFAULT);
	CHECK_ERRNO(open(p + MIB, O_RDONLY), -1, EFAULT);
	CHECK_ERRNO(open(p, O_RDONLY), -1, ENAMETOOLONG);
	/* It may end just before the hole. */
	strcpy(p + MIB - 10, "/dev/null");
	mm_evict(p, MIB);
	CHECK(access(p + MIB - 10, R_OK) == 0);
	munmap(p, MIB);
}

const struct mm_test sys_path_tests[] = {
	SYS_TEST(path_open_and_stat), SYS_TEST(path_rename_and_link), SYS_TEST(path_directories),
	SYS_TEST(path_attributes), SYS_TEST(path_inotify), SYS_TEST(path_faults), { 0 }
};
