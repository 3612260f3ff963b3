/* SPDX-License-Identifier: MIT */
/*
 * A program that checks its bytes: 16 MiB of which each word tells its place, changed by
 * threads, by system calls and by forked children.  prog [nofork] [spawn] ...
 * Prints "right" and exits with 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES (16ul << 20)
#define WORDS (BYTES / 8)
#define PAGE_WORDS 512ul
#define THREADS 3u
#define CHUNK 32768ul

extern char **environ;
static uint64_t *memory;

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "prog: line %d: %s: %s\n", __LINE__, #cond,                \
				strerror(errno));                                                  \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static uint64_t word(uint64_t i, uint64_t round)
{
	return (i + 1) * 0x9e3779b97f4a7c15u ^ round << 56;
}

static void fill(uint64_t from, uint64_t step, uint64_t round)
{
	for (uint64_t i = from; i < WORDS; i += step)
		memory[i] = word(i, round);
}

static void check(uint64_t round)
{
	for (uint64_t i = 0; i < WORDS; i++)
		CHECK(memory[i] == word(i, round));
}

/* ---- system calls whose buffers have left --------------------------------------------------- */

/* From the end of memory to its beginning, through a socket, in both directions. */
static void through_kernel(void)
{
	int s[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	for (size_t off = 0; off < BYTES / 4; off += CHUNK) {
		char *from = (char *)memory + BYTES - CHUNK - off, *to = (char *)memory + off;
		size_t got = 0;

		CHECK(write(s[0], from, CHUNK) == (ssize_t)CHUNK);
		while (got < CHUNK) {
			ssize_t n = read(s[1], to + got, CHUNK - got);

			CHECK(n > 0);
			got += (size_t)n;
		}
		CHECK(!memcmp(to, from, CHUNK));
	}
	close(s[0]);
	close(s[1]);
	fill(0, 1, 1);
}

/* ---- threads -------------------------------------------------------------------------------- */

static void *thread_main(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg;

	for (uint64_t page = n; page < WORDS / PAGE_WORDS; page += THREADS)
		for (uint64_t i = page * PAGE_WORDS; i < (page + 1) * PAGE_WORDS; i++) {
			CHECK(memory[i] == word(i, 1));
			memory[i] = word(i, 2);
		}
	return NULL;
}

static void threads(void)
{
	pthread_t t[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!(errno = pthread_create(&t[i], NULL, thread_main, (void *)i)));
	for (unsigned i = 0; i < THREADS; i++)
		CHECK(!(errno = pthread_join(t[i], NULL)));
	check(2);
}

/* ---- processes ------------------------------------------------------------------------------ */

static void expect_end(pid_t pid)
{
	int status;

	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Child and grandchild change everything; the parent must not see it. */
static void forks(void)
{
	pid_t pid = fork(), grandchild;

	CHECK(pid >= 0);
	if (!pid) {
		check(2);
		fill(0, 1, 3);
		grandchild = fork();
		CHECK(grandchild >= 0);
		if (!grandchild) {
			fill(0, 2, 4);
			fill(1, 2, 4);
			check(4);
			_exit(0);
		}
		check(3);
		expect_end(grandchild);
		check(3);
		_exit(0);
	}
	check(2);
	expect_end(pid);
	check(2);
}

static void spawn_self(void)
{
	char *argv[] = {"prog", "nofork", NULL};
	pid_t pid;

	CHECK(!(errno = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ)));
	expect_end(pid);
	check(2);
}

int main(int argc, char **argv)
{
	int nofork = 0, spawns = 0;

	for (int i = 1; i < argc; i++) {
		nofork |= !strcmp(argv[i], "nofork");
		spawns |= !strcmp(argv[i], "spawn");
	}
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	fill(0, 1, 0);
	check(0);
	through_kernel();
	threads();
	if (!nofork)
		forks();
	if (spawns)
		spawn_self();
	puts("right");
	return 0;
}
