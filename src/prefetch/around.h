/* SPDX-License-Identifier: MIT */
/* Reading around lone faults where it pays.  [sigsafe] */
#ifndef EM_PREFETCH_AROUND_H
#define EM_PREFETCH_AROUND_H

#include "extmem/policy.h"

#define EM_AROUND_PAGES 8u /* an aligned group */

struct em_around {
	const struct extmem_policy_host *host;
	uint64_t *seen; /* groups: number << 31 | clock at the first fault; 0: none */
	uint32_t clock; /* pages brought in for lone faults */
	uint32_t groups, more;
	uint32_t on;
};

int em_around_init(struct em_around *a, const struct extmem_policy_host *host);

/* For a fault that belongs to no stream: 1 with the range of its group, or 0. */
size_t em_around_fault(struct em_around *a, const struct extmem_fault *f, struct extmem_range *out);

#endif
