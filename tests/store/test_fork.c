/* SPDX-License-Identifier: MIT */
/* Slots among a tree of forked processes: reserved while anybody may refer to them, free after. */
#include "common.h"

static uint32_t drain(struct em_store *st, uint8_t *seen, uint32_t slots)
{
	uint32_t n, total = 0;
	em_slot_t first;

	usleep(2000); /* a full store is asked again after 1 ms only */
	while ((n = em_slots_alloc(st, 1024, &first))) {
		for (uint32_t i = 0; i < n; i++) {
			assert_true(first + i < slots);
			if (seen)
				seen[first + i] = 1;
		}
		total += n;
	}
	return total;
}

/* Slot 100 was given out before the fork and is freed by the parent while the child lives. */
static void freed_while_child_lives(void **state)
{
	const uint32_t slots = 2 * EM_EXTENT_SLOTS;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE);
	uint8_t *seen = calloc(1, slots);
	pid_t child;

	(void)state;
	drain(st, NULL, slots);
	child = fork_store(st, NULL);
	em_slots_free(st, 100);
	em_slots_free(st, 100); /* still only once */
	assert_int_equal(em_slots_used(st), slots - 2);
	assert_int_equal(drain(st, seen, slots), 0);
	kill_child(child);
	assert_int_equal(drain(st, seen, slots), 1);
	assert_true(seen[100]);
	em_store_close(st);
	free(seen);
}

/* What is given out after the fork is none of the child's business. */
static void given_out_after_fork(void **state)
{
	const uint32_t slots = 2 * EM_EXTENT_SLOTS;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE);
	pid_t first_child, second;
	em_slot_t a, b;

	(void)state;
	first_child = fork_store(st, NULL);
	assert_int_equal(em_slots_alloc(st, 1, &a), 1);
	drain(st, NULL, slots);
	em_slots_free(st, a);
	assert_int_equal(em_slots_alloc(st, 1, &b), 1);
	assert_int_equal(a, b);
	/* an old child that lives on does not keep what only a dead one could know */
	second = fork_store(st, NULL);
	em_slots_free(st, a);
	assert_int_equal(drain(st, NULL, slots), 0);
	kill_child(second);
	assert_int_equal(drain(st, NULL, slots), 1);
	/* and a later one does not keep what was free before it was forked */
	second = fork_store(st, NULL);
	em_slots_free(st, a);
	kill_child(fork_store(st, NULL));
	pid_t third = fork_store(st, NULL);
	kill_child(second);
	assert_int_equal(drain(st, NULL, slots), 1);
	kill_child(third);
	kill_child(first_child);
	em_store_close(st);
}

static void free_inherited(struct em_store *st)
{
	em_slot_t first;

	for (em_slot_t s = 1; s < 1000; s++)
		em_slots_free(st, s);
	/* its own slots are not the parent's */
	if (em_slots_used(st) || em_slots_alloc(st, 1, &first) != 1 || first < EM_EXTENT_SLOTS)
		_exit(8);
}

static void frees_of_inherited_slots_are_forgotten(void **state)
{
	const uint32_t slots = 2 * EM_EXTENT_SLOTS;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE);
	em_slot_t first;
	pid_t child;

	(void)state;
	while (em_slots_used(st) < EM_EXTENT_SLOTS - 1)
		assert_true(em_slots_alloc(st, 1024, &first) > 0);
	assert_true(em_slots_used(st) == EM_EXTENT_SLOTS - 1 && st->shared->high == 1);
	child = fork_store(st, free_inherited);
	assert_int_equal(drain(st, NULL, slots), 0); /* the child has the other extent */
	kill_child(child);
	assert_int_equal(drain(st, NULL, slots), EM_EXTENT_SLOTS); /* now it is ours */
	em_store_close(st);
}

static int report[2];

static void in_grandchild(struct em_store *st)
{
	uint64_t *p = pages_new(4);

	if (em_store_read(st, 50, p, 1) || !pages_are(p, 1, 50))
		_exit(7);
}

