/* SPDX-License-Identifier: MIT */
/*
 * ONE page, everything that happens to it (src/core/pageword.h), for Spin.
 *
 * Content.  Versions would make the state space infinite, and only one question matters:
 * is this copy the newest?  So each place that can hold the page has a bit "current".
 * A write makes memory current and all other copies stale; copying copies the bit; a
 * discard makes zeros current.  A read asserts that what it sees is current: then no
 * write was lost, no old version and no stray zeros came back.
 *
 * Three layers are kept apart, as they are in reality:
 *   the program's mapping   vma, registered (with userfaultfd)
 *   the page table entry    mapped, wp
 *   the page word           state, locked, maybe_wp, slot
 * An ioctl or system call is one atomic step on the entry; a compare-and-swap is one
 * step on the word; all else interleaves.  The kernel flushes TLBs within the call.
 *
 * Not modelled: futex wake-ups (waiting is a guard here), PINNED, the policy's tag.
 *
 * Processes are chosen by -D: USERS program threads, KERNELS threads inside a system call
 * that uses the page, RECLAIMS, SERVICE (prefetch), RANGE (munmap, mmap, madvise,
 * mremap); NO_WP: eviction by lifting the page out; STANDBY: reclaim keeps what it unmaps in frames;
 * HANDLERS: delivery by handler threads, where a page must be there as long as it is written from.
 * Negative controls, each must be found by Spin:
 *   LATE_LIFT      the protection is lifted after the page was set DIRTY, not before
 *   EARLY_HAZARD   reclaim looks at the hazards before it claims the page
 *   NO_SECOND_LOOK reclaim does not look at them again once the page is written
 *   BLIND_DROP     reclaim drops a written page without looking whether it was stolen
 *   NOT_OWN        a captured page is exchanged for a copy when it is written
 *   LEAK           a stolen page's slot is not given back
 *   UNPROTECTED    a dirty page is copied to standby without being protected
 *   WRITTEN_BLINDLY  a page on standby that is touched while it is being written comes back at once
 *   STEAL          with HANDLERS: a writer does not wait for a page that is being written
 *   EXISTING_IS_WRITABLE  a page found mapped at its first fault is taken to be writable
 */
#ifndef USERS
#define USERS 1
#endif
#ifndef KERNELS
#define KERNELS 0
#endif
#ifndef RECLAIMS
#define RECLAIMS 1
#endif
#ifndef SERVICE
#define SERVICE 0
#endif
#ifndef RANGE
#define RANGE 0
#endif

/* One in the word and one in each process's hands at most: an allocation never fails
   unless a slot has leaked. */
#define NSLOTS (2 + USERS + KERNELS + RECLAIMS + RANGE)
#define NONE 0
#define KEPT (NSLOTS + 1) /* the word of a STAGED page says: on standby */

mtype = { HOLE, ABSENT, FILLING, STAGED, CLEAN, DIRTY, UPGRADE, WRITEBACK, LIFTING, DROPPING,
	  SWAPPED, FAILED };

/* the word */
mtype state = ABSENT;
bool locked, maybe_wp;
byte slot = NONE;

/* the mapping and the page table entry */
bool vma = true, registered = true, mapped, wp;

/* content: is this copy current? */
bool mem_cur, zero_cur = true, frame_cur;
bool slot_cur[NSLOTS + 1];

bool slot_used[NSLOTS + 1];
bool frame_used;
byte frame_slot;
bool kept_used, kept_cur; /* the frame on standby */
byte kept_slot;	   /* NONE: not written */
byte hazards;	   /* system calls that hold the page */
bool disturbed;	   /* a range operation came between: the program's own race */

#define STABLE \
	(state == HOLE || state == ABSENT || state == STAGED || state == CLEAN || \
	 state == DIRTY || state == SWAPPED || state == FAILED)
#if defined(HANDLERS) && !defined(STEAL)
#define MUST_WAIT (locked || (!STABLE && (state != WRITEBACK || write)))
#else
#define MUST_WAIT (locked || (!STABLE && state != WRITEBACK))
#endif
#define USABLE_READ (!locked && (state == DIRTY || state == CLEAN || state == WRITEBACK))
#define USABLE_WRITE (!locked && state == DIRTY && !maybe_wp)

/* A state change: always inside an atomic step that has made sure of the old state.  Printed when
   first taken, for check_table.py. */
