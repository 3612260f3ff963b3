/* SPDX-License-Identifier: MIT */
#ifndef EM_INTERCEPT_URING_H
#define EM_INTERCEPT_URING_H

struct em_hold;
struct io_uring_sqe;

/* Holds what the request points to. */
void em_uring_hold_request(struct em_hold *h, const struct io_uring_sqe *s);

#endif
