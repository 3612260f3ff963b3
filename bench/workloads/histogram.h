/* SPDX-License-Identifier: MIT */
/* Durations in buckets that are at most 1/32 of them wide. */
#ifndef WL_HISTOGRAM_H
#define WL_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5u
#define HISTOGRAM_SUB (1u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BUCKETS ((64u - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB)

struct histogram {
	uint64_t count[HISTOGRAM_BUCKETS], total;
};

static inline unsigned histogram_bucket(uint64_t ns)
{
	unsigned shift;

	if (ns < HISTOGRAM_SUB)
		return (unsigned)ns;
	shift = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_SUB_BITS;
	return (shift + 1) * HISTOGRAM_SUB + (unsigned)(ns >> shift) - HISTOGRAM_SUB;
}

/* The lowest duration of the bucket. */
static inline uint64_t histogram_value(unsigned bucket)
{
	unsigned group = bucket / HISTOGRAM_SUB;

	if (!group)
		return bucket;
	return (uint64_t)(bucket % HISTOGRAM_SUB + HISTOGRAM_SUB) << (group - 1);
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
	h->count[histogram_bucket(ns)]++;
	h->total++;
}

static inline void histogram_merge(struct histogram *h, const struct histogram *other)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		h->count[i] += other->count[i];
	h->total += other->total;
}

/* 0 when there is nothing in it. */
static inline uint64_t histogram_percentile(const struct histogram *h, double percent)
{
	uint64_t seen = 0, want = (uint64_t)((double)h->total * percent / 100);

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->count[i];
		if (seen > want)
			return histogram_value(i);
	}
	return 0;
}

#endif
