/* SPDX-License-Identifier: MIT */
/*
 * sequential: finds sequential and strided access in each thread's faults and reads ahead.
 *
 * A thread has up to STREAMS streams and CANDIDATES single faults that may become one.
 * Two faults side by side start a forward stream; a backward or strided one needs three
 * in a row, and so does every one while the thread's faults look random.
 *
 * Among many random faults a thread's own candidates are forgotten too soon: a merge sort compares lines all over
 * the text for each page of line pointers that it goes through.  So all threads share a table of the ends of runs:
 * a fault next to one makes the run longer, and three pages are a stream.  For one that moves as slowly, what
 * follows comes with its fault, in one read, and nothing waits in frames for long.
 *
 * A stream keeps `last`, the page that the program used last, and `edge`, the next page to
 * ask for.  Whenever less than half a window lies between the two, the next window is
 * asked for, so that reads run while the program uses what came before.  The window starts
 * small, doubles on every request after that up to what the engine allows, and halves
 * when pages of it were dropped unused.
 *
 * Faults of no stream are read around where that pays: see around.c.
 *
 * start=N  first window, pages (4)      max=N  largest window, pages (1024)
 * around   (on)
 * pointers (on; always: at each fault, for tests) what the pages of a slow stream point to: see pointers.c
 */
#include <errno.h>

#include "around.h"
#include "pointers.h"
#include "policy/args.h"
#include "policy/registry.h"

#define STREAMS 5
#define CANDIDATES 8
#define STRIDE_MAX 16
#define ADVISED_WINDOW 64 /* to start with, after MADV_SEQUENTIAL */
#define WINDOW_MIN 2
#define STEP 32 /* pages asked for at a time, at least, by a stream in full swing */
#define NOISE_RANDOM 24 /* so many lone faults more than hits: looks random */
#define NOISE_MAX 64
#define WASTE_LOG 8
/* A stream that did not move during so many faults of its thread is over: its
   neighbourhood must not catch random faults for ever. */
#define IDLE_MAX 512
/* A stream that moved just now may come out behind this many pages: a policy keeps parts of what a
   program goes through again and again, and no fault is seen there. */
#define JUMP_MAX 8192
#define JUMP_FAULTS 8
#define IDLE_MAX_RANDOM 512
#define ALONG 16 /* pages that come with a fault, what the engine takes at most */
#define DENSE 8
/* Of so many pages asked for more than one in CAREFUL_ON wasted: careful, until it is one in CAREFUL_OFF. */
#define CAREFUL_ROUND 2048
#define CAREFUL_ON 3
#define CAREFUL_OFF 24
#define REACH_RANDOM (2 * ALONG + 1)

struct stream {
	uint64_t last, edge;
	uint32_t used; /* the thread's clock when it last moved */
	uint16_t window;
	int8_t stride; /* 0: free */
	uint8_t dense; /* faults in a row with no page left out between, at most DENSE */
};

/* Instead of a candidate's stride: it is the end of a group that was read around its fault, and the stream may
   go on from either end. */
#define GROUP 127

/* How struct extmem_stream is used.  A candidate is page << 8 | stride, 0: free. */
struct __attribute__((may_alias)) thread_streams {
	struct stream s[STREAMS];
	uint64_t candidate[CANDIDATES];
	uint32_t clock, waste_seen;
	uint16_t noise, next_candidate;
	uint8_t along; /* this fault brings pages of a slow stream */
};
_Static_assert(sizeof(struct thread_streams) <= sizeof(struct extmem_stream), "too large");

/* Ends of runs: page << 19 | faults so long << 16 | time, 0: free. */
#define ENDS 1024
#define END_AGE 256 /* lone faults */
#define RUN 3	     /* faults that make a stream */
#define RUN_MAX 7

/* `wasted` does not say which thread asked: it logs, and every thread looks for its own. */
struct sequential {
	unsigned start, max;
	bool around_too;
	struct em_around around;
	struct em_pointers pointers;
	uint32_t asked, wasted, careful; /* pages lately; see note_asked */
	uint32_t waste_seq;
	uint64_t waste[WASTE_LOG];
	uint64_t *ends;
	uint32_t lone; /* the clock of `ends` */
};

