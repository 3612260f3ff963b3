/* SPDX-License-Identifier: MIT */
#ifndef EXTMEM_SECURE_H
#define EXTMEM_SECURE_H

#include <sys/stat.h>

/*
 * Would the kernel set AT_SECURE when this process executes the ELF file open at fd?  Then
 * ld.so ignores LD_PRELOAD.  NULL: no; else the reason, half a sentence.
 * What a security module (SELinux, AppArmor) may add is not known here.
 */
const char *secure_exec_reason(int fd, const struct stat *st);

#endif
