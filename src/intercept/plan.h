/* SPDX-License-Identifier: MIT */
/*
 * What to overwrite at each system-call site of one object: pure analysis, nothing is
 * written.  No libc but what the decoder library uses, no allocation but raw mappings.
 */
#ifndef EM_INTERCEPT_PLAN_H
#define EM_INTERCEPT_PLAN_H

#include "elf.h"

/* One executable segment and what decoding has found out about its bytes (one bit each). */
struct em_text {
	const uint8_t *code;
	uint64_t vaddr;
	size_t bytes;
	uint64_t *start;	/* an instruction starts here */
	uint64_t *decoded;	/* inside a function decoded without doubt */
	uint64_t *target;	/* a direct branch may go here */
	uint64_t *used;		/* belongs to a window or a relay already */
	uint64_t *reached;	/* control comes here from the beginning of the function */
	size_t map_bytes;
};

enum em_site_kind {
	EM_SITE_LEFT = 0,	/* stays as it is, see why */
	EM_SITE_WINDOW,		/* `jmp rel32` over whole instructions */
	EM_SITE_RELAY		/* `jmp rel8` over the syscall to a `jmp rel32` in padding */
};

/*
 * Window:  win <= vaddr < vaddr + 2 <= win + pre + 2 + post
 *          [pre bytes of instructions][syscall][post bytes of instructions][skip bytes of
 *          padding behind a ret]
 * The first five bytes of it become the jump.  Whole instructions behind those stay, in
 * particular the syscall where pre >= 5: a thread that is just returning from the kernel,
 * or restarts the call, finds what it left.
 */
struct em_site {
	uint64_t vaddr;		/* of the syscall instruction */
	uint64_t win;
	uint64_t relay;		/* address of the padding, EM_SITE_RELAY */
	const char *why;	/* EM_SITE_LEFT */
	uint8_t kind;
	uint8_t pre, post, skip;
	/* One RIP-relative displacement to adjust, and its instruction's end: offsets into the
	   moved bytes, that is the window without the syscall.  0: none. */
	uint8_t fix_at, fix_end;
	bool returns;		/* the relocated instructions end in a ret */
	bool harmless;		/* left as it is, but it passes no pointer: rt_sigreturn */
	bool opaque;		/* its function has entries that no direct branch shows */
	uint64_t func_lo, func_hi;
	uint64_t slot;		/* address of its trampoline, once that is written */
};

struct em_plan {
	struct em_text *text;
	unsigned texts;
	struct em_site *site;
	unsigned sites;		/* syscall instructions found */
	size_t site_bytes, text_bytes;
};

/* Jump length, and the longest sum of pre and post that a trampoline has room for. */
#define EM_JMP_BYTES 5
#define EM_MOVE_MAX 36

/*
 * Plans all executable segments that intersect [lo, hi).  0 or -errno; afterwards
 * em_plan_free, whatever the result was.
 */
int em_plan_object(struct em_plan *plan, struct em_elf *elf, uint64_t lo, uint64_t hi);
void em_plan_free(struct em_plan *plan);

/* True if [p, p + n) contains the bytes of a syscall instruction, aligned or not. */
bool em_plan_has_syscall(const uint8_t *p, size_t n);

static inline bool em_bit(const uint64_t *map, size_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static inline void em_bit_set(uint64_t *map, size_t i)
{
	map[i / 64] |= 1ull << (i % 64);
}

static inline void em_bit_clear(uint64_t *map, size_t i)
{
	map[i / 64] &= ~(1ull << (i % 64));
}

#endif
