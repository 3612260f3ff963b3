/* SPDX-License-Identifier: MIT */
/* The table of probes and how they are run. */
#include "probe.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBE_SECONDS 5

/* clang-format off */
static const struct probe group_run[] = {
	{"options", "options", PROBE_REQUIRED, false, probe_options,
	 "EXTMEM_* variables, DRAMSIZE, SWAPDIR, SWAPPATH: the defaults of `extmem run`",
	 "`extmem run` refuses to start",
	 "correct or unset the variable"},
	{"budget", "budget", PROBE_OPTIONAL, false, probe_budget,
	 "how much of the program's memory stays in memory",
	 "-",
	 "--dram or EXTMEM_DRAM"},
	{"library", "preload library", PROBE_REQUIRED, false, probe_library,
	 "is loaded into the program and pages its memory",
	 "`extmem run` refuses to start",
	 "build or install extmem; the library belongs beside the command or in ../lib"},
	{"kernel", "kernel", PROBE_OPTIONAL, false, probe_kernel,
	 "information; the items below were tried, not derived from the version",
	 "-",
	 "5.11 is the oldest kernel on which ordinary users can use extmem"},
};

static const struct probe group_uffd[] = {
	{"userfaultfd", "userfaultfd", PROBE_REQUIRED, true, probe_uffd_any,
	 "tells extmem of accesses to pages that are not in memory",
	 "`extmem run` does not work at all",
	 "a kernel with CONFIG_USERFAULTFD; in a container a seccomp profile that allows "
	 "userfaultfd, or access to /dev/userfaultfd"},
	{"userfaultfd.user_mode", "opened for user-mode faults", PROBE_OPTIONAL, true,
	 probe_uffd_user,
	 "the way extmem opens it first: no privilege needed",
	 "one of the next two ways is needed",
	 "Linux 5.11"},
	{"userfaultfd.full", "opened for all faults", PROBE_OPTIONAL, true, probe_uffd_full,
	 "the way on kernels before 5.11",
	 "nothing is lost where user-mode faults work",
	 "CAP_SYS_PTRACE, or sysctl vm.unprivileged_userfaultfd=1"},
	{"userfaultfd.device", "opened through the device", PROBE_OPTIONAL, true, probe_uffd_device,
	 "the way in containers whose seccomp profile refuses the system call",
	 "nothing is lost where the system call works",
	 "Linux 6.1 and read and write permission on /dev/userfaultfd"},
	{"userfaultfd.missing", "missing pages", PROBE_REQUIRED, true, probe_uffd_missing,
	 "pages of private anonymous memory are filled on first touch and when read back",
	 "`extmem run` does not work at all",
	 "Linux 4.3"},
	{"userfaultfd.sigbus", "SIGBUS upcalls", PROBE_REQUIRED_UPCALL, true, probe_uffd_sigbus,
	 "the faulting thread serves its own fault (--delivery upcall, the default)",
	 "only --delivery thread works, at many times the cost of a fault",
	 "Linux 4.14"},
	{"userfaultfd.thread", "handler threads", PROBE_REQUIRED_THREAD, true, probe_uffd_thread,
	 "other threads serve the faults (--delivery thread)",
	 "only --delivery upcall works",
	 "Linux 4.3"},
	{"userfaultfd.wp", "write protection", PROBE_OPTIONAL, true, probe_uffd_wp,
	 "tells clean pages from dirty ones; pages are written out while still readable",
	 "clean pages are unknown, so every evicted page is written",
	 "Linux 5.7"},
	{"userfaultfd.move", "moving pages", PROBE_OPTIONAL, true, probe_uffd_move,
	 "maps prefetched pages and takes pages out without a copy",
	 "pages are copied instead: slower, same results",
	 "Linux 6.8"},
	{"userfaultfd.other", "other features", PROBE_OPTIONAL, true, probe_uffd_other,
	 "information: feature bits that the kernel offers",
	 "-",
	 "a newer kernel"},
};

static const struct probe group_kernel[] = {
	{"process_madvise", "process_madvise on self", PROBE_OPTIONAL, true, probe_process_madvise,
	 "drops a batch of evicted pages in one call",
	 "one madvise call for each run of pages: slower eviction",
	 "Linux 6.13"},
	{"io_uring", "io_uring", PROBE_OPTIONAL, true, probe_uring,
	 "reads and writes of the swap file proceed while the program runs",
	 "plain pread and pwrite: no asynchronous prefetch, slower eviction",
	 "Linux 5.1, sysctl kernel.io_uring_disabled=0, a seccomp profile that allows it"},
	{"ebpf", "eBPF", PROBE_OPTIONAL, true, probe_bpf,
	 "reads the accessed bits of the page tables, for policies that want them",
	 "policies use faults as their only sign of use",
	 "Linux 5.14 with CONFIG_BPF_SYSCALL, the capabilities below, no kernel lockdown"},
	{"ebpf.capabilities", "eBPF capabilities", PROBE_OPTIONAL, false, probe_bpf_caps,
	 "permission to load such a program",
	 "as without eBPF",
	 "root, or CAP_BPF and CAP_PERFMON (setpriv, systemd AmbientCapabilities)"},
	{"ebpf.btf", "kernel type information", PROBE_OPTIONAL, false, probe_btf,
	 "tells the layout of kernel structures to such a program",
	 "as without eBPF",
	 "a kernel with CONFIG_DEBUG_INFO_BTF"},
};

