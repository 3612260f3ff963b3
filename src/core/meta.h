/* SPDX-License-Identifier: MIT */
/*
 * Memory for the engine's own data: never managed, never malloc.
 * Context: signal-safe, any thread inside an engine section (signals blocked).
 */
#ifndef EM_CORE_META_H
#define EM_CORE_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reserves the address range that all metadata comes from; once, before the program runs. 0 or -errno. */
int em_meta_reserve(void);

/* Zeroed, 64-byte aligned memory, or NULL.  Small sizes come from size classes whose memory is
   only ever recycled for metadata (a stale pointer reads garbage, it never faults). */
void *em_meta_alloc(size_t bytes);
/* bytes: as asked for. */
void em_meta_free(void *p, size_t bytes);
/* The same for so many pages whose content is the program's, on its way in or out; counted by itself as well. */
void *em_meta_alloc_frames(uint32_t pages);
void em_meta_free_frames(void *p, uint32_t pages);
/* Addresses of more than 16 KiB for mappings of the caller's, never given back and not counted as memory. */
void *em_meta_alloc_addresses(size_t bytes);
/* More than half of the range would be left for what cannot be done without. */
bool em_meta_has_spare(size_t bytes);
/* Around fork: no other thread is inside the allocator. */
void em_meta_lock(void);
void em_meta_unlock(void);
/* Bytes held from the kernel now. */
uint64_t em_meta_bytes(void);
/* Of these, in frames. */
uint64_t em_meta_frame_bytes(void);

#endif
