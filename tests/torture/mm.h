/* SPDX-License-Identifier: MIT */
/*
 * Small tests of what the manual pages promise of anonymous memory.  Each passes
 * natively: the kernel is the oracle.  Under `extmem run` with a budget smaller than
 * BIG most of the memory is in the store when the call under test comes.
 */
#ifndef MM_H
#define MM_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define PG 4096ul
#define MIB (1ul << 20)
#define BIG (4 * MIB)

struct mm_test {
	const char *name;
	void (*run)(void);
};

#define MM_TEST(f) { #f, f }

void mm_fail(const char *file, int line, const char *what);
void mm_skip(const char *why);

#define CHECK(cond)                                            \
	do {                                                   \
		if (!(cond)) {                                 \
			mm_fail(__FILE__, __LINE__, #cond);    \
			return;                                \
		}                                              \
	} while (0)
/* The call fails with just this error. */
#define CHECK_ERRNO(call, bad, err)                                    \
	do {                                                           \
		errno = 0;                                             \
		if ((call) != (bad) || errno != (err)) {               \
			mm_fail(__FILE__, __LINE__, #call " -> " #err); \
			return;                                        \
		}                                                      \
	} while (0)
#define SKIP(why)             \
	do {                  \
		mm_skip(why); \
		return;       \
	} while (0)

/* A private anonymous read-write mapping; exits when there is none to be had. */
char *mm_map(size_t bytes);
/* Every word of the range its own value, different for each key. */
void mm_fill(void *p, size_t bytes, uint64_t key);
bool mm_holds(const void *p, size_t bytes, uint64_t key);
bool mm_zero(const void *p, size_t bytes);
/* Writes through BIG bytes of other memory and asks for the range to be paged out. */
void mm_evict(void *p, size_t bytes);

/* One access; 0 if it went well, else the signal, with its info. */
int mm_probe(const void *p, bool write, siginfo_t *info);
/* True if the access raises SIGSEGV with that code at just that address. */
bool mm_segv(const void *p, bool write, int code);
/* The permissions of the mapping that holds p, as in /proc/self/maps, or "". */
const char *mm_perms(const void *p);
/* Runs f in a forked child; true if it returned true there. */
bool mm_in_child(bool (*f)(void *), void *arg);

/* Runs the tests of all groups (ended by NULL), or those named, prints TAP; for main to return. */
int mm_run(int argc, char **argv, const struct mm_test *const *groups);

extern const struct mm_test mm_map_tests[], mm_protect_tests[], mm_remap_tests[],
	mm_advise_tests[], mm_misc_tests[], mm_kernel_tests[], proc_life_tests[], proc_clone_tests[],
	proc_tables_tests[];

#endif
