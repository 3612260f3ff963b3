/* SPDX-License-Identifier: MIT */
/*
 * extmem/policy.h - the plug-in interface for eviction policies and prefetchers.
 *
 * A plug-in is one shared object that exports
 *
 *     const struct extmem_policy_ops extmem_policy;      (an eviction policy)
 * or  const struct extmem_prefetch_ops extmem_prefetch;  (a prefetcher)
 *
 * and is loaded with `extmem run --policy ./mine.so` or `--prefetch ./mine.so`.
 * The built-in ones use exactly this interface.
 *
 * Context.  `init` and `fini` run once, in ordinary context, before the first
 * and after the last managed page: they may use libc.  Every other callback
 * runs where a page fault is being served, perhaps inside a signal handler that
 * interrupted malloc: no malloc, no stdio, no locks of your own, no floating
 * point or vector code (compile with -mgeneral-regs-only), no access to the
 * program's memory.  Memory comes from host->alloc.
 *
 * Locking.  The engine calls the callbacks of one policy from one thread at a
 * time (it holds the policy lock); the prefetcher's `fault` is called
 * concurrently by many threads, but never twice at once for the same
 * `struct extmem_stream`.
 *
 * Versioning.  Both structs start with their size; fields are only ever added
 * at the end; a plug-in built against an older header keeps working.  Until
 * version 1.0 of the library EXTMEM_POLICY_ABI may change.
 */
#ifndef EXTMEM_POLICY_H
#define EXTMEM_POLICY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EXTMEM_POLICY_ABI 2u
#define EXTMEM_PAGE_SIZE 4096u
#define EXTMEM_PAGE_SHIFT 12

/* A page is named by its address >> EXTMEM_PAGE_SHIFT. */
typedef uint64_t extmem_page_t;

/*
 * What happened to a page.  Events arrive in batches, those of one page in order, except that
 * EVICTED and GONE may come after the event of its next arrival: ask is_resident before
 * forgetting a page because of them.
 */
enum extmem_event_kind {
	EXTMEM_EV_FIRST_TOUCH = 1, /* became resident with zeros; info: 1 if by a write */
	EXTMEM_EV_SWAP_IN = 2,     /* became resident from the store; info: refault distance,
				      in pages evicted since it went out, saturating (see below);
				      0: it was on standby and had not left memory yet, it is in use;
				      | EXTMEM_NEIGHBOUR: it came along with one that was touched */
	EXTMEM_EV_PREFETCH_USED = 3, /* a prefetched page was touched, now resident; info as SWAP_IN */
	EXTMEM_EV_WRITE = 4,       /* a resident clean page became dirty: a reference */
	EXTMEM_EV_REFERENCE = 5,   /* accessed bit seen set, or an advice said so */
	EXTMEM_EV_EVICTED = 6,     /* is not mapped any more; content is in the store or on standby */
	EXTMEM_EV_EVICT_FAILED = 7,/* was offered as victim but stays resident (held by a
				      system call, written again, I/O error): not queued
				      anywhere unless the policy queues it again */
	EXTMEM_EV_GONE = 8,        /* unmapped, discarded or moved away: no longer resident here;
				      info: the tag it had, which is cleared by now */
	EXTMEM_EV_COLD = 9         /* the program said it will not need it soon (MADV_COLD) */
};

/* In info of SWAP_IN: nobody has touched the page itself yet. */
#define EXTMEM_NEIGHBOUR 0x80000000u

struct extmem_event {
	extmem_page_t page;
	uint32_t kind; /* enum extmem_event_kind */
	uint32_t info;
};

/* Services of the engine.  All are signal-safe and may be called from any callback. */
struct extmem_policy_host {
	size_t size; /* sizeof the engine's struct: fields past it are absent */

	/* Zeroed memory that is never paged; it is freed when another policy takes the
	   place of this one, or never.  NULL when the system has none left.  Counts against the budget.  Not for per-fault use. */
	void *(*alloc)(size_t bytes);

	/* The budget in pages at this moment; it may change while the program runs. */
	uint64_t (*budget_pages)(void);

	/* Managed pages that are resident now. */
	uint64_t (*resident_pages)(void);

	/* Eight bits per page that belong to the policy.  They survive eviction and
	   are zero when a page is first seen, was discarded or moved to another address
	   (it is announced there as FIRST_TOUCH).  tag_set returns 0, or -ENOENT when
	   the page is not managed any more. */
	uint8_t (*tag_get)(extmem_page_t page);
	int (*tag_set)(extmem_page_t page, uint8_t tag);