static int sequential_init(const struct extmem_policy_host *host, const char *args, void **state,
			   char *err, size_t err_len)
{
	struct sequential *q = host->alloc(sizeof(*q));
	struct em_arg a;

	if (!q)
		return -ENOMEM;
	q->start = 4;
	q->max = 1024;
	q->around_too = true;
	while (em_args_next(&args, &a)) {
		if (em_arg_is(&a, "start") && em_arg_number(&a, 1, 1024, &q->start))
			continue;
		if (em_arg_is(&a, "max") && em_arg_number(&a, 1, 32768, &q->max))
			continue;
		if (em_arg_is(&a, "around") && em_arg_switch(&a, &q->around_too))
			continue;
		if (em_arg_is(&a, "pointers") && em_pointers_arg(&q->pointers, &a))
			continue;
		em_args_complain(&a, "sequential",
				 "start=1..1024, max=1..32768, around=on|off, pointers=on|off|always", err,
				 err_len);
		return -EINVAL;
	}
	*state = q;
	q->ends = host->alloc(ENDS * sizeof(*q->ends));
	if (!q->ends || em_around_init(&q->around, host))
		return -ENOMEM;
	return em_pointers_init(&q->pointers, host);
}

static inline int64_t diff(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b);
}

/* Steps from `last` to `page` along the stride; 0 or less: not on the way. */
static int64_t steps(uint64_t last, uint64_t page, int stride)
{
	int64_t d = diff(page, last);

	if (stride < 0) {
		d = -d;
		stride = -stride;
	}
	if (stride == 1)
		return d;
	return d > 0 && d % stride == 0 ? d / stride : 0;
}

/* The farthest that this stream may have gone on without a fault: pages on the way were resident. */
static int64_t reach(const struct thread_streams *t, const struct stream *s)
{
	if (t->noise >= NOISE_RANDOM && (s->stride == 1 || s->stride == -1))
		return REACH_RANDOM;
	if (t->noise < NOISE_RANDOM && t->clock - s->used <= JUMP_FAULTS)
		return JUMP_MAX;
	return 2 * (int64_t)s->window + 1;
}

/* The stream that this fault continues: the nearest behind it. */
static struct stream *find(struct thread_streams *t, uint64_t page)
{
	uint32_t idle = t->noise < NOISE_RANDOM ? IDLE_MAX : IDLE_MAX_RANDOM;
	struct stream *best = NULL;
	int64_t least = INT64_MAX;
	int i;

	for (i = 0; i < STREAMS; i++) {
		struct stream *s = &t->s[i];
		int64_t n;

		if (s->stride && t->clock - s->used > idle)
			s->stride = 0;
		if (!s->stride)
			continue;
		n = steps(s->last, page, s->stride);
		if (n > 0 && n < least && n <= reach(t, s)) {
			least = n;
			best = s;
		}
	}
	return best;
}

static void halve_wasteful(struct sequential *q, struct thread_streams *t)
{
	uint32_t seq = __atomic_load_n(&q->waste_seq, __ATOMIC_RELAXED);
	uint32_t n = seq - t->waste_seen;
	int i;

	if (n > WASTE_LOG)
		n = WASTE_LOG;
	t->waste_seen = seq;
	for (; n; n--) {
		uint64_t page = __atomic_load_n(&q->waste[(seq - n) % WASTE_LOG], __ATOMIC_RELAXED);

		for (i = 0; i < STREAMS; i++) {
			struct stream *s = &t->s[i];
			int64_t behind = s->stride ? steps(page, s->edge, s->stride) : 0;

			/* asked for not long ago */
			if (behind > 0 && behind <= 4 * (int64_t)s->window && s->window > WINDOW_MIN)
				s->window /= 2;
		}
	}
}

