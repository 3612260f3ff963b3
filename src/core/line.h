/* SPDX-License-Identifier: MIT */
/* One line for stderr, built without libc.  What does not fit is cut off. */
#ifndef EM_CORE_LINE_H
#define EM_CORE_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "core.h"

struct em_line {
	size_t n;
	char text[320];
};

static inline void em_line_text(struct em_line *line, const char *s)
{
	while (*s && line->n < sizeof(line->text) - 2)
		line->text[line->n++] = *s++;
	line->text[line->n] = 0;
}

static inline void em_line_start(struct em_line *line, const char *s)
{
	line->n = 0;
	em_line_text(line, s);
}

static inline void em_line_number(struct em_line *line, uint64_t v, unsigned base)
{
	char digits[24], *p = digits + sizeof(digits);

	*--p = 0;
	do {
		*--p = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	em_line_text(line, p);
}

static inline void em_line_say(struct em_line *line)
{
	line->text[line->n++] = '\n';
	line->text[line->n] = 0;
	em_say(line->text);
}

#endif
