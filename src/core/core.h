/* SPDX-License-Identifier: MIT */
/*
 * The engine's internal interface: what the files of src/core share.
 *
 * Engine sections.  Everything below that says [engine] runs between em_enter and
 * em_leave: all signals blocked, the thread counted as inside.  fork closes the gate and
 * waits until nobody is inside; memory that lock-free readers may still see is freed only
 * after every thread that was inside has left (em_retire).
 */
#ifndef EM_CORE_CORE_H
#define EM_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <extmem/extmem.h>
#include <extmem/policy.h>

#include "lock.h"
#include "pageword.h"
#include "update.h"

#include "../observe/stats.h"
#include "../options.h"
#include "../store/store.h"

#define EM_PAGE_SHIFT 12
#define EM_PAGE_SIZE (1ul << EM_PAGE_SHIFT)
#define EM_PAGE_MASK (EM_PAGE_SIZE - 1)
#define EM_BLOCK_SHIFT 21
#define EM_BLOCK_SIZE (1ul << EM_BLOCK_SHIFT)
#define EM_BLOCK_PAGES 512u
#define EM_SEGS 16u
#define EM_ADDR_BITS 47 /* user addresses with 4-level page tables */

static inline uintptr_t em_page_down(uintptr_t a)
{
	return a & ~EM_PAGE_MASK;
}

static inline uintptr_t em_page_up(uintptr_t a)
{
	return (a + EM_PAGE_MASK) & ~EM_PAGE_MASK;
}

/* ---- regions and blocks (space.c) ------------------------------------------ */

enum em_region_kind { EM_REGION_MMAP = 0, EM_REGION_HEAP = 1 };

/* One mapping of the program.  Its bounds are a hull: parts may have been unmapped. */
struct em_region {
	uintptr_t start, end;
	uint64_t pages;		/* managed pages that belong to it now; 0: retired */
	uint8_t kind, advice;	/* enum em_region_kind, enum extmem_access_advice */
	struct em_region *prev, *next; /* under map lock */
	struct em_region_stats stats;
	struct em_update update;
};

/* 2 MiB of address space.  Invariant: seg_pages[i] = number of words whose state is not
   HOLE and whose segment is i; seg[i] != NULL iff seg_pages[i] != 0. */
struct em_block {
	em_word_t word[EM_BLOCK_PAGES];
	uintptr_t base;
	struct em_region *seg[EM_SEGS];
	uint16_t seg_pages[EM_SEGS];
	uint64_t range_op;	/* the last range operation that locked its pages */
	struct em_block *next_free;
};

/* Address table entries: 0, a block, or a region tagged with EM_ENTRY_LAZY: all 512 pages
   managed and ABSENT, no descriptor yet.  A first-level entry may be tagged in the same way, for
   all of its GiB: reservations of terabytes cost little, and what is touched here and there in one makes
   tables for its surroundings alone. */
#define EM_ENTRY_LAZY 1ul

#define EM_L2_BITS 9
#define EM_L1_BITS (EM_ADDR_BITS - EM_BLOCK_SHIFT - EM_L2_BITS)
#define EM_L1_SPAN (EM_BLOCK_SIZE << EM_L2_BITS)
extern uintptr_t em_space_l1[1ul << EM_L1_BITS];

/* The value of the entry for addr, 0 also where there is no table. [any context] */
static inline uintptr_t em_space_value(uintptr_t addr)
{
	uintptr_t l1;

	if (addr >> EM_ADDR_BITS)
		return 0;
	l1 = __atomic_load_n(&em_space_l1[addr >> (EM_BLOCK_SHIFT + EM_L2_BITS)],
			     __ATOMIC_ACQUIRE);
	if (!l1 || (l1 & EM_ENTRY_LAZY))
		return l1;
	return __atomic_load_n(&((uintptr_t *)l1)[(addr >> EM_BLOCK_SHIFT) &
						  ((1ul << EM_L2_BITS) - 1)],
			       __ATOMIC_ACQUIRE);
}

