/* SPDX-License-Identifier: MIT */
/* What the control thread is asked to do.  It works in short engine sections, so that a fork never waits for
   a whole command. */
#include "control.h"

#include <errno.h>

#include "../core/core.h"
#include "../core/meta.h"
#include "../core/range.h"
#include "../core/standby.h"
#include "../core/sys.h"
#include "../policy/registry.h"

enum {
	STEP_PAGES = 1024,     /* a fault may have to evict this much by itself while the budget shrinks */
	PATIENCE_MS = 2000,    /* so long without any progress */
	STATS_ROOM = 128 << 10,
};

/* ---- replies ----------------------------------------------------------------------------- */

static size_t put_text(char *buf, size_t room, size_t at, const char *s)
{
	while (*s && at + 1 < room)
		buf[at++] = *s++;
	buf[at] = 0;
	return at;
}

static size_t put_number(char *buf, size_t room, size_t at, uint64_t v)
{
	char digits[21];
	int n = 20;

	digits[n] = 0;
	do
		digits[--n] = (char)('0' + v % 10);
	while (v /= 10);
	return put_text(buf, room, at, digits + n);
}

void em_control_error(struct em_control_reply *r, const char *text)
{
	size_t at = put_text(r->head, sizeof(r->head) - 1, 0, "error ");

	at = put_text(r->head, sizeof(r->head) - 1, at, text);
	r->head[at++] = '\n';
	r->head_len = at;
	r->body_len = 0;
}

static void ok(struct em_control_reply *r)
{
	size_t at = put_text(r->head, sizeof(r->head), 0, "ok ");

	at = put_number(r->head, sizeof(r->head), at, r->body_len);
	r->head_len = put_text(r->head, sizeof(r->head), at, "\n");
}

static void pair(struct em_control_reply *r, const char *key, uint64_t value)
{
	const size_t room = sizeof(r->text);

	r->body_len = put_text(r->text, room, r->body_len, r->body_len ? " " : "");
	r->body_len = put_text(r->text, room, r->body_len, key);
	r->body_len = put_text(r->text, room, r->body_len, " ");
	r->body_len = put_number(r->text, room, r->body_len, value);
}

static void report(struct em_control_reply *r, uint64_t moved_pages)
{
	int64_t used = em_budget_used();

	pair(r, "budget_bytes", (uint64_t)em_budget.limit * EM_PAGE_SIZE);
	pair(r, "resident_bytes", (uint64_t)(used > 0 ? used : 0) * EM_PAGE_SIZE);
	pair(r, "moved_bytes", moved_pages * EM_PAGE_SIZE);
	r->body_len = put_text(r->text, sizeof(r->text), r->body_len, "\n");
	ok(r);
}

void em_control_reply_free(struct em_control_reply *r)
{
	em_meta_free(r->body, r->body_room);
	r->body = NULL;
}

static void nap(long ms)
{
	struct timespec ts = { 0, ms * 1000000 };

	em_syscall5(SYS_ppoll, NULL, 0, &ts, NULL, 0);
}

static uint64_t evicted_so_far(void)
{
	return __atomic_load_n(&em_stats.pages_out, __ATOMIC_RELAXED) +
	       __atomic_load_n(&em_stats.pages_dropped_clean, __ATOMIC_RELAXED);
}

/* ---- budget ------------------------------------------------------------------------------- */

/* Evicts until no more than `pages` are used.  False: nothing more can leave. */
static bool evict_down_to(struct em_thread *t, int64_t pages)
{
	uint64_t since = em_now_ns();
	int64_t used, best = em_budget_used();

	while ((used = em_budget_used()) > pages && !em_control_stopping()) {
		uint32_t gone;

		if (used < best) {
			best = used;
			since = em_now_ns();
		}
		if (em_now_ns() - since > PATIENCE_MS * 1000000ull)
			return false;
		em_service_kick(); /* the stage is the service's to shrink */
		em_enter(t, false);
		gone = em_reclaim_now(em_budget.batch);
		em_leave(t, false);
		if (!gone)
			nap(1);
	}
	return true;
}

/*
 * Down in steps: with the whole of it at once, the first thread to fault would find everything that is
 * over the new budget to evict, before it goes on.
 */
static void set_budget(struct em_thread *t, int64_t pages)
{
	bool moving = true;

	em_engine.opt.dram_bytes = (uint64_t)pages * EM_PAGE_SIZE; /* for children from now on */
	em_stage_set_budget((uint64_t)pages);
	em_enter(t, false); /* a fork must not find its lock taken */
	em_standby_set_budget((uint64_t)pages);
	em_leave(t, false);
	while (moving && em_budget.limit > pages && !em_control_stopping()) {
		int64_t used = em_budget_used();
		int64_t next = (used < em_budget.limit ? used : em_budget.limit) - STEP_PAGES;

		if (next < pages)
			next = pages;
		em_budget_set((uint64_t)next * EM_PAGE_SIZE);
		moving = evict_down_to(t, next);
	}
	em_budget_set((uint64_t)pages * EM_PAGE_SIZE);
}