#define GO(from, to)                                                                      \
	assert(state == from);                                                             \
	c_code { { static char told; if (!told) { told = 1; printf("TOOK " #from " " #to "\n"); } } }; \
	state = to

/* em_word_take: from the word as it was seen. */
#define TAKE(from, to) \
	if \
	:: atomic { state == from && slot == seen_slot && !locked -> GO(from, to); got = true } \
	:: else -> got = false \
	fi

#define FORGET slot = NONE

inline all_stale()
{
	for (k : 1 .. NSLOTS) { slot_cur[k] = false }
	mem_cur = false; zero_cur = false; frame_cur = false; kept_cur = false; k = 0
}

inline slot_alloc(s)
{
	atomic {
		s = 1;
		do
		:: s <= NSLOTS && slot_used[s] -> s++
		:: else -> break
		od;
		assert(s <= NSLOTS); /* else a slot has leaked */
		slot_used[s] = true; slot_cur[s] = false
	}
}

inline slot_free(s)
{
	atomic { assert(s != NONE && slot_used[s]); slot_used[s] = false; slot_cur[s] = false; s = NONE }
}

/* UFFDIO_COPY with content `cur`. */
inline map_page(cur, protect)
{
	assert(!mapped && registered); mapped = true; wp = protect; mem_cur = cur
}

inline unmap_page()
{
	mapped = false; wp = false; mem_cur = false
}

/* ---- the fault path (fault.c, minor.c, swapin.c); seen, seen_slot: the word it acts on -------------------- */

inline first_touch()
{
	TAKE(ABSENT, FILLING);
	if
	:: !got
	:: got ->
		if
		:: atomic { mapped -> skip }
			/* EEXIST: touched before it was registered, and perhaps protected since, as
			   a gap between victims. */
			atomic {
				GO(FILLING, DIRTY);
#ifndef EXISTING_IS_WRITABLE
				maybe_wp = true
#endif
			}
		:: atomic { !mapped -> map_page(zero_cur, false) }
			atomic { GO(FILLING, DIRTY) }
		:: atomic { !mapped -> GO(FILLING, ABSENT) }
			gave_up = true
		fi
	fi
}

inline demand()
{
	TAKE(SWAPPED, FILLING);
	fill_from_slot()
}

inline demand_again()
{
	TAKE(FAILED, FILLING);
	fill_from_slot()
}

inline fill_from_slot()
{
	if
	:: !got
	:: got ->
		assert(slot_used[seen_slot]);
		copy_cur = slot_cur[seen_slot];
		if
		:: skip ->
			if
			:: skip -> /* written, expected to be (update.c), or nothing can be protected */
				atomic { map_page(copy_cur, false) }
				release_dirty_and_free()
			:: !write && !no_wp ->
				atomic { map_page(copy_cur, true) }
				atomic { GO(FILLING, CLEAN) }
			fi
		:: atomic { GO(FILLING, SWAPPED) } gave_up = true /* the ioctl failed */
		:: atomic { GO(FILLING, FAILED) } gave_up = true  /* the read failed */
		fi
	fi;
	copy_cur = false
}

inline release_dirty_and_free()
{
	atomic { GO(FILLING, DIRTY); FORGET }
	mine = seen_slot; slot_free(mine)
}

inline map_staged()
{
	TAKE(STAGED, FILLING);
	if
	:: !got
	:: got && slot == KEPT -> map_kept()
	:: got && slot != KEPT ->
		assert(frame_used);
		seen_slot = frame_slot;
		if
		:: skip ->
			atomic { map_page(frame_cur, false) }
			release_dirty_and_free();
			frame_put()
		:: !write && !no_wp ->
			atomic { map_page(frame_cur, true) }
			atomic { GO(FILLING, CLEAN); slot = seen_slot }
			frame_put()
		:: atomic { GO(FILLING, STAGED) } gave_up = true
		fi
	fi
}

inline map_kept()
{
	seen_slot = kept_slot;
	if
	:: skip ->
		atomic { map_page(kept_cur, false) }
		kept_put();
		atomic { GO(FILLING, DIRTY); FORGET }
		mine = seen_slot;
		if :: mine != NONE -> slot_free(mine) :: else fi
	:: !write && seen_slot != NONE ->
		atomic { map_page(kept_cur, true) }
		kept_put();
		atomic { GO(FILLING, CLEAN); slot = seen_slot }
	:: atomic { GO(FILLING, STAGED) } gave_up = true
	fi
}

inline kept_put()
{
	atomic { assert(kept_used); kept_used = false; kept_cur = false; kept_slot = NONE }
}

inline frame_put()
{
	atomic { assert(frame_used); frame_used = false; frame_cur = false; frame_slot = NONE }
}

inline lift_protection()
{
	atomic { if :: mapped -> wp = false :: else fi }
}

#ifdef LATE_LIFT
#define TAKE_UPGRADE(from) \
	if \
	:: atomic { state == from && slot == seen_slot && !locked -> \
		state = DIRTY; slot = NONE; got = true } \
	:: else -> got = false \
	fi
#else
#define TAKE_UPGRADE(from) \
	if \
	:: atomic { state == from && slot == seen_slot && !locked -> \
		GO(from, UPGRADE); slot = NONE; got = true } \
	:: else -> got = false \
	fi
#endif

inline upgrade()
{
	if
	:: seen == CLEAN -> TAKE_UPGRADE(CLEAN)
	:: seen == DIRTY -> TAKE_UPGRADE(DIRTY)
	:: seen == WRITEBACK -> TAKE_UPGRADE(WRITEBACK)
	fi;
	if
	:: !got
	:: got ->
		lift_protection();
#ifdef LATE_LIFT
		maybe_wp = false;
#else
		atomic { GO(UPGRADE, DIRTY); maybe_wp = false }
#endif
		if
		:: seen == CLEAN -> mine = seen_slot; slot_free(mine)
		:: else /* WRITEBACK: reclaim gives it back */
		fi
	fi
}

/* What the word says of the page table entry, when nobody owns the page.  A fault that finds
   nothing to do would come again for ever if this did not hold. */
inline word_tells_truth()
{
	assert(!(state == DIRTY && !maybe_wp) || (mapped && !wp));
	assert(!(state == DIRTY || state == CLEAN || state == WRITEBACK) || mapped);
	assert(!(state == SWAPPED || state == STAGED || state == FAILED) || !mapped);
	assert(!(state == CLEAN || state == SWAPPED || state == FAILED) || slot_used[slot])
}

/* One turn of em_fault. */
inline fault()
{
	atomic { !MUST_WAIT -> word_tells_truth();
		seen = state; seen_slot = slot; seen_wp = maybe_wp }
	if
	:: seen == HOLE -> not_ours = true
	:: seen == ABSENT -> first_touch()
	:: seen == SWAPPED -> demand()
	:: seen == STAGED -> map_staged()
	:: seen == CLEAN && write -> upgrade()
	:: seen == DIRTY && write && seen_wp -> upgrade()
	:: seen == WRITEBACK && write -> upgrade()
	:: seen == FAILED -> gave_up = true /* handler threads: the kernel raises SIGBUS */
	:: seen == FAILED -> demand_again()
	:: else
	fi;
	atomic { seen = 0; seen_slot = NONE; seen_wp = false; got = false }
}

inline do_access()
{
	if
	:: write -> all_stale(); mem_cur = true
	:: else -> assert(mem_cur)
	fi
}

#define USER_LOCALS \
	mtype seen; byte seen_slot, mine, k; bool write, got, copy_cur, seen_wp, gave_up, not_ours, over

/* A thread of the program: reads or writes, for ever. */
proctype user(bool no_wp)
{
	USER_LOCALS;
end:
	do
	:: 	if :: write = false :: write = true fi;
		do
		:: atomic { over || gave_up || !vma -> break }
		:: atomic { !over && !gave_up && vma && mapped && (!write || !wp) ->
			do_access(); over = true }
		:: atomic { !over && !gave_up && vma && !mapped && !registered ->
			mapped = true; wp = false; mem_cur = zero_cur }
		:: !over && !gave_up && vma && registered && !(mapped && (!write || !wp)) ->
			fault(); not_ours = false
		od;
		atomic { over = false; gave_up = false; write = false }
	od
}

/* A thread inside a system call that was given the page: hook, ensure, kernel's access. */
proctype kernel_access(bool no_wp)
{
	USER_LOCALS;
	byte times;
end:
	do
	:: 	if :: write = false :: write = true fi;
		atomic { if :: hazards == 0 -> disturbed = false :: else fi; hazards++ }
		do
		:: atomic { (write && USABLE_WRITE) || (!write && USABLE_READ) || gave_up || not_ours -> break }
		:: else -> fault()
		od;
		times = 0;
		do
		:: atomic { times < 2 && !gave_up && !not_ours ->
			if
			:: disturbed || !vma
			:: else ->
				assert(mapped);		/* no EFAULT for a missing page */
				assert(!write || !wp);	/* none for a protected one */
				do_access()
			fi;
			times++ }
		:: else -> break
		od;
		atomic { hazards--; gave_up = false; not_ours = false; write = false; times = 0 }
	od
}

/* ---- reclaim (reclaim.c, standby.c, protect.c, writeback.c, lift.c) --------------------------------------------------------- */

inline look_at_hazards()
{
	held = hazards > 0
}

inline drop_it(s)
{
	if
	:: atomic { unmap_page() }
		atomic { GO(DROPPING, SWAPPED) }
	:: atomic { GO(DROPPING, CLEAN) } /* the kernel would not (locked behind our back) */
	fi;
	s = NONE
}

/* In DROPPING, and protected: s is its slot, if it has one. */
inline keep_it(s)
{
	atomic { !kept_used -> kept_used = true; kept_slot = s; kept_cur = mem_cur }
	if
	:: atomic { unmap_page() }
		atomic { GO(DROPPING, STAGED); slot = KEPT; s = NONE }
	:: skip -> /* the kernel would not */
		kept_put();
		if
		:: s == NONE -> atomic { GO(DROPPING, DIRTY); maybe_wp = true }
		:: else -> atomic { GO(DROPPING, CLEAN); s = NONE }
		fi
	fi
}

inline evict_to_standby()
{
	atomic {
#ifndef UNPROTECTED
		wp = true;
#endif
		got = true
	}
	atomic { GO(DIRTY, DROPPING); locked = false; maybe_wp = false }
	keep_it(mine)
}

/* Taken before, so that nobody maps it meanwhile. */
inline write_kept()
{
#ifdef WRITTEN_BLINDLY
	lifted_cur = kept_cur;
	slot_alloc(mine);
	slot_cur[mine] = lifted_cur;
	if
	:: atomic { kept_used && kept_slot == NONE -> kept_slot = mine; mine = NONE }
	:: else -> slot_free(mine)
	fi
#else
	slot_alloc(mine);
	if
	:: slot_cur[mine] = kept_cur;
		atomic { kept_slot = mine; mine = NONE }
	:: slot_free(mine) /* the write failed */
	fi;
	atomic { GO(LIFTING, STAGED) }
#endif
}

/* Written without error, or not: what becomes of it (claim_written, keep_held). */
inline finish_written()
{
	if
#ifdef BLIND_DROP
	:: atomic { mine != NONE -> if :: state == WRITEBACK -> GO(WRITEBACK, DROPPING) :: else -> state = DROPPING; slot = mine fi; got = true }
#else
	:: atomic { state == WRITEBACK && slot == mine && !locked ->
		GO(WRITEBACK, DROPPING); got = true }
#endif
	:: else -> got = false
	fi;
	if
	:: !got ->
#ifdef LEAK
		mine = NONE
#else
		slot_free(mine)
#endif
	:: got ->
#ifndef NO_SECOND_LOOK
		look_at_hazards();
#endif
		if
		:: held -> atomic { GO(DROPPING, CLEAN); mine = NONE }
#ifdef HANDLERS
		:: !held -> atomic { GO(DROPPING, CLEAN); mine = NONE } /* a writer waits for it */
		:: !held -> drop_it(mine)
#else
		:: else -> drop_it(mine)
#endif
		fi
	fi
}

/* em_victim_undo: stays in memory, dirty and perhaps protected. */
inline undo()
{
	if
	:: atomic { state == WRITEBACK && slot == mine && !locked ->
		GO(WRITEBACK, UPGRADE); FORGET; got = true }
	:: else -> got = false
	fi;
	if
	:: got -> atomic { GO(UPGRADE, DIRTY); maybe_wp = true }
	:: else
	fi;
	slot_free(mine)
}

/* A gathered write reads the page at some time, not at one instant; it fails if the page has been
   stolen and has gone meanwhile. */
inline write_out()
{
	failed = false;
#ifdef HANDLERS
	atomic { assert(mapped); slot_cur[mine] = mem_cur };
	atomic { assert(mapped); slot_cur[mine] = slot_cur[mine] && mem_cur };
	if
	:: failed = true
	:: skip
	fi
#else
	if
	:: atomic { mapped -> slot_cur[mine] = mem_cur }
		if
		:: atomic { mapped -> slot_cur[mine] = slot_cur[mine] && mem_cur }
		:: atomic { !mapped -> failed = true }
		fi
	:: failed = true
	fi
#endif
}

inline evict_by_protection()
{
	slot_alloc(mine);
	if
	:: atomic { wp = true; got = true }
		atomic { GO(DIRTY, WRITEBACK); slot = mine; locked = false; maybe_wp = false }
		write_out();
		if
		:: failed -> undo()
		:: else -> finish_written()
		fi
	:: atomic { if :: wp = true :: skip fi; got = false } /* the ioctl failed, perhaps half-way */
		slot_free(mine);
		atomic { locked = false; maybe_wp = true }
	fi
}

inline evict_by_lifting()
{
	slot_alloc(mine);
	atomic { GO(DIRTY, LIFTING); locked = false }
	if
	:: atomic { lifted_cur = mem_cur; unmap_page() }
		slot_cur[mine] = lifted_cur;
		if
		:: atomic { GO(LIFTING, SWAPPED); slot = mine; mine = NONE }
		:: atomic { map_page(lifted_cur, false) } /* the write failed */
			slot_free(mine);
			atomic { GO(LIFTING, DIRTY) }
		fi
	:: atomic { GO(LIFTING, DIRTY) } slot_free(mine)
	fi;
	lifted_cur = false
}

/* A pipe refers to the page, which the program can change until it is unmapped.  NOT_OWN: a change makes another
   page of it, of which the pipe knows nothing. */
inline evict_by_capture()
{
	slot_alloc(mine);
	slot_cur[mine] = mem_cur;
	if
	:: atomic { mapped ->
#ifndef NOT_OWN
		slot_cur[mine] = mem_cur;
#endif
		unmap_page() }
		atomic { GO(DIRTY, LIFTING); locked = false }
		if
		:: atomic { GO(LIFTING, SWAPPED); slot = mine; mine = NONE }
		:: atomic { map_page(slot_cur[mine], false) } /* the write failed */
			slot_free(mine);
			atomic { GO(LIFTING, DIRTY) }
		fi
	:: slot_free(mine);
		locked = false
	fi
}

/* The page lies between victims whose span is protected with one ioctl. */
inline protect_as_gap()
{
	look_at_hazards();
	if
	:: held -> locked = false
	:: else ->
		atomic { if :: mapped -> wp = true :: else fi }
		atomic { if :: state == DIRTY -> maybe_wp = true :: else fi; locked = false }
	fi
}

proctype reclaim(bool no_wp)
{
	byte mine; bool got, held, failed, lifted_cur;
end:
	do
#ifdef STANDBY
	:: atomic { state == STAGED && slot == KEPT && !locked && kept_slot != NONE ->
			GO(STAGED, SWAPPED); slot = kept_slot }
		kept_put()
#ifdef WRITTEN_BLINDLY
	:: atomic { state == STAGED && slot == KEPT && !locked && kept_slot == NONE -> skip }
#else
	:: atomic { state == STAGED && slot == KEPT && !locked && kept_slot == NONE ->
			GO(STAGED, LIFTING) }
#endif
		write_kept()
#endif
	:: 	atomic { held = false; failed = false; got = false }
#ifdef EARLY_HAZARD
		look_at_hazards();
#endif
		atomic { STABLE && !locked && state != HOLE -> locked = true }
		if
		:: !no_wp -> protect_as_gap()
		:: state == CLEAN || state == DIRTY ->
#ifndef EARLY_HAZARD
			look_at_hazards();
#endif
			if
			:: held -> locked = false
			:: !held && state == CLEAN ->
				atomic { GO(CLEAN, DROPPING); locked = false }
				mine = slot;
				if
				:: drop_it(mine)
#ifdef STANDBY
				:: !kept_used -> keep_it(mine)
#endif
				fi
#ifdef STANDBY
			:: !held && state == DIRTY && !no_wp && !kept_used -> evict_to_standby()
#endif
			:: !held && state == DIRTY && !no_wp -> evict_by_protection()
			:: !held && state == DIRTY && !no_wp && !maybe_wp -> evict_by_capture()
			:: !held && state == DIRTY && no_wp -> evict_by_lifting()
			fi
		:: state != CLEAN && state != DIRTY -> locked = false
		fi
	od
}

/* ---- prefetch (stage.c) --------------------------------------------------------------------- */

proctype service(bool no_wp)
{
	byte seen_slot; bool got, copy_cur;
end:
	do
	:: atomic { !frame_used && state == SWAPPED && !locked -> seen_slot = slot }
		TAKE(SWAPPED, FILLING);
		if
		:: !got
		:: got ->
			atomic { frame_used = true; frame_slot = seen_slot }
			assert(slot_used[seen_slot]);
			if
			:: frame_cur = slot_cur[seen_slot];
				atomic { GO(FILLING, STAGED); FORGET }
			:: atomic { GO(FILLING, SWAPPED) } frame_put()
			fi
		fi;
		seen_slot = NONE
	:: atomic { state == SWAPPED && !locked -> seen_slot = slot } /* fetch.c: mapped at once */
		TAKE(SWAPPED, FILLING);
		if
		:: !got
		:: got ->
			assert(slot_used[seen_slot]);
			copy_cur = slot_cur[seen_slot];
			if
			:: atomic { !no_wp -> map_page(copy_cur, true) }
				atomic { GO(FILLING, CLEAN) }
			:: atomic { map_page(copy_cur, false) }
				atomic { GO(FILLING, DIRTY); FORGET }
				slot_free(seen_slot)
			:: atomic { GO(FILLING, SWAPPED) }
			fi
		fi;
		seen_slot = NONE; copy_cur = false
	:: atomic { state == STAGED && !locked && frame_used && slot != KEPT -> GO(STAGED, SWAPPED); slot = frame_slot }
		frame_put()
	od
}

/* ---- range operations (range.c, remap.c) ---------------------------------------------------- */

/* The page's content goes: slot and frame are given back. */
inline free_content()
{
	if
	:: state == STAGED && slot == KEPT ->
		mine = kept_slot; kept_put();
		if :: mine != NONE -> slot_free(mine) :: else fi
	:: state == STAGED && slot != KEPT -> mine = frame_slot; frame_put(); slot_free(mine)
	:: state == SWAPPED || state == CLEAN || state == FAILED ->
		mine = slot; slot_free(mine)
	:: else
	fi
}

inline to_hole()
{
	atomic {
		if
		:: state == ABSENT -> GO(ABSENT, HOLE)
		:: state == SWAPPED -> GO(SWAPPED, HOLE)
		:: state == STAGED -> GO(STAGED, HOLE)
		:: state == CLEAN -> GO(CLEAN, HOLE)
		:: state == DIRTY -> GO(DIRTY, HOLE)
		:: state == FAILED -> GO(FAILED, HOLE)
		fi;
		FORGET; locked = false; maybe_wp = false
	}
}

inline to_absent()
{
	atomic {
		if
		:: state == ABSENT
		:: state == SWAPPED -> GO(SWAPPED, ABSENT)
		:: state == STAGED -> GO(STAGED, ABSENT)
		:: state == CLEAN -> GO(CLEAN, ABSENT)
		:: state == DIRTY -> GO(DIRTY, ABSENT)
		:: state == FAILED -> GO(FAILED, ABSENT)
		fi;
		FORGET; locked = false; maybe_wp = false
	}
}

/* As if the page came to lie at another address: the entry moves with its content, its
   protection may get lost on the way. */
inline moved()
{
	atomic { if :: wp = false :: skip fi; disturbed = true }
	if
	:: state == CLEAN ->
		mine = slot;
		atomic { GO(CLEAN, DIRTY); FORGET; maybe_wp = true; locked = false }
		slot_free(mine)
	:: state == DIRTY -> atomic { maybe_wp = true; locked = false }
	:: state == STAGED && slot == KEPT -> locked = false
	:: state == STAGED && slot != KEPT ->
		mine = frame_slot; frame_put();
		atomic { GO(STAGED, SWAPPED); slot = mine; mine = NONE; locked = false }
	:: else -> locked = false
	fi
}

proctype range()
{
	byte mine, k;
end:
	do
	:: atomic { vma && STABLE && !locked && state != HOLE -> locked = true }
		if
		:: atomic { unmap_page(); all_stale(); vma = false; registered = false; disturbed = true }
			free_content();
			to_hole()
		:: atomic { unmap_page(); all_stale(); zero_cur = true; disturbed = true }
			free_content();
			to_absent()
		:: moved()
		fi
	:: atomic { !vma && state == HOLE -> all_stale(); zero_cur = true; vma = true }
		registered = true;
		atomic { GO(HOLE, ABSENT) }
	od
}

init {
	byte i;
	bool no_wp;

#ifdef NO_WP
	no_wp = true;
#endif
	atomic {
		do :: i < USERS -> run user(no_wp); i++ :: else -> break od; i = 0;
		do :: i < KERNELS -> run kernel_access(no_wp); i++ :: else -> break od; i = 0;
		do :: i < RECLAIMS -> run reclaim(no_wp); i++ :: else -> break od; i = 0;
		if :: SERVICE -> run service(no_wp) :: else fi;
		if :: RANGE -> run range() :: else fi
	}
}
