/* SPDX-License-Identifier: MIT */
/* More mappings in a block of 2 MiB than the engine tells apart, each with its own content, read in no order;
   then a fork, which waits for what the engine has under way. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECE 65536ul
#define PIECES 256u
#define WORDS (PIECE / 8)

static uint64_t *piece[PIECES];

static uint64_t word(unsigned i, unsigned w)
{
	return ((uint64_t)i << 32 | w) * 0x9e3779b97f4a7c15u;
}

static void map_pieces(void)
{
	char *all = mmap(NULL, PIECE * PIECES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (all == MAP_FAILED)
		exit(2);
	for (unsigned i = 0; i < PIECES; i++) {
		piece[i] = mmap(all + i * PIECE, PIECE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		if (piece[i] == MAP_FAILED)
			exit(2);
	}
}

static int check(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned p = (unsigned)rand() % PIECES, w = (unsigned)rand() % WORDS;

		if (piece[p][w] != word(p, w)) {
			printf("piece %u, word %u: %#lx\n", p, w, (unsigned long)piece[p][w]);
			return 1;
		}
	}
	return 0;
}

int main(void)
{
	int status, pid;

	map_pieces();
	for (unsigned i = 0; i < PIECES; i++)
		for (unsigned w = 0; w < WORDS; w++)
			piece[i][w] = word(i, w);
	if (check(5000))
		return 1;
	pid = fork();
	if (pid == 0)
		_exit(check(1000));
	return !(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0) || check(1000);
}
