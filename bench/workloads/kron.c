/* SPDX-License-Identifier: MIT */
/*
 * The build must itself be kind to a machine that is short of memory, or nobody would
 * wait for it: no edge list is kept, and nothing is written at random places.
 *
 *   1. Make every edge once to count how many ends fall into each bucket of vertices.
 *   2. Make every edge again and append its two ends to their buckets, in the final
 *      array.  An end is packed into 32 bits: the vertex within its bucket, then its
 *      neighbour.  This costs one hot page a bucket.
 *   3. Sort each bucket, which orders it by vertex and each vertex's list by neighbour;
 *      unpack in place.
 */
#define _GNU_SOURCE
#include "kron.h"

#include <getopt.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

/* In percent; D is the rest. */
#define CHANCE_A 57u
#define CHANCE_B 19u
#define CHANCE_C 19u

/* One draw of DRAW_BITS decides two levels; four draws come from each 64 random bits.
   The table takes 16 KiB, so that it stays in the first-level cache. */
#define DRAW_BITS 14u
#define DRAWS_A_WORD 4u

#define BUCKET_BITS_MIN 6u

struct build {
	struct kron *g;
	uint64_t seed;
	unsigned low_bits;   /* of a vertex: its number within the bucket */
	uint64_t buckets;
	uint64_t *start;     /* buckets + 1: where each begins in target[] */
	uint64_t *cursor;    /* buckets: first count, then the next free place */
	uint64_t bucket_max;
};

/* draw_table[x]: two bits of the first vertex above two bits of the second. */
static uint8_t draw_table[1u << DRAW_BITS];

static void fill_draw_table(void)
{
	static const unsigned chance[4] = {CHANCE_A, CHANCE_B, CHANCE_C,
					   100 - CHANCE_A - CHANCE_B - CHANCE_C};
	unsigned sum = 0, x = 0;

	for (unsigned q = 0; q < 16; q++) {
		unsigned hi = q >> 2, lo = q & 3;
		uint8_t u = (uint8_t)((hi >> 1) << 1 | lo >> 1);
		uint8_t v = (uint8_t)((hi & 1) << 1 | (lo & 1));

		sum += chance[hi] * chance[lo];
		while (x < (sum << DRAW_BITS) / 10000)
			draw_table[x++] = (uint8_t)(u << 2 | v);
	}
}

static void edge_at(uint64_t seed, uint64_t i, unsigned scale, uint32_t *u, uint32_t *v)
{
	uint64_t r = wl_mix64(seed + i * 0x9e3779b97f4a7c15u);
	unsigned draws = (scale + 1) / 2;
	uint32_t a = 0, b = 0;

	for (unsigned d = 0; d < draws; d++, r >>= DRAW_BITS) {
		unsigned pair;

		if (d && d % DRAWS_A_WORD == 0)
			r = wl_mix64(seed ^ (i * DRAWS_A_WORD + d) * 0xc2b2ae3d27d4eb4fu);
		pair = draw_table[r & ((1u << DRAW_BITS) - 1)];
		a = a << 2 | pair >> 2;
		b = b << 2 | (pair & 3);
	}
	*u = a >> (scale & 1);
	*v = b >> (scale & 1);
}

/* Spreads the popular vertices over the whole range: a bijection of scale bits. */
static uint32_t scramble(uint32_t x, unsigned scale)
{
	uint32_t mask = (uint32_t)((1ull << scale) - 1);
	unsigned half = scale / 2 ? scale / 2 : 1;

	x = (x * 0x9e3779b1u) & mask;
	x ^= x >> half;
	x = (x * 0x85ebca6bu) & mask;
	x ^= x >> half;
	return x;
}

static void edge_make(const struct build *b, uint64_t i, uint32_t *u, uint32_t *v)
{
	unsigned scale = b->g->scale;

	edge_at(b->seed, i, scale, u, v);
	*u = scramble(*u, scale);
	*v = scramble(*v, scale);
}