/*
 * Where streams are short or leave pages out (the lists of a graph), much of what is read ahead of them is read in
 * vain, and what one has taught is of no use to the next.  So while much is wasted, of whatever stream, only those
 * are read ahead that have left out nothing for a while.
 */
static void note_asked(struct sequential *q, uint32_t n)
{
	uint32_t asked = __atomic_add_fetch(&q->asked, n, __ATOMIC_RELAXED), wasted;

	if (asked < CAREFUL_ROUND)
		return;
	wasted = __atomic_load_n(&q->wasted, __ATOMIC_RELAXED);
	__atomic_store_n(&q->careful, wasted * (uint64_t)(q->careful ? CAREFUL_OFF : CAREFUL_ON) > asked,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&q->asked, asked / 2, __ATOMIC_RELAXED);
	__atomic_store_n(&q->wasted, wasted / 2, __ATOMIC_RELAXED);
}

static bool may_ask(const struct sequential *q, const struct stream *s)
{
	return s->dense >= DENSE || !__atomic_load_n(&q->careful, __ATOMIC_RELAXED);
}

/* Did the stream come from `before` to where it is without leaving out a page?  npages came with the fault. */
static void note_move(struct stream *s, uint64_t before, uint32_t npages)
{
	int64_t moved = steps(before, s->last, s->stride);

	if (moved > (int64_t)npages + 1)
		s->dense = 0;
	else if (s->dense < DENSE)
		s->dense++;
}

/* Names the pages from the edge to a window beyond `last`. */
static size_t ask(struct stream *s, const struct extmem_fault *f, struct extmem_range *out,
		  size_t max)
{
	int64_t n = (int64_t)s->window - (steps(s->last, s->edge, s->stride) - 1);
	size_t k = 0;

	if (s->stride == 1) {
		if (s->edge >= f->region_end)
			return 0;
		if (n > diff(f->region_end, s->edge))
			n = diff(f->region_end, s->edge);
		out[k++] = (struct extmem_range){ s->edge, (uint32_t)n };
		s->edge += (uint64_t)n;
	} else if (s->stride == -1) {
		if (diff(s->edge, f->region_first) < 0)
			return 0;
		if (n > diff(s->edge, f->region_first) + 1)
			n = diff(s->edge, f->region_first) + 1;
		s->edge -= (uint64_t)n;
		out[k++] = (struct extmem_range){ s->edge + 1, (uint32_t)n };
	} else {
		for (; n > 0 && k < max && s->edge >= f->region_first && s->edge < f->region_end; n--) {
			out[k++] = (struct extmem_range){ s->edge, 1 };
			s->edge += (uint64_t)(int64_t)s->stride;
		}
	}
	return k;
}

/* Half a window at a time while it is small, then steadily, so that the disk is never without work.
   Strided pages are named one by one, and not all fit in one answer. */
static int64_t least_to_ask(const struct stream *s)
{
	if (s->stride != 1 && s->stride != -1)
		return 1;
	return s->window / 2 < STEP ? (s->window + 1) / 2 : STEP;
}

/* This page and those that follow, by one read. */
static size_t take_along(struct stream *s, const struct extmem_fault *f, struct extmem_range *out)
{
	uint64_t n = ALONG;

	s->last = f->page;
	s->edge = f->page + (uint64_t)((int64_t)n * s->stride);
	if (s->stride > 0 && n > f->region_end - f->page)
		n = f->region_end - f->page;
	if (s->stride < 0 && n > f->page - f->region_first + 1)
		n = f->page - f->region_first + 1;
	*out = (struct extmem_range){ s->stride > 0 ? f->page : f->page - n + 1, (uint32_t)n };
	return 1;
}

static size_t advance(struct sequential *q, struct stream *s, const struct extmem_fault *f,
		      struct extmem_range *out, size_t max)
{
	unsigned limit = f->window_max < q->max ? f->window_max : q->max;
	uint64_t before = s->last;
	int64_t ahead;
	size_t k;

