/* SPDX-License-Identifier: MIT */
/* First in, first out: evict in the order in which pages became resident. */
#include <errno.h>

#include "args.h"
#include "cluster.h"
#include "registry.h"

enum { QUEUED = 1 };

struct fifo {
	struct em_queues qs;
	bool cluster;
};

static int fifo_init(const struct extmem_policy_host *host, const char *args, void **state,
		     char *err, size_t err_len)
{
	struct fifo *f = host->alloc(sizeof(*f));
	struct em_arg a;

	if (!f)
		return -ENOMEM;
	f->cluster = true;
	while (em_args_next(&args, &a)) {
		if (em_arg_is(&a, "cluster") && em_arg_switch(&a, &f->cluster))
			continue;
		em_args_complain(&a, "fifo", "cluster=on|off", err, err_len);
		return -EINVAL;
	}
	*state = f;
	return em_queues_init(&f->qs, host);
}

static void fifo_events(void *state, const struct extmem_event *ev, size_t n)
{
	struct fifo *f = state;

	for (; n; n--, ev++) {
		switch (ev->kind) {
		case EXTMEM_EV_FIRST_TOUCH:
		case EXTMEM_EV_SWAP_IN:
		case EXTMEM_EV_PREFETCH_USED:
		case EXTMEM_EV_EVICT_FAILED:
			em_queue_push(&f->qs, QUEUED, ev->page, 0);
			break;
		case EXTMEM_EV_GONE:
			em_queue_gone(&f->qs, ev);
			break;
		default:
			break; /* only arrivals count; EVICTED: see em_queue_gone() */
		}
	}
}

static size_t fifo_evict(void *state, size_t want, extmem_page_t *out)
{
	struct fifo *f = state;
	extmem_page_t page;
	uint8_t user;
	size_t n = 0;

	while (n < want && em_queue_pop(&f->qs, QUEUED, &page, &user)) {
		if (f->cluster)
			n += em_cluster_take(&f->qs, QUEUED, page, want - n, out + n);
		else
			out[n++] = page;
	}
	return n;
}

const struct extmem_policy_ops em_policy_fifo = {
	.size = sizeof(struct extmem_policy_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "fifo",
	.description = "first in, first out; args: cluster=on|off",
	.init = fifo_init,
	.events = fifo_events,
	.evict = fifo_evict,
};
