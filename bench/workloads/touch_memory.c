/* SPDX-License-Identifier: MIT */
#include "touch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_STRIDE 64u
#define REPORTS_MAX 8u

static const struct {
	const char *name;
	enum touch_pattern pattern;
	unsigned write_percent;
} patterns[] = {
	{"seq-read", TOUCH_SEQ, 0},	{"seq-write", TOUCH_SEQ, 100},
	{"rand-read", TOUCH_RAND, 0},	{"rand-write", TOUCH_RAND, 100},
	{"hot", TOUCH_HOT, 0},		{"back", TOUCH_BACK, 0},
	{"two-streams", TOUCH_TWO_STREAMS, 0},
};

bool touch_pattern_parse(struct touch_options *o, const char *name)
{
	o->pattern_name = name;
	if (!strncmp(name, "stride=", 7)) {
		o->pattern = TOUCH_STRIDE;
		o->stride = wl_parse_size("pattern", name + 7);
		o->write_percent = 0;
		return o->stride > 0;
	}
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		if (!strcmp(name, patterns[i].name)) {
			o->pattern = patterns[i].pattern;
			o->write_percent = patterns[i].write_percent;
			return true;
		}
	}
	return false;
}

/* Nine touches of ten go to one page in ten, and the hot pages are not neighbours. */
static uint64_t next_hot(struct touch_worker *w)
{
	uint64_t r = touch_random(w);
	uint64_t group, page;

	if (r % 10 == 0 || w->pages < 10)
		return (r >> 8) % w->pages;
	group = (r >> 8) % (w->pages / 10);
	page = group * 10 + wl_mix64(group) % 10;
	return page;
}

/* Every stride-th page, then the same one page further on: all pages come up in the end. */
static uint64_t next_stride(struct touch_worker *w)
{
	uint64_t page = w->at;

	w->at += w->o->stride;
	if (w->at >= w->pages)
		w->at = (w->at % w->o->stride + 1) % w->o->stride % w->pages;
	return page;
}

uint64_t touch_next_page(struct touch_worker *w)
{
	uint64_t at = w->at;

	switch (w->o->pattern) {
	case TOUCH_RAND:
		return w->first + touch_random(w) % w->pages;
	case TOUCH_HOT:
		return w->first + next_hot(w);
	case TOUCH_STRIDE:
		return w->first + next_stride(w);
	case TOUCH_SEQ:
	case TOUCH_BACK:
	case TOUCH_TWO_STREAMS:
		break;
	}
	w->at = at + 1 < w->pages ? at + 1 : 0;
	if (w->o->pattern == TOUCH_BACK)
		return w->first + w->pages - 1 - at;
	if (w->o->pattern == TOUCH_TWO_STREAMS)
		return w->first + at / 2 + (at & 1) * (w->pages / 2);
	return w->first + at;
}

static uint64_t content(const struct touch_worker *w, uint64_t index, uint8_t version)
{
	uint64_t word = index % WL_PAGE_WORDS;

	if (w->o->distinct && word >= w->o->distinct)
		return touch_word(index - word, 0);
	return touch_word(index, version);
}

void touch_fill(struct touch_worker *w)
{
	uint64_t end = (w->first + w->pages) * WL_PAGE_WORDS;

	for (uint64_t i = w->first * WL_PAGE_WORDS; i < end; i++)
		w->memory[i] = content(w, i, 0);
}

static void report(struct touch_worker *w, uint64_t index, uint64_t want, uint64_t got)
{
	if (w->errors++ < REPORTS_MAX)
		fprintf(stderr,
			"touch: wrong memory: page %llu word %llu version %u: "
			"expected %016llx, found %016llx\n",
			(unsigned long long)(index / WL_PAGE_WORDS),
			(unsigned long long)(index % WL_PAGE_WORDS),
			w->version[index / WL_PAGE_WORDS], (unsigned long long)want,
			(unsigned long long)got);
}

static void check(struct touch_worker *w, uint64_t index)
{
	uint64_t word = index % WL_PAGE_WORDS;
	uint8_t version = word == TOUCH_VERSION_WORD ? w->version[index / WL_PAGE_WORDS] : 0;
	uint64_t want = content(w, index, version);
	uint64_t got = *(volatile uint64_t *)&w->memory[index];

	if (got != want)
		report(w, index, want, got);
}

/* A write is a plain store without a look at the page first, as the versions are elsewhere; an
   update looks. */
void touch_page(struct touch_worker *w, uint64_t page, bool write)
{
	uint64_t index = page * WL_PAGE_WORDS;

	if (!write) {
		check(w, index + (w->touches * 8 + page) % WL_PAGE_WORDS);
		return;
	}
	index += TOUCH_VERSION_WORD;
	if (w->o->update)
		check(w, index);
	*(volatile uint64_t *)&w->memory[index] = touch_word(index, ++w->version[page]);
}

void touch_verify(struct touch_worker *w)
{
	uint64_t step = w->o->verify == TOUCH_VERIFY_FULL ? 1 : SAMPLE_STRIDE;

	for (uint64_t p = w->first; p < w->first + w->pages; p += step)
		for (uint64_t i = 0; i < WL_PAGE_WORDS; i++)
			check(w, p * WL_PAGE_WORDS + i);
}
