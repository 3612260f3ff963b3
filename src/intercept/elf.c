/* SPDX-License-Identifier: MIT */
/*
 * Program headers, the unwinder's function table, section headers.
 *
 * Everything read here was written by a linker we do not know: each access is
 * checked against the object's bounds and an inconsistency means "unknown".
 */
#include "elf.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "../core/sys.h"

/* Pointer encodings of the unwind tables (LSB, "DWARF Extensions"). */
#define EH_PE_udata4 0x03
#define EH_PE_sdata4 0x0b
#define EH_PE_pcrel 0x10
#define EH_PE_datarel 0x30
#define EH_PE_omit 0xff

static bool same_bytes(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	while (n && *x == *y)
		x++, y++, n--;
	return n == 0;
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

const void *em_elf_at(const struct em_elf *elf, uint64_t vaddr, size_t len)
{
	unsigned i;

	for (i = 0; i < elf->phnum; i++) {
		const Elf64_Phdr *ph = &elf->phdr[i];
		uint64_t skip = vaddr - ph->p_vaddr;

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_R) || vaddr < ph->p_vaddr ||
		    skip > ph->p_filesz || len > ph->p_filesz - skip)
			continue;
		if (elf->loaded)
			return (const uint8_t *)(elf->bias + vaddr);
		if (ph->p_offset > elf->file_bytes ||
		    ph->p_filesz > elf->file_bytes - ph->p_offset)
			return NULL;
		return elf->file + ph->p_offset + skip;
	}
	return NULL;
}

/* Finds .eh_frame_hdr's search table; without it every function is unknown. */
static void find_fde_table(struct em_elf *elf)
{
	unsigned i;

	for (i = 0; i < elf->phnum; i++) {
		const Elf64_Phdr *ph = &elf->phdr[i];
		const uint8_t *hdr;

		if (ph->p_type != PT_GNU_EH_FRAME || ph->p_filesz < 12)
			continue;
		hdr = em_elf_at(elf, ph->p_vaddr, ph->p_filesz);
		if (!hdr || hdr[0] != 1 || (hdr[1] & 0x0f) != EH_PE_sdata4 ||
		    hdr[2] != EH_PE_udata4 || hdr[3] != (EH_PE_datarel | EH_PE_sdata4))
			return;
		elf->fdes = get32(hdr + 8);
		if (elf->fdes > (ph->p_filesz - 12) / 8)
			elf->fdes = 0;
		elf->hdr = ph->p_vaddr;
		elf->fde_table = (const int32_t *)(hdr + 12);
		return;
	}
}

void em_elf_from_loaded(struct em_elf *elf, const char *path, uint64_t bias,
			const Elf64_Phdr *phdr, unsigned phnum)
{
	*elf = (struct em_elf){
		.path = path, .phdr = phdr, .phnum = phnum, .loaded = true, .bias = bias
	};
	find_fde_table(elf);
}

static int map_file(struct em_elf *elf, int fd)
{
	struct stat st;
	long ret;

	ret = em_syscall2(SYS_fstat, fd, &st);
	if (ret)
		return ret;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(Elf64_Ehdr))
		return -ENOEXEC;
	ret = em_sys_mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (em_is_err(ret))
		return ret;
	elf->file = (const uint8_t *)ret;
	elf->file_bytes = st.st_size;
	return 0;
}

static const Elf64_Ehdr *file_header(const struct em_elf *elf)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)elf->file;

	if (!same_bytes(eh->e_ident, ELFMAG, SELFMAG) || eh->e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh->e_machine != EM_X86_64 || eh->e_phentsize != sizeof(Elf64_Phdr) ||
	    eh->e_phoff % 8 || eh->e_phoff > elf->file_bytes ||
	    eh->e_phnum > (elf->file_bytes - eh->e_phoff) / sizeof(Elf64_Phdr))
		return NULL;
	return eh;
}

