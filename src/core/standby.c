/* SPDX-License-Identifier: MIT */
/*
 * The frames of standby.  They come in segments of addresses and get memory when they are first used.
 * Each is on one list, or on none between two steps of who uses it:
 *
 *   DIRTY	holds a page that has no copy in the store, oldest first
 *   CLEAN	holds a page that has; used again for others, oldest first
 *   FREE	has memory
 *   DRY	has none
 *
 * A page on DIRTY or CLEAN is STAGED, or somebody owns it at the moment: then its word cannot be taken, and its
 * frame is passed over.  Who owns a page may use its frame without the lock.
 */
#include "standby.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "meta.h"
#include "sys.h"

enum { SETTLE = 128, SEG_SHIFT = 10, SEG_FRAMES = 1 << SEG_SHIFT, SEGS_MAX = 1 << 14, TRIES = 8 };

enum {
	RESERVE_PART = 4, /* of the frames are written ahead */
	SAMPLE = 8,	  /* one batch in so many is kept, in as small a part of the frames, to see whether it pays */
	PAYS = 6,	  /* it does when one page in so many comes back from there, */
	PAYS_NO_MORE = 8,
	/* So many of a hundred come back: nearly all that is evicted is in use, and would rather stay where it is
	   than be copied twice, so there are fewer frames; so few: there are more again. */
	CROWDED = 40,
	ROOMY = 25,
	WINDOW_MIN = 64,
};

#define NONE UINT32_MAX

enum list_name { LIST_NONE, LIST_DIRTY, LIST_CLEAN, LIST_FREE, LIST_DRY, LISTS };

struct entry {
	uintptr_t addr;
	em_slot_t slot;
	uint32_t prev, next;
	uint8_t list;
};

static struct {
	struct em_mutex lock;
	struct {
		uint32_t first, last, n; /* frame + 1, 0: none */
	} list[LISTS];
	struct entry *entry[SEGS_MAX];
	char *frame[SEGS_MAX];
	uint32_t nseg;
	uint32_t budget; /* frames that may have memory when standby pays, */
	uint32_t most;	 /* and now */
	uint32_t part;	 /* the budget is divided by that while standby pays: 1 to SAMPLE */
	uint32_t wet;	 /* frames that have */
	uint32_t turn, kept, used; /* batches; pages, since the last verdict */
	bool pays, young; /* young: the frames have not been round once since that changed */
	bool refused;	  /* the kernel does not let us read ourselves */
} sb;

static struct entry *entry_of(uint32_t f)
{
	return &sb.entry[f >> SEG_SHIFT][f % SEG_FRAMES];
}

static char *memory_of(uint32_t f)
{
	return sb.frame[f >> SEG_SHIFT] + (f % SEG_FRAMES) * EM_PAGE_SIZE;
}

static void append(enum list_name name, uint32_t f)
{
	struct entry *e = entry_of(f);

	e->list = (uint8_t)name;
	e->prev = sb.list[name].last;
	e->next = 0;
	if (e->prev)
		entry_of(e->prev - 1)->next = f + 1;
	else
		sb.list[name].first = f + 1;
	sb.list[name].last = f + 1;
	sb.list[name].n++;
}

static void detach(uint32_t f)
{
	struct entry *e = entry_of(f);
	enum list_name name = e->list;

	if (e->prev)
		entry_of(e->prev - 1)->next = e->next;
	else
		sb.list[name].first = e->next;
	if (e->next)
		entry_of(e->next - 1)->prev = e->prev;
	else
		sb.list[name].last = e->prev;
	sb.list[name].n--;
	e->list = LIST_NONE;
}

static uint32_t pop(enum list_name name)
{
	uint32_t f = sb.list[name].first;

	if (!f)
		return NONE;
	detach(f - 1);
	return f - 1;
}

/* ---- frames ------------------------------------------------------------------------------ */

static void set_most(void)
{
	uint32_t most = sb.budget / (sb.pays ? sb.part : SAMPLE);

	if (em_engine.opt.standby_always)
		most = sb.budget;
	else if (sb.budget && !most)
		most = 1;
	__atomic_store_n(&sb.most, most, __ATOMIC_RELAXED);
}

/* A page that is touched at random comes back from standby as often as its frame would have served it where it
   was, so keeping it costs two copies and gains nothing; a stream's never does.  Pages that are in
   use, and were evicted because nobody can see that, come back more often.  After each change the frames
   have to go round once before the next. */
static void judge(void)
{
	bool pays = sb.used >= sb.kept / (sb.pays ? PAYS_NO_MORE : PAYS);
	uint32_t part = sb.part, percent;

	if (sb.kept < sb.most || sb.kept < WINDOW_MIN)
		return;
	percent = (uint32_t)(sb.used * 100ull / sb.kept);
	sb.kept = sb.used = 0;
	if (sb.young) {
		sb.young = false;
		return;
	}
	if (sb.pays && percent >= CROWDED && part < SAMPLE)
		part *= 2;
	else if (sb.pays && percent <= ROOMY && part > 1)
		part /= 2;
	sb.young = part != sb.part || pays != sb.pays;
	sb.part = part;
	sb.pays = pays;
	if (sb.young)
		set_most();
}

