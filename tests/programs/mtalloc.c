/* SPDX-License-Identifier: MIT */
/*
 * mtalloc [MIB [ROUNDS [THREADS]]]: allocates, reallocates and frees in all threads; blocks are
 * handed on to other threads, which check and free them.  Prints one checksum, which depends on
 * the arguments alone.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_THREADS 16
#define SLOTS 4096

struct block {
	uint64_t key;
	size_t words;
	uint64_t data[];
};

struct worker {
	pthread_t tid;
	unsigned id;
	uint64_t rng, sum;
	struct block *slot[SLOTS];
	struct block *mail[SLOTS]; /* from the left neighbour, filled before the barrier */
};

static struct worker *worker[MAX_THREADS];
static unsigned nthreads = 4, rounds = 6;
static size_t share; /* bytes each worker fills */
static pthread_barrier_t barrier;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ (x >> 29);
}

static uint64_t rnd(struct worker *w)
{
	w->rng += 0x9e3779b97f4a7c15ull;
	return mix(w->rng);
}

static size_t some_words(struct worker *w)
{
	uint64_t r = rnd(w);

	if (r % 200 == 0)
		return 160000 + (r >> 8) % 100000; /* over a megabyte */
	if (r % 10 == 0)
		return (r >> 8) % 20000;
	return 1 + (r >> 8) % 300;
}

static void fill(struct block *b, size_t from)
{
	size_t i;

	for (i = from; i < b->words; i++)
		b->data[i] = mix(b->key + i);
}

static uint64_t check(const struct block *b, const struct worker *w)
{
	uint64_t sum = b->words;
	size_t i;

	for (i = 0; i < b->words; i++) {
		if (b->data[i] != mix(b->key + i)) {
			fprintf(stderr, "mtalloc: thread %u: word %zu of %zu at %p is wrong\n", w->id,
				i, b->words, (const void *)&b->data[i]);
			abort();
		}
		sum = sum * 31 + b->data[i];
	}
	return sum;
}

static struct block *allocate(struct worker *w)
{
	size_t words = some_words(w);
	struct block *b = malloc(sizeof(*b) + words * 8);

	if (!b)
		abort();
	b->words = words;
	b->key = rnd(w);
	fill(b, 0);
	return b;
}

static struct block *resize(struct worker *w, struct block *b)
{
	size_t old = b->words, words = some_words(w);

	b = realloc(b, sizeof(*b) + words * 8);
	if (!b)
		abort();
	b->words = words;
	if (words > old)
		fill(b, old);
	return b;
}

static void fill_share(struct worker *w)
{
	size_t have = 0, n = 0;

	while (have < share) {
		unsigned i = rnd(w) % SLOTS;

		if (w->slot[i] && rnd(w) % 3 == 0) {
			w->slot[i] = resize(w, w->slot[i]);
		} else {
			if (w->slot[i]) {
				w->sum += check(w->slot[i], w);
				free(w->slot[i]);
			}
			w->slot[i] = allocate(w);
		}
		have += w->slot[i]->words * 8;
		if (++n % 1000 == 0)
			w->sum += check(w->slot[i], w);
	}
}

static void *run(void *arg)
{
	struct worker *w = arg, *to = worker[(w->id + 1) % nthreads];
	unsigned r, i;

	for (r = 0; r < rounds; r++) {
		fill_share(w);
		pthread_barrier_wait(&barrier);
		for (i = r % 2; i < SLOTS; i += 2) {
			to->mail[i] = w->slot[i];
			w->slot[i] = NULL;
		}
		pthread_barrier_wait(&barrier);
		for (i = 0; i < SLOTS; i++) {
			if (!w->mail[i])
				continue;
			w->sum += check(w->mail[i], w) * (r + 1);
			free(w->mail[i]);
			w->mail[i] = NULL;
		}
	}
	for (i = 0; i < SLOTS; i++) {
		if (w->slot[i])
			w->sum += check(w->slot[i], w);
		free(w->slot[i]);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 0) : 64;
	uint64_t sum = 0;
	unsigned i;

	if (argc > 2)
		rounds = (unsigned)atoi(argv[2]);
	if (argc > 3)
		nthreads = (unsigned)atoi(argv[3]);
	if (nthreads < 1 || nthreads > MAX_THREADS)
		return 2;
	share = (mib << 20) / nthreads;
	pthread_barrier_init(&barrier, NULL, nthreads);
	for (i = 0; i < nthreads; i++) {
		worker[i] = calloc(1, sizeof(*worker[i]));
		worker[i]->id = i;
		worker[i]->rng = i + 1;
	}
	for (i = 0; i < nthreads; i++)
		pthread_create(&worker[i]->tid, NULL, run, worker[i]);
	for (i = 0; i < nthreads; i++) {
		pthread_join(worker[i]->tid, NULL);
		sum = sum * 1000003 + worker[i]->sum;
	}
	printf("%zu MiB, %u rounds, %u threads: %016llx\n", mib, rounds, nthreads,
	       (unsigned long long)sum);
	return 0;
}
