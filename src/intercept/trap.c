/* SPDX-License-Identifier: MIT */
#include "trap.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <signal.h>
#include <sys/prctl.h>
#include <ucontext.h>

#include "../core/core.h"
#include "../core/line.h"
#include "../core/sys.h"
#include "signals.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF 0
#define PR_SYS_DISPATCH_ON 1
#endif
#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif

/* Distinct places in a program that make threads or vfork; trap.S has as many. */
#define EM_TRAP_CLONES 512

void em_trap_entry(void);
void em_trap_syscall(void);
void em_trap_int80(void);
extern const uint8_t em_trap_clones[];
void em_trap_cloned(long ret);

uint32_t em_trap_on;
uint64_t em_trap_clone_cont[EM_TRAP_CLONES];

static bool available;
static uintptr_t text, text_bytes;
static __thread bool trapping __attribute__((tls_model("initial-exec")));

extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));

static void find_own_text(void)
{
	uintptr_t base = (uintptr_t)&__ehdr_start;
	const Elf64_Phdr *ph = (const Elf64_Phdr *)(base + __ehdr_start.e_phoff);

	for (unsigned i = 0; i < __ehdr_start.e_phnum; i++, ph++)
		if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X) &&
		    (uintptr_t)em_trap_clones - (base + ph->p_vaddr) < ph->p_memsz) {
			text = base + ph->p_vaddr;
			text_bytes = ph->p_memsz;
		}
}

static long trap_this_thread(void)
{
	return em_syscall5(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, text,
			   text_bytes, 0);
}

/* ---- the handler ------------------------------------------------------------------------- */

/* The kernel has put rax back; rcx and r11 are its own to destroy. */
static void redirect(const siginfo_t *si, greg_t *reg)
{
	reg[REG_R11] = reg[REG_RIP];
	if (si->si_arch != AUDIT_ARCH_X86_64) {
		reg[REG_RIP] = (greg_t)em_trap_int80;
	} else if (reg[REG_RAX] == SYS_rt_sigreturn && !em_signals_are_ours(SIGBUS)) {
		reg[REG_RIP] = (greg_t)em_direct_restorer;
	} else {
		em_stat_inc(syscalls_trapped);
		reg[REG_RIP] = (greg_t)em_trap_entry;
	}
}

static bool is_request(const siginfo_t *si)
{
	return si->si_code == SI_QUEUE && si->si_value.sival_ptr == &em_trap_on;
}

static void on_sigsys(int signo, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	if (si->si_code == SYS_USER_DISPATCH)
		redirect(si, uc->uc_mcontext.gregs);
	else if (is_request(si))
		trapping = !trap_this_thread();
	else
		em_signals_chain(signo, si, uc);
}

int em_trap_start(void)
{
	long ret = em_syscall5(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0);

	if (ret)
		return -ENOSYS;
	find_own_text();
	em_signals_take(SIGSYS);
	/* Upcalls stay possible: the frame of a signal may lie on a managed stack. */
	ret = em_upcall_handle(SIGSYS, on_sigsys, ~EM_SIG_BIT(SIGSYS) & ~EM_SIG_BIT(SIGBUS), true);
	available = !ret;
	return (int)ret;
}

/* ---- turning it on ----------------------------------------------------------------------- */

/*
 * A thread that is in a call will look at em_trap_on when it comes back from it, and must not be
 * disturbed: a wait that is interrupted is seen by the program.  Only those that run are told.
 */
static bool is_running(const char *name)
{
	char state;

	return em_tasks_read(name, "/syscall", &state, 1) == 1 &&
	       state == 'r'; /* "running", or the number of the call */
}

/* The last number of the line NSpid: /proc may have been mounted in another namespace than ours. */
static long tid_of(const char *name)
{
	static const char key[] = "NSpid:";
	char buf[1024];
	long got = em_tasks_read(name, "/status", buf, sizeof(buf)), tid = 0;
	size_t k = 0;

	for (long i = 0; i < got; i++) {
		if (k < sizeof(key) - 1)
			k = buf[i] == key[k] ? k + 1 : buf[i] == key[0];
		else if (buf[i] == '\t')
			tid = 0;
		else if (buf[i] == '\n')
			break;
		else
			tid = tid * 10 + (buf[i] - '0');
	}
	return tid;
}

static void tell_thread(const char *name, void *arg)
{
	siginfo_t si;
	long tid = tid_of(name), pid = em_sys_getpid();

	(void)arg;
	if (!tid || tid == em_sys_gettid() || !is_running(name))
		return;
	em_memzero(&si, sizeof(si));
	si.si_signo = SIGSYS;
	si.si_code = SI_QUEUE;
	si.si_pid = (int)pid;
	si.si_value.sival_ptr = &em_trap_on;
	em_syscall4(SYS_rt_tgsigqueueinfo, pid, tid, SIGSYS, &si);
}

static void say_why(const char *what, const char *why)
{
	struct em_line line;

	if (!em_engine.opt.verbose)
		return;
	em_line_start(&line, "extmem: ");
	em_line_text(&line, what);
	em_line_text(&line, why);
	em_line_say(&line);
}

void em_trap_want(const char *why)
{
	if (__atomic_load_n(&em_trap_on, __ATOMIC_RELAXED) ||
	    em_engine.opt.syscalls == EM_SYSCALLS_PATCH)
		return;
	if (!available) {
		say_why("system calls are not trapped, Linux 5.11 could: ", why);
		return;
	}
	if (__atomic_exchange_n(&em_trap_on, 1, __ATOMIC_SEQ_CST))
		return;
	say_why("system calls are trapped from now on: ", why);
	trapping = !trap_this_thread();
	em_tasks_visit(tell_thread, NULL);
}

/* ---- calls that others come back from -------------------------------------------------------- */

/* The thread goes on behind `cont`, whoever makes the call. */
static uint64_t clone_at(uint64_t cont)
{
	for (unsigned i = 0; i < EM_TRAP_CLONES; i++) {
		uint64_t seen = 0;

		if (__atomic_compare_exchange_n(&em_trap_clone_cont[i], &seen, cont, false,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ||
		    seen == cont)
			return (uint64_t)em_trap_clones + 16 * i;
	}
	return 0;
}

static int make_raw(struct em_regs *r)
{
	uint64_t at;

	if (r->nr == SYS_rt_sigreturn || r->nr == SYS_exit || r->nr == SYS_exit_group) {
		r->cont = (uint64_t)em_trap_syscall + 2;
		return EM_HOOK_RAW;
	}
	at = clone_at(r->cont);
	if (!at) {
		r->ret = -EAGAIN;
		return EM_HOOK_DONE;
	}
	r->cont = at + 2;
	return EM_HOOK_RAW;
}

/* Of parent and child.  A child's thread block is not to be touched: it may be anything. */
void em_trap_cloned(long ret)
{
	if (ret > 0)
		em_tasks_made((int)ret);
	if (__atomic_load_n(&em_trap_on, __ATOMIC_SEQ_CST) && (ret == 0 || !trapping)) {
		trap_this_thread();
		if (ret)
			trapping = true;
	}
}

int em_trap_after(struct em_regs *r, int action)
{
	if (em_trap_on && !trapping)
		trapping = !trap_this_thread();
	return action == EM_HOOK_RAW && available ? make_raw(r) : action;
}

bool em_trap_refuses(const struct em_regs *r)
{
	return r->nr == SYS_prctl && r->arg[0] == PR_SET_SYSCALL_USER_DISPATCH && available;
}

void em_trap_fork_child(void)
{
	if (em_trap_on)
		trap_this_thread();
}
