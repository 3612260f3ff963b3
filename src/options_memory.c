/* SPDX-License-Identifier: MIT */
/*
 * How much memory there is for this process: RAM, or what its memory cgroup leaves of it.
 *
 * /proc/self/cgroup names the process's place in each hierarchy, /proc/self/mountinfo
 * says where the hierarchies (or parts of them: containers) are mounted.
 * Uses neither malloc nor stdio: the preload library calls this before the
 * program's own allocator is set up.
 */
#include "options_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_LEN 4096

struct line_reader {
	int fd;
	size_t pos, end;
	char buf[LINE_LEN];
};

/* The next line without newline; what does not fit into `len` is cut. */
static bool line_next(struct line_reader *r, char *line, size_t len)
{
	size_t n = 0;
	bool any = false;

	for (;;) {
		if (r->pos == r->end) {
			ssize_t got;

			do
				got = read(r->fd, r->buf, sizeof(r->buf));
			while (got < 0 && errno == EINTR);
			if (got <= 0)
				break;
			r->pos = 0;
			r->end = (size_t)got;
		}
		any = true;
		if (r->buf[r->pos] == '\n') {
			r->pos++;
			break;
		}
		if (n + 1 < len)
			line[n++] = r->buf[r->pos];
		r->pos++;
	}
	line[n] = '\0';
	return any;
}

static int line_open(struct line_reader *r, const char *path)
{
	r->pos = r->end = 0;
	r->fd = open(path, O_RDONLY | O_CLOEXEC);
	return r->fd < 0 ? -errno : 0;
}

int em_file_read_line(const char *path, char *buf, size_t len)
{
	struct line_reader r;
	int err = line_open(&r, path);
	bool any;

	if (err)
		return err;
	any = line_next(&r, buf, len);
	close(r.fd);
	return any ? 0 : -ENODATA;
}

/* Is `word` one of the comma-separated elements of `list`? */
static bool list_has(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
		if (!strncmp(p, word, n) && (p[n] == ',' || p[n] == '\0'))
			return true;
	return false;
}

/* The kernel writes blanks in paths of mountinfo as \040. */
static void octal_unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* The process's path in the hierarchy: v2, or v1 with the memory controller. */
static bool cgroup_path(const char *file, bool v2, char *path, size_t len)
{
	struct line_reader r;
	char line[LINE_LEN];
	bool found = false;

	if (line_open(&r, file))
		return false;
	while (!found && line_next(&r, line, sizeof(line))) {
		char *controllers = strchr(line, ':');
		char *p = controllers ? strchr(++controllers, ':') : NULL;

		if (!p)
			continue;
		*p++ = '\0';
		found = v2 ? !strncmp(line, "0:", 2) && !*controllers
			   : list_has(controllers, "memory");
		if (found)
			snprintf(path, len, "%s", p);
	}
	close(r.fd);
	return found;
}

/* "36 35 98:0 /root /mount/point rw shared:1 - cgroup2 source options" */
struct mount_line {
	char *root, *point, *type, *options;
};

static bool mount_parse(char *line, struct mount_line *m)
{
	char *field[6] = {0}, *save = NULL, *rest = strstr(line, " - ");
	int n = 0;

	if (!rest)
		return false;
	*rest = '\0';
	rest += 3;
	for (char *p = strtok_r(line, " ", &save); p && n < 6; p = strtok_r(NULL, " ", &save))
		field[n++] = p;
	m->type = strtok_r(rest, " ", &save);
	if (n < 5 || !m->type || !strtok_r(NULL, " ", &save))
		return false;
	m->options = strtok_r(NULL, " ", &save);
	m->root = field[3];
	m->point = field[4];
	octal_unescape(m->root);
	octal_unescape(m->point);
	return true;
}

static uint64_t limit_file(const char *dir, const char *name)
{
	char file[LINE_LEN + 32], text[64];
	uint64_t v;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	if (em_file_read_line(file, text, sizeof(text)) || em_size_parse(text, &v))
		return UINT64_MAX; /* "max", or a root group, which has no such file */
	return v;
}

