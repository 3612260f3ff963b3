/* SPDX-License-Identifier: MIT */
/*
 * Pages that come and go all the time: more are in use than the budget holds, but not many more, so most of those that are
 * evicted are wanted again soon (under extmem with --standby: while they wait in a frame).  Threads take
 * runs of pages, look whether each byte is what it was, and do something with the run that moves, replaces, hides
 * or copies it, while the others press it out of memory.
 */
#define _GNU_SOURCE
#include "races.h"

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

enum { RUN = 16, RUNS = 48, PAGES = RUN * RUNS, WORDS = PAGE / sizeof(uint64_t), THREADS = 4 };

static char *mem, *aside; /* aside: room for one run a thread, with a gap behind each */
static struct run {
	int taken;
	uint32_t version[RUN]; /* 0: zeros */
} run[RUNS];

struct actor {
	pthread_t thread;
	unsigned n;
	uint64_t seed;
	void (*op)(struct actor *a, unsigned r);
	int pipe[2];
};

static struct timespec until;

static bool is_over(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > until.tv_sec ||
	       (now.tv_sec == until.tv_sec && now.tv_nsec > until.tv_nsec);
}

static uint64_t draw(struct actor *a)
{
	a->seed ^= a->seed << 13;
	a->seed ^= a->seed >> 7;
	return a->seed ^= a->seed << 17;
}

/* The first word points to another page, for a prefetcher that looks at what it brings in. */
static uint64_t word_at(unsigned page, uint32_t version, size_t i)
{
	if (version && !i)
		return (uintptr_t)mem + (page * 7ull + version) % PAGES * PAGE;
	return version ? ((uint64_t)version << 32 | page << 12 | i) * 0x9e3779b97f4a7c15ull : 0;
}

