/* SPDX-License-Identifier: MIT */
/*
 * random: evicts a page chosen at random.  A template for policies in a shared object of
 * their own; docs/policies.md goes through it.
 *
 * It keeps resident pages in an array.  A page that leaves memory otherwise than by our
 * choice stays in the array until it is drawn or swept out; its tag says whether that entry
 * still counts.  When the array is full it is swept; when that does not help, it doubles.
 */
#include <errno.h>
#include <extmem/policy.h>
#include <stdio.h> /* for init only: it may use libc */

#define IN_ARRAY 1u

struct state {
	const struct extmem_policy_host *host;
	extmem_page_t *page;
	uint64_t count, room, rng;
};

static int random_init(const struct extmem_policy_host *host, const char *args, void **state,
		       char *err, size_t err_len)
{
	struct state *s;

	if (args[0]) {
		snprintf(err, err_len, "random: takes no arguments");
		return -EINVAL;
	}
	s = host->alloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->host = host;
	s->rng = 88172645463325252ull;
	s->room = 1024;
	s->page = host->alloc(s->room * sizeof(s->page[0]));
	*state = s;
	return s->page ? 0 : -ENOMEM;
}

static void make_room(struct state *s)
{
	extmem_page_t *bigger;
	uint64_t i, kept = 0;

	for (i = 0; i < s->count; i++)
		if (s->host->tag_get(s->page[i]) == IN_ARRAY)
			s->page[kept++] = s->page[i];
	s->count = kept;
	if (kept < s->room / 2)
		return;
	bigger = s->host->alloc(2 * s->room * sizeof(bigger[0]));
	if (!bigger)
		return;
	for (i = 0; i < kept; i++)
		bigger[i] = s->page[i];
	s->page = bigger;
	s->room *= 2;
}

static void add(struct state *s, extmem_page_t page)
{
	if (s->count == s->room)
		make_room(s);
	if (s->count == s->room || s->host->tag_get(page) == IN_ARRAY)
		return;
	if (!s->host->tag_set(page, IN_ARRAY))
		s->page[s->count++] = page;
}

static void random_events(void *state, const struct extmem_event *ev, size_t n)
{
	struct state *s = state;

	for (; n; n--, ev++) {
		switch (ev->kind) {
		case EXTMEM_EV_FIRST_TOUCH:
		case EXTMEM_EV_SWAP_IN:
		case EXTMEM_EV_PREFETCH_USED:
		case EXTMEM_EV_EVICT_FAILED:
			add(s, ev->page);
			break;
		default:
			break; /* departures show in the tag, and may be told late */
		}
	}
}

static size_t random_evict(void *state, size_t want, extmem_page_t *out)
{
	struct state *s = state;
	size_t n = 0;

	while (n < want && s->count) {
		uint64_t i;

		s->rng ^= s->rng << 13; /* xorshift64 */
		s->rng ^= s->rng >> 7;
		s->rng ^= s->rng << 17;
		i = s->rng % s->count;
		out[n] = s->page[i];
		s->page[i] = s->page[--s->count];
		if (s->host->tag_get(out[n]) == IN_ARRAY && !s->host->tag_set(out[n], 0))
			n++;
	}
	return n;
}

const struct extmem_policy_ops extmem_policy = {
	.size = sizeof(struct extmem_policy_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "random",
	.description = "evicts pages at random",
	.init = random_init,
	.events = random_events,
	.evict = random_evict,
};
