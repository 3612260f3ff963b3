/* SPDX-License-Identifier: MIT */
/* Torture test: options, threads, timer and watchdog.  See torture.h for the idea. */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct config cfg = {
	.threads = 4, .seconds = 5, .bytes = 8u << 20, .ops = OP_ALL, .stall_seconds = 60
};
struct thread *threads;
pthread_rwlock_t world;
int in_child;
static volatile int stop;

static const struct op {
	const char *name;
	void (*run)(struct thread *t);
	unsigned class;
	unsigned weight;
	bool exclusive; /* others stand still */
	bool unsettles;
	bool in_child; /* touches this thread's own memory only */
} ops[] = {
	{ "rw", op_rw, OP_RW, 300, false, false, true },
	{ "map", op_map, OP_MAP, 60, false, true, true },
	{ "remap", op_remap, OP_REMAP, 40, false, true, true },
	{ "prot", op_prot, OP_PROT, 60, false, true, true },
	{ "advise", op_advise, OP_ADVISE, 80, false, true, true },
	{ "malloc", op_malloc, OP_MALLOC, 40, false, false, true },
	{ "sys", op_sys, OP_SYS, 60, false, true, true },
	{ "brk", op_brk, OP_BRK, 2, true, true, true },
	{ "count", op_count, OP_COUNT, 80, false, false, false },
	{ "first", op_first, OP_FIRST, 100, false, false, false },
	{ "seq", op_seq, OP_SEQ, 100, false, false, false },
	{ "fork", op_fork, OP_FORK, 2, false, false, false },
};
#define NOPS (sizeof(ops) / sizeof(ops[0]))

static void run_op(struct thread *t, const struct op *op)
{
	/* fork takes the world itself, and not always. */
	bool locked = !in_child && op->class != OP_FORK;

	t->ops++;
	t->now = op->name;
	if (locked && op->exclusive)
		pthread_rwlock_wrlock(&world);
	else if (locked)
		pthread_rwlock_rdlock(&world);
	if (op->unsettles)
		__atomic_fetch_add(&t->unsettled, 1, __ATOMIC_SEQ_CST);
	op->run(t);
	if (op->unsettles)
		__atomic_fetch_add(&t->unsettled, 1, __ATOMIC_SEQ_CST);
	if (locked)
		pthread_rwlock_unlock(&world);
	t->now = "between operations";
}

static void step(struct thread *t, bool own_only)
{
	unsigned i, total = 0;
	uint64_t pick;

	for (i = 0; i < NOPS; i++)
		if ((ops[i].class & cfg.ops) && (ops[i].in_child || !own_only))
			total += ops[i].weight;
	pick = rnd_below(t, total);
	for (i = 0; i < NOPS; i++) {
		if (!(ops[i].class & cfg.ops) || (own_only && !ops[i].in_child))
			continue;
		if (pick < ops[i].weight)
			break;
		pick -= ops[i].weight;
	}
	if (i < NOPS)
		run_op(t, &ops[i]);
}

void arena_step(struct thread *t)
{
	step(t, true);
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	while (!stop && (!cfg.max_ops || t->ops < cfg.max_ops)) {
		step(t, false);
		if (cfg.verify_every && t->ops % cfg.verify_every == 0)
			arena_check(t, "regular verification");
	}
	fork_reap(t);
	t->now = "done";
	return NULL;
}

static void on_timer(int sig)
{
	int saved = errno;

	(void)sig;
	shared_tick_sigsafe();
	errno = saved;
}

/* A fault that should not have been: say which seed before dying of it. */
static void on_fatal(int sig, siginfo_t *info, void *uc)
{
	(void)uc;
	signal(sig, SIG_DFL);
	fail("signal %d, code %d, address %p", sig, info->si_code, info->si_addr);
}

static void set_handlers(void)
{
	struct sigaction sa = { .sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sa = (struct sigaction){ .sa_handler = on_timer, .sa_flags = SA_RESTART };
	sigaction(SIGALRM, &sa, NULL);
	sigaction(SIGPROF, &sa, NULL);
}

static void set_timers(long us)
{
	struct itimerval it = { { 0, us }, { 0, us } };

	setitimer(ITIMER_REAL, &it, NULL);
	setitimer(ITIMER_PROF, &it, NULL);
}

static void show_file(const char *path)
{
	char line[200];
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		fprintf(stderr, "torture:   %s %s%s", path, line, strchr(line, '\n') ? "" : "\n");
	if (f)
		fclose(f);
}

static void stalled(void)
{
	unsigned i;
	char cmd[128];

	fprintf(stderr, "torture: no progress for %u s\n", cfg.stall_seconds);
	for (i = 0; i < cfg.threads; i++)
		fprintf(stderr, "torture: thread %u: operation %llu: %s, child %d\n", i,
			(unsigned long long)threads[i].ops, threads[i].now, (int)threads[i].child);
	for (i = 0; i < cfg.threads; i++)
		if (threads[i].child > 0) {
			snprintf(cmd, sizeof(cmd), "/proc/%d/wchan", (int)threads[i].child);
			show_file(cmd);
			snprintf(cmd, sizeof(cmd), "/proc/%d/syscall", (int)threads[i].child);
			show_file(cmd);
		}
	fail("stalled");
}

static uint64_t progress(bool *done)
{
	uint64_t sum = 0;
	unsigned i;

	*done = true;
	for (i = 0; i < cfg.threads; i++) {
		sum += threads[i].ops;
		if (strcmp(threads[i].now, "done") != 0)
			*done = false;
	}
	return sum;
}

static double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Until the time is over and all threads have come to their end. */
static void watch(void)
{
	double begin = seconds_now(), moved = begin;
	struct timespec nap = { 0, 50000000 };
	uint64_t seen = 0, now;
	bool done = false;

	while (!done) {
		clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
		if (seconds_now() - begin >= cfg.seconds)
			stop = 1;
		now = progress(&done);
		if (now != seen)
			moved = seconds_now();
		seen = now;
		if (!done && seconds_now() - moved > cfg.stall_seconds)
			stalled();
	}
}

static unsigned parse_ops(const char *text)
{
	char copy[256], *word, *save = NULL;
	unsigned mask = text[0] == '-' ? OP_ALL : 0, i;
	char *end;
	unsigned long number = strtoul(text, &end, 0);

	if (*text && !*end)
		return (unsigned)number & OP_ALL;
	snprintf(copy, sizeof(copy), "%s", text);
	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		bool off = word[0] == '-';
		unsigned bits = strcmp(word + off, "all") == 0 ? OP_ALL : 0;

		for (i = 0; i < NOPS; i++)
			if (strcmp(word + off, ops[i].name) == 0)
				bits = ops[i].class;
		if (!bits) {
			fprintf(stderr, "torture: unknown operation '%s'\n", word + off);
			exit(2);
		}
		mask = off ? mask & ~bits : mask | bits;
	}
	return mask;
}

