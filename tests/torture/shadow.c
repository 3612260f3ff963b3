/* SPDX-License-Identifier: MIT */
/* The copy of every word, its comparison with the memory, and what is said on a mismatch. */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *outside_alloc(size_t bytes)
{
	void *p;
	int fd = memfd_create("torture-shadow", MFD_CLOEXEC);

	bytes = (bytes + PG - 1) & ~(PG - 1);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
		fail("memfd for the shadow: %s", strerror(errno));
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		fail("mapping the shadow: %s", strerror(errno));
	close(fd);
	return p;
}

void outside_free(void *p, size_t bytes)
{
	munmap(p, (bytes + PG - 1) & ~(PG - 1));
}

uint64_t mix64(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 29;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ (x >> 32);
}

uint64_t rnd(struct thread *t)
{
	t->rng += 0x9e3779b97f4a7c15ull;
	return mix64(t->rng);
}

uint64_t rnd_below(struct thread *t, uint64_t n)
{
	return n ? rnd(t) % n : 0;
}

/*
 * Words carry a check of their owner in the low 16 bits, so that a child forked while
 * other threads were writing can still tell stray bytes from theirs.  Never zero.
 */
static uint64_t seal(unsigned owner, uint64_t high)
{
	return (high << 16) | ((mix64(high ^ ((uint64_t)owner << 56)) & 0xffff) | 1);
}

uint64_t make_word(struct thread *t)
{
	return seal(t->id, rnd(t) >> 16);
}

bool word_valid(unsigned owner, uint64_t w)
{
	return w == 0 || seal(owner, w >> 16) == w;
}

void note(struct thread *t, struct region *r, size_t page, size_t n, const char *what,
	  uint64_t info)
{
	size_t i;

	for (i = page; i < page + n; i++) {
		struct page_meta *m = &r->meta[i];

		m->hist[m->hist_next++ % HIST] = (struct hist){ t->ops, what, info };
	}
}

static void dump_map_of(const void *addr)
{
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long lo, hi;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &lo, &hi) == 2 && (unsigned long)addr >= lo &&
		    (unsigned long)addr < hi)
			fprintf(stderr, "torture: mapping: %s", line);
	if (f)
		fclose(f);
}

void fail(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "torture: FAILED, seed %llu, pid %d, fork depth %d: ",
		(unsigned long long)cfg.seed, (int)getpid(), in_child);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	fflush(stderr);
	abort();
}

void fail_page(struct thread *t, struct region *r, size_t page, const char *where)
{
	uint64_t *mem = region_page(r, page), *want = shadow_page(r, page);
	struct page_meta *m = &r->meta[page];
	unsigned i, bad = 0, zeros = 0, first = WORDS, strange = 0;
	uint64_t found = 0;

	for (i = 0; i < WORDS; i++) {
		uint64_t w = ((volatile uint64_t *)mem)[i];

		if (w == want[i])
			continue;
		if (first == WORDS) {
			first = i;
			found = w;
		}
		bad++;
		zeros += w == 0;
		strange += !word_valid(t->id, w);
	}
	fprintf(stderr,
		"torture: thread %u, %s: page %zu of %zu at %p, state %u%s: %u words differ "
		"(%u are zero, %u were never written by this thread)\n",
		t->id, where, page, r->npages, (void *)mem, m->state, m->freed ? ", freed" : "",
		bad, zeros, strange);
	if (first < WORDS)
		fprintf(stderr, "torture: address %p: expected %016llx, found %016llx\n",
			(void *)(mem + first), (unsigned long long)want[first],
			(unsigned long long)found);
	for (i = 0; i < HIST; i++) {
		struct hist *h = &m->hist[(m->hist_next + i) % HIST];

		if (h->what)
			fprintf(stderr, "torture: history: operation %llu: %s %#llx\n",
				(unsigned long long)h->op_nr, h->what, (unsigned long long)h->info);
	}
	dump_map_of(mem);
	fail("wrong memory at %p (now in operation %llu, %s)", (void *)mem,
	     (unsigned long long)t->ops, t->now);
}

static bool all_zero(const uint64_t *p, unsigned from)
{
	unsigned i;

	for (i = from; i < WORDS; i++)
		if (((const volatile uint64_t *)p)[i])
			return false;
	return true;
}

void page_check(struct thread *t, struct region *r, size_t page, const char *where)
{
	struct page_meta *m = &r->meta[page];

	if (m->state < PG_RO || memcmp(region_page(r, page), shadow_page(r, page), PG) == 0)
		return;
	/* A freed page may turn into zeros at any moment, but only as a whole. */
	if (m->freed && all_zero(region_page(r, page), 0)) {
		memset(shadow_page(r, page), 0, PG);
		return;
	}
	fail_page(t, r, page, where);
}

/* Before a write: a freed page becomes definite by its first write. */
void page_settle(struct thread *t, struct region *r, size_t page)
{
	struct page_meta *m = &r->meta[page];
	volatile uint64_t *mem = region_page(r, page);
	uint64_t *want = shadow_page(r, page), w;

	if (!m->freed)
		return;
	w = make_word(t);
	mem[0] = w;
	if (memcmp(region_page(r, page) + 1, want + 1, PG - 8) != 0) {
		if (!all_zero(region_page(r, page), 1))
			fail_page(t, r, page, "first write after MADV_FREE");
		memset(want, 0, PG);
	}
	want[0] = w;
	m->freed = 0;
}

void region_check(struct thread *t, struct region *r, const char *where)
{
	size_t i;

	for (i = 0; i < r->npages; i++)
		page_check(t, r, i, where);
}

void arena_check(struct thread *t, const char *where)
{
	unsigned i;

	for (i = 0; i < NREG; i++)
		region_check(t, &t->reg[i], where);
	blocks_check(t);
}

/*
 * In a child forked while the owner was at work: the copy may lag behind by an
 * operation, but no foreign word may show.  Skipped when the owner was changing its
 * mappings: the kernel copies page by page while the owner goes on, so only a
 * counter that is even and the same before fork and in the child proves that no
 * mapping operation fell between.
 */
void arena_check_loosely(struct thread *t, uint64_t unsettled_before_fork)
{
	unsigned i, j;
	size_t p;

	if ((unsettled_before_fork & 1) || t->unsettled != unsettled_before_fork)
		return;
	for (i = 0; i < NREG; i++) {
		struct region *r = &t->reg[i];

		for (p = 0; p < r->npages; p++) {
			if (r->meta[p].state < PG_RO)
				continue;
			for (j = 0; j < WORDS; j++)
				if (!word_valid(t->id, ((volatile uint64_t *)region_page(r, p))[j]))
					fail_page(t, r, p, "stray word in a child");
		}
	}
}
