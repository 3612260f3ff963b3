/* SPDX-License-Identifier: MIT */
/* Instruction boundaries, branch targets and what may be moved: the use of Zydis. */
#ifndef EM_INTERCEPT_DECODE_H
#define EM_INTERCEPT_DECODE_H

#include "plan.h"

struct em_insn {
	uint8_t len;
	uint8_t disp;		/* offset of a RIP-relative displacement, to be adjusted; or 0 */
	bool movable;		/* means the same at another address, disp adjusted */
	bool ret;		/* movable, and nothing follows */
	bool padding;		/* nop or int3 */
	bool is_syscall;
	bool result_test;	/* compares rax: not where anything but the call leads to */
};

/* Decodes the instruction at offset off of the segment in detail. */
bool em_decode_insn(const struct em_text *text, size_t off, struct em_insn *insn);

/*
 * Decodes [from, to) linearly and, if that comes out even at `to` and every byte made
 * sense, marks starts, targets and the range as decoded.  *indirect: there is a jump
 * through a register or table, whose targets are unknown.
 */
bool em_decode_span(struct em_text *text, size_t from, size_t to, bool *indirect);

/*
 * Marks what is reached in the decoded span from its first byte: by going on, by direct
 * branches and by tables of jumps; data in the text is not.  False: a branch leads between two
 * instructions.
 */
bool em_decode_reach(struct em_text *text, const struct em_elf *elf, size_t from, size_t to);

/* Marks what any byte of [from, to) could mean as a branch with an 8-bit or a 32-bit distance. */
void em_decode_guess_short(struct em_text *text, size_t from, size_t to);
void em_decode_guess_long(struct em_text *to, const struct em_text *from);

#endif
