/* SPDX-License-Identifier: MIT */
/*
 * The policies and prefetchers that are built in, and loading others.
 * Loading is for ordinary context; finding is island code, because the policy can be changed while the
 * program runs.
 */
#ifndef EM_POLICY_REGISTRY_H
#define EM_POLICY_REGISTRY_H

#include "extmem/policy.h"

/* A new one: its file, its line in meson.build, a declaration here and a line in
   registry.c. */
extern const struct extmem_policy_ops em_policy_fifo, em_policy_2q;
extern const struct extmem_prefetch_ops em_prefetch_none, em_prefetch_sequential;

/* By name, or NULL. */
const struct extmem_policy_ops *em_policy_find(const char *name);
const struct extmem_prefetch_ops *em_prefetch_find(const char *name);

/* The i-th name, NULL past the end. */
const char *em_policy_name(unsigned i);
const char *em_prefetch_name(unsigned i);

/*
 * A built-in one by name, or, if the name has a '/' or ends in ".so", the one in that
 * shared object, which stays loaded.  *ops lives as long as the process and always has
 * every member of the struct as this header knows it, NULL where an older plug-in has
 * none.  0, or -ENOENT (no such name or file), -EINVAL (not a usable plug-in) with one
 * line in err.
 */
int em_policy_load(const char *name_or_path, const struct extmem_policy_ops **ops, char *err,
		   size_t err_len);
int em_prefetch_load(const char *name_or_path, const struct extmem_prefetch_ops **ops, char *err,
		     size_t err_len);

#endif
