/* SPDX-License-Identifier: MIT */
/*
 * Inside the store layer.
 *
 *   open.c       em_store_check, em_store_open, em_store_close      ordinary context
 *   target.c     what the swap path is, and what is refused         ordinary context
 *   lockfile.c   where the locks of a tree of processes are         ordinary context
 *   probe.c      what is on a block device or file already          ordinary context
 *   inject_parse.c  EXTMEM_INJECT                                   ordinary context
 *   file.c       descriptors, synchronous transfers                 [sigsafe]
 *   inject.c     faults on purpose                                  [sigsafe]
 *   slots.c      slots of this process                              [sigsafe]
 *   slots_fork.c slots that children may refer to                   [sigsafe]
 *   share.c      extents among forked processes, fork protocol      [sigsafe]
 *   ioq.c        queue: entry points and the plain queue            [sigsafe]
 *   ioq_uring.c  queue on io_uring                                  [sigsafe]
 *   spin.c       reads waited for by looking                        [sigsafe]
 */
#ifndef EM_STORE_INTERNAL_H
#define EM_STORE_INTERNAL_H

#include <limits.h>

#include "../core/lock.h"
#include "../core/sys.h"
#include "store.h"

/* First bytes of slot 0 of a named file or device: marks it as a swap area of ours, whose
   content nobody needs once its user is gone. */
#define EM_STORE_MAGIC "EXTMEM-SWAP-AREA\001\n"
#define EM_STORE_MAGIC_LEN 18

/* Byte of the data file that the one user of a named file holds an OFD write lock on. */
#define EM_LOCK_STORE (INT64_MAX - 1)

#define EM_STORE_MAX_SLOTS (1ull << 32)
#define EM_STORE_MIN_BYTES (64u << 10)
#define EM_EXTENT_WORDS (EM_EXTENT_SLOTS / 64)
#define EM_RUN_MAX 1024u
#define EM_IOV_MAX 1024 /* UIO_MAXIOV */
#define EM_PROC_MAX 32768u

/*
 * Test hooks.  before: called before each transfer; 0: go on; -errno: the transfer fails
 * with that; > 0: this call to the kernel moves at most so many bytes (a short transfer).
 * held (may be NULL): must a transfer that was asked for at since_ns still wait?
 */
struct em_store_inject {
	int (*before)(bool write, em_slot_t slot, uint32_t n);
	bool (*held)(bool write, em_slot_t slot, uint32_t n, uint64_t since_ns);
};

/*
 * MAP_SHARED among a tree of forked processes.  owner[e] is 0 for a free extent, else the
 * process index of its owner plus 1; changed by compare-and-swap only, from 0 to mine, from
 * mine to 0, or from a dead owner's to 0 while holding the write lock of that owner's byte.
 */
struct em_shared {
	uint32_t high;	    /* extents ever taken: all at or above are free and not in the file */
	uint32_t next_proc; /* where to look for a free process index */
	uint32_t forked;    /* somebody forked: there may be dead to reclaim from */
	uint32_t maybe_free; /* an extent below high may be free; 0: do not look */
	uint32_t gen[EM_PROC_MAX]; /* bumped when an index is taken */
	uint32_t owner[];
};

/* A child that may still refer to slots of ours: all that we gave out before fork `number`. */
struct em_child {
	uint16_t number;
	uint32_t proc, gen;
};

/* Slots freed while a child may still refer to them. */
struct em_deferred {
	uint64_t bits[EM_EXTENT_WORDS];
	uint16_t when[EM_EXTENT_SLOTS]; /* fork count at the free */
	uint32_t n;
};

/* An extent of ours.  free: bit set = free.  Invariant: nfree = popcount(free). */
struct em_extent {
	uint64_t free[EM_EXTENT_WORDS];
	uint16_t *born; /* fork count when the slot was given out; NULL: all 0 */
	struct em_deferred *deferred;
	uint32_t number; /* slots from number * EM_EXTENT_SLOTS on */
	uint32_t index;	 /* in em_slots.own */
};