static em_slot_t middle_slot;

static void in_middle(struct em_store *st)
{
	uint64_t *p = pages_new(1);
	pid_t pid;

	if (em_slots_alloc(st, 1, &middle_slot) != 1)
		_exit(8);
	pages_fill(p, 1, 4711);
	if (em_store_writev(st, middle_slot, &(struct iovec){p, 4096}, 1))
		_exit(8);
	pid = fork_store(st, in_grandchild);
	if (write(report[1], &pid, sizeof(pid)) != sizeof(pid) ||
	    write(report[1], &middle_slot, sizeof(middle_slot)) != sizeof(middle_slot))
		_exit(8);
}

static void grandchild_keeps_slots(void **state)
{
	const uint32_t slots = 3 * EM_EXTENT_SLOTS;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE);
	uint64_t *p = pages_new(1);
	pid_t middle, grandchild;
	em_slot_t slot, first;

	(void)state;
	assert_int_equal(pipe(report), 0);
	assert_int_equal(em_slots_alloc(st, 64, &first), 64);
	pages_fill(p, 1, 50);
	assert_int_equal(em_store_writev(st, 50, &(struct iovec){p, 4096}, 1), 0);
	middle = fork_store(st, in_middle);
	assert_int_equal(read(report[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
	assert_int_equal(read(report[0], &slot, sizeof(slot)), sizeof(slot));
	drain(st, NULL, slots);
	kill_child(middle);
	em_slots_free(st, 50);
	/* neither our slot 50 nor the middle one's extent */
	assert_int_equal(drain(st, NULL, slots), 0);
	kill(grandchild, SIGKILL);
	usleep(50000);
	assert_int_equal(drain(st, NULL, slots), 1 + EM_EXTENT_SLOTS);
	em_store_close(st);
	close(report[0]);
	close(report[1]);
}

/* Each generation checks the page of every ancestor and adds one of its own. */
static int generation(struct em_store *st, int depth, em_slot_t *known)
{
	uint64_t *p = pages_new(1);
	em_slot_t another;
	int status;
	pid_t pid;

	for (int i = 0; i < depth; i++)
		if (em_store_read(st, known[i], p, 1) || !pages_are(p, 1, (uint64_t)i))
			return 10 + i;
	if (depth == 10)
		return 0;
	if (em_slots_alloc(st, 1, &known[depth]) != 1)
		return 2;
	for (int i = 0; i < depth; i++)
		if (known[i] == known[depth])
			return 3;
	pages_fill(p, 1, (uint64_t)depth);
	if (em_store_writev(st, known[depth], &(struct iovec){p, 4096}, 1))
		return 4;
	if (em_store_fork_prepare(st))
		return 5;
	pid = fork();
	if (!pid)
		_exit(em_store_fork_child(st) ? 6 : generation(st, depth + 1, known));
	em_store_fork_parent(st, pid);
	em_slots_free(st, known[depth]); /* the child still needs it */
	if (em_slots_alloc(st, 1, &another) != 1 || another == known[depth])
		return 7;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 8;
}

static void ten_generations(void **state)
{
	struct em_store *st = open_store(0);
	em_slot_t known[11];

	(void)state;
	assert_int_equal(generation(st, 0, known), 0);
	em_store_close(st);
}

static em_slot_t chain_slot;

static void chain_end(struct em_store *st)
{
	(void)st;
}

static void chain_link(struct em_store *st)
{
	pid_t pid = fork_store(st, chain_end);

	if (write(report[1], &pid, sizeof(pid)) != sizeof(pid))
		_exit(8);
}

static void chain_start(struct em_store *st)
{
	pid_t pid;

	if (em_slots_alloc(st, 1, &chain_slot) != 1)
		_exit(8);
	pid = fork_store(st, chain_link);
	if (write(report[1], &pid, sizeof(pid)) != sizeof(pid))
		_exit(8);
}

/* A chain of three: the last keeps what the first gave out, when all between are dead. */
static void ancestors_are_remembered(void **state)
{
	const uint32_t slots = 2 * EM_EXTENT_SLOTS;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE);
	pid_t pid[3];
	em_slot_t first;

	(void)state;
	assert_int_equal(pipe(report), 0);
	assert_int_equal(em_slots_alloc(st, 64, &first), 64);
	pid[0] = fork_store(st, chain_start);
	for (int i = 2; i >= 1; i--)
		assert_int_equal(read(report[0], &pid[i], sizeof(pid[i])), sizeof(pid[i]));
	drain(st, NULL, slots);
	kill_child(pid[0]);
	kill(pid[1], SIGKILL);
	usleep(50000);
	em_slots_free(st, first);
	assert_int_equal(drain(st, NULL, slots), 0);
	kill(pid[2], SIGKILL);
	usleep(50000);
	assert_int_equal(drain(st, NULL, slots), 1 + EM_EXTENT_SLOTS);
	em_store_close(st);
	close(report[0]);
	close(report[1]);
}

static void exec_ends_the_claim(void **state)
{
	const uint32_t slots = 2 * EM_EXTENT_SLOTS;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE);
	pid_t pid;

	(void)state;
	drain(st, NULL, slots);
	assert_int_equal(em_store_fork_prepare(st), 0);
	pid = fork();
	if (!pid) {
		em_store_fork_child(st);
		execlp("sleep", "sleep", "100", NULL);
		_exit(1);
	}
	em_store_fork_parent(st, pid);
	em_slots_free(st, 5);
	for (int i = 0; i < 100 && !drain(st, NULL, slots); i++)
		usleep(10000);
	assert_int_equal(em_slots_used(st), slots - 1);
	assert_int_equal(kill(pid, 0), 0);
	kill_child(pid);
	em_store_close(st);
}

