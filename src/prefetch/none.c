/* SPDX-License-Identifier: MIT */
/* No prefetching: for comparison, and for programs that read at random. */
#include <errno.h>

#include "policy/args.h"
#include "policy/registry.h"

static int none_init(const struct extmem_policy_host *host, const char *args, void **state,
		     char *err, size_t err_len)
{
	struct em_arg a;

	(void)host;
	*state = NULL;
	if (!em_args_next(&args, &a))
		return 0;
	em_args_complain(&a, "none", "no arguments", err, err_len);
	return -EINVAL;
}

static size_t none_fault(void *state, struct extmem_stream *stream,
			 const struct extmem_fault *fault, struct extmem_range *out, size_t max)
{
	(void)state;
	(void)stream;
	(void)fault;
	(void)out;
	(void)max;
	return 0;
}

const struct extmem_prefetch_ops em_prefetch_none = {
	.size = sizeof(struct extmem_prefetch_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "none",
	.description = "no prefetching",
	.init = none_init,
	.fault = none_fault,
};
