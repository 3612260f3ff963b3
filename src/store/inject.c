/* SPDX-License-Identifier: MIT */
/*
 * Faults on purpose: the rules of EXTMEM_INJECT, applied to each transfer. For tests. [sigsafe]
 *
 * Errors and short transfers are decided just before the kernel would be called.  A delay is
 * a pure function of the request and the clock, so that a queue can ask again and again
 * without changing its mind.
 */
#include "inject.h"

#include <fcntl.h>

static struct em_inject inject;

static uint64_t mix(uint64_t x)
{
	x += inject.seed * 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static bool one_in(uint64_t x, uint32_t per_mille)
{
	return mix(x) % 1000 < per_mille;
}

/* What does not change with the number of calls. */
static bool applies(const struct em_inject_rule *r, unsigned op, em_slot_t slot, uint32_t n)
{
	if (!(r->ops & op) || slot > r->slot_last || slot + (n ? n - 1 : 0) < r->slot_first)
		return false;
	return !r->when[0] ||
	       !em_syscall4(SYS_faccessat, AT_FDCWD, r->when, 0 /* F_OK */, 0);
}

static bool fires(struct em_inject_rule *r)
{
	uint32_t seen = __atomic_fetch_add(&r->seen, 1, __ATOMIC_RELAXED);

	if (seen < r->after || (r->every && (seen - r->after + 1) % r->every))
		return false;
	if (!one_in((uint64_t)seen << 8 | (uint64_t)(r - inject.rule), r->per_mille))
		return false;
	return __atomic_fetch_add(&r->fired, 1, __ATOMIC_RELAXED) < r->count;
}

static int before(bool write, em_slot_t slot, uint32_t n)
{
	/* slots.c grows the file under the same hook, with n = 0 */
	unsigned op = !write ? EM_INJECT_READ : n ? EM_INJECT_WRITE : EM_INJECT_GROW;

	for (uint32_t i = 0; i < inject.n; i++) {
		struct em_inject_rule *r = &inject.rule[i];

		if (!r->delay_ms && applies(r, op, slot, n) && fires(r))
			return r->result;
	}
	return 0;
}

static bool held(bool write, em_slot_t slot, uint32_t n, uint64_t since_ns)
{
	unsigned op = !write ? EM_INJECT_READ : n ? EM_INJECT_WRITE : EM_INJECT_GROW;

	for (uint32_t i = 0; i < inject.n; i++) {
		struct em_inject_rule *r = &inject.rule[i];

		if (!r->delay_ms || !one_in(since_ns ^ (uint64_t)slot << 40, r->per_mille))
			continue;
		if (em_store_now_ns() - since_ns < (uint64_t)r->delay_ms * 1000000 &&
		    applies(r, op, slot, n))
			return true;
	}
	return false;
}

static const struct em_store_inject hooks = {before, held};

const struct em_store_inject *em_inject_use(const struct em_inject *set)
{
	em_memcpy(&inject, set, sizeof(inject));
	return inject.n ? &hooks : NULL;
}
