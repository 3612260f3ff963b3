/* SPDX-License-Identifier: MIT */
/* fork in the midst of everything: parent and child both verify and change all they have. */
#define _GNU_SOURCE
#include "torture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void rewrite_all(struct thread *t)
{
	unsigned i;
	size_t p;

	for (i = 0; i < NREG; i++)
		for (p = 0; p < t->reg[i].npages; p++)
			if (t->reg[i].meta[p].state == PG_RW)
				write_page(t, &t->reg[i], p, rnd(t) & 1 ? WORDS : 3);
}

static void __attribute__((noreturn)) child_main(struct thread *t, bool exact,
						 const uint64_t *unsettled)
{
	unsigned i, steps = 20 + (unsigned)rnd_below(t, 200);
	bool deeper = in_child == 0 && rnd_below(t, 4) == 0;

	in_child++;
	t->child = 0;
	t->now = "child";
	arena_check(t, "child: what the parent had");
	for (i = 0; i < cfg.threads; i++) {
		if (&threads[i] == t)
			continue;
		if (exact)
			arena_check(&threads[i], "child: what another thread had");
		else
			arena_check_loosely(&threads[i], unsettled[i]);
	}
	if (exact)
		shared_check_exact();
	else
		shared_check_loosely(t);
	sys_open(t);
	for (i = 0; i < steps; i++)
		arena_step(t);
	if (deeper)
		op_fork(t);
	for (i = 0; exact && i < cfg.threads; i++)
		rewrite_all(&threads[i]);
	for (i = 0; exact && i < cfg.threads; i++)
		arena_check(&threads[i], "child: what it wrote itself");
	arena_check(t, "child at its end");
	fork_reap(t);
	_exit(0);
}

void fork_reap(struct thread *t)
{
	int status;
	pid_t got;

	if (t->child <= 0)
		return;
	t->now = "waiting for a child";
	do
		got = waitpid(t->child, &status, 0);
	while (got < 0 && errno == EINTR);
	if (got != t->child)
		fail("waitpid of %d gave %d: %s", (int)t->child, (int)got, strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail("child %d (%s) ended with status %#x", (int)t->child,
		     t->child_exact ? "world standing still" : "world moving", status);
	t->child = 0;
}

/* One child at a time for each thread; it is waited for when the next is due. */
void op_fork(struct thread *t)
{
	bool exact = in_child || rnd_below(t, 4) == 0;
	uint64_t unsettled[MAX_THREADS];
	unsigned i;
	pid_t pid;

	fork_reap(t);
	t->now = "fork";
	if (!in_child && exact)
		pthread_rwlock_wrlock(&world);
	for (i = 0; i < cfg.threads; i++)
		unsettled[i] = __atomic_load_n(&threads[i].unsettled, __ATOMIC_ACQUIRE);
	/* In a child only this thread is left, but the others' arenas are not exact. */
	if (in_child)
		exact = false;
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (pid == 0)
		child_main(t, exact, unsettled);
	if (!in_child && exact) {
		shared_check_exact();
		pthread_rwlock_unlock(&world);
	}
	t->child = pid;
	t->child_exact = exact;
	arena_check(t, "parent after fork");
}