/* Above memory.high a process is slowed down until it hardly gets on. */
static uint64_t limit_read(const char *dir, bool v2)
{
	uint64_t max = limit_file(dir, v2 ? "memory.max" : "memory.limit_in_bytes");
	uint64_t high = v2 ? limit_file(dir, "memory.high") : UINT64_MAX;

	return high < max ? high : max;
}

/* The tightest limit from the group of the process up to the mount point. */
static uint64_t limit_walk(const char *root, const struct mount_line *m, const char *path, bool v2)
{
	size_t skip = strcmp(m->root, "/") ? strlen(m->root) : 0;
	uint64_t limit = UINT64_MAX, v;
	char dir[LINE_LEN];
	size_t top;
	int n;

	/* A container may see its own group as the mount's root while /proc shows the
	   path outside, or the other way round: then the mount point is all we have. */
	if (strncmp(path, m->root, skip) || (path[skip] != '/' && path[skip] != '\0'))
		path = "";
	else
		path += skip;
	n = snprintf(dir, sizeof(dir), "%s%s", root, m->point);
	if (n < 0 || (size_t)n >= sizeof(dir))
		return UINT64_MAX;
	top = (size_t)n;
	n = snprintf(dir + top, sizeof(dir) - top, "%s", strcmp(path, "/") ? path : "");
	if (n < 0 || (size_t)n >= sizeof(dir) - top)
		dir[top] = '\0';
	for (;;) {
		v = limit_read(dir, v2);
		if (v < limit)
			limit = v;
		if (strlen(dir) <= top)
			return limit;
		*strrchr(dir, '/') = '\0'; /* everything past top starts with a slash */
	}
}

static uint64_t hierarchy_limit(const char *cgroup_file, const char *mountinfo_file,
				const char *root, bool v2)
{
	char path[LINE_LEN], line[LINE_LEN];
	uint64_t limit = UINT64_MAX, v;
	struct mount_line m;
	struct line_reader r;

	if (!cgroup_path(cgroup_file, v2, path, sizeof(path)) || line_open(&r, mountinfo_file))
		return UINT64_MAX;
	while (line_next(&r, line, sizeof(line))) {
		if (!mount_parse(line, &m))
			continue;
		if (v2 ? strcmp(m.type, "cgroup2") != 0
		       : strcmp(m.type, "cgroup") != 0 || !m.options ||
				    !list_has(m.options, "memory"))
			continue;
		v = limit_walk(root, &m, path, v2);
		if (v < limit)
			limit = v;
	}
	close(r.fd);
	return limit;
}

uint64_t em_cgroup_limit_bytes(const char *cgroup_file, const char *mountinfo_file,
			       const char *root)
{
	uint64_t v1 = hierarchy_limit(cgroup_file, mountinfo_file, root, false);
	uint64_t v2 = hierarchy_limit(cgroup_file, mountinfo_file, root, true);

	return v1 < v2 ? v1 : v2;
}

/* Without /proc: where a container sees its own group as the root of the hierarchy. */
uint64_t em_cgroup_limit_at(const char *dir)
{
	char v1_dir[LINE_LEN];
	uint64_t v1, v2 = limit_read(dir, true);

	snprintf(v1_dir, sizeof(v1_dir), "%s/memory", dir);
	v1 = limit_read(v1_dir, false);
	return v1 < v2 ? v1 : v2;
}

uint64_t em_memory_cgroup_bytes(void)
{
	if (access("/proc/self/mountinfo", R_OK))
		return em_cgroup_limit_at("/sys/fs/cgroup");
	return em_cgroup_limit_bytes("/proc/self/cgroup", "/proc/self/mountinfo", "");
}

uint64_t em_memory_available_bytes(void)
{
	uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t limit = em_memory_cgroup_bytes();

	return limit < ram ? limit : ram;
}
