/* SPDX-License-Identifier: MIT */
/*
 * What the kernel has mapped where: asked by ioctl (6.11), or read from /proc/self/maps, with raw
 * system calls and no allocation.
 */
#include "core.h"

#include <fcntl.h>
#include <linux/ioctl.h>

#include "sys.h"

/* ---- by query: a program may have tens of thousands of mappings ---------------------- */

struct procmap_query {
	uint64_t size, flags, addr;
	uint64_t start, end, vma_flags, page_size, offset, inode;
	uint32_t dev_major, dev_minor, name_size, build_id_size;
	uint64_t name_addr, build_id_addr;
};
#define QUERY _IOWR('f', 17, struct procmap_query)
#define VMA_ACCESS 0x07 /* read, write, execute */
#define VMA_SHARED 0x08
#define COVERING_OR_NEXT 0x10

static bool query(int fd, uintptr_t addr, struct em_mapping *m, bool *none)
{
	struct procmap_query q = { .size = sizeof(q), .flags = COVERING_OR_NEXT, .addr = addr };
	long ret = em_sys_ioctl(fd, QUERY, &q);

	*none = ret == -2; /* ENOENT */
	if (ret)
		return false;
	m->start = q.start;
	m->end = q.end;
	m->accessible = q.vma_flags & VMA_ACCESS;
	m->private_anonymous = !(q.vma_flags & VMA_SHARED) && !q.inode;
	return true;
}

/* ---- by reading ------------------------------------------------------------------------ */

struct reader {
	int fd;
	char buf[1024];
	long have, pos;
};

static int next_char(struct reader *r)
{
	if (r->pos == r->have) {
		r->have = em_syscall3(SYS_read, r->fd, r->buf, sizeof(r->buf));
		r->pos = 0;
		if (r->have <= 0)
			return -1;
	}
	return (unsigned char)r->buf[r->pos++];
}

static uintptr_t hex(struct reader *r, int *stop)
{
	uintptr_t v = 0;

	for (;;) {
		int c = next_char(r);

		if (c >= '0' && c <= '9')
			v = v * 16 + (uintptr_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v * 16 + (uintptr_t)(c - 'a' + 10);
		else {
			*stop = c;
			return v;
		}
	}
}

/* start-end perms offset dev inode name: private and inode 0 is anonymous. */
static void rest_of_line(struct reader *r, struct em_mapping *m)
{
	char perms[5] = { 0 };
	int c = 0, field = 0;
	bool zero_inode = true;

	for (int i = 0; i < 4; i++)
		perms[i] = (char)next_char(r);
	next_char(r);
	while (field < 3 && (c = next_char(r)) > 0 && c != '\n') {
		if (c == ' ')
			field++;
		else if (field == 2 && c != '0')
			zero_inode = false;
	}
	m->accessible = perms[0] != '-' || perms[1] != '-' || perms[2] != '-';
	m->private_anonymous = perms[3] == 'p' && zero_inode;
}

static bool search(int fd, uintptr_t addr, struct em_mapping *m)
{
	struct reader r = { .fd = fd };
	int c;

	for (;;) {
		m->start = hex(&r, &c);
		if (c != '-')
			return false;
		m->end = hex(&r, &c);
		if (m->end > addr) {
			rest_of_line(&r, m);
			return true;
		}
		while ((c = next_char(&r)) >= 0 && c != '\n')
			;
		if (c < 0)
			return false;
	}
}

bool em_maps_find(uintptr_t addr, struct em_mapping *m)
{
	int fd = (int)em_syscall4(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	bool found, none;

	if (fd < 0)
		return false;
	found = query(fd, addr, m, &none);
	if (!found && !none)
		found = search(fd, addr, m);
	em_sys_close(fd);
	return found;
}

bool em_maps_private_anonymous(uintptr_t addr)
{
	struct em_mapping m;

	return em_maps_find(addr, &m) && m.start <= addr && m.private_anonymous;
}

bool em_maps_accessible(uintptr_t start, uintptr_t end)
{
	struct em_mapping m;

	for (uintptr_t a = start; a < end; a = m.end) {
		if (!em_maps_find(a, &m)) /* there is always something above: the stack */
			return true;
		if (m.start >= end)
			return false;
		if (m.accessible)
			return true;
	}
	return false;
}
