/* SPDX-License-Identifier: MIT */
/* System calls from code that cannot be patched: each test is one process. */
#ifndef TRAP_H
#define TRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>

#define PAGE 4096ul
#define MIB (1ul << 20)

#define CHECK(c) \
	do { \
		if (!(c)) \
			trap_fail(__FILE__, __LINE__, #c); \
	} while (0)

void trap_fail(const char *file, int line, const char *what) __attribute__((noreturn));

/* Like syscall(2), but returns -errno. */
typedef long (*call_fn)(long nr, ...);

/* The code of such a function, to be copied. */
extern const unsigned char trap_code[];
extern const unsigned trap_code_bytes;
/* The same, freshly made executable: what turns trapping on if it was off. */
call_fn trap_generate(void);

/* Memory that is not resident any more. */
char *trap_evicted(size_t bytes, char fill);
/* Through the given function, to and from memory that is not resident. */
void trap_check_io(call_fn call);
/* Opens the library with sites that cannot be patched. */
void *trap_library(const char *symbol);

void test_writable_code(void);
void test_code_protected_later(void);
void test_code_from_a_file(void);
void test_file_protected_later(void);
void test_shared_code(void);
void test_library_with_stuck_sites(void);
void test_data_in_text(void);
void test_registers_survive(void);
void test_old_gate(void);

void test_threads_that_exist(void);
void test_threads_that_come(void);
void test_thread_from_code(void);
void test_fork_from_code(void);
void test_vfork_from_code(void);
void test_clone_with_a_stack_from_code(void);
void test_exec_from_code(void);

void test_handlers_and_returns(void);
void test_own_handler(void);
void test_blocked_and_pending(void);
void test_mask_in_the_frame(void);
void test_own_filter(void);
void test_call_in_own_handler(void);
void test_restarts(void);
void test_inherited_mask(void);

#endif
