/* SPDX-License-Identifier: MIT */
/* Loading policies and prefetchers.  Ordinary context, before the first managed page. */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "registry.h"

static bool is_path(const char *name)
{
	size_t n = strlen(name);

	return strchr(name, '/') || (n > 3 && !strcmp(name + n - 3, ".so"));
}

/* "2q, fifo" */
static void list_names(const char *(*name)(unsigned), char *buf, size_t len)
{
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; name(i) && at < len; i++)
		at += (size_t)snprintf(buf + at, len - at, "%s%s", i ? ", " : "", name(i));
}

static int unknown(const char *what, const char *given, const char *(*name)(unsigned), char *err,
		   size_t err_len)
{
	char names[256];

	list_names(name, names, sizeof(names));
	snprintf(err, err_len, "unknown %s '%s'; known are %s, or give the path of a .so", what,
		 given, names);
	return -ENOENT;
}

/* The loader's message may have several lines; ours has one. */
static int load_failed(const char *path, char *err, size_t err_len)
{
	const char *why = dlerror();

	snprintf(err, err_len, "cannot load '%s': %s", path, why ? why : "unknown reason");
	err[strcspn(err, "\n")] = 0;
	return -ENOENT;
}

/*
 * Opens the object, finds the symbol and copies what the plug-in has of the struct over
 * the zeros of ours.  Both structs start with size and abi, which is all this looks at.
 */
static int load_ops(const char *path, const char *symbol, size_t min, size_t len, void *copy,
		    char *err, size_t err_len)
{
	const struct extmem_policy_ops *ops; /* or the other one: same first members */
	char here[4096];
	void *handle;

	if (!strchr(path, '/')) { /* a file name: this directory, not the library path */
		if ((size_t)snprintf(here, sizeof(here), "./%s", path) >= sizeof(here)) {
			snprintf(err, err_len, "path of the plug-in is too long");
			return -EINVAL;
		}
		path = here;
	}
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return load_failed(path, err, err_len);
	ops = dlsym(handle, symbol);
	if (!ops)
		snprintf(err, err_len, "'%s' does not export '%s'", path, symbol);
	else if (ops->size < min)
		snprintf(err, err_len, "'%s': %s.size is %zu, at least %zu is needed", path, symbol,
			 ops->size, min);
	else if (ops->abi != EXTMEM_POLICY_ABI)
		snprintf(err, err_len, "'%s' was built for ABI %u, this is ABI %u: rebuild it", path,
			 ops->abi, EXTMEM_POLICY_ABI);
	else if (!ops->name || !ops->name[0])
		snprintf(err, err_len, "'%s': %s.name is missing", path, symbol);
	else if (!ops->init)
		snprintf(err, err_len, "'%s': %s.init is missing", path, symbol);
	else {
		memcpy(copy, ops, ops->size < len ? ops->size : len);
		return 0;
	}
	dlclose(handle);
	return -EINVAL;
}

int em_policy_load(const char *name_or_path, const struct extmem_policy_ops **ops, char *err,
		   size_t err_len)
{
	static struct extmem_policy_ops loaded;
	struct extmem_policy_ops o = { 0 };
	int ret;

	if (!is_path(name_or_path)) {
		*ops = em_policy_find(name_or_path);
		return *ops ? 0 : unknown("policy", name_or_path, em_policy_name, err, err_len);
	}
	ret = load_ops(name_or_path, "extmem_policy", offsetof(struct extmem_policy_ops, tick),
		       sizeof(o), &o, err, err_len);
	if (ret)
		return ret;
	if (!o.events || !o.evict) {
		snprintf(err, err_len, "'%s': extmem_policy.%s is missing", name_or_path,
			 o.events ? "evict" : "events");
		return -EINVAL;
	}
	loaded = o;
	loaded.size = sizeof(loaded);
	*ops = &loaded;
	return 0;
}

int em_prefetch_load(const char *name_or_path, const struct extmem_prefetch_ops **ops, char *err,
		     size_t err_len)
{
	static struct extmem_prefetch_ops loaded;
	struct extmem_prefetch_ops o = { 0 };
	int ret;

	if (!is_path(name_or_path)) {
		*ops = em_prefetch_find(name_or_path);
		return *ops ? 0 : unknown("prefetcher", name_or_path, em_prefetch_name, err, err_len);
	}
	ret = load_ops(name_or_path, "extmem_prefetch", offsetof(struct extmem_prefetch_ops, wasted),
		       sizeof(o), &o, err, err_len);
	if (ret)
		return ret;
	if (!o.fault) {
		snprintf(err, err_len, "'%s': extmem_prefetch.fault is missing", name_or_path);
		return -EINVAL;
	}
	loaded = o;
	loaded.size = sizeof(loaded);
	*ops = &loaded;
	return 0;
}
