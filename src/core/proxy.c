/* SPDX-License-Identifier: MIT */
/*
 * Work on behalf of other processes that share our memory: vfork children, clone with CLONE_VM but
 * without CLONE_THREAD.  Such a process may be killed by itself, and whatever it owned then, a page
 * or a lock, would be owned for ever.  So it owns nothing: a thread of the engine, which
 * dies only with the whole program, does its engine work while it waits.
 *
 * The request lies in the thread context, so there is one at a time for each; its memory
 * outlives the process that posted it.
 */
#include "core.h"

#include <signal.h>

#include "sys.h"

static struct {
	uint32_t state; /* 0 none, 1 starting or running, 2 cannot be had */
	uint32_t posted; /* futex: changes with each request */
	uint32_t strangers; /* processes other than vfork children were made */
} px;

enum { IDLE, POSTED, RUNNING, DONE };

static bool serve_posted(void)
{
	bool any = false;

	for (struct em_thread *t = em_thread_first(); t; t = t->next) {
		struct em_proxy_request *q = &t->proxy;
		uint32_t posted = POSTED;

		if (!__atomic_compare_exchange_n(&q->state, &posted, RUNNING, false,
						 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			continue;
		q->ret = q->fn(q->arg);
		__atomic_store_n(&q->state, DONE, __ATOMIC_RELEASE);
		em_futex_wake(&q->state, 1 << 30);
		any = true;
	}
	return any;
}

static void proxy_main(void *arg)
{
	(void)arg;
	if (!em_thread_self()) {
		__atomic_store_n(&px.state, 2, __ATOMIC_RELEASE);
		return;
	}
	for (;;) {
		uint32_t seen = __atomic_load_n(&px.posted, __ATOMIC_SEQ_CST);

		if (!serve_posted())
			em_futex_wait(&px.posted, seen, 0);
	}
}

void em_proxy_start(bool strangers)
{
	uint32_t none = 0;

	if (strangers)
		__atomic_store_n(&px.strangers, 1, __ATOMIC_RELEASE);
	if (em_sys_getpid() != em_engine.pid) /* it would die with the process that makes it */
		return;
	if (__atomic_load_n(&px.state, __ATOMIC_ACQUIRE) ||
	    !__atomic_compare_exchange_n(&px.state, &none, 1, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return;
	if (em_rawthread_start(proxy_main, NULL))
		__atomic_store_n(&px.state, 2, __ATOMIC_RELEASE);
}

bool em_proxy_is_stranger(const struct em_thread *t)
{
	if (!t->in_vfork && !__atomic_load_n(&px.strangers, __ATOMIC_ACQUIRE))
		return false;
	return em_sys_getpid() != em_engine.pid;
}

static uint32_t wait_while(struct em_proxy_request *q, uint32_t a, uint32_t b)
{
	uint32_t seen;

	while ((seen = __atomic_load_n(&q->state, __ATOMIC_ACQUIRE)) == a || seen == b)
		em_futex_wait(&q->state, seen, 0);
	return seen;
}

/* Signals are blocked: a handler could fault and post a request over this one. */
static long post(struct em_proxy_request *q, em_proxy_fn fn, const long *arg)
{
	uint64_t all = ~0ull, old;
	long ret;

	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	/* One of a process that was killed on this context before may still be on. */
	wait_while(q, POSTED, RUNNING);
	q->fn = fn;
	em_memcpy(q->arg, arg, sizeof(q->arg));
	__atomic_store_n(&q->state, POSTED, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&px.posted, 1, __ATOMIC_SEQ_CST);
	em_futex_wake(&px.posted, 1);
	wait_while(q, POSTED, RUNNING);
	ret = q->ret;
	__atomic_store_n(&q->state, IDLE, __ATOMIC_RELEASE);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	return ret;
}

long em_proxy_call(struct em_thread *t, em_proxy_fn fn, const long *arg)
{
	if (!em_proxy_is_stranger(t) || __atomic_load_n(&px.state, __ATOMIC_ACQUIRE) != 1)
		return fn(arg);
	return post(&t->proxy, fn, arg);
}

/* The thread did not come along. */
void em_proxy_fork_child(void)
{
	for (struct em_thread *t = em_thread_first(); t; t = t->next)
		t->proxy.state = IDLE;
	px.state = 0;
	px.strangers = 0;
}
