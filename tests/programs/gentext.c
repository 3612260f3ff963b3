/* SPDX-License-Identifier: MIT */
/* gentext BYTES: deterministic lines of words and numbers, of uneven length. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state = 88172645463325252ull;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static size_t line(char *p)
{
	unsigned words = 1 + next() % 9, i, n;
	char *start = p;

	while (words--) {
		uint64_t r = next();

		if (r % 5 == 0) {
			p += sprintf(p, "%u", (unsigned)(r >> 40));
		} else {
			/* A skewed choice, so that there is something to compress. */
			uint64_t w = (r >> 8) % 4096;

			w = w * w / 4096;
			n = 2 + w % 9;
			for (i = 0; i < n; i++) {
				*p++ = (char)('a' + w % 26);
				w = w * 31 + 7;
			}
		}
		*p++ = words ? ' ' : '\n';
	}
	return (size_t)(p - start);
}

int main(int argc, char **argv)
{
	uint64_t want = argc > 1 ? strtoull(argv[1], NULL, 0) : 1 << 20, have = 0;
	char buf[512];

	while (have < want) {
		size_t n = line(buf);

		if (fwrite(buf, 1, n, stdout) != n)
			return 1;
		have += n;
	}
	return fflush(stdout) != 0;
}
