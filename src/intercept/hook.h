/* SPDX-License-Identifier: MIT */
/*
 * System-call interception: the seam between the patched `syscall` instructions
 * and what is done about a call.
 *
 * patch.c rewrites the `syscall` instructions of the loaded objects into jumps to
 * per-site trampolines; entry.S saves the registers and calls em_hook_dispatch on
 * the caller's stack, red zone spared.  The hook is ordinary thread context, NOT the fault
 * handler: it may touch managed memory (that takes an upcall), but it must use no
 * libc function (it may have interrupted anything, and TLS errno is the program's)
 * and no vector register.
 */
#ifndef EM_INTERCEPT_HOOK_H
#define EM_INTERCEPT_HOOK_H

#include <stddef.h>
#include <stdint.h>

/* As laid out on the stack by entry.S: keep in step. */
struct em_regs {
	long nr; /* in: rax */
	long arg[6];	   /* rdi rsi rdx r10 r8 r9: put back from here, so do not change them */
	uint64_t cont;	   /* address of the trampoline's continuation; cont - 2 is a raw `syscall` */
	uint64_t rsp;	   /* the program's stack pointer at the call */
	long ret;	   /* out: becomes rax */
	uint64_t new_rsp;  /* out: if not 0, the program goes on with this stack pointer
			      (child of a fork-like clone that asked for a new stack) */
};

enum em_hook_action {
	EM_HOOK_DONE = 0, /* regs->ret is the result */
	EM_HOOK_RAW = 1	  /* entry.S restores all registers and executes the call in the trampoline
			     itself (vfork and thread-creating clone: the child returns
			     on another stack, or the parent's frames are shared) */
};

/* Called by entry.S for every patched call; the dispatcher (dispatch.c) implements it. */
int em_hook_dispatch(struct em_regs *regs);

/* entry.S; trampolines jump here with r11 = continuation. */
void em_hook_entry(void);

struct em_patch_report {
	unsigned objects;
	unsigned sites_found, sites_patched;
	unsigned unpatched; /* sites left as they are, each reported through the callback */
	unsigned missed;    /* of these, what may pass pointers: all but rt_sigreturn */
};

/* One line per site that could not be patched and one per object; may be NULL. */
typedef void (*em_patch_log_fn)(void *arg, const char *object, uint64_t vaddr, const char *what);

/*
 * Patches every executable object that is loaded now, except the
 * object that contains em_hook_entry.  Ordinary context, at start, once: no other thread
 * should be inside a system call yet, for its way back may lead over rewritten bytes.
 * 0 or -errno; -ENOSYS: nothing could be patched at all; -EALREADY: second call.
 */
int em_patch_all(struct em_patch_report *report, em_patch_log_fn log, void *arg);

/*
 * Patches one freshly mapped executable file mapping (dlopen: the dynamic linker's
 * own mmap(PROT_EXEC) has just returned and nobody runs this code yet).  Called from the hook:
 * no libc.  MAP_PRIVATE only: the caller checks, or the file itself would be written to.
 * fd is the file, off its offset, prot the protection to leave it with.  What could not be
 * examined counts as one site missed.  path: for the log, which may be NULL.
 * Returns the number of sites patched or -errno.
 */
int em_patch_mapping(void *addr, size_t len, int prot, int fd, int64_t off,
		     struct em_patch_report *report, em_patch_log_fn log, const char *path);

/* In the child of a fork, before it maps anything: another thread may have been patching. [sigsafe] */
void em_patch_fork_child(void);

#endif
