/* SPDX-License-Identifier: MIT */
/*
 * Alternate stacks and signal frames as the program expects them.
 *
 * The kernel writes its frames to our alternate stack and nowhere else, because it cannot write to a
 * managed page that is not in memory: that would end the program.  We write the program's frame to
 * the stack that it would have got, taking upcalls where that stack is managed, and enter the
 * handler with rt_sigreturn, which changes registers, stack and mask in one step.
 * The handler returns to em_signal_restorer, which copies the frame back here first: while
 * the handler ran, its page may have left.
 *
 * Layouts and rules are those of the kernel for x86-64: arch/x86/kernel/signal*.c, kernel/signal.c.
 */
#include <errno.h>
#include <stddef.h>

#include "../core/core.h"
#include "../core/sys.h"
#include "hold.h"
#include "hook.h"
#include "signals.h"

enum {
	RED_ZONE = 128,
	SW_RESERVED = 464, /* in the fxsave area: what the kernel says of the rest */
	FXSAVE_BYTES = 512,
	FP_MAGIC = 0x46505853,
	FP_MAX = 16384,	   /* AMX needs 11 KiB */
	OWN_FRAMES = 16384, /* room below us where no stack of ours exists */
	MIN_ALT_BYTES = 2048,
};

#define AUTODISARM (1u << 31) /* SS_AUTODISARM */
#define EFLAGS_HANDLER_CLEARS 0x10500l /* RF, DF, TF */

/* What the kernel has of a ucontext_t; glibc's goes on. */
struct kernel_uc {
	unsigned long flags;
	void *link;
	stack_t stack;
	mcontext_t mc;
	uint64_t mask;
};
_Static_assert(offsetof(struct kernel_uc, mask) == offsetof(ucontext_t, uc_sigmask), "the same");

struct sigframe {
	uintptr_t pretcode;
	struct kernel_uc uc;
	siginfo_t info;
};
_Static_assert(sizeof(struct sigframe) == 440, "as the kernel lays it out");

/* ---- alternate stacks -------------------------------------------------------------------- */

static bool within(const struct em_alt_stack *alt, uintptr_t sp)
{
	return sp > alt->sp && sp - alt->sp <= alt->size;
}

static bool on_alt(const struct em_alt_stack *alt, uintptr_t sp)
{
	return !(alt->flags & AUTODISARM) && within(alt, sp);
}

static long set_alt(struct em_alt_stack *alt, const stack_t *want, uintptr_t sp)
{
	int mode = want->ss_flags & ~AUTODISARM;

	if (on_alt(alt, sp))
		return -EPERM;
	if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0)
		return -EINVAL;
	if (mode != SS_DISABLE && want->ss_size < MIN_ALT_BYTES)
		return -ENOMEM;
	alt->sp = mode == SS_DISABLE ? 0 : (uintptr_t)want->ss_sp;
	alt->size = mode == SS_DISABLE ? 0 : want->ss_size;
	alt->flags = want->ss_flags;
	alt->disarmed = false;
	return 0;
}

/* Where the kernel has the program's alternate stack. */
static void pass_sigaltstack(struct em_regs *r)
{
	struct em_hold h;

	em_hold_begin(&h, r->rsp);
	em_hold_range(&h, (uintptr_t)r->arg[0], sizeof(stack_t), EM_DIR_IN);
	em_hold_range(&h, (uintptr_t)r->arg[1], sizeof(stack_t), EM_DIR_OUT);
	r->ret = em_hold_ready(&h);
	if (!r->ret)
		r->ret = em_syscall2(SYS_sigaltstack, r->arg[0], r->arg[1]);
	em_hold_end(&h);
}

void em_sigframe_sigaltstack(struct em_regs *r)
{
	const stack_t *ss = (const void *)r->arg[0];
	stack_t *old = (void *)r->arg[1], was = { 0 }, want;
	struct em_thread *t = em_thread_self();

	if (!t || !em_signals_are_ours(SIGBUS)) {
		pass_sigaltstack(r);
		return;
	}
	was.ss_sp = (void *)t->alt.sp;
	was.ss_size = t->alt.size;
	was.ss_flags = (!t->alt.size ? SS_DISABLE : on_alt(&t->alt, r->rsp) ? SS_ONSTACK : 0) |
		       (t->alt.flags & AUTODISARM);
	r->ret = ss ? em_hold_fetch(r, &want, ss, sizeof(want)) : 0;
	if (!r->ret && ss)
		r->ret = set_alt(&t->alt, &want, r->rsp);
	if (!r->ret && old)
		r->ret = em_hold_store(r, old, &was, sizeof(was));
}