#define EM_DIR_LEAF 1024u

/* Private to the process; all under lock. */
struct em_slots {
	struct em_mutex lock;
	struct em_extent **dir[EM_STORE_MAX_SLOTS / EM_EXTENT_SLOTS / EM_DIR_LEAF];
	struct em_extent **own; /* own extents, unordered; the next two arrays run parallel */
	uint16_t *nfree;
	uint16_t *longest; /* no run of free slots is longer (at least, if below 64) */
	uint32_t nown, own_cap;
	uint32_t cur, pos; /* next fit: index in own, bit */
	uint64_t used;	   /* given out and not freed */
	uint64_t ndeferred; /* freed and not free yet */
	uint64_t total_free;
	uint32_t dry;	/* no run of so many free slots, or more, in any own extent */
	uint32_t frees; /* since the last sweep */
	uint64_t take_failed_ns; /* when there was last no extent to be had; 0: there was */
	int take_error;

	uint16_t forks; /* children forked, renumbered before it overflows */
	struct em_child *children; /* ascending by number */
	uint32_t nchildren, children_cap;
};

#define EM_SPINNERS 8

/* A ring for a thread that looks; busy: somebody's. */
struct em_spinner {
	uint32_t busy;
	uint32_t turn; /* counts its reads */
	struct em_ioq *q;
};

struct em_spin {
	uint32_t most;	  /* threads that may look at once; 0: nobody */
	uint32_t readers; /* threads in em_store_read_now */
	uint32_t sleeps;  /* reads to sleep through, because looking did not pay */
	uint32_t penalty; /* so many the next time */
	uint64_t limit_ns;
	struct em_spinner s[EM_SPINNERS];
};

struct em_store {
	int fd;	     /* data */
	int lock_fd; /* own description of the lock file: read locks on our byte and all ancestors' */
	int lock_dir; /* O_PATH of /proc or /dev, for fresh descriptions of the lock file; -1 */
	int spare_fd; /* keeps a number free for child_fd when the program has used up its own; -1 */
	int child_fd; /* between fork_prepare and fork_parent/child: the child's lock_fd; -1 */
	uint64_t lock_base; /* byte of process 0 in the lock file; not 0: that is /dev/null */
	int fd_min;
	bool direct, device, no_uring;
	char name[256]; /* for messages */
	/* Sections that use fd count themselves in users[phase]; em_store_move_fd waits for them. */
	uint32_t phase, users[2];
	uint32_t limit_extents;
	uint64_t limit_slots; /* with slot 0 */
	bool limit_known;

	struct em_shared *shared;
	size_t shared_bytes;
	uint32_t proc, child_proc, child_gen;
	uint32_t *ancestors; /* their process indices */
	uint32_t nancestors, ancestors_cap;
	uint64_t *probed; /* scratch of reclaim_dead: a bit per process index */

	struct em_spin spin;
	struct em_slots slots;
	const struct em_store_inject *inject;
};

/* file.c */
/* Moves fd to the lowest free number >= min, or as high as limits allow; closes the old one. */
int em_fd_raise(int fd, int min);
/* Brackets around uses of st->fd: the number returned stays ours until the exit. */
int em_store_fd_enter(struct em_store *st, uint32_t *phase);
void em_store_fd_exit(struct em_store *st, uint32_t phase);
/* Part of iov that starts `skip` bytes in, at most `max` bytes and `cap` elements. */
int em_iov_cut(const struct iovec *iov, int cnt, uint64_t skip, uint64_t max, struct iovec *out,
	       int cap);
uint64_t em_iov_bytes(const struct iovec *iov, int cnt);
/* The transfer from byte `done` of the request on; finishes it. */
int em_store_transfer(struct em_store *st, bool write, em_slot_t slot, const struct iovec *iov,
		      int cnt, uint64_t done);
