/* SPDX-License-Identifier: MIT */
/* Prints the call table: number, flags, how many pointers. */
#include <stdio.h>

#include "../../src/intercept/calls.h"

int main(void)
{
	for (int nr = 0; nr < EM_CALL_MAX; nr++) {
		const struct em_call *c = &em_calls[nr];
		int n = 0;

		while (n < EM_CALL_PTRS && c->ptr[n].how != EM_PTR_END)
			n++;
		if (c->flags || n)
			printf("%d %d %d\n", nr, c->flags, n);
	}
	return 0;
}
