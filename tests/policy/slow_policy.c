/* SPDX-License-Identifier: MIT */
/* A policy that does not come back from its first events until the program (slow.c) says so, like
   one whose thread has lost its processor. */
#include "extmem/policy.h"

/* In the program; the command looks at plug-ins too. */
extern volatile int slow_policy_entered __attribute__((weak));
extern volatile int slow_policy_go_on __attribute__((weak));

static int slow_init(const struct extmem_policy_host *host, const char *args, void **state, char *err,
		     size_t err_len)
{
	(void)host;
	(void)args;
	(void)state;
	(void)err;
	(void)err_len;
	return 0;
}

static void slow_events(void *state, const struct extmem_event *ev, size_t n)
{
	(void)state;
	(void)ev;
	(void)n;
	slow_policy_entered = 1;
	while (!slow_policy_go_on)
		__builtin_ia32_pause();
}

static size_t slow_evict(void *state, size_t want, extmem_page_t *out)
{
	(void)state;
	(void)want;
	(void)out;
	return 0;
}

const struct extmem_policy_ops extmem_policy = {
	.size = sizeof(struct extmem_policy_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "slow",
	.init = slow_init,
	.events = slow_events,
	.evict = slow_evict,
};
