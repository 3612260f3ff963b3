/* SPDX-License-Identifier: MIT */
/*
 * fork, exec and death in all orders, with most of the memory in the store.
 *
 * Every process owns one big buffer.  Its content is a function of (key, word), and each
 * process changes its copy to a key of its own after it has verified what it inherited.
 * The keys are computed, not stored in managed memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PG 4096ul
#define WORDS (PG / 8)

extern char **environ;

static size_t bytes = 8u << 20;
static uint64_t seed;
static uint64_t *buf;
static unsigned failures;
static unsigned limit_s = 120; /* for one test */
static bool direct; /* run the tests in the first process: aborts at the first failure */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ (x >> 32);
}

static uint64_t word(uint64_t key, size_t i)
{
	return mix(key * 0x100000001b3ull + i + seed);
}

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "fork_deep: FAILED, seed %llu, pid %d: %s (%s)\n",
		(unsigned long long)seed, (int)getpid(), what, strerror(errno));
	abort();
}

static void fill(uint64_t key)
{
	size_t i;

	for (i = 0; i < bytes / 8; i++)
		buf[i] = word(key, i);
}

static void verify(uint64_t key, const char *who)
{
	size_t i;

	for (i = 0; i < bytes / 8; i++) {
		uint64_t found = ((volatile uint64_t *)buf)[i];

		if (found != word(key, i)) {
			fprintf(stderr,
				"fork_deep: FAILED, seed %llu, pid %d, %s: %p (page %zu): expected "
				"%#llx, found %#llx\n",
				(unsigned long long)seed, (int)getpid(), who, (void *)(buf + i),
				i / WORDS, (unsigned long long)word(key, i),
				(unsigned long long)found);
			abort();
		}
	}
}

/* Every third page only: neighbours of changed pages must stay. */
static void change_some(uint64_t old, uint64_t key, const char *who)
{
	size_t i;

	for (i = 0; i < bytes / 8; i++)
		if (i / WORDS % 3 == 0)
			buf[i] = word(key, i);
	for (i = 0; i < bytes / 8; i++)
		if (((volatile uint64_t *)buf)[i] != word(i / WORDS % 3 == 0 ? key : old, i))
			die(who);
}

static pid_t do_fork(void)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("fork");
	return pid;
}

static int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	return status;
}

static void expect_ok(pid_t pid, const char *what)
{
	int status = reap(pid);

	if (status != 0) {
		fprintf(stderr, "fork_deep: %s: child %d ended with status %#x\n", what, (int)pid,
			status);
		die(what);
	}
}

/* ---- the tests ---- */

static void both_change_everything(void)
{
	pid_t pid;

	fill(1);
	pid = do_fork();
	if (pid == 0) {
		verify(1, "child");
		fill(2);
		verify(2, "child, own");
		_exit(0);
	}
	verify(1, "parent");
	fill(3);
	verify(3, "parent, own");
	expect_ok(pid, "child");
	verify(3, "parent at the end");
}

static void parent_changes_first(void)
{
	int go[2];
	char c;
	pid_t pid;

	fill(4);
	if (pipe(go))
		die("pipe");
	pid = do_fork();
	if (pid == 0) {
		if (read(go[0], &c, 1) != 1)
			die("read");
		verify(4, "child after the parent has changed everything");
		fill(5);
		verify(5, "child, own");
		_exit(0);
	}
	fill(6);
	fill(7);
	verify(7, "parent");
	if (write(go[1], "x", 1) != 1)
		die("write");
	expect_ok(pid, "late child");
	verify(7, "parent at the end");
	close(go[0]);
	close(go[1]);
}

/* Two children on each of four levels, all alive at once. */
static void tree(unsigned depth, uint64_t key)
{
	pid_t pid[2];
	unsigned i;

	for (i = 0; i < 2 && depth; i++) {
		pid[i] = do_fork();
		if (pid[i] == 0) {
			verify(key, "tree: inherited");
			change_some(key, key * 2 + i + 10, "tree: changed");
			fill(key * 2 + i + 10);
			tree(depth - 1, key * 2 + i + 10);
			verify(key * 2 + i + 10, "tree: at the end");
			_exit(0);
		}
	}
	verify(key, "tree: parent");
	for (i = 0; i < 2 && depth; i++)
		expect_ok(pid[i], "tree");
}

static void tree_four_deep(void)
{
	size_t all = bytes;

	bytes = 2u << 20; /* 31 processes at once */
	fill(8);
	tree(4, 8);
	bytes = all;
}

