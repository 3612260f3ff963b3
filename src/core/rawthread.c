/* SPDX-License-Identifier: MIT */
/*
 * Threads of our own, unknown to libc: started with clone(2) from wherever the need arises, also
 * inside a signal handler.  They need their own stack and a thread-local block of their own,
 * because our initial-exec variables (and the stack protector of liburing) live at
 * fixed offsets from %fs.
 */
#include "core.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include "meta.h"
#include "sys.h"

enum { STACK_BYTES = 64 * 1024, TLS_ROOM = 64 * 1024 };

struct start {
	void (*fn)(void *);
	void *arg;
};

int32_t em_rawthread_count;

static __thread char tls_anchor __attribute__((tls_model("initial-exec")));

__attribute__((noreturn, used)) static void rawthread_main(struct start *s)
{
	s->fn(s->arg);
	__atomic_fetch_sub(&em_rawthread_count, 1, __ATOMIC_SEQ_CST);
	for (;;)
		em_syscall1(SYS_exit, 0);
}

/* Our thread-local variables lie within TLS_ROOM below the thread pointer: checked here, because
   a program with more static TLS than that would be corrupted otherwise. */
static bool tls_fits(void)
{
	uintptr_t tp;

	__asm__("mov %%fs:0, %0" : "=r"(tp));
	return tp - (uintptr_t)&tls_anchor < TLS_ROOM - 4096;
}

static int allocate(struct em_rawthread *rt)
{
	if (rt->mem) {
		em_memzero(rt->mem + STACK_BYTES, TLS_ROOM); /* of the thread before */
		return 0;
	}
	rt->mem = em_meta_alloc(STACK_BYTES + TLS_ROOM + 4096);
	return rt->mem ? 0 : -ENOMEM;
}

int em_rawthread_start_in(struct em_rawthread *rt, void (*fn)(void *), void *arg)
{
	/* Without CLONE_FS: the program may go to another root, or setns, which wants a root of its own. */
	const unsigned long flags = CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
				    CLONE_SYSVSEM | CLONE_SETTLS | CLONE_CHILD_CLEARTID;
	char *tp;
	struct start *s;
	uintptr_t *sp;
	uint32_t *alive = &rt->alive;
	uint64_t all = ~0ull, old;
	long ret;

	if (!tls_fits())
		return -ENOTSUP;
	if (allocate(rt))
		return -ENOMEM;
	*alive = 1;
	tp = rt->mem + STACK_BYTES + TLS_ROOM;
	*(void **)tp = tp; /* %fs:0 is the thread pointer itself */
	s = (struct start *)(tp + 1024);
	s->fn = fn;
	s->arg = arg;
	sp = (uintptr_t *)(rt->mem + STACK_BYTES);
	*--sp = 0;
	*--sp = (uintptr_t)s;
	/* The child starts with our mask: everything blocked, for good. */
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	{
		register long r10 __asm__("r10") = (long)alive;
		register long r8 __asm__("r8") = (long)tp;

		__asm__ volatile("syscall\n\t"
				 "test %%rax, %%rax\n\t"
				 "jnz 1f\n\t"
				 "xor %%ebp, %%ebp\n\t"
				 "pop %%rdi\n\t"
				 "and $-16, %%rsp\n\t"
				 "call rawthread_main\n\t"
				 "1:"
				 : "=a"(ret)
				 : "a"(SYS_clone), "D"(flags), "S"(sp), "d"(0), "r"(r10), "r"(r8)
				 : "rcx", "r11", "memory");
	}
	/* Counted when it is there, and no longer before it is gone: never one too many. */
	if (!em_is_err(ret))
		__atomic_fetch_add(&em_rawthread_count, 1, __ATOMIC_SEQ_CST);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	rt->tid = (int)ret;
	if (!em_is_err(ret))
		return 0;
	rt->alive = 0;
	return (int)ret;
}

/* The kernel's wake-up at the end of a thread is not a private futex's, and it comes a little before the thread
   has left the process, which some calls want to have no other. */
void em_rawthread_join(struct em_rawthread *rt)
{
	while (__atomic_load_n(&rt->alive, __ATOMIC_ACQUIRE))
		em_syscall4(SYS_futex, &rt->alive, FUTEX_WAIT, 1, NULL);
	while (rt->tid > 0 && em_syscall3(SYS_tgkill, em_sys_getpid(), rt->tid, 0) != -ESRCH)
		em_syscall0(SYS_sched_yield);
	rt->tid = 0;
}

int em_rawthread_start(void (*fn)(void *), void *arg)
{
	struct em_rawthread *rt = em_meta_alloc(sizeof(*rt));
	int ret = rt ? em_rawthread_start_in(rt, fn, arg) : -ENOMEM;

	if (!ret || !rt)
		return ret;
	em_meta_free(rt->mem, STACK_BYTES + TLS_ROOM + 4096);
	em_meta_free(rt, sizeof(*rt));
	return ret;
}
