/* SPDX-License-Identifier: MIT */
/* First in, first out, by a policy that names besides: what no address can be, what is not managed, what left long
   ago, each victim twice, and now and then nothing but that. */
#include "extmem/policy.h"

#define QUEUE 4096u
#define NONSENSE_CALLS 8u /* for each that names victims */

static extmem_page_t queue[QUEUE], gone;
static uint32_t head, tail, calls;

static int nonsense_init(const struct extmem_policy_host *host, const char *args, void **state, char *err,
			 size_t err_len)
{
	(void)host;
	(void)args;
	(void)state;
	(void)err;
	(void)err_len;
	return 0;
}

static void nonsense_events(void *state, const struct extmem_event *ev, size_t n)
{
	(void)state;
	for (size_t i = 0; i < n; i++) {
		if (ev[i].kind == EXTMEM_EV_EVICTED)
			gone = ev[i].page;
		if (ev[i].kind != EXTMEM_EV_FIRST_TOUCH && ev[i].kind != EXTMEM_EV_SWAP_IN &&
		    ev[i].kind != EXTMEM_EV_PREFETCH_USED && ev[i].kind != EXTMEM_EV_EVICT_FAILED)
			continue;
		tail += head - tail == QUEUE;
		queue[head++ % QUEUE] = ev[i].page;
	}
}

static size_t nonsense_evict(void *state, size_t want, extmem_page_t *out)
{
	const extmem_page_t never[] = { ~0ull, 0, 1ull << 62 | gone, 1ull << 40 | gone, 0x7ffffffffull, gone };
	size_t n = 0;

	(void)state;
	for (; n < sizeof(never) / sizeof(never[0]) && n < want; n++)
		out[n] = never[n];
	if (calls++ % NONSENSE_CALLS)
		return n;
	while (n + 1 < want && head != tail) {
		out[n] = queue[tail++ % QUEUE];
		out[n + 1] = out[n] | EXTMEM_VICTIM_FAR;
		n += 2;
	}
	return n;
}

const struct extmem_policy_ops extmem_policy = {
	.size = sizeof(struct extmem_policy_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "nonsense",
	.description = "for tests",
	.init = nonsense_init,
	.events = nonsense_events,
	.evict = nonsense_evict,
};
