/* SPDX-License-Identifier: MIT */
/*
 * Probes: does this machine let this user do X?  Each one does it rather than reading a
 * version or a feature bit.  One table (probe.c) serves `extmem doctor`, which
 * shows all of it, and `extmem run`, which needs the required ones.
 */
#ifndef EXTMEM_PROBE_H
#define EXTMEM_PROBE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../src/options.h"

enum probe_status {
	PROBE_AVAILABLE,
	PROBE_MISSING,
	PROBE_WARNING, /* works, with a drawback */
	PROBE_INFO,
};

struct probe_result {
	enum probe_status status;
	char detail[480];
};

enum probe_need {
	PROBE_OPTIONAL,
	PROBE_REQUIRED,
	PROBE_REQUIRED_UPCALL, /* with --delivery upcall */
	PROBE_REQUIRED_THREAD, /* with --delivery thread */
};

struct probe {
	const char *id; /* stable, for --json */
	const char *title;
	enum probe_need need;
	bool child; /* may be killed for trying (seccomp): run in a child */
	void (*run)(const struct em_options *o, struct probe_result *r);
	const char *use, *without, *get;
};

struct probe_group {
	const char *title;
	const struct probe *probes;
	unsigned n;
};

extern const struct probe_group probe_groups[];
extern const unsigned probe_ngroups;

void probe_run(const struct probe *p, const struct em_options *o, struct probe_result *r);
bool probe_is_required(const struct probe *p, const struct em_options *o);

/* What the kernel must allow for `run` with these options.  0 or -errno with a line. */
int probe_required(const struct em_options *o, char *err, size_t err_len);

/* Sets status and detail. */
void probe_set(struct probe_result *r, enum probe_status status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* MISSING, "what: strerror (hint)". */
void probe_errno(struct probe_result *r, const char *what, int error);
/* After a fork that failed: nothing is known. */
void probe_not_tried(struct probe_result *r);
/* "1.5 GiB"; a static ring of four buffers. */
const char *probe_size(uint64_t bytes);

/* The probes; one file each group. */
typedef void probe_fn(const struct em_options *o, struct probe_result *r);
/* probe_uffd.c */
probe_fn probe_uffd_user, probe_uffd_full, probe_uffd_device, probe_uffd_any;
probe_fn probe_uffd_missing, probe_uffd_sigbus, probe_uffd_thread;
probe_fn probe_uffd_wp, probe_uffd_move, probe_uffd_other;
/* probe_kernel.c */
probe_fn probe_process_madvise, probe_uring, probe_bpf, probe_bpf_caps, probe_btf;
/* probe_calls.c */
probe_fn probe_patching, probe_dispatch, probe_memfd, probe_fork;
/* trial.c */
probe_fn probe_trial;
/* probe_swap.c */
probe_fn probe_swap_usable, probe_swap_direct, probe_swap_space;
/* probe_system.c */
probe_fn probe_kernel, probe_library, probe_options, probe_budget;
probe_fn probe_memlock, probe_nofile, probe_as, probe_max_map_count, probe_overcommit;
probe_fn probe_unprivileged_uffd, probe_cgroup, probe_seccomp, probe_thp, probe_kernel_swap;

#endif
