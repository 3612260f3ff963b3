/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target for the requests of the control socket.  What must hold for any bytes:
 *   no overflow or undefined behaviour (build with -fsanitize=address,undefined);
 *   a refusal has a reason, one printable line;
 *   what was accepted, written out again, is understood the same.
 * With clang -fsanitize=fuzzer -DEM_FUZZER this is a libFuzzer target; otherwise a plain
 * program: fuzz_control [COUNT [SEED]].
 */
#include "control/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s fails\n", #cond);                                      \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void write_out(const struct em_control_request *r, char *out, size_t len)
{
	switch (r->verb) {
	case EM_CONTROL_BUDGET:
		snprintf(out, len, "extmem 1 budget %llu", (unsigned long long)r->bytes);
		return;
	case EM_CONTROL_POLICY:
		snprintf(out, len, "extmem 1 policy %s%s%s", r->name, r->args[0] ? "," : "", r->args);
		return;
	case EM_CONTROL_EVICT:
		snprintf(out, len, "extmem 1 evict all");
		return;
	case EM_CONTROL_LOAD:
		snprintf(out, len, "extmem 1 load all");
		return;
	case EM_CONTROL_STATS:
		snprintf(out, len, "extmem 1 stats");
		return;
	}
	abort();
}

static void refusal(const char *why)
{
	MUST(why && *why);
	for (; *why; why++)
		MUST(*why >= ' ' && *why <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct em_control_request r, again;
	char *exact = malloc(len ? len : 1), text[2 * EM_CONTROL_LINE];
	const char *why = NULL;
	int ret;

	MUST(exact);
	memcpy(exact, data, len); /* a read past the end is noticed */
	memset(&r, 0xa5, sizeof(r));
	ret = em_control_parse(exact, len, &r, &why);
	free(exact);
	MUST(ret == 0 || ret == -EINVAL);
	MUST(strnlen(r.name, sizeof(r.name)) < sizeof(r.name));
	MUST(strnlen(r.args, sizeof(r.args)) < sizeof(r.args));
	if (ret) {
		refusal(why);
		return 0;
	}
	MUST(!why && len < EM_CONTROL_LINE);
	write_out(&r, text, sizeof(text));
	MUST(!em_control_parse(text, strlen(text), &again, &why));
	MUST(again.verb == r.verb && again.bytes == r.bytes && !strcmp(again.name, r.name) &&
	     !strcmp(again.args, r.args));
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

static size_t random_request(uint8_t *out, size_t max)
{
	static const char *const words[] = {
		"extmem", "1",	     "2",   "budget", "policy", "evict", "load", "stats", "all",
		" ",	  " ",	     " ",   ",",      "=",	"2q",	 "fifo", "in=25", "4096",
		"0",	  "99999999", "\n", "\0x",    "\xff",	"extmem 1 ", "extmem 1 budget ",
		"extmem 1 policy ", "extmem 1 evict ",
	};
	size_t n = 0, left = random_next() % 8;

	while (left--) {
		const char *w = words[random_next() % (sizeof(words) / sizeof(words[0]))];
		size_t times = random_next() % 32 ? 1 : random_next() % 600;

		for (; times && n + strlen(w) < max; times--, n += strlen(w))
			memcpy(out + n, w, strlen(w));
		if (n && random_next() % 16 == 0)
			out[random_next() % n] = (uint8_t)random_next();
	}
	return n;
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 200000;
	unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
	static uint8_t buf[16384];

	printf("%lu inputs, seed %lu\n", count, seed);
	fflush(stdout);
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	while (count--)
		LLVMFuzzerTestOneInput(buf, random_request(buf, sizeof(buf)));
	return 0;
}

#endif
