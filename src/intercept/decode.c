/* SPDX-License-Identifier: MIT */
#include "decode.h"

#include <Zydis/Zydis.h>

#define ONES 0x0101010101010101ull

static bool decode(const struct em_text *text, size_t off, ZydisDecoder *decoder,
		   ZydisDecoderContext *ctx, ZydisDecodedInstruction *insn)
{
	return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(decoder, ctx, text->code + off,
							  text->bytes - off, insn));
}

static void decoder_init(ZydisDecoder *decoder)
{
	ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

static void mark_target(struct em_text *text, size_t after, int64_t distance)
{
	uint64_t off = after + distance; /* wraps below 0, and fails the test */

	if (off < text->bytes)
		em_bit_set(text->target, off);
}

static int64_t branch_distance(const uint8_t *end, unsigned size)
{
	int32_t d32;

	if (size == 8)
		return (int8_t)end[-1];
	d32 = (int32_t)(end[-4] | end[-3] << 8 | end[-2] << 16 | (uint32_t)end[-1] << 24);
	return d32;
}

bool em_decode_span(struct em_text *text, size_t from, size_t to, bool *indirect)
{
	ZydisDecodedInstruction insn;
	ZydisDecoder decoder;
	size_t off, i;

	*indirect = false;
	decoder_init(&decoder);
	for (off = from; off < to; off += insn.length) {
		if (!decode(text, off, &decoder, NULL, &insn))
			break;
		em_bit_set(text->start, off);
		if (insn.raw.imm[0].is_relative)
			mark_target(text, off + insn.length,
				    branch_distance(text->code + off + insn.length,
						    insn.raw.imm[0].size));
		else if (insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR)
			*indirect = true;
	}
	for (i = from; i < to; i++) {
		if (off == to)
			em_bit_set(text->decoded, i);
		else
			em_bit_clear(text->start, i);
	}
	return off == to;
}

static bool rip_relative(const ZydisDecodedInstruction *insn)
{
	return (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM) && insn->raw.modrm.mod == 0 &&
	       insn->raw.modrm.rm == 5 && insn->raw.disp.size == 32 && insn->address_width == 64;
}

static bool ends_here(const ZydisDecodedInstruction *insn)
{
	return insn->meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
	       insn->meta.category == ZYDIS_CATEGORY_RET || insn->mnemonic == ZYDIS_MNEMONIC_UD2 ||
	       insn->mnemonic == ZYDIS_MNEMONIC_HLT || insn->mnemonic == ZYDIS_MNEMONIC_INT3;
}

/* A jump over the lock prefix, where there is one thread only, is as good as one to it. */
static size_t without_prefix(const struct em_text *text, size_t off)
{
	return off && text->code[off - 1] == 0xf0 && !em_bit(text->start, off) ? off - 1 : off;
}

struct reach {
	struct em_text *text;
	const struct em_elf *elf;
	size_t from, to;
	bool again; /* something was found behind us */
};

static bool reach_at(struct reach *r, size_t off, size_t target)
{
	if (target < r->from || target >= r->to)
		return true;
	target = without_prefix(r->text, target);
	if (!em_bit(r->text->start, target))
		return false;
	r->again |= target < off && !em_bit(r->text->reached, target);
	em_bit_set(r->text->reached, target);
	return true;
}

/*
 * Switch statements: 32-bit distances from the table itself, whose address is taken here.
 * The table ends where an entry does not lead to an instruction of this function; one place
 * outside is allowed, the default's.
 */
static void reach_by_table(struct reach *r, size_t off, uint64_t table)
{
	const struct em_text *text = r->text;
	uint64_t at = table;
	const uint8_t *entry;
	size_t outside = 0;

	if (table % 4 || table - text->vaddr < text->bytes)
		return;
	while ((entry = em_elf_at(r->elf, at, 4)) != NULL) {
		size_t target = table + branch_distance(entry + 4, 32) - text->vaddr;

		at += 4;
		if (target < r->from || target >= r->to) {
			if (target >= text->bytes || (outside && target != outside))
				return;
			outside = target;
			continue;
		}
		if (!em_bit(text->start, target))
			return;
		reach_at(r, off, target);
	}
}

static bool reach_from(struct reach *r, size_t off, const ZydisDecodedInstruction *insn)
{
	const struct em_text *text = r->text;
	size_t end = off + insn->length;

	if (!ends_here(insn) && end < r->to)
		em_bit_set(r->text->reached, end);
	if (insn->mnemonic == ZYDIS_MNEMONIC_LEA && rip_relative(insn))
		reach_by_table(r, off, text->vaddr + end + insn->raw.disp.value);
	return !insn->raw.imm[0].is_relative ||
	       reach_at(r, off, end + branch_distance(text->code + end, insn->raw.imm[0].size));
}

bool em_decode_reach(struct em_text *text, const struct em_elf *elf, size_t from, size_t to)
{
	struct reach r = { .text = text, .elf = elf, .from = from, .to = to, .again = true };
	ZydisDecodedInstruction insn;
	ZydisDecoder decoder;

	decoder_init(&decoder);
	em_bit_set(text->reached, from);
	while (r.again) {
		r.again = false;
		for (size_t off = from; off < to; off += insn.length) {
			if (!decode(text, off, &decoder, NULL, &insn))
				return false;
			if (em_bit(text->reached, off) && !reach_from(&r, off, &insn))
				return false;
		}
	}
	return true;
}

/* Categories whose effect does not depend on where they stand, operands aside. */
static bool category_moves(const ZydisDecodedInstruction *insn)
{
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_UINTR:
		return false;
	case ZYDIS_CATEGORY_RET:
		return insn->mnemonic == ZYDIS_MNEMONIC_RET;
	default:
		return !(insn->attributes & ZYDIS_ATTRIB_IS_RELATIVE) || rip_relative(insn);
	}
}

