/* SPDX-License-Identifier: MIT */
/*
 * The page word: all that the engine knows of one page, in one atomic 64-bit word.
 *
 *   63..32  slot      the page's place in the store (EM_SLOT_NONE: none);
 *                     in STAGED: index of the frame that holds the content (stage or standby)
 *   31..24  tag       the eviction policy's eight bits
 *   23..12  stamp     coarse eviction clock at the time the page went out
 *   11..8   segment   index of the page's region in its block's segment table
 *        7  MAYBE_WP  DIRTY only: may be mapped write-protected, because it lay between
 *                     victims that were protected with one ioctl
 *        6  PINNED    locked in memory by the program (mlock)
 *        5  LOCKED    a range operation (munmap, mremap, madvise, fork ...) owns the page
 *        4  WAITERS   somebody sleeps on the low half of this word (futex)
 *    3..0  state
 *
 * Protection.  A page that is mapped write-protected is CLEAN, WRITEBACK, DROPPING, DIRTY with
 * MAYBE_WP, or LOCKED: reclaim locks every page of a span before it protects the span
 * (victims as WRITEBACK|LOCKED, the others in their state), so that no fault can steal
 * a page between the decision and the ioctl.  The other way round, a write fault owns the page
 * (UPGRADE) until its protection is really lifted.
 *
 * Ownership.  In a stable state (and not LOCKED) nobody owns the page; taking it
 * is a compare-and-swap.  In a transit state exactly one thread, the one whose
 * compare-and-swap set it, owns the page and is the only one to change it,
 * except where the table says "steal".  Whoever finds a page in transit or
 * LOCKED waits on the word; there is no other lock on the fault path.
 *
 *   state      mapped  slot   stable  meaning
 *   HOLE       -       -      yes     not managed
 *   ABSENT     no      none   yes     never touched, or discarded: reads as zeros
 *   FILLING    no      any    -       content is on its way: zeros, demand read, prefetch read
 *   STAGED     no      frame  yes     prefetched, or evicted and on standby: content is in a frame
 *   CLEAN      wp      yes    yes     mapped write-protected, slot holds the same bytes
 *   DIRTY      yes     none   yes     mapped writable (see MAYBE_WP), no copy elsewhere
 *   UPGRADE    yes     any    -       a write fault is lifting the write protection
 *   WRITEBACK  wp      yes    steal   being written to its slot; a write fault may steal it
 *   LIFTING    no      any    -       not in the address space, content in a private frame, being
 *                                     written (from standby, captured, or without write protection)
 *   DROPPING   any     any    -       is being unmapped, content is in its slot, or goes to standby
 *   SWAPPED    no      yes    yes     only in the store
 *   FAILED     no      any    yes     content lost to an I/O error: access raises SIGBUS
 */
#ifndef EM_CORE_PAGEWORD_H
#define EM_CORE_PAGEWORD_H

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t em_word_t;

enum em_state {
	EM_HOLE = 0,
	EM_ABSENT,
	EM_FILLING,
	EM_STAGED,
	EM_CLEAN,
	EM_DIRTY,
	EM_UPGRADE,
	EM_WRITEBACK,
	EM_LIFTING,
	EM_DROPPING,
	EM_SWAPPED,
	EM_FAILED,
	EM_NSTATES
};

/*
 * Every transition there is: T(from, to, by whom and why).  Debug builds assert
 * it at each change; the Spin model in tests/model is checked against it.  The last group
 * happens under LOCKED only (range operations), or in a forked child before anything runs.
 * mremap carries a stable state over to the word of the new address (from HOLE).
 */
