/* SPDX-License-Identifier: MIT */
/* Races and corners of signals, stacks and system calls: each test is one process. */
#ifndef RACES_H
#define RACES_H

#include <stdbool.h>
#include <stddef.h>

#define PAGE 4096ul
#define MIB (1ul << 20)

#define CHECK(c) \
	do { \
		if (!(c)) \
			races_fail(__FILE__, __LINE__, #c); \
	} while (0)

void races_fail(const char *file, int line, const char *what) __attribute__((noreturn));
void *races_map(size_t bytes);

/* A thread that keeps writing its way round `bytes` of memory of its own. */
void pressure_start(size_t bytes);
void pressure_stop(void);
/* Once round: nothing that was cold before is resident afterwards. */
void pressure_once(size_t bytes);

void test_restart_on_alternate_stack(void);
void test_partial_discard(void);
void test_stream_read(void);
void test_fibers_on_managed_stacks(void);
void test_threads_on_managed_stacks(void);
void test_alternate_stack_after_fork(void);
void test_small_alternate_stack(void);
void test_all_held_and_fork(void);
void test_jump_out_of_handlers(void);
void test_thread_churn_and_fork(void);
void test_spawn_under_pressure(void);
void test_calls_on_an_evicted_stack(void);
void test_robust_mutexes_that_are_evicted(void);

#endif