/* A chain in which each parent dies before its child has verified. */
static void parents_die_first(void)
{
	int done[2];
	unsigned i;
	char c;
	pid_t pid;

	fill(9);
	if (pipe(done))
		die("pipe");
	pid = do_fork();
	if (pid == 0) {
		for (i = 0; i < 4; i++) {
			if (do_fork() != 0)
				_exit(0); /* at once: the child goes on alone */
			usleep(20000);
			verify(9 + i, "orphan");
			fill(10 + i);
		}
		verify(13, "last orphan");
		if (write(done[1], "k", 1) != 1)
			die("write");
		_exit(0);
	}
	close(done[1]);
	expect_ok(pid, "first of the chain");
	fill(99);
	if (read(done[0], &c, 1) != 1)
		die("the last orphan did not come through");
	close(done[0]);
	verify(99, "grandparent");
}

static void children_are_killed(void)
{
	unsigned i;
	pid_t pid;

	fill(20);
	for (i = 0; i < 6; i++) {
		pid = do_fork();
		if (pid == 0)
			for (;;) {
				verify(20 + i, "child to be killed");
				fill(20 + i);
			}
		usleep(3000 * i);
		kill(pid, SIGKILL);
		fill(21 + i);
		if (!WIFSIGNALED(reap(pid)))
			die("child was not killed");
		verify(21 + i, "parent of a killed child");
	}
}

/* Children outlive each other in an order other than that of their birth. */
static void exit_in_any_order(void)
{
	enum { N = 6 };
	int gate[N][2];
	pid_t pid[N];
	unsigned i;
	char c;

	for (i = 0; i < N; i++) {
		fill(30 + i);
		if (pipe(gate[i]))
			die("pipe");
		pid[i] = do_fork();
		if (pid[i] == 0) {
			if (read(gate[i][0], &c, 1) != 1)
				die("read");
			verify(30 + i, "child in waiting");
			change_some(30 + i, 40 + i, "child in waiting, own");
			_exit(0);
		}
	}
	for (i = 0; i < N; i++) {
		unsigned k = (i * 5 + 3) % N;

		if (write(gate[k][1], "x", 1) != 1)
			die("write");
		expect_ok(pid[k], "child in waiting");
		verify(30 + N - 1, "parent of many");
	}
	for (i = 0; i < N; i++) {
		close(gate[i][0]);
		close(gate[i][1]);
	}
}

/* ---- fork while other threads write ---- */

static volatile bool stop;
static uint64_t *counters; /* page i is written by thread i % NT only */
enum { NT = 3, NPAGES = 600 };

static void *writer(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	uint64_t round = 1;
	size_t p;

	while (!stop) {
		for (p = id; p < NPAGES; p += NT) {
			volatile uint64_t *w = counters + p * WORDS;

			if (w[0] != round - 1 || w[1] != round - 1)
				die("writer: page changed by itself");
			/* w[1] may lag behind w[0] by one, also in a child's copy */
			w[0] = round;
			w[1] = round;
		}
		round++;
	}
	return NULL;
}

static void check_counters(void)
{
	size_t p;

	for (p = 0; p < NPAGES; p++) {
		volatile uint64_t *w = counters + p * WORDS;

		if (w[0] != w[1] && w[0] != w[1] + 1)
			die("child: torn page");
	}
}

static void forks_while_threads_write(void)
{
	pthread_t tid[NT];
	unsigned i;

	counters = mmap(NULL, NPAGES * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (counters == MAP_FAILED)
		die("mmap");
	fill(50);
	stop = false;
	for (i = 0; i < NT; i++)
		pthread_create(&tid[i], NULL, writer, (void *)(uintptr_t)i);
	for (i = 0; i < 8; i++) {
		pid_t pid = do_fork();

		if (pid == 0) {
			check_counters();
			verify(50 + i, "child among threads");
			fill(60);
			memset(counters, 7, NPAGES * PG);
			verify(60, "child among threads, own");
			_exit(0);
		}
		fill(51 + i);
		verify(51 + i, "parent among threads");
		expect_ok(pid, "child among threads");
	}
	stop = true;
	for (i = 0; i < NT; i++)
		pthread_join(tid[i], NULL);
	check_counters();
	munmap(counters, NPAGES * PG);
}

/* ---- programs started under load ---- */

static void *load(void *arg)
{
	size_t i;

	(void)arg;
	while (!stop)
		for (i = 0; i < NPAGES && !stop; i++) {
			counters[i * WORDS]++;
			counters[i * WORDS + 100] = counters[i * WORDS];
		}
	return NULL;
}

static void start_with_spawn(void)
{
	char *args[] = { (char *)"sh", (char *)"-c", (char *)"exit 42", NULL };
	pid_t pid;

	if (posix_spawn(&pid, "/bin/sh", NULL, NULL, args, environ) != 0)
		die("posix_spawn");
	if (WEXITSTATUS(reap(pid)) != 42)
		die("posix_spawn: wrong exit status");
}

static void start_with_vfork(void)
{
	pid_t pid = vfork();

	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", "exit 43", (char *)NULL);
		_exit(1);
	}
	if (pid < 0 || WEXITSTATUS(reap(pid)) != 43)
		die("vfork and exec");
	pid = vfork();
	if (pid == 0)
		_exit(7);
	if (pid < 0 || WEXITSTATUS(reap(pid)) != 7)
		die("vfork and _exit");
}

