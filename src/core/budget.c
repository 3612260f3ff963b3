/* SPDX-License-Identifier: MIT */
/*
 * The budget: how many pages may be resident, and the reserve that background reclaim keeps
 * free below it.
 */
#include "reclaim.h"

#include <fcntl.h>

#include "meta.h"
#include "sys.h"

struct em_budget em_budget;

enum { OVERRUN_TURNS = 200, HOPELESS_TURNS = 2, META_FREE_BYTES = 2 << 20,
       ROOM_PAGES = 128, ASK_NS = 20000000, REST_BYTES = 32 << 20,
       EVICT_AT_ONCE = 4, BATCH_LEAST = 96, EVICT_WAIT_US = 10000 };

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

/* The eviction clock in coarse units, 64 to a budget: 12 bits reach 64 budgets back. */
static uint64_t stamp_unit(void)
{
	uint64_t u = (uint64_t)__atomic_load_n(&em_budget.limit, __ATOMIC_RELAXED) / 64;

	return u ? u : 1;
}

/*
 * At any time.  The marks need not agree with the limit for a moment: they only say when to begin.  The clock
 * goes on in the new units, so distances stay what they were in budgets.
 *
 * What is kept free, and a batch on its way out, is memory that the program does not have: at most a hundredth.
 */
void em_budget_set(uint64_t bytes)
{
	int64_t pages = (int64_t)(bytes >> EM_PAGE_SHIFT), low = clamp(pages / 256, 8, 512);
	int64_t batch = clamp(pages / 512, clamp(pages / 32, 8, BATCH_LEAST), EM_BATCH_PAGES);
	uint64_t ticks = __atomic_load_n(&em_budget.evict_clock, __ATOMIC_RELAXED) / stamp_unit();

	__atomic_store_n(&em_budget.low, low, __ATOMIC_RELAXED);
	__atomic_store_n(&em_budget.high, low + clamp(pages / 512, 8, EM_BATCH_PAGES),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&em_budget.batch, (uint32_t)batch, __ATOMIC_RELAXED);
	__atomic_store_n(&em_budget.limit, pages, __ATOMIC_RELEASE);
	__atomic_store_n(&em_budget.evict_clock, ticks * stamp_unit(), __ATOMIC_RELAXED);
}

/* Metadata counts too, but for a fixed part that every managed process has (queues, thread contexts):
   a budget of a megabyte must still be one. */
static int64_t meta_pages(void)
{
	int64_t meta = (int64_t)em_meta_bytes() - META_FREE_BYTES;

	return meta > 0 ? meta >> EM_PAGE_SHIFT : 0;
}

/* Tables that outgrow half the budget (very many mappings) go beyond it: a program of which no page may
   stay would not get on at all. */
int64_t em_budget_used(void)
{
	int64_t meta = meta_pages(), most = __atomic_load_n(&em_budget.limit, __ATOMIC_RELAXED) / 2;

	return __atomic_load_n(&em_budget.resident, __ATOMIC_RELAXED) + (meta < most ? meta : most);
}

int64_t em_budget_floor(void)
{
	int64_t tables = meta_pages() - em_stage_pages();

	return (tables > 0 ? tables : 0) + ROOM_PAGES;
}

