/* SPDX-License-Identifier: MIT */
/*
 * Where the store goes.  Ordinary context.
 */
#ifndef EM_STORE_TARGET_H
#define EM_STORE_TARGET_H

#include "internal.h"

struct em_target {
	const char *path;
	int fd; /* -1: to be created (check only) */
	bool named, device;
	uint64_t device_bytes;
};

struct em_message {
	char *text;
	size_t len;
};

/* Opens what cfg names, once it is sure that nothing is overwritten.  0, or -errno and the reason
   in m.  check_only: creates no named file, then fd is -1. */
int em_target_open(const struct em_store_config *cfg, bool check_only, struct em_target *t,
		   const struct em_message *m);
/* Returns code; the line goes to m. */
int em_target_refuse(const struct em_message *m, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Returns -e. */
int em_target_refuse_errno(const struct em_message *m, const char *path, const char *what, int e);

#endif
