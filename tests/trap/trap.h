/* SPDX-License-Identifier: MIT */
/* System calls from code that cannot be patched: each test is one process. */
#ifndef TRAP_H
#define TRAP_H

#include <sys/syscall.h>
#include <tap.h>

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

#define TESTS(X) \
	X(writable_code) X(code_protected_later) X(code_from_a_file) X(file_protected_later) \
	X(shared_code) X(library_with_stuck_sites) X(data_in_text) X(registers_survive) \
	X(old_gate) X(threads_that_exist) X(threads_that_come) X(thread_from_code) \
	X(fork_from_code) X(vfork_from_code) X(clone_with_a_stack_from_code) X(exec_from_code) \
	X(handlers_and_returns) X(own_handler) X(blocked_and_pending) X(mask_in_the_frame) \
	X(own_filter) X(call_in_own_handler) X(restarts) X(inherited_mask)
TESTS(TAP_DECLARE)

#endif