static void count_buckets(struct build *b)
{
#pragma omp parallel
	{
		uint64_t *mine = wl_alloc(b->buckets * sizeof(*mine));

		memset(mine, 0, b->buckets * sizeof(*mine));
#pragma omp for schedule(static)
		for (uint64_t i = 0; i < b->g->edges; i++) {
			uint32_t u, v;

			edge_make(b, i, &u, &v);
			if (u == v)
				continue;
			mine[u >> b->low_bits]++;
			mine[v >> b->low_bits]++;
		}
		for (uint64_t k = 0; k < b->buckets; k++)
			if (mine[k])
				__atomic_fetch_add(&b->cursor[k], mine[k], __ATOMIC_RELAXED);
		free(mine);
	}
}

static void place_buckets(struct build *b)
{
	uint64_t sum = 0;

	for (uint64_t k = 0; k < b->buckets; k++) {
		uint64_t n = b->cursor[k];

		if (n > b->bucket_max)
			b->bucket_max = n;
		b->start[k] = sum;
		b->cursor[k] = sum;
		sum += n;
	}
	b->start[b->buckets] = sum;
	b->g->entries = sum;
}

/* Ends are gathered a cache line at a time: with thousands of buckets, going to the array
   for every single one costs a TLB miss and a contended atomic each. */
#define GATHER 15u

struct gather {
	uint32_t n;
	uint32_t end[GATHER];
};

static void gather_flush(struct build *b, struct gather *gather, uint64_t bucket)
{
	uint64_t at = __atomic_fetch_add(&b->cursor[bucket], gather->n, __ATOMIC_RELAXED);

	memcpy(b->g->target + at, gather->end, gather->n * sizeof(gather->end[0]));
	gather->n = 0;
}

static void gather_append(struct build *b, struct gather *gathers, uint32_t vertex,
			  uint32_t neighbour)
{
	uint32_t low = vertex & (uint32_t)((1ull << b->low_bits) - 1);
	uint64_t bucket = vertex >> b->low_bits;
	struct gather *gather = &gathers[bucket];

	gather->end[gather->n++] = (uint32_t)((uint64_t)low << b->g->scale) | neighbour;
	if (gather->n == GATHER)
		gather_flush(b, gather, bucket);
}

static void spread_edges(struct build *b)
{
#pragma omp parallel
	{
		struct gather *gathers = wl_alloc(b->buckets * sizeof(*gathers));

		memset(gathers, 0, b->buckets * sizeof(*gathers));
#pragma omp for schedule(static)
		for (uint64_t i = 0; i < b->g->edges; i++) {
			uint32_t u, v;

			edge_make(b, i, &u, &v);
			if (u == v)
				continue;
			gather_append(b, gathers, u, v);
			gather_append(b, gathers, v, u);
		}
		for (uint64_t k = 0; k < b->buckets; k++)
			gather_flush(b, &gathers[k], k);
		free(gathers);
	}
}

/* Least significant digit first, 8 bits a pass; four passes end in a[] again. */
static void sort_words(uint32_t *a, uint32_t *scratch, uint64_t n)
{
	for (unsigned shift = 0; shift < 32; shift += 8) {
		uint64_t at[256] = {0};
		uint64_t sum = 0;
		uint32_t *swap = a;

		for (uint64_t i = 0; i < n; i++)
			at[a[i] >> shift & 255]++;
		for (unsigned d = 0; d < 256; d++) {
			uint64_t c = at[d];

			at[d] = sum;
			sum += c;
		}
		for (uint64_t i = 0; i < n; i++)
			scratch[at[a[i] >> shift & 255]++] = a[i];
		a = scratch;
		scratch = swap;
	}
}

static void order_bucket(struct build *b, uint64_t k, uint32_t *scratch)
{
	struct kron *g = b->g;
	uint32_t *a = g->target + b->start[k];
	uint64_t n = b->start[k + 1] - b->start[k];
	uint64_t vertex = k << b->low_bits, end = (k + 1) << b->low_bits;
	uint32_t mask = (uint32_t)((1ull << g->scale) - 1);

	sort_words(a, scratch, n);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t owner = (k << b->low_bits) + ((uint64_t)a[i] >> g->scale);

		while (vertex <= owner)
			g->first[vertex++] = b->start[k] + i;
		a[i] &= mask;
	}
	while (vertex < end)
		g->first[vertex++] = b->start[k + 1];
}

