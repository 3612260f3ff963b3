/* SPDX-License-Identifier: MIT */
/*
 * Options of a managed program: one table for the command line of `extmem run`, the
 * EXTMEM_* environment and the original's DRAMSIZE / SWAPDIR / SWAPPATH.
 * `extmem run` parses and checks everything, then hands the result on through the
 * environment; the preload library parses the same environment again.
 * Ordinary context.
 */
#ifndef EM_OPTIONS_H
#define EM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is done where a system call cannot be patched: trap when needed, always, never. */
enum em_syscalls { EM_SYSCALLS_AUTO = 0, EM_SYSCALLS_DISPATCH = 1, EM_SYSCALLS_PATCH = 2 };
enum em_expect_writes { EM_EXPECT_WRITES_NO = 0, EM_EXPECT_WRITES_YES = 1, EM_EXPECT_WRITES_ALWAYS = 2 };
enum em_delivery { EM_DELIVERY_UPCALL = 0, EM_DELIVERY_THREAD = 1 };

/* Kernel features that can be masked off to imitate older kernels: EXTMEM_MASK=move,wp,... */
enum em_feature {
	EM_FEAT_WP = 1u << 0,		   /* "wp": userfaultfd write protection of anonymous memory, 5.7 */
	EM_FEAT_MOVE = 1u << 1,		   /* "move": UFFDIO_MOVE, 6.8 */
	EM_FEAT_PROCESS_MADVISE = 1u << 2, /* "process_madvise": on self with MADV_DONTNEED, 6.13 */
	EM_FEAT_URING = 1u << 3,	   /* "uring": io_uring usable */
	EM_FEAT_MEMFD = 1u << 5,	   /* "memfd": memfd_create, 3.17 */
	EM_FEAT_CONTROL = 1u << 6,	   /* "control": the control socket; needs close_range, 5.9 */
	EM_FEAT_TASKS = 1u << 7,	   /* "tasks": threads are counted where /proc is not */
	EM_FEAT_CAPTURE = 1u << 8,	   /* "capture": pages held by a pipe while they are unmapped */
	EM_FEAT_VM_READ = 1u << 9,	   /* "process_vm_readv": on self, 3.2 */
	EM_FEAT_SIGBUS = 1u << 4,	   /* UFFD_FEATURE_SIGBUS, 4.14 (not maskable) */
};

struct em_options {
	uint64_t dram_bytes;	     /* --dram / EXTMEM_DRAM / DRAMSIZE; always set after parsing
					(default: 50 % of min(RAM, cgroup limit)) */
	char swap_path[4096];	     /* --swap PATH / EXTMEM_SWAP / SWAPDIR / SWAPPATH; "": default */
	uint64_t swap_size_bytes;    /* size=SIZE, 0: none given */
	bool swap_force;	     /* ,force */
	char policy[4096];	     /* name or path of a .so; default "2q" */
	char policy_args[1024];	     /* key=value,key=value */
	char prefetch[4096];	     /* default "sequential" */
	char prefetch_args[1024];
	enum em_delivery delivery;
	unsigned delivery_threads;   /* n=N, default 1 */
	enum em_syscalls syscalls;   /* --syscalls / EXTMEM_SYSCALLS */
	uint64_t min_map_bytes;	     /* default 1 MiB */
	unsigned standby_percent;    /* --standby / EXTMEM_STANDBY: of the budget, for evicted pages */
	bool standby_always;	     /* ,always: whether it pays or not */
	enum em_expect_writes expect_writes; /* --expect-writes / EXTMEM_EXPECT_WRITES */
	unsigned spin_us;	     /* --spin / EXTMEM_SPIN: a thread waits so long awake for a page */
	char stats_path[4096];	     /* "": none, "-": stderr */
	long stats_pid;		     /* EXTMEM_STATS_PID: the process that writes stats_path itself;
					others write stats_path.PID; 0: the first to see it sets it */
	bool verbose;
	bool follow_exec;	     /* programs that the program executes are managed too; default true */
	uint32_t feature_mask;	     /* features to pretend absent (EXTMEM_MASK) */
};

#define EM_DRAM_MIN_BYTES (1024u * 1024u) /* a budget below this is refused */

/* Fills defaults, except dram_bytes: em_options_from_env does that last. */
void em_options_init(struct em_options *o);

/* "64K", "1.5G", "4096", "2T"; binary units, upper or lower case, optional "iB"/"B".
   0 or -EINVAL / -ERANGE. */
int em_size_parse(const char *text, uint64_t *bytes);
/* The same, or "40%" of `whole`. */
int em_size_parse_percent(const char *text, uint64_t whole, uint64_t *bytes);
/* RAM, or the limit of the memory cgroup (v1 or v2, nearest ancestor) if smaller. */
uint64_t em_memory_available_bytes(void);

/* Sets one option by its long name ("dram", "swap", "policy", "prefetch", "delivery",
   "syscalls", "min-map", "standby", "spin", "stats", "verbose", "follow-exec", "mask").  In the values of swap, policy and prefetch
   ",," is a comma that belongs to the path.  0, or -EINVAL with one line in err:
   what, where, what to do. */
int em_options_set(struct em_options *o, const char *name, const char *value, char *err,
		   size_t err_len);

/* Applies the environment (original's names first, EXTMEM_* override). 0 or -EINVAL with
   a line in err that names the variable. */
int em_options_from_env(struct em_options *o, char *err, size_t err_len);

/* Writes o into the environment of this process (setenv EXTMEM_*) so that from_env
   on the other side yields the same. */
int em_options_to_env(const struct em_options *o);

/* Does a policy or prefetcher name mean a shared object?  It has a slash or ends in ".so". */
bool em_options_is_path(const char *name);

/* Makes the paths in o independent of the current directory.  0 or -EINVAL with a line. */
int em_options_absolute(struct em_options *o, char *err, size_t err_len);

/* Checks what can be checked without starting: minimum budget, policy and prefetcher
   exist, swap path usable.  0 or -EINVAL with a line. */
int em_options_check(const struct em_options *o, char *err, size_t err_len);

/* Starts the policy and the prefetcher with their arguments on a make-believe engine and
   stops them again, so that bad arguments are found before the program runs.  For
   `extmem run` only: a process that pages must start them once.  0 or -EINVAL with a line. */
int em_options_try_plugins(const struct em_options *o, char *err, size_t err_len);

/* Where a seccomp filter kills whoever makes a call that is not indispensable, changes the options so that
   the engine does not make it. */
void em_sandbox_adapt(struct em_options *o);

#endif
