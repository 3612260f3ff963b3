/* SPDX-License-Identifier: MIT */
/*
 * Sizes and percentages as people write them.  No floating point: the result must
 * not depend on rounding mode or locale.
 */
#include "options.h"

#include <errno.h>
#include <string.h>

typedef unsigned __int128 u128;

#define FRACTION_DIGITS 12 /* more are read and have no effect: 10^-12 of 1 T is one byte */

/* A decimal number as scaled integer: value = num / den. */
struct decimal {
	u128 num;
	u128 den;
	bool fraction;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Parses digits[.digits] and returns what follows, NULL if there is no number.
   The integer part saturates far above any size, so that num stays within 128 bits. */
static const char *decimal_parse(const char *p, struct decimal *d)
{
	const u128 limit = (u128)UINT64_MAX + 1;
	bool whole = false;
	int n;

	d->num = 0;
	d->den = 1;
	d->fraction = false;
	for (; is_digit(*p); p++, whole = true)
		if (d->num < limit)
			d->num = d->num * 10 + (u128)(*p - '0');
	if (d->num > limit)
		d->num = limit;
	if (*p != '.')
		return whole ? p : NULL;
	if (!is_digit(*++p))
		return NULL;
	d->fraction = true;
	for (n = 0; is_digit(*p); p++, n++) {
		if (n >= FRACTION_DIGITS)
			continue;
		d->num = d->num * 10 + (u128)(*p - '0');
		d->den *= 10;
	}
	return p;
}

/* The shift of a unit at p ("", "B", "K", "KB", "KiB" ...), -1 if it is none. */
static int unit_shift(const char *p)
{
	static const char units[] = "KMGTPE";
	const char *u;
	int shift;

	if (*p == '\0' || !strcmp(p, "B") || !strcmp(p, "b"))
		return 0;
	u = strchr(units, *p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
	if (!u)
		return -1;
	shift = 10 * (int)(u - units + 1);
	p++;
	if ((*p == 'i' || *p == 'I') && (p[1] == 'B' || p[1] == 'b'))
		p++;
	if (*p == 'B' || *p == 'b')
		p++;
	return *p == '\0' ? shift : -1;
}

int em_size_parse(const char *text, uint64_t *bytes)
{
	struct decimal d;
	const char *p = text ? decimal_parse(text, &d) : NULL;
	int shift;
	u128 v;

	if (!p)
		return -EINVAL;
	shift = unit_shift(p);
	/* Half a byte is more likely a forgotten unit than a size. */
	if (shift < 0 || (shift == 0 && d.fraction))
		return -EINVAL;
	/* num < 2^64 * 10^12 < 2^104: only the unit can take it over the edge. */
	if (d.num / d.den > UINT64_MAX >> shift)
		return -ERANGE;
	v = (d.num / d.den) << shift;
	v += ((d.num % d.den) << shift) / d.den;
	if (v > UINT64_MAX)
		return -ERANGE;
	*bytes = (uint64_t)v;
	return 0;
}

int em_size_parse_percent(const char *text, uint64_t whole, uint64_t *bytes)
{
	struct decimal d;
	const char *p = text ? decimal_parse(text, &d) : NULL;

	if (!p || p[0] != '%' || p[1] != '\0')
		return em_size_parse(text, bytes);
	if (d.num > 100 * d.den)
		return -ERANGE;
	/* whole < 2^64 and num <= 100 * 10^12 < 2^47: no overflow. */
	*bytes = (uint64_t)((u128)whole * d.num / (100 * d.den));
	return 0;
}
