/* SPDX-License-Identifier: MIT */
/* Plug-ins with one mistake each, chosen by BAD; BAD == 0 is one of an older header. */
#include "extmem/policy.h"

static int bad_init(const struct extmem_policy_host *host, const char *args, void **state,
		    char *err, size_t err_len)
{
	(void)host;
	(void)args;
	(void)state;
	(void)err;
	(void)err_len;
	return 0;
}

#if BAD != 4
static void bad_events(void *state, const struct extmem_event *ev, size_t n)
{
	(void)state;
	(void)ev;
	(void)n;
}
#endif

static size_t bad_evict(void *state, size_t want, extmem_page_t *out)
{
	(void)state;
	(void)want;
	(void)out;
	return 0;
}

static void later_addition(void *state, uint64_t now_ns)
{
	(void)state;
	(void)now_ns;
}

#if BAD == 1
const struct extmem_policy_ops extmem_poolicy = {
#else
const struct extmem_policy_ops extmem_policy = {
#endif
#if BAD == 2
	.size = 16,
#else
	.size = offsetof(struct extmem_policy_ops, tick),
#endif
#if BAD == 3
	.abi = EXTMEM_POLICY_ABI + 1,
#else
	.abi = EXTMEM_POLICY_ABI,
#endif
	.name = "bad",
	.init = bad_init,
#if BAD != 4
	.events = bad_events,
#endif
	.evict = bad_evict,
	.tick = later_addition, /* past .size: must not be seen */
};
