/* SPDX-License-Identifier: MIT */
/*
 * What the files of the fault path share: fault.c decides, minor.c and swapin.c carry it out.
 * [engine]
 */
#ifndef EM_CORE_FAULT_H
#define EM_CORE_FAULT_H

#include "core.h"

#include <errno.h>

/* Where the fault is. */
struct em_site {
	struct em_thread *t;
	uintptr_t addr; /* page */
	bool write, alone; /* alone: a read with neighbours was refused, perhaps for one of these */
	bool served;	   /* by us: the page was there for the access, whatever became of it since */
	struct em_block *b;
	em_word_t *wp;
	struct em_region *r;
};

#define em_site_inc(s, name) __atomic_fetch_add(&(s)->r->stats.name, 1, __ATOMIC_RELAXED)

/* How an ioctl that fills or unprotects pages failed. */
static inline enum em_fault_result em_fault_error(int ret)
{
	return ret == -ENOMEM ? EM_FAULT_NOMEM : EM_FAULT_NOT_OURS;
}

/*
 * The steps.  w: the word that was decided upon; the page is taken from exactly that.  EM_FAULT_DONE
 * also when somebody was faster: the word wants another look.
 */
enum em_fault_result em_minor_first_touch(struct em_site *s, em_word_t w); /* ABSENT */
enum em_fault_result em_minor_upgrade(struct em_site *s, em_word_t w);	   /* protected */
enum em_fault_result em_swapin_demand(struct em_site *s, em_word_t w);	   /* SWAPPED, FAILED */
enum em_fault_result em_swapin_staged(struct em_site *s, em_word_t w);	   /* STAGED */

#endif
