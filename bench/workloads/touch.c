/* SPDX-License-Identifier: MIT */
/*
 * Touches pages of a big anonymous memory in a given order and says how many a second.
 * A touch reads or writes one word of one page.  What is read is verified.
 */
#include "touch.h"

#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum phase { FILL, RUN, VERIFY };

static struct {
	struct touch_worker *workers;
	enum phase phase;
	bool stop; /* atomic */
} run;

static void work(struct touch_worker *w)
{
	uint64_t limit = w->o->touches ? w->o->touches : UINT64_MAX;
	unsigned percent = w->o->write_percent;

	while (w->touches < limit && !__atomic_load_n(&run.stop, __ATOMIC_RELAXED)) {
		bool write = percent == 100 || (percent && touch_random(w) % 100 < percent);

		touch_page(w, touch_next_page(w), write);
		__atomic_store_n(&w->touches, w->touches + 1, __ATOMIC_RELAXED);
	}
}

static void *worker_main(void *arg)
{
	struct touch_worker *w = arg;

	if (run.phase == FILL)
		touch_fill(w);
	else if (run.phase == RUN)
		work(w);
	else
		touch_verify(w);
	return NULL;
}

static void sleep_s(double s)
{
	struct timespec ts = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};

	while (nanosleep(&ts, &ts))
		;
}

static void start(pthread_t *threads, unsigned n, enum phase phase)
{
	run.phase = phase;
	for (unsigned i = 0; i < n; i++) {
		int err = pthread_create(&threads[i], NULL, worker_main, &run.workers[i]);

		if (err)
			wl_die("cannot start a thread: %s", strerror(err));
	}
}

static double finish(pthread_t *threads, unsigned n, uint64_t t0)
{
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	return (double)(wl_now_ns() - t0) / 1e9;
}

static double in_parallel(pthread_t *threads, unsigned n, enum phase phase)
{
	uint64_t t0 = wl_now_ns();

	start(threads, n, phase);
	return finish(threads, n, t0);
}

static void note_touches(uint64_t *each, unsigned threads)
{
	for (unsigned i = 0; i < threads; i++)
		each[i] = __atomic_load_n(&run.workers[i].touches, __ATOMIC_RELAXED);
}

/* Returns the seconds that the touches counted took; *slowest: those of the slowest worker. */
static double measure(const struct touch_options *o, pthread_t *threads, uint64_t *touches,
		      uint64_t *slowest)
{
	uint64_t t0 = wl_now_ns();
	uint64_t *before = calloc(o->threads, sizeof(*before));
	uint64_t *after = calloc(o->threads, sizeof(*after));
	double seconds;

	if (!before || !after)
		wl_die("no memory");
	start(threads, o->threads, RUN);
	if (o->touches) {
		seconds = finish(threads, o->threads, t0);
		note_touches(after, o->threads);
	} else {
		if (o->warmup > 0) {
			sleep_s(o->warmup);
			note_touches(before, o->threads);
			t0 = wl_now_ns();
		}
		sleep_s(o->seconds);
		note_touches(after, o->threads);
		seconds = (double)(wl_now_ns() - t0) / 1e9;
		__atomic_store_n(&run.stop, true, __ATOMIC_RELAXED);
		finish(threads, o->threads, t0);
	}
	*slowest = UINT64_MAX;
	for (unsigned i = 0; i < o->threads; i++) {
		*touches += after[i] - before[i];
		if (after[i] - before[i] < *slowest)
			*slowest = after[i] - before[i];
	}
	free(before);
	free(after);
	return seconds;
}

static void setup(const struct touch_options *o)
{
	uint64_t pages = o->bytes / WL_PAGE_BYTES, share = pages / o->threads;
	void *raw = o->use_malloc ? wl_alloc(o->bytes + WL_PAGE_BYTES) : wl_map(o->bytes);
	uintptr_t aligned = ((uintptr_t)raw + WL_PAGE_BYTES - 1) & ~(WL_PAGE_BYTES - 1);
	uint8_t *version = calloc(pages, 1);

	run.workers = aligned_alloc(64, o->threads * sizeof(*run.workers));
	if (!version || !run.workers)
		wl_die("no memory");
	for (unsigned i = 0; i < o->threads; i++) {
		run.workers[i] = (struct touch_worker){
			.o = o,
			.memory = (uint64_t *)aligned,
			.version = version,
			.first = i * share,
			.pages = share,
			.random = wl_mix64(o->seed * 1024 + i + 1),
		};
	}
}

static void usage(const char *program)
{
	printf("usage: %s [--pattern P] [--bytes SIZE] [--threads N] [--seconds S | --touches N]\n"
	       "	[--warmup S] [--writes PERCENT [--update]] [--compressible PERCENT] "
	       "[--malloc]\n"
	       "	[--verify full|sample|none] [--seed N]\n"
	       "patterns: seq-read seq-write rand-read rand-write hot back stride=N two-streams\n",
	       program);
}

