/* SPDX-License-Identifier: MIT */
/*
 * CPU time a fault takes as the work grows: the same number of pages is touched, in runs of
 * --run pages, whatever the address space they lie in and the number of mappings it is made of.
 *
 * First every page is written once, then all are read --rounds times, in another order each
 * time.  With a budget that holds them all the first part measures first touches; with a smaller
 * one the second measures pages that come back.  CPU time is that of the whole process, threads
 * of the pager included.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "util.h"

static struct {
	uint64_t space, regions, pages, run, rounds, seed;
	char *base;
	uint64_t region_bytes, stride; /* of a region with the gap behind it; of runs of pages */
} g = {.space = 1ull << 30, .regions = 1, .pages = 32768, .run = 64, .rounds = 1, .seed = 1};

struct cost {
	uint64_t cpu_ns, minor, major;
};

static struct cost cost_now(void)
{
	struct timespec ts;
	struct rusage u;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	getrusage(RUSAGE_SELF, &u);
	return (struct cost){(uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec,
			     (uint64_t)u.ru_minflt, (uint64_t)u.ru_majflt};
}

static struct cost cost_since(struct cost then)
{
	struct cost now = cost_now();

	return (struct cost){now.cpu_ns - then.cpu_ns, now.minor - then.minor,
			     now.major - then.major};
}

/* A page without a mapping lies behind each region, or the kernel would merge them. */
static void map_regions(void)
{
	g.region_bytes = g.space / g.regions / WL_PAGE_BYTES * WL_PAGE_BYTES;
	if (g.region_bytes < 2 * WL_PAGE_BYTES)
		wl_die("--regions: too many for the space");
	g.space = g.region_bytes * g.regions;
	g.base = wl_map(g.space);
	if (g.regions == 1)
		return;
	/* The place is known to be free. */
	munmap(g.base, g.space);
	for (uint64_t i = 0; i < g.regions; i++) {
		void *at = g.base + i * g.region_bytes;

		if (mmap(at, g.region_bytes - WL_PAGE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
			 0) != at)
			wl_die("region %llu: %s; is vm.max_map_count large enough?",
			       (unsigned long long)i, strerror(errno));
	}
	g.region_bytes -= WL_PAGE_BYTES;
}

static void spread_pages(void)
{
	g.stride = g.space / (g.pages / g.run) / WL_PAGE_BYTES * WL_PAGE_BYTES;
	if (g.stride < g.run * WL_PAGE_BYTES)
		wl_die("--space: %llu pages do not fit", (unsigned long long)g.pages);
}

/* Without huge pages: one page at a time is what is compared. */
static void no_huge_pages(void)
{
	uint64_t step = g.region_bytes + (g.regions > 1 ? WL_PAGE_BYTES : 0);

	for (uint64_t i = 0; i < g.regions; i++)
		madvise(g.base + i * step, g.region_bytes, MADV_NOHUGEPAGE);
}

/* Page i of those touched: runs evenly spread, pushed off the gaps. */
static volatile uint64_t *page_at(uint64_t i)
{
	uint64_t at = i / g.run * g.stride + i % g.run * WL_PAGE_BYTES;
	uint64_t step = g.region_bytes + (g.regions > 1 ? WL_PAGE_BYTES : 0);

	if (g.regions > 1 && at % step >= g.region_bytes)
		at -= WL_PAGE_BYTES;
	return (volatile uint64_t *)(g.base + at);
}

/* A permutation of a power of two that no prefetcher sees through. */
static uint64_t shuffled(uint64_t i, uint64_t round)
{
	uint64_t mask = g.pages - 1, half = 1;

	while (half * half <= mask)
		half *= 2;
	for (uint64_t k = 0; k < 3; k++) {
		i = (i * 0x9e3779b1u + wl_mix64(g.seed + round * 3 + k)) & mask;
		i ^= i / half;
	}
	return i;
}

static void write_all(void)
{
	for (uint64_t i = 0; i < g.pages; i++) {
		volatile uint64_t *p = page_at(shuffled(i, 0));

		*p = wl_mix64((uintptr_t)p);
	}
}

static uint64_t read_all(uint64_t round)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < g.pages; i++) {
		volatile uint64_t *p = page_at(shuffled(i, round));

		wrong += *p != wl_mix64((uintptr_t)p);
	}
	return wrong;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"space", required_argument, NULL, 's'},  {"regions", required_argument, NULL, 'r'},
		{"pages", required_argument, NULL, 'n'},  {"run", required_argument, NULL, 'c'},
		{"rounds", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 's': g.space = wl_parse_size("space", optarg); break;
		case 'r': g.regions = wl_parse_size("regions", optarg); break;
		case 'n': g.pages = wl_parse_size("pages", optarg); break;
		case 'c': g.run = wl_parse_size("run", optarg); break;
		case 'o': g.rounds = wl_parse_size("rounds", optarg); break;
		case 'h':
			printf("usage: %s [--space SIZE] [--regions N] [--pages N] [--run PAGES] "
			       "[--rounds N]\n",
			       argv[0]);
			exit(0);
		default: exit(2);
		}
	}
	if (!g.regions || g.pages < 2 || g.pages & (g.pages - 1) || !g.run || g.pages % g.run)
		wl_die("--pages is a power of 2 and a multiple of --run, --regions at least 1");
}

int main(int argc, char **argv)
{
	struct cost start, map, first, again;
	uint64_t wrong = 0;

	parse(argc, argv);
	start = cost_now();
	map_regions();
	map = cost_since(start);
	spread_pages();
	no_huge_pages();
	start = cost_now();
	write_all();
	first = cost_since(start);
	start = cost_now();
	for (uint64_t round = 1; round <= g.rounds; round++)
		wrong += read_all(round);
	again = cost_since(start);
	printf("{\"workload\": \"growth\", \"space\": %llu, \"regions\": %llu, \"pages\": %llu, "
	       "\"map_cpu_ns\": %.1f, \"first_cpu_ns\": %.1f, \"again_cpu_ns\": %llu, "
	       "\"again_touches\": %llu, \"again_minor\": %llu, \"again_major\": %llu, "
	       "\"errors\": %llu}\n",
	       (unsigned long long)g.space, (unsigned long long)g.regions,
	       (unsigned long long)g.pages, (double)map.cpu_ns / (double)g.regions,
	       (double)first.cpu_ns / (double)g.pages, (unsigned long long)again.cpu_ns,
	       (unsigned long long)(g.rounds * g.pages), (unsigned long long)again.minor,
	       (unsigned long long)again.major, (unsigned long long)wrong);
	return wrong || fflush(stdout) ? 1 : 0;
}
