/* SPDX-License-Identifier: MIT */
/*
 * Counters of one managed process.  Counting is relaxed atomics, signal-safe, from
 * any thread.  The JSON field names written by em_stats_json are documented in
 * docs/statistics.md and stay.
 */
#ifndef EM_OBSERVE_STATS_H
#define EM_OBSERVE_STATS_H

#include <stddef.h>
#include <stdint.h>

#define EM_STATS_HIST 64 /* bucket i counts times in [2^(i/2), 2^((i+1)/2)) ns, half octaves */

/* X(name): one relaxed counter, same name in JSON. */
#define EM_STATS_COUNTERS(X) \
	X(faults_first_touch)	\
	X(faults_major)		\
	X(faults_prefetch_hit)	\
	X(faults_standby)	\
	X(faults_write_protect)	\
	X(faults_waited)	\
	X(writes_expected)	\
	X(faults_spurious)	\
	X(first_touch_pages)	\
	X(pages_in)		\
	X(pages_out)		\
	X(pages_dropped_clean)	\
	X(pages_discarded)	\
	X(prefetched)		\
	X(prefetched_used)	\
	X(prefetched_unused)	\
	X(fetched)		\
	X(standby_kept)		\
	X(bytes_read)		\
	X(bytes_written)	\
	X(evictions_inline)	\
	X(evictions_background)	\
	X(evict_batches)	\
	X(evict_cancelled)	\
	X(evict_scanned)	\
	X(shootdowns)		\
	X(uffd_ioctls)		\
	X(io_errors)		\
	X(io_read_errors)	\
	X(io_write_errors)	\
	X(io_retries)		\
	X(budget_overruns)	\
	X(syscalls_hooked)	\
	X(syscalls_held)	\
	X(syscalls_trapped)	\
	X(forks)

struct em_stats {
#define X(name) uint64_t name;
	EM_STATS_COUNTERS(X)
#undef X
	uint64_t resident_peak_pages;
	uint64_t fault_ns_total, fault_ns_max;
	uint64_t fault_hist[EM_STATS_HIST];
};

extern struct em_stats em_stats; /* process-wide; hidden */

#define em_stat_add(name, n) __atomic_fetch_add(&em_stats.name, (uint64_t)(n), __ATOMIC_RELAXED)
#define em_stat_inc(name) em_stat_add(name, 1)

struct em_region_stats {
	uint64_t faults_first_touch, faults_major, faults_prefetch_hit, faults_write_protect;
	uint64_t pages_in, pages_out, pages_dropped_clean;
};

struct em_stats_region {
	uint64_t start, end; /* addresses */
	const char *kind;    /* "mmap", "heap", ... */
	struct em_region_stats s;
};

typedef void (*em_stats_region_fn)(void *arg, const struct em_stats_region *r);

/* What the report needs beyond the counters.  Strings must not be NULL. */
struct em_stats_extra {
	long pid;
	uint64_t budget_bytes, resident_bytes, resident_peak_bytes, managed_bytes;
	uint64_t metadata_bytes, frame_bytes, slots_used;
	const char *delivery, *policy, *prefetch, *features; /* features: "wp,move,..." */
	void (*regions)(em_stats_region_fn fn, void *arg); /* calls fn for each; may be NULL */
};

/* Provided by the engine: fills *x (zeroed by the caller). [sigsafe] */
void em_stats_collect(struct em_stats_extra *x);

#define EM_STATS_REGIONS 64 /* listed one by one, the rest is summed up */

/* Adds one fault of `ns` nanoseconds to the histogram. [sigsafe] */
void em_stats_fault_time(uint64_t ns);

/* The q-quantile (0..1000 per mille) of the histogram in ns, interpolated. [sigsafe] */
uint64_t em_stats_quantile_ns(const struct em_stats *s, unsigned per_mille);

/* Where bucket i of the histogram ends, exclusively.  The last one has no end. [sigsafe] */
uint64_t em_stats_bucket_end_ns(unsigned i);

/* Faults in the histogram. [sigsafe] */
uint64_t em_stats_count(const struct em_stats *s);

/* Writes one JSON object with a final newline into buf without allocating and without
   libc; returns the length, or -ENOSPC. [sigsafe] */
long em_stats_json(char *buf, size_t len);

#endif
