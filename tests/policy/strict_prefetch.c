/* SPDX-License-Identifier: MIT */
/* A prefetcher that ends the program when a fault does not lie in its mapping.  By itself it names far too
   much, as one might that has subtracted the wrong way round. */
#include "extmem/policy.h"

static int strict_init(const struct extmem_policy_host *host, const char *args, void **state, char *err,
		       size_t err_len)
{
	(void)host;
	(void)args;
	(void)state;
	(void)err;
	(void)err_len;
	return 0;
}

static size_t strict_fault(void *state, struct extmem_stream *stream, const struct extmem_fault *f,
			   struct extmem_range *out, size_t max)
{
	(void)state;
	(void)stream;
	(void)max;
	if (f->page < f->region_first || f->page >= f->region_end)
		__builtin_trap();
	out[0] = (struct extmem_range){ f->page + 2, (uint32_t)-3 };
	return 1;
}

/* What is no page, what is there already, and more than it was asked for. */
static size_t strict_content(void *state, struct extmem_stream *stream, extmem_page_t page,
			     const uint64_t *word, size_t n, extmem_page_t *out, size_t max)
{
	(void)state;
	(void)stream;
	for (size_t i = 0; i < max; i++)
		out[i] = i % 4 == 0 ? ~0ull >> i % 64 : i % 4 == 1 ? word[i % n] : i % 4 == 2 ? page : page + i;
	return max + 5;
}

const struct extmem_prefetch_ops extmem_prefetch = {
	.size = sizeof(struct extmem_prefetch_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "strict",
	.description = "for tests",
	.init = strict_init,
	.fault = strict_fault,
	.content = strict_content,
};