/* May any of the GiB around addr have a block?  addr within EM_ADDR_BITS. */
static inline bool em_space_has_blocks(uintptr_t addr)
{
	uintptr_t l1 = __atomic_load_n(&em_space_l1[addr >> (EM_BLOCK_SHIFT + EM_L2_BITS)],
				       __ATOMIC_ACQUIRE);

	return l1 && !(l1 & EM_ENTRY_LAZY);
}

static inline bool em_entry_is_lazy(uintptr_t e)
{
	return e & EM_ENTRY_LAZY;
}

/* Quick test whether any page of [addr, addr + len) may be managed; may err towards true. [any] */
bool em_space_may_manage(uintptr_t addr, size_t len);

/* The block of a managed address, descriptor made if it was lazy; NULL: not managed (or
   no memory, then *nomem). [engine] */
struct em_block *em_space_block(uintptr_t addr, bool *nomem);
/* The word of addr, NULL if it has no descriptor. [engine] */
em_word_t *em_space_word(uintptr_t addr);

/* Makes [start, end) managed and ABSENT as part of r (HOLE pages only).  -ENOMEM. [engine, map lock] */
int em_space_add(uintptr_t start, uintptr_t end, struct em_region *r);
/* Puts one page into r: HOLE -> the given word (state, slot, tag).  [engine, map lock] */
int em_space_adopt(uintptr_t addr, em_word_t w, struct em_region *r);
/* Accounting when a LOCKED word goes to HOLE: the caller has stored it. [engine, map lock] */
void em_space_forget(struct em_block *b, uint32_t seg);
/* A whole lazy block (of 2 MiB or 1 GiB, as the walk gives them) leaves without a descriptor.
   Returns false if the entry is not lazy (any more). [engine, map lock] */
bool em_space_drop_lazy(uintptr_t base, uintptr_t end);
/* Frees descriptors and table entries of [start, end) that hold nothing. [engine, map lock] */
void em_space_trim(uintptr_t start, uintptr_t end);

struct em_region *em_region_new(uintptr_t start, uintptr_t end, enum em_region_kind kind);
/* Calls fn for every live region under the map lock held by the caller. */
extern struct em_region *em_regions;
extern uint64_t em_regions_pages; /* managed pages, all regions */
extern struct em_region_stats em_regions_closed; /* sums of retired regions */

struct em_span_visit {
	/* A run of managed pages; b NULL: lazy, part of a block, or a whole one of 2 MiB or 1 GiB. */
	void (*fn)(void *arg, uintptr_t start, uintptr_t end, struct em_block *b);
	void *arg;
};
/* Visits the blocks with managed pages in [start, end) in address order, skipping holes of the
   table fast. [engine] */
void em_space_walk(uintptr_t start, uintptr_t end, const struct em_span_visit *v);

/* ---- words (word.c) ----------------------------------------------------------- */

/* One compare-and-swap from exactly `old` (tag and waiters may differ) to state `to`;
   false if the page changed.  *old is refreshed. */
bool em_word_take(em_word_t *wp, em_word_t *old, enum em_state to);
/* Same with a new slot. */
bool em_word_take_slot(em_word_t *wp, em_word_t *old, enum em_state to, uint32_t slot);
/* The owner's release: sets state and slot, clears LOCKED and the `clear` bits, sets the `set`
   bits, keeps the tag, wakes the waiters. */
void em_word_release(em_word_t *wp, enum em_state to, uint32_t slot, em_word_t clear,
		     em_word_t set);
/* Sets LOCKED on a page in a stable state; false if it is in transit. *w: the word before. */
bool em_word_trylock(em_word_t *wp, em_word_t *w);
/* The same, waiting while somebody else owns it. */
em_word_t em_word_lock(em_word_t *wp);
/* Clears LOCKED, wakes. */
void em_word_unlock(em_word_t *wp, em_word_t set);
/* Sets or clears PINNED, whoever owns the page, and counts. */
void em_word_pin(em_word_t *wp, bool on);
/* Sleeps until the word is not `seen` in transit any more (spins first). */
void em_word_wait(em_word_t *wp, em_word_t seen);

static inline em_word_t em_word_load(const em_word_t *wp)
{
	return __atomic_load_n(wp, __ATOMIC_ACQUIRE);
}

