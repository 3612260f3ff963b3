/* SPDX-License-Identifier: MIT */
/* The directories of control sockets.  Ordinary context: at start, and in the command. */
#include "control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { NAME_ROOM = 14, TEMPORARY_SECONDS = 60 }; /* "/.2147483647" and more */

/* One that leaves no room for the name of a socket is passed over. */
static unsigned add(char dir[EM_CONTROL_DIRS][EM_CONTROL_PATH], unsigned n, const char *base,
		    const char *name)
{
	int len;

	if (!base || base[0] != '/')
		return n;
	len = snprintf(dir[n], EM_CONTROL_PATH, "%s/%s", base, name);
	return len > 0 && (unsigned)len + NAME_ROOM < EM_CONTROL_PATH ? n + 1 : n;
}

unsigned em_control_dirs(unsigned uid, const char *runtime, const char *tmp,
			 char dir[EM_CONTROL_DIRS][EM_CONTROL_PATH])
{
	char run[32], own[32];
	unsigned n = 0;

	snprintf(run, sizeof(run), "/run/user/%u", uid);
	snprintf(own, sizeof(own), "extmem-%u", uid);
	n = add(dir, n, runtime, "extmem");
	n = add(dir, n, run, "extmem");
	n = add(dir, n, tmp, own);
	return add(dir, n, "/tmp", own);
}

/* Another user's directory (sudo keeps XDG_RUNTIME_DIR) is not the place for ours, unless it is everybody's. */
static bool parent_is_fit(const char *dir)
{
	char parent[EM_CONTROL_PATH];
	struct stat st;

	snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(dir, '/') - dir), dir);
	return !stat(parent, &st) && (st.st_uid == geteuid() || (st.st_mode & S_ISVTX));
}

int em_control_dir_make(const char *dir)
{
	struct stat st;

	if (!parent_is_fit(dir))
		return -EPERM;
	if (mkdir(dir, 0700) && errno != EEXIST)
		return -errno;
	/* It may be there already, and somebody else's: /tmp is everybody's. */
	if (lstat(dir, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return -EPERM;
	if ((st.st_mode & 07777) != 0700 && chmod(dir, 0700))
		return -errno;
	return access(dir, W_OK | X_OK) ? -errno : 0;
}

long em_control_name_pid(const char *name)
{
	long pid = 0;

	if (*name < '1' || *name > '9' || strlen(name) > 10)
		return 0;
	for (; *name; name++) {
		if (*name < '0' || *name > '9')
			return 0;
		pid = pid * 10 + (*name - '0');
	}
	return pid <= 0x7fffffff ? pid : 0;
}

/* A process of another pid namespace may look dead: what counts is whether anybody listens.  (It listens before
   the socket gets its name.) */
static bool nobody_listens(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool dead;

	if (fd < 0)
		return false;
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	dead = connect(fd, (struct sockaddr *)&un, sizeof(un)) && errno == ECONNREFUSED;
	close(fd);
	return dead;
}

static bool is_old(const char *path)
{
	struct stat st;

	return !lstat(path, &st) && st.st_mtime + TEMPORARY_SECONDS < time(NULL);
}

void em_control_dir_clean(const char *dir)
{
	char path[EM_CONTROL_PATH];
	struct dirent *e;
	DIR *d = opendir(dir);
	long pid;

	while (d && (e = readdir(d))) {
		bool temporary = e->d_name[0] == '.';

		pid = em_control_name_pid(e->d_name + temporary);
		if (!pid || !kill((pid_t)pid, 0) || errno != ESRCH)
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >= sizeof(path))
			continue;
		if (temporary ? is_old(path) : nobody_listens(path))
			unlink(path);
	}
	if (d)
		closedir(d);
}
