/* SPDX-License-Identifier: MIT */
#include "tramp.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "../core/lock.h"
#include "../core/sys.h"
#include "hook.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define PAGE_BYTES 4096ul
#define AREA_BYTES 65536ul
#define MAX_AREAS 64
#define REACH ((1ll << 31) - 2 * (int64_t)AREA_BYTES)

extern uint8_t em_tramp_area[], em_tramp_area_end[];

/* Slots below used are taken; pages from base + writable_from on are writable now. */
struct area {
	uint8_t *base;
	size_t bytes, used;
	size_t writable_from;
	bool writable;
};

static struct em_mutex lock;
static struct area areas[MAX_AREAS];
static unsigned nr_areas;
static uint64_t stack_top;

void em_tramp_stack(uint64_t near_top)
{
	stack_top = near_top;
}

void em_tramp_lock(uint64_t *saved_mask)
{
	uint64_t mask = ~(1ull << (SIGBUS - 1) | 1ull << (SIGSEGV - 1));

	em_syscall4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, saved_mask, sizeof(mask));
	em_mutex_lock(&lock);
}

void em_tramp_unlock(const uint64_t *saved_mask)
{
	em_mutex_unlock(&lock);
	em_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, saved_mask, NULL, sizeof(*saved_mask));
}

void em_patch_fork_child(void)
{
	lock.v = 0;
	em_tramp_commit(); /* a slot half written is lost, nothing leads there */
}

static bool reaches(const uint8_t *base, uint64_t addr)
{
	int64_t distance = (int64_t)base - (int64_t)addr;

	return distance > -REACH && distance < REACH;
}

