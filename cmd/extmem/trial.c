/* SPDX-License-Identifier: MIT */
/*
 * A trial run: this command again, as a managed program that pages.  What the single probes overlook, this
 * does not.
 */
#include "cmd.h"
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIAL_BYTES (8ul << 20)
#define TRIAL_SECONDS 20

enum { TRIAL_GOOD = 0, TRIAL_WRONG = 20, TRIAL_NO_FORK = 21, TRIAL_NO_READ = 22, TRIAL_NO_FD = 23 };

/* ---- inside ----------------------------------------------------------------------------- */

static uint64_t word(uint64_t i)
{
	return (i + 1) * 0x9e3779b97f4a7c15u;
}

static bool is_right(const uint64_t *p)
{
	for (uint64_t i = 0; i < TRIAL_BYTES / 8; i++)
		if (p[i] != word(i))
			return false;
	return true;
}

/* By the end of the memory its beginning has left. */
static int kernel_writes(uint64_t *p)
{
	char text[16] = "system call";
	int fds[2];

	if (pipe(fds))
		return TRIAL_NO_FD;
	if (write(fds[1], text, sizeof(text)) != sizeof(text) ||
	    read(fds[0], p, sizeof(text)) != sizeof(text) || memcmp(p, text, sizeof(text)))
		return TRIAL_NO_READ;
	p[0] = word(0);
	p[1] = word(1);
	return TRIAL_GOOD;
}

static int run(int argc, char **argv)
{
	uint64_t *p = mmap(NULL, TRIAL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	int status, failed;
	pid_t pid;

	(void)argc;
	(void)argv;
	if (p == MAP_FAILED)
		return TRIAL_WRONG;
	for (uint64_t i = 0; i < TRIAL_BYTES / 8; i++)
		p[i] = word(i);
	failed = kernel_writes(p);
	if (failed)
		return failed;
	if (!is_right(p))
		return TRIAL_WRONG;
	pid = fork();
	if (!pid)
		_exit(is_right(p) ? 0 : TRIAL_WRONG);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		return TRIAL_NO_FORK;
	return is_right(p) ? TRIAL_GOOD : TRIAL_WRONG;
}

const struct command cmd_trial = {
	.name = "trial",
	.summary = "",
	.help = "usage: extmem run [OPTIONS] -- extmem trial\n\n"
		"Exits with 0 if 8 MiB of memory hold what was written to them. `extmem doctor`\n"
		"does this with a budget of 1 MiB.\n",
	.run = run,
};

/* ---- outside ---------------------------------------------------------------------------- */

/* Nothing is written to existing files and devices: their place is taken by a directory. */
static void use_directory(struct em_options *o)
{
	struct stat st;
	char *slash;

	if (!o->swap_path[0] || (!stat(o->swap_path, &st) && S_ISDIR(st.st_mode)))
		return;
	slash = strrchr(o->swap_path, '/');
	if (slash)
		slash[slash == o->swap_path] = '\0';
	if (!slash || access(o->swap_path, W_OK) || !strcmp(o->swap_path, "/dev"))
		o->swap_path[0] = '\0';
	o->swap_size_bytes = 0;
	o->swap_force = false;
}

static void child_main(const struct em_options *given, int err_fd)
{
	static struct em_options o;
	char library[4096], self[4096], err[400];
	int null = open("/dev/null", O_WRONLY);

	o = *given;
	use_directory(&o);
	o.dram_bytes = EM_DRAM_MIN_BYTES;
	o.min_map_bytes = 1u << 20;
	strcpy(o.stats_path, "-");
	o.stats_pid = getpid();
	o.verbose = false;
	dup2(err_fd, 2);
	if (null >= 0)
		dup2(null, 1);
	if (library_find(library, sizeof(library), err, sizeof(err)) || !library_self(self, sizeof(self)))
		_exit(TRIAL_WRONG);
	if (em_options_to_env(&o) || library_preload(library))
		_exit(TRIAL_WRONG);
	alarm(TRIAL_SECONDS);
	execl(self, "extmem", cmd_trial.name, (char *)NULL);
	_exit(TRIAL_WRONG);
}

/* The first line; a managed program that ends writes its statistics there. */
static void read_all(int fd, char *text, size_t len, bool *managed)
{
	char buf[4096];
	size_t n = 0;
	ssize_t got;

	*managed = false;
	while ((got = read(fd, buf, sizeof(buf) - 1)) > 0 || (got < 0 && errno == EINTR)) {
		if (got < 0)
			continue;
		buf[got] = '\0';
		*managed |= strstr(buf, "\"budget_bytes\"") != NULL;
		for (ssize_t i = 0; i < got && n + 1 < len; i++)
			text[n++] = buf[i];
	}
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

static void judge(struct probe_result *r, int status, bool managed, const char *line)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;

	if (!strncmp(line, "extmem: ", 8))
		line += 8;
	if (WIFSIGNALED(status))
		probe_set(r, PROBE_MISSING, "the program was killed by %s; %.300s",
			  strsignal(WTERMSIG(status)), line);
	else if (code == CMD_ERROR)
		probe_set(r, PROBE_MISSING, "%.400s", line);
	else if (code == TRIAL_NO_READ)
		probe_set(r, PROBE_MISSING, "a system call could not write to memory that had left");
	else if (code == TRIAL_NO_FD)
		probe_set(r, PROBE_MISSING, "no descriptors are left for the program (RLIMIT_NOFILE)");
	else if (code == TRIAL_NO_FORK && managed)
		probe_set(r, PROBE_WARNING, "works, but fork fails; %.300s", *line == '{' ? "" : line);
	else if (code != TRIAL_GOOD)
		probe_set(r, PROBE_MISSING, "the program failed (%d)", code);
	else if (!managed)
		probe_set(r, PROBE_MISSING, "the library was not loaded into the program");
	else
		probe_set(r, PROBE_AVAILABLE, "8 MiB in a budget of 1 MiB, a system call, a fork");
}

void probe_trial(const struct em_options *o, struct probe_result *r)
{
	char line[400] = "";
	int fds[2], status = 0;
	bool managed;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC)) {
		probe_errno(r, "pipe", errno);
		return;
	}
	pid = fork();
	if (!pid)
		child_main(o, fds[1]);
	close(fds[1]);
	if (pid < 0) {
		probe_not_tried(r);
		close(fds[0]);
		return;
	}
	read_all(fds[0], line, sizeof(line), &managed);
	close(fds[0]);
	/* With SIGCHLD ignored there is no status: then what it wrote has to do. */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	judge(r, status, managed, line);
}
