/* SPDX-License-Identifier: MIT */
/*
 * Finds the syscall instructions of an object and everything around them that may be
 * reached by a branch.  Order: candidates by their bytes; proof by decoding the function;
 * branches of the functions nearby; branches from far away.
 */
#include "plan.h"

#include <errno.h>
#include <sys/mman.h>

#include "../core/sys.h"
#include "choose.h"
#include "decode.h"

/* The next 0f 05 at or behind from, or n: seven pairs a step. */
static size_t find_syscall(const uint8_t *p, size_t n, size_t from)
{
	const uint64_t ones = 0x0101010101010101ull, low7 = 0x7f7f7f7f7f7f7f7full;
	size_t i = from;

	for (; i + 8 <= n; i += 7) {
		uint64_t w, miss, zero;

		__builtin_memcpy(&w, p + i, 8);
		/* a byte of miss is zero where 0f is followed by 05 */
		miss = (w ^ ones * 0x0f) | (w >> 8 ^ ones * 0x05);
		zero = ~(((miss & low7) + low7) | miss | low7) & (~0ull >> 8);
		if (zero)
			return i + __builtin_ctzll(zero) / 8;
	}
	for (; i + 2 <= n; i++)
		if (p[i] == 0x0f && p[i + 1] == 0x05)
			return i;
	return n;
}

bool em_plan_has_syscall(const uint8_t *p, size_t n)
{
	return find_syscall(p, n, 0) != n;
}

static void *scratch(size_t bytes)
{
	long ret = em_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return em_is_err(ret) ? NULL : (void *)ret;
}

static bool text_open(struct em_text *text)
{
	size_t words = text->bytes / 64 + 1;
	uint64_t *map;

	text->map_bytes = 5 * words * 8;
	map = scratch(text->map_bytes);
	if (!map)
		return false;
	text->start = map;
	text->decoded = map + words;
	text->target = map + 2 * words;
	text->used = map + 3 * words;
	text->reached = map + 4 * words;
	return true;
}

/* Lists the executable segments; returns how many pairs 0f 05 those in [lo, hi) hold. */
static size_t find_texts(struct em_plan *plan, const struct em_elf *elf, uint64_t lo, uint64_t hi)
{
	size_t found = 0, off;

	for (unsigned i = 0; i < elf->phnum; i++) {
		const Elf64_Phdr *ph = &elf->phdr[i];
		struct em_text *text = &plan->text[plan->texts];
		size_t before = found;

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X) || !ph->p_filesz)
			continue;
		text->code = em_elf_at(elf, ph->p_vaddr, ph->p_filesz);
		if (!text->code) /* execute-only: unreadable where the processor can enforce it */
			continue;
		text->vaddr = ph->p_vaddr;
		text->bytes = ph->p_filesz;
		plan->texts++;
		if (hi <= text->vaddr || lo >= text->vaddr + text->bytes)
			continue;
		for (off = 0; (off = find_syscall(text->code, text->bytes, off)) != text->bytes;
		     off += 2)
			found++;
		if (found != before && !text_open(text))
			return (size_t)-1;
	}
	return found;
}

/* What encloses a candidate, decoded. */
struct enclosing {
	struct em_elf_func func;
	bool opaque;
	bool data;	 /* not code at all */
	bool decoded;
	const char *why; /* set if what was decoded cannot be trusted */
};

/* A gap between functions that have unwind information belongs to the one before it, which
   may run into it (clone does): where that begins. */
static uint64_t begin_of(const struct em_text *text, const struct em_elf *elf,
			 const struct em_elf_func *func)
{
	struct em_elf_func before;

	if (!func->has_fde && func->lo > text->vaddr &&
	    em_elf_func_at(elf, func->lo - 1, text->vaddr, text->vaddr + text->bytes, &before) &&
	    before.has_fde && before.hi == func->lo)
		return before.lo;
	return func->lo;
}

static void decode_enclosing(struct em_text *text, const struct em_elf *elf, struct enclosing *enc)
{
	uint64_t lo = begin_of(text, elf, &enc->func);
	size_t from = lo - text->vaddr, to = enc->func.hi - text->vaddr;
	bool indirect = false;

	enc->decoded = em_decode_span(text, from, to, &indirect);
	if (!enc->decoded)
		enc->why = "the code around it does not decode";
	else if (!enc->func.has_fde && lo == enc->func.lo)
		enc->why = "no unwind information: it could be data";
	else if (!em_decode_reach(text, elf, from, to))
		enc->why = "a jump leads into the middle of an instruction";
	enc->opaque = indirect || enc->func.lsda;
}

static void enclose(struct em_text *text, struct em_elf *elf, uint64_t vaddr,
		    struct enclosing *enc)
{
	uint64_t end = text->vaddr + text->bytes;
	enum em_elf_where where = EM_ELF_CODE;
	struct em_elf_func *func = &enc->func;

	enc->why = NULL;
	enc->decoded = false;
	em_elf_func_at(elf, vaddr, text->vaddr, end, func);
	if (!func->has_fde)
		where = em_elf_cut_to_section(elf, vaddr, &func->lo, &func->hi);
	enc->data = where == EM_ELF_DATA;
	if (enc->data)
		return;
	if (func->has_fde && func->signal_frame)
		enc->why = "rt_sigreturn: unwinders know it by its bytes";
	else if (where == EM_ELF_UNKNOWN)
		enc->why = "no function bounds: neither unwind information nor section headers";
	else
		decode_enclosing(text, elf, enc);
}

/*
 * Where nothing decodes, most pairs 0f 05 are tables or parts of other instructions.  A
 * system call has its number put into eax, nearly always just before.
 */
