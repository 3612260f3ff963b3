/* SPDX-License-Identifier: MIT */
/*
 * Programs for test_store.py: faulty WHAT SWITCH.  They run under extmem with a store that fails while
 * the file SWITCH exists.  Exit 0: all was as it should be.
 */
#include "faulty.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 1024 };

static uint64_t *area;

static uint64_t *page(size_t i)
{
	return area + i * WORDS;
}

static void fill_all(uint64_t salt)
{
	if (!area)
		area = map_pages(PAGES);
	for (size_t i = 0; i < PAGES; i++)
		fill_page(page(i), salt + i);
}

static void verify_all(uint64_t salt)
{
	for (size_t i = 0; i < PAGES; i++)
		if (!page_is(page(i), salt + i))
			wrong("page %zu is wrong\n", i);
}

/* ---- reads that fail -------------------------------------------------------------- */

static bool lost[PAGES];

static size_t find_lost(uint64_t salt)
{
	size_t n = 0;

	for (size_t i = 0; i < PAGES; i++) {
		lost[i] = !try_read(page(i) + i % WORDS);
		n += lost[i];
		if (!lost[i] && !page_is(page(i), salt + i))
			wrong("page %zu is wrong\n", i);
	}
	return n;
}

/* The lost pages get new lives in four ways. */
static void use_again(size_t i)
{
	void *p = page(i);

	switch (i % 4) {
	case 0:
		if (madvise(p, PG, MADV_DONTNEED))
			die("MADV_DONTNEED");
		break;
	case 1:
		if (munmap(p, PG) ||
		    mmap(p, PG, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != p)
			die("munmap");
		break;
	case 2:
		if (mmap(p, PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0) != p)
			die("mmap over it");
		break;
	default: /* as a part of its neighbourhood, which is rewritten */
		if (madvise(p, PG, MADV_DONTNEED))
			die("MADV_DONTNEED");
	}
	if (!page_is_zero(p))
		wrong("page %zu is not empty\n", i);
}

static void reads(void)
{
	size_t n;

	faulty_install();
	fill_all(1);
	page_out(area, PAGES);
	faults_on();
	n = find_lost(1);
	printf("lost %zu\n", n);
	for (size_t i = 0; i < PAGES; i++)
		if (lost[i] && try_read(page(i)))
			wrong("page %zu came back by itself\n", i);
	faults_off();
	for (size_t i = 0; i < PAGES; i++)
		if (lost[i])
			use_again(i);
	fill_all(7);
	page_out(area, PAGES);
	verify_all(7);
}

/* The store recovers: so does the page.  A write access loses it too. */
static void recovers(void)
{
	size_t n = 0, back = 0;

	faulty_install();
	fill_all(1);
	page_out(area, PAGES);
	faults_on();
	for (size_t i = 0; i < PAGES; i++) {
		lost[i] = !try_write(page(i) + 5, page_value(5, 1 + i));
		n += lost[i];
	}
	faults_off();
	for (size_t i = 0; i < PAGES; i++)
		back += lost[i] && try_read(page(i));
	printf("lost %zu, back %zu\n", n, back);
	if (back == n)
		verify_all(1);
}

/* Nobody asked for a signal: it kills, as a memory error does. */
static void default_action(void)
{
	fill_all(1);
	page_out(area, PAGES);
	faults_on();
	verify_all(1);
}

/* A system call whose buffer cannot be read back fails with EFAULT and does nothing. */
static void in_a_call(void)
{
	int fd[2];
	size_t bad = 0;

	faulty_install();
	fill_all(1);
	page_out(area, PAGES);
	if (pipe(fd) || fcntl(fd[0], F_SETFL, O_NONBLOCK))
		die("pipe");
	faults_on();
	for (size_t i = 0; i < PAGES; i++) {
		char copy[PG];
		ssize_t r = write(fd[1], page(i), PG), back;
		int error = errno;

		back = read(fd[0], copy, PG);
		if (r < 0 && error == EFAULT && back < 0 && !try_read(page(i)))
			bad++;
		else if (r != (ssize_t)PG || back != r || memcmp(copy, page(i), PG))
			wrong("page %zu: write %zd, read %zd\n", i, r, back);
	}
	faults_off();
	printf("lost %zu\n", bad);
}

/* A child inherits what is lost, and what can be read. */
static void forked(void)
{
	size_t n;
	int status = -1;
	pid_t pid;

	faulty_install();
	fill_all(1);
	page_out(area, PAGES);
	faults_on();
	n = find_lost(1);
	pid = fork();
	if (!pid)
		_exit(find_lost(1) != n);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		wrong("child: status 0x%x\n", (unsigned)status);
	/* moved, it is lost at its new place, and there alone */
	area = mremap(area, PAGES * PG, 2 * PAGES * PG, MREMAP_MAYMOVE);
	if (area == MAP_FAILED)
		die("mremap");
	if (find_lost(1) != n)
		wrong("moved: not %zu lost\n", n);
	faults_off();
	printf("lost %zu\n", n);
}

/* ---- writes that fail --------------------------------------------------------------- */

static void writes(void)
{
	faults_on();
	fill_all(1);
	verify_all(1);
	fill_all(5);
	if (fork() == 0) {
		verify_all(5);
		fill_all(6);
		verify_all(6);
		_exit(0);
	}
	int status = -1;

	if (wait(&status) < 0 || status)
		wrong("child: status 0x%x\n", (unsigned)status);
	verify_all(5);
	faults_off();
	nap_ms(1200); /* the longest pause before writes are tried again */
	page_out(area, PAGES);
	verify_all(5);
}

/* ---- stalls ---------------------------------------------------------------------------- */

static volatile sig_atomic_t ticks, arrived;

static void on_alarm(int sig)
{
	(void)sig;
	ticks++;
}

static void *wait_for_page(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	if (!page_is(arg, 1 + (size_t)((uint64_t *)arg - area) / WORDS))
		wrong("a page is wrong after the stall\n");
	arrived++;
	return NULL;
}

static void *fork_meanwhile(void *arg)
{
	pid_t pid = fork();
	int status = -1;

	if (!pid) {
		for (size_t i = PAGES / 2; i < PAGES; i++)
			if (!page_is(page(i), 1 + i))
				_exit(1);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		wrong("child of the stall: status 0x%x\n", (unsigned)status);
	return arg;
}

static void stall(void)
{
	struct sigaction sa = {.sa_handler = on_alarm};
	pthread_t reader, forker;

	fill_all(1);
	page_out(area, PAGES);
	sigaction(SIGALRM, &sa, NULL);
	faults_on();
	if (pthread_create(&reader, NULL, wait_for_page, page(PAGES - 1)))
		die("pthread_create");
	for (int i = 0; i < 20; i++) {
		raise(SIGALRM);
		nap_ms(10);
	}
	if (ticks != 20 || arrived)
		wrong("%d signals, %d arrived\n", (int)ticks, (int)arrived);
	if (pthread_create(&forker, NULL, fork_meanwhile, NULL))
		die("pthread_create");
	nap_ms(100);
	faults_off();
	pthread_join(reader, NULL);
	pthread_join(forker, NULL);
	verify_all(1);
}

/* Writes are under way, in the background and by the thread itself, when the store stops. */
static void stall_writes(void)
{
	pthread_t forker;

	fill_all(1);
	faults_on();
	if (pthread_create(&forker, NULL, fork_meanwhile, NULL))
		die("pthread_create");
	nap_ms(100);
	faults_off();
	verify_all(1);
	pthread_join(forker, NULL);
}

static void *read_for_ever(void *arg)
{
	verify_all(1);
	return arg;
}

static void exit_in_a_stall(void)
{
	pthread_t t;

	fill_all(1);
	page_out(area, PAGES);
	faults_on();
	if (pthread_create(&t, NULL, read_for_ever, NULL))
		die("pthread_create");
	nap_ms(100);
	faults_off(); /* with the injected delay still to come: see test_store.py */
	exit(0);
}

/* ---- a store that is full ------------------------------------------------------------------ */

static void full(void)
{
	fill_all(1);
	verify_all(1);
	fill_all(3);
	verify_all(3);
	if (munmap(page(PAGES / 4), PAGES / 2 * PG))
		die("munmap");
	for (size_t i = 0; i < PAGES / 4; i++)
		fill_page(page(i), 9 + i);
	for (size_t i = 0; i < PAGES / 4; i++)
		if (!page_is(page(i), 9 + i))
			wrong("page %zu is wrong\n", i);
}

static void check_chunks(uint64_t **chunk, size_t n)
{
	for (size_t k = 0; k < n; k++)
		for (size_t i = 0; i < 256; i++)
			if (!page_is(chunk[k] + i * WORDS, k * 256 + i))
				wrong("chunk %zu page %zu is wrong\n", k, i);
}

/* Allocates until it is refused; everything is still there, and what is freed can be had again. */
static void until_refused(void)
{
	static uint64_t *chunk[4096];
	size_t n = 0;

	for (; n < 4096; n++) {
		chunk[n] = mmap(NULL, 256 * PG, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (chunk[n] == MAP_FAILED)
			break;
		for (size_t i = 0; i < 256; i++)
			fill_page(chunk[n] + i * WORDS, n * 256 + i);
	}
	if (n == 4096 || errno != ENOMEM)
		wrong("%zu chunks, %s\n", n, strerror(errno));
	check_chunks(chunk, n);
	printf("refused after %zu\n", n);
	for (size_t k = n - n / 4; k < n; k++)
		if (munmap(chunk[k], 256 * PG))
			die("munmap");
	n -= n / 4;
	chunk[n] = map_pages(256);
	for (size_t i = 0; i < 256; i++)
		fill_page(chunk[n] + i * WORDS, n * 256 + i);
	check_chunks(chunk, n + 1);
}

/* Mapped before it was refused: the fault reports it. */
static void until_signal(void)
{
	size_t i = 0;

	faulty_install();
	area = map_pages(262144);
	while (i < 262144 && try_write(page(i), 1))
		fill_page(page(i), i), i++;
	if (i == 262144)
		wrong("a gigabyte went in\n");
	printf("signal at page %zu\n", i);
	for (size_t k = 0; k < i; k++)
		if (!page_is(page(k), k))
			wrong("page %zu is wrong\n", k);
	if (madvise(page(i / 2), i / 2 * PG, MADV_DONTNEED))
		die("MADV_DONTNEED");
	fill_page(page(i), i);
	if (!page_is(page(i), i))
		wrong("page %zu is wrong\n", i);
}

/* ---- limits ------------------------------------------------------------------------------------ */

/* The program changes its limits while it runs. */
static void limits(void)
{
	static const struct {
		int which;
		rlim_t value;
	} l[] = {{RLIMIT_FSIZE, 1 << 20}, {RLIMIT_NOFILE, 32}, {RLIMIT_MEMLOCK, 0},
		 {RLIMIT_FSIZE, 0}};
	int status = -1;

	fill_all(1);
	for (size_t i = 0; i < sizeof(l) / sizeof(l[0]); i++) {
		struct rlimit r = {l[i].value, l[i].value};

		if (setrlimit(l[i].which, &r))
			die("setrlimit");
		verify_all(1 + i);
		fill_all(2 + i);
		if (fork() == 0) {
			verify_all(2 + i);
			_exit(0);
		}
		if (wait(&status) < 0 || status)
			wrong("child: status 0x%x\n", (unsigned)status);
		verify_all(2 + i);
	}
}

static void plain(void)
{
	int status = -1;

	fill_all(1);
	verify_all(1);
	if (fork() == 0) {
		verify_all(1);
		_exit(0);
	}
	if (wait(&status) < 0 || status)
		wrong("child: status 0x%x\n", (unsigned)status);
	fill_all(2);
	verify_all(2);
}

/* What the program may lock is what the kernel says. */
static void memlock(void)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[2] = {0};
	struct rlimit r = {16 * PG, 16 * PG};

	fill_all(1);
	if (syscall(SYS_capset, &head, none))
		die("capset");
	if (setrlimit(RLIMIT_MEMLOCK, &r))
		die("setrlimit");
	if (mlock(area, 8 * PG))
		die("mlock");
	if (!mlock(area, 64 * PG) || errno != ENOMEM)
		wrong("mlock above the limit: %s\n", strerror(errno));
	if (munlock(area, 8 * PG))
		die("munlock");
	verify_all(1);
}

static void address_space(void)
{
	size_t n = 0;

	while (n < 4096 && mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0) != MAP_FAILED)
		n++;
	if (n == 4096 || errno != ENOMEM)
		wrong("no ENOMEM: %s\n", strerror(errno));
	printf("%zu\n", n * 4);
}

static void wait_for_kill(void)
{
	fill_all(1);
	if (write(1, "up\n", 3) != 3)
		die("write");
	for (;;)
		verify_all(1);
}

static const struct {
	const char *name;
	void (*run)(void);
} things[] = {
	{"reads", reads}, {"recovers", recovers}, {"default", default_action},
	{"call", in_a_call}, {"forked", forked}, {"writes", writes}, {"stall", stall},
	{"stall_writes", stall_writes}, {"exit", exit_in_a_stall}, {"full", full},
	{"until_refused", until_refused}, {"until_signal", until_signal}, {"limits", limits},
	{"plain", plain}, {"wait", wait_for_kill}, {"memlock", memlock}, {"address_space", address_space},
};

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	switch_file = argv[2];
	for (size_t i = 0; i < sizeof(things) / sizeof(things[0]); i++) {
		if (strcmp(argv[1], things[i].name))
			continue;
		things[i].run();
		fflush(stdout);
		return 0;
	}
	return 2;
}
