/* SPDX-License-Identifier: MIT */
/*
 * Signals as a program sees them: each test is one process that checks what the kernel promises.  The
 * same binary runs natively, where the kernel is the oracle, and under extmem.
 */
#ifndef TESTS_SIGNALS_H
#define TESTS_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tap.h>
#include <ucontext.h>

#define TEST_STACK (256 * 1024ul)

/* Out of memory with it, where there is somewhere to go. */
void test_evict(void *p, size_t bytes);
void test_handler(int signo, int flags, void (*fn)(int, siginfo_t *, void *));
/* A handler that takes some room, and notes where it ran. */
void test_note_sp(int signo, siginfo_t *si, void *uc);
extern volatile int test_calls;
extern volatile uintptr_t test_handler_sp;
/* SIGALRM again and again; 0: no more. */
void test_itimer(long us);
/* The wait status of a child that runs fn. */
int test_child(void (*fn)(void));
/* Runs fn on a fiber whose stack is [stack, stack + bytes), and comes back when fn returns. */
void test_on_stack(void *stack, size_t bytes, void (*fn)(void));
/* A mapping of a file of one page, truncated to nothing. */
char *test_truncated_file(void);

static inline uintptr_t test_sp(void)
{
	uintptr_t sp;

	__asm__ volatile("mov %%rsp, %0" : "=r"(sp));
	return sp;
}

static inline bool test_on(uintptr_t sp, const void *stack, size_t bytes)
{
	return sp - (uintptr_t)stack < bytes;
}

#define TESTS(X) \
	X(blocked_sigbus_waits_thread) X(blocked_sigbus_waits_process) \
	X(blocked_sigbus_comes_once) X(sigbus_goes_to_a_thread_that_takes_it) \
	X(sigqueue_keeps_its_value) X(raise_returns_after_the_handler) \
	X(sigwait_takes_sigbus) X(sigtimedwait_times_out) X(sigwait_in_a_thread) \
	X(sigwait_after_pthread_sigqueue) X(signalfd_reads_sigbus) X(sigsuspend_takes_sigbus) \
	X(ppoll_takes_sigbus) X(masks_read_back) X(full_mask_and_faults) \
	X(ignored_sigbus_is_dropped) X(ignored_sigbus_fault_kills) X(blocked_sigbus_fault_kills) \
	X(default_sigbus_kills) X(mask_in_sigsuspend_handler) X(mask_passes_exec) \
	X(sigstkflt_is_itself) X(actions_read_back) X(sigpending_after_fork) \
	X(restart_follows_the_flag) X(blocked_sigbus_does_not_end_a_read) \
	X(frame_on_an_evicted_stack) X(storm_on_evicted_fibers) X(storm_with_deep_calls) \
	X(handler_outlives_its_frame) X(frame_masks) X(handler_changes_the_mask) \
	X(handler_changes_registers) X(vector_registers_survive) X(handler_has_fresh_fpu) \
	X(altstack_reads_back) X(altstack_small_and_nested) X(altstack_overflow_kills) \
	X(altstack_autodisarm) X(altstack_of_its_own_managed) X(no_onstack_runs_where_it_is) \
	X(resethand_once) X(nodefer_nests) X(without_restorer_kills) X(restorer_of_its_own) \
	X(stack_overflow_is_caught) X(stack_overflow_kills) X(frame_on_no_stack) \
	X(longjmp_out_of_everything) X(backtrace_through_a_frame) X(cancel_in_managed_code) \
	X(genuine_sigbus) X(genuine_sigsegv) X(sigsegv_at_protected_memory) \
	X(fault_in_a_handler) X(sigbus_in_its_own_handler_kills) X(nodefer_sigbus_nests) \
	X(crash_handler_dumps_and_dies) X(crash_on_a_fiber) X(sigsegv_upcall_in_handler) \
	X(resethand_sigbus_kills_the_second_time) X(handler_repairs_the_mapping) \
	X(threads_and_timers) X(vfork_child_and_handlers) X(fork_in_a_handler)

TESTS(TAP_DECLARE)

#endif