static bool on_own_stack(const struct em_thread *t, uintptr_t sp)
{
	return t->alt_base && sp - t->alt_base < em_upcall_own_stack(t).ss_size;
}

/* ---- into the handler ---------------------------------------------------------------------- */

static size_t fp_bytes(const char *fp)
{
	uint32_t magic, size;

	if (!fp)
		return 0;
	em_memcpy(&magic, fp + SW_RESERVED, 4);
	em_memcpy(&size, fp + SW_RESERVED + 4, 4);
	return magic == FP_MAGIC && size >= FXSAVE_BYTES && size <= FP_MAX ? size : FXSAVE_BYTES;
}

struct place {
	uintptr_t fp, frame;
	size_t fp_size;
};

/* False: the alternate stack would overflow. */
static bool find_place(const struct em_sigdelivery *d, struct place *p)
{
	const struct em_alt_stack *alt = &d->t->alt;
	const mcontext_t *mc = &d->uc->uc_mcontext;
	uintptr_t sp = (uintptr_t)mc->gregs[REG_RSP] - RED_ZONE, here;
	bool on = on_alt(alt, sp), entering = (d->act.flags & SA_ONSTACK) && alt->size && !on;

	here = (uintptr_t)__builtin_frame_address(0);
	if (entering)
		sp = alt->sp + alt->size;
	else if (on_own_stack(d->t, sp) || sp - (here - OWN_FRAMES) < 2 * OWN_FRAMES)
		sp = here - OWN_FRAMES; /* the kernel's frame and we ourselves are in the way */
	p->fp_size = fp_bytes((const char *)mc->fpregs);
	p->fp = (sp - p->fp_size) & ~63ul;
	p->frame = ((p->fp - sizeof(struct sigframe)) & ~15ul) - 8;
	return !(on || entering) || within(alt, p->frame);
}

/* A restorer of the program's own makes the system call itself, perhaps where it is not hooked:
   then the frame has to be one that the kernel can take. */
static void fill_frame(const struct em_sigdelivery *d, const struct place *p, struct sigframe *f)
{
	const struct em_alt_stack *alt = &d->t->alt;
	struct kernel_uc *uc = &f->uc;

	f->pretcode = d->act.restorer ? d->act.restorer : (uintptr_t)em_signal_restorer;
	em_memcpy(uc, d->uc, sizeof(*uc));
	uc->mc.fpregs = (void *)(p->fp_size ? p->fp : 0);
	em_memcpy(&f->info, &d->info, sizeof(f->info));
	if (d->act.restorer)
		return;
	uc->mask = em_sigmask_to_program(d->t, uc->mask);
	uc->stack = (stack_t){ .ss_sp = (void *)alt->sp, .ss_size = alt->size,
			       .ss_flags = alt->flags };
}

static void write_frame(struct em_sigdelivery *d, const struct place *p)
{
	struct sigframe f;

	fill_frame(d, p, &f);
	if (d->act.restorer && em_space_may_manage(p->frame, p->fp + p->fp_size - p->frame)) {
		/* The kernel reads this one itself.  Held until a call from above it. */
		em_hazard_begin(d->t, p->frame);
		em_hazard_push(d->t, p->frame, p->fp + p->fp_size - p->frame, p->frame);
	}
	__atomic_store_n(&d->t->moving, d, __ATOMIC_SEQ_CST);
	em_memcpy((void *)p->fp, d->uc->uc_mcontext.fpregs, p->fp_size);
	em_memcpy((void *)p->frame, &f, sizeof(f));
	__atomic_store_n(&d->t->moving, NULL, __ATOMIC_SEQ_CST);
}

/* As the kernel leaves the registers for a handler; without an fpregs pointer it gives it a fresh
   floating-point state. */
static void go(const struct em_sigdelivery *d, const struct place *p, uint64_t mask)
{
	struct kernel_uc uc;
	greg_t *g;

	em_memcpy(&uc, d->uc, sizeof(uc));
	g = uc.mc.gregs;
	uc.mc.fpregs = NULL;
	g[REG_RSP] = (greg_t)p->frame;
	g[REG_RIP] = (greg_t)d->act.handler;
	g[REG_RAX] = 0;
	g[REG_RDI] = d->signo;
	g[REG_RSI] = (greg_t)(p->frame + offsetof(struct sigframe, info));
	g[REG_RDX] = (greg_t)(p->frame + offsetof(struct sigframe, uc));
	g[REG_EFL] &= ~EFLAGS_HANDLER_CLEARS;
	uc.mask = em_sigmask_to_kernel(mask);
	em_upcall_keep_own_stack(d->t, &uc.stack);
	em_sigreturn_from(&uc);
}

