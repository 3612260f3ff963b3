/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "util.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

uint64_t wl_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void wl_die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

uint64_t wl_parse_size(const char *option, const char *text)
{
	static const char suffixes[] = "KMGT";
	char *end;
	unsigned long long n;
	unsigned shift = 0;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (*end) {
		const char *s = strchr(suffixes, toupper((unsigned char)*end));

		if (s) {
			shift = 10 * (unsigned)(s - suffixes + 1);
			end++;
		}
	}
	if (errno || *end || !isdigit((unsigned char)*text) || n > UINT64_MAX >> shift)
		wl_die("--%s: '%s' is not a number (K, M, G, T may follow it)", option, text);
	return (uint64_t)n << shift;
}

double wl_parse_seconds(const char *option, const char *text)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end || !(s >= 0 && s < 1e6))
		wl_die("--%s: '%s' is not a number of seconds", option, text);
	return s;
}

void *wl_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		wl_die("no %zu bytes of address space: %s", bytes, strerror(errno));
	return p;
}

void *wl_alloc(size_t bytes)
{
	void *p = malloc(bytes ? bytes : 1);

	if (!p)
		wl_die("no memory for %zu bytes", bytes);
	return p;
}