void em_standby_set_budget(uint64_t budget_pages)
{
	uint64_t most = budget_pages * em_engine.opt.standby_percent / 100;

	if (most > (uint64_t)SEGS_MAX * SEG_FRAMES)
		most = (uint64_t)SEGS_MAX * SEG_FRAMES;
	em_mutex_lock(&sb.lock);
	sb.budget = (uint32_t)most;
	sb.part = sb.part ? sb.part : 1;
	set_most();
	em_mutex_unlock(&sb.lock);
}

uint32_t em_standby_pages(void)
{
	return __atomic_load_n(&sb.wet, __ATOMIC_RELAXED);
}

static bool is_off(void)
{
	/* Without write protection pages are lifted out; they cannot be copied in peace.  With handler threads
	   a page that was discarded unseen would wait for one of them while it is copied, and that for us. */
	return !__atomic_load_n(&sb.most, __ATOMIC_RELAXED) ||
	       __atomic_load_n(&sb.refused, __ATOMIC_RELAXED) ||
	       em_engine.opt.delivery == EM_DELIVERY_THREAD ||
	       (em_engine.opt.feature_mask & EM_FEAT_VM_READ) || !(em_uffd.features & EM_FEAT_WP);
}

static bool add_segment(void)
{
	uint32_t s = sb.nseg;

	if (s == SEGS_MAX || !em_meta_has_spare(SEG_FRAMES * EM_PAGE_SIZE))
		return false;
	sb.entry[s] = em_meta_alloc(SEG_FRAMES * sizeof(struct entry));
	sb.frame[s] = sb.entry[s] ? em_meta_alloc_addresses(SEG_FRAMES * EM_PAGE_SIZE) : NULL;
	if (!sb.frame[s]) {
		em_meta_free(sb.entry[s], SEG_FRAMES * sizeof(struct entry));
		return false;
	}
	sb.nseg++;
	for (uint32_t i = 0; i < SEG_FRAMES; i++)
		append(LIST_DRY, s * SEG_FRAMES + i);
	return true;
}

/* The word of the page in frame f if nobody owns it, else NULL; *w: as it was seen. */
static em_word_t *free_page(uint32_t f, em_word_t *w)
{
	em_word_t *wp = em_space_word(entry_of(f)->addr);

	*w = wp ? em_word_load(wp) : 0;
	if (!em_word_is_free(*w) || em_word_state(*w) != EM_STAGED ||
	    em_word_slot(*w) != f + EM_STANDBY_FRAME)
		return NULL;
	return wp;
}

/* The page that has been clean longest leaves memory for good. */
static uint32_t take_oldest(void)
{
	uint32_t at = sb.list[LIST_CLEAN].first;

	for (int i = 0; i < TRIES && at; i++, at = entry_of(at - 1)->next) {
		em_word_t w, *wp = free_page(at - 1, &w);

		if (!wp || !em_word_take_slot(wp, &w, EM_SWAPPED, entry_of(at - 1)->slot))
			continue;
		detach(at - 1);
		return at - 1;
	}
	return NONE;
}

/* A frame gets memory while that stays within the budget. */
static uint32_t take_dry(void)
{
	uint32_t f;

	if (sb.wet >= __atomic_load_n(&sb.most, __ATOMIC_RELAXED) ||
	    em_budget_used() >= em_budget.limit || (!sb.list[LIST_DRY].first && !add_segment()))
		return NONE;
	f = pop(LIST_DRY);
	__atomic_store_n(&sb.wet, sb.wet + 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&em_budget.resident, 1, __ATOMIC_RELAXED);
	return f;
}

static uint32_t take_frame(void)
{
	uint32_t f = pop(LIST_FREE);

	if (f == NONE)
		f = take_dry();
	return f == NONE ? take_oldest() : f;
}

static void dry_up(uint32_t f)
{
	em_sys_madvise(memory_of(f), EM_PAGE_SIZE, MADV_DONTNEED);
	append(LIST_DRY, f);
	__atomic_store_n(&sb.wet, sb.wet - 1, __ATOMIC_RELAXED);
	em_uncharge(1);
}

uint32_t em_standby_shrink(uint32_t n)
{
	uint32_t k, f = 0;

	/* Faulting threads come between: each page may cost a shootdown. */
	for (k = 0; k < n && f != NONE; k += f != NONE) {
		em_mutex_lock(&sb.lock);
		f = pop(LIST_FREE);
		if (f == NONE)
			f = take_oldest();
		if (f != NONE)
			dry_up(f);
		em_mutex_unlock(&sb.lock);
	}
	return k;
}