static bool map_at(struct area *area, uint64_t addr)
{
	long ret = em_sys_mmap((void *)addr, AREA_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (em_is_err(ret))
		return false;
	if ((uint64_t)ret != addr) { /* Linux before 4.17: the flag is only a hint */
		em_sys_munmap((void *)ret, AREA_BYTES);
		return false;
	}
	area->base = (uint8_t *)ret;
	area->bytes = AREA_BYTES;
	area->writable = true;
	return true;
}

/* Just above the stack is where Linux up to 6.15 puts the vDSO. */
static bool is_above_stack(uint64_t addr)
{
	return stack_top && addr - stack_top < 1ull << 30;
}

/*
 * Finds room near addr.  Below first: above a program's image is its heap, which
 * must be able to grow; so the search upwards starts a gigabyte away.  What lies above the
 * stack is served from above only: the stack grows into what is free below.
 */
static struct area *new_area(uint64_t addr)
{
	struct area *area = &areas[nr_areas];
	uint64_t at = addr & -AREA_BYTES, step;

	if (nr_areas == MAX_AREAS)
		return NULL;
	*area = (struct area){ .used = 0 };
	if (is_above_stack(addr)) {
		for (step = AREA_BYTES; step < 1ull << 30; step += AREA_BYTES)
			if (map_at(area, at + step))
				goto found;
		return NULL;
	}
	for (step = AREA_BYTES; step < (uint64_t)REACH && step < at;
	     step += (step / 16 & -AREA_BYTES) + AREA_BYTES)
		if (map_at(area, at - step))
			goto found;
	for (step = 1ull << 30; step < (uint64_t)REACH; step += 1ull << 24)
		if (map_at(area, at + step))
			goto found;
	return NULL;
found:
	nr_areas++;
	return area;
}

/*
 * Other threads may be running in the area's used slots: if the system refuses memory that is
 * writable and executable, only pages without any are touched.
 */
static bool make_writable(struct area *area)
{
	if (area->writable)
		return true;
	area->writable_from = 0;
	if (em_syscall3(SYS_mprotect, area->base, area->bytes,
			PROT_READ | PROT_WRITE | PROT_EXEC)) {
		area->used = (area->used + PAGE_BYTES - 1) & -PAGE_BYTES;
		area->writable_from = area->used;
		if (area->used == area->bytes ||
		    em_syscall3(SYS_mprotect, area->base + area->used, area->bytes - area->used,
				PROT_READ | PROT_WRITE))
			return false;
	}
	area->writable = true;
	return true;
}

static uint8_t *alloc_slot(uint64_t addr, const uint8_t **entry_cell)
{
	struct area *area = NULL;
	uint8_t *slot;

	if (nr_areas == 0) {
		areas[0].base = em_tramp_area;
		areas[0].bytes = em_tramp_area_end - em_tramp_area;
		nr_areas = 1;
	}
	for (unsigned i = 0; !area && i < nr_areas; i++)
		if (reaches(areas[i].base, addr) &&
		    areas[i].bytes - areas[i].used >= 2 * EM_SLOT_BYTES && make_writable(&areas[i]))
			area = &areas[i];
	if (!area)
		area = new_area(addr);
	if (!area)
		return NULL;
	if (area->used == 0) {
		*(void (**)(void))area->base = em_hook_entry;
		area->used = EM_SLOT_BYTES;
	}
	*entry_cell = area->base;
	slot = area->base + area->used;
	area->used += EM_SLOT_BYTES;
	return slot;
}

static uint8_t *put32(uint8_t *p, int64_t value)
{
	for (int i = 0; i < 4; i++)
		*p++ = (uint64_t)value >> 8 * i;
	return p;
}

static uint8_t *put_bytes(uint8_t *p, const uint8_t *from, size_t n)
{
	while (n--)
		*p++ = *from++;
	return p;
}

/* Bytes between the two groups of moved instructions: lea, jmp, syscall. */
#define MIDDLE_BYTES (7 + 6 + 2)

/* Makes the RIP-relative operand mean what it did; false: it is out of reach from here. */
static bool fix_displacement(const struct em_site *site, uint64_t bias, uint8_t *slot)
{
	bool behind = site->fix_at >= site->pre;
	uint8_t *p = slot + site->fix_at + (behind ? MIDDLE_BYTES : 0);
	uint64_t old_end = bias + site->win + site->fix_end + (behind ? 2 : 0);
	uint64_t new_end = (uint64_t)slot + site->fix_end + (behind ? MIDDLE_BYTES : 0);
	int64_t disp = (int32_t)(p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24);

	disp += (int64_t)(old_end - new_end);
	put32(p, disp);
	return disp == (int32_t)disp;
}

uint64_t em_tramp_emit(const struct em_site *site, const uint8_t *code, uint64_t bias)
{
	uint64_t back = bias + site->vaddr + 2 + site->post;
	const uint8_t *entry_cell;
	uint8_t *slot = alloc_slot(bias + site->win, &entry_cell), *p = slot;

	if (!slot)
		return 0;
	p = put_bytes(p, code, site->pre);
	*p++ = 0x4c; /* lea cont(%rip), %r11: cont is behind the jmp and the syscall */
	*p++ = 0x8d;
	*p++ = 0x1d;
	p = put32(p, 6 + 2);
	*p++ = 0xff; /* jmp *entry_cell(%rip) */
	*p++ = 0x25;
	p = put32(p, entry_cell - (p + 4));
	*p++ = 0x0f;
	*p++ = 0x05;
	p = put_bytes(p, code + site->pre + 2, site->post);
	if (!site->returns) {
		*p++ = 0xe9;
		p = put32(p, (int64_t)back - (int64_t)(p + 4));
	}
	if (site->fix_at && !fix_displacement(site, bias, slot))
		return 0;
	while (p < slot + EM_SLOT_ORIGIN)
		*(volatile uint8_t *)p++ = 0xcc; /* volatile: or it becomes a memset */
	*(uint64_t *)p = bias + site->vaddr + 2;
	return (uint64_t)slot;
}

int em_tramp_commit(void)
{
	int ret = 0;

	for (unsigned i = 0; i < nr_areas; i++) {
		struct area *area = &areas[i];

		if (!area->writable)
			continue;
		if (em_syscall3(SYS_mprotect, area->base + area->writable_from,
				area->bytes - area->writable_from, PROT_READ | PROT_EXEC))
			ret = -EACCES;
		area->writable = false;
	}
	return ret;
}