static inline bool em_word_is_free(em_word_t w)
{
	return !(w & EM_W_LOCKED) && em_state_is_stable(em_word_state(w));
}

/* ---- threads, gate, hazards (thread.c, hazard.c) ------------------------------ */

#define EM_TOUCH_RUNS 4u
#define EM_BOUNCE_PAGES 16u
/* A thread goes through memory page by page: where it would come next, pages taken last time. */
struct em_run {
	uintptr_t next;
	uint32_t pages;
};

#define EM_HAZARDS 24
#define EM_HAZARD_CHUNK 128u /* more of them for a call with many buffers, made when it comes */
#define EM_HAZARD_CHUNKS 16u
struct em_hazard {
	uintptr_t start, end; /* page-rounded */
	uintptr_t sp;	      /* stack pointer of the call that holds it */
};

/* What another process that shares our memory wants done (proxy.c). */
typedef long (*em_proxy_fn)(const long *arg);
#define EM_PROXY_ARGS 7
struct em_proxy_request {
	uint32_t state;
	em_proxy_fn fn;
	long arg[EM_PROXY_ARGS];
	long ret;
};

/* Pages that the hooks have found readable: see src/intercept/user.c. */
#define EM_READABLE_PAGES 8u
struct em_readable {
	uintptr_t page;
	uint64_t epoch;
};

/* Unmanaged memory for one large transfer: see src/intercept/transfer.c.  sp 0: not in use. */
struct em_lent {
	char *p;
	size_t bytes;
	uintptr_t sp;
};

struct em_alt_stack {
	uintptr_t sp;
	size_t size; /* 0: none */
	int flags;
	bool disarmed; /* by SS_AUTODISARM: the handler on it has not returned */
};

struct em_thread {
	int tid;
	uint32_t used;
	/* Odd: inside an engine section.  Changes tell em_retire that it has left. */
	uint64_t section;
	unsigned depth;
	uint64_t saved_mask;	/* signals to restore when the outermost section ends */
	uint64_t own_blocked;	/* what the program believes of signals that the kernel's mask
				   does not tell about: see sigmask.c */
	bool stranger;		/* made by another process that shares our memory */
	bool in_vfork;		/* on loan to a vfork child, or was until just now */
	uint32_t vfork_mark;	/* hazards of the parent itself */
	uint32_t nhazards;
	struct em_hazard hazard[EM_HAZARDS];
	struct em_hazard *more_hazards[EM_HAZARD_CHUNKS];
	uintptr_t alt_base;	/* our alternate signal stack, 0: none */
	struct em_alt_stack alt; /* the one that the program set */
	struct em_sigdelivery *moving; /* a signal frame of the program is being written */
	bool waiting;		/* in a system call that has installed wait_mask, */
	uint64_t wait_mask;	/* as the program gave it */
	uint32_t stop;		/* a handler of the program was entered: see em_next_syscall */
	/* What the last faults say about the next: see minor.c. */
	struct em_run touch[EM_TOUCH_RUNS];
	uint32_t touch_victim;
	struct em_run upgrade;
	uint32_t rmw; /* mapping runs that will be written too, by experience */
	uintptr_t again_addr;	/* served, and faulted again: how often in a row */
	uint32_t again;
	uint64_t own_pending;	/* sent while the program had them blocked */
	uintptr_t refused_addr; /* a fault that was not ours, to tell a race from the real thing, */
	uint32_t refused;	/* and how often more in a row */
	struct extmem_stream stream;
	uint32_t stream_epoch;	/* when it last asked for pages ahead: see host.c */
	struct em_readable readable[EM_READABLE_PAGES];
	struct em_lent lent;
	struct {
		uintptr_t page;
		em_slot_t slot;
		int err; /* positive */
	} lost; /* the last page that could not be read for this thread */
	void *ring[16];		/* rings that the program has registered: see src/intercept/uring.c */
	char *bounce;		/* EM_BOUNCE_PAGES, aligned: target of demand reads */
	struct em_proxy_request proxy;
	struct em_thread *next;
};

