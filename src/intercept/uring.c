/* SPDX-License-Identifier: MIT */
/*
 * The program's own io_uring rings.  The kernel uses a request's memory until the completion is in the ring,
 * so that memory is pinned from the submission on; each io_uring_enter looks what
 * has completed since.  Registered and provided buffers stay pinned until the ring is closed: the kernel keeps
 * the pages themselves, and a page that left and came back would be another one.
 *
 * The rings are mapped here a second time.  A ring with a kernel thread that polls for submissions
 * (SQPOLL) would start requests that nobody has seen: it gets no thread, and is told for ever that the
 * thread sleeps, so that the program wakes it by io_uring_enter, which submits.
 */
#include <errno.h>
#include <sys/mman.h>

#include "../core/core.h"
#include "../core/meta.h"
#include "../core/sys.h"
#include "signals.h"
#include "transfer.h"
#include "uring.h"

enum {
	RINGS = 256,
	NO_SQARRAY = 1 << 16,
	/* NO_MMAP and later ones that change the rings' layout are refused, as by an older kernel. */
	KNOWN_SETUP = 0x3fff | NO_SQARRAY | 1 << 17,
};

struct em_mutex em_uring_lock;
static struct em_ring *rings[RINGS];

static uint32_t *word(const struct em_ring *r, uint32_t off)
{
	return (uint32_t *)(r->sq + off);
}

static uint32_t load(const struct em_ring *r, uint32_t off)
{
	return __atomic_load_n(word(r, off), __ATOMIC_ACQUIRE);
}

/* ---- which ring ----------------------------------------------------------------------- */

/* dup makes a second number for the same ring. */
static bool is_same_file(int a, int b)
{
	long pid = em_sys_getpid();

	return em_syscall5(SYS_kcmp, pid, pid, 0 /* KCMP_FILE */, a, b) == 0;
}

struct em_ring *em_uring_find(int fd)
{
	for (int i = 0; i < RINGS; i++)
		if (rings[i] && rings[i]->used && rings[i]->fd == fd)
			return rings[i];
	for (int i = 0; i < RINGS; i++)
		if (rings[i] && rings[i]->used && rings[i]->fd >= 0 && is_same_file(rings[i]->fd, fd))
			return rings[i];
	return NULL;
}

static struct em_ring *any_free(void)
{
	for (int i = 0; i < RINGS; i++) {
		if (!rings[i])
			rings[i] = em_meta_alloc(sizeof(*rings[i]));
		if (!rings[i] || !rings[i]->used)
			return rings[i];
	}
	return NULL;
}

/* A ring that is registered with a thread lives on when its descriptor is closed. */
static bool is_registered(const struct em_ring *r)
{
	for (struct em_thread *t = em_thread_first(); t; t = t->next)
		for (int i = 0; i < EM_RING_NUMBERS; i++)
			if (t->ring[i] == r)
				return true;
	return false;
}

static void forget(struct em_ring *r)
{
	r->fd = -1;
	if (is_registered(r))
		return;
	r->used = false;
	em_sys_munmap(r->sq, r->sq_bytes);
	em_sys_munmap(r->sqes, r->sqe_bytes);
	em_flights_end(&r->flights);
	for (int i = 0; i < EM_RING_PBUFS; i++)
		if (r->pbuf[i].known)
			em_meta_free(r->pbuf[i].known, r->pbuf[i].n * sizeof(uint64_t));
	em_memzero(r->pbuf, sizeof(r->pbuf));
}

/* The program closes descriptors first to last. */
void em_uring_closed(unsigned first, unsigned last)
{
	struct em_thread *t = NULL;

	for (int i = 0; i < RINGS && rings[i]; i++) {
		if (rings[i]->fd < 0 || (unsigned)rings[i]->fd < first || (unsigned)rings[i]->fd > last)
			continue;
		t = em_thread_self();
		if (!t)
			return;
		em_enter(t, true);
		em_mutex_lock(&em_uring_lock);
		if (rings[i]->fd >= 0)
			forget(rings[i]);
		em_mutex_unlock(&em_uring_lock);
		em_leave(t, true);
	}
}

/* ---- setup ------------------------------------------------------------------------------- */

static bool map_rings(struct em_ring *r)
{
	const struct io_uring_params *p = &r->p;
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
	size_t cq = p->cq_off.cqes + p->cq_entries * (p->flags & IORING_SETUP_CQE32 ? 32ul : 16ul);
	long a, b;

	r->sq_bytes = p->sq_off.array + p->sq_entries * 4ul;
	if (cq > r->sq_bytes)
		r->sq_bytes = cq;
	r->sqe_bytes = p->sq_entries * (p->flags & IORING_SETUP_SQE128 ? 128ul : 64ul);
	a = em_sys_mmap(NULL, r->sq_bytes, prot, flags, r->fd, IORING_OFF_SQ_RING);
	b = em_sys_mmap(NULL, r->sqe_bytes, prot, flags, r->fd, IORING_OFF_SQES);
	if (em_is_err(a) || em_is_err(b)) {
		if (!em_is_err(a))
			em_sys_munmap((void *)a, r->sq_bytes);
		if (!em_is_err(b))
			em_sys_munmap((void *)b, r->sqe_bytes);
		return false;
	}
	r->sq = (char *)a;
	r->sqes = (struct io_uring_sqe *)b;
	/* A child of fork has its own. */
	em_sys_madvise(r->sq, r->sq_bytes, MADV_DONTFORK);
	em_sys_madvise(r->sqes, r->sqe_bytes, MADV_DONTFORK);
	return true;
}