static uint64_t parse_bytes(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	return *end == 'K' ? n << 10 : *end == 'M' ? n << 20 : *end == 'G' ? n << 30 : n;
}

static void __attribute__((noreturn)) usage(void)
{
	printf("usage: torture [--seed N] [--threads N] [--seconds N] [--bytes SIZE] [--count N]\n"
	       "               [--ops MASK|all,-fork,...] [--timer] [--verify-every N]\n"
	       "               [--stall SECONDS] [--quiet]\n"
	       "operations: rw map remap prot advise malloc sys brk count first seq fork\n"
	       "Everything is verified once more at the end.\n");
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "seed", 1, 0, 's' },	 { "threads", 1, 0, 't' }, { "seconds", 1, 0, 'n' },
		{ "bytes", 1, 0, 'b' },	 { "count", 1, 0, 'c' },   { "ops", 1, 0, 'o' },
		{ "timer", 0, 0, 'T' },	 { "verify-every", 1, 0, 'v' },
		{ "stall", 1, 0, 'S' },	 { "quiet", 0, 0, 'q' },   { "verify-all", 0, 0, 'a' },
		{ 0, 0, 0, 0 }
	};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 's': cfg.seed = strtoull(optarg, NULL, 0); break;
		case 't': cfg.threads = (unsigned)atoi(optarg); break;
		case 'n': cfg.seconds = (unsigned)atoi(optarg); break;
		case 'b': cfg.bytes = parse_bytes(optarg); break;
		case 'c': cfg.max_ops = strtoull(optarg, NULL, 0); break;
		case 'o': cfg.ops = parse_ops(optarg); break;
		case 'T': cfg.timer = true; break;
		case 'v': cfg.verify_every = strtoull(optarg, NULL, 0); break;
		case 'S': cfg.stall_seconds = (unsigned)atoi(optarg); break;
		case 'q': cfg.quiet = true; break;
		case 'a': break; /* it is always done */
		default: usage();
		}
	}
	if (optind != argc || cfg.threads < 1 || cfg.threads > MAX_THREADS || !cfg.ops)
		usage();
}

static void start(void)
{
	pthread_rwlockattr_t attr;
	unsigned i;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&world, &attr);
	shared_init();
	threads = outside_alloc(cfg.threads * sizeof(*threads));
	for (i = 0; i < cfg.threads; i++) {
		threads[i].id = i;
		threads[i].rng = mix64(cfg.seed * 1000003 + i);
		threads[i].now = "starting";
		arena_init(&threads[i]);
		sys_open(&threads[i]);
	}
	set_handlers();
	if (cfg.timer)
		set_timers(1000);
	for (i = 0; i < cfg.threads; i++)
		if (pthread_create(&threads[i].tid, NULL, thread_main, &threads[i]) != 0)
			fail("pthread_create");
}

int main(int argc, char **argv)
{
	struct timespec now;
	uint64_t total = 0;
	unsigned i;

	clock_gettime(CLOCK_REALTIME, &now);
	cfg.seed = ((uint64_t)now.tv_nsec ^ ((uint64_t)getpid() << 20)) % 1000000007;
	parse(argc, argv);
	printf("torture: seed %llu, %u threads, %u s, %llu bytes, operations %#x%s\n",
	       (unsigned long long)cfg.seed, cfg.threads, cfg.seconds,
	       (unsigned long long)cfg.bytes, cfg.ops, cfg.timer ? ", timer" : "");
	fflush(stdout);
	start();
	watch();
	for (i = 0; i < cfg.threads; i++)
		pthread_join(threads[i].tid, NULL);
	set_timers(0);
	for (i = 0; i < cfg.threads; i++) {
		arena_check(&threads[i], "final verification");
		total += threads[i].ops;
	}
	shared_check_exact();
	shared_tick_check();
	printf("torture: ok, %llu operations\n", (unsigned long long)total);
	return 0;
}
