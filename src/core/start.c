/* SPDX-License-Identifier: MIT */
#include "start.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../control/control.h"
#include "../intercept/hook.h"
#include "../intercept/signals.h"
#include "../intercept/trap.h"
#include "../policy/registry.h"
#include "core.h"
#include "meta.h"
#include "standby.h"

/* Our descriptors go where programs rarely look: just below the limit. */
static int choose_fd_min(void)
{
	struct rlimit rl;
	rlim_t top = 1024;

	if (!getrlimit(RLIMIT_NOFILE, &rl))
		top = rl.rlim_cur;
	if (top == RLIM_INFINITY || top > 65536)
		top = 65536;
	return top > 256 ? (int)top - 64 : (int)top / 2;
}

/* A named file or a device belongs to the process that opened it and its forked children.  A program
   that one of them executes under the same environment gets a file of its own: beside the named
   file, or in the default directory when that was a device. */
static int start_store_beside(struct em_store_config *cfg, char *err, size_t err_len)
{
	char dir[sizeof(em_engine.opt.swap_path)], *slash;
	struct stat st;

	snprintf(dir, sizeof(dir), "%s", cfg->path);
	slash = strrchr(dir, '/');
	if (stat(cfg->path, &st) || !S_ISREG(st.st_mode) || !slash)
		cfg->path = NULL;
	else
		slash[slash == dir] = 0, cfg->path = dir;
	return em_store_open(cfg, em_engine.fd_min, &em_engine.store, err, err_len);
}

static int start_store(const struct em_options *o, char *err, size_t err_len)
{
	struct em_store_config cfg = {
		.path = o->swap_path[0] ? o->swap_path : NULL,
		.size_bytes = o->swap_size_bytes,
		.force = o->swap_force,
		.no_uring = o->feature_mask & EM_FEAT_URING,
		.spin_us = o->spin_us,
		.no_memfd = o->feature_mask & EM_FEAT_MEMFD,
	};
	int ret = em_store_open(&cfg, em_engine.fd_min, &em_engine.store, err, err_len);

	if (ret == -EBUSY && cfg.path && o->stats_pid != getpid())
		ret = start_store_beside(&cfg, err, err_len);
	return ret;
}

static int start_policy(const struct em_options *o, char *err, size_t err_len)
{
	const struct extmem_policy_ops *policy;
	const struct extmem_prefetch_ops *prefetch;
	int ret = em_policy_load(o->policy, &policy, err, err_len);

	if (!ret)
		ret = em_prefetch_load(o->prefetch, &prefetch, err, err_len);
	if (!ret)
		ret = em_host_start(policy, prefetch, o, err, err_len);
	return ret;
}

static void log_patch(void *arg, const char *object, uint64_t vaddr, const char *what)
{
	(void)arg;
	if (vaddr)
		fprintf(stderr, "extmem: %s+0x%llx: %s\n", object, (unsigned long long)vaddr, what);
	else
		fprintf(stderr, "extmem: %s: %s\n", object, what);
}

static int start_delivery(const struct em_options *o, char *err, size_t err_len)
{
	int ret = em_uffd_open(o->delivery, em_engine.opt.feature_mask, em_engine.fd_min);

	if (ret) {
		snprintf(err, err_len,
			 "userfaultfd: cannot be opened: %s; `extmem doctor` tells what is missing",
			 strerror(-ret));
		return ret;
	}
	if (o->delivery == EM_DELIVERY_UPCALL)
		em_signals_take(SIGBUS);
	else
		em_signals_adopt();
	ret = o->delivery == EM_DELIVERY_UPCALL ? em_upcall_install(true)
						: em_handlers_start(o->delivery_threads);
	if (ret)
		snprintf(err, err_len, "fault delivery: cannot be started: %s", strerror(-ret));
	return ret;
}