static const struct probe group_calls[] = {
	{"code", "changing code", PROBE_OPTIONAL, true, probe_patching,
	 "system calls of the program and its libraries are led through extmem",
	 "every system call is trapped: 2 us each; without that either `extmem run` does not work",
	 "a sandbox without MemoryDenyWriteExecute (systemd), PR_SET_MDWE, SELinux execmod"},
	{"dispatch", "Syscall User Dispatch", PROBE_OPTIONAL, true, probe_dispatch,
	 "traps system calls of code that cannot be changed, such as generated code",
	 "such a call fails with EFAULT where it passes memory that is in the store",
	 "Linux 5.11, a seccomp profile that allows prctl"},
	{"memfd", "memory files", PROBE_OPTIONAL, true, probe_memfd,
	 "hold the locks of forked processes",
	 "/dev/null does",
	 "Linux 3.17, a seccomp profile that allows memfd_create"},
	{"fork", "fork", PROBE_OPTIONAL, true, probe_fork,
	 "forked processes share the store; the locks tell who is alive",
	 "fork fails in managed programs",
	 "a mounted /proc, or a /dev/null on a file system without nodev"},
};

static const struct probe group_trial[] = {
	{"trial", "a trial run", PROBE_REQUIRED, false, probe_trial,
	 "this command again as a managed program that checks its memory",
	 "`extmem run` does not work",
	 "what the line above names"},
};

static const struct probe group_swap[] = {
	{"swap", "swap path", PROBE_REQUIRED, false, probe_swap_usable,
	 "where pages go that do not fit the budget",
	 "`extmem run` refuses to start",
	 "a writable directory, file or block device with --swap or EXTMEM_SWAP"},
	{"swap.direct", "direct I/O there", PROBE_OPTIONAL, false, probe_swap_direct,
	 "swap traffic bypasses the kernel's page cache",
	 "swapped pages take memory a second time, in the page cache",
	 "a directory on ext4, xfs or btrfs rather than tmpfs or a network"},
	{"swap.space", "space there", PROBE_OPTIONAL, false, probe_swap_space,
	 "limits how much memory beyond the budget the program can use",
	 "the program gets stuck or dies when the store is full",
	 "free some, or name another place with --swap"},
};

static const struct probe group_limits[] = {
	{"limit.memory_cgroup", "memory cgroup limit", PROBE_OPTIONAL, false, probe_cgroup,
	 "--dram N% refers to it",
	 "a budget above it makes the kernel swap or kill",
	 "a larger memory.max, or a smaller --dram"},
	{"limit.memlock", "locked memory (RLIMIT_MEMLOCK)", PROBE_OPTIONAL, false, probe_memlock,
	 "io_uring on kernels before 5.12 counts its rings against it",
	 "there io_uring is refused when it is too small",
	 "ulimit -l, or LimitMEMLOCK in systemd"},
	{"limit.nofile", "open files (RLIMIT_NOFILE)", PROBE_OPTIONAL, false, probe_nofile,
	 "extmem keeps a few descriptors for each process, above the program's own",
	 "a program that uses all of its descriptors has some fewer",
	 "ulimit -n"},
	{"limit.as", "address space (RLIMIT_AS)", PROBE_OPTIONAL, false, probe_as,
	 "extmem reserves address space for its tables",
	 "under a limit the program or extmem may run out of it",
	 "ulimit -v unlimited"},
	{"limit.max_map_count", "mappings (vm.max_map_count)", PROBE_OPTIONAL, false,
	 probe_max_map_count,
	 "moving and protecting pages can split mappings",
	 "a program with many mappings meets ENOMEM earlier",
	 "sysctl vm.max_map_count=1048576"},
	{"setting.overcommit", "vm.overcommit_memory", PROBE_OPTIONAL, false, probe_overcommit,
	 "decides whether a program may map more memory than there is",
	 "with 2, mappings larger than RAM and swap are refused by the kernel",
	 "sysctl vm.overcommit_memory=0 or 1"},
	{"setting.unprivileged_userfaultfd", "vm.unprivileged_userfaultfd", PROBE_OPTIONAL, false,
	 probe_unprivileged_uffd,
	 "with 1 every user may open userfaultfd for all faults",
	 "0 is fine: extmem needs user-mode faults only",
	 "sysctl vm.unprivileged_userfaultfd=1, on kernels before 5.11 only"},
	{"setting.seccomp", "seccomp", PROBE_OPTIONAL, false, probe_seccomp,
	 "information: a filter can refuse userfaultfd and io_uring",
	 "-",
	 "docker run --security-opt seccomp=PROFILE"},
	{"setting.thp", "transparent huge pages", PROBE_OPTIONAL, false, probe_thp,
	 "information: managed memory is paged in 4 KiB pages",
	 "-",
	 "/sys/kernel/mm/transparent_hugepage/enabled"},
	{"setting.kernel_swap", "kernel swap, zram, zswap", PROBE_OPTIONAL, false,
	 probe_kernel_swap,
	 "information: the kernel may swap beneath extmem when RAM itself is short",
	 "-",
	 "swapon, zramctl"},
};
/* clang-format on */

