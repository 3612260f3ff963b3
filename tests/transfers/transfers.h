/* SPDX-License-Identifier: MIT */
/*
 * Transfers larger than what one call may hold, natively, where the kernel is the oracle, and under
 * extmem with 1 MiB, where they are made in pieces: the caller must see what one call would have given.
 */
#ifndef TESTS_TRANSFERS_H
#define TESTS_TRANSFERS_H

#include <signal.h>
#include <stdint.h>
#include <tap.h>

#define LARGE (3 * MIB)

/* LARGE bytes that tell where they belong, out of memory where there is somewhere to go. */
char *full_buffer(void);
/* LARGE zeros, in the same way. */
char *empty_buffer(void);
/* Are p[0, n) those bytes from offset `at` on? */
bool is_data(const char *p, size_t n, size_t at);
void evict(char *p, size_t bytes);
/* A file that has no name any more. */
int scratch_file(int flags);
/* Reads n bytes, and checks that they are those from `at` on. */
void drain(int fd, size_t n, size_t at);

#define TESTS(X) \
	X(stream_waits_for_all) X(stream_ends_before_all) X(stream_nonblocking) \
	X(pipe_takes_what_fits) X(pipe_gives_what_it_has) X(socket_peer_goes_away) \
	X(pipe_reader_goes_away) X(stream_message_with_descriptor) \
	X(storm_does_not_shorten_files) X(storm_does_not_shorten_what_fits) \
	X(file_vectors) X(file_offsets) X(file_append) X(file_size_limit) X(file_hole_in_the_buffer) \
	X(pipe_hole_in_the_buffer) X(process_vm_large) X(process_vm_hole) \
	X(datagram_is_whole) X(datagram_is_cut_off) X(packets_keep_their_ends) \
	X(many_datagrams) X(many_datagrams_wait_for_one) \
	X(read_sleeps_while_its_mapping_grows) X(read_sleeps_while_its_mapping_is_replaced) \
	X(interrupted_pipe_write) X(interrupted_pipe_write_restarting) \
	X(interrupted_socket_write) X(interrupted_waitall) X(interrupted_recvmmsg) \
	X(interrupted_before_the_first_byte) X(interrupted_anywhere)
TESTS(TAP_DECLARE)

#endif
