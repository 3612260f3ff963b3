/* SPDX-License-Identifier: MIT */
/*
 * "key=value,key=value" without libc, so that a policy file stays pure island code
 * although its init callback parses arguments.
 */
#ifndef EM_POLICY_ARGS_H
#define EM_POLICY_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct em_arg {
	const char *key, *value; /* not terminated */
	size_t key_len, value_len;
};

/* Takes the next pair off *args; false at the end.  A key without '=' has an empty value. */
static inline bool em_args_next(const char **args, struct em_arg *a)
{
	const char *p = *args;

	while (*p == ',')
		p++;
	if (!*p)
		return false;
	a->key = p;
	while (*p && *p != ',' && *p != '=')
		p++;
	a->key_len = (size_t)(p - a->key);
	if (*p == '=')
		p++;
	a->value = p;
	while (*p && *p != ',')
		p++;
	a->value_len = (size_t)(p - a->value);
	*args = p;
	return true;
}

static inline bool em_arg_equal(const char *s, size_t len, const char *word)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!word[i] || s[i] != word[i])
			return false;
	return !word[len];
}

static inline bool em_arg_is(const struct em_arg *a, const char *key)
{
	return em_arg_equal(a->key, a->key_len, key);
}

/* A decimal number in [min, max]. */
static inline bool em_arg_number(const struct em_arg *a, unsigned min, unsigned max, unsigned *out)
{
	unsigned v = 0;
	size_t i;

	if (!a->value_len || a->value_len > 8)
		return false;
	for (i = 0; i < a->value_len; i++) {
		if (a->value[i] < '0' || a->value[i] > '9')
			return false;
		v = v * 10 + (unsigned)(a->value[i] - '0');
	}
	if (v < min || v > max)
		return false;
	*out = v;
	return true;
}

static inline bool em_arg_switch(const struct em_arg *a, bool *out)
{
	if (em_arg_equal(a->value, a->value_len, "on"))
		*out = true;
	else if (em_arg_equal(a->value, a->value_len, "off"))
		*out = false;
	else
		return false;
	return true;
}

static inline size_t em_args_put(char *err, size_t err_len, size_t at, const char *s, size_t len)
{
	size_t i;

	for (i = 0; i < len && at + 1 < err_len; i++)
		err[at++] = s[i];
	if (err_len)
		err[at] = 0;
	return at;
}

/* "<name>: argument '<the pair>' not understood; it takes <usage>" */
static inline void em_args_complain(const struct em_arg *a, const char *name, const char *usage,
				    char *err, size_t err_len)
{
	static const char mid[] = ": argument '", end[] = "' not understood; it takes ";
	size_t at = 0, n;

	for (n = 0; name[n]; n++)
		;
	at = em_args_put(err, err_len, at, name, n);
	at = em_args_put(err, err_len, at, mid, sizeof(mid) - 1);
	n = (size_t)(a->value + a->value_len - a->key);
	at = em_args_put(err, err_len, at, a->key, n);
	at = em_args_put(err, err_len, at, end, sizeof(end) - 1);
	for (n = 0; usage[n]; n++)
		;
	em_args_put(err, err_len, at, usage, n);
}

#endif
