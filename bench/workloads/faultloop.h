/* SPDX-License-Identifier: MIT */
/*
 * The measuring loop that minorfault and bare share: every thread touches pages of a
 * mapping of its own, none of which was touched before.
 */
#ifndef WL_FAULTLOOP_H
#define WL_FAULTLOOP_H

#include <stdbool.h>
#include <stdint.h>

struct faultloop {
	bool write;
	unsigned threads;
	uint64_t pages;	 /* touched by each thread */
	uint64_t stride; /* in pages: how far apart they are */
	bool shuffle;	 /* in an order of its own, which looks random; pages: a power of 2 */

	/* Called for each mapping before the clock starts; NULL: nothing to do. */
	void (*prepare)(void *memory, uint64_t bytes);
	/* Whose faults these are, for the output. */
	const char *who;
};

/* Takes an option of the loop (--op, --threads, --pages, --stride, --shuffle); c is getopt's. */
#define FAULTLOOP_OPTIONS                                                                     \
	{"op", required_argument, NULL, 'o'}, {"threads", required_argument, NULL, 't'},      \
		{"pages", required_argument, NULL, 'n'}, {"stride", required_argument, NULL, 's'}, \
	{"shuffle", no_argument, NULL, 'x'}
bool faultloop_option(struct faultloop *f, int c, const char *value);

/* Measures and prints one JSON object: ns_per_page is the mean of all threads,
   ns_median the median over batches of 64 pages, which a preemption does not move.
   Returns the exit status: 1 when a page that should be zero was not. */
int faultloop_run(const struct faultloop *f);

#endif
