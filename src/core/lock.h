/* SPDX-License-Identifier: MIT */
/*
 * Futex locks and waiting on page words.  Context: signal-safe; a lock may only be taken with
 * all signals blocked (inside an engine section), or a signal handler could deadlock on
 * the thread it interrupted.
 *
 * Locking order (docs/design.md): map > policy > slots > meta.  A page in transit or
 * LOCKED counts as a lock below map and above policy, except that waiting for one is
 * allowed only to threads that own none themselves, or own map.
 */
#ifndef EM_CORE_LOCK_H
#define EM_CORE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

struct em_mutex {
	uint32_t v; /* 0 free, 1 taken, 2 taken with waiters */
};

void em_mutex_lock(struct em_mutex *m);
bool em_mutex_trylock(struct em_mutex *m);
void em_mutex_unlock(struct em_mutex *m);

/* Raw futexes on a private 32-bit word.  timeout_us 0: none.  0, -EAGAIN, -EINTR, -ETIMEDOUT. */
long em_futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_us);
void em_futex_wake(uint32_t *word, int n);

/* For a wait without anything to sleep on; turn counts from 1.  Yields at first; later it sleeps
   a moment, for a yield does not let threads of lower priority run. */
void em_give_way(uint32_t turn);

static inline void em_cpu_relax(void)
{
	__builtin_ia32_pause();
}

#endif
