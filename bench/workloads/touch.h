/* SPDX-License-Identifier: MIT */
/*
 * The memory that the touch workload works on, its contents, and the orders in which
 * pages are touched.
 *
 * Contents: word i holds touch_word(i, 0), except word TOUCH_VERSION_WORD of each page,
 * which holds touch_word(i, version of the page).  Nothing compresses (unless the end of each
 * page repeats one word of its own, as --compressible wants it), no two pages are
 * alike, and any page that is stale, zero or somebody else's is noticed.
 *
 * Each worker owns a slice of the pages and their versions: no locks.
 */
#ifndef WL_TOUCH_H
#define WL_TOUCH_H

#include <stdbool.h>
#include <stdint.h>

#include "util.h"

#define TOUCH_VERSION_WORD 1u

enum touch_pattern {
	TOUCH_SEQ,
	TOUCH_RAND,
	TOUCH_HOT,
	TOUCH_BACK,
	TOUCH_STRIDE,
	TOUCH_TWO_STREAMS,
};

enum touch_verify { TOUCH_VERIFY_NONE, TOUCH_VERIFY_SAMPLE, TOUCH_VERIFY_FULL };

struct touch_options {
	enum touch_pattern pattern;
	const char *pattern_name;
	uint64_t stride;       /* in pages */
	unsigned write_percent;
	uint64_t bytes;
	unsigned threads;
	double seconds, warmup;
	uint64_t touches;      /* of each worker; 0: as many as fit the time */
	enum touch_verify verify;
	bool use_malloc;
	bool update;	       /* a write looks at the page first */
	unsigned distinct;     /* words of a page before those that are all alike; 0: all */
	uint64_t seed;
};

struct touch_worker {
	const struct touch_options *o;
	uint64_t *memory;
	uint8_t *version;      /* of each page */
	uint64_t first, pages; /* the slice */
	uint64_t at;	       /* position in the pattern */
	uint64_t random;       /* state */
	uint64_t errors;
	uint64_t touches;      /* atomic: the main thread reads it */
} __attribute__((aligned(64)));

static inline uint64_t touch_word(uint64_t index, uint8_t version)
{
	return wl_mix64(index * 0x9e3779b97f4a7c15u + version + 1);
}

/* The options of a pattern by name, "stride=N" included; false when there is none. */
bool touch_pattern_parse(struct touch_options *o, const char *name);
/* The next page, within [first, first + pages). */
uint64_t touch_next_page(struct touch_worker *w);

void touch_fill(struct touch_worker *w);
/* Reads or writes one word of a page. */
void touch_page(struct touch_worker *w, uint64_t page, bool write);
/* Compares every word of every page, or of every 64th. */
void touch_verify(struct touch_worker *w);

static inline uint64_t touch_random(struct touch_worker *w)
{
	w->random += 0x9e3779b97f4a7c15u;
	return wl_mix64(w->random);
}

#endif
