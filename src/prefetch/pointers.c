/* SPDX-License-Identifier: MIT */
/*
 * Pages that pointers point to: content-directed prefetching (Cooksey, Jourdan and Grunwald, ASPLOS 2002), for pages
 * instead of cache lines.
 *
 * A program that goes through an array of pointers in order touches what they point to in no order, and waits for
 * each page.  When pages of such an array come in, their content tells what will be missed soon.
 *
 * Any word may look like an address, and what is pointed to need not be wanted.  So one page in CONTROL of those
 * pointed to is never brought in this way, but watched: how many of these are missed afterwards?
 */
#include "pointers.h"

#include <errno.h>

#include "policy/args.h"

enum {
	TABLE = 1024,
	CONTROL = 16,
	ROUND = 48, /* watched pages a decision is made by */
	ON = 50,    /* of a hundred are missed, to begin */
	OFF = 30,   /* to go on */
	PAGE_SHIFT = 12,
	ADDR_BITS = 47,
};

int em_pointers_init(struct em_pointers *p, const struct extmem_policy_host *host)
{
	p->host = host;
	p->watched = host->alloc(TABLE * sizeof(*p->watched));
	return p->watched ? 0 : -ENOMEM;
}

static uint32_t hash(extmem_page_t page)
{
	return (uint32_t)(page * 0x9e3779b97f4a7c15ull >> 40);
}

static uint64_t *place(struct em_pointers *p, uint32_t h)
{
	return &p->watched[h / CONTROL % TABLE];
}

bool em_pointers_arg(struct em_pointers *p, const struct em_arg *a)
{
	bool on = true;

	p->always = em_arg_equal(a->value, a->value_len, "always");
	if (!p->always && !em_arg_switch(a, &on))
		return false;
	p->off = !on;
	return true;
}

static void decide(struct em_pointers *p)
{
	uint32_t tried = __atomic_exchange_n(&p->tried, 0, __ATOMIC_RELAXED);
	uint32_t hit = __atomic_exchange_n(&p->hit, 0, __ATOMIC_RELAXED);

	if (tried < ROUND / 2) /* another thread was here just now */
		return;
	__atomic_store_n(&p->on, hit * 100ull >= tried * (uint64_t)(p->on ? OFF : ON), __ATOMIC_RELAXED);
}

static void watch(struct em_pointers *p, extmem_page_t page, uint32_t h)
{
	if (__atomic_load_n(place(p, h), __ATOMIC_RELAXED) == page)
		return;
	__atomic_store_n(place(p, h), page, __ATOMIC_RELAXED);
	if (__atomic_add_fetch(&p->tried, 1, __ATOMIC_RELAXED) >= ROUND)
		decide(p);
}

void em_pointers_fault(struct em_pointers *p, extmem_page_t page)
{
	uint32_t h = hash(page);

	if (h % CONTROL || __atomic_load_n(place(p, h), __ATOMIC_RELAXED) != page)
		return;
	__atomic_store_n(place(p, h), 0, __ATOMIC_RELAXED);
	__atomic_fetch_add(&p->hit, 1, __ATOMIC_RELAXED);
}

size_t em_pointers_find(struct em_pointers *p, bool in_order, const uint64_t *word, size_t n, extmem_page_t *out,
			size_t max)
{
	bool on = p->always || __atomic_load_n(&p->on, __ATOMIC_RELAXED);
	extmem_page_t last = 0;
	size_t k = 0;

	if (p->off || (!in_order && !p->always))
		return 0;
	for (size_t i = 0; i < n && k < max; i++) {
		extmem_page_t page = word[i] >> PAGE_SHIFT;
		uint32_t h;

		if (page == last || word[i] >> ADDR_BITS)
			continue;
		last = page;
		h = hash(page);
		if ((h % CONTROL && !on) || !p->host->is_out(page))
			continue;
		if (h % CONTROL)
			out[k++] = page;
		else
			watch(p, page, h);
	}
	return k;
}
