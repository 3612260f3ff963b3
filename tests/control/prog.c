/* SPDX-License-Identifier: MIT */
/*
 * Programs to be controlled: prog MODE.  Each prints "ready" when it may be looked at, and ends when its standard
 * input does.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1ul << 20)
#define PAGE 4096ul

static unsigned long *memory;
static size_t words = 16 * MIB / sizeof(long);

static void fill(void)
{
	memory = mmap(NULL, words * sizeof(long), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		_exit(3);
	for (size_t i = 0; i < words; i += 64)
		memory[i] = i * 0x9e3779b97f4a7c15ul;
}

static int check(void)
{
	for (size_t i = 0; i < words; i += 64)
		if (memory[i] != i * 0x9e3779b97f4a7c15ul) {
			printf("wrong at word %zu\n", i);
			return 1;
		}
	return 0;
}

static void say(const char *text)
{
	printf("%s\n", text);
	fflush(stdout);
}

static void wait_for_end(void)
{
	char c;

	while (read(0, &c, 1) > 0)
		;
}

static int hold(void)
{
	fill();
	say("ready");
	wait_for_end();
	return check();
}

static int forked(void)
{
	int status;
	pid_t p;

	fill();
	p = fork();
	if (!p) {
		printf("ready %d\n", getpid());
		fflush(stdout);
		wait_for_end();
		_exit(check());
	}
	waitpid(p, &status, 0);
	return check() || status;
}

/* No libc: the thread, and with it the process, ends. */
static int raw_exit(void)
{
	syscall(SYS_exit, 7);
	return 1;
}

static void *outlive(void *arg)
{
	(void)arg;
	usleep(100000);
	syscall(SYS_exit, 9);
	return NULL;
}

static int raw_exit_of_two(void)
{
	pthread_t t;

	pthread_create(&t, NULL, outlive, NULL);
	syscall(SYS_exit, 7);
	return 1;
}

static void *leave_now(void *arg)
{
	(void)arg;
	syscall(SYS_exit, 0);
	return NULL;
}

/* All at once, as near as can be. */
static int raw_exit_of_many(void)
{
	pthread_t t;

	for (int i = 0; i < 20; i++)
		pthread_create(&t, NULL, leave_now, NULL);
	syscall(SYS_exit, 7);
	return 1;
}

/* Another root and another user before it ends. */
static int jail(const char *dir)
{
	if (chroot(dir) || chdir("/") || setgid(65534) || setuid(65534))
		return 3;
	say("ready");
	wait_for_end();
	return 0;
}

/* A search along PATH fails several times, a bad file once more. */
static int failing_exec(const char *bad)
{
	char *argv[] = { (char *)"x", NULL };

	for (int i = 0; i < 20; i++) {
		execv("/does/not/exist", argv);
		execv(bad, argv);
		if (errno != ENOEXEC)
			return 3;
	}
	return hold();
}

/* A program that is not managed. */
static int leaving_exec(void)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"echo ready; read x; exit 0", NULL };
	char *envp[] = { NULL };

	execve("/bin/sh", argv, envp);
	return 3;
}

static int new_user(void)
{
	fill();
	if (unshare(CLONE_NEWUSER))
		return errno == EPERM || errno == ENOSPC ? 77 : 4;
	say("ready");
	wait_for_end();
	return check();
}

/* The lowest free descriptor is the program's, whoever connects meanwhile. */
static int lowest_descriptor(void)
{
	int low = open("/dev/null", O_RDONLY), flags = fcntl(0, F_GETFL), fd;
	char c;

	close(low);
	fcntl(0, F_SETFL, flags | O_NONBLOCK);
	say("ready");
	while (read(0, &c, 1) != 0) {
		fd = open("/dev/null", O_RDONLY);
		if (fd != low) {
			printf("descriptor %d, not %d\n", fd, low);
			return 1;
		}
		close(fd);
	}
	return 0;
}

/* Two gigabytes of blocks in a budget of a few megabytes; its tables count. */
static int sparse(void)
{
	size_t n = 2048 * MIB;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return 3;
	for (size_t i = 0; i < n; i += 2 * MIB)
		p[i] = 1;
	say("ready");
	wait_for_end();
	return 0;
}

/* Half of it locked. */
static int locked(void)
{
	fill();
	if (mlock(memory, words * sizeof(long) / 2))
		return 77;
	say("ready");
	wait_for_end();
	return check();
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "hold";

	if (!strcmp(mode, "forked"))
		return forked();
	if (!strcmp(mode, "raw_exit"))
		return raw_exit();
	if (!strcmp(mode, "raw_exit_of_two"))
		return raw_exit_of_two();
	if (!strcmp(mode, "raw_exit_of_many"))
		return raw_exit_of_many();
	if (!strcmp(mode, "jail"))
		return jail(argv[2]);
	if (!strcmp(mode, "failing_exec"))
		return failing_exec(argv[2]);
	if (!strcmp(mode, "leaving_exec"))
		return leaving_exec();
	if (!strcmp(mode, "new_user"))
		return new_user();
	if (!strcmp(mode, "lowest_descriptor"))
		return lowest_descriptor();
	if (!strcmp(mode, "sparse"))
		return sparse();
	if (!strcmp(mode, "locked"))
		return locked();
	return hold();
}
