/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "faultloop.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "util.h"

#define BATCH 64u
/* Odd, so that multiples of it visit every page of a power of two. */
#define SHUFFLE 0x9e3779b1u

struct worker {
	const struct faultloop *f;
	pthread_barrier_t *barrier;
	volatile uint64_t *memory;
	double *batch_ns; /* a page, for each batch */
	uint64_t start, end, wrong;
};

/* The time of one thread contains the turns of all others when there are more threads than
   processors, and a short turn may hold all of its work: what the process gets done is told too. */
struct whole {
	uint64_t ns, cpu_ns;
};

bool faultloop_option(struct faultloop *f, int c, const char *value)
{
	switch (c) {
	case 'o':
		if (strcmp(value, "read") && strcmp(value, "write"))
			wl_die("--op: '%s' is neither read nor write", value);
		f->write = value[0] == 'w';
		return true;
	case 't':
		f->threads = (unsigned)wl_parse_size("threads", value);
		return true;
	case 'n':
		f->pages = wl_parse_size("pages", value);
		return true;
	case 's':
		f->stride = wl_parse_size("stride", value);
		return true;
	case 'x':
		f->shuffle = true;
		return true;
	default:
		return false;
	}
}

static uint64_t page_at(const struct faultloop *f, uint64_t i)
{
	return f->shuffle ? i * SHUFFLE & (f->pages - 1) : i;
}

static void touch_batch(struct worker *w, uint64_t from, uint64_t to)
{
	uint64_t step = w->f->stride * WL_PAGE_WORDS;

	for (uint64_t i = from; i < to; i++) {
		volatile uint64_t *p = w->memory + page_at(w->f, i) * step;

		if (w->f->write)
			*p = i + 1;
		else
			w->wrong += *p != 0;
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t batches = w->f->pages / BATCH, last, now;

	pthread_barrier_wait(w->barrier);
	last = wl_now_ns();
	w->start = last;
	for (uint64_t b = 0; b < batches; b++) {
		touch_batch(w, b * BATCH, (b + 1) * BATCH);
		now = wl_now_ns();
		w->batch_ns[b] = (double)(now - last) / BATCH;
		last = now;
	}
	w->end = last;
	return NULL;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void check_written(struct worker *w)
{
	uint64_t step = w->f->stride * WL_PAGE_WORDS;

	for (uint64_t i = 0; w->f->write && i < w->f->pages; i++)
		w->wrong += w->memory[page_at(w->f, i) * step] != i + 1;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* From the start of the first thread to the end of the last. */
static uint64_t span_ns(const struct faultloop *f, const struct worker *workers)
{
	uint64_t start = UINT64_MAX, end = 0;

	for (unsigned i = 0; i < f->threads; i++) {
		start = workers[i].start < start ? workers[i].start : start;
		end = workers[i].end > end ? workers[i].end : end;
	}
	return end - start;
}

static int report(const struct faultloop *f, struct worker *workers, double *batch_ns,
		  const struct whole *all)
{
	uint64_t batches = f->pages / BATCH, wrong = 0;
	double mean = 0, pages = (double)f->pages * f->threads;

	for (unsigned i = 0; i < f->threads; i++) {
		check_written(&workers[i]);
		mean += (double)(workers[i].end - workers[i].start) / pages;
		wrong += workers[i].wrong;
	}
	qsort(batch_ns, batches * f->threads, sizeof(*batch_ns), compare);
	printf("{\"workload\": \"minorfault\", \"who\": \"%s\", \"op\": \"%s\", \"threads\": %u, "
	       "\"pages\": %llu, \"stride\": %llu, \"ns_per_page\": %.1f, \"ns_median\": %.1f, "
	       "\"ns_per_page_all\": %.1f, \"cpu_ns_per_page\": %.1f, \"errors\": %llu}\n",
	       f->who, f->write ? "write" : "read", f->threads, (unsigned long long)f->pages,
	       (unsigned long long)f->stride, mean, batch_ns[batches * f->threads / 2],
	       (double)all->ns / pages, (double)all->cpu_ns / pages, (unsigned long long)wrong);
	return wrong || fflush(stdout) ? 1 : 0;
}

static void *map_prepared(const struct faultloop *f)
{
	uint64_t bytes = f->pages * f->stride * WL_PAGE_BYTES;
	void *memory = wl_map(bytes);

	/* One page at a time is the point, whatever the machine does with huge pages. */
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	if (f->prepare)
		f->prepare(memory, bytes);
	return memory;
}

int faultloop_run(const struct faultloop *f)
{
	uint64_t batches = f->pages / BATCH;
	struct worker *workers;
	pthread_barrier_t barrier;
	struct whole all;
	pthread_t *threads;
	double *batch_ns;

	if (f->threads < 1 || f->threads > 1024 || !batches || f->pages % BATCH || !f->stride)
		wl_die("--pages is a multiple of %u, --threads 1 to 1024, --stride at least 1",
		       BATCH);
	if (f->shuffle && f->pages & (f->pages - 1))
		wl_die("--pages is a power of 2 with --shuffle");
	workers = wl_alloc(f->threads * sizeof(*workers));
	threads = wl_alloc(f->threads * sizeof(*threads));
	batch_ns = wl_alloc(batches * f->threads * sizeof(*batch_ns));
	memset(batch_ns, 0, batches * f->threads * sizeof(*batch_ns));
	pthread_barrier_init(&barrier, NULL, f->threads + 1);
	for (unsigned i = 0; i < f->threads; i++)
		workers[i] = (struct worker){.f = f, .barrier = &barrier,
					     .memory = map_prepared(f),
					     .batch_ns = batch_ns + i * batches};
	for (unsigned i = 0; i < f->threads; i++) {
		int err = pthread_create(&threads[i], NULL, worker_main, &workers[i]);

		if (err)
			wl_die("cannot start a thread: %s", strerror(err));
	}
	all.cpu_ns = cpu_ns();
	pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < f->threads; i++)
		pthread_join(threads[i], NULL);
	all.cpu_ns = cpu_ns() - all.cpu_ns;
	all.ns = span_ns(f, workers);
	return report(f, workers, batch_ns, &all);
}