static void start_with_popen(void)
{
	char line[64] = "";
	FILE *f = popen("echo alpha; echo beta", "r");

	if (!f || !fgets(line, sizeof(line), f) || strcmp(line, "alpha\n") ||
	    !fgets(line, sizeof(line), f) || strcmp(line, "beta\n") || pclose(f) != 0)
		die("popen");
	f = popen("cat >/dev/null; exit 9", "w");
	if (!f || fwrite(buf, 1, 1u << 20, f) != 1u << 20 || WEXITSTATUS(pclose(f)) != 9)
		die("popen for writing");
}

static void programs_under_load(void)
{
	pthread_t tid;
	unsigned i;

	counters = mmap(NULL, NPAGES * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (counters == MAP_FAILED)
		die("mmap");
	fill(70);
	stop = false;
	pthread_create(&tid, NULL, load, NULL);
	for (i = 0; i < 4; i++) {
		start_with_spawn();
		start_with_vfork();
		start_with_popen();
		if (WEXITSTATUS(system("exit 5")) != 5)
			die("system");
		verify(70 + i, "after starting programs");
		fill(71 + i);
	}
	stop = true;
	pthread_join(tid, NULL);
	munmap(counters, NPAGES * PG);
}

/* exec starts clean: the new image checks its own memory, with the parent's still in use. */
static void exec_starts_clean(void)
{
	char text[32];
	pid_t pid;

	fill(80);
	pid = do_fork();
	if (pid == 0) {
		verify(80, "before exec");
		if (!freopen("/dev/null", "w", stdout))
			die("/dev/null");
		snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
		execl("/proc/self/exe", "fork_deep", "--seed", text, "both_change_everything",
		      (char *)NULL);
		_exit(99);
	}
	fill(81);
	expect_ok(pid, "exec of ourselves");
	verify(81, "parent of an exec");
}

/* Many in a row: nothing may pile up (descriptors, slots, mappings). */
static void many_in_a_row(void)
{
	unsigned i;

	fill(90);
	for (i = 0; i < 60; i++) {
		pid_t pid = do_fork();

		if (pid == 0) {
			size_t at = (i * 131) % (bytes / PG) * WORDS;

			if (((volatile uint64_t *)buf)[at] != word(90, at))
				die("one of many");
			buf[at] = 1;
			_exit(buf[at] == 1 ? 0 : 1);
		}
		if (i % 3)
			expect_ok(pid, "one of many");
	}
	while (wait(NULL) > 0)
		;
	verify(90, "parent of sixty");
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "both_change_everything", both_change_everything },
	{ "parent_changes_first", parent_changes_first },
	{ "tree_four_deep", tree_four_deep },
	{ "parents_die_first", parents_die_first },
	{ "children_are_killed", children_are_killed },
	{ "exit_in_any_order", exit_in_any_order },
	{ "forks_while_threads_write", forks_while_threads_write },
	{ "programs_under_load", programs_under_load },
	{ "exec_starts_clean", exec_starts_clean },
	{ "many_in_a_row", many_in_a_row },
};
enum { NTESTS = sizeof(tests) / sizeof(tests[0]) };

static bool wanted(int argc, char **argv, const char *name)
{
	bool any = false;
	int i;

	for (i = 1; i < argc; i++) {
		if (argv[i][0] == '-') {
			i++;
			continue;
		}
		any = true;
		if (strcmp(argv[i], name) == 0)
			return true;
	}
	return !any;
}

/* Each test in a process of its own, so that one failure does not hide the rest. */
static void run_one(unsigned n, const char *name, void (*run)(void))
{
	int status = 0;
	pid_t pid = direct ? -1 : do_fork();

	if (direct)
		run();
	if (pid == 0) {
		alarm(limit_s);
		run();
		_exit(0);
	}
	if (!direct)
		status = reap(pid);
	failures += status != 0;
	printf("%s %u - %s\n", status ? "not ok" : "ok", n, name);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned i, n = 0;

	seed = (uint64_t)time(NULL) ^ ((uint64_t)getpid() << 32);
	for (i = 1; i + 1 < (unsigned)argc; i++) {
		if (strcmp(argv[i], "--direct") == 0)
			direct = atoi(argv[i + 1]);
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 0);
		if (strcmp(argv[i], "--limit") == 0)
			limit_s = (unsigned)atoi(argv[i + 1]);
		if (strcmp(argv[i], "--mib") == 0)
			bytes = strtoull(argv[i + 1], NULL, 0) << 20;
	}
	printf("# seed %llu, %zu bytes\n", (unsigned long long)seed, bytes);
	buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		die("mmap");
	for (i = 0; i < NTESTS; i++)
		if (wanted(argc, argv, tests[i].name))
			run_one(++n, tests[i].name, tests[i].run);
	printf("1..%u\n", n);
	return failures || !n;
}
