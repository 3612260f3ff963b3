/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct sim sim;
static uint64_t rng = 88172645463325252ull;

void sim_fail(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
	abort();
}

void sim_seed(uint64_t seed)
{
	rng = seed * 2654435769u + 88172645463325252ull;
}

uint64_t sim_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng >> 11;
}

static struct sim_page *page_of(extmem_page_t page)
{
	return page >= sim.base && page < sim.base + sim.npages ? &sim.page[page - sim.base] : NULL;
}

static void *host_alloc(size_t bytes)
{
	if (sim.alloc_fails)
		return NULL;
	sim.alloc_bytes += bytes;
	return calloc(1, bytes); /* never returned: as the interface says */
}

static uint64_t host_budget(void)
{
	return sim.budget;
}

static uint64_t host_resident(void)
{
	return sim.resident;
}

static uint8_t host_tag_get(extmem_page_t page)
{
	struct sim_page *p = page_of(page);

	return p ? p->tag : 0;
}

static int host_tag_set(extmem_page_t page, uint8_t tag)
{
	struct sim_page *p = page_of(page);

	if (!p)
		return -ENOENT;
	p->tag = tag;
	return 0;
}

static int host_is_resident(extmem_page_t page)
{
	struct sim_page *p = page_of(page);

	return p && p->state == SIM_RESIDENT;
}

static int host_is_out(extmem_page_t page)
{
	(void)page;
	return 0;
}

static int host_is_clean(extmem_page_t page)
{
	struct sim_page *p = page_of(page);

	return p && p->state == SIM_RESIDENT && !p->dirty;
}

const struct extmem_policy_host sim_host = {
	.size = sizeof(struct extmem_policy_host),
	.alloc = host_alloc,
	.budget_pages = host_budget,
	.resident_pages = host_resident,
	.tag_get = host_tag_get,
	.tag_set = host_tag_set,
	.is_resident = host_is_resident,
	.is_clean = host_is_clean,
	.is_out = host_is_out,
};

void sim_start(const struct extmem_policy_ops *ops, const char *args, uint64_t npages,
	       uint64_t budget)
{
	char err[256] = "";

	memset(&sim, 0, sizeof(sim));
	sim.ops = ops;
	sim.npages = npages;
	sim.base = 0x7f1234567ull & ~511ull; /* as addresses of mmap look */
	sim.budget = budget;
	sim.page = calloc(npages, sizeof(*sim.page));
	SIM_CHECK(sim.page);
	if (ops->init(&sim_host, args, &sim.state, err, sizeof(err))) {
		fprintf(stderr, "%s: %s\n", ops->name, err);
		abort();
	}
}

void sim_stop(void)
{
	if (sim.ops->fini)
		sim.ops->fini(sim.state);
	free(sim.page);
}

void sim_flush(void)
{
	unsigned n = sim.queued;

	sim.queued = 0;
	if (n)
		sim.ops->events(sim.state, sim.queue, n);
}

void sim_event(uint64_t i, uint32_t kind, uint32_t info)
{
	struct sim_page *p = &sim.page[i];

	switch (kind) {
	case EXTMEM_EV_FIRST_TOUCH:
	case EXTMEM_EV_SWAP_IN:
	case EXTMEM_EV_PREFETCH_USED:
	case EXTMEM_EV_EVICT_FAILED:
		p->in_hands = 1;
		break;
	case EXTMEM_EV_GONE:
	case EXTMEM_EV_EVICTED:
		p->in_hands = 0;
		break;
	}
	sim.queue[sim.queued++] = (struct extmem_event){ sim.base + i, kind, info };
	if (sim.queued == SIM_BATCH)
		sim_flush();
}

size_t sim_reclaim(size_t want)
{
	extmem_page_t out[256], block = 0;
	size_t n, i, left = 0;

	SIM_CHECK(want < 256);
	sim_flush();
	out[want] = 0x5a5a5a;
	n = sim.ops->evict(sim.state, want, out);
	for (size_t i = 0; i < n; i++)
		out[i] &= ~EXTMEM_VICTIM_FAR;
	SIM_CHECK(n <= want);
	SIM_CHECK(out[want] == 0x5a5a5a);
	for (i = 0; i < n; i++) {
		struct sim_page *p = page_of(out[i]);

		SIM_CHECK(p);
		SIM_CHECK(p->in_hands || p->state != SIM_RESIDENT);
		p->in_hands = 0;
	}
	for (i = 0; i < n; i++) {
		struct sim_page *p = page_of(out[i]);

		if (p->state != SIM_RESIDENT)
			continue;
		if (p->held) {
			sim_event((uint64_t)(p - sim.page), EXTMEM_EV_EVICT_FAILED, 0);
			continue;
		}
		if (p->dirty && out[i] >> 9 != block) {
			sim.blocks_protected++;
			block = out[i] >> 9;
		}
		p->state = SIM_SWAPPED;
		p->dirty = 0;
		p->went_out = ++sim.evicted;
		sim.resident--;
		left++;
		sim_event((uint64_t)(p - sim.page), EXTMEM_EV_EVICTED, 0);
	}
	return left;
}

static void make_room(void)
{
	int tries = 0;

	while (sim.resident >= sim.budget)
		if (!sim_reclaim(SIM_RECLAIM))
			SIM_CHECK(++tries < 1000);
}

void sim_touch(uint64_t i, bool write)
{
	struct sim_page *p = &sim.page[i];

	sim.touches++;
	if (p->state == SIM_RESIDENT) {
		if (write && !p->dirty) {
			p->dirty = 1;
			sim_event(i, EXTMEM_EV_WRITE, 0);
		}
		return;
	}
	sim.faults++;
	make_room();
	sim.resident++;
	if (p->state == SIM_ABSENT) {
		p->dirty = 1;
		p->state = SIM_RESIDENT;
		sim_event(i, EXTMEM_EV_FIRST_TOUCH, write);
	} else {
		p->dirty = write;
		p->state = SIM_RESIDENT;
		sim_event(i, EXTMEM_EV_SWAP_IN, (uint32_t)(sim.evicted - p->went_out));
	}
}

void sim_gone(uint64_t i)
{
	struct sim_page *p = &sim.page[i];
	uint8_t tag = p->tag;

	if (p->state == SIM_RESIDENT)
		sim.resident--;
	p->tag = 0;
	if (p->state == SIM_RESIDENT)
		sim_event(i, EXTMEM_EV_GONE, tag);
	p->state = SIM_ABSENT;
	p->dirty = 0;
}

void sim_drain(void)
{
	int idle = 0;

	while (sim.resident && idle < 3)
		idle = sim_reclaim(SIM_RECLAIM) ? 0 : idle + 1;
	SIM_CHECK(!sim.resident);
}

double sim_miss_ratio(void)
{
	return sim.touches ? (double)sim.faults / (double)sim.touches : 0;
}