static void take(unsigned r)
{
	while (__atomic_exchange_n(&run[r].taken, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void give(unsigned r)
{
	__atomic_store_n(&run[r].taken, 0, __ATOMIC_RELEASE);
}

static char *run_at(unsigned r)
{
	return mem + r * RUN * PAGE;
}

static void look_at_page(const char *at, unsigned page)
{
	const volatile uint64_t *w = (const volatile uint64_t *)at;
	uint32_t version = run[page / RUN].version[page % RUN];

	for (size_t i = 0; i < WORDS; i++)
		CHECK(w[i] == word_at(page, version, i));
}

static void look_at_run(const char *at, unsigned r)
{
	for (unsigned k = 0; k < RUN; k++)
		look_at_page(at + k * PAGE, r * RUN + k);
}

static void write_page(char *at, unsigned page)
{
	volatile uint64_t *w = (volatile uint64_t *)at;
	uint32_t version = ++run[page / RUN].version[page % RUN];

	for (size_t i = 0; i < WORDS; i++)
		w[i] = word_at(page, version, i);
}

/* Some pages are read, some written, some left where they are. */
static void use(struct actor *a, unsigned r)
{
	for (unsigned k = 0; k < RUN; k++) {
		unsigned page = r * RUN + k, what = draw(a) % 4;

		if (what)
			look_at_page(mem + page * PAGE, page);
		if (what == 1)
			write_page(mem + page * PAGE, page);
	}
}

static void *act(void *arg)
{
	struct actor *a = arg;

	while (!is_over()) {
		unsigned r = draw(a) % RUNS;

		take(r);
		if (draw(a) % 4)
			use(a, r);
		else
			a->op(a, r);
		give(r);
	}
	return NULL;
}

static struct actor actor[THREADS];

static void begin(void (*op)(struct actor *a, unsigned r), unsigned ms)
{
	mem = tap_map(PAGES * PAGE);
	aside = tap_map(THREADS * 2 * RUN * PAGE);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	for (unsigned i = 0; i < THREADS; i++) {
		actor[i].n = i;
		actor[i].seed = 88172645463325252ull + i * 1000003;
		actor[i].op = op;
		CHECK(pipe(actor[i].pipe) == 0);
		CHECK(pthread_create(&actor[i].thread, NULL, act, &actor[i]) == 0);
	}
}

static void end(void)
{
	for (unsigned i = 0; i < THREADS; i++)
		CHECK(pthread_join(actor[i].thread, NULL) == 0);
	for (unsigned r = 0; r < RUNS; r++)
		look_at_run(run_at(r), r);
}

/* ---- written ------------------------------------------------------------------------- */

static uint64_t added[THREADS][PAGES];

/* Nobody owns a page here: no increment is lost, whoever writes, protects or evicts at the moment. */
static void *count_up(void *arg)
{
	struct actor *a = arg;

	while (!is_over()) {
		unsigned page = draw(a) % PAGES;
		uint64_t *w = (uint64_t *)(mem + page * PAGE + page % WORDS * sizeof(uint64_t));

		__atomic_fetch_add(w, 1, __ATOMIC_RELAXED);
		added[a->n][page]++;
	}
	return NULL;
}

void test_standby_and_counters(void)
{
	mem = tap_map(PAGES * PAGE);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 1;
	for (unsigned i = 0; i < THREADS; i++) {
		actor[i].n = i;
		actor[i].seed = 88172645463325252ull + i * 1000003;
		CHECK(pthread_create(&actor[i].thread, NULL, count_up, &actor[i]) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		CHECK(pthread_join(actor[i].thread, NULL) == 0);
	for (unsigned page = 0; page < PAGES; page++) {
		const uint64_t *w = (const uint64_t *)(mem + page * PAGE);
		uint64_t sum = 0;

		for (unsigned i = 0; i < THREADS; i++)
			sum += added[i][page];
		for (size_t i = 0; i < WORDS; i++)
			CHECK(w[i] == (i == page % WORDS ? sum : 0));
	}
}

/* ---- replaced and moved ------------------------------------------------------------------- */

static void forget(unsigned r, unsigned from, unsigned n)
{
	memset(&run[r].version[from], 0, n * sizeof(run[r].version[0]));
}

static void replace(struct actor *a, unsigned r)
{
	unsigned from = draw(a) % RUN, n = 1 + draw(a) % (RUN - from);
	char *p = run_at(r) + from * PAGE;

	switch (draw(a) % 3) {
	case 0:
		CHECK(madvise(p, n * PAGE, MADV_DONTNEED) == 0);
		break;
	case 1:
		CHECK(munmap(p, n * PAGE) == 0);
		/* fall through */
	default:
		CHECK(mmap(p, n * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	}
	forget(r, from, n);
	if (draw(a) % 2)
		look_at_run(run_at(r), r);
}

void test_standby_and_replaced(void)
{
	begin(replace, 1500);
	end();
}

/* There, used or not, and back. */
static void move(struct actor *a, unsigned r)
{
	char *p = run_at(r), *q = aside + a->n * 2 * RUN * PAGE;
	const size_t bytes = RUN * PAGE;

	CHECK(mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
	if (draw(a) % 2)
		look_at_run(q, r);
	if (draw(a) % 2)
		for (unsigned k = draw(a) % 4; k < RUN; k += 3)
			write_page(q + k * PAGE, r * RUN + k);
	CHECK(mremap(q, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
	CHECK(mmap(q, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == q);
}

void test_standby_and_moved(void)
{
	begin(move, 1500);
	end();
}

/* ---- hidden ------------------------------------------------------------------------------- */

/* What the program cannot read is evicted all the same. */
static void hide(struct actor *a, unsigned r)
{
	static const int prot[] = { PROT_NONE, PROT_READ, PROT_NONE };
	char *p = run_at(r);
	unsigned other;

	CHECK(mprotect(p, RUN * PAGE, prot[draw(a) % 3]) == 0);
	for (int turn = 0; turn < 4; turn++) {
		other = draw(a) % RUNS;
		if (__atomic_exchange_n(&run[other].taken, 1, __ATOMIC_ACQUIRE))
			continue; /* ours among them */
		use(a, other);
		give(other);
	}
	CHECK(mprotect(p, RUN * PAGE, PROT_READ | PROT_WRITE) == 0);
	look_at_run(p, r);
}

void test_standby_and_hidden(void)
{
	begin(hide, 1500);
	end();
}

/* Named to be paged out, or locked; both may be refused. */
static void advise(struct actor *a, unsigned r)
{
	char *p = run_at(r);

	if (draw(a) % 2) {
		madvise(p, RUN * PAGE, MADV_PAGEOUT);
	} else if (!mlock(p, RUN * PAGE)) {
		use(a, r);
		CHECK(munlock(p, RUN * PAGE) == 0);
	}
	look_at_run(p, r);
}

void test_standby_and_advice(void)
{
	begin(advise, 1000);
	end();
}

/* ---- system calls --------------------------------------------------------------------------- */

/* The kernel reads one run and writes another page by page, not beginning where pages begin. */
static void call(struct actor *a, unsigned r)
{
	size_t first = draw(a) % (RUN - 4) * PAGE, off = first + draw(a) % PAGE;
	size_t n = 1 + draw(a) % (3 * PAGE);
	char *p = run_at(r);

	CHECK(write(a->pipe[1], p + off, n) == (ssize_t)n);
	if (draw(a) % 2)
		for (unsigned other = draw(a) % RUNS, i = 0; i < 4; i++, other = draw(a) % RUNS)
			if (!__atomic_exchange_n(&run[other].taken, 1, __ATOMIC_ACQUIRE)) {
				use(a, other);
				give(other);
			}
	/* What came from there goes there again, and must not have changed anything. */
	for (size_t i = 0; i < n && draw(a) % 2; i += PAGE)
		p[off + i] = (char)~p[off + i];
	for (size_t done = 0; done < n;) {
		ssize_t got = read(a->pipe[0], p + off + done, n - done);

		CHECK(got > 0);
		done += (size_t)got;
	}
	look_at_run(p, r);
}

void test_standby_and_calls(void)
{
	begin(call, 1500);
	end();
}

/* ---- fork --------------------------------------------------------------------------------- */

/* All that there was at the fork, and what the child makes of it, while the parent goes on. */
static void child(void)
{
	struct actor a = { .seed = (uint64_t)getpid() * 2654435761u + 1 };

	for (unsigned r = 0; r < RUNS; r++)
		run[r].taken = 0;
	for (unsigned r = 0; r < RUNS; r++)
		look_at_run(run_at(r), r);
	for (int turn = 0; turn < 40; turn++)
		use(&a, draw(&a) % RUNS);
	for (unsigned r = 0; r < RUNS; r++)
		look_at_run(run_at(r), r);
	_exit(0);
}

static void nothing(struct actor *a, unsigned r)
{
	use(a, r);
}

void test_standby_and_fork(void)
{
	begin(nothing, 2000);
	while (!is_over()) {
		int status;
		pid_t pid;

		for (unsigned r = 0; r < RUNS; r++)
			take(r);
		pid = fork();
		if (!pid)
			child();
		for (unsigned r = 0; r < RUNS; r++)
			give(r);
		CHECK(pid > 0);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	}
	end();
}