/* The calling thread's context, made on first use; NULL only without memory. [any context] */
struct em_thread *em_thread_self(void);
void em_thread_exit(void);
/* From now on tasks may share their thread-local storage: contexts are found by thread id.  A
   context is kept ready, so that the new task need not allocate. [any context] */
void em_thread_share_storage(void);

/* Enter and leave an engine section; nests.  block_signals: false when the caller runs with all
   signals blocked already (the upcall). */
void em_enter(struct em_thread *t, bool block_signals);
void em_leave(struct em_thread *t, bool block_signals);

/* fork: stops everybody else at the gate. [engine; the caller stays inside] */
void em_gate_close(struct em_thread *t);
void em_gate_open(void);
bool em_gate_closed(void);
/* Sleeps while the gate is closed.  Not inside. */
void em_gate_wait(void);

/* Frees p after every thread now inside has left. [engine, map lock] */
void em_retire(void *p, void (*fn)(void *));
void em_retire_poll(void);

/* Start of a system call at stack pointer sp: drops what calls that never returned left
   behind, returns the mark to pop to at its end. */
uint32_t em_hazard_begin(struct em_thread *t, uintptr_t sp);
/* Declares that the kernel may access [addr, addr + len) until popped. */
void em_hazard_push(struct em_thread *t, uintptr_t addr, size_t len, uintptr_t sp);
void em_hazard_pop(struct em_thread *t, uint32_t mark);
/* Memory that the kernel uses after the call that named it: held until dropped.  The handle, 0: no memory.
   [engine] */
uint32_t em_pin_add(uintptr_t addr, size_t len);
void em_pin_drop(uint32_t handle);
/* mremap has moved pages. [engine] */
void em_pin_moved(uintptr_t old, size_t len, uintptr_t addr);
void em_pin_fork_child(void);
/* What is held now in [start, end), by anybody: one look for a whole batch.  Call after the
   compare-and-swaps that claim the batch. */
struct em_hazard_view {
	uint32_t n;
	bool overflow; /* more than fit */
	struct em_hazard h[128];
};
void em_hazard_look(struct em_hazard_view *v, uintptr_t start, uintptr_t end);
bool em_hazard_covers(const struct em_hazard_view *v, uintptr_t page_addr);
bool em_hazard_held(uintptr_t start, uintptr_t end);
/* Narrows a range to the hull of what is held in it; false: nothing. */
bool em_hazard_hull(uintptr_t *start, uintptr_t *end);
/* Lets the kernel fill what is held in a new mapping that is not registered yet. */
void em_hazard_populate(uintptr_t start, uintptr_t end);
/* Makes resident what is held in a range that has been discarded or replaced: the kernel, which comes to it in
   the midst of a call, cannot. [engine] */
void em_hazard_refill(struct em_thread *t, uintptr_t start, uintptr_t end);
void em_thread_fork_child(struct em_thread *self);
/* Visits all contexts in use. */
struct em_thread *em_thread_first(void);

/* ---- the threads of the process (tasks.c) ----------------------------------------------- */

/* Names of all in /proc/self/task; nothing without /proc. */
void em_tasks_visit(void (*visit)(const char *name, void *arg), void *arg);
/* The beginning of a file there, "/stat" for one; how many bytes, 0: it cannot be read. */
long em_tasks_read(const char *name, const char *file, char *buf, size_t len);
/* Threads that the kernel has made for io_uring.  They are listed, and the last one of a ring's owner stays.
   0 if there are not just `all` threads meanwhile. */
long em_tasks_io_workers(long all);

/* Those of the program without /proc. */

/* Is the caller the only thread of the process?  False: not, or the kernel does not say. */
bool em_tasks_alone(void);
/* From now on threads are counted; alone: there is none but the caller. */
void em_tasks_start(bool alone);
void em_tasks_made(int tid);
void em_tasks_left(int tid);
/* Those that have not left, but for the first of the process; -1: nobody knows. */
long em_tasks_count(void);
void em_tasks_fork_child(void);

/* ---- userfaultfd (uffd.c) -------------------------------------------------------- */

struct em_uffd {
	int fd;
	uint32_t features; /* enum em_feature available and not masked */
	int pidfd;
	int dev_fd; /* /dev/userfaultfd, -1 */
	int pipe[2]; /* for capture.c */
	bool pipe_sized;
};
extern struct em_uffd em_uffd;

