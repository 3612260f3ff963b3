/* SPDX-License-Identifier: MIT */
/*
 * The five bytes of a jump in place of a two-byte instruction.
 *
 * In order of preference:
 *   one instruction of five bytes or more before the syscall (`mov $nr,%eax`): no
 *     instruction boundary is lost, the syscall itself stays where it is;
 *   the syscall and what follows (`cmp $-4096,%rax`);
 *   what precedes, the syscall and, if needed, what follows;
 *   a short jump to padding between functions.
 */
#include "choose.h"

#include "decode.h"

#define MAX_BEFORE 3
#define RELAY_REACH 290 /* a short jump, and one more from there */
#define SHORT_REACH 170 /* a short jump to any byte of a window */

struct around {
	struct em_text *text;
	const struct em_elf *elf;
	struct em_site *site;
	size_t off; /* of the syscall in the text */
	struct em_insn before[MAX_BEFORE];
	unsigned befores;
};

/* Reads the movable instructions in front of the site, nearest first. */
static void look_before(struct around *at)
{
	size_t lo = at->site->func_lo - at->text->vaddr, end = at->off, p;

	for (at->befores = 0; at->befores < MAX_BEFORE; at->befores++) {
		struct em_insn *insn = &at->before[at->befores];

		for (p = end; p > lo && !em_bit(at->text->start, --p);)
			;
		if (p == end || !em_bit(at->text->start, p) ||
		    !em_decode_insn(at->text, p, insn) || p + insn->len != end ||
		    !insn->movable || insn->ret)
			return;
		end = p;
	}
}

/* How far padding behind the end of the function may be taken. */
static size_t padding_limit(const struct around *at)
{
	uint64_t end = at->text->vaddr + at->text->bytes, hi = at->site->func_hi;
	struct em_elf_func gap;

	if (hi < end && em_elf_func_at(at->elf, hi, at->text->vaddr, end, &gap) && !gap.has_fde)
		hi = gap.hi;
	return hi - at->text->vaddr;
}

/* In a function with hidden entries, an overwritten boundary must not be able to be one. */
static bool boundary_ok(const struct around *at, size_t win, size_t p, const struct em_insn *insn)
{
	return p == win || p >= win + EM_JMP_BYTES || !at->site->opaque || insn->result_test;
}

/* Notes a displacement of an instruction at offset `at` of the moved bytes; one is enough. */
static bool note_fix(struct em_site *w, size_t at, const struct em_insn *insn)
{
	if (!insn->disp)
		return true;
	if (w->fix_at)
		return false;
	w->fix_at = at + insn->disp;
	w->fix_end = at + insn->len;
	return true;
}

/* Adds instructions behind the syscall until the window has room for a jump. */
static bool extend(const struct around *at, struct em_site *w, size_t win)
{
	size_t end = at->off + 2, limit = w->func_hi - at->text->vaddr;
	struct em_insn insn;

	while (end - win < EM_JMP_BYTES && !w->returns) {
		if (end >= limit || !em_decode_insn(at->text, end, &insn) || !insn.movable ||
		    !boundary_ok(at, win, end, &insn) || w->post + insn.len > EM_MOVE_MAX ||
		    !note_fix(w, w->pre + w->post, &insn))
			return false;
		w->post += insn.len;
		end += insn.len;
		w->returns = insn.ret;
	}
	if (end - win < EM_JMP_BYTES)
		limit = padding_limit(at);
	while (end - win < EM_JMP_BYTES) {
		if (end >= limit || !em_decode_insn(at->text, end, &insn) || !insn.padding ||
		    end + insn.len > limit)
			return false;
		w->skip += insn.len;
		end += insn.len;
	}
	return true;
}

static bool free_of(const uint64_t *map, size_t from, size_t to)
{
	for (; from < to; from++)
		if (em_bit(map, from))
			return false;
	return true;
}

