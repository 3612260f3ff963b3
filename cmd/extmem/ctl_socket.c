/* SPDX-License-Identifier: MIT */
/* Finding control sockets and talking to them. */
#include "ctl.h"
#include "../../src/control/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_MAX = 1 << 20 };

/* What /proc tells about the process. */
struct target {
	long pid;
	long inner_pid; /* in its own pid namespace: the name of its socket */
	unsigned uid;	/* effective */
	char *env;	/* as it was started, or NULL */
	size_t env_len;
};

static char *read_file(const char *path, size_t *len)
{
	size_t room = 65536;
	char *buf = malloc(room);
	FILE *f = fopen(path, "r");

	*len = 0;
	while (buf && f && (*len += fread(buf + *len, 1, room - 1 - *len, f)) == room - 1) {
		char *more = room < 8u << 20 ? realloc(buf, 2 * room) : NULL;

		if (!more)
			break;
		buf = more;
		room *= 2;
	}
	if (buf)
		buf[*len] = 0;
	if (f)
		fclose(f);
	return buf;
}

static int look_up(long pid, struct target *t, char *err, size_t err_len)
{
	char path[64], *status, *line;
	size_t len;

	memset(t, 0, sizeof(*t));
	t->pid = t->inner_pid = pid;
	snprintf(path, sizeof(path), "/proc/%ld/status", pid);
	status = read_file(path, &len);
	if (!status || !len) {
		free(status);
		snprintf(err, err_len, "process %ld: there is none", pid);
		return -ESRCH;
	}
	line = strstr(status, "\nUid:");
	if (line)
		sscanf(line, "\nUid: %*u %u", &t->uid);
	line = strstr(status, "\nNSpid:");
	if (line) {
		line[strcspn(line + 1, "\n") + 1] = 0;
		t->inner_pid = strtol(strrchr(line, '\t') + 1, NULL, 10);
	}
	free(status);
	snprintf(path, sizeof(path), "/proc/%ld/environ", pid);
	t->env = read_file(path, &t->env_len);
	return 0;
}

static const char *env_of(const struct target *t, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = t->env; p && p < t->env + t->env_len; p += strlen(p) + 1)
		if (!strncmp(p, name, n) && p[n] == '=')
			return p + n + 1;
	return NULL;
}

/* A directory that somebody else could write to proves nothing. */
static int open_private(const char *dir, unsigned uid)
{
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -1;
	if (!fstat(fd, &st) && !(st.st_mode & 077) &&
	    (st.st_uid == uid || st.st_uid == geteuid() || !st.st_uid))
		return fd;
	close(fd);
	errno = EPERM;
	return -1;
}

/* Through the descriptor, so the length of the directory's path does not matter. */
static int connect_in(int dir_fd, const char *name)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), saved;

	snprintf(un.sun_path, sizeof(un.sun_path), "/proc/self/fd/%d/%.20s", dir_fd, name);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un))) {
		saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static long peer_of(int fd)
{
	struct ucred c;
	socklen_t len = sizeof(c);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) ? 0 : c.pid;
}

static int try_directory(const struct target *t, const char *prefix, const char *dir)
{
	char path[EM_CONTROL_PATH + 64], name[24];
	int dir_fd, fd;

	snprintf(path, sizeof(path), "%s%s", prefix, dir);
	dir_fd = open_private(path, t->uid);
	if (dir_fd < 0)
		return -1;
	snprintf(name, sizeof(name), "%ld", t->inner_pid);
	fd = connect_in(dir_fd, name);
	close(dir_fd);
	/* The same number in another pid namespace is somebody else. */
	if (fd >= 0 && peer_of(fd) != t->pid) {
		close(fd);
		return -1;
	}
	return fd;
}

/* As the process sees the file system, then as we do. */
static int try_directories(const struct target *t, unsigned uid, const char *runtime, const char *tmp)
{
	char dir[EM_CONTROL_DIRS][EM_CONTROL_PATH], root[40];
	unsigned n = em_control_dirs(uid, runtime, tmp, dir);
	int fd = -1;

	snprintf(root, sizeof(root), "/proc/%ld/root", t->pid);
	for (unsigned i = 0; i < n && fd < 0; i++) {
		fd = try_directory(t, root, dir[i]);
		if (fd < 0)
			fd = try_directory(t, "", dir[i]);
	}
	return fd;
}

