/* SPDX-License-Identifier: MIT */
/*
 * Messages, one raw write each.  They go to a descriptor that belongs to the program, so they must
 * neither kill it (SIGPIPE, SIGXFSZ) nor wait for whoever reads the other end.
 */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

#include "sys.h"

char *em_put_text(char *p, const char *s)
{
	while (*s)
		*p++ = *s++;
	return p;
}

char *em_put_number(char *p, uint64_t v, unsigned base)
{
	char tmp[24];
	int n = 0;

	do {
		tmp[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		*p++ = tmp[--n];
	return p;
}

void em_swallow(int sig, uint64_t pending_before)
{
	const struct timespec now = { 0, 0 };
	uint64_t set = 1ull << (sig - 1);

	if (!(pending_before & set))
		em_syscall4(SYS_rt_sigtimedwait, &set, NULL, &now, sizeof(set));
}

void em_write_all(int fd, const char *buf, size_t len)
{
	uint64_t all = ~0ull, mask, pending = 0;
	long n = 0;

	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, sizeof(all));
	em_syscall2(SYS_rt_sigpending, &pending, sizeof(pending));
	while (len && (n = em_syscall3(SYS_write, fd, buf, len)) > 0) {
		buf += n;
		len -= (size_t)n;
	}
	if (n == -EPIPE)
		em_swallow(SIGPIPE, pending);
	if (n == -EFBIG)
		em_swallow(SIGXFSZ, pending);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

void em_say(const char *msg)
{
	struct pollfd p = { .fd = 2, .events = POLLOUT };
	const struct timespec soon = { 0, 100000000 };
	size_t n = 0;

	while (msg[n])
		n++;
	/* A full pipe: whoever should empty it may be waiting for the page that we are about. */
	if (em_syscall5(SYS_ppoll, &p, 1, &soon, NULL, 0) == 1)
		em_write_all(2, msg, n);
}

/* Our callers have all signals blocked, and the program may have a handler that makes things worse. */
static void make_deadly(int sig)
{
	const uint64_t dfl[4] = { 0 }, set = 1ull << (sig - 1);

	em_syscall4(SYS_rt_sigaction, sig, dfl, NULL, sizeof(set));
	em_syscall4(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof(set));
}

void em_panic(const char *msg)
{
	em_say(msg);
	make_deadly(SIGABRT);
	for (;;) {
		em_syscall2(SYS_kill, em_sys_getpid(), SIGABRT);
		em_syscall1(SYS_exit_group, 134);
	}
}

bool em_say_limit(struct em_say_limit *l, uint32_t burst, uint32_t *dropped)
{
	uint64_t now = em_now_ns(), start = __atomic_load_n(&l->start_ns, __ATOMIC_RELAXED);

	if ((!start || now - start > EM_SAY_WINDOW_NS) &&
	    __atomic_compare_exchange_n(&l->start_ns, &start, now, false, __ATOMIC_RELAXED,
					__ATOMIC_RELAXED))
		__atomic_store_n(&l->said, 0, __ATOMIC_RELAXED);
	if (__atomic_fetch_add(&l->said, 1, __ATOMIC_RELAXED) >= burst) {
		__atomic_fetch_add(&l->dropped, 1, __ATOMIC_RELAXED);
		return false;
	}
	*dropped = __atomic_exchange_n(&l->dropped, 0, __ATOMIC_RELAXED);
	return true;
}