int em_elf_from_fd(struct em_elf *elf, const char *path, int fd)
{
	const Elf64_Ehdr *eh;
	int ret;

	*elf = (struct em_elf){ .path = path, .file_tried = true };
	ret = map_file(elf, fd);
	if (ret)
		return ret;
	eh = file_header(elf);
	if (!eh) {
		em_elf_close(elf);
		return -ENOEXEC;
	}
	elf->phdr = (const Elf64_Phdr *)(elf->file + eh->e_phoff);
	elf->phnum = eh->e_phnum;
	find_fde_table(elf);
	return 0;
}

void em_elf_close(struct em_elf *elf)
{
	if (elf->file)
		em_sys_munmap((void *)elf->file, elf->file_bytes);
	elf->file = NULL;
}

/* Start of the i-th function in the table. */
static uint64_t fde_start(const struct em_elf *elf, size_t i)
{
	return elf->hdr + (int64_t)elf->fde_table[2 * i];
}

struct cie {
	uint8_t pc_enc, lsda_enc;
	bool signal_frame;
};

/*
 * Reads from a CIE's augmentation how the FDE's addresses are stored; false if it is a
 * form that no linker for x86-64 is known to write.
 */
static bool parse_cie(const uint8_t *cie, const uint8_t *end, struct cie *out)
{
	const uint8_t *p = cie + 9, *aug = p;

	*out = (struct cie){ .lsda_enc = EH_PE_omit };
	while (p < end && *p)
		p++;
	if (*aug != 'z' || p + 4 >= end)
		return *aug == 0;
	p++;
	/* code and data alignment, return column, length of what follows: LEB128s */
	for (int skip = 0; skip < 4; skip++) {
		while (p < end && (*p & 0x80))
			p++;
		p++;
	}
	for (aug++; *aug && p < end; aug++) {
		if (*aug == 'R')
			out->pc_enc = *p++;
		else if (*aug == 'L')
			out->lsda_enc = *p++;
		else if (*aug == 'P')
			p += 1 + ((*p & 0x07) == EH_PE_udata4 ? 4 : 8);
		else if (*aug == 'S')
			out->signal_frame = true;
		else if (*aug != 'B')
			return false;
	}
	return true;
}

static const uint8_t *record(const struct em_elf *elf, uint64_t vaddr, size_t *len)
{
	const uint8_t *p = em_elf_at(elf, vaddr, 4);

	if (!p || get32(p) == 0xffffffff)
		return NULL;
	*len = 4 + (size_t)get32(p);
	return *len < 20 ? NULL : em_elf_at(elf, vaddr, *len);
}

/* The length of the i-th function, 0 if its FDE cannot be read. */
static uint64_t fde_range(const struct em_elf *elf, size_t i, struct em_elf_func *func)
{
	uint64_t at = elf->hdr + (int64_t)elf->fde_table[2 * i + 1], range;
	const uint8_t *fde, *bytes, *p;
	size_t fde_len, cie_len;
	uint64_t word = 0;
	struct cie cie;

	fde = record(elf, at, &fde_len);
	if (!fde)
		return 0;
	bytes = record(elf, at + 4 - get32(fde + 4), &cie_len);
	if (!bytes || !parse_cie(bytes, bytes + cie_len, &cie))
		return 0;
	if ((cie.pc_enc & 0x07) == EH_PE_udata4) {
		range = get32(fde + 12);
		p = fde + 16;
	} else {
		if (fde_len < 25)
			return 0;
		range = get32(fde + 16) | (uint64_t)get32(fde + 20) << 32;
		p = fde + 24;
	}
	p++; /* augmentation length, a small LEB128 */
	if (cie.lsda_enc != EH_PE_omit)
		for (int n = (cie.lsda_enc & 0x07) == EH_PE_udata4 ? 4 : 8; n && p < fde + fde_len; n--)
			word |= *p++;
	func->lsda = word != 0;
	func->signal_frame = cie.signal_frame;
	return range;
}