int ctl_connect(long pid, char *err, size_t err_len)
{
	struct target t;
	int fd, ret = look_up(pid, &t, err, err_len);

	if (ret)
		return ret;
	if (geteuid() && geteuid() != t.uid) {
		free(t.env);
		snprintf(err, err_len,
			 "process %ld: belongs to another user; only that user and root may "
			 "control it",
			 pid);
		return -EPERM;
	}
	fd = try_directories(&t, t.uid, env_of(&t, "XDG_RUNTIME_DIR"), env_of(&t, "TMPDIR"));
	if (fd < 0)
		fd = try_directories(&t, geteuid(), getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"));
	free(t.env);
	if (fd >= 0)
		return fd;
	snprintf(err, err_len,
		 "process %ld: no control socket; it does not run under extmem, or "
		 "`extmem run -v` says why it has none",
		 pid);
	return -ENOENT;
}

/* ---- a conversation ------------------------------------------------------------------------ */

static int send_line(int fd, const char *request)
{
	size_t n = strlen(request), done = 0;

	while (done < n) {
		ssize_t w = send(fd, request + done, n - done, MSG_NOSIGNAL);

		if (w < 0)
			return -errno;
		done += (size_t)w;
	}
	return 0;
}

static char *read_answer(int fd, size_t *len)
{
	char *buf = malloc(ANSWER_MAX + 1);
	ssize_t got = 0;

	*len = 0;
	while (buf && *len < ANSWER_MAX && (got = read(fd, buf + *len, ANSWER_MAX - *len)) > 0)
		*len += (size_t)got;
	if (buf)
		buf[*len] = 0;
	return buf;
}

int ctl_ask(int fd, const char *request, char **body, char *err, size_t err_len)
{
	size_t len = 0, want, head;
	char *a = NULL, *end;
	int ret = -EPROTO;

	/* A refusal can be there before the request is: the answer is read in any case. */
	send_line(fd, request);
	a = read_answer(fd, &len);
	close(fd);
	snprintf(err, err_len, "the process ended, or gave no answer");
	end = a ? memchr(a, '\n', len) : NULL;
	if (!end)
		goto out;
	*end = 0;
	head = (size_t)(end - a) + 1;
	if (!strncmp(a, "error ", 6)) {
		snprintf(err, err_len, "%s", a + 6);
		ret = -EINVAL;
	} else if (sscanf(a, "ok %zu", &want) == 1 && want == len - head) {
		memmove(a, a + head, want + 1);
		*body = a;
		return 0;
	}
out:
	free(a);
	return ret;
}

/* ---- all of them -------------------------------------------------------------------------------- */

static void each_in(const char *dir, void (*fn)(void *arg, int fd, long pid), void *arg)
{
	int dir_fd = open_private(dir, geteuid()), fd;
	struct dirent *e;
	DIR *d;

	if (dir_fd < 0)
		return;
	em_control_dir_clean(dir);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		if (!em_control_name_pid(e->d_name))
			continue;
		fd = connect_in(dir_fd, e->d_name);
		if (fd >= 0 && peer_of(fd) > 0)
			fn(arg, fd, peer_of(fd));
		else if (fd >= 0)
			close(fd);
	}
	if (d)
		closedir(d);
	close(dir_fd);
}

/* root sees everybody's. */
static void each_of_others(void (*fn)(void *arg, int fd, long pid), void *arg)
{
	static const char *const patterns[] = { "/run/user/*/extmem", "/tmp/extmem-*" };
	char own[2][64];
	glob_t g;

	snprintf(own[0], sizeof(own[0]), "/run/user/%u/extmem", geteuid());
	snprintf(own[1], sizeof(own[1]), "/tmp/extmem-%u", geteuid());
	for (unsigned i = 0; i < 2; i++) {
		struct stat st;

		if (glob(patterns[i], 0, NULL, &g))
			continue;
		for (size_t k = 0; k < g.gl_pathc; k++)
			if (strcmp(g.gl_pathv[k], own[0]) && strcmp(g.gl_pathv[k], own[1]) &&
			    !lstat(g.gl_pathv[k], &st) && S_ISDIR(st.st_mode) &&
			    (st.st_mode & 07777) == 0700 && strlen(g.gl_pathv[k]) < 90)
				each_in(g.gl_pathv[k], fn, arg);
		globfree(&g);
	}
}

void ctl_each(void (*fn)(void *arg, int fd, long pid), void *arg)
{
	char dir[EM_CONTROL_DIRS][EM_CONTROL_PATH];
	unsigned n = em_control_dirs(geteuid(), getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), dir);

	for (unsigned i = 0; i < n; i++) {
		bool seen = false;

		for (unsigned k = 0; k < i; k++)
			seen |= !strcmp(dir[i], dir[k]);
		if (!seen)
			each_in(dir[i], fn, arg);
	}
	if (!geteuid())
		each_of_others(fn, arg);
}
