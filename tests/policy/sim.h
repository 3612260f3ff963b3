/* SPDX-License-Identifier: MIT */
/*
 * A pager in miniature: a page table array, a budget, and the events that the engine would
 * send, in batches.  It checks what a policy promises at every step.
 */
#ifndef TESTS_POLICY_SIM_H
#define TESTS_POLICY_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extmem/policy.h"

#define SIM_BATCH 16   /* events delivered at once */
#define SIM_RECLAIM 32 /* victims asked for at once */

enum sim_state { SIM_ABSENT, SIM_RESIDENT, SIM_SWAPPED };

struct sim_page {
	uint8_t state, tag, dirty;
	uint8_t in_hands; /* of the policy: announced, and not named since */
	uint8_t held;	  /* eviction is going to fail */
	uint64_t went_out;
};

extern struct sim {
	const struct extmem_policy_ops *ops;
	void *state;
	struct sim_page *page;
	uint64_t npages, base;	/* page numbers are base .. base + npages */
	uint64_t budget, resident, evicted, faults, touches, blocks_protected;
	uint64_t alloc_bytes;
	bool alloc_fails;
	struct extmem_event queue[SIM_BATCH];
	unsigned queued;
} sim;

extern const struct extmem_policy_host sim_host;

/* Checks, for cmocka and for plain programs alike: prints and aborts. */
#define SIM_CHECK(cond)                                                                     \
	do {                                                                                \
		if (!(cond))                                                                \
			sim_fail(#cond, __FILE__, __LINE__);                                \
	} while (0)
void sim_fail(const char *what, const char *file, int line);

void sim_start(const struct extmem_policy_ops *ops, const char *args, uint64_t npages,
	       uint64_t budget);
void sim_stop(void);
void sim_touch(uint64_t i, bool write);	/* one access, as the program would */
void sim_gone(uint64_t i);		/* munmap or MADV_DONTNEED */
void sim_event(uint64_t i, uint32_t kind, uint32_t info);
void sim_flush(void);
size_t sim_reclaim(size_t want);	/* pages that left */
void sim_drain(void);			/* every resident page must be evictable */
double sim_miss_ratio(void);

uint64_t sim_random(void);
void sim_seed(uint64_t seed);

#endif
