/* SPDX-License-Identifier: MIT */
/*
 * Changes of page words.  The tag, the stamp, PINNED and WAITERS may be changed by others at any
 * time, also while a page is owned; so even an owner's release is a compare-and-swap loop.
 */
#include "core.h"

#include "sys.h"

#ifdef EM_DEBUG
static bool transition_ok(enum em_state from, enum em_state to)
{
#define T(f, t, why) (from == EM_##f && to == EM_##t) ||
	return EM_TRANSITIONS(T) from == to;
#undef T
}
#define CHECK(from, to) \
	do { \
		if (!transition_ok(from, to)) \
			em_panic("extmem: page state changed in a way that is not in the table\n"); \
	} while (0)
#else
#define CHECK(from, to) (void)0
#endif

/* The part of a word that must not have changed for a take to succeed. */
#define IDENTITY (EM_W_STATE | EM_W_LOCKED | (0xffffffffull << EM_W_SLOT_SHIFT))

bool em_word_take_slot(em_word_t *wp, em_word_t *old, enum em_state to, uint32_t slot)
{
	em_word_t cur = *old;

	CHECK(em_word_state(cur), to);
	for (;;) {
		em_word_t next = em_word_with_slot(em_word_with_state(cur, to), slot);

		if (__atomic_compare_exchange_n(wp, &cur, next, false, __ATOMIC_SEQ_CST,
						__ATOMIC_ACQUIRE)) {
			*old = cur;
			return true;
		}
		if ((cur ^ *old) & IDENTITY) {
			*old = cur;
			return false;
		}
	}
}

bool em_word_take(em_word_t *wp, em_word_t *old, enum em_state to)
{
	return em_word_take_slot(wp, old, to, em_word_slot(*old));
}

void em_word_release(em_word_t *wp, enum em_state to, uint32_t slot, em_word_t clear, em_word_t set)
{
	em_word_t cur = em_word_load(wp), next;

	CHECK(em_word_state(cur), to);
	do {
		next = em_word_with_slot(em_word_with_state(cur, to), slot);
		next &= ~(EM_W_LOCKED | EM_W_WAITERS | clear);
		next |= set;
	} while (!__atomic_compare_exchange_n(wp, &cur, next, false, __ATOMIC_SEQ_CST,
					      __ATOMIC_ACQUIRE));
	if (cur & EM_W_WAITERS)
		em_futex_wake((uint32_t *)wp, 1 << 30);
}

bool em_word_trylock(em_word_t *wp, em_word_t *w)
{
	em_word_t cur = em_word_load(wp);

	do {
		/* Never a HOLE: a mapping being made stores into those words without asking. */
		if (!em_word_is_free(cur) || em_word_state(cur) == EM_HOLE) {
			*w = cur;
			return false;
		}
	} while (!__atomic_compare_exchange_n(wp, &cur, cur | EM_W_LOCKED, false, __ATOMIC_SEQ_CST,
					      __ATOMIC_ACQUIRE));
	*w = cur;
	return true;
}

em_word_t em_word_lock(em_word_t *wp)
{
	em_word_t w;

	while (!em_word_trylock(wp, &w))
		em_word_wait(wp, w);
	return w;
}

void em_word_unlock(em_word_t *wp, em_word_t set)
{
	em_word_t cur = em_word_load(wp);

	while (!__atomic_compare_exchange_n(wp, &cur, (cur & ~(EM_W_LOCKED | EM_W_WAITERS)) | set,
					    false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
		;
	if (cur & EM_W_WAITERS)
		em_futex_wake((uint32_t *)wp, 1 << 30);
}

void em_word_pin(em_word_t *wp, bool on)
{
	em_word_t was = on ? __atomic_fetch_or(wp, EM_W_PINNED, __ATOMIC_SEQ_CST)
			   : __atomic_fetch_and(wp, ~EM_W_PINNED, __ATOMIC_SEQ_CST);

	if (!!(was & EM_W_PINNED) != on)
		__atomic_fetch_add(&em_budget.pinned, on ? 1 : -1, __ATOMIC_RELAXED);
}

/*
 * The futex is the low half of the word.  A change of the tag by the policy while we go to sleep
 * costs a turn (EAGAIN); a change of owner that we sleep through cannot happen, because whoever
 * takes WAITERS off wakes.
 */
void em_word_wait(em_word_t *wp, em_word_t seen)
{
	const em_word_t same = EM_W_STATE | EM_W_LOCKED;
	em_word_t cur;

	for (int spin = 0; spin < 100; spin++) {
		cur = em_word_load(wp);
		if ((cur ^ seen) & same)
			return;
		em_cpu_relax();
	}
	cur = em_word_load(wp);
	while (!((cur ^ seen) & same)) {
		if (!(cur & EM_W_WAITERS)) {
			if (!__atomic_compare_exchange_n(wp, &cur, cur | EM_W_WAITERS, false,
							 __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
				continue;
			cur |= EM_W_WAITERS;
		}
		em_futex_wait((uint32_t *)wp, (uint32_t)cur, 0);
		cur = em_word_load(wp);
	}
}
