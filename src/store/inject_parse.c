/* SPDX-License-Identifier: MIT */
/* Reading EXTMEM_INJECT.  Ordinary context. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inject.h"

static const struct {
	const char *name;
	int value;
} ops[] = {{"read", EM_INJECT_READ},
	   {"write", EM_INJECT_WRITE},
	   {"io", EM_INJECT_READ | EM_INJECT_WRITE},
	   {"grow", EM_INJECT_GROW},
	   {"any", EM_INJECT_READ | EM_INJECT_WRITE | EM_INJECT_GROW}},
  errors[] = {{"eio", EIO},	    {"enospc", ENOSPC},	      {"eagain", EAGAIN},
	      {"eintr", EINTR},	    {"enomem", ENOMEM},	      {"efbig", EFBIG},
	      {"edquot", EDQUOT},   {"erofs", EROFS},	      {"etimedout", ETIMEDOUT},
	      {"enodev", ENODEV}};

static bool number(const char *text, uint32_t *out)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || v > UINT32_MAX)
		return false;
	*out = (uint32_t)v;
	return true;
}

static bool slots(char *text, struct em_inject_rule *r)
{
	char *dash = strchr(text, '-');

	if (!dash)
		return number(text, &r->slot_first) && number(text, &r->slot_last);
	*dash = 0;
	return number(text, &r->slot_first) && number(dash + 1, &r->slot_last);
}

static bool what(const char *text, struct em_inject_rule *r)
{
	uint32_t v;

	if (!strncmp(text, "short=", 6) && number(text + 6, &v) && v && v <= INT_MAX) {
		r->result = (int)v;
		return true;
	}
	if (!strncmp(text, "delay=", 6))
		return number(text + 6, &r->delay_ms) && r->delay_ms;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (!strcmp(text, errors[i].name)) {
			r->result = -errors[i].value;
			return true;
		}
	if (!number(text, &v) || !v || v > 4095)
		return false;
	r->result = -(int)v;
	return true;
}

static bool key(char *item, struct em_inject *in, struct em_inject_rule *r)
{
	char *value = strchr(item, '=');
	uint32_t seed;

	if (!value)
		return false;
	*value++ = 0;
	if (!strcmp(item, "when")) {
		if (strlen(value) >= sizeof(r->when))
			return false;
		strcpy(r->when, value);
		return true;
	}
	if (!strcmp(item, "seed")) {
		if (!number(value, &seed))
			return false;
		in->seed = seed;
		return true;
	}
	return !strcmp(item, "slots")	? slots(value, r)
	       : !strcmp(item, "rate")	? number(value, &r->per_mille)
	       : !strcmp(item, "every") ? number(value, &r->every)
	       : !strcmp(item, "after") ? number(value, &r->after)
	       : !strcmp(item, "count") ? number(value, &r->count)
					: false;
}

static bool rule(char *text, struct em_inject *in)
{
	struct em_inject_rule *r = &in->rule[in->n];
	char *colon = strchr(text, ':'), *save = NULL, *item;

	if (!colon || in->n == sizeof(in->rule) / sizeof(in->rule[0]))
		return false;
	*colon = 0;
	*r = (struct em_inject_rule){
		.slot_last = UINT32_MAX, .per_mille = 1000, .count = UINT32_MAX};
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (!strcmp(text, ops[i].name))
			r->ops = (unsigned)ops[i].value;
	item = strtok_r(colon + 1, ",", &save);
	if (!r->ops || !item || !what(item, r))
		return false;
	while ((item = strtok_r(NULL, ",", &save)))
		if (!key(item, in, r))
			return false;
	in->n++;
	return true;
}

int em_inject_parse(const char *text, struct em_inject *out, char *err, size_t err_len)
{
	char *copy = strdup(text), *save = NULL;
	int ret = copy ? 0 : -ENOMEM;

	memset(out, 0, sizeof(*out));
	for (char *r = copy ? strtok_r(copy, ";", &save) : NULL; r && !ret;
	     r = strtok_r(NULL, ";", &save))
		if (!rule(r, out))
			ret = -EINVAL;
	free(copy);
	if (ret && err && err_len)
		snprintf(err, err_len, "EXTMEM_INJECT=%.200s: not a list of faults; for tests only",
			 text);
	return ret;
}