static void failed_fork(void **state)
{
	struct em_store *st = open_store(0);
	em_slot_t a, b;
	int fds[8];

	(void)state;
	em_slots_alloc(st, 1, &a);
	assert_int_equal(em_store_fork_prepare(st), 0);
	assert_int_equal(em_store_fds(st, fds, 8), 5);
	em_store_fork_parent(st, -EAGAIN);
	assert_int_equal(em_store_fds(st, fds, 8), 4);
	em_slots_free(st, a);
	for (int i = 0; i < 10 && em_slots_alloc(st, 1000, &b) && b > a; i++)
		;
	assert_int_equal(st->slots.ndeferred, 0);
	em_store_close(st);
}

static void write_one_page(struct em_store *st)
{
	uint64_t *p = pages_new(1);
	struct iovec iov = { p, EM_SLOT_SIZE };
	em_slot_t slot;

	pages_fill(p, 1, 3);
	if (em_slots_alloc(st, 1, &slot) != 1 || em_store_writev(st, slot, &iov, 1))
		_exit(8);
	memset(p, 0, EM_SLOT_SIZE);
	if (em_store_read(st, slot, p, 1) || !pages_are(p, 1, 3))
		_exit(8);
}

/* A storm of processes that evict a page each, all alive. */
static void small_children_take_little_of_the_disk(void **state)
{
	struct em_store *st = open_store(1ull << 30);
	pid_t child[20];
	struct stat sb;

	(void)state;
	for (int i = 0; i < 20; i++)
		child[i] = fork_store(st, write_one_page);
	assert_int_equal(fstat(st->fd, &sb), 0);
	assert_true(sb.st_blocks * 512ull < 4u << 20);
	for (int i = 0; i < 20; i++)
		kill_child(child[i]);
	em_store_close(st);
}

static void use_one_extent(struct em_store *st)
{
	em_slot_t first;

	if (em_slots_alloc(st, 64, &first) != 64)
		_exit(8);
}

