/* SPDX-License-Identifier: MIT */
/*
 * Plans for the shared objects and executables of this machine, held against independent
 * disassemblies: a linear sweep of each section, and for the smaller objects objdump's.
 * Nothing is written.
 *
 * Usage: test_windows [-o] [-v] FILE|DIRECTORY...   (-o: objdump for all, -v: unpatched sites)
 */
#define _GNU_SOURCE
#include <Zydis/Zydis.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../src/intercept/plan.h"

#define OBJDUMP_MAX (4 << 20)

static bool verbose, all_objdump;
static unsigned objects, sites, windows, relays, left, wrong, by_objdump;

struct view {
	uint64_t lo, hi;
	uint8_t *start, *target, *sys;
};

static void note(const char *path, const struct em_site *site, const char *what)
{
	printf("%s: site %#lx window %#lx: %s\n", path, (unsigned long)site->vaddr,
	       (unsigned long)site->win, what);
}

static bool has(const struct view *v, const uint8_t *map, uint64_t addr)
{
	return addr >= v->lo && addr < v->hi && map[addr - v->lo];
}

/* A window starts and ends between instructions, and nobody jumps into what is lost. */
static void check_window(const char *path, const struct view *v, const struct em_site *site)
{
	uint64_t end = site->vaddr + 2 + site->post + site->skip;
	uint64_t to = site->win + EM_JMP_BYTES;
	bool bad = false;

	if (!has(v, v->start, site->win) || !has(v, v->sys, site->vaddr))
		note(path, site, "does not start at an instruction"), bad = true;
	if (end < v->hi && site->win + EM_JMP_BYTES > site->vaddr && !has(v, v->start, end))
		note(path, site, "does not end at one"), bad = true;
	if (end < to)
		note(path, site, "is too short"), bad = true;
	if (site->vaddr >= to)
		to = site->vaddr + 1;
	for (uint64_t p = site->win + 1; p < to; p++)
		if (has(v, v->target, p))
			note(path, site, "is jumped into"), bad = true;
	wrong += bad;
}

static void check_relay(const char *path, const struct view *v, const struct em_site *site)
{
	int64_t distance = site->relay - (site->vaddr + 2);
	bool bad = !has(v, v->sys, site->vaddr) || distance < -128 || distance > 127;

	for (uint64_t p = site->relay; p < site->relay + EM_JMP_BYTES; p++)
		bad |= has(v, v->target, p);
	if (bad)
		note(path, site, "bad relay");
	wrong += bad;
}

static void check_plan(const char *path, const struct view *v, const struct em_plan *plan,
		       const struct em_elf *elf)
{
	(void)elf;
	for (unsigned i = 0; i < plan->sites; i++) {
		const struct em_site *site = &plan->site[i];

		if (site->vaddr < v->lo || site->vaddr >= v->hi)
			continue;
		if (site->kind == EM_SITE_WINDOW)
			check_window(path, v, site);
		else if (site->kind == EM_SITE_RELAY)
			check_relay(path, v, site);
	}
}

static void view_open(struct view *v, uint64_t lo, uint64_t hi)
{
	v->lo = lo;
	v->hi = hi;
	v->start = calloc(3, hi - lo);
	if (!v->start)
		abort();
	v->target = v->start + (hi - lo);
	v->sys = v->target + (hi - lo);
}

static void sweep(struct view *v, const uint8_t *code)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT_VISIBLE];
	ZydisDecodedInstruction insn;
	ZydisDecoderContext ctx;
	ZydisDecoder decoder;
	uint64_t to, n = v->hi - v->lo;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (uint64_t off = 0; off < n; off += insn.length) {
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &ctx, code + off,
								n - off, &insn))) {
			insn.length = 1;
			continue;
		}
		v->start[off] = 1;
		v->sys[off] = insn.mnemonic == ZYDIS_MNEMONIC_SYSCALL;
		if (!(insn.attributes & ZYDIS_ATTRIB_IS_RELATIVE) || !insn.operand_count_visible)
			continue;
		ZydisDecoderDecodeOperands(&decoder, &ctx, &insn, ops,
					   insn.operand_count_visible);
		if (ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && ops[0].imm.is_relative &&
		    ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&insn, &ops[0], v->lo + off, &to)) &&
		    to >= v->lo && to < v->hi)
			v->target[to - v->lo] = 1;
	}
}

static void check_by_sweep(const char *path, const struct em_elf *elf, const struct em_plan *plan)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)elf->file;
	const Elf64_Shdr *sh = (const Elf64_Shdr *)(elf->file + eh->e_shoff);
	struct view v;

	for (unsigned i = 0; i < eh->e_shnum; i++, sh++) {
		if (sh->sh_type != SHT_PROGBITS || !(sh->sh_flags & SHF_EXECINSTR))
			continue;
		view_open(&v, sh->sh_addr, sh->sh_addr + sh->sh_size);
		sweep(&v, elf->file + sh->sh_offset);
		check_plan(path, &v, plan, elf);
		free(v.start);
	}
}

