/* SPDX-License-Identifier: MIT */
/*
 * The error callback of libextmem, seen by a program that links it: callback SWITCH.  Reads fail while
 * the file exists.  Prints TAP.
 */
#include "faulty.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <extmem/extmem.h>

enum { PAGES = 1024 };
static uint64_t *area;
static int calls, tests;
static struct extmem_error seen;

static void ok(bool good, const char *name)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++tests, name);
}

static void lose(size_t page)
{
	fill_page(area + page * WORDS, page);
	page_out(area + page * WORDS, 1);
	calls = 0;
	faults_on();
}

static int repair(const struct extmem_error *e, void *arg)
{
	seen = *e;
	calls++;
	/* memory that is out, in the middle of an access to memory that is out */
	if (calls == 2)
		faults_off();
	return arg == &seen ? EXTMEM_ERROR_RETRY : EXTMEM_ERROR_SIGNAL;
}

static int give_up(const struct extmem_error *e, void *arg)
{
	(void)arg;
	calls++;
	madvise(e->page, PG, MADV_DONTNEED);
	return EXTMEM_ERROR_RETRY;
}

static int refuse(const struct extmem_error *e, void *arg)
{
	(void)arg;
	seen = *e;
	calls++;
	return EXTMEM_ERROR_SIGNAL;
}

static int jump(const struct extmem_error *e, void *arg)
{
	(void)e, (void)arg;
	calls++;
	siglongjmp(faulty_jump, 1);
}

int main(int argc, char **argv)
{
	char err[256];
	uint64_t *p;

	if (argc != 2)
		return 2;
	switch_file = argv[1];
	ok(extmem_set_error_callback(refuse, NULL) == -ENOTCONN, "not managed");
	if (extmem_start(err, sizeof(err))) {
		printf("Bail out! %s\n", err);
		return 1;
	}
	faulty_install();
	area = map_pages(PAGES);

	ok(!extmem_set_error_callback(repair, &seen), "set");
	lose(5);
	p = area + 5 * WORDS;
	ok(page_is(p, 5) && calls == 2, "tried again until it works");
	ok(seen.size == sizeof(seen) && seen.addr == p && seen.page == p && seen.error == EIO &&
		   seen.region_start == area && (char *)seen.region_end == (char *)area + PAGES * PG &&
		   seen.store_offset && seen.store_offset % PG == 0,
	   "told what and where");

	extmem_set_error_callback(refuse, NULL);
	lose(6);
	ok(!try_write(area + 6 * WORDS + 3, 1) && calls == 1 &&
		   seen.addr == area + 6 * WORDS + 3 && seen.page == area + 6 * WORDS,
	   "refused: SIGBUS");
	faults_off();
	ok(page_is(area + 6 * WORDS, 6), "and it comes back with the store");

	extmem_set_error_callback(give_up, NULL);
	lose(7);
	ok(page_is_zero(area + 7 * WORDS) && calls == 1, "thrown away");
	faults_off();

	extmem_set_error_callback(jump, NULL);
	lose(8);
	if (!sigsetjmp(faulty_jump, 1)) {
		fill_page(area + 8 * WORDS, 1);
		ok(false, "left with a jump");
	} else {
		ok(calls == 1, "left with a jump");
	}
	faults_off();
	ok(page_is(area + 8 * WORDS, 8), "after the jump");

	extmem_set_error_callback(NULL, NULL);
	lose(9);
	ok(!try_read(area + 9 * WORDS) && !calls, "taken back");
	faults_off();
	printf("1..%d\n", tests);
	return 0;
}
