/* SPDX-License-Identifier: MIT */
/* Store tests run for every combination of file system and queue. */
#ifndef TESTS_STORE_COMMON_H
#define TESTS_STORE_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/core/meta.h"
#include "../../src/store/internal.h"

struct variant {
	const char *name, *dir;
	bool no_uring, no_memfd;
};

extern struct variant V; /* the one being run */

/* Runs the group for each variant; to be returned from main. */
int run_variants(int (*group)(const char *name), bool both_queues);

struct em_store *open_store(uint64_t size_bytes);
/* n page-aligned pages; page i holds pattern(seed + i) in every word. */
uint64_t *pages_new(size_t n);
void pages_fill(uint64_t *p, size_t n, uint64_t seed);
bool pages_are(const uint64_t *p, size_t n, uint64_t seed);

/* A child that follows the fork protocol, runs fn and stays until killed; returns its pid when
   fn is done. */
pid_t fork_store(struct em_store *st, void (*fn)(struct em_store *st));
void kill_child(pid_t pid);

#endif
