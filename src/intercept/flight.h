/* SPDX-License-Identifier: MIT */
/*
 * Requests in flight: memory that the kernel uses until it reports a request as complete.
 *
 * A request is known by what its completion will say of it (user_data, the address of the iocb), and programs may
 * give many the same: what belongs to a key is let go of when as many have completed as were made.
 */
#ifndef EM_INTERCEPT_FLIGHT_H
#define EM_INTERCEPT_FLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct em_pinned;

#define EM_FLIGHT_BUCKETS 256u
struct em_flight {
	struct em_flight *next;
	uint64_t key;
	uint64_t count;	/* made and not complete */
	bool stays;	/* completions cannot be counted: pinned until the end */
	struct em_pinned *pins;
};

struct em_flights {
	struct em_flight *bucket[EM_FLIGHT_BUCKETS];
	struct em_pinned *permanent;
};

/* All [engine], under the caller's lock. */
bool em_flight_pin(struct em_pinned **list, uintptr_t addr, size_t len);
/* One more request with this key; NULL: no memory. */
struct em_flight *em_flight_begin(struct em_flights *f, uint64_t key);
void em_flight_complete(struct em_flights *f, uint64_t key);
void em_flights_end(struct em_flights *f);

#endif