static void note_peak(int64_t now)
{
	uint64_t peak = __atomic_load_n(&em_stats.resident_peak_pages, __ATOMIC_RELAXED);

	while (now > (int64_t)peak &&
	       !__atomic_compare_exchange_n(&em_stats.resident_peak_pages, &peak, (uint64_t)now,
					    true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static int turns_at_most(bool hopeless)
{
	/* Where memory ends, clean pages must be found however many dirty ones have to stay. */
	if (em_budget_used() > em_budget.hard)
		return OVERRUN_TURNS;
	return hopeless || em_io_blocked() ? HOPELESS_TURNS : OVERRUN_TURNS;
}

/* Few evict at once: each takes a batch, which is room for many. */
static struct {
	uint32_t running, done;
} evicting;

/* False: others do, and one of them is through. */
static bool evict_in_turn(struct em_thread *t, uint32_t *gone)
{
	uint32_t done = __atomic_load_n(&evicting.done, __ATOMIC_SEQ_CST);
	bool mine = __atomic_fetch_add(&evicting.running, 1, __ATOMIC_SEQ_CST) < EVICT_AT_ONCE;

	if (mine)
		*gone = em_reclaim_inline(t, em_budget.batch);
	__atomic_fetch_sub(&evicting.running, 1, __ATOMIC_SEQ_CST);
	if (mine) {
		__atomic_fetch_add(&evicting.done, 1, __ATOMIC_SEQ_CST);
		em_futex_wake(&evicting.done, 1 << 30);
	} else {
		em_futex_wait(&evicting.done, done, EVICT_WAIT_US);
	}
	return mine;
}

/*
 * Charges first and makes room afterwards: the caller owns the pages it is filling, so nobody can
 * take them, and an overshoot is at most one run a thread.  When nothing can be evicted for
 * a long time (all pages held by system calls), or soon when the store takes nothing (full, failing), the
 * program goes on over its budget rather than stop.
 */
void em_charge(struct em_thread *t, uint32_t npages)
{
	/* Nothing could be evicted the last time: whoever brings in a whole range shall not wait for each page. */
	static uint32_t hopeless;
	int64_t now = __atomic_add_fetch(&em_budget.resident, npages, __ATOMIC_RELAXED);
	uint32_t gone;

	now = em_budget_used();
	note_peak(now);
	if (now <= em_budget.limit - em_budget.low)
		return;
	em_service_kick();
	for (int turn = 0; em_budget_used() > em_budget.limit; turn++) {
		if (!evict_in_turn(t, &gone)) {
			turn--;
		} else if (gone) {
			turn = 0;
			__atomic_store_n(&hopeless, 0, __ATOMIC_RELAXED);
		} else if (turn > turns_at_most(__atomic_load_n(&hopeless, __ATOMIC_RELAXED))) {
			__atomic_store_n(&hopeless, 1, __ATOMIC_RELAXED);
			em_stat_inc(budget_overruns);
			return;
		} else {
			em_syscall0(SYS_sched_yield);
		}
	}
}

/* ---- a store that takes nothing ----------------------------------------------------------- */

void em_budget_set_hard(uint64_t bytes)
{
	uint64_t rest = bytes / 10;

	/* For what is not managed: page tables, libraries, the program's files. */
	if (rest < REST_BYTES)
		rest = bytes / 2 < REST_BYTES ? bytes / 2 : REST_BYTES;
	em_budget.hard = (int64_t)((bytes - rest) >> EM_PAGE_SHIFT);
}

/* MemAvailable in pages, INT64_MAX where it is not known. */
static int64_t memory_available(void)
{
	static const char key[] = "MemAvailable:";
	long fd = em_syscall4(SYS_openat, AT_FDCWD, "/proc/meminfo", O_RDONLY | O_CLOEXEC, 0), n;
	char buf[512], *p = buf, *end;
	int64_t kib = 0;
	size_t k = 0;

	if (em_is_err(fd))
		return INT64_MAX;
	n = em_syscall3(SYS_read, fd, buf, sizeof(buf));
	em_sys_close((int)fd);
	for (end = buf + (n > 0 ? n : 0); p < end && k < sizeof(key) - 1; p++)
		k = *p == key[k] ? k + 1 : *p == key[0];
	while (p < end && *p == ' ')
		p++;
	if (p == end)
		return INT64_MAX;
	for (; p < end && *p >= '0' && *p <= '9'; p++)
		kib = kib * 10 + (*p - '0');
	return kib / 4;
}

/* What the machine has left is asked for once in a while: it costs 20 us. */
static bool machine_has(int64_t npages)
{
	static uint64_t asked_ns;
	static int64_t left;
	uint64_t now = em_now_ns();

	if (now - __atomic_load_n(&asked_ns, __ATOMIC_RELAXED) > ASK_NS) {
		__atomic_store_n(&left, memory_available(), __ATOMIC_RELAXED);
		__atomic_store_n(&asked_ns, now, __ATOMIC_RELAXED);
	}
	return __atomic_load_n(&left, __ATOMIC_RELAXED) - npages > em_budget.hard / 32;
}

static bool beyond_all(int64_t npages)
{
	int64_t used = em_budget_used() + npages;

	return used > em_budget.limit && (used > em_budget.hard || !machine_has(npages));
}

bool em_budget_refuses(struct em_thread *t, uint64_t npages)
{
	int64_t n = npages > INT32_MAX ? INT32_MAX : (int64_t)npages;

	if (!em_io_blocked() || !beyond_all(n))
		return false;
	/* What was so may be so no more. */
	while (beyond_all(n) && em_reclaim_inline(t, em_budget.batch))
		;
	return em_io_blocked() && beyond_all(n);
}

void em_uncharge(uint32_t npages)
{
	if (npages)
		__atomic_fetch_sub(&em_budget.resident, npages, __ATOMIC_RELAXED);
}

bool em_budget_tight(bool running, uint32_t leaving)
{
	return em_budget_used() - leaving > em_budget.limit - (running ? em_budget.high : em_budget.low);
}

uint32_t em_evict_stamp(void)
{
	return (uint32_t)(__atomic_load_n(&em_budget.evict_clock, __ATOMIC_RELAXED) /
			  stamp_unit()) & 0xfff;
}

uint32_t em_evict_distance(em_word_t w)
{
	uint32_t then = (uint32_t)((w & EM_W_STAMP) >> EM_W_STAMP_SHIFT);
	uint64_t d = ((em_evict_stamp() - then) & 0xfff) * stamp_unit();

	return d >= EXTMEM_NEIGHBOUR ? EXTMEM_NEIGHBOUR - 1 : (uint32_t)d;
}