/* Unwind information changes where the stack pointer does: such an instruction stays. */
static bool writes_rsp(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
	for (unsigned i = 0; i < insn->operand_count; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
						     ops[i].reg.value) == ZYDIS_REGISTER_RSP)
			return true;
	return false;
}

static bool is_rax(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       (op->reg.value == ZYDIS_REGISTER_RAX || op->reg.value == ZYDIS_REGISTER_EAX);
}

bool em_decode_insn(const struct em_text *text, size_t off, struct em_insn *insn)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zi;
	ZydisDecoderContext ctx;
	ZydisDecoder decoder;

	decoder_init(&decoder);
	if (!decode(text, off, &decoder, &ctx, &zi) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &ctx, &zi, ops, zi.operand_count)))
		return false;
	insn->len = zi.length;
	insn->disp = rip_relative(&zi) ? zi.raw.disp.offset : 0;
	insn->ret = zi.meta.category == ZYDIS_CATEGORY_RET;
	insn->movable = category_moves(&zi) && (insn->ret || !writes_rsp(&zi, ops));
	insn->padding = zi.mnemonic == ZYDIS_MNEMONIC_NOP || zi.mnemonic == ZYDIS_MNEMONIC_INT3;
	insn->is_syscall = zi.mnemonic == ZYDIS_MNEMONIC_SYSCALL;
	insn->result_test = (zi.mnemonic == ZYDIS_MNEMONIC_CMP ||
			     zi.mnemonic == ZYDIS_MNEMONIC_TEST) && is_rax(&ops[0]);
	return true;
}

void em_decode_guess_short(struct em_text *text, size_t from, size_t to)
{
	for (size_t i = from; i < to && i + 2 <= text->bytes; i++) {
		uint8_t op = text->code[i];

		if (op == 0xeb || (op & 0xf0) == 0x70 || (op & 0xfc) == 0xe0)
			mark_target(text, i + 2, (int8_t)text->code[i + 1]);
	}
}

static uint64_t load64(const uint8_t *p)
{
	uint64_t w;

	__builtin_memcpy(&w, p, 8);
	return w;
}

/* 0x80 in each byte that is zero in x. */
static uint64_t zero_bytes(uint64_t x)
{
	const uint64_t low7 = ONES * 0x7f;

	return ~(((x & low7) + low7) | x | low7);
}

static void guess_at(struct em_text *to, const struct em_text *from, size_t off)
{
	size_t end = off + (from->code[off] == 0x0f ? 6 : 5);

	if (end <= from->bytes)
		mark_target(to, end + from->vaddr - to->vaddr,
			    branch_distance(from->code + end, 32));
}

/*
 * Which bytes of the whole object could be the opcode of call, jmp or jcc rel32.  Most of
 * the text is never decoded; a false hit in a few thousand window bytes is unlikely and
 * costs one site another form of patch, a missed branch would cost the program.
 */
void em_decode_guess_long(struct em_text *to, const struct em_text *from)
{
	const uint8_t *p = from->code;
	size_t off = 0;

	/* Eight opcodes a step: this reads every byte of libc at every start of a program. */
	for (; off + 9 <= from->bytes; off += 8) {
		uint64_t op = load64(p + off), next = load64(p + off + 1);
		uint64_t near = zero_bytes((op & ONES * 0xfe) ^ ONES * 0xe8);
		uint64_t jcc = zero_bytes((op ^ ONES * 0x0f) | ((next & ONES * 0xf0) ^ ONES * 0x80));

		for (uint64_t hits = near | jcc; hits; hits &= hits - 1)
			guess_at(to, from, off + __builtin_ctzll(hits) / 8);
	}
	for (; off + 5 <= from->bytes; off++)
		if ((p[off] & 0xfe) == 0xe8 || (p[off] == 0x0f && (p[off + 1] & 0xf0) == 0x80))
			guess_at(to, from, off);
}