bool em_standby_settle(void)
{
	uint32_t wet = em_standby_pages(), most = __atomic_load_n(&sb.most, __ATOMIC_RELAXED);
	uint32_t n = wet > most ? wet - most : 0;

	return n && em_standby_shrink(n < SETTLE ? n : SETTLE) == SETTLE;
}

/* ---- reclaim ----------------------------------------------------------------------------- */

void em_standby_assign(struct em_batch *b)
{
	bool none = is_off();

	for (uint32_t i = 0; i < b->n; i++)
		b->v[i].frame = EM_SLOT_NONE;
	if (none)
		return;
	em_mutex_lock(&sb.lock);
	judge();
	none = !sb.pays && !em_engine.opt.standby_always && ++sb.turn % SAMPLE;
	for (uint32_t i = 0; i < b->n && !none; i++) {
		struct em_victim *v = &b->v[i];
		uint32_t f;

		if (v->kind == V_SKIP || v->far)
			continue;
		f = take_frame();
		none = f == NONE;
		if (!none)
			v->frame = f + EM_STANDBY_FRAME;
		if (!none && v->kind == V_DIRTY)
			v->kind = V_KEPT;
	}
	em_mutex_unlock(&sb.lock);
	if (em_standby_low())
		em_service_kick();
}

void em_standby_return(struct em_victim *v)
{
	em_mutex_lock(&sb.lock);
	append(LIST_FREE, v->frame - EM_STANDBY_FRAME);
	em_mutex_unlock(&sb.lock);
	v->frame = EM_SLOT_NONE;
}

/* By the kernel, which is asked for all at once and minds no page that the program itself may not read. */
void em_standby_copy(struct em_batch *b, enum victim_kind kind)
{
	long tid = em_syscall0(SYS_gettid), ret;
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != kind || v->frame == EM_SLOT_NONE)
			continue;
		b->copied[n] = v;
		b->copy_to[n] = (struct iovec){ em_standby_content(v->frame), EM_PAGE_SIZE };
		b->copy_from[n++] = (struct iovec){ (void *)v->addr, EM_PAGE_SIZE };
	}
	for (uint32_t at = 0; at < n; at++) {
		ret = sb.refused ? -EPERM
				 : em_syscall6(SYS_process_vm_readv, tid, (long)(b->copy_to + at),
					       n - at, (long)(b->copy_from + at), n - at, 0);
		if (ret < 0 && ret != -EFAULT && ret != -ENOMEM)
			__atomic_store_n(&sb.refused, true, __ATOMIC_RELAXED);
		at += ret > 0 ? (uint32_t)(ret >> EM_PAGE_SHIFT) : 0;
		if (at < n && em_read_forced(b->copied[at]->addr, b->copy_to[at].iov_base))
			em_standby_return(b->copied[at]);
	}
}

void em_standby_publish(struct em_victim *v, em_word_t stamp)
{
	uint32_t f = v->frame - EM_STANDBY_FRAME;
	struct entry *e = entry_of(f);

	e->addr = v->addr;
	e->slot = v->slot;
	em_mutex_lock(&sb.lock);
	append(v->slot == EM_SLOT_NONE ? LIST_DIRTY : LIST_CLEAN, f);
	sb.kept++;
	em_mutex_unlock(&sb.lock);
	em_word_release(v->wp, EM_STAGED, v->frame, EM_W_STAMP, stamp);
	em_stat_inc(standby_kept);
}

/* ---- pages ------------------------------------------------------------------------------- */

char *em_standby_content(uint32_t frame)
{
	return memory_of(frame - EM_STANDBY_FRAME);
}

em_slot_t em_standby_slot(uint32_t frame)
{
	return entry_of(frame - EM_STANDBY_FRAME)->slot;
}

void em_standby_put(uint32_t frame, bool used)
{
	uint32_t f = frame - EM_STANDBY_FRAME;

	em_mutex_lock(&sb.lock);
	sb.used += used;
	detach(f);
	append(LIST_FREE, f);
	em_mutex_unlock(&sb.lock);
}

void em_standby_moved(uint32_t frame, uintptr_t to)
{
	em_mutex_lock(&sb.lock);
	entry_of(frame - EM_STANDBY_FRAME)->addr = to;
	em_mutex_unlock(&sb.lock);
}

/* ---- writing ----------------------------------------------------------------------------- */

bool em_standby_low(void)
{
	uint32_t ready = __atomic_load_n(&sb.list[LIST_CLEAN].n, __ATOMIC_RELAXED) +
			 __atomic_load_n(&sb.list[LIST_FREE].n, __ATOMIC_RELAXED);
	uint32_t wet = em_standby_pages(), most = __atomic_load_n(&sb.most, __ATOMIC_RELAXED);
	uint32_t reserve = most < RESERVE_PART ? 1 : most / RESERVE_PART;

	return __atomic_load_n(&sb.list[LIST_DIRTY].n, __ATOMIC_RELAXED) &&
	       (wet > most || (wet + reserve >= most && ready < reserve));
}