/* 200 children, one after the other, in a store of three extents. */
static void dead_children_are_reclaimed(void **state)
{
	struct em_store *st = open_store(3ull * EM_EXTENT_SLOTS * EM_SLOT_SIZE);
	em_slot_t first;

	(void)state;
	assert_int_equal(em_slots_alloc(st, 64, &first), 64);
	for (int i = 0; i < 200; i++) {
		kill_child(fork_store(st, use_one_extent));
		em_slots_free(st, first);
		assert_int_equal(em_slots_alloc(st, 1, &first), 1);
	}
	assert_true(st->shared->high <= 3);
	em_store_close(st);
}

/* Process indices wrap around and fork counts are renumbered. */
static void counters_overflow(void **state)
{
	const uint32_t slots = 2 * EM_EXTENT_SLOTS;
	struct em_store *st = open_store((uint64_t)slots * EM_SLOT_SIZE);
	pid_t old, young;

	(void)state;
	drain(st, NULL, slots);
	st->shared->next_proc = EM_PROC_MAX - 1;
	old = fork_store(st, NULL);
	assert_true(st->slots.children[0].proc == EM_PROC_MAX - 1);
	em_slots_free(st, 10);
	st->slots.forks = UINT16_MAX - 1;
	young = fork_store(st, NULL); /* number 65535; its index is not 0, which is ours */
	assert_int_equal(st->slots.children[1].proc, 1);
	em_slots_free(st, 11);
	kill_child(fork_store(st, NULL)); /* renumbers */
	assert_true(st->slots.forks <= 3);
	assert_int_equal(drain(st, NULL, slots), 0);
	kill_child(old); /* 10 was freed before the younger one was forked, 11 after */
	assert_int_equal(drain(st, NULL, slots), 1);
	kill_child(young);
	assert_int_equal(drain(st, NULL, slots), 1);
	em_store_close(st);
}

static void works_after_chroot(void **state)
{
	struct em_store *st = open_store(0);
	char dir[] = "/tmp/extmem-chroot-XXXXXX";
	int status;
	pid_t pid;

	(void)state;
	assert_non_null(mkdtemp(dir));
	pid = fork();
	if (!pid) {
		if (chroot(dir) || chdir("/"))
			_exit(77);
		_exit(em_store_fork_prepare(st) ? 1 : 0);
	}
	waitpid(pid, &status, 0);
	rmdir(dir);
	em_store_close(st);
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

/* Locks on another file than our ancestors' would tell nothing of who is alive. */
static void another_lock_file_is_refused(void **state)
{
	struct em_store *st = open_store(0);
	char dir[] = "/tmp/extmem-test-XXXXXX";
	int own = st->lock_dir, fd;

	(void)state;
	if (!V.no_memfd) {
		em_store_close(st);
		return;
	}
	assert_non_null(mkdtemp(dir));
	st->lock_dir = open(dir, O_PATH | O_DIRECTORY);
	assert_int_equal(em_store_fork_prepare(st), -ENOENT);
	fd = openat(st->lock_dir, "null", O_RDWR | O_CREAT, 0600);
	assert_int_equal(em_store_fork_prepare(st), -ESTALE);
	unlinkat(st->lock_dir, "null", 0);
	close(fd);
	close(st->lock_dir);
	rmdir(dir);
	st->lock_dir = own;
	assert_int_equal(em_store_fork_prepare(st), 0);
	em_store_fork_parent(st, -1);
	em_store_close(st);
}

static int group(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(freed_while_child_lives),
		cmocka_unit_test(given_out_after_fork),
		cmocka_unit_test(frees_of_inherited_slots_are_forgotten),
		cmocka_unit_test(grandchild_keeps_slots),
		cmocka_unit_test(ten_generations),
		cmocka_unit_test(ancestors_are_remembered),
		cmocka_unit_test(exec_ends_the_claim),
		cmocka_unit_test(failed_fork),
		cmocka_unit_test(small_children_take_little_of_the_disk),
		cmocka_unit_test(dead_children_are_reclaimed),
		cmocka_unit_test(counters_overflow),
		cmocka_unit_test(works_after_chroot),
		cmocka_unit_test(another_lock_file_is_refused),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_variants(group, false);
}
