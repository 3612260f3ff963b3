/* SPDX-License-Identifier: MIT */
#include "registry.h"

#include "args.h"

static const struct extmem_policy_ops *const policies[] = {
	&em_policy_2q,
	&em_policy_fifo,
};

static const struct extmem_prefetch_ops *const prefetchers[] = {
	&em_prefetch_sequential,
	&em_prefetch_none,
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool same(const char *a, const char *b)
{
	size_t n = 0;

	while (a[n])
		n++;
	return em_arg_equal(a, n, b);
}

const struct extmem_policy_ops *em_policy_find(const char *name)
{
	for (size_t i = 0; i < COUNT(policies); i++)
		if (same(policies[i]->name, name))
			return policies[i];
	return NULL;
}

const struct extmem_prefetch_ops *em_prefetch_find(const char *name)
{
	for (size_t i = 0; i < COUNT(prefetchers); i++)
		if (same(prefetchers[i]->name, name))
			return prefetchers[i];
	return NULL;
}

const char *em_policy_name(unsigned i)
{
	return i < COUNT(policies) ? policies[i]->name : NULL;
}

const char *em_prefetch_name(unsigned i)
{
	return i < COUNT(prefetchers) ? prefetchers[i]->name : NULL;
}
