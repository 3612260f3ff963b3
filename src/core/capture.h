/* SPDX-License-Identifier: MIT */
/*
 * Eviction of scattered dirty pages without write protection: a pipe holds on to the pages (vmsplice),
 * one call unmaps them all, and what they held at that moment is taken from the pipe.  [engine]
 */
#ifndef EM_CORE_CAPTURE_H
#define EM_CORE_CAPTURE_H

#include "reclaim.h"

/* Takes V_DIRTY victims of b that lie scattered: V_LIFTED, their content in b's frames.  The others stay as
   they are, for em_protect_victims. */
void em_capture_victims(struct em_batch *b);
/* From now on nothing is captured: pages may be exchanged for others unseen (KSM), or a filter may object to the
   calls. [any] */
void em_capture_stop(void);
/* The frames are not needed any more. */
void em_capture_done(struct em_batch *b);
/* Service, ten times a second: frames that nobody needs. */
void em_capture_tick(void);

#endif
