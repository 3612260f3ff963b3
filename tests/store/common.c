/* SPDX-License-Identifier: MIT */
#include "common.h"

struct variant V;

int run_variants(int (*group)(const char *name), bool both_queues)
{
	static const struct variant all[] = {
		{"direct, io_uring", "/var/tmp", false, false},
		{"buffered, io_uring, locks on /dev/null", "/dev/shm", false, true},
		{"direct, plain", "/var/tmp", true, false},
		{"buffered, plain, locks on /dev/null", "/dev/shm", true, true},
	};
	int failed = 0, ran = 0;

	for (size_t i = 0; i < (both_queues ? 4 : 2); i++) {
		if (access(all[i].dir, W_OK)) {
			printf("# %s: %s is not writable, left out\n", all[i].name, all[i].dir);
			continue;
		}
		V = all[i];
		failed += group(V.name);
		ran++;
	}
	return ran ? failed : 77;
}

struct em_store *open_store(uint64_t size_bytes)
{
	struct em_store_config cfg = {
		.path = V.dir,
		.size_bytes = size_bytes,
		.no_uring = V.no_uring,
		.no_memfd = V.no_memfd,
		.spin_us = 100,
	};
	struct em_store *st = NULL;
	char err[256] = "";

	if (em_store_open(&cfg, 500, &st, err, sizeof(err)))
		fail_msg("%s", err);
	/* tmpfs has O_DIRECT since 6.6 */
	if (!strcmp(V.dir, "/dev/shm")) {
		fcntl(st->fd, F_SETFL, fcntl(st->fd, F_GETFL) & ~O_DIRECT);
		st->direct = false;
	}
	return st;
}

uint64_t *pages_new(size_t n)
{
	void *p = mmap(NULL, n * EM_SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

void pages_fill(uint64_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n * 512; i++)
		p[i] = (seed + i / 512) * 0x9e3779b97f4a7c15ull + i % 512;
}

bool pages_are(const uint64_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n * 512; i++)
		if (p[i] != (seed + i / 512) * 0x9e3779b97f4a7c15ull + i % 512)
			return false;
	return true;
}

pid_t fork_store(struct em_store *st, void (*fn)(struct em_store *st))
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(em_store_fork_prepare(st), 0);
	pid = fork();
	if (pid == 0) {
		if (em_store_fork_child(st))
			_exit(9);
		close(ready[0]);
		if (fn)
			fn(st);
		if (write(ready[1], "x", 1) != 1)
			_exit(9);
		for (;;)
			pause();
	}
	em_store_fork_parent(st, pid);
	assert_true(pid > 0);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

void kill_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