#define EM_TRANSITIONS(T)                                                                  \
	T(ABSENT, FILLING, "fault: first touch")                                           \
	T(SWAPPED, FILLING, "fault: demand read; service: prefetch read")                  \
	T(FAILED, FILLING, "fault: read tried again")                                      \
	T(STAGED, FILLING, "fault: map a prefetched page")                                 \
	T(FILLING, ABSENT, "fill failed before any content was there")                     \
	T(FILLING, DIRTY, "filled writable")                                               \
	T(FILLING, CLEAN, "filled write-protected, slot kept")                             \
	T(FILLING, STAGED, "service: prefetch read complete; fault: mapping failed")       \
	T(FILLING, SWAPPED, "prefetch given up, fill failed")                              \
	T(FILLING, FAILED, "demand read failed for good")                                  \
	T(STAGED, SWAPPED, "service: staged page dropped unused; standby frame reused")                          \
	T(CLEAN, UPGRADE, "write fault")                                                   \
	T(DIRTY, UPGRADE, "write fault on a page whose block was protected")               \
	T(UPGRADE, DIRTY, "protection lifted, slot freed")                                 \
	T(DIRTY, WRITEBACK, "reclaim: chosen, slot assigned")                              \
	T(WRITEBACK, UPGRADE, "write fault steals the page; reclaim frees the slot")       \
	T(WRITEBACK, DROPPING, "reclaim: written")                                         \
	T(CLEAN, DROPPING, "reclaim: chosen, no write needed")                             \
	T(DROPPING, CLEAN, "reclaim: held by a system call after all, or waited for")                     \
	T(DROPPING, SWAPPED, "reclaim: unmapped")                                          \
	T(DIRTY, DROPPING, "reclaim: protected, goes to standby as it is")                 \
	T(DROPPING, DIRTY, "reclaim: stays after all")                                     \
	T(STAGED, LIFTING, "standby: to be written")                                       \
	T(LIFTING, STAGED, "standby: written, or not")                                     \
	T(DROPPING, STAGED, "reclaim: unmapped, content kept on standby")                  \
	T(DIRTY, LIFTING, "reclaim: captured, or moved out, without write protection")              \
	T(LIFTING, DIRTY, "reclaim: held by a system call, or write failed: moved back")   \
	T(LIFTING, SWAPPED, "reclaim: written")                                            \
	T(HOLE, ABSENT, "mapped")                                                          \
	T(ABSENT, HOLE, "unmapped")                                                        \
	T(SWAPPED, HOLE, "unmapped, slot freed")                                           \
	T(STAGED, HOLE, "unmapped, frame and slot freed")                                  \
	T(CLEAN, HOLE, "unmapped, slot freed")                                             \
	T(DIRTY, HOLE, "unmapped")                                                         \
	T(FAILED, HOLE, "unmapped")                                                        \
	T(SWAPPED, ABSENT, "discarded, slot freed")                                        \
	T(STAGED, ABSENT, "discarded, frame and slot freed")                               \
	T(CLEAN, ABSENT, "discarded, slot freed")                                          \
	T(DIRTY, ABSENT, "discarded")                                                      \
	T(FAILED, ABSENT, "discarded") \
	T(CLEAN, DIRTY, "moved or forked: protection lost, slot forgotten")

#define EM_W_STATE 0xfull
#define EM_W_WAITERS (1ull << 4)
#define EM_W_LOCKED (1ull << 5)
#define EM_W_PINNED (1ull << 6)
#define EM_W_MAYBE_WP (1ull << 7)
#define EM_W_SEG_SHIFT 8
#define EM_W_SEG (0xfull << EM_W_SEG_SHIFT)
#define EM_W_STAMP_SHIFT 12
#define EM_W_STAMP (0xfffull << EM_W_STAMP_SHIFT)
#define EM_W_TAG_SHIFT 24
#define EM_W_TAG (0xffull << EM_W_TAG_SHIFT)
#define EM_W_SLOT_SHIFT 32

static inline enum em_state em_word_state(em_word_t w)
{
	return (enum em_state)(w & EM_W_STATE);
}

static inline uint32_t em_word_slot(em_word_t w)
{
	return (uint32_t)(w >> EM_W_SLOT_SHIFT);
}

static inline em_word_t em_word_with_state(em_word_t w, enum em_state s)
{
	return (w & ~EM_W_STATE) | (em_word_t)s;
}

static inline em_word_t em_word_with_slot(em_word_t w, uint32_t slot)
{
	return (w & 0xffffffffull) | ((em_word_t)slot << EM_W_SLOT_SHIFT);
}

/* Nobody owns a page in these states unless LOCKED is set too. */
static inline bool em_state_is_stable(enum em_state s)
{
	return s == EM_HOLE || s == EM_ABSENT || s == EM_STAGED || s == EM_CLEAN ||
	       s == EM_DIRTY || s == EM_SWAPPED || s == EM_FAILED;
}

/* Counted as resident by the budget (in LIFTING, after capture, only its frame is). */
static inline bool em_state_is_resident(enum em_state s)
{
	return s == EM_CLEAN || s == EM_DIRTY || s == EM_UPGRADE || s == EM_WRITEBACK ||
	       s == EM_DROPPING || s == EM_LIFTING;
}

#endif
