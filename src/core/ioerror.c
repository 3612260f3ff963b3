/* SPDX-License-Identifier: MIT */
/*
 * A store that fails: what is said, what is tried again, and when no more is written for a while.
 *
 * A failed read costs the thread that needs the page a SIGBUS, and nobody else anything.  A
 * failed write costs nothing but memory: the page stays.  Neither ever becomes zeros.
 */
#include "core.h"

#include <errno.h>
#include <time.h>

#include "range.h"
#include "sys.h"

enum {
	READ_TRIES = 2, /* after the first */
	READ_PAUSE_NS = 2000000,
	READ_LINES = 16,	/* in EM_SAY_WINDOW_NS; writes and a full store: one */
	PAUSE_MIN_MS = 10,	/* after a batch of which nothing could be written */
	PAUSE_MAX_MS = 1000,
};

static struct {
	uint64_t write_after_ns;
	uint32_t pause_ms;
	uint32_t blocked; /* the last dirty victims had to stay: the store is full or fails */
} out;

/* ---- messages -------------------------------------------------------------------------- */

static const char *errno_name(int e)
{
	switch (e) {
	case EIO:
		return "EIO";
	case ENOSPC:
		return "ENOSPC";
	case EDQUOT:
		return "EDQUOT";
	case EFBIG:
		return "EFBIG";
	case EROFS:
		return "EROFS";
	case ENOMEM:
		return "ENOMEM";
	case ENODEV:
		return "ENODEV";
	case ENXIO:
		return "ENXIO";
	case ETIMEDOUT:
		return "ETIMEDOUT";
	default:
		return NULL;
	}
}

static char *put_errno(char *p, int err)
{
	const char *name = errno_name(-err);

	p = em_put_text(p, "errno ");
	p = em_put_number(p, (uint64_t)-err, 10);
	if (!name)
		return p;
	p = em_put_text(p, " (");
	p = em_put_text(p, name);
	return em_put_text(p, ")");
}

static char *put_place(char *p, em_slot_t slot, int err)
{
	p = em_put_text(p, "store ");
	p = em_put_text(p, em_store_name(em_engine.store));
	p = em_put_text(p, " offset ");
	p = em_put_number(p, (uint64_t)slot * EM_PAGE_SIZE, 10);
	return put_errno(em_put_text(p, ", "), err);
}

static char *put_dropped(char *p, uint32_t dropped)
{
	if (!dropped)
		return p;
	p = em_put_text(p, "; ");
	p = em_put_number(p, dropped, 10);
	return em_put_text(p, " more such errors were not shown");
}

static char *put_page(char *p, uintptr_t addr)
{
	const struct em_region *r = em_range_region_at(addr);

	p = em_put_text(p, "page 0x");
	p = em_put_number(p, addr, 16);
	if (!r)
		return p;
	p = em_put_text(p, ", region 0x");
	p = em_put_number(p, r->start, 16);
	p = em_put_text(p, "-0x");
	p = em_put_number(p, r->end, 16);
	p = em_put_text(p, " offset ");
	return em_put_number(p, addr - r->start, 10);
}

static void say_read(uintptr_t addr, em_slot_t slot, int err)
{
	static struct em_say_limit limit;
	char line[640], *p = line;
	uint32_t dropped;

	if (!em_say_limit(&limit, READ_LINES, &dropped))
		return;
	p = em_put_text(p, "extmem: swap read failed: ");
	p = put_page(p, addr);
	p = em_put_text(p, ", ");
	p = put_place(p, slot, err);
	p = em_put_text(p, ": SIGBUS for who needs it");
	*em_put_text(put_dropped(p, dropped), "\n") = 0;
	em_say(line);
}

static void say_write(em_slot_t slot, int err)
{
	static struct em_say_limit limit;
	char line[640], *p = line;
	uint32_t dropped;

	if (!em_say_limit(&limit, 1, &dropped))
		return;
	p = em_put_text(p, "extmem: swap write failed: ");
	p = put_place(p, slot, err);
	p = em_put_text(p, ": the pages stay in memory");
	*em_put_text(put_dropped(p, dropped), "\n") = 0;
	em_say(line);
}