/* Addresses of the oldest pages that have not been written. */
static uint32_t collect_dirty(struct em_batch *b)
{
	uint32_t n = 0, at;

	em_mutex_lock(&sb.lock);
	for (at = sb.list[LIST_DIRTY].first; at && n < EM_BATCH_PAGES; at = entry_of(at - 1)->next)
		b->page[n++] = entry_of(at - 1)->addr >> EM_PAGE_SHIFT;
	em_mutex_unlock(&sb.lock);
	return n;
}

static bool claim_dirty(struct em_batch *b, uintptr_t addr)
{
	struct em_victim *v = &b->v[b->n];
	em_word_t *wp = em_space_word(addr), w = wp ? em_word_load(wp) : 0;
	uint32_t frame = em_word_slot(w);

	if (!em_word_is_free(w) || em_word_state(w) != EM_STAGED || !em_frame_is_standby(frame) ||
	    !em_word_take(wp, &w, EM_LIFTING))
		return false;
	if (em_standby_slot(frame) != EM_SLOT_NONE) {
		em_word_release(wp, EM_STAGED, frame, 0, 0);
		return false;
	}
	*v = (struct em_victim){ .addr = addr, .wp = wp, .frame = frame, .kind = V_STANDBY };
	b->n++;
	return true;
}

bool em_standby_clean_start(struct em_batch *b)
{
	uint32_t n = collect_dirty(b);

	em_reclaim_sort(b->page, n);
	b->n = 0;
	for (uint32_t i = 0; i < n; i++)
		claim_dirty(b, b->page[i] << EM_PAGE_SHIFT);
	em_mutex_lock(&sb.lock);
	for (uint32_t i = 0; i < b->n; i++)
		detach(b->v[i].frame - EM_STANDBY_FRAME);
	em_mutex_unlock(&sb.lock);
	em_writeback_assign_slots(b);
	em_writeback_build(b);
	return b->nio;
}

void em_standby_let_go(struct em_victim *v, em_slot_t slot)
{
	uint32_t f = v->frame - EM_STANDBY_FRAME;

	entry_of(f)->slot = slot;
	em_mutex_lock(&sb.lock);
	append(slot == EM_SLOT_NONE ? LIST_DIRTY : LIST_CLEAN, f);
	em_mutex_unlock(&sb.lock);
	em_word_release(v->wp, EM_STAGED, v->frame, 0, 0);
	v->kind = V_SKIP;
}

void em_standby_clean_finish(struct em_batch *b)
{
	uint32_t done = 0;

	em_writeback_settle(b);
	for (uint32_t i = 0; i < b->n; i++) {
		struct em_victim *v = &b->v[i];

		if (v->kind != V_STANDBY)
			continue;
		if (v->err)
			em_slots_free(em_engine.store, v->slot);
		if (!v->err) {
			em_victim_count(v, false);
			done++;
		}
		em_standby_let_go(v, v->err ? EM_SLOT_NONE : v->slot);
	}
	em_stat_add(pages_out, done);
}

void em_standby_flush(void)
{
	struct em_batch *b = em_batch_get();
	/* Not what comes meanwhile: a fork waits for us. */
	int64_t left = __atomic_load_n(&sb.list[LIST_DIRTY].n, __ATOMIC_RELAXED);

	for (; b && left > 0 && em_standby_clean_start(b); left -= b->n) {
		em_writeback_now(b);
		em_standby_clean_finish(b);
	}
	if (b)
		em_batch_put(b);
	em_standby_shrink(UINT32_MAX);
}

#ifdef EM_DEBUG
static bool holds_its_pages(enum list_name name)
{
	uint32_t n = 0, at;

	for (at = sb.list[name].first; at; at = entry_of(at - 1)->next, n++) {
		em_word_t w;

		if (!free_page(at - 1, &w) || entry_of(at - 1)->list != name ||
		    (entry_of(at - 1)->slot == EM_SLOT_NONE) != (name == LIST_DIRTY))
			return false;
	}
	return n == sb.list[name].n;
}

bool em_standby_is_valid(uint32_t npages)
{
	uint32_t held = sb.list[LIST_DIRTY].n + sb.list[LIST_CLEAN].n;

	return holds_its_pages(LIST_DIRTY) && holds_its_pages(LIST_CLEAN) && held == npages &&
	       held + sb.list[LIST_FREE].n == sb.wet &&
	       sb.wet + sb.list[LIST_DRY].n == sb.nseg * SEG_FRAMES;
}
#endif
