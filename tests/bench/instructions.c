/* SPDX-License-Identifier: MIT */
/*
 * How many instructions a fault takes in user space, for machines without hardware counters too: the program is
 * stepped, one instruction at a time, from one breakpoint of its own to the next.  Kernel time is not seen, other threads
 * run free.
 *
 *   instructions EXTMEM         every case, as TAP, held against limits a little above what they are
 *   instructions --touch CASE   the program that is stepped
 */
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define MIB (1ul << 20)
#define TOUCHES 64
#define APART (16 * PAGE)
#define BREAK() __asm__ volatile("int3" ::: "memory")

static const struct {
	const char *name;
	unsigned long limit; /* instructions a touch */
} cases[] = {
	{"first touch", 1350},
	{"read from the store", 1800},
	{"write to a page that was read", 950},
};
#define NCASES (sizeof(cases) / sizeof(cases[0]))

/* ---- stepped ------------------------------------------------------------------------------ */

/* No order that a prefetcher would see. */
static char *place(char *p, unsigned i)
{
	return p + (i * 89 % TOUCHES) * APART;
}

static void touch(char *p, int write)
{
	for (unsigned i = 0; i < TOUCHES; i++) {
		if (write)
			*(volatile char *)place(p, i) = 2;
		else
			(void)*(volatile char *)place(p, i);
	}
}

static int program(unsigned which)
{
	char *p = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 1;
	if (which > 0)
		memset(p, 1, 64 * MIB); /* what was first is out */
	if (which > 1)
		touch(p, 0);
	BREAK();
	touch(p, which != 1);
	BREAK();
	return 0;
}

/* ---- who steps ---------------------------------------------------------------------------- */

static long stop_code(pid_t pid)
{
	siginfo_t info;

	return ptrace(PTRACE_GETSIGINFO, pid, NULL, &info) ? -1 : info.si_code;
}

/* Instructions between the two breakpoints, or 0 if the program did not get there. */
static unsigned long count(pid_t pid)
{
	unsigned long n = 0;
	int status, stepping = 0, sig;

	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		sig = WSTOPSIG(status);
		if (sig == SIGTRAP) {
			long code = stop_code(pid);

			sig = 0;
			if (code == SI_KERNEL)
				stepping++; /* a breakpoint */
			else
				n += stepping == 1; /* or an exec */
		}
		if (ptrace(stepping == 1 ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, NULL, (long)sig))
			break;
	}
	return stepping == 2 && WIFEXITED(status) && !WEXITSTATUS(status) ? n : 0;
}

static pid_t start(const char *extmem, const char *self, unsigned which)
{
	char number[] = {(char)('0' + which), '\0'};
	pid_t pid = fork();

	if (pid)
		return pid;
	/* 8 MiB of 64; no thread waits awake, and a page that is read stays protected. */
	if (!ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		execl(extmem, "extmem", "run", "--dram", which ? "8M" : "128M", "--spin", "0", "--expect-writes",
		      "no", "--", self, "--touch", number, (char *)NULL);
	_exit(127);
}

/* Both on one processor: to wake another for each step takes ten times as long. */
static void stay_here(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static int may_trace(void)
{
	pid_t pid = fork();
	int status = 1;

	if (!pid)
		_exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

int main(int argc, char **argv)
{
	char self[4096];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int bad = 0;

	if (argc == 3 && !strcmp(argv[1], "--touch"))
		return program((unsigned)atoi(argv[2]));
	if (argc != 2 || len <= 0) {
		fprintf(stderr, "usage: instructions EXTMEM\n");
		return 2;
	}
	self[len] = '\0';
	if (!may_trace()) {
		printf("1..0 # SKIP no program may be traced here\n");
		return 0;
	}
	stay_here();
	printf("1..%zu\n", NCASES);
	for (unsigned i = 0; i < NCASES; i++) {
		unsigned long n = count(start(argv[1], self, i)) / TOUCHES;

		bad += !n || n > cases[i].limit;
		printf("%s %u - %s: %lu instructions, limit %lu\n", !n || n > cases[i].limit ? "not ok" : "ok",
		       i + 1, cases[i].name, n, cases[i].limit);
		fflush(stdout);
	}
	return bad != 0;
}
