/* SPDX-License-Identifier: MIT */
/*
 * Writes the jumps.  In here no libc function may be called: at start libc is what is
 * being written to, at dlopen the dynamic linker is in the middle of its work.
 */
#include "patch.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "../core/sys.h"
#include "hook.h"
#include "tramp.h"

#define PAGE_MASK 4095ul
#define VDSO_PAGES_MAX 8

/*
 * Another thread may be fetching these bytes.  One aligned store is seen whole or
 * not at all; where the jump straddles two words that cannot be had.
 */
static void store_code(uint64_t addr, const uint8_t *bytes, size_t n)
{
	uint64_t *word = (uint64_t *)(addr & ~7ul), value;
	unsigned at = addr & 7;

	if (at + n > 8) {
		volatile uint8_t *p = (volatile uint8_t *)addr;

		while (n--)
			*p++ = *bytes++;
		return;
	}
	value = __atomic_load_n(word, __ATOMIC_RELAXED);
	for (size_t i = 0; i < n; i++) {
		value &= ~(0xffull << 8 * (at + i));
		value |= (uint64_t)bytes[i] << 8 * (at + i);
	}
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void store_jump(uint64_t addr, uint64_t to)
{
	uint32_t distance = to - (addr + EM_JMP_BYTES);
	uint8_t jmp[EM_JMP_BYTES] = { 0xe9, distance, distance >> 8, distance >> 16,
				      distance >> 24 };

	store_code(addr, jmp, sizeof(jmp));
}

static void write_site(const struct em_site *site, uint64_t bias)
{
	uint8_t hop[2] = { 0xeb, site->relay - (site->vaddr + 2) };

	if (site->kind == EM_SITE_WINDOW) {
		store_jump(bias + site->win, site->slot);
		return;
	}
	store_jump(bias + site->relay, site->slot); /* first: the hop leads there */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	store_code(bias + site->vaddr, hop, sizeof(hop));
}

void em_patch_emit(struct em_plan *plan, uint64_t bias)
{
	for (unsigned i = 0; i < plan->sites; i++) {
		struct em_site *site = &plan->site[i];

		for (unsigned k = 0; k < plan->texts && site->kind != EM_SITE_LEFT; k++) {
			const struct em_text *text = &plan->text[k];

			if (site->vaddr - text->vaddr >= text->bytes)
				continue;
			site->slot = em_tramp_emit(site, text->code + (site->win - text->vaddr),
						   bias);
			if (site->slot)
				break;
			site->kind = EM_SITE_LEFT;
			site->why = "no memory for a trampoline within 2 GiB";
		}
	}
}

/* The pages from the first to the last write in the text; false: there is none. */
static bool dirty_range(const struct em_plan *plan, uint64_t bias, const struct em_text *text,
			uint64_t *lo, uint64_t *hi)
{
	*lo = UINT64_MAX;
	*hi = 0;
	for (unsigned i = 0; i < plan->sites; i++) {
		const struct em_site *site = &plan->site[i];
		uint64_t a = site->win, b = site->win + EM_JMP_BYTES;

		if (site->kind == EM_SITE_LEFT || site->vaddr - text->vaddr >= text->bytes)
			continue;
		if (site->kind == EM_SITE_RELAY) {
			a = site->relay < a ? site->relay : a;
			b = site->relay + EM_JMP_BYTES > b ? site->relay + EM_JMP_BYTES : b;
		}
		*lo = a < *lo ? a : *lo;
		*hi = b > *hi ? b : *hi;
	}
	if (*hi == 0)
		return false;
	*lo = (bias + *lo) & ~PAGE_MASK;
	*hi = (bias + *hi + PAGE_MASK) & ~PAGE_MASK;
	return true;
}

static int protect(uint64_t lo, uint64_t hi, int prot)
{
	return em_syscall3(SYS_mprotect, lo, hi - lo, prot);
}

/*
 * Executable all the while, unless the system forbids that (SELinux and the like).  Linux does not
 * split the vDSO's mapping (EINVAL): it has to be named whole, and may be longer than its text.
 */
static bool make_writable(const struct em_text *text, uint64_t bias, uint64_t *lo, uint64_t *hi,
			  int prot)
{
	for (int more = 0; more <= VDSO_PAGES_MAX; more++) {
		int ret = protect(*lo, *hi, prot | PROT_READ | PROT_WRITE);

		if (!ret || !protect(*lo, *hi, PROT_READ | PROT_WRITE))
			return true;
		if (ret != -EINVAL)
			break;
		if (more)
			*hi += PAGE_MASK + 1;
		*lo = (bias + text->vaddr) & ~PAGE_MASK;
	}
	return false;
}

unsigned em_patch_write(struct em_plan *plan, uint64_t bias, const struct em_text *text, int prot)
{
	unsigned patched = 0;
	uint64_t lo, hi;
	bool writable;

	if (!dirty_range(plan, bias, text, &lo, &hi))
		return 0;
	writable = make_writable(text, bias, &lo, &hi, prot);
	for (unsigned i = 0; i < plan->sites; i++) {
		struct em_site *site = &plan->site[i];

		if (site->kind == EM_SITE_LEFT || site->vaddr - text->vaddr >= text->bytes)
			continue;
		if (writable) {
			write_site(site, bias);
			patched++;
		} else {
			site->kind = EM_SITE_LEFT;
			site->why = "its pages cannot be made writable";
		}
	}
	protect(lo, hi, prot);
	return patched;
}

void em_patch_count(const struct em_plan *plan, unsigned patched, struct em_patch_report *report,
		    em_patch_log_fn log, void *arg, const char *path)
{
	report->objects++;
	report->sites_found += plan->sites;
	report->sites_patched += patched;
	report->unpatched += plan->sites - patched;
	for (unsigned i = 0; i < plan->sites; i++) {
		const struct em_site *site = &plan->site[i];

		if (site->kind != EM_SITE_LEFT)
			continue;
		report->missed += !site->harmless;
		if (log)
			log(arg, path, site->vaddr, site->why);
	}
}

struct mapping {
	uint64_t addr, bytes;
	int prot, fd;
	int64_t off;
	struct em_patch_report *report;
	em_patch_log_fn log;
	const char *path;
};

/* The executable segment that this mapping is of; sets the bias. */
static const Elf64_Phdr *segment_of(struct em_elf *elf, const struct mapping *map)
{
	for (unsigned i = 0; i < elf->phnum; i++) {
		const Elf64_Phdr *ph = &elf->phdr[i];
		uint64_t lead = ph->p_offset & PAGE_MASK;

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X) ||
		    ph->p_offset - lead != (uint64_t)map->off ||
		    (ph->p_vaddr & PAGE_MASK) != lead || lead + ph->p_filesz > map->bytes)
			continue;
		elf->bias = map->addr + lead - ph->p_vaddr;
		return ph;
	}
	return NULL;
}

