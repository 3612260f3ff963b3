/* SPDX-License-Identifier: MIT */
/*
 * The report as JSON.  Written by hand and without libc: it is asked for at exit, perhaps
 * from a hooked exit_group inside a signal handler.  docs/statistics.md names every field.
 */
#include <errno.h>
#include <stdbool.h>

#include "stats.h"

struct json {
	char *buf;
	size_t len, at;	/* at counts on past len: then it did not fit */
	bool comma;	/* before the next member */
};

static void put(struct json *j, char c)
{
	if (j->at < j->len)
		j->buf[j->at] = c;
	j->at++;
}

static void put_string(struct json *j, const char *s)
{
	static const char hex[] = "0123456789abcdef";

	put(j, '"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\') {
			put(j, '\\');
			put(j, (char)c);
		} else if (c < 0x20 || c >= 0x7f) {
			/* bytes of a path need not be UTF-8: each is shown as Latin-1 */
			put(j, '\\');
			put(j, 'u');
			put(j, '0');
			put(j, '0');
			put(j, hex[c >> 4]);
			put(j, hex[c & 15]);
		} else {
			put(j, (char)c);
		}
	}
	put(j, '"');
}

static void put_number(struct json *j, uint64_t v)
{
	char digits[20];
	int n = 0;

	do
		digits[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		put(j, digits[--n]);
}

static void name(struct json *j, const char *key)
{
	if (j->comma)
		put(j, ',');
	j->comma = true;
	if (key) {
		put_string(j, key);
		put(j, ':');
	}
}

static void open_group(struct json *j, const char *key, char c)
{
	name(j, key);
	put(j, c);
	j->comma = false;
}

static void close_group(struct json *j, char c)
{
	put(j, c);
	j->comma = true;
}

static void number(struct json *j, const char *key, uint64_t v)
{
	name(j, key);
	put_number(j, v);
}

static void string(struct json *j, const char *key, const char *s)
{
	name(j, key);
	put_string(j, s);
}

static void address(struct json *j, const char *key, uint64_t v)
{
	char text[19];
	int n = 18;

	text[n] = 0;
	do
		text[--n] = "0123456789abcdef"[v & 15];
	while (v >>= 4);
	text[--n] = 'x';
	text[--n] = '0';
	string(j, key, text + n);
}

/* One counter under its short name. */
#define COUNTER(key, field) \
	number(j, key, __atomic_load_n(&em_stats.field, __ATOMIC_RELAXED))

static void put_process(struct json *j, const struct em_stats_extra *x)
{
	number(j, "extmem", 1);
	number(j, "pid", (uint64_t)x->pid);
	number(j, "budget_bytes", x->budget_bytes);
	number(j, "resident_bytes", x->resident_bytes);
	number(j, "resident_peak_bytes", x->resident_peak_bytes);
	number(j, "managed_bytes", x->managed_bytes);
	number(j, "metadata_bytes", x->metadata_bytes);
	number(j, "frame_bytes", x->frame_bytes);
	number(j, "slots_used", x->slots_used);
	string(j, "delivery", x->delivery);
	string(j, "policy", x->policy);
	string(j, "prefetcher", x->prefetch);
	string(j, "features", x->features);
}

static void put_paging(struct json *j)
{
	open_group(j, "faults", '{');
	COUNTER("first_touch", faults_first_touch);
	COUNTER("major", faults_major);
	COUNTER("prefetch_hit", faults_prefetch_hit);
	COUNTER("write_protect", faults_write_protect);
	COUNTER("waited", faults_waited);
	COUNTER("spurious", faults_spurious);
	close_group(j, '}');

	open_group(j, "pages", '{');
	COUNTER("first_touch", first_touch_pages);
	COUNTER("in", pages_in);
	COUNTER("out", pages_out);
	COUNTER("dropped_clean", pages_dropped_clean);
	COUNTER("discarded", pages_discarded);
	COUNTER("writes_expected", writes_expected);
	close_group(j, '}');

	open_group(j, "prefetch", '{');
	COUNTER("pages", prefetched);
	COUNTER("used", prefetched_used);
	COUNTER("unused", prefetched_unused);
	COUNTER("pointed", fetched);
	close_group(j, '}');

	open_group(j, "standby", '{');
	COUNTER("kept", standby_kept);
	COUNTER("used", faults_standby);
	close_group(j, '}');
}

static void put_engine(struct json *j)
{
	open_group(j, "io", '{');
	COUNTER("bytes_read", bytes_read);
	COUNTER("bytes_written", bytes_written);
	COUNTER("errors", io_errors);
	COUNTER("read_errors", io_read_errors);
	COUNTER("write_errors", io_write_errors);
	COUNTER("retries", io_retries);
	close_group(j, '}');

	open_group(j, "evictions", '{');
	COUNTER("inline", evictions_inline);
	COUNTER("background", evictions_background);
	COUNTER("batches", evict_batches);
	COUNTER("cancelled", evict_cancelled);
	COUNTER("scanned", evict_scanned);
	COUNTER("budget_overruns", budget_overruns);
	close_group(j, '}');

	open_group(j, "kernel", '{');
	COUNTER("shootdowns", shootdowns);
	COUNTER("uffd_ioctls", uffd_ioctls);
	COUNTER("syscalls_hooked", syscalls_hooked);
	COUNTER("syscalls_held", syscalls_held);
	COUNTER("syscalls_trapped", syscalls_trapped);
	COUNTER("forks", forks);
	close_group(j, '}');
}

static void put_fault_time(struct json *j)
{
	unsigned i;

	open_group(j, "fault_time_ns", '{');
	number(j, "count", em_stats_count(&em_stats));
	COUNTER("total", fault_ns_total);
	number(j, "p50", em_stats_quantile_ns(&em_stats, 500));
	number(j, "p99", em_stats_quantile_ns(&em_stats, 990));
	COUNTER("max", fault_ns_max);
	open_group(j, "histogram", '[');
	for (i = 0; i < EM_STATS_HIST; i++) {
		uint64_t n = __atomic_load_n(&em_stats.fault_hist[i], __ATOMIC_RELAXED);

		if (!n)
			continue;
		open_group(j, NULL, '[');
		number(j, NULL, em_stats_bucket_end_ns(i));
		number(j, NULL, n);
		close_group(j, ']');
	}
	close_group(j, ']');
	close_group(j, '}');
}

/* The regions with most faults; the rest added up. */
struct top_regions {
	struct em_stats_region r[EM_STATS_REGIONS];
	uint64_t rank[EM_STATS_REGIONS];
	unsigned n;
	struct em_stats_region rest; /* end - start: their bytes */
	uint64_t rest_count;
};

static void add_to_rest(struct top_regions *top, const struct em_stats_region *r)
{
	struct em_region_stats *s = &top->rest.s;

	top->rest_count++;
	top->rest.end += r->end - r->start;
	s->faults_first_touch += r->s.faults_first_touch;
	s->faults_major += r->s.faults_major;
	s->faults_prefetch_hit += r->s.faults_prefetch_hit;
	s->faults_write_protect += r->s.faults_write_protect;
	s->pages_in += r->s.pages_in;
	s->pages_out += r->s.pages_out;
	s->pages_dropped_clean += r->s.pages_dropped_clean;
}

/* Keeps r[] sorted, most faults first, larger first among equals. */
static void add_region(void *arg, const struct em_stats_region *r)
{
	struct top_regions *top = arg;
	uint64_t rank = r->s.faults_first_touch + r->s.faults_major + r->s.faults_prefetch_hit +
			r->s.faults_write_protect;
	unsigned i = top->n;

	if (top->n < EM_STATS_REGIONS) {
		top->n++;
	} else {
		i = top->n - 1;
		if (rank <= top->rank[i]) {
			add_to_rest(top, r);
			return;
		}
		add_to_rest(top, &top->r[i]);
	}
	for (; i && (top->rank[i - 1] < rank ||
		     (top->rank[i - 1] == rank &&
		      top->r[i - 1].end - top->r[i - 1].start < r->end - r->start)); i--) {
		top->r[i] = top->r[i - 1];
		top->rank[i] = top->rank[i - 1];
	}
	top->r[i] = *r;
	top->rank[i] = rank;
}

static void put_region_counters(struct json *j, const struct em_region_stats *s)
{
	open_group(j, "faults", '{');
	number(j, "first_touch", s->faults_first_touch);
	number(j, "major", s->faults_major);
	number(j, "prefetch_hit", s->faults_prefetch_hit);
	number(j, "write_protect", s->faults_write_protect);
	close_group(j, '}');
	open_group(j, "pages", '{');
	number(j, "in", s->pages_in);
	number(j, "out", s->pages_out);
	number(j, "dropped_clean", s->pages_dropped_clean);
	close_group(j, '}');
}

static void put_regions(struct json *j, const struct em_stats_extra *x)
{
	struct top_regions top;
	unsigned i;

	top.n = 0;
	top.rest_count = 0;
	top.rest = (struct em_stats_region){ 0 };
	if (x->regions)
		x->regions(add_region, &top);
	open_group(j, "regions", '[');
	for (i = 0; i < top.n; i++) {
		open_group(j, NULL, '{');
		address(j, "start", top.r[i].start);
		address(j, "end", top.r[i].end);
		number(j, "bytes", top.r[i].end - top.r[i].start);
		string(j, "kind", top.r[i].kind);
		put_region_counters(j, &top.r[i].s);
		close_group(j, '}');
	}
	close_group(j, ']');
	open_group(j, "regions_rest", '{');
	number(j, "count", top.rest_count);
	number(j, "bytes", top.rest.end);
	put_region_counters(j, &top.rest.s);
	close_group(j, '}');
}

long em_stats_json(char *buf, size_t len)
{
	struct json writer = { .buf = buf, .len = len }, *j = &writer;
	struct em_stats_extra x = { 0 };

	em_stats_collect(&x);
	open_group(j, NULL, '{');
	put_process(j, &x);
	put_paging(j);
	put_engine(j);
	put_fault_time(j);
	put_regions(j, &x);
	close_group(j, '}');
	put(j, '\n');
	return j->at <= len ? (long)j->at : -ENOSPC;
}