int em_uffd_open(enum em_delivery delivery, uint32_t mask, int fd_min);
int em_uffd_reopen(enum em_delivery delivery, uint32_t mask, int fd_min); /* forked child */
int em_uffd_register(uintptr_t start, size_t len);
/* All return 0 or -errno; -EEXIST: something is mapped there already; *done pages mapped. */
int em_uffd_copy(uintptr_t dst, const void *src, uint32_t npages, bool wp, uint32_t *done);
int em_uffd_zero(uintptr_t dst, uint32_t npages, uint32_t *done);
int em_uffd_protect(uintptr_t start, size_t len, bool on);
int em_uffd_unregister(uintptr_t start, size_t len);
/* Accesses to the page raise SIGBUS from now on, where the kernel can (6.6). */
void em_uffd_poison(uintptr_t addr);
int em_uffd_move(uintptr_t dst, uintptr_t src, size_t len);
void em_uffd_wake(uintptr_t start, size_t len);
/* Unmaps runs; one shootdown where the kernel can batch.  ok[i] tells which runs are gone. */
struct iovec;
void em_uffd_drop(struct iovec *runs, uint32_t n, bool *ok);

/* ---- faults (fault.c) ------------------------------------------------------------ */

enum em_fault_result {
	EM_FAULT_DONE = 0,   /* retry the access */
	EM_FAULT_NOT_OURS,   /* no managed page there */
	EM_FAULT_FAILED,     /* the page's content is lost: SIGBUS */
	EM_FAULT_NOMEM,	     /* the kernel has no memory */
	EM_FAULT_FULL,	     /* memory is used up and the store takes nothing */
};
enum em_fault_result em_fault(struct em_thread *t, uintptr_t addr, bool write);
/* By what the engine knows an access would not fault now. [engine] */
bool em_fault_is_there(uintptr_t addr, bool write);
/* The kernel faults again and again on a page that the engine thinks is there: somebody has discarded it behind
   our back.  Puts the two in step. [engine] */
void em_fault_resync(uintptr_t addr);
/* Makes every managed page of the range resident in the direction wanted, under a hazard that the
   caller has pushed.  0, -EFAULT (failed page), -ENOMEM. [engine] */
int em_fault_range(struct em_thread *t, uintptr_t addr, size_t len, bool write);
/* The same for callers outside a section, which may be another process. */
int em_fault_in(struct em_thread *t, uintptr_t addr, size_t len, bool write);
/* em_fault for another process. */
enum em_fault_result em_fault_serve(struct em_thread *t, uintptr_t addr, bool write);

/* ---- budget and reclaim (budget.c, reclaim.c) --------------------------------------------------- */

struct em_budget {
	int64_t resident;   /* pages charged: managed resident + frame pool */
	int64_t limit;	    /* pages */
	int64_t pinned;	    /* pages whose word says PINNED */
	int64_t hard;	    /* pages; what is beyond the limit while the store takes nothing */
	int64_t low, high;  /* reserve: background reclaim starts when resident > limit - low and
			       runs until resident <= limit - high; low < high */
	uint32_t batch;	    /* pages per reclaim batch */
	uint64_t evict_clock; /* pages evicted so far, rescaled when the limit changes */
};
extern struct em_budget em_budget;

void em_budget_set(uint64_t bytes);
/* Pages that count against the limit now. */
int64_t em_budget_used(void);
/* The smallest limit that makes sense now: the engine's tables and a little room. */
int64_t em_budget_floor(void);
/* How far the program may go over its budget when the store takes nothing. */
void em_budget_set_hard(uint64_t bytes);
/* Would npages more be more than there is memory for, with a store that takes nothing?
   Then new memory is refused.  Tries to make room first. [engine] */
bool em_budget_refuses(struct em_thread *t, uint64_t npages);
void em_charge(struct em_thread *t, uint32_t npages);
void em_uncharge(uint32_t npages);
/* Should background reclaim work?  running: it does already, and goes on up to the high mark;
   leaving: pages on their way out. */
