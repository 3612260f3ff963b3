/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target for sizes, lists and options.  What must hold for any text:
 *   no overflow or undefined behaviour (build with -fsanitize=address,undefined);
 *   a refused value changes nothing and leaves one line;
 *   what was accepted survives the way through the environment.
 * With clang -fsanitize=fuzzer -DEM_FUZZER this is a libFuzzer target; otherwise a
 * plain program: fuzz_options [COUNT [SEED]].
 */
#include "options_impl.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int em_store_check(const struct em_store_config *cfg, char *err, size_t err_len)
{
	(void)cfg;
	(void)err;
	(void)err_len;
	return 0;
}

static const char *const names[] = {"dram",  "swap",  "policy",	 "prefetch", "delivery",
				    "stats", "mask", "min-map", "verbose",  "stats-pid"};
#define NNAMES (sizeof(names) / sizeof(names[0]))

#define MUST(cond, text)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s fails for \"%s\"\n", #cond, text);                     \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void sizes(const char *text)
{
	uint64_t v = 4711, w;
	char number[32];
	int rc = em_size_parse(text, &v);

	MUST(rc == 0 || ((rc == -EINVAL || rc == -ERANGE) && v == 4711), text);
	if (!rc) {
		snprintf(number, sizeof(number), "%llu", (unsigned long long)v);
		MUST(em_size_parse(number, &w) == 0 && w == v, text);
	}
	if (!em_size_parse_percent(text, 1 << 30, &v) && strchr(text, '%'))
		MUST(v <= 1 << 30, text);
}

static void lists(const char *text)
{
	char first[64], escaped[160], again[64];
	const char *rest;

	if (em_list_first(text, first, sizeof(first), &rest))
		return;
	MUST(!rest || (rest > text && rest <= text + strlen(text)), text);
	MUST(em_list_escape(first, escaped, sizeof(escaped)) == 0, text);
	MUST(em_list_first(escaped, again, sizeof(again), &rest) == 0 && !rest, text);
	MUST(!strcmp(first, again), text);
}

static void options(const char *name, const char *text)
{
	static struct em_options before, o, back;
	char err[1024] = "";

	em_options_init(&o);
	o.dram_bytes = 8 << 20;
	before = o;
	if (em_options_set(&o, name, text, err, sizeof(err))) {
		MUST(err[0] && !memcmp(&o, &before, sizeof(o)), text);
		return;
	}
	MUST(em_options_to_env(&o) == 0, text);
	em_options_init(&back);
	MUST(em_options_from_env(&back, err, sizeof(err)) == 0, text);
	/* Bytes behind the end of a string do not count. */
	MUST(!strcmp(o.swap_path, back.swap_path) && !strcmp(o.policy, back.policy) &&
		     !strcmp(o.policy_args, back.policy_args) &&
		     !strcmp(o.prefetch, back.prefetch) &&
		     !strcmp(o.prefetch_args, back.prefetch_args) &&
		     !strcmp(o.stats_path, back.stats_path),
	     text);
	MUST(o.dram_bytes == back.dram_bytes && o.swap_size_bytes == back.swap_size_bytes &&
		     o.swap_force == back.swap_force && o.delivery == back.delivery &&
		     o.delivery_threads == back.delivery_threads &&
		     o.min_map_bytes == back.min_map_bytes && o.stats_pid == back.stats_pid &&
		     o.verbose == back.verbose && o.feature_mask == back.feature_mask,
	     text);
}

/* The first byte chooses the option, the rest is its value. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char text[16384];

	if (len < 1 || len > sizeof(text))
		return 0;
	memcpy(text, data + 1, len - 1);
	text[len - 1] = '\0';
	sizes(text);
	lists(text);
	options(names[data[0] % NNAMES], text);
	return 0;
}

#ifndef EM_FUZZER

static uint64_t rng;

static uint64_t random_next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

/* Words of the grammar, glued together at random, reach further than random bytes. */
static size_t random_text(uint8_t *out, size_t max)
{
	static const char *const words[] = {
		"1",	  "0",	     "9999999999", "18446744073709551615", ".",	 "K",  "m",    "GiB",
		"T",	  "E",	     "%",	   ",",			   ",,", "=",  "size=", "force",
		"upcall", "thread",  "n=",	   "wp",		   "move", "uring", "/",    "x.so",
		"2q",	  "fifo",    "none",	   "-",			   "a=1",  "process_madvise",
		" ",	  "\n",	     "\xff",	   "sequential",
	};
	size_t n = 0, left = random_next() % 9;

	out[n++] = (uint8_t)random_next();
	while (left--) {
		const char *w = words[random_next() % (sizeof(words) / sizeof(words[0]))];
		size_t times = random_next() % 64 ? 1 : random_next() % 2000;

		for (; times && n + strlen(w) < max; times--, n += strlen(w))
			memcpy(out + n, w, strlen(w));
	}
	return n;
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;
	unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
	static uint8_t buf[16384];

	printf("%lu inputs, seed %lu\n", count, seed);
	fflush(stdout);
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	while (count--)
		LLVMFuzzerTestOneInput(buf, random_text(buf, sizeof(buf)));
	return 0;
}

#endif
