/* SPDX-License-Identifier: MIT */
/*
 * Stores: where pages go when they leave memory.
 *
 * A store is an array of slots of one page each.  Three layers:
 *   backend  (struct em_store_ops)   synchronous reads and gathered writes of slots
 *   slots    (em_slots_*)            which slots are free, across a tree of forked processes
 *   queue    (struct em_ioq)         asynchronous requests of ONE thread, io_uring or plain
 *
 * Context: open/create/validate functions run before the program starts and may
 * use libc.  Everything marked [sigsafe] runs in the upcall: raw system calls only.
 */
#ifndef EM_STORE_STORE_H
#define EM_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define EM_SLOT_SIZE 4096u
#define EM_SLOT_NONE 0u /* slot 0 is never given out */

typedef uint32_t em_slot_t; /* 2^32 slots of 4 KiB: 16 TiB */

struct em_store;

struct em_store_config {
	const char *path;    /* directory, file or block device; NULL: TMPDIR or /var/tmp */
	uint64_t size_bytes; /* upper bound; 0: for a file as large as the disk lets it grow
				(cap 16 TiB), for a device its size */
	bool force;	     /* allow a block device that seems to be in use, and a named file
				that holds something other than a swap area of ours */
	bool no_uring;	     /* do not try io_uring (EXTMEM_MASK=uring) */
	unsigned spin_us;    /* em_store_read_now looks so long before it sleeps; 0: never looks */
	bool no_memfd;	     /* do not try memfd_create (EXTMEM_MASK=memfd) */
};

/*
 * Checks a configuration without opening anything for good: what `extmem run`
 * calls before exec.  0, or -errno with one line for people in err ("swap path
 * /x: not writable: Permission denied; choose another with --swap").
 */
int em_store_check(const struct em_store_config *cfg, char *err, size_t err_len);

/* Where forked processes have their locks: a memory file, or /dev/null where there is no memfd_create or
   no /proc; NO_FORK: neither can be had, and fork fails; NONE: nothing works. */
enum em_store_locks { EM_LOCKS_MEMORY, EM_LOCKS_NULL, EM_LOCKS_NO_FORK, EM_LOCKS_NONE };
enum em_store_locks em_store_check_locks(bool no_memfd);

/*
 * Opens the store.  A directory gets an unlinked file of mode 0600 (O_TMPFILE,
 * else create and unlink); a named file is created 0600 if missing, used and left
 * in place (a second user of the same file is refused: OFD write lock on the
 * whole-file byte EM_LOCK_STORE); a block device is opened O_EXCL and
 * refused without force if blkid-style probing finds a file system, RAID, swap or
 * partition-table signature.  O_DIRECT where the file system has it, else buffered.
 * File descriptors are moved high (fcntl F_DUPFD_CLOEXEC with fd_min).
 * Ownership: caller closes with em_store_close (which does not remove a named file).
 */
int em_store_open(const struct em_store_config *cfg, int fd_min, struct em_store **out, char *err,
		  size_t err_len);
void em_store_close(struct em_store *st);

/* The path it was opened by, cut if it is long. [sigsafe] */
const char *em_store_name(const struct em_store *st);

/* The descriptors the store uses now, for protection against the program's close().
   Writes at most max, returns how many. [sigsafe] */
size_t em_store_fds(const struct em_store *st, int *fds, size_t max);

/* Moves descriptor `old` (one of em_store_fds) to a new number because the program
   wants that number (dup2).  0 or -errno. [sigsafe] */
int em_store_move_fd(struct em_store *st, int old, int fd_min);

/* n consecutive slots from `slot` on, to or from a page-aligned buffer.  Loops over
   short transfers and EINTR; retries EAGAIN; a short read at end of file or any other failure is
   -EIO or the kernel's error, never zeros.  0 or -errno. [sigsafe] */
int em_store_read(struct em_store *st, em_slot_t slot, void *buf, size_t n);
/* The same for a thread that can do nothing else until the pages are there: while a processor would be
   idle otherwise it does not sleep, which saves the way back from idle. [sigsafe] */
int em_store_read_now(struct em_store *st, em_slot_t slot, void *buf, size_t n);
/* From now on such reads are plain ones, which take one system call that a program's own filter is more
   likely to allow. [sigsafe] */
void em_store_stop_looking(struct em_store *st);
/* Scatter/gather over iov (each element a multiple of the page size, page aligned);
   total pages = consecutive slots.  [sigsafe] */
int em_store_readv(struct em_store *st, em_slot_t slot, const struct iovec *iov, int iovcnt);
int em_store_writev(struct em_store *st, em_slot_t slot, const struct iovec *iov, int iovcnt);

