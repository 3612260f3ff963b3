/* SPDX-License-Identifier: MIT */
/*
 * A program that checks its bytes: 4 MiB of which each word tells its place, changed by threads, by
 * system calls and by forked children.  Prints "right" and exits with 0.  Words that change that:
 *
 *   nofork         no children
 *   spawn          starts itself once more
 *   leave          as root: another user and another root directory before the children
 *   filter=NUMBER  after the first round a filter in this thread refuses that system call
 *   tsync=NUMBER   the same in all threads
 *   kill=NUMBER    the same, and whoever makes it is killed
 *   strict         seccomp's strict mode, and nothing but a look at the memory
 *   dontfork       a child does without some of the memory
 *   protected      a child inherits memory that it may not write to
 *   discard        gives memory back by process_madvise, through descriptors of process and thread
 *   leave-alone    ends by exit(2), which ends the thread, with status 7 and no thread beside it
 *   leave-early    the same, but a thread stays and prints "right" a little later
 *   leave-together the same with many threads at once
 *   generated      a thread that has made no call since traps were turned on reads by code of its own
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES (4ul << 20)
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
	if (WIFSIGNALED(status))
		fprintf(stderr, "prog: a child ended by signal %d\n", WTERMSIG(status));
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

/* ---- what the program does to itself ------------------------------------------------------------ */

static void leave(void)
{
	CHECK(!chroot("/etc") && !chdir("/"));
	CHECK(!setgroups(0, NULL) && !setresgid(65534, 65534, 65534));
	CHECK(!setresuid(65534, 65534, 65534));
}

static void refuse(unsigned nr, uint32_t action, unsigned flags)
{
	struct sock_filter code[] = {
		{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
		{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, nr},
		{BPF_RET | BPF_K, 0, 0, action},
		{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog));
}

static void use_filter(const char *word)
{
	const char *nr = strchr(word, '=');

	if (!nr)
		return;
	if (!strncmp(word, "filter", 6))
		refuse((unsigned)atoi(nr + 1), SECCOMP_RET_ERRNO | EPERM, 0);
	else if (!strncmp(word, "tsync", 5))
		refuse((unsigned)atoi(nr + 1), SECCOMP_RET_ERRNO | EPERM, SECCOMP_FILTER_FLAG_TSYNC);
	else if (!strncmp(word, "kill", 4))
		refuse((unsigned)atoi(nr + 1), SECCOMP_RET_KILL_PROCESS, SECCOMP_FILTER_FLAG_TSYNC);
}

/* Nothing but read, write and exit is left: printing would ask for more. */
static void strict(void)
{
	static const char text[] = "right\n";
	int wrong = 0;

	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	for (uint64_t i = 0; i < WORDS; i++)
		wrong |= memory[i] != word(i, 0);
	if (!wrong && write(1, text, sizeof(text) - 1) < 0)
		wrong = 1;
	syscall(SYS_exit, wrong);
}

static volatile int ready, go;
static long got;

/* read(2) by code that nobody could patch, as the first call since `go`. */
static void *generated_main(void *arg)
{
	long (**read_by)(int, void *, size_t) = arg;
	int fds[2];

	CHECK(!pipe(fds) && write(fds[1], "generated", 9) == 9);
	ready = 1;
	while (!go)
		;
	got = (*read_by)(fds[0], memory, 9);
	return NULL;
}

static void generated(void)
{
	static const unsigned char code[] = {0x31, 0xc0, 0x0f, 0x05, 0xc3}; /* xor eax, eax; syscall; ret */
	long (*volatile read_by)(int, void *, size_t);
	pthread_t t;
	void *p;

	CHECK(!(errno = pthread_create(&t, NULL, generated_main, (void *)&read_by)));
	while (!ready)
		usleep(1000);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	memcpy(p, code, sizeof(code));
	memcpy((void *)&read_by, &p, sizeof(p));
	fill(PAGE_WORDS, 1, 0); /* the beginning leaves */
	go = 1;
	CHECK(!(errno = pthread_join(t, NULL)));
	CHECK(got == 9 && !memcmp(memory, "generated", 9));
	fill(0, 1, 0);
}

/* ---- threads that leave one by one ---------------------------------------------------------------- */

static void *stay(void *arg)
{
	usleep(200000);
	check(2);
	puts("right");
	fflush(stdout);
	syscall(SYS_exit, 9);
	return arg;
}

static void *go_now(void *arg)
{
	syscall(SYS_exit, 0);
	return arg;
}

static void leave_by_exit(const char *how)
{
	pthread_t t;

	if (!strcmp(how, "leave-early"))
		CHECK(!(errno = pthread_create(&t, NULL, stay, NULL)));
	for (int i = 0; i < 20 && !strcmp(how, "leave-together"); i++)
		CHECK(!(errno = pthread_create(&t, NULL, go_now, NULL)));
	syscall(SYS_exit, 7);
}

static const struct {
	uint64_t page, n;
} holes[] = {{0, 3}, {17, 1}, {256, 200}, {BYTES / 4096 - 1, 1}};
#define NHOLES (sizeof(holes) / sizeof(holes[0]))

static void advise_holes(int advice)
{
	for (size_t i = 0; i < NHOLES; i++)
		CHECK(!madvise(memory + holes[i].page * PAGE_WORDS, holes[i].n * 4096, advice));
}

static int is_in_hole(uint64_t page)
{
	for (size_t i = 0; i < NHOLES; i++)
		if (page - holes[i].page < holes[i].n)
			return 1;
	return 0;
}

static void check_around_holes(void)
{
	for (uint64_t page = 0; page < WORDS / PAGE_WORDS; page++) {
		uint64_t *p = memory + page * PAGE_WORDS;

		CHECK(!msync(p, 4096, MS_ASYNC) == !is_in_hole(page));
		for (uint64_t i = 0; !is_in_hole(page) && i < PAGE_WORDS; i++)
			CHECK(p[i] == word(page * PAGE_WORDS + i, 0));
	}
}

static void dontfork(void)
{
	pid_t pid;

	advise_holes(MADV_DONTFORK);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		check_around_holes();
		_exit(0);
	}
	expect_end(pid);
	advise_holes(MADV_DOFORK);
}

