/* SPDX-License-Identifier: MIT */
/*
 * What kind of mapping lies at an address that we do not manage: from /proc/self/maps, with
 * raw system calls and no allocation.  Rare, so clarity before speed.
 */
#include "core.h"

#include <fcntl.h>

#include "sys.h"

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
static bool line_is_private_anonymous(struct reader *r)
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
	return perms[3] == 'p' && zero_inode;
}

bool em_maps_private_anonymous(uintptr_t addr)
{
	struct reader r = { .fd = (int)em_syscall4(SYS_openat, AT_FDCWD, "/proc/self/maps",
						   O_RDONLY | O_CLOEXEC, 0) };
	bool found = false;
	int c;

	if (r.fd < 0)
		return false;
	for (;;) {
		uintptr_t start = hex(&r, &c), end;

		if (c != '-')
			break;
		end = hex(&r, &c);
		if (addr >= start && addr < end) {
			found = line_is_private_anonymous(&r);
			break;
		}
		if (start > addr)
			break;
		while ((c = next_char(&r)) >= 0 && c != '\n')
			;
		if (c < 0)
			break;
	}
	em_sys_close(r.fd);
	return found;
}
