/* SPDX-License-Identifier: MIT */
#include "meta.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include "lock.h"
#include "sys.h"

enum {
	MIN_SHIFT = 6,	       /* smallest class: 64 bytes, one cache line */
	MAX_SHIFT = 14,	       /* largest class; above: own mapping */
	CHUNK_BYTES = 1 << 18, /* what the classes take at a time */
	PAGE_BYTES = 4096,
};

/* 64 GiB of addresses: metadata for 8 TiB.  Less where RLIMIT_AS, RLIMIT_DATA or strict overcommit
   says so: of what is limited most is the program's. */
#define ARENA_MAX (64ul << 30)
#define ARENA_MIN (16ul << 20)

struct free_node {
	struct free_node *next;
};

struct free_run {
	struct free_run *next;
	size_t bytes;
};

static struct {
	struct em_mutex lock;
	struct free_node *free[MAX_SHIFT + 1];
	char *bump, *bump_end;
	struct free_run *runs; /* large pieces given back, still in the arena */
	char *arena, *arena_end;
	size_t arena_bytes;
	uint64_t bytes, frame_bytes;
} meta;

/*
 * All metadata lies in one range reserved at the start.  Taken from the kernel piece by piece it could land in
 * a hole that the program has just made with munmap and is about to fill with MAP_FIXED.
 */
static size_t arena_most(void)
{
	static const int which[] = { RLIMIT_AS, RLIMIT_DATA };
	size_t most = ARENA_MAX;
	struct rlimit lim;

	for (size_t i = 0; i < 2; i++)
		if (!em_syscall4(SYS_prlimit64, 0, which[i], NULL, &lim) && lim.rlim_cur / 16 < most)
			most = lim.rlim_cur / 16 & ~(size_t)4095;
	return most < ARENA_MIN ? ARENA_MIN : most;
}

int em_meta_reserve(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	long p = -12;
	size_t bytes;

	for (bytes = arena_most(); bytes >= ARENA_MIN; bytes /= 2) {
		p = em_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
		if (!em_is_err(p))
			break;
	}
	if (em_is_err(p))
		return (int)p;
	em_sys_madvise((void *)p, bytes, MADV_DONTDUMP);
	em_sys_madvise((void *)p, bytes, MADV_NOHUGEPAGE);
	meta.arena = (char *)p;
	meta.arena_end = meta.arena + bytes;
	meta.arena_bytes = bytes;
	return 0;
}

static void *reuse_run_locked(size_t bytes)
{
	for (struct free_run **at = &meta.runs; *at; at = &(*at)->next) {
		struct free_run *r = *at;

		if (r->bytes != bytes)
			continue;
		*at = r->next;
		em_memzero(r, sizeof(*r));
		return r;
	}
	return NULL;
}

static void *map_locked(size_t bytes)
{
	void *p = reuse_run_locked(bytes);
	long m;

	if (!p && meta.arena) {
		if ((size_t)(meta.arena_end - meta.arena) < bytes)
			return NULL;
		p = meta.arena;
		meta.arena += bytes;
	} else if (!p) { /* no arena: unit tests, and the command itself */
		m = em_sys_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
		if (em_is_err(m))
			return NULL;
		p = (void *)m;
	}
	__atomic_fetch_add(&meta.bytes, bytes, __ATOMIC_RELAXED);
	return p;
}

/* Back to zeros, but for the list node in the first bytes. */
static void unmap_locked(void *p, size_t bytes)
{
	struct free_run *r = p;

	/* Refused for memory that mlockall has locked. */
	if (em_sys_madvise(p, bytes, MADV_DONTNEED))
		em_memzero(p, bytes);
	r->bytes = bytes;
	r->next = meta.runs;
	meta.runs = r;
	__atomic_fetch_sub(&meta.bytes, bytes, __ATOMIC_RELAXED);
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
		char *chunk = map_locked(CHUNK_BYTES);

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

	if (bytes > ((size_t)1 << MAX_SHIFT)) {
		em_mutex_lock(&meta.lock);
		n = map_locked(round_page(bytes));
		em_mutex_unlock(&meta.lock);
		return n;
	}
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

void *em_meta_alloc_addresses(size_t bytes)
{
	void *p = em_meta_alloc(bytes);

	if (p)
		__atomic_fetch_sub(&meta.bytes, round_page(bytes), __ATOMIC_RELAXED);
	return p;
}

bool em_meta_has_spare(size_t bytes)
{
	bool spare;

	em_mutex_lock(&meta.lock);
	spare = (size_t)(meta.arena_end - meta.arena) > meta.arena_bytes / 2 + bytes;
	em_mutex_unlock(&meta.lock);
	return spare;
}

void em_meta_free(void *p, size_t bytes)
{
	struct free_node *n = p;
	int shift;

	if (!p)
		return;
	if (bytes > ((size_t)1 << MAX_SHIFT)) {
		em_mutex_lock(&meta.lock);
		unmap_locked(p, round_page(bytes));
		em_mutex_unlock(&meta.lock);
		return;
	}
	shift = class_of(bytes);
	em_mutex_lock(&meta.lock);
	n->next = meta.free[shift];
	meta.free[shift] = n;
	em_mutex_unlock(&meta.lock);
}

void *em_meta_alloc_frames(uint32_t pages)
{
	void *p = em_meta_alloc((size_t)pages * PAGE_BYTES);

	if (p)
		__atomic_fetch_add(&meta.frame_bytes, (uint64_t)pages * PAGE_BYTES, __ATOMIC_RELAXED);
	return p;
}

void em_meta_free_frames(void *p, uint32_t pages)
{
	em_meta_free(p, (size_t)pages * PAGE_BYTES);
	if (p)
		__atomic_fetch_sub(&meta.frame_bytes, (uint64_t)pages * PAGE_BYTES, __ATOMIC_RELAXED);
}

void em_meta_lock(void)
{
	em_mutex_lock(&meta.lock);
}

void em_meta_unlock(void)
{
	em_mutex_unlock(&meta.lock);
}

uint64_t em_meta_bytes(void)
{
	return __atomic_load_n(&meta.bytes, __ATOMIC_RELAXED);
}

uint64_t em_meta_frame_bytes(void)
{
	return __atomic_load_n(&meta.frame_bytes, __ATOMIC_RELAXED);
}
