/* SPDX-License-Identifier: MIT */
/*
 * Filters that kill whoever makes a call that the engine could do without.  A refusal can be seen by
 * trying; this cannot, so a child tries.  Ordinary context, before there is a second thread.
 */
#include "options.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

/* The filter comes before the kernel looks at the arguments, which no call here accepts or minds. */
static void try_process_madvise(void)
{
	syscall(SYS_process_madvise, -1, NULL, 0, 0, 0);
	syscall(SYS_pidfd_open, -1, 0);
}

static void try_capture(void)
{
	syscall(SYS_pipe2, NULL, 0);
	syscall(SYS_vmsplice, -1, NULL, 0, 0);
	syscall(SYS_readv, -1, NULL, 0);
}

static void try_vm_read(void)
{
	syscall(SYS_process_vm_readv, 0, NULL, 0, NULL, 0, 0);
}

static void try_uring(void)
{
	syscall(SYS_io_uring_setup, 0, NULL);
	syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
	syscall(SYS_io_uring_register, -1, 0, NULL, 0);
}

static void try_memfd(void)
{
	syscall(SYS_memfd_create, NULL, 0);
}

static void try_control(void)
{
	syscall(SYS_close_range, 1, 0, 0);
}

static void try_tasks(void)
{
	syscall(SYS_unshare, 0);
}

static void try_dispatch(void)
{
	prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0);
}

static const struct {
	void (*try)(void);
	uint32_t feature; /* 0: --syscalls */
} calls[] = {
	{try_process_madvise, EM_FEAT_PROCESS_MADVISE},
	{try_capture, EM_FEAT_CAPTURE},
	{try_vm_read, EM_FEAT_VM_READ},
	{try_uring, EM_FEAT_URING},
	{try_memfd, EM_FEAT_MEMFD},
	{try_control, EM_FEAT_CONTROL},
	{try_tasks, EM_FEAT_TASKS},
	{try_dispatch, 0},
};
#define NCALLS (sizeof(calls) / sizeof(calls[0]))

static void child_main(size_t first, size_t end)
{
	struct sigaction sa = {.sa_handler = SIG_DFL};
	struct rlimit no_core = {0, 0};
	sigset_t none;

	setrlimit(RLIMIT_CORE, &no_core);
	sigemptyset(&none);
	sigaction(SIGSYS, &sa, NULL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (size_t i = first; i < end; i++)
		calls[i].try();
	_exit(0);
}

/* Without SIGCHLD, and without the handlers that the program has for its own forks. */
static bool survives(size_t first, size_t end)
{
	long pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
	int status = 0;

	if (pid == 0)
		child_main(first, end);
	if (pid < 0)
		return true; /* nobody knows */
	while (waitpid((pid_t)pid, &status, __WALL) < 0 && errno == EINTR)
		;
	return !WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS;
}

void em_sandbox_adapt(struct em_options *o)
{
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_FILTER || survives(0, NCALLS))
		return;
	for (size_t i = 0; i < NCALLS; i++) {
		if (survives(i, i + 1))
			continue;
		o->feature_mask |= calls[i].feature;
		if (!calls[i].feature && o->syscalls == EM_SYSCALLS_AUTO)
			o->syscalls = EM_SYSCALLS_PATCH;
	}
}