#define GROUP(title, g)                                                                            \
	{                                                                                          \
		title, g, sizeof(g) / sizeof((g)[0])                                               \
	}
const struct probe_group probe_groups[] = {
	GROUP("extmem", group_run),
	GROUP("userfaultfd", group_uffd),
	GROUP("Kernel services", group_kernel),
	GROUP("Interception and processes", group_calls),
	GROUP("Swap", group_swap),
	GROUP("Limits and settings", group_limits),
	GROUP("Trial", group_trial),
};
const unsigned probe_ngroups = sizeof(probe_groups) / sizeof(probe_groups[0]);

/* ---- results ----------------------------------------------------------------------------- */

void probe_set(struct probe_result *r, enum probe_status status, const char *fmt, ...)
{
	va_list ap;

	r->status = status;
	va_start(ap, fmt);
	vsnprintf(r->detail, sizeof(r->detail), fmt, ap);
	va_end(ap);
}

void probe_errno(struct probe_result *r, const char *what, int error)
{
	const char *hint = "";

	if (error == ENOSYS)
		hint = " (the kernel lacks it, or a seccomp filter hides it)";
	else if (error == EPERM)
		hint = " (no privilege, or a seccomp filter)";
	probe_set(r, PROBE_MISSING, "%s: %s%s", what, strerror(error), hint);
}

/* A warning: `run` starts the program all the same, and the library finds out. */
void probe_not_tried(struct probe_result *r)
{
	probe_set(r, PROBE_WARNING, "not tried: fork: %s", strerror(errno));
}

const char *probe_size(uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	static char ring[4][24];
	static unsigned at;
	char *buf = ring[at++ % 4];
	unsigned u = 0;

	if (bytes < 1024) {
		snprintf(buf, sizeof(ring[0]), "%u bytes", (unsigned)bytes);
		return buf;
	}
	for (; bytes >= 1024 * 1024 && u < 5; u++)
		bytes >>= 10;
	snprintf(buf, sizeof(ring[0]), "%llu.%llu %ciB", (unsigned long long)bytes >> 10,
		 (unsigned long long)((bytes & 1023) * 10) >> 10, units[u]);
	return buf;
}

/* ---- running ----------------------------------------------------------------------------- */

static void child_main(const struct probe *p, const struct em_options *o, struct probe_result *r)
{
	sigset_t none;

	/* Whatever this process inherited, a hung probe ends. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGALRM, SIG_DFL);
	signal(SIGSYS, SIG_DFL);
	alarm(PROBE_SECONDS);
	p->run(o, r);
	_exit(0);
}

/* The child writes its result to shared memory; until it does, it counts as failed. */
static void run_child(const struct probe *p, const struct em_options *o, struct probe_result *out)
{
	struct probe_result *r =
		mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t pid;

	if (r == MAP_FAILED) {
		probe_errno(out, "mmap", errno);
		return;
	}
	probe_set(r, PROBE_MISSING, "the probe did not finish");
	pid = fork();
	if (pid == 0)
		child_main(p, o, r);
	if (pid < 0)
		probe_not_tried(r);
	else
		/* With SIGCHLD ignored this fails once the child is gone: good enough. */
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	if (pid > 0 && WIFSIGNALED(status))
		probe_set(r, PROBE_MISSING, "killed by %s%s", strsignal(WTERMSIG(status)),
			  WTERMSIG(status) == SIGSYS ? " (a seccomp filter)" : "");
	*out = *r;
	munmap(r, sizeof(*r));
}

void probe_run(const struct probe *p, const struct em_options *o, struct probe_result *r)
{
	if (p->child)
		run_child(p, o, r);
	else
		p->run(o, r);
}

bool probe_is_required(const struct probe *p, const struct em_options *o)
{
	switch (p->need) {
	case PROBE_REQUIRED:
		return true;
	case PROBE_REQUIRED_UPCALL:
		return o->delivery == EM_DELIVERY_UPCALL;
	case PROBE_REQUIRED_THREAD:
		return o->delivery == EM_DELIVERY_THREAD;
	default:
		return false;
	}
}

int probe_required(const struct em_options *o, char *err, size_t err_len)
{
	struct probe_result r;

	for (unsigned i = 0; i < sizeof(group_uffd) / sizeof(group_uffd[0]); i++) {
		const struct probe *p = &group_uffd[i];

		if (!probe_is_required(p, o))
			continue;
		probe_run(p, o, &r);
		if (r.status != PROBE_MISSING)
			continue;
		snprintf(err, err_len, "kernel: %s%s: %s; needed is %s (see `extmem doctor`)",
			 strcmp(p->title, "userfaultfd") ? "userfaultfd, " : "", p->title, r.detail,
			 p->get);
		return -ENOSYS;
	}
	return 0;
}