/* ---- slots ------------------------------------------------------------------ */
/*
 * Shared by a tree of forked processes without any clean-up by the dead:
 *
 * The store's slots are divided into extents (EM_EXTENT_SLOTS).  A MAP_SHARED
 * table names the owner of each extent: a process index.  A process takes whole
 * extents and gives out their slots from private bitmaps.  Each process index has
 * an OFD lock on its own byte of a lock file, held through a descriptor that fork
 * hands on and exec closes: as long as anybody lives who may refer to slots of
 * that process, the lock is held.  An extent whose owner's lock is free is free.
 *
 * Within one process a slot that was given out before fork number f and is freed
 * after it stays reserved until child f (and whoever inherited from it) is gone:
 * em_slots_free puts it on a deferred list that em_slots_alloc looks through when
 * slots run short (and about every EM_EXTENT_SLOTS frees).
 */
#define EM_EXTENT_SLOTS 4096u

/* Up to `want` consecutive free slots; the longest run at hand, at least 1.
   Next-fit, so that successive calls give ascending slots.  Returns the number, 0
   when the store is full (or its file cannot grow), first slot in *first.
   Thread-safe: takes the slot lock (futex). [sigsafe] */
uint32_t em_slots_alloc(struct em_store *st, uint32_t want, em_slot_t *first);

/* Why there was no slot: -ENOSPC, -EFBIG (RLIMIT_FSIZE), -EDQUOT, ... [sigsafe] */
int em_slots_error(const struct em_store *st);

/* Gives one slot back. Slots that belong to an ancestor are only forgotten. [sigsafe] */
void em_slots_free(struct em_store *st, em_slot_t slot);

/* Slots in use by this process, and the most it could ever have (0: unknown). [sigsafe] */
uint64_t em_slots_used(const struct em_store *st);
uint64_t em_slots_limit(const struct em_store *st);

/*
 * fork protocol.  The engine is quiescent: no other thread is in the store and no
 * request is in flight.
 *   em_store_fork_prepare  before the fork, in the parent: reserves the child's
 *                          process index and opens its lock descriptor. -errno if it cannot.
 *   em_store_fork_parent   after it, in the parent; child < 0: the fork failed.
 *                          Closes the parent's copy of the child's lock descriptor.
 *   em_store_fork_child    in the child: from now on it owns no extent yet, all
 *                          slots it knows are inherited (em_slots_free forgets them).
 * [sigsafe]
 */
int em_store_fork_prepare(struct em_store *st);
void em_store_fork_parent(struct em_store *st, long child);
int em_store_fork_child(struct em_store *st);

/* ---- asynchronous queue ------------------------------------------------------- */
/* One per service thread, used by one thread at a time. */
struct em_ioq;

struct em_io {
	bool write;
	bool fetch;	   /* the caller's: see fetch.h */
	em_slot_t slot;	   /* consecutive slots from here */
	struct iovec *iov; /* owned by the caller until completion */
	int iovcnt;
	uint32_t npages;
	int result; /* set at completion: 0 or -errno (short transfers are finished by the queue) */
	void *cookie;
	struct em_io *next; /* queue's own */
	uint64_t since_ns;  /* queue's own */
};

/* depth: most requests in flight.  Falls back to the plain queue, which executes at
   em_ioq_submit.  Called from the service thread; memory from em_meta_alloc. [sigsafe] */
int em_ioq_create(struct em_store *st, unsigned depth, int fd_min, struct em_ioq **out);
void em_ioq_destroy(struct em_ioq *q);
bool em_ioq_is_uring(const struct em_ioq *q);
size_t em_ioq_fds(const struct em_ioq *q, int *fds, size_t max);
/* As em_store_move_fd, for one of em_ioq_fds; from any thread. */
int em_ioq_move_fd(struct em_ioq *q, int old, int fd_min);
unsigned em_ioq_inflight(const struct em_ioq *q);
/* -EAGAIN when depth requests are in flight already. */
int em_ioq_submit(struct em_ioq *q, struct em_io *io);
/* Hands what was submitted to the kernel in one call (submit only queues). */
int em_ioq_flush(struct em_ioq *q);
/* Completed requests as a linked list through ->next, NULL if none.  wait_us: 0 do not
   wait, else wait at most so long for the first. */
struct em_io *em_ioq_reap(struct em_ioq *q, unsigned wait_us);
/* Is there something to collect?  Looks at memory only. */
bool em_ioq_ready(const struct em_ioq *q);
/* In a forked child: forget the parent's ring (unmap, close) without touching it. */
void em_ioq_abandon(struct em_ioq *q);

#endif
