/* SPDX-License-Identifier: MIT */
/*
 * Time of the first touch of a page.  Pages --stride apart, so that mapping several
 * pages at once does not help and the fault itself is what is measured.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "faultloop.h"

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		FAULTLOOP_OPTIONS,
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct faultloop f = {.threads = 1, .pages = 16384, .stride = 16, .who = "program"};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (faultloop_option(&f, c, optarg))
			continue;
		if (c != 'h')
			return 2;
		printf("usage: %s [--op read|write] [--threads N] [--pages N] [--stride N] "
		       "[--shuffle]\n",
		       argv[0]);
		return 0;
	}
	return faultloop_run(&f);
}
