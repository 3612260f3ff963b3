/* SPDX-License-Identifier: MIT */
/* The frame of test programs in which each test is one process, and which print TAP. */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdbool.h>
#include <stddef.h>

#define PAGE 4096ul
#define MIB (1ul << 20)

#define CHECK(c) \
	do { \
		if (!(c)) \
			tap_fail(__FILE__, __LINE__, #c); \
	} while (0)

struct tap_test {
	const char *name;
	void (*fn)(void);
};

/* From X(name) for each test: void test_name(void), and the table. */
#define TAP_DECLARE(name) void test_##name(void);
#define TAP_ENTRY(name) { #name, test_##name },

/* Ends the process of the test. */
void tap_fail(const char *file, int line, const char *what) __attribute__((noreturn));
/* Runs all, or the one that is named; the exit status.  A test that takes longer than 20 s, or
   than TAP_SECONDS in the environment, has failed. */
int tap_run(const struct tap_test *tests, size_t n, const char *only);
/* The same in this process: for debuggers. */
int tap_run_here(const struct tap_test *tests, size_t n, const char *only);
/* Private anonymous memory, readable and writable. */
void *tap_map(size_t bytes);

#endif
