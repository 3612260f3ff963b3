/* SPDX-License-Identifier: MIT */
/*
 * What the island shares: statistics at exit, descriptors.
 */
#include "core.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "../control/control.h"
#include "meta.h"
#include "range.h"
#include "sys.h"

struct em_engine em_engine;

/* ---- statistics --------------------------------------------------------------------------- */

static void each_region(em_stats_region_fn fn, void *arg)
{
	struct em_stats_region s;

	for (struct em_region *r = em_regions; r; r = r->next) {
		s.start = r->start;
		s.end = r->end;
		s.kind = r->kind == EM_REGION_HEAP ? "heap" : "mmap";
		s.s = r->stats;
		fn(arg, &s);
	}
	s.start = s.end = 0;
	s.kind = "closed";
	s.s = em_regions_closed;
	fn(arg, &s);
}

static const char *features(void)
{
	static char text[64];
	char *p = text;
	static const struct {
		uint32_t bit;
		const char *name;
	} f[] = { { EM_FEAT_WP, "wp," },
		  { EM_FEAT_MOVE, "move," },
		  { EM_FEAT_PROCESS_MADVISE, "process_madvise," },
		  { EM_FEAT_CAPTURE, "capture," } };

	for (unsigned i = 0; i < sizeof(f) / sizeof(f[0]); i++)
		if (em_uffd.features & f[i].bit)
			p = em_put_text(p, f[i].name);
	if (p > text)
		p--;
	*p = 0;
	return text;
}

void em_stats_collect(struct em_stats_extra *x)
{
	x->pid = em_engine.pid;
	x->budget_bytes = (uint64_t)em_budget.limit * EM_PAGE_SIZE;
	x->resident_bytes = (uint64_t)em_budget.resident * EM_PAGE_SIZE;
	x->resident_peak_bytes = em_stats.resident_peak_pages * EM_PAGE_SIZE;
	x->managed_bytes = em_regions_pages * EM_PAGE_SIZE;
	x->metadata_bytes = em_meta_bytes();
	x->frame_bytes = em_meta_frame_bytes();
	x->slots_used = em_engine.store ? em_slots_used(em_engine.store) : 0;
	x->delivery = em_engine.opt.delivery == EM_DELIVERY_THREAD ? "thread" : "upcall";
	x->policy = em_host_policy_name();
	x->prefetch = em_host_prefetch_name();
	x->features = features();
	x->regions = each_region;
}

static int stats_fd(bool *close_it)
{
	char path[sizeof(em_engine.opt.stats_path) + 24], *p = path;

	*close_it = false;
	if (em_engine.opt.stats_path[0] == '-' && !em_engine.opt.stats_path[1])
		return 2;
	p = em_put_text(p, em_engine.opt.stats_path);
	if (em_engine.pid != em_engine.opt.stats_pid) {
		*p++ = '.';
		p = em_put_number(p, (uint64_t)em_engine.pid, 10);
	}
	*p = 0;
	*close_it = true;
	return (int)em_syscall4(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
				0666);
}

static bool last_written; /* under the map lock */

/* Under the map lock: it keeps the regions in place while they are listed, and who dies waits until another who
   does has written. */
static void write_report(struct em_range_op *op, bool last)
{
	const size_t room = 128 * 1024;
	bool close_it;
	char *buf;
	long n;
	int fd;

	em_space_check(op->t);
	last_written = last;
	buf = em_meta_alloc(room);
	n = buf ? em_stats_json(buf, room) : -1;
	fd = n > 0 ? stats_fd(&close_it) : -1;
	if (fd >= 0) {
		em_write_all(fd, buf, (size_t)n);
		if (close_it)
			em_sys_close(fd);
	}
	if (buf)
		em_meta_free(buf, room);
}

void em_stats_write_file(bool last)
{
	struct em_range_op op;

	if (!em_engine.active || !em_engine.opt.stats_path[0])
		return;
	em_range_enter(&op);
	write_report(&op, last);
	em_range_leave(&op);
}

void em_stats_write_dying(void)
{
	const uint64_t wait_ms = 1000;
	struct em_range_op op;

	if (!em_engine.active || !em_engine.opt.stats_path[0] || !em_range_try_enter(&op, wait_ms))
		return;
	if (!last_written)
		write_report(&op, true);
	em_range_leave(&op);
}

/* ---- descriptors ------------------------------------------------------------------------------ */

size_t em_engine_fds(int *fds, size_t max)
{
	size_t n = 0;

	if (max < 5)
		return 0;
	fds[n++] = em_uffd.fd;
	fds[n++] = em_uffd.pidfd;
	fds[n++] = em_uffd.dev_fd;
	fds[n++] = em_uffd.pipe[0];
	fds[n++] = em_uffd.pipe[1];
	n += em_control_fds(fds + n, max - n);
	n += em_store_fds(em_engine.store, fds + n, max - n);
	return n + em_service_fds(fds + n, max - n);
}

bool em_engine_owns_fd(int fd)
{
	int fds[40];
	size_t n;

	/* They are all high: the common case is over here. */
	if (fd < em_engine.fd_min || !em_engine.active)
		return false;
	n = em_engine_fds(fds, 40);
	for (size_t i = 0; i < n; i++)
		if (fds[i] == fd)
			return true;
	return false;
}