/* A program that cannot be controlled runs all the same. */
static void start_control(bool verbose)
{
	char dir[EM_CONTROL_DIRS][EM_CONTROL_PATH];
	unsigned n = em_control_dirs(geteuid(), getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), dir);
	int ret = -ENOENT;

	for (unsigned i = 0; i < n && ret; i++) {
		ret = em_control_dir_make(dir[i]);
		if (ret)
			continue;
		em_control_dir_clean(dir[i]);
		ret = em_control_start(dir[i]);
	}
	if (ret && verbose)
		fprintf(stderr, "extmem: no control socket: %s\n", strerror(-ret));
}

/* Where /proc does not tell of threads they are counted, which takes the traps.  Before the engine has any. */
static bool must_count_threads(const struct em_options *o)
{
	return !(o->feature_mask & EM_FEAT_TASKS) && access("/proc/self/task", F_OK);
}

/*
 * A page that the kernel itself swaps out to a device that checks what it writes (iSCSI with digests, some RAID)
 * may be exchanged for another when it comes back and is written meanwhile: then capture.c would have the old
 * one.  Zram is such a device by name, but its writes are over when they return.
 */
static bool pages_may_be_exchanged(void)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *d;
	bool found = !dir;

	while (!found && (d = readdir(dir))) {
		char path[sizeof("/sys/block//queue/stable_writes") + NAME_MAX], c = '0';
		FILE *f;

		if (d->d_name[0] == '.' || !strncmp(d->d_name, "zram", 4))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/queue/stable_writes", d->d_name);
		f = fopen(path, "re");
		found = f && fread(&c, 1, 1, f) == 1 && c != '0';
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return found;
}

int em_engine_start(const struct em_options *o, char *err, size_t err_len)
{
	bool traps, counting = must_count_threads(o), alone = counting && em_tasks_alone();
	struct em_patch_report report;
	int ret;

	ret = em_meta_reserve();
	if (ret) {
		snprintf(err, err_len, "address space: nothing can be reserved: %s", strerror(-ret));
		return ret;
	}
	em_clock_start();
	em_engine.opt = *o;
	if (pages_may_be_exchanged())
		em_engine.opt.feature_mask |= EM_FEAT_CAPTURE;
	em_engine.min_map = o->min_map_bytes;
	em_engine.pid = getpid();
	em_engine.fd_min = choose_fd_min();
	em_budget_set(o->dram_bytes);
	em_budget_set_hard(em_memory_available_bytes());
	em_stage_init((uint32_t)em_budget.limit);
	em_standby_set_budget((uint64_t)em_budget.limit);
	ret = start_store(o, err, err_len);
	if (!ret)
		ret = start_policy(o, err, err_len);
	if (!ret)
		ret = start_delivery(o, err, err_len);
	if (ret)
		return ret;
	em_engine.active = true;
	if (!em_thread_self()) {
		snprintf(err, err_len, "no memory for the engine");
		return -ENOMEM;
	}
	traps = o->syscalls != EM_SYSCALLS_PATCH && !em_trap_start();
	if (!traps && o->syscalls == EM_SYSCALLS_DISPATCH) {
		snprintf(err, err_len, "--syscalls dispatch: the kernel has no Syscall User "
			 "Dispatch (Linux 5.11); give auto or patch");
		return -ENOSYS;
	}
	if (traps && counting)
		em_tasks_start(alone);
	if (o->stats_path[0])
		em_signals_want_last_words();
	ret = em_patch_all(&report, o->verbose ? log_patch : NULL, NULL);
	if (ret && !traps) {
		em_engine.active = false;
		snprintf(err, err_len,
			 "system calls: cannot be intercepted: code cannot be changed (%s), calls cannot "
			 "be trapped; see `extmem doctor`", strerror(-ret));
		return ret;
	}
	if (ret)
		em_trap_want("code cannot be changed here");
	if (!(o->feature_mask & EM_FEAT_CONTROL))
		start_control(o->verbose);
	if (o->verbose)
		fprintf(stderr,
			"extmem: budget %llu bytes, %u objects, %u of %u system-call sites patched\n",
			(unsigned long long)o->dram_bytes, report.objects, report.sites_patched,
			report.sites_found);
	if (o->syscalls == EM_SYSCALLS_DISPATCH)
		em_trap_want("asked for");
	else if (report.missed)
		em_trap_want("sites that could not be patched");
	return 0;
}
