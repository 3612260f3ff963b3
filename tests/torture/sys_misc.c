/* SPDX-License-Identifier: MIT */
/* What else takes or fills a structure: identity, limits, terminals, exec. */
#define _GNU_SOURCE
#include "sys.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void misc_structures(void)
{
	struct utsname *u;
	struct rlimit *r;
	struct rusage *ru;
	struct sysinfo *si;
	struct tms *t;
	cpu_set_t *cpus;
	unsigned *cpu;
	char *name;

	sys_reset();
	u = spot(sizeof(*u));
	r = spot(2 * sizeof(*r));
	ru = spot(sizeof(*ru));
	si = spot(sizeof(*si));
	t = spot(sizeof(*t));
	cpus = spot(sizeof(*cpus));
	cpu = spot(2 * sizeof(*cpu));
	name = spot_text("cold name");
	cold();
	CHECK(uname(u) == 0 && strcmp(u->sysname, "Linux") == 0);
	cold();
	CHECK(getrlimit(RLIMIT_NOFILE, r) == 0 && r->rlim_cur > 3);
	cold();
	CHECK(setrlimit(RLIMIT_NOFILE, r) == 0);
	cold();
	CHECK(prlimit(0, RLIMIT_NOFILE, &r[0], &r[1]) == 0 && r[1].rlim_cur == r[0].rlim_cur);
	cold();
	CHECK(getrusage(RUSAGE_THREAD, ru) == 0);
	cold();
	CHECK(sysinfo(si) == 0 && si->totalram > 0);
	cold();
	CHECK(times(t) != (clock_t)-1);
	cold();
	CHECK(sched_getaffinity(0, sizeof(*cpus), cpus) == 0 && CPU_COUNT(cpus) > 0);
	cold();
	CHECK(sched_setaffinity(0, sizeof(*cpus), cpus) == 0);
	cold();
	CHECK(syscall(SYS_getcpu, &cpu[0], &cpu[1], NULL) == 0);
	cold();
	CHECK(prctl(PR_SET_NAME, name) == 0);
	memset(name, 0, 10);
	name = spot(16);
	cold();
	CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "cold name") == 0);
}

static void misc_identity(void)
{
	gid_t *g;
	uid_t *u;
	int n;

	sys_reset();
	u = spot(3 * sizeof(*u));
	g = spot(1024 * sizeof(*g));
	cold();
	CHECK(getresuid(&u[0], &u[1], &u[2]) == 0 && u[0] == getuid() && u[1] == geteuid());
	cold();
	CHECK(getresgid(&g[0], &g[1], &g[2]) == 0 && g[0] == getgid());
	cold();
	n = getgroups(1024, g);
	CHECK(n >= 0);
}

static void misc_ioctl(void)
{
	struct termios *tio;
	struct winsize *ws;
	int *n, fds[2], pty;

	sys_reset();
	n = spot(sizeof(*n));
	ws = spot(sizeof(*ws));
	tio = spot(sizeof(*tio));
	CHECK(pipe(fds) == 0 && write(fds[1], "12345", 5) == 5);
	cold();
	CHECK(ioctl(fds[0], FIONREAD, n) == 0 && *n == 5);
	*n = 1;
	cold();
	CHECK(ioctl(fds[0], FIONBIO, n) == 0 && (fcntl(fds[0], F_GETFL) & O_NONBLOCK));
	close(fds[0]);
	close(fds[1]);
	pty = posix_openpt(O_RDWR | O_NOCTTY);
	if (pty < 0)
		SKIP("no pseudo-terminal");
	ws->ws_row = 24;
	ws->ws_col = 80;
	cold();
	CHECK(ioctl(pty, TIOCSWINSZ, ws) == 0);
	memset(ws, 0, sizeof(*ws));
	cold();
	CHECK(ioctl(pty, TIOCGWINSZ, ws) == 0 && ws->ws_row == 24 && ws->ws_col == 80);
	cold();
	CHECK(tcgetattr(pty, tio) == 0);
	cold();
	CHECK(tcsetattr(pty, TCSANOW, tio) == 0);
	close(pty);
}

static void misc_fcntl_locks(void)
{
	struct flock *l;
	char path[300];
	int fd;

	sys_reset();
	l = spot(sizeof(*l));
	snprintf(path, sizeof(path), "%s/locked", sys_dir());
	fd = open(path, O_RDWR | O_CREAT, 0600);
	unlink(path);
	l->l_type = F_WRLCK;
	cold();
	CHECK(fcntl(fd, F_SETLK, l) == 0);
	cold();
	CHECK(fcntl(fd, F_GETLK, l) == 0 && l->l_type == F_UNLCK);
	close(fd);
}

/* Path, argument and environment vectors and their strings, all cold. */
static char **vector(const char *a, const char *b, const char *c)
{
	char **v = spot(4 * sizeof(*v)), *s[3] = { NULL, NULL, NULL };

	s[0] = spot_text(a);
	s[1] = b ? spot_text(b) : NULL;
	s[2] = c ? spot_text(c) : NULL;
	memcpy(v, s, sizeof(s));
	return v;
}

static bool said(int fd, pid_t pid, const char *want)
{
	char got[128] = "";
	ssize_t n, len = 0;
	int status = -1;

	while ((n = read(fd, got + len, sizeof(got) - 1 - (size_t)len)) > 0)
		len += n;
	close(fd);
	waitpid(pid, &status, 0);
	return status == 0 && strcmp(got, want) == 0;
}

static void misc_execve(void)
{
	char **args, **env, *path;
	volatile int way;
	int fds[2];
	pid_t pid;

	for (way = 0; way < 3; way++) {
		sys_reset();
		path = spot_text("/proc/self/exe");
		args = vector("syscalls", "--echo-arguments", "cold argument");
		env = vector("SPOT=cold environment", NULL, NULL);
		CHECK(pipe(fds) == 0);
		cold();
		pid = way == 0 ? fork() : way == 1 ? vfork() : fork();
		if (pid == 0) {
			dup2(fds[1], 1);
			close(fds[0]);
			close(fds[1]);
			if (way == 2)
				mm_evict(args, PG);
			execve(path, args, env);
			_exit(1);
		}
		close(fds[1]);
		CHECK(said(fds[0], pid, "cold argument cold environment\n"));
	}
}

static void misc_posix_spawn(void)
{
	posix_spawn_file_actions_t *fa;
	char **args, **env, *path, self[300];
	int fds[2];
	pid_t *pid;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	CHECK(n > 0);
	self[n] = 0;
	sys_reset();
	fa = spot(sizeof(*fa));
	pid = spot(sizeof(*pid));
	path = spot_text(self);
	args = vector("syscalls", "--echo-arguments", "spawned");
	env = vector("SPOT=there", NULL, NULL);
	CHECK(pipe(fds) == 0);
	posix_spawn_file_actions_init(fa);
	posix_spawn_file_actions_adddup2(fa, fds[1], 1);
	posix_spawn_file_actions_addclose(fa, fds[0]);
	cold();
	CHECK(posix_spawn(pid, path, fa, NULL, args, env) == 0);
	close(fds[1]);
	CHECK(said(fds[0], *pid, "spawned there\n"));
	posix_spawn_file_actions_destroy(fa);
}

const struct mm_test sys_misc_tests[] = {
	SYS_TEST(misc_structures), SYS_TEST(misc_identity), SYS_TEST(misc_ioctl),
	SYS_TEST(misc_fcntl_locks), SYS_TEST(misc_execve), SYS_TEST(misc_posix_spawn), { 0 }
};