static void protect(int first, int second)
{
	CHECK(!mprotect(memory, BYTES / 4, first));
	CHECK(!mprotect(memory + WORDS / 4, BYTES / 4, second));
}

static void protected(void)
{
	pid_t pid;

	protect(PROT_NONE, PROT_READ);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		protect(PROT_READ, PROT_READ);
		check(0);
		protect(PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE);
		fill(0, 1, 1);
		check(1);
		_exit(0);
	}
	expect_end(pid);
	protect(PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE);
}

/* The second half becomes zeros, unless the kernel refuses that (before 6.13). */
static void discard_by(unsigned flags)
{
	struct iovec iov = {memory + WORDS / 2, BYTES / 2};
	int fd = (int)syscall(SYS_pidfd_open, flags ? gettid() : getpid(), flags);

	if (fd < 0 && flags)
		return; /* before 6.9 */
	CHECK(fd >= 0);
	if (syscall(SYS_process_madvise, fd, &iov, 1, MADV_DONTNEED, 0) == (long)iov.iov_len)
		for (uint64_t i = WORDS / 2; i < WORDS; i++)
			CHECK(!memory[i]);
	close(fd);
	fill(0, 1, 0);
}

/* Another process's descriptor must not discard ours. */
static void discard_elsewhere(void)
{
	struct iovec iov = {memory, BYTES};
	pid_t pid = fork();
	int fd;

	CHECK(pid >= 0);
	if (!pid) {
		pause();
		_exit(0);
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(fd >= 0);
	CHECK(syscall(SYS_process_madvise, fd, &iov, 1, MADV_DONTNEED, 0) < 0);
	check(0);
	kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0) == pid);
	close(fd);
}

static void discard(void)
{
	discard_by(0);
	discard_by(O_EXCL); /* PIDFD_THREAD */
	discard_elsewhere();
}

struct how {
	int nofork, spawns, leaves, strict, generated, discards, dontfork, protected;
};

static struct how parse(int argc, char **argv)
{
	struct how how = {0};

	for (int i = 1; i < argc; i++) {
		how.nofork |= !strcmp(argv[i], "nofork");
		how.spawns |= !strcmp(argv[i], "spawn");
		how.leaves |= !strcmp(argv[i], "leave");
		how.strict |= !strcmp(argv[i], "strict");
		how.generated |= !strcmp(argv[i], "generated");
		how.discards |= !strcmp(argv[i], "discard");
		how.dontfork |= !strcmp(argv[i], "dontfork");
		how.protected |= !strcmp(argv[i], "protected");
	}
	return how;
}

int main(int argc, char **argv)
{
	const struct how how = parse(argc, argv);

	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	fill(0, 1, 0);
	if (how.strict)
		strict();
	if (how.generated)
		generated();
	if (how.discards)
		discard();
	for (int i = 1; i < argc; i++)
		use_filter(argv[i]);
	if (how.dontfork)
		dontfork();
	if (how.protected)
		protected();
	check(0);
	through_kernel();
	threads();
	if (how.leaves)
		leave();
	if (!how.nofork)
		forks();
	if (how.spawns)
		spawn_self();
	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], "leave-", 6))
			leave_by_exit(argv[i]);
	puts("right");
	return 0;
}