static bool looks_like_data(const struct em_text *text, size_t off)
{
	const uint8_t *p = text->code;

	for (size_t i = off > 24 ? off - 24 : 0; i + 5 <= off; i++) {
		if (p[i] == 0xb8 && p[i + 2] < 2 && !p[i + 3] && !p[i + 4])
			return false; /* mov $number, %eax */
		if (p[i] == 0xc7 && p[i + 1] == 0xc0 && p[i + 3] < 2 && !p[i + 4])
			return false; /* mov $number, %rax */
	}
	for (size_t i = off > 24 ? off - 24 : 0; i + 2 <= off; i++)
		if ((p[i] == 0x89 && (p[i + 1] & 0xc7) == 0xc0) ||
		    (p[i] == 0x8b && (p[i + 1] & 0xf8) == 0xc0) ||
		    (p[i] == 0x31 && p[i + 1] == 0xc0))
			return false; /* mov or xor of registers to eax */
	return true;
}

static void judge(const struct em_text *text, const struct enclosing *enc, size_t off,
		  struct em_site *site)
{
	site->vaddr = text->vaddr + off;
	site->why = enc->why;
	site->opaque = enc->opaque;
	site->func_lo = enc->func.lo;
	site->func_hi = enc->func.hi;
	site->harmless = enc->func.signal_frame;
	if (!site->why && !em_bit(text->reached, off))
		site->why = "not seen to be reached: it could be data";
	if (site->why && !enc->decoded && !site->harmless && looks_like_data(text, off)) {
		site->why = "looks like data";
		site->harmless = true;
	}
}

/* Returns the number of sites that may be patched. */
static unsigned find_sites(struct em_plan *plan, struct em_text *text, struct em_elf *elf)
{
	struct enclosing enc = { .func = { .lo = 1 } };
	unsigned sure = 0;
	size_t off = 0;

	for (; (off = find_syscall(text->code, text->bytes, off)) != text->bytes; off += 2) {
		struct em_site *site = &plan->site[plan->sites];
		uint64_t vaddr = text->vaddr + off;

		if (vaddr < enc.func.lo || vaddr >= enc.func.hi)
			enclose(text, elf, vaddr, &enc);
		if (enc.data || (enc.decoded && !em_bit(text->start, off)))
			continue; /* a constant, or the inside of another instruction */
		judge(text, &enc, off, site);
		plan->sites++;
		sure += !site->why;
	}
	return sure;
}

void em_plan_cover(struct em_text *text, const struct em_elf *elf, uint64_t vaddr, size_t reach)
{
	uint64_t end = text->vaddr + text->bytes;
	uint64_t p = vaddr - text->vaddr > reach ? vaddr - reach : text->vaddr;
	uint64_t to = end - vaddr > reach ? vaddr + reach : end;
	struct em_elf_func func;
	bool indirect;

	for (; p < to; p = func.hi) {
		if (em_bit(text->decoded, p - text->vaddr)) {
			func.hi = p + 1;
			continue;
		}
		em_elf_func_at(elf, p, text->vaddr, end, &func);
		if (func.hi > to && !func.has_fde)
			func.hi = to;
		if (!func.has_fde || !em_decode_span(text, func.lo - text->vaddr,
						     func.hi - text->vaddr, &indirect))
			em_decode_guess_short(text, p - text->vaddr, func.hi - text->vaddr);
	}
}

/* Marks every place in the texts with sites that a branch from anywhere may lead to. */
static void find_branches(struct em_plan *plan)
{
	for (unsigned i = 0; i < plan->texts; i++)
		for (unsigned k = 0; plan->text[i].start && k < plan->texts; k++)
			em_decode_guess_long(&plan->text[i], &plan->text[k]);
}

struct em_text *em_plan_text_of(const struct em_plan *plan, uint64_t vaddr)
{
	for (unsigned i = 0; i < plan->texts; i++)
		if (vaddr - plan->text[i].vaddr < plan->text[i].bytes)
			return &plan->text[i];
	return NULL;
}

int em_plan_object(struct em_plan *plan, struct em_elf *elf, uint64_t lo, uint64_t hi)
{
	size_t candidates;
	unsigned sure = 0;

	*plan = (struct em_plan){ .text_bytes = (elf->phnum + 1) * sizeof(struct em_text) };
	plan->text = scratch(plan->text_bytes);
	if (!plan->text)
		return -ENOMEM;
	candidates = find_texts(plan, elf, lo, hi);
	if (candidates == 0)
		return 0;
	if (candidates == (size_t)-1)
		return -ENOMEM;
	plan->site_bytes = candidates * sizeof(struct em_site);
	plan->site = scratch(plan->site_bytes);
	if (!plan->site)
		return -ENOMEM;
	for (unsigned i = 0; i < plan->texts; i++)
		if (plan->text[i].start)
			sure += find_sites(plan, &plan->text[i], elf);
	if (sure)
		find_branches(plan);
	for (unsigned i = 0; i < plan->sites; i++)
		em_choose(plan, elf, &plan->site[i]);
	return 0;
}

void em_plan_free(struct em_plan *plan)
{
	for (unsigned i = 0; plan->text && i < plan->texts; i++)
		if (plan->text[i].start)
			em_sys_munmap(plan->text[i].start, plan->text[i].map_bytes);
	if (plan->text)
		em_sys_munmap(plan->text, plan->text_bytes);
	if (plan->site)
		em_sys_munmap(plan->site, plan->site_bytes);
	plan->text = NULL;
	plan->site = NULL;
}