/* Tries the window that begins n instructions before the syscall. */
static bool try_window(const struct around *at, unsigned n)
{
	struct em_site w = *at->site;
	size_t win, end, keep;

	if (n > at->befores)
		return false;
	for (unsigned i = 0; i < n; i++)
		w.pre += at->before[i].len;
	win = at->off - w.pre;
	for (size_t p = win, i = n; i-- > 0; p += at->before[i].len)
		if (!boundary_ok(at, win, p, &at->before[i]) ||
		    !note_fix(&w, p - win, &at->before[i]))
			return false;
	if (w.opaque && w.pre && w.pre < EM_JMP_BYTES)
		return false;
	if (!extend(at, &w, win) || w.pre + w.post > EM_MOVE_MAX)
		return false;
	end = at->off + 2 + w.post + w.skip;
	/* A branch to a syscall that stays in place would pass the hook by. */
	keep = w.pre >= EM_JMP_BYTES ? w.pre + 1u : EM_JMP_BYTES;
	if (!free_of(at->text->target, win + 1, win + keep) ||
	    !free_of(at->text->used, win, end))
		return false;
	for (size_t p = win; p < end; p++)
		em_bit_set(at->text->used, p);
	w.kind = EM_SITE_WINDOW;
	w.win = at->text->vaddr + win;
	*at->site = w;
	return true;
}

/* True if [lo, hi) is nothing but nops and int3. */
static bool all_padding(const struct em_text *text, size_t lo, size_t hi)
{
	struct em_insn insn;

	for (; lo < hi; lo += insn.len)
		if (!em_decode_insn(text, lo, &insn) || !insn.padding)
			return false;
	return lo == hi;
}

/* Looks for a place for the long jump in the padding [lo, hi), within a short jump's reach. */
static bool try_relay_in(const struct around *at, size_t lo, size_t hi)
{
	if (!all_padding(at->text, lo, hi))
		return false;
	for (size_t p = lo; p + EM_JMP_BYTES <= hi; p++) {
		int64_t distance = (int64_t)p - (int64_t)(at->off + 2);

		if (distance < -128 || distance > 127 ||
		    !free_of(at->text->used, p, p + EM_JMP_BYTES) ||
		    !free_of(at->text->target, p, p + EM_JMP_BYTES))
			continue;
		for (size_t i = 0; i < EM_JMP_BYTES; i++)
			em_bit_set(at->text->used, p + i);
		at->site->kind = EM_SITE_RELAY;
		at->site->win = at->site->vaddr;
		at->site->relay = at->text->vaddr + p;
		return true;
	}
	return false;
}

static bool try_relay(const struct around *at)
{
	uint64_t base = at->text->vaddr, end = base + at->text->bytes;
	uint64_t p = at->off > 126 ? at->site->vaddr - 126 : base;
	uint64_t to = end - at->site->vaddr > 130 ? at->site->vaddr + 130 : end;
	struct em_elf_func func;

	if (!free_of(at->text->used, at->off, at->off + 2))
		return false;
	em_plan_cover(at->text, at->elf, at->site->vaddr, RELAY_REACH);
	for (; p < to; p = func.hi) {
		if (!em_elf_func_at(at->elf, p, base, end, &func))
			return false;
		if (!func.has_fde && try_relay_in(at, func.lo - base, func.hi - base))
			return true;
	}
	return false;
}

/* `mov $15, %eax` or `%rax` in front: seen by its bytes, as unwinders see it. */
static bool is_sigreturn(const struct around *at)
{
	const uint8_t *p = at->text->code + at->off;

	return at->off >= 7 && p[-4] == 15 && !p[-3] && !p[-2] && !p[-1] &&
	       (p[-5] == 0xb8 || (p[-5] == 0xc0 && p[-6] == 0xc7));
}

void em_choose(struct em_plan *plan, const struct em_elf *elf, struct em_site *site)
{
	struct around at; /* field by field: a compiler may clear it with memset */

	if (site->why)
		return;
	at.text = em_plan_text_of(plan, site->vaddr);
	at.elf = elf;
	at.site = site;
	at.off = site->vaddr - at.text->vaddr;
	look_before(&at);
	if (is_sigreturn(&at)) {
		site->why = "rt_sigreturn: unwinders know it by its bytes";
		site->harmless = true;
		return;
	}
	em_plan_cover(at.text, elf, site->vaddr, SHORT_REACH);
	if (at.befores && at.before[0].len >= EM_JMP_BYTES && try_window(&at, 1))
		return;
	for (unsigned n = 0; n <= MAX_BEFORE; n++)
		if (try_window(&at, n))
			return;
	if (!try_relay(&at))
		site->why = "no room for a jump";
}
