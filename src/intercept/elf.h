/* SPDX-License-Identifier: MIT */
/*
 * Views of ELF objects for the patcher: loaded ones (through their program
 * headers) and files (mapped read-only).  No libc in here: the dynamic linker
 * may be in the middle of a dlopen.  All addresses are link-time virtual
 * addresses unless a name says otherwise.
 */
#ifndef EM_INTERCEPT_ELF_H
#define EM_INTERCEPT_ELF_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct em_elf {
	const char *path;	/* to open for section headers and to name in the log */
	const Elf64_Phdr *phdr;
	unsigned phnum;
	bool loaded;		/* bytes come from memory at bias + vaddr, else from file */
	uint64_t bias;
	const uint8_t *file;	/* mapped file or NULL */
	size_t file_bytes;
	bool file_tried;
	/* .eh_frame_hdr's sorted table of (function start, FDE), relative to hdr */
	uint64_t hdr;
	const int32_t *fde_table;
	size_t fdes;
};

/* What is known about the code around an address. */
struct em_elf_func {
	uint64_t lo, hi;	/* [lo, hi): an FDE's range, or the gap between two of them */
	bool has_fde;
	bool lsda;		/* the unwinder may enter it at landing pads */
	bool signal_frame;	/* a signal's return path; its range begins one byte early */
};

/* An object in memory.  phdr must stay valid. */
void em_elf_from_loaded(struct em_elf *elf, const char *path, uint64_t bias,
			const Elf64_Phdr *phdr, unsigned phnum);
/* A file, of which nothing needs to be loaded.  0 or -errno; bias stays 0. */
int em_elf_from_fd(struct em_elf *elf, const char *path, int fd);
void em_elf_close(struct em_elf *elf);

/* The bytes [vaddr, vaddr + len) or NULL where the object has no such bytes. */
const void *em_elf_at(const struct em_elf *elf, uint64_t vaddr, size_t len);

/* The function or gap around vaddr, cut to [lo, hi).  False: no unwind table. */
bool em_elf_func_at(const struct em_elf *elf, uint64_t vaddr, uint64_t lo, uint64_t hi,
		    struct em_elf_func *func);

enum em_elf_where {
	EM_ELF_UNKNOWN, /* no section headers, or the file is not what is loaded */
	EM_ELF_DATA,	/* in no section of code */
	EM_ELF_CODE
};

/* Cuts [*lo, *hi) to the section of code around vaddr, from the section headers in the file. */
enum em_elf_where em_elf_cut_to_section(struct em_elf *elf, uint64_t vaddr, uint64_t *lo,
					uint64_t *hi);

#endif