static int patch_segment(struct em_elf *elf, const struct mapping *map)
{
	const Elf64_Phdr *ph = segment_of(elf, map);
	uint64_t saved_mask;
	struct em_plan plan;
	int ret;

	if (!ph)
		return -ENOEXEC;
	ret = em_plan_object(&plan, elf, ph->p_vaddr, ph->p_vaddr + ph->p_filesz);
	if (!ret && plan.sites) {
		em_tramp_lock(&saved_mask);
		em_patch_emit(&plan, elf->bias);
		ret = em_tramp_commit();
		em_tramp_unlock(&saved_mask);
		for (unsigned i = 0; !ret && i < plan.texts; i++)
			if (plan.text[i].vaddr == ph->p_vaddr)
				ret = em_patch_write(&plan, elf->bias, &plan.text[i], map->prot);
	}
	if (ret >= 0)
		em_patch_count(&plan, ret, map->report, map->log, NULL, map->path);
	em_plan_free(&plan);
	return ret;
}

static long patch_mapping(void *arg)
{
	const struct mapping *map = arg;
	struct em_elf elf;
	long ret;

	ret = em_elf_from_fd(&elf, map->path, map->fd);
	if (ret)
		return ret;
	ret = patch_segment(&elf, map);
	em_elf_close(&elf);
	return ret;
}

/* Behind the end of the file there is nothing to read but SIGBUS. */
static long readable(const struct mapping *map, size_t len)
{
	struct stat st;
	long ret = em_syscall2(SYS_fstat, map->fd, &st);

	if (ret)
		return ret;
	if (!S_ISREG(st.st_mode) || !(map->prot & PROT_READ))
		return -EACCES;
	if (map->off >= st.st_size)
		return 0;
	return len > (uint64_t)(st.st_size - map->off) ? st.st_size - map->off : (long)len;
}

int em_patch_mapping(void *addr, size_t len, int prot, int fd, int64_t off,
		     struct em_patch_report *report, em_patch_log_fn log, const char *path)
{
	struct mapping map = { (uint64_t)addr, (len + PAGE_MASK) & ~PAGE_MASK, prot, fd, off,
			       report, log, path };
	long ret = readable(&map, len);

	if (ret > 0)
		ret = em_plan_has_syscall(addr, ret) ? em_call_saving_vectors(patch_mapping, &map)
						     : 0;
	report->missed += ret < 0;
	return ret;
}
