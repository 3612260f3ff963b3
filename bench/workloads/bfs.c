/* SPDX-License-Identifier: MIT */
/*
 * Breadth-first search on a Kronecker graph, top down, level by level; --iterations is
 * the number of searches, each from another vertex.  The level of a vertex does not
 * depend on which thread finds it first, so neither does the output.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kron.h"
#include "util.h"

#define UNSEEN (-1)
#define LEVELS_MAX 4096
#define BATCH 1024 /* vertices that a thread gathers before it appends them */

struct bfs {
	const struct kron *g;
	int32_t *level;
	uint32_t *queue; /* every vertex reached, in order of level */
	uint64_t tail;	 /* of queue; atomic */
};

static void append(struct bfs *b, const uint32_t *batch, unsigned n)
{
	uint64_t at = __atomic_fetch_add(&b->tail, n, __ATOMIC_RELAXED);

	memcpy(b->queue + at, batch, n * sizeof(*batch));
}

static bool claim(struct bfs *b, uint32_t v, int32_t level)
{
	int32_t unseen = UNSEEN;

	/* Most neighbours were seen long ago: look before taking the line exclusively. */
	if (__atomic_load_n(&b->level[v], __ATOMIC_RELAXED) != UNSEEN)
		return false;
	return __atomic_compare_exchange_n(&b->level[v], &unseen, level, false, __ATOMIC_RELAXED,
					   __ATOMIC_RELAXED);
}

/* Visits the neighbours of queue[head .. tail). */
static void expand(struct bfs *b, uint64_t head, uint64_t tail, int32_t level)
{
	const struct kron *g = b->g;

#pragma omp parallel
	{
		uint32_t batch[BATCH];
		unsigned n = 0;

#pragma omp for schedule(dynamic, 64) nowait
		for (uint64_t q = head; q < tail; q++) {
			uint32_t v = b->queue[q];

			for (uint64_t i = g->first[v]; i < g->first[v + 1]; i++) {
				if (!claim(b, g->target[i], level))
					continue;
				batch[n++] = g->target[i];
				if (n == BATCH) {
					append(b, batch, n);
					n = 0;
				}
			}
		}
		append(b, batch, n);
	}
}

/* Returns the number of levels; count[l] is the number of vertices on level l. */
static int32_t search(struct bfs *b, uint32_t source, uint64_t *count)
{
	uint64_t head = 0;
	int32_t level = 0;

#pragma omp parallel for schedule(static)
	for (uint64_t v = 0; v < b->g->vertices; v++)
		b->level[v] = UNSEEN;
	b->level[source] = 0;
	b->queue[0] = source;
	b->tail = 1;
	while (head < b->tail) {
		uint64_t tail = b->tail;

		if (level == LEVELS_MAX)
			wl_die("more than %d levels", LEVELS_MAX);
		count[level++] = tail - head;
		expand(b, head, tail, level);
		head = tail;
	}
	return level;
}

static uint64_t checksum(const struct bfs *b)
{
	uint64_t sum = 0;

#pragma omp parallel for schedule(static) reduction(+ : sum)
	for (uint64_t v = 0; v < b->g->vertices; v++)
		sum += wl_mix64((uint64_t)(int64_t)b->level[v] ^ wl_mix64(v));
	return sum;
}

/* The i-th source: some vertex with neighbours, spread over the graph. */
static uint32_t pick_source(const struct kron *g, unsigned i)
{
	uint64_t v = wl_mix64(i + 1) & (g->vertices - 1);

	for (uint64_t tried = 0; tried < g->vertices; tried++) {
		if (kron_degree(g, v))
			return (uint32_t)v;
		v = (v + 1) & (g->vertices - 1);
	}
	wl_die("the graph has no edges");
}

static double run(struct bfs *b, unsigned searches)
{
	static uint64_t count[LEVELS_MAX];
	uint64_t ns = 0;

	for (unsigned i = 0; i < searches; i++) {
		uint32_t source = pick_source(b->g, i);
		uint64_t t0 = wl_now_ns();
		int32_t levels = search(b, source, count);

		ns += wl_now_ns() - t0;
		printf("source %u levels", source);
		for (int32_t l = 0; l < levels; l++)
			printf(" %llu", (unsigned long long)count[l]);
		printf(" checksum %016llx\n", (unsigned long long)checksum(b));
	}
	return (double)ns / 1e9;
}

int main(int argc, char **argv)
{
	struct kron_options o = {.scale = 20, .degree = 16, .iterations = 4};
	struct bfs b = {0};
	struct kron g;
	double kernel_s;

	kron_options_parse(&o, argc, argv, "breadth-first search on a Kronecker graph");
	kron_build(&g, o.scale, o.degree, o.seed);
	printf("graph vertices %llu entries %llu\n", (unsigned long long)g.vertices,
	       (unsigned long long)g.entries);
	b.g = &g;
	b.level = wl_alloc(g.vertices * sizeof(*b.level));
	b.queue = wl_alloc(g.vertices * sizeof(*b.queue));
	kernel_s = run(&b, o.iterations);
	kron_print_timing(&g, kernel_s,
			  kron_bytes(&g) + g.vertices * (sizeof(*b.level) + sizeof(*b.queue)));
	free(b.level);
	free(b.queue);
	kron_free(&g);
	return fflush(stdout) ? 1 : 0;
}