/* 0, or -EFBIG if a write up to byte `end` would raise SIGXFSZ. */
int em_store_check_fsize(const struct em_store *st, uint64_t end);
void em_store_drop_sigxfsz(long result);
/* Inject hook: 0, -errno, or > 0 with the byte limit. */
static inline int em_store_injected(const struct em_store *st, bool write, em_slot_t slot,
				    uint32_t n)
{
	return __builtin_expect(st->inject != NULL, 0) ? st->inject->before(write, slot, n) : 0;
}

static inline bool em_store_held(const struct em_store *st, bool write, em_slot_t slot,
				 uint32_t n, uint64_t since_ns)
{
	return __builtin_expect(st->inject != NULL, 0) && st->inject->held &&
	       st->inject->held(write, slot, n, since_ns);
}
/* Sleeps as long as the hook wants; 1 ms at a time. */
void em_store_wait_held(const struct em_store *st, bool write, em_slot_t slot, uint32_t n);
void em_store_pause_1ms(void);

uint64_t em_store_now_ns(void);

/* lockfile.c */
struct em_lockfile {
	int fd, dir_fd; /* dir_fd -1: it cannot be opened again */
	uint64_t base;
};
/* 0 or -errno.  Ordinary context. */
int em_lockfile_open(bool no_memfd, struct em_lockfile *lf);
void em_lockfile_close(struct em_lockfile *lf);

/* share.c */
int em_share_init(struct em_store *st);
/* A descriptor that fork may give up when there is none left. */
void em_share_take_spare(struct em_store *st);
void em_share_exit(struct em_store *st);
/* Takes an extent for this process and makes the file large enough: its number or -errno. */
long em_share_take(struct em_store *st);
void em_share_give(struct em_store *st, uint32_t extent);
bool em_share_child_alive(struct em_store *st, const struct em_child *c);

/* slots_fork.c */
/* Room for one more child and fork number, so that em_slots_forked cannot fail. */
int em_slots_prepare_fork(struct em_store *st);
void em_slots_forked(struct em_store *st, uint32_t proc, uint32_t gen);
/* slots.c: forgets everything (child after fork, close). */
void em_slots_reset(struct em_store *st);

/* probe.c: name of what is found on fd (EM_PROBE_DATA: no signature, but not zeros either), NULL
   if nothing or our own swap area (then *ours).  Ordinary context. */
#define EM_PROBE_DATA "other data"
const char *em_probe_content(int fd, uint64_t size, char *buf, size_t buf_len, bool *ours);

/* spin.c */
void em_spin_init(struct em_store *st, unsigned limit_us);
void em_spin_close(struct em_store *st);
size_t em_spin_fds(const struct em_store *st, int *fds, size_t max);
int em_spin_move_fd(struct em_store *st, int old, int fd_min);
void em_spin_fork_child(struct em_store *st);

/* ioq */
struct em_uring;

struct em_ioq {
	struct em_store *st;
	unsigned depth, inflight;
	struct em_io *done, **done_tail;
	struct em_io *held; /* injected delays: not given to the ring yet */
	struct em_uring *ring; /* NULL: plain */
};

static inline void em_ioq_done(struct em_ioq *q, struct em_io *io, int result)
{
	io->result = result;
	io->next = NULL;
	*q->done_tail = io;
	q->done_tail = &io->next;
}

int em_uring_create(struct em_ioq *q, int fd_min);
void em_uring_destroy(struct em_ioq *q);
int *em_uring_fd(struct em_ioq *q);
/* Takes io in; cannot fail.  limit: bytes of the first transfer, 0: all, -errno: injected. */
void em_uring_submit(struct em_ioq *q, struct em_io *io, int limit);
int em_uring_flush(struct em_ioq *q);
bool em_uring_ready(const struct em_ioq *q);
void em_uring_reap(struct em_ioq *q, unsigned wait_us);

#endif
