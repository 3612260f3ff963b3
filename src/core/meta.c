/* SPDX-License-Identifier: MIT */
#include "meta.h"

#include <sys/mman.h>

#include "lock.h"
#include "sys.h"

enum {
	MIN_SHIFT = 6,	       /* smallest class: 64 bytes, one cache line */
	MAX_SHIFT = 14,	       /* largest class; above: own mapping */
	CHUNK_BYTES = 1 << 18, /* what the classes take from the kernel at a time */
};

struct free_node {
	struct free_node *next;
};

static struct {
	struct em_mutex lock;
	struct free_node *free[MAX_SHIFT + 1];
	char *bump, *bump_end;
	uint64_t bytes;
} meta;

static void *map(size_t bytes)
{
	long p = em_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);

	if (em_is_err(p))
		return NULL;
	__atomic_fetch_add(&meta.bytes, bytes, __ATOMIC_RELAXED);
	return (void *)p;
}

static size_t round_page(size_t bytes)
{
	return (bytes + 4095) & ~(size_t)4095;
}

static int class_of(size_t bytes)
{
	int shift = MIN_SHIFT;

	while (((size_t)1 << shift) < bytes)
		shift++;
	return shift;
}

static void *bump_locked(size_t bytes)
{
	void *p;

	if ((size_t)(meta.bump_end - meta.bump) < bytes) {
		char *chunk = map(CHUNK_BYTES);

		if (!chunk)
			return NULL;
		meta.bump = chunk;
		meta.bump_end = chunk + CHUNK_BYTES;
	}
	p = meta.bump;
	meta.bump += bytes;
	return p;
}

void *em_meta_alloc(size_t bytes)
{
	struct free_node *n;
	int shift;

	if (bytes > ((size_t)1 << MAX_SHIFT))
		return map(round_page(bytes));
	shift = class_of(bytes);
	em_mutex_lock(&meta.lock);
	n = meta.free[shift];
	if (n)
		meta.free[shift] = n->next;
	else
		n = bump_locked((size_t)1 << shift);
	em_mutex_unlock(&meta.lock);
	if (n)
		em_memzero(n, bytes);
	return n;
}

void em_meta_free(void *p, size_t bytes)
{
	struct free_node *n = p;
	int shift;

	if (!p)
		return;
	if (bytes > ((size_t)1 << MAX_SHIFT)) {
		em_sys_munmap(p, round_page(bytes));
		__atomic_fetch_sub(&meta.bytes, round_page(bytes), __ATOMIC_RELAXED);
		return;
	}
	shift = class_of(bytes);
	em_mutex_lock(&meta.lock);
	n->next = meta.free[shift];
	meta.free[shift] = n;
	em_mutex_unlock(&meta.lock);
}

uint64_t em_meta_bytes(void)
{
	return __atomic_load_n(&meta.bytes, __ATOMIC_RELAXED);
}