static enum touch_verify parse_verify(const char *text)
{
	if (!strcmp(text, "full"))
		return TOUCH_VERIFY_FULL;
	if (!strcmp(text, "sample"))
		return TOUCH_VERIFY_SAMPLE;
	if (strcmp(text, "none"))
		wl_die("--verify: '%s' is none of full, sample, none", text);
	return TOUCH_VERIFY_NONE;
}

static unsigned parse_compressible(const char *text)
{
	uint64_t percent = wl_parse_size("compressible", text);

	if (percent > 90)
		wl_die("--compressible: at most 90 percent");
	return (unsigned)(WL_PAGE_WORDS * (100 - percent) / 100);
}

static void parse(struct touch_options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"pattern", required_argument, NULL, 'p'}, {"bytes", required_argument, NULL, 'b'},
		{"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'},
		{"touches", required_argument, NULL, 'n'}, {"warmup", required_argument, NULL, 'w'},
		{"writes", required_argument, NULL, 'W'},  {"verify", required_argument, NULL, 'v'},
		{"malloc", no_argument, NULL, 'm'},	   {"seed", required_argument, NULL, 'r'},
		{"update", no_argument, NULL, 'u'},	   {"compressible", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},	   {NULL, 0, NULL, 0},
	};
	int c, writes = -1;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'p':
			if (!touch_pattern_parse(o, optarg))
				wl_die("--pattern: there is no '%s'; see --help", optarg);
			break;
		case 'b': o->bytes = wl_parse_size("bytes", optarg); break;
		case 't': o->threads = (unsigned)wl_parse_size("threads", optarg); break;
		case 's': o->seconds = wl_parse_seconds("seconds", optarg); break;
		case 'n': o->touches = wl_parse_size("touches", optarg); break;
		case 'w': o->warmup = wl_parse_seconds("warmup", optarg); break;
		case 'W': writes = (int)wl_parse_size("writes", optarg); break;
		case 'v': o->verify = parse_verify(optarg); break;
		case 'm': o->use_malloc = true; break;
		case 'u': o->update = true; break;
		case 'c': o->distinct = parse_compressible(optarg); break;
		case 'r': o->seed = wl_parse_size("seed", optarg); break;
		case 'h': usage(argv[0]); exit(0);
		default: exit(2);
		}
	}
	if (optind < argc)
		wl_die("'%s': no argument was expected", argv[optind]);
	if (writes > 100)
		wl_die("--writes: %d is more than 100 percent", writes);
	if (writes >= 0)
		o->write_percent = (unsigned)writes;
	if (o->threads < 1 || o->threads > 1024)
		wl_die("--threads: from 1 to 1024");
	if (o->bytes / WL_PAGE_BYTES < 2 * (uint64_t)o->threads)
		wl_die("--bytes: at least two pages for each thread");
	o->touches = (o->touches + o->threads - 1) / o->threads;
}

int main(int argc, char **argv)
{
	struct touch_options o = {.pattern = TOUCH_SEQ, .pattern_name = "seq-read",
				  .bytes = 64u << 20, .threads = 1, .seconds = 2,
				  .verify = TOUCH_VERIFY_FULL};
	double fill_s, run_s, verify_s = 0;
	uint64_t errors = 0, touches = 0, slowest;
	pthread_t *threads;

	parse(&o, argc, argv);
	setup(&o);
	threads = wl_alloc(o.threads * sizeof(*threads));
	fill_s = in_parallel(threads, o.threads, FILL);
	run_s = measure(&o, threads, &touches, &slowest);
	if (o.verify != TOUCH_VERIFY_NONE)
		verify_s = in_parallel(threads, o.threads, VERIFY);
	for (unsigned i = 0; i < o.threads; i++)
		errors += run.workers[i].errors;
	printf("{\"workload\": \"touch\", \"pattern\": \"%s\", \"bytes\": %llu, \"threads\": %u, "
	       "\"write_percent\": %u, \"touches\": %llu, \"seconds\": %.6f, "
	       "\"touches_per_s\": %.1f, \"even_touches_per_s\": %.1f, "
	       "\"fill_s\": %.6f, \"verify_s\": %.6f, \"errors\": %llu}\n",
	       o.pattern_name, (unsigned long long)o.bytes, o.threads, o.write_percent,
	       (unsigned long long)touches, run_s, (double)touches / run_s,
	       (double)(slowest * o.threads) / run_s, fill_s, verify_s,
	       (unsigned long long)errors);
	free(threads);
	return fflush(stdout) || errors ? 1 : 0;
}
