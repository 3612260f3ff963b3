/* SPDX-License-Identifier: MIT */
#include "stats.h"

struct em_stats em_stats;

/* The smallest time of bucket i: 2^(i/2) rounded up. */
static uint64_t bucket_bound(unsigned i)
{
	const uint64_t sqrt2 = 0xb504f333f9de6484ull; /* times 2^63 */

	if (!(i & 1))
		return 1ull << (i / 2);
	return (sqrt2 >> (63 - i / 2)) + 1;
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned i;

	if (ns < 2)
		return 0;
	i = 2 * (63 - (unsigned)__builtin_clzll(ns));
	if (i + 1 >= EM_STATS_HIST)
		return EM_STATS_HIST - 1;
	return ns >= bucket_bound(i + 1) ? i + 1 : i;
}

uint64_t em_stats_bucket_end_ns(unsigned i)
{
	return bucket_bound(i + 1);
}

void em_stats_fault_time(uint64_t ns)
{
	uint64_t max = __atomic_load_n(&em_stats.fault_ns_max, __ATOMIC_RELAXED);

	em_stat_add(fault_hist[bucket_of(ns)], 1);
	em_stat_add(fault_ns_total, ns);
	while (ns > max && !__atomic_compare_exchange_n(&em_stats.fault_ns_max, &max, ns, 1,
							__ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

uint64_t em_stats_count(const struct em_stats *s)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < EM_STATS_HIST; i++)
		n += __atomic_load_n(&s->fault_hist[i], __ATOMIC_RELAXED);
	return n;
}

uint64_t em_stats_quantile_ns(const struct em_stats *s, unsigned per_mille)
{
	uint64_t count = em_stats_count(s), max = s->fault_ns_max, rank, below = 0;
	uint64_t n, lo, hi, share;
	unsigned i;

	if (!count)
		return 0;
	if (per_mille >= 1000)
		return max;
	/* count * per_mille / 1000 without overflow, in [0, count) */
	rank = count / 1000 * per_mille + count % 1000 * per_mille / 1000;
	for (i = 0; i < EM_STATS_HIST - 1; i++) {
		n = __atomic_load_n(&s->fault_hist[i], __ATOMIC_RELAXED);
		if (below + n > rank)
			break;
		below += n;
	}
	n = __atomic_load_n(&s->fault_hist[i], __ATOMIC_RELAXED);
	lo = i ? bucket_bound(i) : 0;
	hi = i == EM_STATS_HIST - 1 ? max : bucket_bound(i + 1);
	if (hi > max)
		hi = max;
	if (hi <= lo || rank < below || !n)
		return lo < max ? lo : max;
	/* the middle of the rank's share, in 1/1024 of the bucket: no 128-bit division here */
	share = ((rank - below) * 1024 + 512) / n;
	return lo + (hi - lo) / 1024 * share + (hi - lo) % 1024 * share / 1024;
}
