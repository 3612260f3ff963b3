/* SPDX-License-Identifier: MIT */
/*
 * Trampolines: one 64-byte slot a site.
 *
 *   [instructions moved from before the syscall]
 *   lea cont(%rip), %r11
 *   jmp *em_hook_entry          through the pointer in the area's first slot
 *   syscall                     cont - 2: the call in the raw
 *   cont: [instructions moved from behind it]
 *   jmp back
 *   ...
 *   at 56: address behind the original syscall, for unwinding (entry.S)
 *
 * rcx and r11 are free: the kernel would overwrite them too.
 */
#ifndef EM_INTERCEPT_TRAMP_H
#define EM_INTERCEPT_TRAMP_H

#include "plan.h"

#define EM_SLOT_BYTES 64
#define EM_SLOT_ORIGIN 56

/*
 * Writes the trampoline of a site of an object loaded at bias; code: the site's original
 * bytes at win.  Returns its address or 0.  Under em_tramp_lock.
 */
uint64_t em_tramp_emit(const struct em_site *site, const uint8_t *code, uint64_t bias);

/*
 * Tells an address near the upper end of the main stack.  Below it, down to the first
 * mapping, is room that the stack may need.
 */
void em_tramp_stack(uint64_t near_top);

/* Makes all that has been written executable.  0 or -errno. */
int em_tramp_commit(void);

/* Also keeps the thread's signal handlers out, SIGBUS and SIGSEGV excepted. */
void em_tramp_lock(uint64_t *saved_mask);
void em_tramp_unlock(const uint64_t *saved_mask);

#endif