	/* The engine maps runs upwards: only a forward stream moves by the whole run. */
	s->last = s->stride == 1 ? f->page + (f->npages ? f->npages : 1) - 1 : f->page;
	note_move(s, before, f->npages);
	ahead = steps(s->last, s->edge, s->stride) - 1;
	if (ahead < 0 || (!f->hit && ahead > 0)) {
		/* overtaken; or a page asked for is not there: ask again from here on */
		s->edge = s->last + (uint64_t)(int64_t)s->stride;
		ahead = 0;
	}
	if (!may_ask(q, s))
		return 0;
	if (s->window > limit)
		s->window = (uint16_t)limit;
	if (ahead && s->window - ahead < least_to_ask(s))
		return 0;
	if (s->window < limit)
		s->window = s->window * 2u < limit ? (uint16_t)(s->window * 2u) : (uint16_t)limit;
	k = s->window > ahead ? ask(s, f, out, max) : 0;
	for (size_t i = 0; i < k; i++)
		note_asked(q, out[i].npages);
	return k;
}

static struct stream *start(struct sequential *q, struct thread_streams *t,
			    const struct extmem_fault *f, int stride, unsigned window)
{
	struct stream *s = &t->s[0];
	int i;

	for (i = 1; i < STREAMS && s->stride; i++)
		if (!t->s[i].stride || (int32_t)(t->s[i].used - s->used) < 0)
			s = &t->s[i];
	s->stride = (int8_t)stride;
	s->dense = 0;
	s->last = f->page;
	s->edge = f->page + (uint64_t)(int64_t)stride;
	/* advance() doubles before it asks */
	s->window = (uint16_t)((window < q->max ? window : q->max) / 2);
	if (!s->window)
		s->window = 1;
	return s;
}

static uint64_t *end_at(struct sequential *q, uint64_t page)
{
	return &q->ends[(page * 0x9e3779b97f4a7c15ull >> 32) % ENDS];
}

/* Faults in the run that ends at this page, 0: none that is remembered. */
static unsigned run_until(struct sequential *q, uint64_t page, uint32_t now)
{
	uint64_t e = __atomic_load_n(end_at(q, page), __ATOMIC_RELAXED);

	return e >> 19 == page && ((now - e) & 0xffff) < END_AGE ? (e >> 16) & RUN_MAX : 0;
}

static void remember_run(struct sequential *q, uint64_t page, unsigned length, uint32_t now)
{
	__atomic_store_n(end_at(q, page),
			 page << 19 | (uint64_t)(length < RUN_MAX ? length : RUN_MAX) << 16 |
				 (now & 0xffff), __ATOMIC_RELAXED);
}

/* The direction of the run of faults, of whatever thread, that a fault at pages [first, last] makes a stream;
   0: none. */
static int direction(struct sequential *q, uint64_t first, uint64_t last)
{
	uint32_t now = __atomic_add_fetch(&q->lone, 1, __ATOMIC_RELAXED);
	unsigned up = run_until(q, first - 1, now) + 1, down = run_until(q, last + 1, now) + 1;

	remember_run(q, first, down, now);
	if (first != last || up > down)
		remember_run(q, last, up, now);
	if (up < RUN && down < RUN)
		return 0;
	return up >= down ? 1 : -1;
}

/* A fault of no stream: does it follow an earlier one?  Remembers it if not.  group: what is read around
   it, or NULL. */
