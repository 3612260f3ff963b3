/* SPDX-License-Identifier: MIT */
/* extmem doctor: what this machine offers, what for, and how to get the rest. */
#include "cmd.h"
#include "probe.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char help[] =
	"usage: extmem doctor [--json] [--swap PATH[,size=SIZE][,force]]\n\n"
	"Tries out what extmem needs and can use on this machine, as this user, and tells for\n"
	"each item whether it is there, what it is used for, what happens without, and how\n"
	"to get it.\n\n"
	"  --json         one JSON object, for programs\n"
	"  --swap PATH    check this store instead of the default one\n"
	"  -h, --help     this text\n\n"
	"The exit status is 0 if `extmem run` would work, else 1; 2: wrong usage.\n";

static const char *const status_word[] = {"available", "missing", "warning", "information"};

struct report {
	bool json, color;
	int width;
	bool first;	  /* nothing printed yet: for the commas of JSON */
	unsigned missing; /* required ones */
};

/* ---- for people ------------------------------------------------------------------ */

#define INDENT 15

static void print_wrapped(const struct report *rep, const char *label, const char *text)
{
	int column = printf("    %-*s", INDENT - 4, label);

	while (*text) {
		int word = (int)strcspn(text, " ");

		if (column + 1 + word > rep->width && column > INDENT)
			column = printf("\n%*s", INDENT, "") - 1;
		column += printf("%s%.*s", column > INDENT ? " " : "", word, text);
		text += word;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static void print_item(const struct report *rep, const struct probe *p,
		       const struct probe_result *r, bool required)
{
	static const char *const mark[] = {"yes", "no", "!", "-"};
	static const char *const color[] = {"\033[32m", "\033[33m", "\033[33m", ""};
	bool fatal = required && r->status == PROBE_MISSING;
	const char *on = !rep->color ? "" : fatal ? "\033[1;31m" : color[r->status];

	printf("  %s%-4s%s%s%s\n", on, fatal ? "NO" : mark[r->status], *on ? "\033[0m" : "",
	       p->title, required ? " (required)" : "");
	print_wrapped(rep, "found", r->detail);
	print_wrapped(rep, "used for", p->use);
	print_wrapped(rep, "without", p->without);
	print_wrapped(rep, "to get it", p->get);
}

static void print_verdict(const struct report *rep)
{
	if (rep->missing)
		printf("\n%s`extmem run` would not work: %u required item%s missing (NO "
		       "above).%s\n",
		       rep->color ? "\033[1;31m" : "", rep->missing,
		       rep->missing > 1 ? "s are" : " is", rep->color ? "\033[0m" : "");
	else
		printf("\n%s`extmem run` would work.%s\n", rep->color ? "\033[32m" : "",
		       rep->color ? "\033[0m" : "");
}

/* ---- for programs ---------------------------------------------------------------- */

/* Paths may hold bytes that are no UTF-8; those become U+FFFD. */
static size_t utf8_len(const unsigned char *s)
{
	size_t n = *s < 0x80		     ? 1
		   : *s >= 0xc2 && *s < 0xe0 ? 2
		   : (*s & 0xf0) == 0xe0     ? 3
		   : *s >= 0xf0 && *s < 0xf5 ? 4
					     : 0;

	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong forms and surrogates. */
	if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) ||
	    (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static void json_string(const char *name, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	printf("\"%s\": \"", name);
	while (*s) {
		size_t n = utf8_len(s);

		if (!n)
			fputs("\\ufffd", stdout), s++;
		else if (n == 1 && (*s < ' ' || *s == 127))
			printf("\\u%04x", *s++);
		else if (*s == '"' || *s == '\\')
			printf("\\%c", *s++);
		else
			fwrite(s, 1, n, stdout), s += n;
	}
	putchar('"');
}

static void json_item(struct report *rep, const char *group, const struct probe *p,
		      const struct probe_result *r, bool required)
{
	printf("%s    {", rep->first ? "\n" : ",\n");
	rep->first = false;
	json_string("id", p->id);
	fputs(", ", stdout);
	json_string("group", group);
	fputs(", ", stdout);
	json_string("title", p->title);
	fputs(", ", stdout);
	json_string("status", status_word[r->status]);
	printf(", \"required\": %s, ", required ? "true" : "false");
	json_string("detail", r->detail);
	fputs(",\n     ", stdout);
	json_string("used_for", p->use);
	fputs(", ", stdout);
	json_string("without", p->without);
	fputs(", ", stdout);
	json_string("to_get", p->get);
	putchar('}');
}

/* ---- the command ----------------------------------------------------------------- */

static void examine(struct report *rep, const struct em_options *o, const char *options_err)
{
	struct probe_result r;

	for (unsigned g = 0; g < probe_ngroups; g++) {
		const struct probe_group *group = &probe_groups[g];

		if (!rep->json)
			printf("%s%s%s%s\n", g ? "\n" : "", rep->color ? "\033[1m" : "",
			       group->title, rep->color ? "\033[0m" : "");
		for (unsigned i = 0; i < group->n; i++) {
			const struct probe *p = &group->probes[i];
			bool required = probe_is_required(p, o);

			if (options_err && p->run == probe_options)
				probe_set(&r, PROBE_MISSING, "%.400s", options_err);
			else
				probe_run(p, o, &r);
			rep->missing += required && r.status == PROBE_MISSING;
			if (rep->json)
				json_item(rep, group->title, p, &r, required);
			else
				print_item(rep, p, &r, required);
		}
	}
}

static int terminal_width(void)
{
	struct winsize ws;

	if (!isatty(1) || ioctl(1, TIOCGWINSZ, &ws) || ws.ws_col < 40)
		return 80;
	return ws.ws_col < 110 ? ws.ws_col : 110;
}

static int parse(int argc, char **argv, struct report *rep, const char **swap)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"swap", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		if (c == 'j')
			rep->json = true;
		else if (c == 's')
			*swap = optarg;
		else if (c == 'h')
			return fputs(help, stdout) < 0 || fflush(stdout) ? CMD_ERROR + 1 : 1;
		else
			return cmd_fail("doctor %.200s: option not known or without value; see "
					"`extmem help doctor`",
					argv[optind - 1]) +
			       1;
	}
	if (optind < argc)
		return cmd_fail("doctor %.200s: takes no arguments; see `extmem help doctor`",
				argv[optind]) +
		       1;
	return 0;
}

static int run(int argc, char **argv)
{
	static struct em_options o;
	struct report rep = {.first = true};
	char err[CMD_ERR_LEN], swap_err[CMD_ERR_LEN];
	const char *swap = NULL;
	bool bad_env;
	int rc = parse(argc, argv, &rep, &swap);

	if (rc)
		return rc - 1;
	rep.color = !rep.json && isatty(1) && !getenv("NO_COLOR");
	rep.width = terminal_width();
	em_options_init(&o);
	bad_env = em_options_from_env(&o, err, sizeof(err)) != 0;
	if (swap && em_options_set(&o, "swap", swap, swap_err, sizeof(swap_err)))
		return cmd_fail("%s", swap_err);
	if (!bad_env)
		bad_env = em_options_absolute(&o, err, sizeof(err)) != 0;
	if (!bad_env)
		em_sandbox_adapt(&o);
	if (rep.json)
		printf("{\n  \"items\": [");
	examine(&rep, &o, bad_env ? err : NULL);
	if (rep.json)
		printf("\n  ],\n  \"run_would_work\": %s\n}\n", rep.missing ? "false" : "true");
	else
		print_verdict(&rep);
	if (fflush(stdout) || ferror(stdout))
		return cmd_fail("standard output: cannot be written; redirect it elsewhere");
	return rep.missing ? 1 : 0;
}

const struct command cmd_doctor = {
	.name = "doctor",
	.summary = "tell what this machine offers to extmem and how to get the rest",
	.help = help,
	.run = run,
};
