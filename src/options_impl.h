/* SPDX-License-Identifier: MIT */
/*
 * What the files behind options.h share with each other, with the command and with the tests.
 * Ordinary context.
 */
#ifndef EM_OPTIONS_IMPL_H
#define EM_OPTIONS_IMPL_H

#include "options.h"

/* Formats one line into err and returns -EINVAL. */
int em_options_fail(char *err, size_t err_len, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * The lists in option values ("PATH,size=1G,force") are separated by commas; ",," is
 * a comma that belongs to the element.  Copies the first element of `value` unescaped to
 * out; *rest is what follows its comma, NULL if nothing does.  0 or -ENAMETOOLONG.
 */
int em_list_first(const char *value, char *out, size_t out_len, const char **rest);
/* The reverse for one element.  0 or -ENAMETOOLONG. */
int em_list_escape(const char *text, char *out, size_t out_len);

/* Reads a small file (a sysctl, a cgroup limit) without its final newline.
   0 or -errno; a longer file is cut. */
int em_file_read_line(const char *path, char *buf, size_t len);

/* The tightest memory limit that cgroups (v1 and v2) put on the process which the two
   files of /proc describe; UINT64_MAX: none.  `root` is prepended to the mount points. */
uint64_t em_cgroup_limit_bytes(const char *cgroup_file, const char *mountinfo_file,
			       const char *root);

/* The limit in memory.max or memory/memory.limit_in_bytes below dir, UINT64_MAX: none. */
uint64_t em_cgroup_limit_at(const char *dir);
/* That of this process. */
uint64_t em_memory_cgroup_bytes(void);

/* The parts of em_options_check, each 0 or -EINVAL with a line. */
int em_options_check_budget(const struct em_options *o, char *err, size_t err_len);
int em_options_check_plugins(const struct em_options *o, char *err, size_t err_len);
int em_options_check_stats(const struct em_options *o, char *err, size_t err_len);
int em_options_check_store(const struct em_options *o, char *err, size_t err_len);

#endif
