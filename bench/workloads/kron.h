/* SPDX-License-Identifier: MIT */
/*
 * Kronecker (R-MAT) graphs with the Graph500 parameters A=.57 B=.19 C=.19, as an
 * undirected graph in compressed sparse rows.
 *
 * The graph is a function of scale, degree and seed alone: every edge has its own
 * random numbers, and each adjacency list ends up sorted, whatever the number of threads.
 * Self loops are left out, multiple edges stay.
 *
 * Invariants of a built graph:
 *	first[0] == 0, first[vertices] == entries, first[] ascends
 *	target[first[v] .. first[v + 1]) ascends: the neighbours of v
 */
#ifndef WL_KRON_H
#define WL_KRON_H

#include <stdint.h>

#define KRON_SCALE_MAX 26

struct kron {
	unsigned scale;	      /* log2 of the number of vertices */
	uint64_t vertices;
	uint64_t edges;	      /* generated, self loops included */
	uint64_t entries;     /* of target[]: two for each edge that is no self loop */
	uint64_t *first;      /* vertices + 1 */
	uint32_t *target;     /* entries */
	double generate_s;    /* time to make the edges and spread them */
	double build_s;	      /* time to order them */
};

/* Ends the program when memory is short. */
void kron_build(struct kron *g, unsigned scale, unsigned degree, uint64_t seed);
void kron_free(struct kron *g);

static inline uint64_t kron_degree(const struct kron *g, uint64_t v)
{
	return g->first[v + 1] - g->first[v];
}

static inline uint64_t kron_bytes(const struct kron *g)
{
	return (g->vertices + 1) * sizeof(*g->first) + g->entries * sizeof(*g->target);
}

/* The command line that pagerank and bfs share; wl_die on mistakes. */
struct kron_options {
	unsigned scale, degree, iterations, threads;
	uint64_t seed;
};

void kron_options_parse(struct kron_options *o, int argc, char **argv, const char *what);

/* The one machine-readable line on stderr: "timing key=value ...". */
void kron_print_timing(const struct kron *g, double kernel_s, uint64_t data_bytes);

#endif
