/* SPDX-License-Identifier: MIT */
/*
 * A tree of processes that allocate, write, verify, free, fork and get killed at random.  Every
 * process checks that each page it refers to, its own or inherited, still holds what was
 * written: a slot given out twice would have been overwritten.
 */
#include <time.h>

#include "common.h"

enum { KNOWN = 2000, STEPS = 1500, MAX_DEPTH = 4, EXTENTS = 2 };

struct ref {
	em_slot_t slot;
	uint64_t stamp;
};

struct state {
	struct em_store *st;
	struct ref known[KNOWN];
	uint32_t n;
	uint64_t *page;
	unsigned seed;
	int depth, children;
	pid_t child[8];
};

/* Shared: the first mismatch, and a source of unique stamps. */
static struct {
	uint64_t next_stamp, processes;
	uint32_t bad;
} *common;

static unsigned rnd(struct state *s, unsigned n)
{
	return (unsigned)rand_r(&s->seed) % n;
}

static void bad(struct state *s, const char *what, struct ref r)
{
	__atomic_store_n(&common->bad, 1, __ATOMIC_SEQ_CST);
	fprintf(stderr, "depth %d: %s, slot %u stamp %lu, read seed word %lx\n", s->depth, what,
		r.slot, (unsigned long)r.stamp, (unsigned long)s->page[0]);
	_exit(1);
}

static void verify(struct state *s, struct ref r)
{
	if (em_store_read(s->st, r.slot, s->page, 1))
		bad(s, "read failed", r);
	if (!pages_are(s->page, 1, r.stamp))
		bad(s, "overwritten", r);
}

static void add(struct state *s)
{
	em_slot_t first;
	uint32_t n;

	if (s->n + 64 > KNOWN)
		return;
	n = em_slots_alloc(s->st, 1 + rnd(s, 64), &first);
	for (uint32_t i = 0; i < n; i++) {
		struct ref r = {first + i,
				__atomic_add_fetch(&common->next_stamp, 1, __ATOMIC_RELAXED)};

		pages_fill(s->page, 1, r.stamp);
		if (em_store_writev(s->st, r.slot, &(struct iovec){s->page, 4096}, 1))
			bad(s, "write failed", r);
		s->known[s->n++] = r;
	}
}

/* Mostly young ones: what is inherited must stay right for long. */
static void drop(struct state *s, uint32_t n)
{
	while (n-- && s->n) {
		uint32_t young = s->n < 300 || !rnd(s, 3) ? s->n : 300;
		uint32_t k = s->n - 1 - rnd(s, young);

		verify(s, s->known[k]);
		em_slots_free(s->st, s->known[k].slot);
		s->known[k] = s->known[--s->n];
	}
}

static void live(struct state *s);

static void breed(struct state *s)
{
	pid_t pid;

	if (s->depth == MAX_DEPTH || s->children == 8 ||
	    __atomic_load_n(&common->processes, __ATOMIC_RELAXED) >= 3000)
		return;
	__atomic_fetch_add(&common->processes, 1, __ATOMIC_RELAXED);
	if (em_store_fork_prepare(s->st))
		bad(s, "prepare failed", (struct ref){0, 0});
	pid = fork();
	if (!pid) {
		if (em_store_fork_child(s->st))
			bad(s, "fork_child failed", (struct ref){0, 0});
		s->depth++;
		s->children = 0;
		s->seed ^= (unsigned)getpid();
		live(s);
		_exit(0);
	}
	em_store_fork_parent(s->st, pid);
	if (pid > 0)
		s->child[s->children++] = pid;
}

/* Kills a child in the middle of whatever it does; its own children live on. */
static void cull(struct state *s)
{
	if (s->children)
		kill_child(s->child[--s->children]);
}

static void live(struct state *s)
{
	for (int i = 0; i < STEPS && !__atomic_load_n(&common->bad, __ATOMIC_RELAXED); i++) {
		unsigned what = rnd(s, 100);

		if (what < 42)
			add(s);
		else if (what < 82)
			drop(s, rnd(s, 64));
		else if (what < 96 && s->n)
			verify(s, s->known[rnd(s, s->n)]);
		else if (what < 98)
			breed(s);
		else if (what == 98)
			cull(s);
	}
	while (s->children)
		waitpid(s->child[--s->children], NULL, 0);
	for (uint32_t i = 0; i < s->n; i++)
		verify(s, s->known[i]);
}

static void tree(void **unused)
{
	struct state *s = calloc(1, sizeof(*s));
	unsigned seed = (unsigned)time(NULL);
	em_slot_t first;
	uint32_t n, total = 0;

	(void)unused;
	if (getenv("SEED"))
		seed = (unsigned)atol(getenv("SEED"));
	print_message("seed %u\n", seed);
	common = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	s->st = open_store((uint64_t)EXTENTS * EM_EXTENT_SLOTS * EM_SLOT_SIZE);
	s->page = pages_new(1);
	s->seed = seed;
	live(s);
	assert_int_equal(common->bad, 0);
	print_message("%lu forks, %lu pages\n", (unsigned long)common->processes,
		      (unsigned long)common->next_stamp);
	/* orphans of killed processes may go on for a moment; then everything is free again */
	for (uint32_t i = 0; i < s->n; i++)
		em_slots_free(s->st, s->known[i].slot);
	for (int i = 0; i < 2000 && total < EXTENTS * EM_EXTENT_SLOTS - 1; i++) {
		while ((n = em_slots_alloc(s->st, 1024, &first)))
			total += n;
		usleep(10000);
	}
	assert_int_equal(common->bad, 0);
	assert_int_equal(total, EXTENTS * EM_EXTENT_SLOTS - 1);
	em_store_close(s->st);
	free(s);
}

static int group(const char *name)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(tree)};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group, false);
}