static void budget(struct em_thread *t, uint64_t bytes, struct em_control_reply *r)
{
	uint64_t before = evicted_so_far(), pages = bytes >> EM_PAGE_SHIFT;
	int64_t floor = em_budget_floor();
	char why[128];
	size_t at;

	if (bytes < EM_DRAM_MIN_BYTES || (int64_t)pages < floor) {
		if (floor < (int64_t)(EM_DRAM_MIN_BYTES / EM_PAGE_SIZE))
			floor = EM_DRAM_MIN_BYTES / EM_PAGE_SIZE;
		at = put_text(why, sizeof(why), 0, "budget: too small for this program; give at least ");
		at = put_number(why, sizeof(why), at, (uint64_t)floor * (EM_PAGE_SIZE / 1024));
		put_text(why, sizeof(why), at, "K");
		em_control_error(r, why);
		return;
	}
	if (pages >> 40) {
		em_control_error(r, "budget: out of range");
		return;
	}
	set_budget(t, (int64_t)pages);
	report(r, evicted_so_far() - before);
}

/* ---- all pages ------------------------------------------------------------------------------ */

/* The next block with managed pages at or after *addr, in *addr; false: none. */
static bool next_block(uintptr_t *addr)
{
	const uintptr_t end = 1ul << EM_ADDR_BITS;
	uintptr_t a = *addr;

	while (a < end) {
		uintptr_t v = em_space_value(a);

		if (v && !em_entry_is_lazy(v)) {
			*addr = a;
			return true;
		}
		a = em_space_has_blocks(a) ? a + EM_BLOCK_SIZE : (a | (EM_L1_SPAN - 1)) + 1;
	}
	return false;
}

static void evict_all(struct em_thread *t, struct em_control_reply *r)
{
	uint64_t before = evicted_so_far();

	em_stage_flush();
	if (em_service_running())
		em_service_kick();
	for (uintptr_t a = 0; next_block(&a) && !em_control_stopping(); a += EM_BLOCK_SIZE) {
		em_enter(t, false);
		em_reclaim_range(t, a, a + EM_BLOCK_SIZE);
		em_leave(t, false);
	}
	em_enter(t, false);
	em_standby_flush();
	em_leave(t, false);
	report(r, evicted_so_far() - before);
}

static bool has_room(void)
{
	return em_budget_used() + EM_BOUNCE_PAGES < em_budget.limit - em_budget.high;
}

static bool is_out(uintptr_t addr)
{
	em_word_t *wp = em_space_word(addr);
	enum em_state st = wp ? em_word_state(em_word_load(wp)) : EM_HOLE;

	/* FILLING: being read ahead, because of the pages before it. */
	return st == EM_SWAPPED || st == EM_STAGED || st == EM_FILLING;
}

/* One section for each 64 KiB. */
static uint64_t load_pages(struct em_thread *t, uintptr_t start)
{
	uint64_t n = 0;

	em_enter(t, false);
	for (uintptr_t a = start; a < start + EM_BOUNCE_PAGES * EM_PAGE_SIZE && has_room();
	     a += EM_PAGE_SIZE)
		if (is_out(a) && em_fault(t, a, false) == EM_FAULT_DONE)
			n++;
	em_leave(t, false);
	return n;
}

/* What came in through a read for its neighbour counts too. */
static void load_all(struct em_thread *t, struct em_control_reply *r)
{
	uint64_t before = __atomic_load_n(&em_stats.pages_in, __ATOMIC_RELAXED);
	const uintptr_t piece = EM_BOUNCE_PAGES * EM_PAGE_SIZE;

	for (uintptr_t a = 0; next_block(&a) && has_room() && !em_control_stopping();
	     a += EM_BLOCK_SIZE)
		for (uintptr_t p = a; p < a + EM_BLOCK_SIZE && has_room(); p += piece)
			load_pages(t, p);
	report(r, __atomic_load_n(&em_stats.pages_in, __ATOMIC_RELAXED) - before);
}

/* ---- policy, statistics ------------------------------------------------------------------------ */

static void policy(struct em_thread *t, const struct em_control_request *q,
		   struct em_control_reply *r)
{
	const struct extmem_policy_ops *ops = em_policy_find(q->name);
	char why[256] = "";
	size_t at;
	int ret;

	if (!ops) {
		at = put_text(why, sizeof(why), 0, "policy ");
		at = put_text(why, sizeof(why), at, q->name);
		put_text(why, sizeof(why), at, ": not a built-in one; one in a file of its own can only "
					       "be chosen when the program is started");
		em_control_error(r, why);
		return;
	}
	em_enter(t, false);
	ret = em_host_switch(ops, q->args, why, sizeof(why));
	em_leave(t, false);
	if (ret)
		em_control_error(r, why[0] ? why : "policy: no memory for its tables");
	else
		report(r, 0);
}

static void stats(struct em_control_reply *r)
{
	struct em_range_op op;
	char *buf = em_meta_alloc(STATS_ROOM);
	long n = -1;

	if (buf) {
		em_range_enter(&op); /* the map lock keeps regions in place */
		n = em_stats_json(buf, STATS_ROOM);
		em_range_leave(&op);
	}
	r->body = buf;
	r->body_room = STATS_ROOM;
	if (n < 0) {
		em_control_error(r, "statistics: no memory for the report");
		return;
	}
	r->body_len = (size_t)n;
	ok(r);
}

void em_control_execute(const struct em_control_request *q, struct em_control_reply *r)
{
	struct em_thread *t = em_thread_self();

	if (!t) {
		em_control_error(r, "no memory for the engine's control thread");
		return;
	}
	switch (q->verb) {
	case EM_CONTROL_BUDGET:
		budget(t, q->bytes, r);
		break;
	case EM_CONTROL_POLICY:
		policy(t, q, r);
		break;
	case EM_CONTROL_EVICT:
		evict_all(t, r);
		break;
	case EM_CONTROL_LOAD:
		load_all(t, r);
		break;
	case EM_CONTROL_STATS:
		stats(r);
		break;
	}
}
