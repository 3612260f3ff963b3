/* SPDX-License-Identifier: MIT */
/* The exported functions of libextmem.so. */
#include "extmem/extmem.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/core.h"
#include "core/meta.h"
#include "core/range.h"
#include "core/start.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT const char *extmem_version(void)
{
	return EXTMEM_VERSION;
}

EXPORT int extmem_start(char *err, size_t err_len)
{
	static struct em_options o;
	char own[512];

	if (!err || !err_len) {
		err = own;
		err_len = sizeof(own);
	}
	if (em_engine.active)
		return -EALREADY;
	em_options_init(&o);
	if (em_options_from_env(&o, err, err_len))
		return -EINVAL;
	em_sandbox_adapt(&o);
	if (!o.stats_pid)
		o.stats_pid = getpid();
	return em_engine_start(&o, err, err_len);
}

EXPORT int extmem_is_managed(const void *addr)
{
	return em_engine.active && em_range_region_at((uintptr_t)addr) != NULL;
}

EXPORT long extmem_stats_json(char *buf, size_t len)
{
	struct em_range_op op;
	long n;

	if (!em_engine.active)
		return -ENOTCONN;
	em_range_enter(&op);
	n = em_stats_json(buf, len);
	em_range_leave(&op);
	return n;
}

EXPORT int extmem_set_error_callback(extmem_error_fn fn, void *arg)
{
	struct em_error_hook *hook = NULL;

	if (!em_engine.active)
		return -ENOTCONN;
	if (em_engine.opt.delivery != EM_DELIVERY_UPCALL)
		return -ENOTSUP;
	if (fn) {
		hook = em_meta_alloc(sizeof(*hook));
		if (!hook)
			return -ENOMEM;
		hook->fn = fn;
		hook->arg = arg;
	}
	/* The one before is never freed: a thread may be in it. */
	__atomic_store_n(&em_engine.error_hook, hook, __ATOMIC_RELEASE);
	return 0;
}
