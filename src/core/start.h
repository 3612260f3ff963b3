/* SPDX-License-Identifier: MIT */
/* Bringing the engine up.  Ordinary context, once, before the program's main. */
#ifndef EM_CORE_START_H
#define EM_CORE_START_H

#include <stddef.h>

#include "../options.h"

/* 0, or -errno with one line in err; then nothing has been changed. */
int em_engine_start(const struct em_options *o, char *err, size_t err_len);

#endif