static bool adopt(struct em_thread *t, int fd, const struct io_uring_params *p, bool thread)
{
	struct em_ring *r;
	bool ok = false;

	em_enter(t, true);
	em_mutex_lock(&em_uring_lock);
	r = any_free();
	if (r) {
		r->p = *p;
		r->seen = r->recorded = 0;
		r->emulates_thread = thread;
		r->fd = fd;
		ok = r->used = map_rings(r);
		if (ok && thread)
			__atomic_fetch_or(word(r, p->sq_off.flags), IORING_SQ_NEED_WAKEUP,
					  __ATOMIC_SEQ_CST);
	}
	em_mutex_unlock(&em_uring_lock);
	em_leave(t, true);
	return ok;
}

static long setup(struct em_regs *r)
{
	const uint32_t thread_flags = IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF;
	struct io_uring_params p;
	struct em_thread *t = em_thread_self();
	uint32_t asked;
	long fd;

	if (!t)
		return -ENOMEM;
	if (em_hold_fetch(r, &p, (void *)r->arg[1], sizeof(p)))
		return -EFAULT;
	asked = p.flags;
	if (asked & ~(uint32_t)KNOWN_SETUP)
		return -EINVAL;
	if (asked & IORING_SETUP_SQPOLL)
		p.flags &= ~thread_flags;
	fd = em_syscall2(SYS_io_uring_setup, r->arg[0], &p);
	if (fd < 0)
		return fd;
	if (!adopt(t, (int)fd, &p, asked & IORING_SETUP_SQPOLL)) {
		em_sys_close((int)fd);
		return -ENOMEM;
	}
	p.flags = asked;
	if (em_hold_store(r, (void *)r->arg[1], &p, sizeof(p))) {
		em_uring_closed((unsigned)fd, (unsigned)fd);
		em_sys_close((int)fd);
		return -EFAULT;
	}
	return fd;
}

/* ---- completions and submissions ------------------------------------------------------------- */

/* What the kernel has completed since the last look.  After more than the ring holds some were missed: what
   was in flight then stays pinned. */
static void look(struct em_ring *r)
{
	uint32_t tail = load(r, r->p.cq_off.tail), mask = load(r, r->p.cq_off.ring_mask);
	uint32_t wide = r->p.flags & IORING_SETUP_CQE32 ? 1 : 0;
	const struct io_uring_cqe *c = (void *)(r->sq + r->p.cq_off.cqes);

	if (tail - r->seen > r->p.cq_entries) {
		for (uint32_t i = 0; i < EM_FLIGHT_BUCKETS; i++)
			for (struct em_flight *x = r->flights.bucket[i]; x; x = x->next)
				x->stays = true;
		r->seen = tail;
	}
	for (; r->seen != tail; r->seen++) {
		const struct io_uring_cqe *e = &c[(r->seen & mask) << wide];

		if (!(e->flags & IORING_CQE_F_MORE))
			em_flight_complete(&r->flights, e->user_data);
	}
}

static void record(struct em_hold *h, struct em_ring *r, const struct io_uring_sqe *shared)
{
	struct io_uring_sqe s = *shared;
	struct em_flight *f = em_flight_begin(&r->flights, s.user_data);

	if (!f) {
		h->err = -ENOMEM;
		return;
	}
	if (s.flags & IOSQE_CQE_SKIP_SUCCESS)
		f->stays = true;
	if (s.opcode == IORING_OP_PROVIDE_BUFFERS) {
		h->pins = &r->flights.permanent;
		em_hold_range(h, s.addr, (size_t)s.len * (uint32_t)s.fd, EM_DIR_OUT);
	} else {
		h->pins = &f->pins;
		em_uring_hold_request(h, &s);
	}
	h->err = 0; /* the completion says what is wrong with it */
}

/* [engine, lock] */
static uint32_t submit(struct em_hold *h, struct em_ring *r, uint32_t n)
{
	uint32_t head = load(r, r->p.sq_off.head), tail = load(r, r->p.sq_off.tail);
	uint32_t mask = load(r, r->p.sq_off.ring_mask);
	uint32_t shift = r->p.flags & IORING_SETUP_SQE128 ? 1 : 0;

	if (r->emulates_thread || n > tail - head)
		n = tail - head;
	if ((int32_t)(head - r->recorded) > 0)
		r->recorded = head;
	for (; (int32_t)(r->recorded - (head + n)) < 0; r->recorded++) {
		uint32_t i = r->recorded & mask;

		if (!(r->p.flags & NO_SQARRAY))
			i = word(r, r->p.sq_off.array)[i];
		if (i <= mask)
			record(h, r, &r->sqes[i << shift]);
	}
	h->pins = NULL;
	return n;
}

