/* SPDX-License-Identifier: MIT */
/*
 * Table look-ups in the manner of XSBench (Tramm, Siegel, Islam, Schulz: "XSBench - the development
 * and verification of a performance abstraction for Monte Carlo reactor analysis", 2014): a
 * particle has a random energy in a random material; a binary search in the union of all
 * energies gives one row of an index, and that a place in the table of each nuclide of the
 * material.  Reads only, hardly any locality in the index, a hot table beside it.
 *
 * The checksum does not depend on the number of threads.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

#define CHANNELS 5u
#define MATERIALS 12u

struct point {
	double energy;
	double xs[CHANNELS];
};

static struct {
	unsigned nuclides, points, threads;
	uint64_t lookups, seed, unions;
	struct point *grid;	/* nuclides x points, each nuclide's sorted by energy */
	double *energy;		/* of all of them, sorted */
	uint32_t *index;	/* unions x nuclides: last point at or below that energy */
} x;

/* Nuclides in each material: one has many, most have few. */
static const unsigned char material_size[MATERIALS] = { 34, 5, 4, 4, 27, 21, 21, 21, 21, 21, 9, 9 };

static double unit(uint64_t r)
{
	return (double)(wl_mix64(r) >> 11) * 0x1p-53;
}

static void make_grid(void)
{
	for (unsigned n = 0; n < x.nuclides; n++) {
		for (unsigned i = 0; i < x.points; i++) {
			uint64_t id = x.seed + (uint64_t)n * x.points + i;
			struct point *p = &x.grid[(size_t)n * x.points + i];

			p->energy = (i + unit(id)) / x.points;
			for (unsigned c = 0; c < CHANNELS; c++)
				p->xs[c] = unit(id * CHANNELS + c + 0x10000000000u);
		}
	}
}

/* The next of the union is the lowest that is left of any nuclide. */
static void make_union(void)
{
	uint32_t *at = wl_alloc(x.nuclides * sizeof(*at));

	memset(at, 0, x.nuclides * sizeof(*at));
	for (uint64_t u = 0; u < x.unions; u++) {
		unsigned best = x.nuclides;
		double low = 2;

		for (unsigned n = 0; n < x.nuclides; n++) {
			double e = at[n] < x.points ? x.grid[(size_t)n * x.points + at[n]].energy : 2;

			if (e < low) {
				low = e;
				best = n;
			}
		}
		at[best]++;
		x.energy[u] = low;
		for (unsigned n = 0; n < x.nuclides; n++)
			x.index[u * x.nuclides + n] = at[n] ? at[n] - 1 : 0;
	}
	free(at);
}

static uint64_t find_energy(double e)
{
	uint64_t lo = 0, n = x.unions;

	while (n > 1) {
		uint64_t half = n / 2;

		if (x.energy[lo + half] <= e)
			lo += half;
		n -= half;
	}
	return lo;
}

static uint64_t look_up(uint64_t i)
{
	uint64_t r = wl_mix64(x.seed * 0x9e3779b97f4a7c15u + i);
	unsigned m = (unsigned)(r >> 32) % MATERIALS;
	double e = unit(r), sum[CHANNELS] = { 0 };
	const uint32_t *row = &x.index[find_energy(e) * x.nuclides];
	uint64_t hash = 0;

	for (unsigned k = 0; k < material_size[m]; k++) {
		unsigned n = (m * 7 + k * 3) % x.nuclides, at = row[n];
		const struct point *p = &x.grid[(size_t)n * x.points + at];
		const struct point *q = at + 1 < x.points ? p + 1 : p;
		double f = q->energy > p->energy ? (e - p->energy) / (q->energy - p->energy) : 0;

		for (unsigned c = 0; c < CHANNELS; c++)
			sum[c] += p->xs[c] + f * (q->xs[c] - p->xs[c]);
	}
	for (unsigned c = 0; c < CHANNELS; c++) {
		uint64_t bits;

		memcpy(&bits, &sum[c], sizeof(bits));
		hash = wl_mix64(hash ^ bits);
	}
	return hash;
}

static void *worker(void *arg)
{
	uint64_t id = (uintptr_t)arg, sum = 0;

	for (uint64_t i = id; i < x.lookups; i += x.threads)
		sum += look_up(i);
	return (void *)(uintptr_t)sum;
}

static uint64_t run_all(void)
{
	pthread_t *tid = wl_alloc(x.threads * sizeof(*tid));
	uint64_t sum = 0;

	for (unsigned i = 0; i < x.threads; i++) {
		int err = pthread_create(&tid[i], NULL, worker, (void *)(uintptr_t)i);

		if (err)
			wl_die("cannot start a thread: %s", strerror(err));
	}
	for (unsigned i = 0; i < x.threads; i++) {
		void *part;

		pthread_join(tid[i], &part);
		sum += (uintptr_t)part;
	}
	free(tid);
	return sum;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "nuclides", required_argument, NULL, 'n' }, { "points", required_argument, NULL, 'p' },
		{ "lookups", required_argument, NULL, 'l' },  { "threads", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },     { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'n': x.nuclides = (unsigned)wl_parse_size("nuclides", optarg); break;
		case 'p': x.points = (unsigned)wl_parse_size("points", optarg); break;
		case 'l': x.lookups = wl_parse_size("lookups", optarg); break;
		case 't': x.threads = (unsigned)wl_parse_size("threads", optarg); break;
		case 's': x.seed = wl_parse_size("seed", optarg); break;
		case 'h':
			printf("usage: %s [--nuclides N] [--points N] [--lookups N] [--threads N] "
			       "[--seed N]\n",
			       argv[0]);
			exit(0);
		default: exit(2);
		}
	}
	if (optind < argc)
		wl_die("'%s': no argument was expected", argv[optind]);
	if (x.nuclides < 34 || x.nuclides > 4096 || x.points < 2 || x.points > 1u << 24)
		wl_die("--nuclides: from 34 to 4096; --points: from 2 to 16M");
	if (x.threads < 1 || x.threads > 1024)
		wl_die("--threads: from 1 to 1024");
}

int main(int argc, char **argv)
{
	uint64_t t0 = wl_now_ns(), t1, t2, sum;
	size_t bytes;

	x.nuclides = 68;
	x.points = 11303;
	x.lookups = 1000000;
	x.threads = 1;
	parse(argc, argv);
	x.unions = (uint64_t)x.nuclides * x.points;
	x.grid = wl_map(x.unions * sizeof(*x.grid));
	x.energy = wl_map(x.unions * sizeof(*x.energy));
	x.index = wl_map(x.unions * x.nuclides * sizeof(*x.index));
	bytes = x.unions * (sizeof(*x.grid) + sizeof(*x.energy) + x.nuclides * sizeof(*x.index));
	make_grid();
	t1 = wl_now_ns();
	make_union();
	t2 = wl_now_ns();
	sum = run_all();
	printf("lookup nuclides %u points %u lookups %llu checksum %016llx\n", x.nuclides, x.points,
	       (unsigned long long)x.lookups, (unsigned long long)sum);
	fprintf(stderr, "timing generate_s=%.6f build_s=%.6f kernel_s=%.6f data_bytes=%zu\n",
		(double)(t1 - t0) / 1e9, (double)(t2 - t1) / 1e9,
		(double)(wl_now_ns() - t2) / 1e9, bytes);
	return fflush(stdout) ? 1 : 0;
}
