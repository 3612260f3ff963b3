/* SPDX-License-Identifier: MIT */
/*
 * What the workloads share: time, sizes, a mixing function, a way to give up.
 * They are ordinary programs and know nothing of extmem: that is their point.
 */
#ifndef WL_UTIL_H
#define WL_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define WL_PAGE_BYTES 4096ul
#define WL_PAGE_WORDS (WL_PAGE_BYTES / sizeof(uint64_t))

uint64_t wl_now_ns(void);

/* Prints "PROGRAM: message" and exits with status 2. */
void wl_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* "64M" and the like, or a whole number of anything; wl_die on nonsense. */
uint64_t wl_parse_size(const char *option, const char *text);
double wl_parse_seconds(const char *option, const char *text);

/* Anonymous private memory of its own mapping; wl_die when there is none. */
void *wl_map(size_t bytes);
void *wl_alloc(size_t bytes);

/* A bijection of 64-bit words whose output bits all depend on all input bits. */
static inline uint64_t wl_mix64(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 32;
	return x;
}

#endif
