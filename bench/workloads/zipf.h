/* SPDX-License-Identifier: MIT */
/*
 * Ranks drawn with the probability of rank r proportional to 1 / (r + 1)^s, after Gray,
 * Sundaresan, Englert, Baclawski, Weinberger: "Quickly generating billion-record synthetic
 * databases", 1994.
 */
#ifndef WL_ZIPF_H
#define WL_ZIPF_H

#include <math.h>
#include <stdint.h>

struct zipf {
	double n, s, zeta, alpha, eta;
};

/* 0 < s < 1 */
static inline void zipf_init(struct zipf *z, uint64_t n, double s)
{
	double two = 1 + pow(0.5, s);

	*z = (struct zipf){.n = (double)n, .s = s, .alpha = 1 / (1 - s)};
	for (uint64_t i = 1; i <= n; i++)
		z->zeta += pow((double)i, -s);
	z->eta = (1 - pow(2 / z->n, 1 - s)) / (1 - two / z->zeta);
}

/* u is even on [0, 1); the result is below n. */
static inline uint64_t zipf_rank(const struct zipf *z, double u)
{
	double uz = u * z->zeta, r;

	if (uz < 1)
		return 0;
	if (uz < 1 + pow(0.5, z->s))
		return 1;
	r = z->n * pow(z->eta * u - z->eta + 1, z->alpha);
	return r < z->n ? (uint64_t)r : (uint64_t)z->n - 1;
}

#endif