static bool between(greg_t rip, const char *from, const char *end)
{
	return rip >= (greg_t)from && rip < (greg_t)end;
}

/* A transfer of which a part is done returns that part: the kernel would not have restarted it.  One
   of which nothing is done starts as if there had been no signal. */
void em_sigframe_stop_transfer(struct em_thread *t, greg_t *g)
{
	if (between(g[REG_RIP], em_first_from, em_first_end))
		return;
	t->stop = 1;
	if (between(g[REG_RIP], em_next_from, em_next_end)) {
		g[REG_RIP] = (greg_t)em_next_end;
		g[REG_RAX] = -EINTR;
	}
}

void em_sigframe_enter(struct em_sigdelivery *d)
{
	uint64_t mask = em_sigmask_at(d->t, d->uc) | d->act.mask;
	struct place p;

	if (!(d->act.flags & 0x04000000 /* SA_RESTORER */) || !find_place(d, &p))
		em_signals_frame_failed(d);
	em_sigframe_stop_transfer(d->t, d->uc->uc_mcontext.gregs);
	write_frame(d, &p);
	d->t->waiting = false;
	if (d->t->alt.flags & AUTODISARM) {
		d->t->alt = (struct em_alt_stack){ .flags = SS_DISABLE, .disarmed = true };
	}
	if (!(d->act.flags & SA_NODEFER))
		mask |= EM_SIG_BIT(d->signo);
	em_sigmask_note(d->t, mask);
	go(d, &p, mask);
	__builtin_unreachable();
}

/* ---- and back --------------------------------------------------------------------------------- */

uintptr_t em_sigframe_scratch_top(void);

/* For sigreturn.S: the top of our stack; 0: stay, there is none, or a callback of the program is
   on it. */
uintptr_t em_sigframe_scratch_top(void)
{
	struct em_thread *t = em_thread_self();
	stack_t own;

	if (!t || !t->alt_base || on_own_stack(t, (uintptr_t)__builtin_frame_address(0)))
		return 0;
	own = em_upcall_own_stack(t);
	return (uintptr_t)own.ss_sp + own.ss_size;
}

/* A copy of the floating-point state, which the kernel would not find if its page had left. */
static void *copy_fp(char *room, const char *fp)
{
	char *to = (char *)(((uintptr_t)room + 63) & ~63ul);

	if (!fp)
		return NULL;
	em_memcpy(to, fp, fp_bytes(fp));
	return to;
}

void em_sigframe_return(const void *from)
{
	struct em_thread *t = em_thread_self();
	char room[FP_MAX + 64];
	struct kernel_uc uc;

	if (!t)
		em_panic("extmem: no memory for a thread context\n");
	em_memcpy(&uc, from, sizeof(uc));
	uc.mc.fpregs = copy_fp(room, (const char *)uc.mc.fpregs);
	/* Unless it is one of the kernel's own, for a restorer of the program's own: see fill_frame. */
	if (!t->alt_base || (uintptr_t)uc.stack.ss_sp != t->alt_base) {
		em_sigmask_note(t, uc.mask);
		uc.mask = em_sigmask_to_kernel(uc.mask);
		set_alt(&t->alt, &uc.stack, (uintptr_t)uc.mc.gregs[REG_RSP]);
	}
	em_upcall_keep_own_stack(t, &uc.stack);
	em_sigmask_send_pending(t);
	em_sigreturn_from(&uc);
}

void em_sigframe_returns(struct kernel_uc *uc);

/* For sigreturn.S: a handler that the kernel has entered goes back.  That it ran is early enough to know now:
   what it interrupted has not gone on yet.  The mask that it wrote into its frame is restored by the kernel as
   it is. */
void em_sigframe_returns(struct kernel_uc *uc)
{
	struct em_thread *t = em_thread_self();

	uc->mask = em_sigmask_to_kernel(uc->mask);
	if (t)
		em_sigframe_stop_transfer(t, uc->mc.gregs);
}

int em_sigframe_rt_sigreturn(struct em_regs *r)
{
	if (!em_signals_are_ours(SIGBUS))
		return EM_HOOK_RAW;
	em_sigreturn_switch((void *)r->rsp);
}
