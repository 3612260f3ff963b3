/* SPDX-License-Identifier: MIT */
/* A dispatcher that counts calls and carries them out, in a shared object of its own. */
#ifndef STUB_H
#define STUB_H

#include <stdint.h>

#include "../../src/intercept/hook.h"

#define STUB_CALLS 512

/* Hidden in the library under test; exported here for the test programs. */
int stub_patch_all(struct em_patch_report *report, em_patch_log_fn log, void *arg);
extern volatile unsigned long stub_count[STUB_CALLS];
extern volatile unsigned long stub_total;
extern int stub_last_mapping; /* what em_patch_mapping returned last, if not 0 */
extern void stub_area(uint64_t *lo, uint64_t *hi);

#endif
