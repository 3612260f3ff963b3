/* SPDX-License-Identifier: MIT */
/* One line of the control protocol: see control.h.  Whatever the bytes are, nothing else is touched. */
#include "control.h"

#include <errno.h>

struct word {
	const char *at;
	size_t len;
};

/* The next word of *rest; words are separated by exactly one space. */
static bool next_word(struct word *rest, struct word *w)
{
	size_t n = 0;

	while (n < rest->len && rest->at[n] != ' ')
		n++;
	w->at = rest->at;
	w->len = n;
	if (n < rest->len)
		n++;
	rest->at += n;
	rest->len -= n;
	return w->len > 0;
}

static bool is(const struct word *w, const char *text)
{
	size_t i;

	for (i = 0; i < w->len; i++)
		if (!text[i] || w->at[i] != text[i])
			return false;
	return !text[i];
}

static bool number(const struct word *w, uint64_t *out)
{
	uint64_t v = 0;

	if (!w->len || w->len > 19)
		return false;
	for (size_t i = 0; i < w->len; i++) {
		if (w->at[i] < '0' || w->at[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(w->at[i] - '0');
	}
	*out = v;
	return true;
}

static bool copy(char *to, size_t room, const char *from, size_t len)
{
	if (len >= room)
		return false;
	for (size_t i = 0; i < len; i++)
		to[i] = from[i];
	to[len] = 0;
	return true;
}

static bool policy(const struct word *w, struct em_control_request *r)
{
	size_t n = 0;

	while (n < w->len && w->at[n] != ',')
		n++;
	if (!n || !copy(r->name, sizeof(r->name), w->at, n))
		return false;
	if (n < w->len)
		n++;
	return copy(r->args, sizeof(r->args), w->at + n, w->len - n);
}

static const char *verb_with_argument(const struct word *verb, const struct word *arg,
				      struct em_control_request *r)
{
	if (is(verb, "budget")) {
		r->verb = EM_CONTROL_BUDGET;
		return number(arg, &r->bytes) ? NULL : "budget: not a number of bytes";
	}
	if (is(verb, "policy")) {
		r->verb = EM_CONTROL_POLICY;
		return policy(arg, r) ? NULL : "policy: not a NAME[,key=value]...";
	}
	if (is(verb, "evict") || is(verb, "load")) {
		r->verb = is(verb, "evict") ? EM_CONTROL_EVICT : EM_CONTROL_LOAD;
		return is(arg, "all") ? NULL : "only 'all' can be evicted or loaded";
	}
	return is(verb, "stats") ? "stats: takes no argument" : "request not known";
}

static const char *parse(struct word *rest, struct em_control_request *r)
{
	struct word magic, version, verb, arg;

	if (!next_word(rest, &magic) || !is(&magic, "extmem"))
		return "not a request for extmem";
	if (!next_word(rest, &version) || !is(&version, "1"))
		return "another version of the protocol; this program speaks 1: use its own extmem";
	if (!next_word(rest, &verb))
		return "request without a verb";
	if (!next_word(rest, &arg)) {
		r->verb = EM_CONTROL_STATS;
		return is(&verb, "stats") ? NULL : "request not known, or its argument is missing";
	}
	if (rest->len)
		return "request with too many words";
	return verb_with_argument(&verb, &arg, r);
}

int em_control_parse(const char *line, size_t len, struct em_control_request *r, const char **why)
{
	struct word rest = { line, len };

	*why = NULL;
	r->name[0] = r->args[0] = 0;
	r->bytes = 0;
	for (size_t i = 0; i < len && !*why; i++)
		if (line[i] < ' ' || line[i] > '~')
			*why = "request with a byte that is not printable";
	if (!*why && len >= EM_CONTROL_LINE)
		*why = "request too long";
	if (!*why)
		*why = parse(&rest, r);
	return *why ? -EINVAL : 0;
}
