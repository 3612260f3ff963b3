/* SPDX-License-Identifier: MIT */
/* Patching at start: every object that is loaded.  libc is at hand here, except while writing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "hook.h"
#include "patch.h"
#include "tramp.h"

struct object {
	struct em_elf elf;
	struct em_plan plan;
	char *path;
	unsigned patched;
	int err;
};

struct objects {
	struct object *list;
	size_t n, room;
	int err;
};

static bool covers(const struct dl_phdr_info *info, uint64_t addr)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD &&
		    addr - (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr) <
			    info->dlpi_phdr[i].p_memsz)
			return true;
	return false;
}

/*
 * The vDSO is an object like others: what it answers itself stays as it is, and where it
 * passes a call on to the kernel (CPU-time clocks, clocks the processor cannot read) that
 * call must go the way of all calls.
 */
static const char *path_of(const struct dl_phdr_info *info)
{
	if (covers(info, getauxval(AT_SYSINFO_EHDR)))
		return "[vdso]";
	return *info->dlpi_name ? info->dlpi_name : "/proc/self/exe";
}

static int collect(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct objects *objs = arg;
	struct object *obj;
	void *grown;

	(void)size;
	if (covers(info, (uint64_t)em_hook_entry))
		return 0;
	if (objs->n == objs->room) {
		grown = realloc(objs->list, (objs->room + 32) * sizeof(*objs->list));
		if (!grown) {
			objs->err = -ENOMEM;
			return 1;
		}
		objs->list = grown;
		objs->room += 32;
	}
	obj = &objs->list[objs->n];
	memset(obj, 0, sizeof(*obj));
	/* The list's own strings go with a dlclose in another thread. */
	obj->path = strdup(path_of(info));
	if (!obj->path) {
		objs->err = -ENOMEM;
		return 1;
	}
	em_elf_from_loaded(&obj->elf, obj->path, info->dlpi_addr, info->dlpi_phdr,
			   info->dlpi_phnum);
	objs->n++;
	return 0;
}

static int segment_prot(const struct em_elf *elf, uint64_t vaddr)
{
	int prot = 0;

	for (unsigned i = 0; i < elf->phnum; i++)
		if (elf->phdr[i].p_type == PT_LOAD && elf->phdr[i].p_vaddr == vaddr)
			prot = (elf->phdr[i].p_flags & PF_R ? PROT_READ : 0) |
			       (elf->phdr[i].p_flags & PF_W ? PROT_WRITE : 0) |
			       (elf->phdr[i].p_flags & PF_X ? PROT_EXEC : 0);
	return prot;
}

/* From the first trampoline to the last jump: no libc calls. */
static int write_all(struct objects *objs)
{
	uint64_t saved_mask;
	int ret;

	em_tramp_lock(&saved_mask);
	for (size_t i = 0; i < objs->n; i++)
		em_patch_emit(&objs->list[i].plan, objs->list[i].elf.bias);
	ret = em_tramp_commit();
	for (size_t i = 0; !ret && i < objs->n; i++) {
		struct object *obj = &objs->list[i];

		for (unsigned k = 0; k < obj->plan.texts; k++)
			obj->patched += em_patch_write(&obj->plan, obj->elf.bias,
						       &obj->plan.text[k],
						       segment_prot(&obj->elf,
								    obj->plan.text[k].vaddr));
	}
	em_tramp_unlock(&saved_mask);
	return ret;
}

static void tell(const struct object *obj, struct em_patch_report *report, em_patch_log_fn log,
		 void *arg)
{
	const struct em_plan *plan = &obj->plan;
	char line[96];

	em_patch_count(plan, obj->patched, report, log, arg, obj->path);
	report->missed += obj->err != 0;
	if (!log)
		return;
	if (obj->err)
		snprintf(line, sizeof(line), "not examined: %s", strerror(-obj->err));
	else
		snprintf(line, sizeof(line), "%u of %u system calls patched", obj->patched,
			 plan->sites);
	log(arg, obj->path, 0, line);
}

int em_patch_all(struct em_patch_report *report, em_patch_log_fn log, void *arg)
{
	static bool done;
	struct objects objs = { .list = NULL };
	int ret;

	if (done) /* the jumps would be taken for the program's own code */
		return -EALREADY;
	done = true;
	memset(report, 0, sizeof(*report));
	em_tramp_stack(getauxval(AT_RANDOM));
	dl_iterate_phdr(collect, &objs);
	ret = objs.err;
	for (size_t i = 0; !ret && i < objs.n; i++)
		objs.list[i].err = em_plan_object(&objs.list[i].plan, &objs.list[i].elf, 0,
						  UINT64_MAX);
	if (!ret)
		ret = write_all(&objs);
	for (size_t i = 0; i < objs.n; i++) {
		struct object *obj = &objs.list[i];

		if (!ret)
			tell(obj, report, log, arg);
		em_plan_free(&obj->plan);
		em_elf_close(&obj->elf);
		free(obj->path);
	}
	free(objs.list);
	if (!ret && !report->sites_patched)
		ret = -ENOSYS;
	return ret;
}
