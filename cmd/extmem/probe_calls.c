/* SPDX-License-Identifier: MIT */
/* How system calls are intercepted, and what forked processes share. */
#include "probe.h"
#include "cmd.h"
#include "../../src/core/uffd_compat.h"
#include "../../src/store/store.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif
#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif

#define PAGE 4096ul

/* ---- code ------------------------------------------------------------------------------ */

/* What the engine does to the text of a library: written to, then executable again. */
static const char *change_text(const char *library)
{
	int fd = open(library, O_RDONLY | O_CLOEXEC);
	volatile char *text;

	if (fd < 0)
		return "opening the library";
	text = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	close(fd);
	if (text == MAP_FAILED)
		return "mapping the library as code";
	if (mprotect((void *)text, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) &&
	    mprotect((void *)text, PAGE, PROT_READ | PROT_WRITE))
		return "making code writable";
	text[0] = 1;
	return mprotect((void *)text, PAGE, PROT_READ | PROT_EXEC) ? "making changed code executable"
								   : NULL;
}

static const char *make_code(int *answer)
{
	static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int (*fn)(void);

	if (p == MAP_FAILED)
		return "mmap";
	memcpy(p, code, sizeof(code));
	if (mprotect(p, PAGE, PROT_READ | PROT_EXEC))
		return "making new code executable";
	memcpy(&fn, &p, sizeof(fn));
	*answer = fn();
	return NULL;
}

void probe_patching(const struct em_options *o, struct probe_result *r)
{
	char library[4096], err[400];
	const char *failed;
	int answer = 0;

	(void)o;
	if (library_find(library, sizeof(library), err, sizeof(err))) {
		probe_set(r, PROBE_MISSING, "%s", err);
		return;
	}
	failed = change_text(library);
	if (!failed)
		failed = make_code(&answer);
	if (failed)
		probe_errno(r, failed, errno);
	else if (answer != 42)
		probe_set(r, PROBE_MISSING, "new code gave a wrong answer");
	else
		probe_set(r, PROBE_AVAILABLE, "code changed, new code executed");
}

/* ---- Syscall User Dispatch --------------------------------------------------------------- */

static volatile unsigned char selector; /* 0: calls pass, 1: they are trapped */
static volatile sig_atomic_t trapped;

static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	(void)context;
	selector = 0;
	trapped = si->si_code == SYS_USER_DISPATCH;
}

void probe_dispatch(const struct em_options *o, struct probe_result *r)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

	(void)o;
	if (sigaction(SIGSYS, &sa, NULL)) {
		probe_errno(r, "sigaction(SIGSYS)", errno);
		return;
	}
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector)) {
		probe_errno(r, "prctl(PR_SET_SYSCALL_USER_DISPATCH)", errno);
		return;
	}
	selector = 1;
	syscall(SYS_getppid);
	selector = 0;
	if (trapped)
		probe_set(r, PROBE_AVAILABLE, "a system call was trapped");
	else
		probe_set(r, PROBE_MISSING, "a system call was not trapped");
}

/* ---- fork ------------------------------------------------------------------------------- */

void probe_memfd(const struct em_options *o, struct probe_result *r)
{
	int fd = memfd_create("extmem-doctor", MFD_CLOEXEC);

	(void)o;
	if (fd < 0) {
		probe_errno(r, "memfd_create", errno);
		return;
	}
	probe_set(r, PROBE_AVAILABLE, "a memory file was created");
	close(fd);
}

void probe_fork(const struct em_options *o, struct probe_result *r)
{
	switch (em_store_check_locks(o->feature_mask & EM_FEAT_MEMFD)) {
	case EM_LOCKS_MEMORY:
		probe_set(r, PROBE_AVAILABLE, "locks in a memory file, opened again through /proc");
		break;
	case EM_LOCKS_NULL:
		probe_set(r, PROBE_AVAILABLE, "locks on /dev/null, for want of memfd_create or /proc");
		break;
	case EM_LOCKS_NO_FORK:
		probe_set(r, PROBE_MISSING, "there is neither /proc nor a usable /dev/null");
		break;
	case EM_LOCKS_NONE:
		probe_set(r, PROBE_MISSING, "there is neither memfd_create nor a usable /dev/null");
		break;
	}
}
