/* SPDX-License-Identifier: MIT */
/* extmem ctl: looks at and steers a program that runs under extmem. */
#include "ctl.h"
#include "cmd.h"
#include "probe.h"
#include "../../src/control/control.h"
#include "../../src/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"usage: extmem ctl [--json]\n"
	"       extmem ctl PID stats [--json]\n"
	"       extmem ctl PID budget SIZE|N%\n"
	"       extmem ctl PID policy NAME[,key=value]...\n"
	"       extmem ctl PID evict all\n"
	"       extmem ctl PID load all\n\n"
	"Without PID: lists the processes that you can control.\n\n"
	"  stats    what extmem counted so far; --json is the object of run --stats\n"
	"  budget   changes the memory budget; a smaller one evicts before the command ends\n"
	"  policy   changes the eviction policy: 2q, fifo\n"
	"  evict    writes everything out\n"
	"  load     brings everything in, as far as the budget allows\n\n"
	"Only the user of the process and root may do this. The exit status is 0, or 2 with one\n"
	"line on stderr.\n";

/* ---- the list -------------------------------------------------------------------------------- */

struct list {
	bool json;
	unsigned n;
};

static void list_one(void *arg, int fd, long pid)
{
	char err[CMD_ERR_LEN], path[64], command[64] = "", policy[32], *json;
	struct list *l = arg;
	FILE *f;

	if (ctl_ask(fd, "extmem 1 stats\n", &json, err, sizeof(err)))
		return; /* it has just ended */
	if (l->json) {
		json[strcspn(json, "\n")] = 0;
		printf("%s%s", l->n++ ? ",\n" : "", json);
		free(json);
		return;
	}
	snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
	f = fopen(path, "r");
	if (!f || !fgets(command, sizeof(command), f))
		command[0] = 0;
	if (f)
		fclose(f);
	command[strcspn(command, "\n")] = 0;
	if (!l->n++)
		printf("%10s  %11s  %11s  %11s  %-8s %s\n", "PID", "BUDGET", "RESIDENT", "MANAGED",
		       "POLICY", "COMMAND");
	ctl_stats_string(json, "policy", policy, sizeof(policy));
	printf("%10ld  %11s  ", pid, probe_size(ctl_stats_number(json, "budget_bytes")));
	printf("%11s  ", probe_size(ctl_stats_number(json, "resident_bytes")));
	printf("%11s  %-8s %s\n", probe_size(ctl_stats_number(json, "managed_bytes")), policy, command);
	free(json);
}

static int list(bool json)
{
	struct list l = { json, 0 };

	if (json)
		fputs("[", stdout);
	ctl_each(list_one, &l);
	if (json)
		fputs("]\n", stdout);
	else if (!l.n)
		puts("no process to control");
	return fflush(stdout) ? cmd_fail("standard output: cannot be written") : 0;
}

/* ---- requests ------------------------------------------------------------------------------------ */

/* 0, or -EINVAL with a line in err. */
static int budget_request(const char *size, char *line, size_t len, char *err)
{
	uint64_t bytes;
	int ret = em_size_parse_percent(size, em_memory_available_bytes(), &bytes);

	if (ret) {
		snprintf(err, CMD_ERR_LEN, "ctl budget %.80s: %s; give for example 512M or 40%%", size,
			 ret == -ERANGE ? "out of range" : "not a size");
		return -EINVAL;
	}
	snprintf(line, len, "extmem 1 budget %llu\n", (unsigned long long)bytes);
	return 0;
}

static int make_request(int argc, char **argv, char *line, size_t len, char *err)
{
	const char *verb = argv[0], *arg = argc > 1 ? argv[1] : NULL;

	snprintf(err, CMD_ERR_LEN, "ctl %.80s: not known, or too few or too many words; see "
				   "`extmem help ctl`", verb);
	if (argc == 1 && !strcmp(verb, "stats"))
		return snprintf(line, len, "extmem 1 stats\n") > 0 ? 0 : -EINVAL;
	if (argc != 2)
		return -EINVAL;
	if (!strcmp(verb, "budget"))
		return budget_request(arg, line, len, err);
	if (strcmp(verb, "policy") && strcmp(verb, "evict") && strcmp(verb, "load"))
		return -EINVAL;
	if (!*arg || strpbrk(arg, " \n") || strlen(arg) + 20 > len) {
		snprintf(err, CMD_ERR_LEN, "ctl %s %.80s: not understood; see `extmem help ctl`", verb,
			 arg);
		return -EINVAL;
	}
	snprintf(line, len, "extmem 1 %s %s\n", verb, arg);
	return 0;
}

static unsigned long long value_of(const char *pairs, const char *key)
{
	const char *p = strstr(pairs, key);

	return p ? strtoull(p + strlen(key), NULL, 10) : 0;
}

static void tell(const char *verb, const char *body)
{
	unsigned long long budget = value_of(body, "budget_bytes ");
	unsigned long long resident = value_of(body, "resident_bytes ");
	unsigned long long moved = value_of(body, "moved_bytes ");

	printf("budget %s, resident %s", probe_size(budget), probe_size(resident));
	if (moved)
		printf(", %s %s", strcmp(verb, "load") ? "evicted" : "loaded", probe_size(moved));
	putchar('\n');
	if (!strcmp(verb, "budget") && resident > budget)
		fprintf(stderr, "extmem: what is over the budget is locked in memory, held by system "
				"calls, or cannot be written\n");
}

static int request(long pid, int argc, char **argv, bool json)
{
	char line[EM_CONTROL_LINE], err[CMD_ERR_LEN], *body;
	int fd;

	if (make_request(argc, argv, line, sizeof(line), err))
		return cmd_fail("%s", err);
	fd = ctl_connect(pid, err, sizeof(err));
	if (fd < 0)
		return cmd_fail("%s", err);
	if (ctl_ask(fd, line, &body, err, sizeof(err)))
		return cmd_fail("process %ld: %s", pid, err);
	if (strcmp(argv[0], "stats"))
		tell(argv[0], body);
	else if (json)
		fputs(body, stdout);
	else
		ctl_stats_print(body);
	free(body);
	return fflush(stdout) ? cmd_fail("standard output: cannot be written") : 0;
}

static int run(int argc, char **argv)
{
	bool json = argc > 1 && !strcmp(argv[argc - 1], "--json");
	long pid;

	argc -= json;
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(help, stdout);
		return 0;
	}
	if (argc == 1)
		return list(json);
	pid = em_control_name_pid(argv[1]);
	if (!pid)
		return cmd_fail("ctl %.80s: not a process id; see `extmem help ctl`", argv[1]);
	if (argc == 2)
		return cmd_fail("ctl %ld: what to do is missing; see `extmem help ctl`", pid);
	if (json && strcmp(argv[2], "stats"))
		return cmd_fail("ctl %.80s: --json is for stats and for the list", argv[2]);
	return request(pid, argc - 2, argv + 2, json);
}

const struct command cmd_ctl = {
	.name = "ctl",
	.summary = "look at and steer a running program",
	.help = help,
	.run = run,
};
