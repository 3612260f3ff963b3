/* SPDX-License-Identifier: MIT */
/*
 * Dirty victims are written: their slots, one gathered write a run of slots, and what is done about
 * a write that failed.
 */
#include "reclaim.h"

#include <errno.h>
#include <fcntl.h>

#include "lift.h"
#include "standby.h"
#include "sys.h"

static bool needs_slot(const struct em_victim *v)
{
	return v->kind == V_DIRTY || v->kind == V_STANDBY;
}

/* Slots for the dirty victims, in address order, in as many runs as there are requests.  Without room in the
   store the rest stays, and so does everything for a while after writes have failed. */
void em_writeback_assign_slots(struct em_batch *b)
{
	uint32_t want = 0, have = 0, runs = 0;
	bool may = em_io_may_write();
	em_slot_t next = 0;

	for (uint32_t i = 0; i < b->n; i++)
		want += needs_slot(&b->v[i]);
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (!needs_slot(v))
			continue;
		if (!have && may && runs < EM_BATCH_IOS) {
			have = em_slots_alloc(em_engine.store, want, &next);
			runs++;
		}
		if (!have) {
			if (runs < EM_BATCH_IOS)
				em_io_full(may);
			em_victim_let_go(v);
			want--;
			continue;
		}
		v->slot = next++;
		have--;
		want--;
	}
}

static void *source(struct em_batch *b, const struct em_victim *v)
{
	if (v->kind == V_STANDBY)
		return em_standby_content(v->frame);
	return v->kind == V_LIFTED ? em_lift_frame(b, (uint32_t)(v - b->v)) : (void *)v->addr;
}

/* One request per run of consecutive slots.  Victims beyond the request table are put back. */
void em_writeback_build(struct em_batch *b)
{
	const uint32_t max_io = sizeof(b->io) / sizeof(b->io[0]);
	uint32_t niov = 0;
	struct em_io *io = NULL;

	b->nio = b->io_done = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (!needs_slot(v) && v->kind != V_LIFTED)
			continue;
		if (!io || v->slot != io->slot + io->npages) {
			if (b->nio == max_io) {
				if (v->kind == V_LIFTED)
					em_lift_settle(b, v, -EAGAIN); /* moved back */
				else
					em_victim_undo(v);
				continue;
			}
			io = &b->io[b->nio++];
			io->write = true;
			io->slot = v->slot;
			io->iov = &b->iov[niov];
			io->iovcnt = 0;
			io->npages = 0;
			io->cookie = b;
			io->result = 0;
		}
		b->iov[niov].iov_base = source(b, v);
		b->iov[niov++].iov_len = EM_PAGE_SIZE;
		io->iovcnt++;
		io->npages++;
	}
}

void em_writeback_now(struct em_batch *b)
{
	for (uint32_t i = 0; i < b->nio; i++)
		b->io[i].result = em_store_writev(em_engine.store, b->io[i].slot, b->io[i].iov,
						  b->io[i].iovcnt);
}

/* ---- written, or not ------------------------------------------------------------------------- */

static bool is_stolen(const struct em_victim *v)
{
	em_word_t w = em_word_load(v->wp);

	return v->kind == V_DIRTY && (em_word_state(w) != EM_WRITEBACK || em_word_slot(w) != v->slot);
}

static void set_errors(struct em_batch *b, em_slot_t slot, uint32_t n, int err)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (b->v[i].slot >= slot && b->v[i].slot < slot + n)
			b->v[i].err = err;
}

enum { SPLIT_FAILURES = 16 };

/* A gathered write that failed is done again in halves, so that one bad place does not keep its
   neighbours in memory; but not for long, because the whole store may be at fault.  The
   victims from io->slot + first on get their errors. */
static void write_halves(struct em_batch *b, const struct em_io *io, uint32_t first, uint32_t n,
			 int err, uint32_t *failures)
{
	uint32_t half = n / 2;

	if (n == 1 || ++*failures > SPLIT_FAILURES) {
		set_errors(b, io->slot + first, n, err);
		return;
	}
	for (uint32_t at = first, len = half; at < first + n; at += len, len = n - half) {
		err = em_store_writev(em_engine.store, io->slot + at, io->iov + at, (int)len);
		if (err)
			write_halves(b, io, at, len, err, failures);
		else
			set_errors(b, io->slot + at, len, 0);
	}
}

int em_read_forced(uintptr_t addr, void *buf)
{
	long fd = em_syscall4(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDONLY | O_CLOEXEC, 0), n;

	if (fd < 0)
		return (int)fd;
	n = em_syscall4(SYS_pread64, fd, buf, EM_PAGE_SIZE, addr);
	em_sys_close((int)fd);
	if (n != (long)EM_PAGE_SIZE)
		return n < 0 ? (int)n : -EIO;
	return 0;
}

static int write_copied(uintptr_t addr, em_slot_t slot)
{
	struct em_thread *t = em_thread_self();
	struct iovec iov = { .iov_base = t->bounce + EM_PAGE_SIZE, .iov_len = EM_PAGE_SIZE };
	int ret = em_read_forced(addr, iov.iov_base);

	if (ret)
		return ret;
	return em_store_writev(em_engine.store, slot, &iov, 1);
}

static int write_alone(struct em_batch *b, const struct em_victim *v)
{
	struct iovec iov = { .iov_base = source(b, v), .iov_len = EM_PAGE_SIZE };

	return v->kind == V_DIRTY ? write_copied(v->addr, v->slot)
				  : em_store_writev(em_engine.store, v->slot, &iov, 1);
}

/* A gathered write may fail for one page that the kernel cannot read (PROT_NONE): then each goes by
   itself, through a copy made by the kernel.  A page that was stolen, and perhaps unmapped, meanwhile
   does not matter. */
static int write_one_by_one(struct em_batch *b, struct em_io *io)
{
	int ret = 0;

	for (uint32_t i = 0; i < b->n && !ret; i++) {
		struct em_victim *v = &b->v[i];

		if ((!needs_slot(v) && v->kind != V_LIFTED) || v->slot < io->slot ||
		    v->slot >= io->slot + io->npages)
			continue;
		ret = write_alone(b, v);
		if (ret && is_stolen(v))
			ret = 0;
	}
	return ret;
}

static void settle_io(struct em_batch *b, struct em_io *io)
{
	uint32_t failures = 0;

	if (io->result == -EFAULT)
		io->result = write_one_by_one(b, io);
	set_errors(b, io->slot, io->npages, io->result);
	if (!io->result)
		return;
	em_io_write_failed(io->slot, io->result);
	if (io->result == -EIO)
		write_halves(b, io, 0, io->npages, io->result, &failures);
}

/* How the batch fared, for the pause that follows if nothing could be written. */
static void count_written(const struct em_batch *b)
{
	uint32_t ok = 0, failed = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		if (b->v[i].kind == V_SKIP)
			continue;
		if (b->v[i].err)
			failed++;
		else
			ok++;
	}
	em_stat_add(bytes_written, (uint64_t)ok * EM_PAGE_SIZE);
	em_io_batch_written(ok, failed);
}

void em_writeback_settle(struct em_batch *b)
{
	for (uint32_t i = 0; i < b->nio; i++)
		settle_io(b, &b->io[i]);
	count_written(b);
}
