/* SPDX-License-Identifier: MIT */
/* What the small tests share: memory with known content, probes, the runner that prints TAP. */
#define _GNU_SOURCE
#include "mm.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *failed_file, *failed_what, *skipped;
static int failed_line;
static sigjmp_buf probe_jmp;
static volatile sig_atomic_t probing;
static siginfo_t probe_info;

void mm_fail(const char *file, int line, const char *what)
{
	failed_file = file;
	failed_line = line;
	failed_what = what;
	printf("# %s:%d: %s (errno %d, %s)\n", file, line, what, errno, strerror(errno));
}

void mm_skip(const char *why)
{
	skipped = why;
}

char *mm_map(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		printf("Bail out! mmap of %zu bytes: %s\n", bytes, strerror(errno));
		exit(1);
	}
	return p;
}

static uint64_t word_of(uint64_t key, size_t i)
{
	uint64_t x = (key + 1) * 0x9e3779b97f4a7c15ull + i * 0xd6e8feb86659fd93ull;

	return x ^ (x >> 29);
}

void mm_fill(void *p, size_t bytes, uint64_t key)
{
	size_t i;

	for (i = 0; i < bytes / 8; i++)
		((volatile uint64_t *)p)[i] = word_of(key, i);
}

bool mm_holds(const void *p, size_t bytes, uint64_t key)
{
	size_t i;

	for (i = 0; i < bytes / 8; i++)
		if (((const volatile uint64_t *)p)[i] != word_of(key, i)) {
			printf("# at %p (offset %#zx): found %#llx\n", (void *)((uintptr_t)p + i * 8),
			       i * 8, (unsigned long long)((const volatile uint64_t *)p)[i]);
			return false;
		}
	return true;
}

bool mm_zero(const void *p, size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes / 8; i++)
		if (((const volatile uint64_t *)p)[i] != 0) {
			printf("# at %p (offset %#zx): not zero but %#llx\n",
			       (void *)((uintptr_t)p + i * 8), i * 8,
			       (unsigned long long)((const volatile uint64_t *)p)[i]);
			return false;
		}
	return true;
}

/* Twice the budget we run under, BIG when there is none. */
static size_t pressure_bytes(void)
{
	const char *text = getenv("EXTMEM_DRAM");
	char *end = NULL;
	size_t n = text ? strtoull(text, &end, 10) : 0;

	if (end && (*end == 'K' || *end == 'k'))
		n <<= 10;
	else if (end && (*end == 'M' || *end == 'm'))
		n <<= 20;
	return 2 * n > BIG && n < 1ul << 30 ? 2 * n : BIG;
}

void mm_evict(void *p, size_t bytes)
{
	size_t pressure = pressure_bytes();
	char *other = mm_map(pressure);

	mm_fill(other, pressure, 77);
	munmap(other, pressure);
	madvise(p, bytes, 21 /* MADV_PAGEOUT */);
}

static void on_fault(int sig, siginfo_t *info, void *uc)
{
	(void)uc;
	if (!probing) {
		printf("# signal %d, code %d at %p outside a probe\n", sig, info->si_code,
		       info->si_addr);
		fflush(stdout);
		signal(sig, SIG_DFL);
		return;
	}
	probe_info = *info;
	probing = 0;
	siglongjmp(probe_jmp, sig);
}

int mm_probe(const void *p, bool write, siginfo_t *info)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, old[2];
	volatile int sig;

	sigaction(SIGSEGV, &sa, &old[0]);
	sigaction(SIGBUS, &sa, &old[1]);
	sig = sigsetjmp(probe_jmp, 1);
	if (sig == 0) {
		volatile char *c = (volatile char *)(uintptr_t)p;
		char v;

		probing = 1;
		v = *c;
		if (write)
			*c = v;
		probing = 0;
	}
	sigaction(SIGSEGV, &old[0], NULL);
	sigaction(SIGBUS, &old[1], NULL);
	if (sig && info)
		*info = probe_info;
	return sig;
}

bool mm_segv(const void *p, bool write, int code)
{
	siginfo_t info;
	int sig = mm_probe(p, write, &info);

	if (sig == SIGSEGV && info.si_code == code && info.si_addr == p)
		return true;
	printf("# %s %p: signal %d, code %d at %p\n", write ? "write to" : "read of", p, sig,
	       sig ? info.si_code : 0, sig ? info.si_addr : NULL);
	return false;
}

const char *mm_perms(const void *p)
{
	static char perms[8];
	unsigned long lo, hi;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");

	perms[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		char now[8];

		if (sscanf(line, "%lx-%lx %7s", &lo, &hi, now) == 3 && (unsigned long)p >= lo &&
		    (unsigned long)p < hi)
			memcpy(perms, now, sizeof(perms));
	}
	if (f)
		fclose(f);
	return perms;
}

bool mm_in_child(bool (*f)(void *), void *arg)
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		bool ok = f(arg);

		fflush(stdout);
		_exit(ok ? 0 : 1);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status == 0;
}

static bool wanted(int argc, char **argv, const char *name)
{
	int i;

	for (i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc < 2;
}

int mm_run(int argc, char **argv, const struct mm_test *const *groups)
{
	bool list = argc == 2 && strcmp(argv[1], "--list") == 0;
	unsigned n = 0, bad = 0;
	const struct mm_test *t;

	for (; *groups; groups++)
		for (t = *groups; t->name; t++) {
			if (list)
				puts(t->name);
			if (list || !wanted(argc, argv, t->name))
				continue;
			failed_file = skipped = NULL;
			t->run();
			n++;
			bad += failed_file != NULL;
			printf("%s %u - %s%s%s\n", failed_file ? "not ok" : "ok", n, t->name,
			       skipped ? " # SKIP " : "", skipped ? skipped : "");
			fflush(stdout);
		}
	if (list)
		return 0;
	printf("1..%u\n", n);
	return bad || !n;
}
