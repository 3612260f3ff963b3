/* SPDX-License-Identifier: MIT */
/*
 * Memory primitives of the island.  The compiler may emit calls to memcpy and memset for
 * struct copies whatever the flags; these hidden definitions keep them from reaching libc,
 * whose versions use vector registers and go through the PLT.
 */
#include "sys.h"

void em_memcpy(void *dst, const void *src, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

void em_memzero(void *dst, size_t n)
{
	__asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(0) : "memory");
}

void *memcpy(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);

__attribute__((visibility("hidden"))) void *memcpy(void *dst, const void *src, size_t n)
{
	em_memcpy(dst, src, n);
	return dst;
}

__attribute__((visibility("hidden"))) void *memset(void *dst, int c, size_t n)
{
	void *d = dst;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return dst;
}