static void parse_objdump_line(struct view *v, const char *line)
{
	unsigned long at, to;
	char name[32];

	if (sscanf(line, " %lx:", &at) != 1 || line[0] != ' ' || at < v->lo || at >= v->hi)
		return;
	line = strchr(line, '\t');
	if (!line)
		return;
	v->start[at - v->lo] = 1;
	v->sys[at - v->lo] = !strncmp(line + 1, "syscall", 7);
	if (strstr(line, "bnd ") == line + 1)
		line += 4;
	if (sscanf(line + 1, "%31s %lx", name, &to) == 2 &&
	    (name[0] == 'j' || !strncmp(name, "call", 4) || !strncmp(name, "loop", 4)) &&
	    to >= v->lo && to < v->hi)
		v->target[to - v->lo] = 1;
}

static void check_by_objdump(const char *path, const struct em_elf *elf,
			     const struct em_plan *plan)
{
	char command[4200], *line = NULL;
	struct view v;
	size_t room = 0;
	FILE *pipe;

	snprintf(command, sizeof(command), "objdump -dw --no-show-raw-insn '%s' 2>&1", path);
	view_open(&v, plan->text[0].vaddr,
		  plan->text[plan->texts - 1].vaddr + plan->text[plan->texts - 1].bytes);
	pipe = popen(command, "r");
	while (pipe && getline(&line, &room, pipe) > 0)
		parse_objdump_line(&v, line);
	if (pipe && pclose(pipe) == 0) {
		check_plan(path, &v, plan, elf);
		by_objdump++;
	}
	free(line);
	free(v.start);
}

static void count(const char *path, const struct em_plan *plan, double ms)
{
	unsigned n[3] = { 0, 0, 0 };

	for (unsigned i = 0; i < plan->sites; i++) {
		n[plan->site[i].kind]++;
		if (verbose && plan->site[i].kind == EM_SITE_LEFT)
			note(path, &plan->site[i], plan->site[i].why);
	}
	if (verbose)
		printf("%s: %u sites, %u windows, %u relays, %u left, %.2f ms\n", path, plan->sites,
		       n[EM_SITE_WINDOW], n[EM_SITE_RELAY], n[EM_SITE_LEFT], ms);
	sites += plan->sites;
	windows += n[EM_SITE_WINDOW];
	relays += n[EM_SITE_RELAY];
	left += n[EM_SITE_LEFT];
}

static bool ends_in(const char *path, const char *end)
{
	size_t n = strlen(path), m = strlen(end);

	return n >= m && !strcmp(path + n - m, end);
}

static void check_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct timespec a, b;
	struct em_plan plan;
	struct em_elf elf;

	if (fd < 0)
		return;
	if (em_elf_from_fd(&elf, path, fd) == 0) {
		clock_gettime(CLOCK_MONOTONIC, &a);
		if (em_plan_object(&plan, &elf, 0, UINT64_MAX))
			printf("%s: cannot plan\n", path), wrong++;
		clock_gettime(CLOCK_MONOTONIC, &b);
		objects++;
		if (plan.sites) {
			count(path, &plan,
			      (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6);
			check_by_sweep(path, &elf, &plan);
			if (all_objdump || elf.file_bytes < OBJDUMP_MAX)
				check_by_objdump(path, &elf, &plan);
		}
		em_plan_free(&plan);
		em_elf_close(&elf);
	}
	close(fd);
}

/* Everything below, once: links lead to what is found anyway.  Objects of a build are not the machine's. */
static int check_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_F && st->st_size > 64 && (st->st_mode & S_IRUSR) && !ends_in(path, ".o") &&
	    !ends_in(path, ".ko"))
		check_file(path);
	return 0;
}

int main(int argc, char **argv)
{
	struct stat st;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-o"))
			all_objdump = true;
		else if (!strcmp(argv[i], "-v"))
			verbose = true;
		else if (stat(argv[i], &st))
			printf("%s: not here\n", argv[i]);
		else if (S_ISDIR(st.st_mode))
			nftw(argv[i], check_entry, 32, FTW_PHYS);
		else
			check_file(argv[i]);
	}
	printf("%u objects, %u sites: %u windows, %u relays, %u left; %u wrong (%u objects also "
	       "against objdump)\n", objects, sites, windows, relays, left, wrong, by_objdump);
	if (!sites) {
		puts("skipped: no object with system calls found");
		return 77;
	}
	return wrong != 0;
}