	/* 1 if the page is resident and could be evicted now, else 0. */
	int (*is_resident)(extmem_page_t page);

	/* 1 if the page is resident and its content is in the store already. */
	int (*is_clean)(extmem_page_t page);

	/* 1 if the page is in the store only: whoever touched it would wait for a read. */
	int (*is_out)(extmem_page_t page);
};

/* On a page among the victims: it is not expected back soon, and is not put on standby. */
#define EXTMEM_VICTIM_FAR (1ull << 63)

/*
 * An eviction policy.  It is told what becomes resident and what leaves, and is
 * asked for victims.  It may name a page that is not resident any more: the
 * engine checks every victim.  A victim it named is out of its hands until an
 * event says otherwise.
 */
struct extmem_policy_ops {
	size_t size;		/* sizeof(struct extmem_policy_ops) */
	uint32_t abi;		/* EXTMEM_POLICY_ABI */
	const char *name;	/* as on the command line */
	const char *description;/* one line, with the source of the algorithm */

	/* args: "key=value,key=value" from the command line, or "".
	   Returns 0 and *state, or -errno (-EINVAL: args not understood; the
	   policy has then written one line to err, at most err_len bytes). */
	int (*init)(const struct extmem_policy_host *host, const char *args, void **state,
		    char *err, size_t err_len);
	void (*fini)(void *state); /* may be NULL */

	/* Mandatory. n events, oldest first. */
	void (*events)(void *state, const struct extmem_event *ev, size_t n);

	/* Mandatory. Up to `want` victims into out[], returns how many.  Zero means: I
	   know no page.  Neighbouring pages in one call are cheaper to evict.  A page may
	   have EXTMEM_VICTIM_FAR on it. */
	size_t (*evict)(void *state, size_t want, extmem_page_t *out);

	/* Optional, about ten times a second while the program faults. */
	void (*tick)(void *state, uint64_t now_ns);
};

/* What the engine keeps for each faulting thread on behalf of the prefetcher. */
#define EXTMEM_STREAM_WORDS 32
struct extmem_stream {
	uint64_t word[EXTMEM_STREAM_WORDS]; /* the prefetcher's; zero at first */
};

enum extmem_access_advice {
	EXTMEM_ADVICE_NORMAL = 0,
	EXTMEM_ADVICE_SEQUENTIAL = 1, /* madvise(MADV_SEQUENTIAL) */
	EXTMEM_ADVICE_RANDOM = 2      /* madvise(MADV_RANDOM) */
};

/* One fault as the prefetcher sees it. */
struct extmem_fault {
	extmem_page_t page;
	uint32_t npages;	/* pages made resident by this fault, from `page` on */
	uint8_t write;		/* 1: a write access */
	uint8_t hit;		/* 1: the page had been prefetched already */
	uint8_t advice;		/* enum extmem_access_advice of the region */
	uint8_t reserved;
	extmem_page_t region_first, region_end; /* [first, end) of the mapping */
	uint32_t window_max;	/* most pages in flight the engine allows at the moment */
};

struct extmem_range {
	extmem_page_t first;
	uint32_t npages;
};

/*
 * A prefetcher.  On a fault it names ranges to bring in; the engine reads those
 * pages of them that are in the store, asynchronously.  A page named twice is
 * read once.
 *
 * A first range that contains the page of the fault itself means its neighbours: as many of
 * them as lie beside it in the store, at most 16 pages in all, come in by the read that the fault
 * needs anyhow and are mapped with it; the rest is left.
 */
struct extmem_prefetch_ops {
	size_t size;
	uint32_t abi;
	const char *name;
	const char *description;

	int (*init)(const struct extmem_policy_host *host, const char *args, void **state,
		    char *err, size_t err_len);
	void (*fini)(void *state);

	/* Mandatory. Writes at most `max` ranges, returns how many.  `max` >= 4. */
	size_t (*fault)(void *state, struct extmem_stream *stream, const struct extmem_fault *fault,
			struct extmem_range *out, size_t max);

	/* Optional: n prefetched pages from `page` on were dropped unused. */
	void (*wasted)(void *state, extmem_page_t page, uint32_t npages);

	/* Optional.  A fault has brought in pages, from `page` on, by its own read: the n words of
	   these, in a copy.  Writes at most `max` pages, returns how many: those that are in the
	   store are read in this order and mapped, before they are touched. */
	size_t (*content)(void *state, struct extmem_stream *stream, extmem_page_t page,
			  const uint64_t *word, size_t n, extmem_page_t *out, size_t max);
};

#ifdef __cplusplus
}
#endif
#endif
