/* SPDX-License-Identifier: MIT */
/* Races and corners of signals, stacks and system calls: each test is one process. */
#ifndef RACES_H
#define RACES_H

#include <tap.h>

/* A thread that keeps writing its way round `bytes` of memory of its own. */
void pressure_start(size_t bytes);
void pressure_stop(void);
/* Once round: nothing that was cold before is resident afterwards. */
void pressure_once(size_t bytes);

#define TESTS(X) \
	X(restart_on_alternate_stack) X(partial_discard) X(stream_read) \
	X(fibers_on_managed_stacks) X(threads_on_managed_stacks) X(alternate_stack_after_fork) \
	X(small_alternate_stack) X(all_held_and_fork) X(jump_out_of_handlers) \
	X(thread_churn_and_fork) X(spawn_under_pressure) X(calls_on_an_evicted_stack) \
	X(robust_mutexes_that_are_evicted) \
	X(replaced_under_a_reader) X(moved_onto_under_a_reader) \
	X(move_that_fails_at_the_end) X(large_move_changes_its_size) \
	X(call_over_memory_that_is_replaced) \
	X(calls_in_a_storm_of_mappings) \
	X(locked_memory_is_not_cleared) \
	X(written_while_it_leaves) X(written_while_it_leaves_after_fork) \
	X(written_while_it_leaves_and_is_merged) \
	X(written_again_and_out_again_while_it_is_written) X(some_that_leave_may_not_be_read) \
	X(discarded_while_it_is_written_from) X(discarded_by_generated_code) X(cycle_counter_is_forbidden) \
	X(discarded_as_soon_as_it_is_there) \
	X(standby_and_counters) X(standby_and_replaced) X(standby_and_moved) X(standby_and_hidden) \
	X(standby_and_advice) X(standby_and_calls) X(standby_and_fork)
TESTS(TAP_DECLARE)

#endif