bool em_elf_func_at(const struct em_elf *elf, uint64_t vaddr, uint64_t lo, uint64_t hi,
		    struct em_elf_func *func)
{
	size_t a = 0, b = elf->fdes;
	uint64_t range;

	*func = (struct em_elf_func){ .lo = lo, .hi = hi };
	while (a < b) { /* afterwards a = number of functions that start at or below vaddr */
		size_t mid = a + (b - a) / 2;

		if (fde_start(elf, mid) <= vaddr)
			a = mid + 1;
		else
			b = mid;
	}
	if (a < elf->fdes && fde_start(elf, a) < hi)
		func->hi = fde_start(elf, a);
	if (a == 0 || fde_start(elf, a - 1) < lo)
		return elf->fdes != 0;
	func->lo = fde_start(elf, a - 1);
	range = fde_range(elf, a - 1, func);
	if (range == 0 || range > func->hi - func->lo) {
		/* Unreadable or overlapping: a sure start is left, the end is the next one. */
		func->has_fde = true;
		func->lsda = true;
		return true;
	}
	func->has_fde = vaddr - func->lo < range;
	if (func->has_fde)
		func->hi = func->lo + range;
	else
		func->lo += range;
	return true;
}

/* Maps the file of a loaded object, once; only its bytes tell whether it is still the same. */
static bool have_file(struct em_elf *elf)
{
	const Elf64_Ehdr *eh;
	long fd;

	if (!elf->file_tried) {
		elf->file_tried = true;
		fd = em_syscall4(SYS_openat, AT_FDCWD, elf->path, O_RDONLY | O_CLOEXEC, 0);
		if (em_is_err(fd))
			return false;
		if (map_file(elf, fd))
			elf->file = NULL;
		em_sys_close(fd);
	}
	if (!elf->file)
		return false;
	eh = file_header(elf);
	return eh && eh->e_phnum == elf->phnum &&
	       same_bytes(elf->file + eh->e_phoff, elf->phdr, elf->phnum * sizeof(Elf64_Phdr));
}

/* True if [lo, hi) of the section holds in memory what it holds in the file. */
static bool same_as_file(const struct em_elf *elf, const Elf64_Shdr *sh, uint64_t lo, uint64_t hi)
{
	uint64_t off = sh->sh_offset + (lo - sh->sh_addr);
	const void *bytes = em_elf_at(elf, lo, hi - lo);

	return bytes && off <= elf->file_bytes && hi - lo <= elf->file_bytes - off &&
	       same_bytes(bytes, elf->file + off, hi - lo);
}

enum em_elf_where em_elf_cut_to_section(struct em_elf *elf, uint64_t vaddr, uint64_t *lo,
					uint64_t *hi)
{
	const Elf64_Ehdr *eh;
	const Elf64_Shdr *sh;
	unsigned i;

	if (!have_file(elf))
		return EM_ELF_UNKNOWN;
	eh = (const Elf64_Ehdr *)elf->file;
	if (!eh->e_shnum || eh->e_shentsize != sizeof(*sh) || eh->e_shoff % 8 ||
	    eh->e_shoff > elf->file_bytes ||
	    eh->e_shnum > (elf->file_bytes - eh->e_shoff) / sizeof(*sh))
		return EM_ELF_UNKNOWN;
	sh = (const Elf64_Shdr *)(elf->file + eh->e_shoff);
	for (i = 0; i < eh->e_shnum; i++, sh++) {
		if (sh->sh_type != SHT_PROGBITS || !(sh->sh_flags & SHF_EXECINSTR) ||
		    vaddr < sh->sh_addr || vaddr - sh->sh_addr >= sh->sh_size)
			continue;
		if (sh->sh_addr > *lo)
			*lo = sh->sh_addr;
		if (sh->sh_addr + sh->sh_size < *hi)
			*hi = sh->sh_addr + sh->sh_size;
		return same_as_file(elf, sh, *lo, *hi) ? EM_ELF_CODE : EM_ELF_UNKNOWN;
	}
	return EM_ELF_DATA;
}