static struct stream *consider(struct sequential *q, struct thread_streams *t,
			       const struct extmem_fault *f, const struct extmem_range *group)
{
	uint64_t end = f->page + (f->npages > 1 ? f->npages - 1 : 0), first = f->page;
	int i;

	if (group) {
		end = group->first + group->npages - 1;
		first = group->first;
	}
	for (i = 0; i < CANDIDATES; i++) {
		uint64_t c = t->candidate[i];
		int64_t d = diff(f->page, c >> 8);
		int stride = (int8_t)c;

		/* backwards it is the group's other end that counts */
		if (stride == GROUP && d < 0)
			d += EM_AROUND_PAGES - 1;
		if (!c || d == 0 || d > STRIDE_MAX || d < -STRIDE_MAX)
			continue;
		if (d == stride || (d == 1 && t->noise < NOISE_RANDOM)) {
			t->candidate[i] = 0;
			return start(q, t, f, (int)d, q->start);
		}
		t->candidate[i] = (d < 0 && group ? group->first : end) << 8 | (uint8_t)d;
		return NULL;
	}
	i = direction(q, first, end);
	if (i)
		return start(q, t, f, i, q->start);
	t->candidate[t->next_candidate++ % CANDIDATES] = end << 8 | (group ? GROUP : 0);
	if (t->noise < NOISE_MAX)
		t->noise++;
	return NULL;
}

/* Does the stream move slowly among random faults: more than one of those for each page?  Before it is advanced. */
static bool is_slow(const struct thread_streams *t, const struct stream *s,
		    const struct extmem_fault *f)
{
	int64_t moved = steps(s->last, f->page, s->stride);

	return t->noise >= NOISE_RANDOM && (s->stride == 1 || s->stride == -1) &&
	       t->clock - s->used > (uint64_t)(moved > 0 ? moved : 1);
}

static size_t sequential_fault(void *state, struct extmem_stream *stream,
			       const struct extmem_fault *f, struct extmem_range *out, size_t max)
{
	struct sequential *q = state;
	struct thread_streams *t = (struct thread_streams *)stream->word;
	struct stream *s;
	size_t n = 0;
	bool slow;

	t->along = false;
	if (f->advice == EXTMEM_ADVICE_RANDOM || f->window_max < WINDOW_MIN)
		return 0;
	t->clock++;
	if (!f->hit)
		em_pointers_fault(&q->pointers, f->page);
	if (t->waste_seen != __atomic_load_n(&q->waste_seq, __ATOMIC_RELAXED))
		halve_wasteful(q, t);
	s = find(t, f->page);
	if (s)
		t->noise -= t->noise < 4 ? t->noise : 4;
	else if (f->advice == EXTMEM_ADVICE_SEQUENTIAL)
		s = start(q, t, f, 1, ADVISED_WINDOW);
	else {
		if (q->around_too && !f->hit)
			n = em_around_fault(&q->around, f, out);
		s = consider(q, t, f, n ? out : NULL);
	}
	if (!s)
		return n;
	slow = is_slow(t, s, f);
	s->used = t->clock;
	if (slow && !f->hit) {
		t->along = true;
		return take_along(s, f, out);
	}
	if (slow) {
		s->last = f->page;
		return 0;
	}
	return advance(q, s, f, out, max);
}

static void sequential_wasted(void *state, extmem_page_t page, uint32_t npages)
{
	struct sequential *q = state;
	uint32_t at = __atomic_fetch_add(&q->waste_seq, 1, __ATOMIC_RELAXED);

	__atomic_fetch_add(&q->wasted, npages, __ATOMIC_RELAXED);
	__atomic_store_n(&q->waste[at % WASTE_LOG], page, __ATOMIC_RELAXED);
}

static size_t sequential_content(void *state, struct extmem_stream *stream, extmem_page_t page,
				 const uint64_t *word, size_t n, extmem_page_t *out, size_t max)
{
	struct sequential *q = state;
	const struct thread_streams *t = (const struct thread_streams *)stream->word;

	(void)page;
	return em_pointers_find(&q->pointers, t->along, word, n, out, max);
}

const struct extmem_prefetch_ops em_prefetch_sequential = {
	.size = sizeof(struct extmem_prefetch_ops),
	.abi = EXTMEM_POLICY_ABI,
	.name = "sequential",
	.description = "read-ahead for sequential and strided access, window adapts; "
		       "neighbours of other faults where they are used; "
		       "args: start=PAGES,max=PAGES,around=on|off",
	.init = sequential_init,
	.fault = sequential_fault,
	.wasted = sequential_wasted,
	.content = sequential_content,
};
