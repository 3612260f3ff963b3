/* SPDX-License-Identifier: MIT */
/*
 * Reads that a thread waits for by looking.
 *
 * A thread that sleeps until its page has come pays for the way into idle and out of it again: where
 * that is an exit to a hypervisor it costs a third of the whole read.  So as long as a processor would
 * have nothing else to do, the thread asks through a ring and looks at its completions, and gives
 * the processor away at each turn to whoever wants it.  It sleeps after all when the store takes longer
 * than looking is worth, when more threads wait for reads than there are processors, or when
 * somebody else turned out to want this one.
 *
 * The rings are made when first needed.  One is used by one thread at a time, whichever has claimed it. [sigsafe]
 */
#include "internal.h"

#include <errno.h>
#include <sched.h>

enum {
	LOOKS = 32,		/* between two offers of the processor */
	WANTED_NS = 200000,	/* whoever gets it back later than that was not alone */
	/* One read in so many is slept through.  Where the device interrupts one processor only, that is the one to
	   look from, or it is asleep when the interrupt comes; the scheduler takes who sleeps there, but leaves
	   who looks where it is. */
	NAP = 32,
	SLEEPS_MOST = 64,	/* reads to sleep through after looking did not pay: 1, 2, 4 ... that many */
};

void em_spin_init(struct em_store *st, unsigned limit_us)
{
	cpu_set_t set;
	long bytes = em_syscall3(SYS_sched_getaffinity, 0, sizeof(set), &set);
	uint32_t cpus = 0;

	for (long i = 0; i < bytes / (long)sizeof(uint64_t); i++)
		for (uint64_t w = ((uint64_t *)&set)[i]; w; w &= w - 1)
			cpus++;
	st->spin.limit_ns = (uint64_t)limit_us * 1000;
	/* On a single processor the threads that evict and read ahead would always want it. */
	st->spin.most = !limit_us || st->no_uring || cpus < 2 ? 0 : cpus;
	if (st->spin.most > EM_SPINNERS)
		st->spin.most = EM_SPINNERS;
}

static struct em_ioq *ring_of(struct em_store *st, struct em_spinner *s)
{
	struct em_ioq *q = s->q;

	if (q || em_ioq_create(st, 1, st->fd_min, &q))
		return q;
	if (!em_ioq_is_uring(q)) {
		em_ioq_destroy(q);
		st->spin.most = 0;
		return NULL;
	}
	/* pairs with the readers of em_spin_fds */
	__atomic_store_n(&s->q, q, __ATOMIC_RELEASE);
	return q;
}

static struct em_spinner *claim(struct em_store *st)
{
	for (uint32_t i = 0; i < st->spin.most; i++) {
		struct em_spinner *s = &st->spin.s[i];

		if (__atomic_exchange_n(&s->busy, 1, __ATOMIC_ACQUIRE))
			continue;
		if (ring_of(st, s) && ++s->turn % NAP)
			return s;
		__atomic_store_n(&s->busy, 0, __ATOMIC_RELEASE);
		break;
	}
	return NULL;
}

static bool worth_it(struct em_spin *sp)
{
	uint32_t left = __atomic_load_n(&sp->sleeps, __ATOMIC_RELAXED);

	if (left)
		__atomic_store_n(&sp->sleeps, left - 1, __ATOMIC_RELAXED);
	return !left;
}

/* A disk is slow now and then, one that turns is always: each time that looking was in vain, twice as many reads
   are slept through as the time before, and half as many after it paid. */
static void judge(struct em_spin *sp, bool paid)
{
	uint32_t n = __atomic_load_n(&sp->penalty, __ATOMIC_RELAXED);

	if (paid && !n)
		return;
	n = paid ? n / 2 : n ? n * 2 : 1;
	if (n > SLEEPS_MOST)
		n = SLEEPS_MOST;
	__atomic_store_n(&sp->penalty, n, __ATOMIC_RELAXED);
	if (!paid)
		__atomic_store_n(&sp->sleeps, n, __ATOMIC_RELAXED);
}

/* Until there is something to collect, or looking does not pay. */
static void look(const struct em_ioq *q, struct em_spin *sp)
{
	uint64_t start = em_store_now_ns(), now = start, offered;

	do {
		for (int i = 0; i < LOOKS; i++) {
			if (em_ioq_ready(q)) {
				judge(sp, true);
				return;
			}
			em_cpu_relax();
		}
		/* Too many now: the rest asleep. */
		if (__atomic_load_n(&sp->readers, __ATOMIC_RELAXED) > sp->most)
			return;
		offered = now = em_store_now_ns();
		if (now - start >= sp->limit_ns)
			break;
		em_syscall0(SYS_sched_yield);
		now = em_store_now_ns();
	} while (now - offered < WANTED_NS);
	judge(sp, false);
}

static int read_looking(struct em_store *st, struct em_ioq *q, em_slot_t slot, void *buf, size_t n)
{
	struct iovec iov = {buf, n * EM_SLOT_SIZE};
	struct em_io io = {.slot = slot, .iov = &iov, .iovcnt = 1, .npages = (uint32_t)n};

	em_ioq_submit(q, &io);
	em_ioq_flush(q);
	look(q, &st->spin);
	while (!em_ioq_reap(q, 1000000))
		;
	return io.result;
}

int em_store_read_now(struct em_store *st, em_slot_t slot, void *buf, size_t n)
{
	struct em_spin *sp = &st->spin;
	struct em_spinner *s = NULL;
	int ret;

	if (!sp->most || st->inject)
		return em_store_read(st, slot, buf, n);
	if (__atomic_fetch_add(&sp->readers, 1, __ATOMIC_RELAXED) < sp->most && worth_it(sp))
		s = claim(st);
	if (s) {
		ret = read_looking(st, s->q, slot, buf, n);
		__atomic_store_n(&s->busy, 0, __ATOMIC_RELEASE);
	} else {
		ret = em_store_read(st, slot, buf, n);
	}
	__atomic_fetch_sub(&sp->readers, 1, __ATOMIC_RELAXED);
	return ret;
}

void em_store_stop_looking(struct em_store *st)
{
	__atomic_store_n(&st->spin.most, 0, __ATOMIC_RELAXED);
}

size_t em_spin_fds(const struct em_store *st, int *fds, size_t max)
{
	size_t n = 0;

	for (uint32_t i = 0; i < EM_SPINNERS; i++) {
		const struct em_ioq *q = __atomic_load_n(&st->spin.s[i].q, __ATOMIC_ACQUIRE);

		if (q)
			n += em_ioq_fds(q, fds + n, max - n);
	}
	return n;
}

int em_spin_move_fd(struct em_store *st, int old, int fd_min)
{
	int err = -EBADF;

	for (uint32_t i = 0; i < EM_SPINNERS && err == -EBADF; i++) {
		struct em_ioq *q = __atomic_load_n(&st->spin.s[i].q, __ATOMIC_ACQUIRE);

		if (q)
			err = em_ioq_move_fd(q, old, fd_min);
	}
	return err;
}

static void forget(struct em_store *st, void (*how)(struct em_ioq *q))
{
	for (uint32_t i = 0; i < EM_SPINNERS; i++)
		if (st->spin.s[i].q)
			how(st->spin.s[i].q);
	em_memzero(st->spin.s, sizeof(st->spin.s));
	st->spin.readers = 0;
}

void em_spin_close(struct em_store *st)
{
	forget(st, em_ioq_destroy);
}

void em_spin_fork_child(struct em_store *st)
{
	forget(st, em_ioq_abandon);
}
