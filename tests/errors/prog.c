/* SPDX-License-Identifier: MIT */
/*
 * Small programs for test_run.py: prog WHAT [FILE].  Each fills more memory than its budget,
 * does something that must not disturb paging, and verifies the memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PG = 4096, PAGES = 4096 };

extern char **environ;
static uint64_t *area;

static void die(const char *what)
{
	dprintf(2, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t value(size_t page, size_t word, uint64_t salt)
{
	return (page * 512 + word + salt) * 0x9e3779b97f4a7c15u;
}

static void fill(uint64_t salt)
{
	if (!area) {
		area = mmap(NULL, (size_t)PAGES * PG, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (area == MAP_FAILED)
			die("mmap");
	}
	for (size_t i = 0; i < PAGES; i++)
		for (size_t w = 0; w < 512; w += 73)
			area[i * 512 + w] = value(i, w, salt);
}

static void verify(uint64_t salt)
{
	for (size_t i = 0; i < PAGES; i++)
		for (size_t w = 0; w < 512; w += 73)
			if (area[i * 512 + w] != value(i, w, salt)) {
				dprintf(2, "page %zu word %zu is wrong\n", i, w);
				exit(3);
			}
}

/* Verify, change everything, verify: what was evicted comes back, and goes out again. */
static void exercise(void)
{
	verify(1);
	fill(2);
	verify(2);
	fill(1);
}

/* ---- descriptors -------------------------------------------------------------- */

static void close_loop(void)
{
	for (int fd = 3; fd < 65536; fd++)
		close(fd);
}

static void close_by_range(void)
{
	if (syscall(SYS_close_range, 3, ~0u, 0))
		die("close_range");
}

static void close_from(void)
{
	closefrom(3);
}

/* dup2 onto every number: whatever was there is closed. */
static void dup_over(void)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 3; fd < 1024; fd++)
		if (fd != null && dup2(null, fd) != fd)
			die("dup2");
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
}

static void as_daemon(void)
{
	pid_t pid = fork();
	int status = -1;

	if (pid < 0)
		die("fork");
	if (pid) {
		if (waitpid(pid, &status, 0) != pid)
			die("waitpid");
		verify(1);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
	}
	setsid();
	if (chdir("/"))
		die("chdir");
	close_loop();
}

/* A descriptor that we open has the lowest number that is free, as without extmem. */
static void numbers(void)
{
	int a = open("/dev/null", O_RDONLY), b = open("/dev/null", O_RDONLY);

	if (a != 3 || b != 4) {
		dprintf(2, "descriptors %d and %d instead of 3 and 4\n", a, b);
		exit(4);
	}
	if (dup2(a, 900) != 900 || close(900) || close(a) || close(b))
		die("dup2");
}

/* ---- a SIGBUS of the program's own ---------------------------------------------- */

static sigjmp_buf jump;
static volatile siginfo_t got;

static void on_sigbus(int sig, siginfo_t *si, void *uc)
{
	(void)sig, (void)uc;
	*(siginfo_t *)&got = *si;
	verify(1); /* managed memory in the handler */
	siglongjmp(jump, 1);
}

static void own_sigbus(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	char path[] = "/var/tmp/errors-prog-XXXXXX";
	int fd = mkstemp(path);
	char *p;

	if (fd < 0 || unlink(path) || ftruncate(fd, 2 * PG))
		die("file");
	p = mmap(NULL, 2 * PG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED || sigaction(SIGBUS, &sa, NULL) || ftruncate(fd, PG))
		die("mmap");
	for (int i = 0; i < 3; i++) {
		verify(1);
		if (!sigsetjmp(jump, 1)) {
			p[PG + 24] = 1;
			dprintf(2, "no signal\n");
			exit(4);
		}
		if (got.si_signo != SIGBUS || got.si_code != BUS_ADRERR ||
		    got.si_addr != p + PG + 24) {
			dprintf(2, "signal %d code %d address %p, not %p\n", got.si_signo,
				got.si_code, got.si_addr, (void *)(p + PG + 24));
			exit(4);
		}
	}
	sa = (struct sigaction){.sa_handler = SIG_DFL};
	if (sigaction(SIGBUS, &sa, NULL))
		die("sigaction");
}