static void order_buckets(struct build *b)
{
#pragma omp parallel
	{
		uint32_t *scratch = wl_alloc(b->bucket_max * sizeof(*scratch));

#pragma omp for schedule(dynamic, 1)
		for (uint64_t k = 0; k < b->buckets; k++)
			order_bucket(b, k, scratch);
		free(scratch);
	}
	b->g->first[b->g->vertices] = b->g->entries;
}

void kron_build(struct kron *g, unsigned scale, unsigned degree, uint64_t seed)
{
	struct build b = {.g = g, .seed = wl_mix64(seed + 1)};
	unsigned bits = 2 * scale > 32 ? 2 * scale - 32 : 0;
	uint64_t t0 = wl_now_ns(), t1;

	if (bits < BUCKET_BITS_MIN)
		bits = BUCKET_BITS_MIN < scale ? BUCKET_BITS_MIN : scale;
	fill_draw_table();
	memset(g, 0, sizeof(*g));
	g->scale = scale;
	g->vertices = 1ull << scale;
	g->edges = g->vertices * degree;
	b.low_bits = scale - bits;
	b.buckets = 1ull << bits;
	b.start = wl_alloc((b.buckets + 1) * sizeof(*b.start));
	b.cursor = wl_alloc(b.buckets * sizeof(*b.cursor));
	memset(b.cursor, 0, b.buckets * sizeof(*b.cursor));

	count_buckets(&b);
	place_buckets(&b);
	g->first = wl_alloc((g->vertices + 1) * sizeof(*g->first));
	g->target = wl_alloc(g->entries * sizeof(*g->target));
	spread_edges(&b);
	t1 = wl_now_ns();
	order_buckets(&b);
	free(b.start);
	free(b.cursor);
	g->generate_s = (double)(t1 - t0) / 1e9;
	g->build_s = (double)(wl_now_ns() - t1) / 1e9;
}

void kron_free(struct kron *g)
{
	free(g->first);
	free(g->target);
}

static unsigned parse_count(const char *option, const char *text, unsigned max)
{
	uint64_t n = wl_parse_size(option, text);

	if (n < 1 || n > max)
		wl_die("--%s: %s is not between 1 and %u", option, text, max);
	return (unsigned)n;
}

void kron_options_parse(struct kron_options *o, int argc, char **argv, const char *what)
{
	static const struct option longs[] = {
		{"scale", required_argument, NULL, 's'},
		{"degree", required_argument, NULL, 'd'},
		{"iterations", required_argument, NULL, 'i'},
		{"threads", required_argument, NULL, 't'},
		{"seed", required_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 's': o->scale = parse_count("scale", optarg, KRON_SCALE_MAX); break;
		case 'd': o->degree = parse_count("degree", optarg, 1024); break;
		case 'i': o->iterations = parse_count("iterations", optarg, 1000000); break;
		case 't': o->threads = parse_count("threads", optarg, 1024); break;
		case 'r': o->seed = wl_parse_size("seed", optarg); break;
		case 'h':
			printf("%s\nusage: %s [--scale N] [--degree N] [--iterations N] "
			       "[--threads N] [--seed N]\n", what, argv[0]);
			exit(0);
		default: exit(2);
		}
	}
	if (optind < argc)
		wl_die("'%s': no argument was expected", argv[optind]);
	if (o->threads)
		omp_set_num_threads((int)o->threads);
}

void kron_print_timing(const struct kron *g, double kernel_s, uint64_t data_bytes)
{
	fprintf(stderr,
		"timing generate_s=%.6f build_s=%.6f kernel_s=%.6f data_bytes=%llu threads=%d\n",
		g->generate_s, g->build_s, kernel_s, (unsigned long long)data_bytes,
		omp_get_max_threads());
}