void em_uring_keep(struct em_hold *h, struct em_ring *r, uintptr_t addr, size_t len)
{
	h->pins = &r->flights.permanent;
	em_hold_range(h, addr, len, EM_DIR_OUT);
	h->pins = NULL;
}

void em_uring_look_at_buffers(struct em_hold *h, struct em_ring *r)
{
	for (int i = 0; i < EM_RING_PBUFS && r->pbuf[i].n; i++) {
		const struct io_uring_buf *e = r->pbuf[i].entry;

		if (!em_user_readable(h->t, (uintptr_t)e, r->pbuf[i].n * sizeof(*e)))
			continue;
		for (uint32_t k = 0; k < r->pbuf[i].n; k++) {
			if (!e[k].addr || r->pbuf[i].known[k] == e[k].addr)
				continue;
			em_uring_keep(h, r, e[k].addr, e[k].len);
			r->pbuf[i].known[k] = e[k].addr;
		}
	}
}

/* ---- enter ------------------------------------------------------------------------------------- */

struct wait_arg {
	uint64_t sigmask;
	uint32_t sigmask_sz, pad;
	uint64_t ts;
};

/* The mask is one that is installed for the wait: it must leave upcalls alone. */
static void replace_wait(struct em_hold *h, long *a, struct wait_arg *w, uint64_t *mask)
{
	enum { EXT_ARG = 8, EXT_ARG_REG = 64 };

	if (!a[4] || (a[3] & EXT_ARG_REG))
		return;
	if (!(a[3] & EXT_ARG)) {
		if (a[5] == 8 && !em_hold_get(h, mask, (uintptr_t)a[4], 8)) {
			*mask = em_sigmask_to_kernel(*mask);
			a[4] = (long)mask;
		}
		return;
	}
	if (a[5] != sizeof(*w) || em_hold_get(h, w, (uintptr_t)a[4], sizeof(*w)))
		return;
	em_hold_range(h, w->ts, 16, EM_DIR_IN);
	if (w->sigmask && w->sigmask_sz == 8 && !em_hold_get(h, mask, w->sigmask, 8)) {
		*mask = em_sigmask_to_kernel(*mask);
		w->sigmask = (uint64_t)mask;
	}
	a[4] = (long)w;
}

struct em_ring *em_uring_visit(struct em_hold *h, int fd, long flags, uint32_t *n)
{
	struct em_ring *r = NULL;

	if (!h->inside)
		em_enter(h->t, true);
	h->inside = true;
	em_mutex_lock(&em_uring_lock);
	if (flags & EM_RING_REGISTERED)
		r = (unsigned)fd < EM_RING_NUMBERS ? h->t->ring[fd] : NULL;
	else
		r = em_uring_find(fd);
	if (r && !r->used)
		r = NULL;
	if (r) {
		look(r);
		em_uring_look_at_buffers(h, r);
		if (n)
			*n = submit(h, r, *n);
	}
	em_mutex_unlock(&em_uring_lock);
	return r;
}

static long enter(struct em_regs *regs)
{
	struct em_hold h;
	struct wait_arg w;
	struct em_ring *r;
	uint64_t mask;
	uint32_t n = (uint32_t)regs->arg[1];
	long a[6], ret;

	em_memcpy(a, regs->arg, sizeof(a));
	em_hold_begin(&h, regs->rsp);
	if (h.err)
		return h.err;
	replace_wait(&h, a, &w, &mask);
	r = em_uring_visit(&h, (int)a[0], a[3], &n);
	if (r && r->emulates_thread) {
		a[1] = n;
		a[3] &= ~(long)(IORING_ENTER_SQ_WAKEUP | IORING_ENTER_SQ_WAIT);
	}
	ret = em_hold_ready(&h);
	if (!ret)
		ret = em_syscall6(SYS_io_uring_enter, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (r) {
		em_uring_visit(&h, (int)regs->arg[0], regs->arg[3], NULL);
		if (r->emulates_thread && ret >= 0)
			ret = regs->arg[1];
	}
	em_hold_end(&h);
	return ret;
}

long em_uring_call(struct em_regs *r, const struct em_call *c)
{
	(void)c;
	if (r->nr == SYS_io_uring_setup)
		return setup(r);
	return r->nr == SYS_io_uring_enter ? enter(r) : em_uring_register(r);
}

/* The parent's requests are in the parent's memory. */
void em_requests_fork_child(void)
{
	em_memzero(&em_uring_lock, sizeof(em_uring_lock));
	for (int i = 0; i < RINGS && rings[i]; i++)
		em_memzero(rings[i], sizeof(*rings[i]));
}