bool em_budget_tight(bool running, uint32_t leaving);
uint32_t em_evict_stamp(void);
uint32_t em_evict_distance(em_word_t w);

/* One batch at most, synchronously. Returns pages that left memory. [engine] */
uint32_t em_reclaim_inline(struct em_thread *t, uint32_t want);
/* A page that was protected only because it lay between victims has been written. [sigsafe] */
void em_protect_gap_lifted(void);
/* The same, in a thread of the engine. */
uint32_t em_reclaim_now(uint32_t want);
/* Evicts the managed, evictable pages of a range now (MADV_PAGEOUT). [engine] */
void em_reclaim_range(struct em_thread *t, uintptr_t start, uintptr_t end);

/* ---- errors of the store (ioerror.c) ----------------------------------------------------- */

/* Reads one slot after it could not be read, a few times if need be. */
int em_io_read_again(em_slot_t slot, void *buf);
/* The page is lost for now; known: it was already. [engine] */
void em_io_read_failed(struct em_thread *t, uintptr_t addr, em_slot_t slot, int err, bool known);
/* One write has failed for good; then, once a batch: pages written, pages that could not be. */
void em_io_write_failed(em_slot_t slot, int err);
void em_io_batch_written(uint32_t ok, uint32_t failed);
/* After failures nothing is written for a while. */
bool em_io_may_write(void);
/* There was no slot for a dirty victim, or, not tried, it may not be written now. */
void em_io_full(bool tried);
/* Was that so last time? */
bool em_io_blocked(void);
void em_io_say_no_memory(bool store_blocked);

/* ---- messages (say.c) [any] ---------------------------------------------------------------- */

/* A message with a raw write, then abort: memory would be wrong otherwise. */
void em_panic(const char *msg) __attribute__((noreturn));
/* Dropped when nobody takes it. */
void em_say(const char *msg);
/* Without SIGPIPE and SIGXFSZ. */
void em_write_all(int fd, const char *buf, size_t len);
/* Takes back the signal that a failed write of ours has left pending. */
void em_swallow(int sig, uint64_t pending_before);
/* At most `burst` messages in a window; *dropped: not said since the last one. */
#define EM_SAY_WINDOW_NS 10000000000ull
struct em_say_limit {
	uint64_t start_ns;
	uint32_t said, dropped;
};
bool em_say_limit(struct em_say_limit *l, uint32_t burst, uint32_t *dropped);
/* Append to a line, unterminated; return its new end. */
char *em_put_text(char *p, const char *s);
char *em_put_number(char *p, uint64_t v, unsigned base);

/* ---- policy host (host.c) ------------------------------------------------------------- */

/* Ordinary context, once: err gets a line when a plug-in refuses its arguments. */
int em_host_start(const struct extmem_policy_ops *ops, const struct extmem_prefetch_ops *pf,
		  const struct em_options *o, char *err, size_t err_len);
/* Another policy from now on; the resident pages are announced to it.  0, or -errno with a line in err: then
   nothing has changed.  ops->init runs here, so it must not use libc. [engine] */
int em_host_switch(const struct extmem_policy_ops *ops, const char *args, char *err,
		   size_t err_len);
void em_event(uintptr_t addr, enum extmem_event_kind kind, uint32_t info);
size_t em_host_victims(size_t want, extmem_page_t *out);
/* Asks the prefetcher, at most EM_PREFETCH_RANGES ranges into out.  hit: as struct extmem_fault. [engine] */
#define EM_PREFETCH_RANGES 32u
size_t em_host_prefetch(struct em_thread *t, const struct em_region *r, uintptr_t addr,
			uint32_t npages, bool write, bool hit, struct extmem_range *out);
/* Hands the n ranges to the service. [engine] */
void em_host_prefetch_queue(const struct extmem_range *range, size_t n);
/* Threads that asked for pages ahead lately. */
uint32_t em_host_readers(void);
void em_host_wasted(uintptr_t addr, uint32_t npages);
/* What a fault has read, for the prefetcher to look at: a copy. [engine] */
void em_host_content(struct em_thread *t, uintptr_t addr, const void *content, uint32_t npages);
void em_host_tick(uint64_t now_ns);
const char *em_host_policy_name(void);
const char *em_host_prefetch_name(void);

