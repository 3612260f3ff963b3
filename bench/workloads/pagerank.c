/* SPDX-License-Identifier: MIT */
/*
 * PageRank on a Kronecker graph, pull direction.
 *
 * Ranks are fixed-point integers, so that sums do not depend on their order and the
 * output is the same, byte for byte, with any number of threads.
 *
 * The ranks of all vertices sum to TOTAL (less what rounding loses), so no sum of
 * contributions exceeds 2^54 and its product with DAMPING stays below 2^62.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kron.h"
#include "util.h"

#define TOTAL_BITS 54
#define DAMPING 218u /* of 256: 0.85 */

struct pagerank {
	const struct kron *g;
	uint64_t *rank;	 /* of the vertex */
	uint64_t *share; /* what it gives to each neighbour */
};

/* Shares out the ranks; returns what the vertices without neighbours keep. */
static uint64_t share_out(struct pagerank *p)
{
	const struct kron *g = p->g;
	uint64_t kept = 0;

#pragma omp parallel for schedule(static) reduction(+ : kept)
	for (uint64_t v = 0; v < g->vertices; v++) {
		uint64_t degree = kron_degree(g, v);

		p->share[v] = degree ? p->rank[v] / degree : 0;
		if (!degree)
			kept += p->rank[v];
	}
	return kept;
}

/* One iteration; returns the sum of all changes. */
static uint64_t iterate(struct pagerank *p)
{
	const struct kron *g = p->g;
	uint64_t kept = share_out(p);
	uint64_t base = ((1ull << TOTAL_BITS) / 256 * (256 - DAMPING) + kept / 256 * DAMPING) /
			g->vertices;
	uint64_t delta = 0;

#pragma omp parallel for schedule(dynamic, 1024) reduction(+ : delta)
	for (uint64_t v = 0; v < g->vertices; v++) {
		uint64_t sum = 0, next;

		for (uint64_t i = g->first[v]; i < g->first[v + 1]; i++)
			sum += p->share[g->target[i]];
		next = base + sum * DAMPING / 256;
		delta += next > p->rank[v] ? next - p->rank[v] : p->rank[v] - next;
		p->rank[v] = next;
	}
	return delta;
}

static uint64_t checksum(const struct pagerank *p)
{
	uint64_t sum = 0;

#pragma omp parallel for schedule(static) reduction(+ : sum)
	for (uint64_t v = 0; v < p->g->vertices; v++)
		sum += wl_mix64(p->rank[v] ^ wl_mix64(v));
	return sum;
}

static void run(struct pagerank *p, unsigned iterations)
{
	uint64_t n = p->g->vertices;

#pragma omp parallel for schedule(static)
	for (uint64_t v = 0; v < n; v++)
		p->rank[v] = (1ull << TOTAL_BITS) / n;
	for (unsigned i = 1; i <= iterations; i++)
		printf("iteration %u change %llu\n", i, (unsigned long long)iterate(p));
}

int main(int argc, char **argv)
{
	struct kron_options o = {.scale = 20, .degree = 16, .iterations = 10};
	struct pagerank p;
	struct kron g;
	uint64_t t0;
	double kernel_s;

	kron_options_parse(&o, argc, argv, "PageRank on a Kronecker graph");
	kron_build(&g, o.scale, o.degree, o.seed);
	printf("graph vertices %llu entries %llu\n", (unsigned long long)g.vertices,
	       (unsigned long long)g.entries);
	p.g = &g;
	p.rank = wl_alloc(g.vertices * sizeof(*p.rank));
	p.share = wl_alloc(g.vertices * sizeof(*p.share));

	t0 = wl_now_ns();
	run(&p, o.iterations);
	kernel_s = (double)(wl_now_ns() - t0) / 1e9;

	printf("checksum %016llx\n", (unsigned long long)checksum(&p));
	kron_print_timing(&g, kernel_s, kron_bytes(&g) + 2 * g.vertices * sizeof(*p.rank));
	free(p.rank);
	free(p.share);
	kron_free(&g);
	return fflush(stdout) ? 1 : 0;
}