/* Killed by it, as without extmem. */
static void sigbus_kills(void)
{
	FILE *f = tmpfile();
	char *p = mmap(NULL, PG, PROT_READ, MAP_SHARED, fileno(f), 0);

	_exit(p == MAP_FAILED ? 1 : 100 + *(volatile char *)p);
}

/* ---- children --------------------------------------------------------------- */

static void expect(int status, int want, const char *what)
{
	if (status != want) {
		dprintf(2, "%s: status 0x%x, not 0x%x\n", what, (unsigned)status, (unsigned)want);
		exit(4);
	}
}

static void with_vfork(void)
{
	char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"exit 5", NULL};
	pid_t pid = vfork();
	int status = -1;

	if (!pid) {
		execve("/bin/sh", argv, environ);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("vfork");
	expect(status, 5 << 8, "vfork");
}

/* The arguments lie in memory that is swapped out. */
static void with_spawn(void)
{
	char *text = (char *)area + 77 * PG + 8, saved[64];
	char *argv[] = {(char *)"sh", (char *)"-c", text, NULL};
	pid_t pid;
	int status = -1;

	memcpy(saved, text, sizeof(saved));
	strcpy(text, "exit 6");
	for (size_t i = 1024; i < PAGES; i++)
		((volatile uint64_t *)area)[i * 512] += 0;
	errno = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
	if (errno || waitpid(pid, &status, 0) != pid)
		die("posix_spawn");
	memcpy(text, saved, sizeof(saved));
	expect(status, 6 << 8, "posix_spawn");
}

static void with_system(void)
{
	expect(system("exit 9"), 9 << 8, "system");
}

static void with_popen(void)
{
	char line[64] = "";
	FILE *p = popen("echo from the child; exit 3", "r");

	if (!p || !fgets(line, sizeof(line), p) || strcmp(line, "from the child\n"))
		die("popen");
	expect(pclose(p), 3 << 8, "popen");
}

static void *spawn_often(void *what)
{
	for (int i = 0; i < 8; i++)
		((void (*)(void))(uintptr_t)what)();
	return NULL;
}

/* Children are made by two threads while the others page. */
static void from_threads(void)
{
	pthread_t t[2];

	if (pthread_create(&t[0], NULL, spawn_often, (void *)(uintptr_t)with_vfork) ||
	    pthread_create(&t[1], NULL, spawn_often, (void *)(uintptr_t)with_system))
		die("pthread_create");
	for (int i = 0; i < 4; i++)
		verify(1);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
}

static void with_fork(void)
{
	pid_t pid = fork();
	int status = -1;

	if (!pid) {
		exercise();
		exit(0); /* not _exit: statistics of the child */
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("fork");
	expect(status, 0, "fork");
}

static void wait_for_kill(void)
{
	if (write(1, "full\n", 5) != 5)
		die("write");
	for (;;)
		exercise();
}

static void nothing(void)
{
}

static const struct {
	const char *name;
	void (*run)(void);
} things[] = {
	{"nothing", nothing},		{"close_loop", close_loop},
	{"close_range", close_by_range}, {"closefrom", close_from},
	{"dup_over", dup_over},		{"daemon", as_daemon},
	{"numbers", numbers},		{"own_sigbus", own_sigbus},
	{"sigbus_kills", sigbus_kills}, {"vfork", with_vfork},
	{"spawn", with_spawn},		{"system", with_system},
	{"popen", with_popen},		{"from_threads", from_threads},
	{"fork", with_fork},		{"wait", wait_for_kill},
};

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (size_t i = 0; i < sizeof(things) / sizeof(things[0]); i++) {
		if (strcmp(argv[1], things[i].name))
			continue;
		fill(1);
		things[i].run();
		exercise();
		verify(1);
		return 0;
	}
	return 2;
}