/* ---- frames and prefetch (stage.c) ---------------------------------------------------- */

#define EM_CHUNK_FRAMES 32u
#define EM_CHUNK_IOS 8u
struct em_chunk {
	char *frame;			/* EM_CHUNK_FRAMES pages */
	uintptr_t base;			/* address of the page in frame 0 */
	uint32_t n;
	uint32_t left;			/* frames not given back yet; 0: free */
	uint32_t nio, io_left;
	uint64_t age, tick, evicted;	/* when it was started: in chunks, ticks, evictions */
	em_slot_t slot[EM_CHUNK_FRAMES];
	em_word_t *word[EM_CHUNK_FRAMES]; /* words of one block */
	struct iovec iov[EM_CHUNK_IOS];
	struct em_io io[EM_CHUNK_IOS];
};
int em_stage_init(uint32_t budget_pages);
/* Pages that one of so many threads may have on their way. */
uint32_t em_stage_window_max(uint32_t readers);
/* The budget has changed / staged pages are to go back to the store: the service does it. */
void em_stage_set_budget(uint64_t budget_pages);
void em_stage_flush(void);
/* Memory of the stage in pages. */
uint32_t em_stage_pages(void);
/* Service: gives memory back as far as the two ask for it. */
void em_stage_settle(void);
/* Service, ten times a second: memory that nobody needs. */
void em_stage_tick(void);
/* Frame index <-> chunk. */
struct em_chunk *em_stage_chunk(uint32_t frame);
static inline uint32_t em_stage_pos(uint32_t frame)
{
	return frame % EM_CHUNK_FRAMES;
}
uint32_t em_stage_frame(const struct em_chunk *c, uint32_t pos);
/* Gives back n frames of a chunk. [engine, owner of those pages] */
void em_stage_put(struct em_chunk *c, uint32_t n);
/* Service: starts a chunk with [first, first + n) as far as it is SWAPPED; *chunk gets the reads to submit.
   Returns pages consumed from the range (0: no frame free). */
uint32_t em_stage_start(extmem_page_t first, uint32_t n, struct em_chunk **chunk);
/* Adds what follows near by, before the reads are submitted.  Pages consumed, 0: it has no place there. */
uint32_t em_stage_add(struct em_chunk *c, extmem_page_t first, uint32_t n);
void em_stage_finish(struct em_chunk *c);
/* The slot of a STAGED page: of the stage, or on standby. [owner of the page] */
em_slot_t em_frame_slot(uint32_t frame);
/* A STAGED page (LOCKED by the caller, word w) gives its frame back; its slot in *slot. */
void em_stage_discard(em_word_t w, em_slot_t *slot);

/* ---- service thread (service.c) --------------------------------------------------------- */

void em_service_kick(void);
/* Queues a range for prefetching; drops it when the queue is full. */
void em_service_prefetch(extmem_page_t first, uint32_t npages);
/* Queues single pages to be brought in and mapped; drops those that the queue has no room for. */
void em_service_fetch(const extmem_page_t *page, size_t n);
void em_service_fork_child(void);
/* Ends the thread; it starts again when it is needed.  Not inside. */
void em_service_stop(void);
bool em_service_running(void);
size_t em_service_fds(int *fds, size_t max);

/* ---- raw threads (rawthread.c) ------------------------------------------------------------ */

/* Starts a thread that runs fn(arg) in the engine's own environment: all signals blocked,
   private stack and thread-local block, unknown to libc.  0 or -errno. */
int em_rawthread_start(void (*fn)(void *), void *arg);
/* The same in memory that the next thread can use after em_rawthread_join. */
struct em_rawthread {
	char *mem;
	uint32_t alive; /* futex, cleared by the kernel */
	int tid;
};
int em_rawthread_start_in(struct em_rawthread *rt, void (*fn)(void *), void *arg);
void em_rawthread_join(struct em_rawthread *rt);
extern int32_t em_rawthread_count; /* such threads in this process */

/* ---- other processes in our memory (proxy.c) ---------------------------------------------- */

