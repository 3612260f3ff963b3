/* SPDX-License-Identifier: MIT */
#include "lock.h"

#include <linux/futex.h>
#include <time.h>

#include "sys.h"

enum { YIELDS = 100 };

long em_futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_us)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_us / 1000000),
			       .tv_nsec = (long)(timeout_us % 1000000) * 1000 };

	return em_syscall4(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected,
			   timeout_us ? &ts : NULL);
}

void em_futex_wake(uint32_t *word, int n)
{
	em_syscall3(SYS_futex, word, FUTEX_WAKE_PRIVATE, n);
}

void em_give_way(uint32_t turn)
{
	const struct timespec nap = { 0, 100000 };

	if (turn <= YIELDS)
		em_syscall0(SYS_sched_yield);
	else
		em_syscall2(SYS_nanosleep, &nap, NULL);
}

/* The three-state mutex of Drepper, "Futexes are tricky" (2004), with a short spin first: the
   sections are short, and a wake-up across cores costs 20 to 70 us in a virtual machine. */
void em_mutex_lock(struct em_mutex *m)
{
	uint32_t c;

	for (int spin = 0; spin < 200; spin++) {
		c = 0;
		if (__atomic_compare_exchange_n(&m->v, &c, 1, false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return;
		em_cpu_relax();
	}
	while (__atomic_exchange_n(&m->v, 2, __ATOMIC_ACQUIRE) != 0)
		em_futex_wait(&m->v, 2, 0);
}

bool em_mutex_trylock(struct em_mutex *m)
{
	uint32_t c = 0;

	return __atomic_compare_exchange_n(&m->v, &c, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

void em_mutex_unlock(struct em_mutex *m)
{
	if (__atomic_exchange_n(&m->v, 0, __ATOMIC_RELEASE) == 2)
		em_futex_wake(&m->v, 1);
}
