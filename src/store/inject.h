/* SPDX-License-Identifier: MIT */
/*
 * EXTMEM_INJECT: a store that fails, for tests (docs/testing.md).
 *
 *   RULE[;RULE]...     RULE: OPS:WHAT[,KEY=VALUE]...
 *   OPS    read, write, io (both), grow (the file gets longer), any
 *   WHAT   eio, enospc, ... or a number: the error; short=BYTES; delay=MS
 *   KEY    slots=A-B  only transfers that touch these slots
 *          rate=N     in N of 1000 cases (1000)
 *          every=N    each Nth time; after=N not the first N times; count=N at most N times
 *          when=PATH  only while the file exists
 *          seed=N     of all rules
 * A delay knows slots, rate and when only.
 */
#ifndef EM_STORE_INJECT_H
#define EM_STORE_INJECT_H

#include "internal.h"

enum { EM_INJECT_READ = 1, EM_INJECT_WRITE = 2, EM_INJECT_GROW = 4 };

struct em_inject_rule {
	unsigned ops;
	int result; /* as of em_store_inject.before */
	uint32_t delay_ms;
	em_slot_t slot_first, slot_last;
	uint32_t per_mille, every, after, count;
	char when[128];
	uint32_t seen, fired;
};

struct em_inject {
	uint32_t n;
	uint64_t seed;
	struct em_inject_rule rule[8];
};

/* Ordinary context: 0, or -EINVAL with a line in err. */
int em_inject_parse(const char *text, struct em_inject *out, char *err, size_t err_len);
/* The hooks for these rules, kept until the next call; NULL: no rule. */
const struct em_store_inject *em_inject_use(const struct em_inject *set);

#endif
