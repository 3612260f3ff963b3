/* SPDX-License-Identifier: MIT */
/*
 * Upcall delivery: userfaultfd with UFFD_FEATURE_SIGBUS.  The faulting thread takes SIGBUS and
 * serves its own fault; no other thread is woken.
 *
 * Every other SIGBUS belongs to the program: signals.c knows what it asked for.
 */
#include "core.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "meta.h"
#include "range.h"
#include "sys.h"

#include "../intercept/signals.h"

enum { ALT_STACK_BYTES = 64 * 1024, PF_WRITE = 2 };

enum { AGAIN_MAX = 16, REFUSED_MAX = 64 };

/* A fault that is not ours may be a race with munmap: the retried access tells (SIGSEGV then).  When the
   same address comes again, somebody may just be replacing the mapping. */
static bool is_race(struct em_thread *t, uintptr_t addr)
{
	bool first = t->refused_addr != addr;

	t->refused_addr = addr;
	t->refused = first ? 0 : t->refused + 1;
	return first || (t->refused < REFUSED_MAX && em_range_settles(t, addr));
}

/* The same address served many times in a row: not a race any more. */
static void note_again(struct em_thread *t, uintptr_t addr)
{
	if (t->again_addr != addr) {
		t->again_addr = addr;
		t->again = 0;
	} else if (++t->again % AGAIN_MAX == 0) {
		em_enter(t, false);
		em_fault_resync(addr);
		em_leave(t, false);
	}
}

static enum em_fault_result serve(struct em_thread *t, uintptr_t addr, bool write)
{
	uint64_t start = em_cycles();
	enum em_fault_result res;

	if (__builtin_expect(em_proxy_is_stranger(t), 0)) {
		res = em_fault_serve(t, addr, write);
	} else {
		em_enter(t, false);
		res = em_fault(t, addr, write);
		em_leave(t, false);
	}
	if (res == EM_FAULT_DONE) {
		t->refused_addr = 0;
		note_again(t, addr);
		em_stats_fault_time(em_cycles_to_ns(em_cycles() - start));
	}
	return res;
}

/* The program's own word on a page that cannot be read; true: try again.  It runs as a handler of
   its would: outside the section, with the signal mask of the interrupted code. */
static bool error_callback(struct em_thread *t, uintptr_t addr, const ucontext_t *uc)
{
	const struct em_error_hook *hook = __atomic_load_n(&em_engine.error_hook, __ATOMIC_ACQUIRE);
	const struct em_region *r;
	struct extmem_error e = {
		.size = sizeof(e),
		.addr = (void *)addr,
		.page = (void *)t->lost.page,
		.store_offset = (uint64_t)t->lost.slot * EM_PAGE_SIZE,
		.error = t->lost.err,
	};
	uint64_t mask, all = ~0ull;
	bool again;

	if (!hook)
		return false;
	em_enter(t, false);
	r = em_range_region_at(addr);
	if (r) {
		e.region_start = (void *)r->start;
		e.region_end = (void *)r->end;
	}
	em_leave(t, false);
	em_memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	again = hook->fn(&e, hook->arg) == EXTMEM_ERROR_RETRY;
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
	return again;
}

static void on_sigbus(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	uintptr_t addr = (uintptr_t)si->si_addr;
	bool write = uc->uc_mcontext.gregs[REG_ERR] & PF_WRITE;
	struct em_thread *t;

	(void)sig;
	if (si->si_code == BUS_ADRERR && !em_space_may_manage(addr, 1)) {
		t = em_thread_self();
		if (t && is_race(t, addr))
			return;
	} else if (si->si_code == BUS_ADRERR) {
		t = em_thread_self();
		if (!t)
			em_panic("extmem: no memory for a thread context\n");
		em_upcall_keep_own_stack(t, &uc->uc_stack); /* perhaps made just now */
		switch (serve(t, addr, write)) {
		case EM_FAULT_DONE:
			return;
		case EM_FAULT_NOT_OURS:
			if (is_race(t, addr))
				return;
			break;
		case EM_FAULT_NOMEM:
			em_io_say_no_memory(false);
			break;
		case EM_FAULT_FULL:
			em_io_say_no_memory(true);
			break;
		case EM_FAULT_FAILED:
			if (error_callback(t, addr, uc))
				return;
			break;
		}
	}
	em_signals_chain(SIGBUS, si, uc);
}

struct kernel_sigaction {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

#define SA_RESTORER_FLAG 0x04000000ul

__asm__(".text\n"
	".globl em_upcall_restorer\n"
	".hidden em_upcall_restorer\n"
	".type em_upcall_restorer, @function\n"
	"em_upcall_restorer:\n"
	"mov $15, %rax\n" /* rt_sigreturn; unwinders know these bytes */
	"syscall\n"
	".size em_upcall_restorer, . - em_upcall_restorer\n");

int em_upcall_handle(int signo, void (*handler)(int, siginfo_t *, void *), uint64_t mask,
		     bool restart)
{
	struct kernel_sigaction sa = {
		.handler = handler,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_RESTORER_FLAG | (restart ? SA_RESTART : 0),
		.restorer = em_upcall_restorer,
		.mask = mask,
	};

	return (int)em_syscall4(SYS_rt_sigaction, signo, &sa, NULL, 8);
}

/* All signals stay blocked during an upcall: no handler of the program can run, and fault, while
   we own pages. */
int em_upcall_install(bool restart)
{
	return em_upcall_handle(SIGBUS, on_sigbus, ~0ull, restart);
}

void em_upcall_thread_prepare(struct em_thread *t)
{
	if (em_engine.opt.delivery == EM_DELIVERY_UPCALL && !t->alt_base)
		t->alt_base = (uintptr_t)em_meta_alloc(ALT_STACK_BYTES);
}

stack_t em_upcall_own_stack(const struct em_thread *t)
{
	return (stack_t){ .ss_sp = (void *)t->alt_base, .ss_size = ALT_STACK_BYTES };
}

/* A process that shares our memory but is no thread of ours (clone with CLONE_VM alone) must not get
   the stack of the thread whose context it uses. */
static bool is_owner(const struct em_thread *t)
{
	return t->alt_base && (t->in_vfork || em_sys_gettid() == t->tid);
}

void em_upcall_keep_own_stack(const struct em_thread *t, stack_t *ss)
{
	if (t->alt_base && (uintptr_t)ss->ss_sp == t->alt_base)
		return;
	if (is_owner(t))
		*ss = em_upcall_own_stack(t);
	else
		*ss = (stack_t){ .ss_flags = SS_DISABLE };
}

/* Upcalls and all signals of the program are taken here: it is never managed, and large enough for
   them to nest.  The program's own alternate stack exists only in our record (sigframe.c). */
void em_upcall_thread_start(struct em_thread *t)
{
	stack_t old, ss;

	if (em_engine.opt.delivery != EM_DELIVERY_UPCALL)
		return;
	em_upcall_thread_prepare(t);
	if (!t->alt_base)
		return;
	ss = em_upcall_own_stack(t);
	em_syscall2(SYS_sigaltstack, &ss, &old);
	if (!(old.ss_flags & SS_DISABLE)) {
		t->alt.sp = (uintptr_t)old.ss_sp;
		t->alt.size = old.ss_size;
		t->alt.flags = old.ss_flags & ~SS_ONSTACK;
	}
}
