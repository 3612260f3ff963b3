/* SPDX-License-Identifier: MIT */
/*
 * Threads of our own, unknown to libc: started with clone(2) from wherever the need arises, also
 * inside a signal handler.  They need their own stack and a thread-local block of their own,
 * because our initial-exec variables (and the stack protector of liburing) live at
 * fixed offsets from %fs.
 */
#include "core.h"

#include <errno.h>
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

static __thread char tls_anchor __attribute__((tls_model("initial-exec")));

__attribute__((noreturn, used)) static void rawthread_main(struct start *s)
{
	s->fn(s->arg);
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

int em_rawthread_start(void (*fn)(void *), void *arg)
{
	const unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
				    CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;
	char *mem, *tp;
	struct start *s;
	uintptr_t *sp;
	uint64_t all = ~0ull, old;
	long ret;

	if (!tls_fits())
		return -ENOTSUP;
	mem = em_meta_alloc(STACK_BYTES + TLS_ROOM + 4096);
	if (!mem)
		return -ENOMEM;
	tp = mem + STACK_BYTES + TLS_ROOM;
	*(void **)tp = tp; /* %fs:0 is the thread pointer itself */
	s = (struct start *)(tp + 1024);
	s->fn = fn;
	s->arg = arg;
	sp = (uintptr_t *)(mem + STACK_BYTES);
	*--sp = 0;
	*--sp = (uintptr_t)s;
	/* The child starts with our mask: everything blocked, for good. */
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	{
		register long r10 __asm__("r10") = 0;
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
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
	if (em_is_err(ret)) {
		em_meta_free(mem, STACK_BYTES + TLS_ROOM + 4096);
		return (int)ret;
	}
	return 0;
}
