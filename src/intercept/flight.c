/* SPDX-License-Identifier: MIT */
#include "flight.h"

#include "../core/core.h"
#include "../core/meta.h"
#include "hold.h"

bool em_flight_pin(struct em_pinned **list, uintptr_t addr, size_t len)
{
	struct em_pinned *p;

	for (p = *list; p; p = p->next)
		if (addr - p->start < p->len && len <= p->len - (addr - p->start))
			return true;
	p = em_meta_alloc(sizeof(*p));
	if (!p)
		return false;
	p->start = addr;
	p->len = len;
	p->handle = em_pin_add(addr, len);
	if (!p->handle) {
		em_meta_free(p, sizeof(*p));
		return false;
	}
	p->next = *list;
	*list = p;
	return true;
}

static void unpin(struct em_pinned **list)
{
	struct em_pinned *p;

	while ((p = *list)) {
		*list = p->next;
		em_pin_drop(p->handle);
		em_meta_free(p, sizeof(*p));
	}
}

static struct em_flight **find(struct em_flights *f, uint64_t key)
{
	struct em_flight **at = &f->bucket[(key * 0x9e3779b97f4a7c15ull) >> 56];

	while (*at && (*at)->key != key)
		at = &(*at)->next;
	return at;
}

struct em_flight *em_flight_begin(struct em_flights *f, uint64_t key)
{
	struct em_flight **at = find(f, key);

	if (!*at) {
		*at = em_meta_alloc(sizeof(**at));
		if (!*at)
			return NULL;
		(*at)->key = key;
	}
	(*at)->count++;
	return *at;
}

void em_flight_complete(struct em_flights *f, uint64_t key)
{
	struct em_flight **at = find(f, key), *x = *at;

	if (!x || x->stays || --x->count)
		return;
	*at = x->next;
	unpin(&x->pins);
	em_meta_free(x, sizeof(*x));
}

void em_flights_end(struct em_flights *f)
{
	for (uint32_t i = 0; i < EM_FLIGHT_BUCKETS; i++) {
		struct em_flight *x;

		while ((x = f->bucket[i])) {
			f->bucket[i] = x->next;
			unpin(&x->pins);
			em_meta_free(x, sizeof(*x));
		}
	}
	unpin(&f->permanent);
}
