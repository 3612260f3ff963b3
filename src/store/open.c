/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a store.  Ordinary context.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../core/meta.h"
#include "inject.h"
#include "target.h"

static int find_limit(const struct em_store_config *cfg, const struct em_target *t, uint64_t *slots,
		      bool *known, const struct em_message *m)
{
	uint64_t bytes = EM_STORE_MAX_SLOTS * EM_SLOT_SIZE;
	struct rlimit lim;

	*known = true;
	if (t->device)
		bytes = t->device_bytes < bytes ? t->device_bytes : bytes;
	else if (!getrlimit(RLIMIT_FSIZE, &lim) && lim.rlim_cur < bytes)
		bytes = lim.rlim_cur;
	else
		*known = cfg->size_bytes != 0;
	if (cfg->size_bytes && cfg->size_bytes < bytes)
		bytes = cfg->size_bytes;
	if (bytes < EM_STORE_MIN_BYTES)
		return em_target_refuse(m, -EFBIG,
					"swap path %s: room for only %" PRIu64
					" bytes (%s); at least %uK needed", t->path, bytes,
					t->device ? "size of the device"
						  : "file size limit, ulimit -f",
					EM_STORE_MIN_BYTES >> 10);
	*slots = bytes / EM_SLOT_SIZE;
	return 0;
}

static int find_injection(struct em_inject *in, const struct em_message *m)
{
	const char *text = getenv("EXTMEM_INJECT");

	return em_inject_parse(text ? text : "", in, m->text, m->len);
}

static int refuse_no_locks(const struct em_message *m, int err)
{
	return em_target_refuse(m, err,
		      "swap: no place for locks: memfd_create: %s, and /dev/null cannot be used; allow "
		      "one of them",
		      strerror(-err));
}

static int check_locks(bool no_memfd, const struct em_message *m)
{
	struct em_lockfile lf;
	int err = em_lockfile_open(no_memfd, &lf);

	if (err)
		return refuse_no_locks(m, err);
	em_lockfile_close(&lf);
	return 0;
}

int em_store_check(const struct em_store_config *cfg, char *err, size_t err_len)
{
	struct em_message m = {err, err_len};
	struct em_inject inject;
	uint64_t slots;
	struct em_target t = {.fd = -1};
	bool known;
	int r = find_injection(&inject, &m);

	if (!r)
		r = em_target_open(cfg, true, &t, &m);
	if (!r)
		r = find_limit(cfg, &t, &slots, &known, &m);
	if (!r)
		r = check_locks(cfg->no_memfd, &m);
	if (t.fd >= 0)
		close(t.fd);
	return r;
}

/*
 * Writes the mark of a named store into slot 0, and finds out whether O_DIRECT works: some
 * file systems take the flag and refuse the transfer, or want larger alignment than a page.
 */
static int first_access(struct em_target *t, bool *direct)
{
	char *page = em_meta_alloc(2 * EM_SLOT_SIZE), *p;
	int flags = fcntl(t->fd, F_GETFL) & ~O_NONBLOCK;
	ssize_t r;

	if (!page)
		return -ENOMEM;
	p = page + (-(uintptr_t)page & (EM_SLOT_SIZE - 1));
	memcpy(p, EM_STORE_MAGIC, EM_STORE_MAGIC_LEN);
	*direct = !fcntl(t->fd, F_SETFL, flags | O_DIRECT);
	for (;;) {
		if (!*direct)
			fcntl(t->fd, F_SETFL, flags);
		r = t->named ? pwrite(t->fd, p, EM_SLOT_SIZE, 0) : pread(t->fd, p, EM_SLOT_SIZE, 0);
		if (r >= 0 || !*direct || errno != EINVAL)
			break;
		*direct = false;
	}
	em_meta_free(page, 2 * EM_SLOT_SIZE);
	if (r < 0)
		return -errno;
	return t->named && r != EM_SLOT_SIZE ? -EIO : 0;
}

static int open_helpers(struct em_store *st, bool no_memfd, const struct em_message *m)
{
	struct em_lockfile lf;
	int err = em_lockfile_open(no_memfd, &lf);

	if (err)
		return refuse_no_locks(m, err);
	st->lock_fd = em_fd_raise(lf.fd, st->fd_min);
	st->lock_dir = lf.dir_fd < 0 ? -1 : em_fd_raise(lf.dir_fd, st->fd_min);
	st->lock_base = lf.base;
	em_share_take_spare(st);
	return 0;
}

static int start(struct em_store *st, struct em_target *t, bool no_memfd,
		 const struct em_message *m)
{
	int err = first_access(t, &st->direct);

	if (err)
		return em_target_refuse_errno(m, t->path, "cannot be written", -err);
	t->fd = st->fd = em_fd_raise(t->fd, st->fd_min);
	st->device = t->device;
	snprintf(st->name, sizeof(st->name), "%s", t->path);
	st->limit_extents =
		(uint32_t)((st->limit_slots + EM_EXTENT_SLOTS - 1) / EM_EXTENT_SLOTS);
	err = open_helpers(st, no_memfd, m);
	if (err)
		return err;
	em_slots_reset(st);
	err = em_share_init(st);
	return err ? em_target_refuse(m, err, "swap: no table of extents: %s", strerror(-err)) : 0;
}

int em_store_open(const struct em_store_config *cfg, int fd_min, struct em_store **out, char *err,
		  size_t err_len)
{
	struct em_message m = {err, err_len};
	struct em_store *st = em_meta_alloc(sizeof(*st));
	struct em_inject inject;
	struct em_target t;
	int r;

	if (!st)
		return em_target_refuse(&m, -ENOMEM, "swap: out of memory");
	st->fd = st->lock_fd = st->lock_dir = st->child_fd = st->spare_fd = -1;
	st->fd_min = fd_min;
	st->no_uring = cfg->no_uring;
	em_spin_init(st, cfg->spin_us);
	t.fd = -1;
	r = find_injection(&inject, &m);
	if (!r)
		r = em_target_open(cfg, false, &t, &m);
	if (!r)
		r = find_limit(cfg, &t, &st->limit_slots, &st->limit_known, &m);
	if (!r)
		r = start(st, &t, cfg->no_memfd, &m);
	if (!r) {
		if (inject.n)
			st->inject = em_inject_use(&inject);
		*out = st;
		return 0;
	}
	st->fd = t.fd;
	em_store_close(st);
	return r;
}

void em_store_close(struct em_store *st)
{
	const int fds[] = {st->fd, st->lock_fd, st->lock_dir, st->child_fd, st->spare_fd};

	em_spin_close(st);
	em_slots_reset(st);
	em_share_exit(st);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			em_sys_close(fds[i]);
	em_meta_free(st, sizeof(*st));
}