static void say_full(void)
{
	static struct em_say_limit limit;
	int err = em_slots_error(em_engine.store);
	char line[640], *p = line;
	uint32_t dropped;

	/* It is no error, so once is enough for the life of the process. */
	if (__atomic_load_n(&limit.start_ns, __ATOMIC_RELAXED) ||
	    !em_say_limit(&limit, 1, &dropped))
		return;
	p = em_put_text(p, "extmem: the swap store ");
	p = em_put_text(p, em_store_name(em_engine.store));
	p = em_put_text(p, err == -ENOSPC || err == -EDQUOT || err == -EFBIG ? " is full, "
									  : " takes no more, ");
	p = put_errno(p, err);
	p = em_put_text(p, ": what is dirty stays in memory, over the budget if need be; give it more "
			   "room with --swap\n");
	*p = 0;
	em_say(line);
}

void em_io_say_no_memory(bool store_blocked)
{
	static struct em_say_limit limit;
	uint32_t dropped;

	if (!em_say_limit(&limit, 1, &dropped))
		return;
	em_say(store_blocked ? "extmem: memory is used up and the swap store takes no more: SIGBUS\n"
			     : "extmem: the kernel has no memory for a page: SIGBUS\n");
}

/* ---- reading --------------------------------------------------------------------------- */

int em_io_read_again(em_slot_t slot, void *buf)
{
	const struct timespec pause = { 0, READ_PAUSE_NS };
	int ret = -EIO;

	for (int i = 0; ret && i < READ_TRIES; i++) {
		if (i)
			em_syscall2(SYS_nanosleep, &pause, NULL);
		em_stat_inc(io_retries);
		ret = em_store_read(em_engine.store, slot, buf, 1);
	}
	return ret;
}

void em_io_read_failed(struct em_thread *t, uintptr_t addr, em_slot_t slot, int err, bool known)
{
	t->lost.page = addr;
	t->lost.slot = slot;
	t->lost.err = -err;
	if (known)
		return;
	em_stat_inc(io_errors);
	em_stat_inc(io_read_errors);
	say_read(addr, slot, err);
}

/* ---- writing --------------------------------------------------------------------------- */

bool em_io_may_write(void)
{
	uint64_t after = __atomic_load_n(&out.write_after_ns, __ATOMIC_RELAXED);

	return !after || em_now_ns() >= after;
}

void em_io_full(bool tried)
{
	__atomic_store_n(&out.blocked, 1, __ATOMIC_RELAXED);
	if (tried)
		say_full();
}

bool em_io_blocked(void)
{
	return __atomic_load_n(&out.blocked, __ATOMIC_RELAXED);
}

void em_io_write_failed(em_slot_t slot, int err)
{
	em_stat_inc(io_errors);
	em_stat_inc(io_write_errors);
	say_write(slot, err);
}

/* Every write may take as long to fail as the device likes, and each page that comes in would ask
   for one: so after a batch of which nothing could be written there is a pause. */
void em_io_batch_written(uint32_t ok, uint32_t failed)
{
	uint32_t ms = __atomic_load_n(&out.pause_ms, __ATOMIC_RELAXED) * 2;

	if (ok) {
		__atomic_store_n(&out.pause_ms, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&out.write_after_ns, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&out.blocked, 0, __ATOMIC_RELAXED);
		return;
	}
	if (!failed)
		return;
	ms = ms < PAUSE_MIN_MS ? PAUSE_MIN_MS : ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : ms;
	__atomic_store_n(&out.pause_ms, ms, __ATOMIC_RELAXED);
	__atomic_store_n(&out.write_after_ns, em_now_ns() + ms * 1000000ull, __ATOMIC_RELAXED);
	__atomic_store_n(&out.blocked, 1, __ATOMIC_RELAXED);
}
