/* SPDX-License-Identifier: MIT */
/*
 * Torture test of managed memory: every word that the threads write has a copy in
 * memory that the engine does not manage, and every read is compared with it.
 *
 * The copy lives in private mappings of a memfd ("outside"): a file mapping is passed
 * through by the engine, and being private it is copied on fork like the memory it
 * describes, so that a forked child has an exact copy of its own.
 *
 * Who may touch what:
 *   arena    regions of one thread, touched by that thread alone: exact at any time
 *   shared   regions touched by all, each with a rule that makes it verifiable
 *   world    a read-write lock: held shared for each operation, exclusively by whoever
 *            needs the other threads to stand still (exact fork, sbrk, sum of counters)
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PG 4096ul
#define WORDS 512u
#define HIST 12u
#define MIN_REGION_PAGES 257u /* just over the 1 MiB from which memory is managed */
#define NREG 3 /* two regions by mmap; thread 0 has one by sbrk besides */
#define MAX_THREADS 64
#define NBLOCKS 48

enum op_class {
	OP_RW = 1 << 0,
	OP_MAP = 1 << 1,
	OP_REMAP = 1 << 2,
	OP_PROT = 1 << 3,
	OP_ADVISE = 1 << 4,
	OP_FORK = 1 << 5,
	OP_BRK = 1 << 6,
	OP_MALLOC = 1 << 7,
	OP_SYS = 1 << 8,
	OP_COUNT = 1 << 9,
	OP_FIRST = 1 << 10,
	OP_SEQ = 1 << 11,
	OP_ALL = (1 << 12) - 1
};

/* Order matters: from PG_RO on a page can be read. */
enum page_state { PG_HOLE = 0, PG_NONE, PG_RO, PG_RW };

struct hist {
	uint64_t op_nr;
	const char *what;
	uint64_t info;
};

struct page_meta {
	uint8_t state;
	uint8_t freed; /* MADV_FREE: old content or zeros, until written again */
	uint32_t hist_next;
	struct hist hist[HIST];
};

struct region {
	char *base;
	size_t npages, cap;
	bool is_brk;
	uint64_t *words; /* the copy: WORDS for each page */
	struct page_meta *meta;
};

struct block {
	uint64_t *p;
	size_t words;
	uint64_t key;
};

struct thread {
	unsigned id;
	pthread_t tid;
	uint64_t rng;
	uint64_t ops;
	const char *now; /* what it is doing, for the watchdog */
	uint64_t unsettled; /* odd while mappings or whole buffers change */
	pid_t child;
	bool child_exact;
	int pipe[2], sock[2], dgram[2], file;
	struct region reg[NREG];
	struct block block[NBLOCKS];
};

struct config {
	uint64_t seed;
	unsigned threads;
	unsigned seconds;
	uint64_t bytes;
	uint64_t max_ops; /* per thread; 0: until the time is over */
	uint64_t verify_every;
	unsigned ops;
	unsigned stall_seconds;
	bool timer;
	bool quiet;
};

extern struct config cfg;
extern struct thread *threads;
extern pthread_rwlock_t world;
extern int in_child; /* depth of fork */

/* shadow.c */
void *outside_alloc(size_t bytes);
void outside_free(void *p, size_t bytes);
uint64_t rnd(struct thread *t);
uint64_t rnd_below(struct thread *t, uint64_t n);
uint64_t mix64(uint64_t x);
uint64_t make_word(struct thread *t);
bool word_valid(unsigned owner, uint64_t w);
void note(struct thread *t, struct region *r, size_t page, size_t n, const char *what,
	  uint64_t info);
void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *fmt, ...);
void __attribute__((noreturn)) fail_page(struct thread *t, struct region *r, size_t page,
					 const char *where);
void page_check(struct thread *t, struct region *r, size_t page, const char *where);
void page_settle(struct thread *t, struct region *r, size_t page);
void region_check(struct thread *t, struct region *r, const char *where);
void arena_check(struct thread *t, const char *where);
void arena_check_loosely(struct thread *t, uint64_t unsettled_before_fork);
static inline uint64_t *region_page(struct region *r, size_t page)
{
	return (uint64_t *)(r->base + page * PG);
}
static inline uint64_t *shadow_page(struct region *r, size_t page)
{
	return r->words + page * WORDS;
}

/* arena.c: operations on a thread's own regions */
void arena_init(struct thread *t);
bool pick_run(struct thread *t, struct region *r, enum page_state at_least, bool same, size_t max,
	      size_t *page, size_t *n);
size_t pick_len(struct thread *t, struct region *r);
struct region *pick_region(struct thread *t);
void write_page(struct thread *t, struct region *r, size_t page, unsigned words);
void op_rw(struct thread *t);
void op_map(struct thread *t);
void op_prot(struct thread *t);
void op_advise(struct thread *t);
/* remap.c */
void op_remap(struct thread *t);
/* heap.c */
void op_brk(struct thread *t);
void op_malloc(struct thread *t);
void blocks_check(struct thread *t);
/* sysops.c */
void sys_open(struct thread *t);
void op_sys(struct thread *t);
/* shared.c: regions that all threads share */
void shared_init(void);
void op_count(struct thread *t);
void op_first(struct thread *t);
void op_seq(struct thread *t);
void shared_check_exact(void);
void shared_check_loosely(struct thread *t);
void shared_tick_sigsafe(void); /* from the timer's handler */
void shared_tick_check(void);
/* forks.c */
void op_fork(struct thread *t);
void fork_reap(struct thread *t);
/* torture.c */
void arena_step(struct thread *t);

#endif