/* Before a process that shares our memory is made.  strangers: other than vfork children. */
void em_proxy_start(bool strangers);
/* Is the caller such a process?  t: its context, perhaps on loan. */
bool em_proxy_is_stranger(const struct em_thread *t);
/* fn(arg), done by a thread of our own if the caller is such a process.  EM_PROXY_ARGS arguments, none of
   them a pointer to memory that may go away. [not in a section] */
long em_proxy_call(struct em_thread *t, em_proxy_fn fn, const long *arg);
void em_proxy_fork_child(void);

/* ---- delivery --------------------------------------------------------------------------------- */

int em_upcall_install(bool restart);		     /* upcall.c; calls that a SIGBUS interrupts */
void em_upcall_thread_start(struct em_thread *t);    /* alternate stack */
void em_upcall_thread_prepare(struct em_thread *t);  /* memory for it */
int em_handlers_start(unsigned n);		     /* handlers.c */

/* ---- range operations: what the system-call hooks call ----------------------------------------- */
/* Arguments and results as of the system calls.  Ordinary hook context, not in a section. */

/* How often memory has become managed: a call that slept meanwhile may have slept over that. */
extern uint64_t em_range_adopted;
long em_range_mmap(uintptr_t addr, size_t len, int prot, int flags, int fd, int64_t off);
long em_range_munmap(uintptr_t addr, size_t len);
long em_range_brk(uintptr_t addr);
long em_range_mremap(uintptr_t old, size_t old_len, size_t new_len, int flags, uintptr_t addr);
long em_range_madvise(uintptr_t addr, size_t len, int advice);
long em_range_process_madvise(const long *arg);
/* Brings the range in and keeps it for good. 0 or -errno. */
int em_range_pin(uintptr_t addr, size_t len);
/* Out of management, for good; content is brought in.  0; -ENOMEM: more content than three quarters of the
   budget; -EFAULT: some of it is lost. */
int em_range_release(uintptr_t start, uintptr_t end);
/* For a fault where nothing was managed: waits until the range operation that may be under way is over; is
   the address managed then?  False too where t cannot wait. [upcall, outside a section] */
bool em_range_settles(const struct em_thread *t, uintptr_t addr);
long em_range_mlock(long nr, uintptr_t addr, size_t len, long flags);
long em_range_munlockall(void);

/* ---- clocks (clock.c) [any] ------------------------------------------------------------------- */

void em_clock_start(void);
uint64_t em_now_ns(void);
uint64_t em_cycles(void);
uint64_t em_cycles_to_ns(uint64_t cycles);
/* The program is about to forbid reading the cycle counter. */
void em_clock_leave_counter(void);

/* ---- life cycle (engine.c) ---------------------------------------------------------------------- */

struct em_error_hook {
	extmem_error_fn fn;
	void *arg;
};

struct em_engine {
	struct em_options opt;
	const struct em_error_hook *error_hook;
	struct em_store *store;
	int pid;
	int fd_min;
	bool active;
	uint64_t min_map;
	bool lock_future;	/* mlockall(MCL_FUTURE): new mappings are not managed */
	bool plain;		/* a forked child without userfaultfd: nothing is managed */
};
extern struct em_engine em_engine;

/* fork, clone without CLONE_VM: executes the system call and makes the child whole. */
long em_fork(long nr, const long *arg);
/* maps.c: the mapping that covers addr, or the next one above it; false: none, or /proc cannot be read. [any] */
struct em_mapping {
	uintptr_t start, end;
	bool private_anonymous, accessible;
};
bool em_maps_find(uintptr_t addr, struct em_mapping *m);
bool em_maps_private_anonymous(uintptr_t addr);
/* May anybody touch a part of [start, end)?  True where that cannot be known. */
bool em_maps_accessible(uintptr_t start, uintptr_t end);
/* A message with a raw write, then abort: memory would be wrong otherwise. */
bool em_engine_owns_fd(int fd);
size_t em_engine_fds(int *fds, size_t max);
/* At exit; last: no other report shall follow. */
void em_stats_write_file(bool last);
/* When a signal is about to end the process.  Gives up when a stalled store holds everything up: a signal
   that kills shall kill. */
void em_stats_write_dying(void);

#endif
