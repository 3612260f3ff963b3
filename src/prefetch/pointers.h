/* SPDX-License-Identifier: MIT */
/* What words of the program's data point to, where that is wanted next.  [sigsafe] */
#ifndef EM_PREFETCH_POINTERS_H
#define EM_PREFETCH_POINTERS_H

#include <stdbool.h>

#include "extmem/policy.h"

struct em_pointers {
	const struct extmem_policy_host *host;
	uint64_t *watched; /* pages that are not brought in, 0: none */
	uint32_t tried, hit;
	uint32_t on;
	uint8_t off, always;
};

int em_pointers_init(struct em_pointers *p, const struct extmem_policy_host *host);

struct em_arg;
/* pointers=on, off or always; false: none of these. */
bool em_pointers_arg(struct em_pointers *p, const struct em_arg *a);

/* A page was read because it was missed. */
void em_pointers_fault(struct em_pointers *p, extmem_page_t page);

/* Of n words, those that point to pages in the store: at most max of these pages, in the words' order, when it has
   turned out that such pages are wanted.  in_order: the words are part of what the program goes through in order. */
size_t em_pointers_find(struct em_pointers *p, bool in_order, const uint64_t *word, size_t n, extmem_page_t *out,
			size_t max);

#endif
