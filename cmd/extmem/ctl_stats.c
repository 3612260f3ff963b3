/* SPDX-License-Identifier: MIT */
/* The statistics for people.  The text comes from our own writer (src/observe/json.c), so it is well formed
   unless the process is not what it says; then the walk ends early and nothing worse happens. */
#include "ctl.h"
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_string(const char *p)
{
	for (p++; *p && *p != '"'; p++)
		if (*p == '\\' && p[1])
			p++;
	return *p ? p + 1 : p;
}

/* Behind the value that begins at p. */
static const char *skip_value(const char *p)
{
	int depth = 0;

	if (*p == '"')
		return skip_string(p);
	while (*p) {
		if (*p == '"') {
			p = skip_string(p);
			continue;
		}
		if (!depth && (*p == ',' || *p == '}' || *p == ']'))
			return p;
		if (*p == '{' || *p == '[')
			depth++;
		else if (*p == '}' || *p == ']')
			depth--;
		p++;
		if (!depth && (p[-1] == '}' || p[-1] == ']'))
			return p;
	}
	return p;
}

struct member {
	char key[64];
	const char *value;
};

/* The next member of the object that *p is in; false at its end. */
static bool next_member(const char **p, struct member *m)
{
	const char *q = *p, *end;
	size_t n;

	while (*q == '{' || *q == ',' || *q == '\n')
		q++;
	if (*q != '"')
		return false;
	end = skip_string(q);
	if (*end != ':')
		return false;
	n = (size_t)(end - q) - 2;
	if (n >= sizeof(m->key))
		n = sizeof(m->key) - 1;
	memcpy(m->key, q + 1, n);
	m->key[n] = 0;
	m->value = end + 1;
	*p = skip_value(m->value);
	return true;
}

static const char *find(const char *object, const char *key)
{
	struct member m;

	while (next_member(&object, &m))
		if (!strcmp(m.key, key))
			return m.value;
	return NULL;
}

unsigned long long ctl_stats_number(const char *json, const char *key)
{
	const char *v = find(json, key);

	return v ? strtoull(v, NULL, 10) : 0;
}

void ctl_stats_string(const char *json, const char *key, char *out, size_t len)
{
	const char *v = find(json, key);

	snprintf(out, len, "%.*s", v && *v == '"' ? (int)(skip_string(v) - v) - 2 : 0,
		 v ? v + 1 : "");
}

static void print_time(unsigned long long ns)
{
	if (ns < 10000)
		printf("%llu ns\n", ns);
	else if (ns < 10000000)
		printf("%llu us\n", ns / 1000);
	else
		printf("%llu ms\n", ns / 1000000);
}

static bool names_bytes(const char *key)
{
	size_t n = strlen(key);

	return !strncmp(key, "bytes", 5) || (n > 6 && !strcmp(key + n - 6, "_bytes"));
}

static void print_scalar(const char *group, const struct member *m)
{
	unsigned long long v = strtoull(m->value, NULL, 10);
	char label[64];

	snprintf(label, sizeof(label), "%s", m->key);
	if (names_bytes(m->key) && strncmp(m->key, "bytes", 5))
		label[strlen(label) - 6] = 0;
	for (char *p = label; *p; p++)
		if (*p == '_')
			*p = ' ';
	printf("%s%-*s ", *group ? "  " : "", *group ? 18 : 20, label);
	if (*m->value == '"')
		printf("%.*s\n", (int)(skip_string(m->value) - m->value) - 2, m->value + 1);
	else if (names_bytes(m->key))
		printf("%s\n", probe_size(v));
	else if (strstr(group, "_ns") && strcmp(m->key, "count"))
		print_time(v);
	else
		printf("%llu\n", v);
}

static void print_group(const char *name, const char *object)
{
	struct member m;
	char label[64];

	snprintf(label, sizeof(label), "%s", name);
	label[strcspn(label, "_")] = 0;
	printf("\n%s%s\n", label, strstr(name, "_ns") ? " time" : "");
	while (next_member(&object, &m))
		if (*m.value != '{' && *m.value != '[')
			print_scalar(name, &m);
}

static void print_regions(const char *list)
{
	const char *p = list + 1;
	char start[24], kind[16];

	if (*p != '{')
		return;
	printf("\nregions\n  %-16s %11s  %-5s %9s %9s %9s\n", "start", "size", "kind", "major", "in",
	       "out");
	for (; *p == '{'; p = skip_value(p), p += *p == ',') {
		const char *faults = find(p, "faults"), *pages = find(p, "pages");

		ctl_stats_string(p, "start", start, sizeof(start));
		ctl_stats_string(p, "kind", kind, sizeof(kind));
		if (!faults || !pages || !ctl_stats_number(p, "bytes"))
			continue;
		printf("  %-16s %11s  %-5s %9llu %9llu %9llu\n", start,
		       probe_size(ctl_stats_number(p, "bytes")), kind,
		       ctl_stats_number(faults, "major"), ctl_stats_number(pages, "in"),
		       ctl_stats_number(pages, "out"));
	}
}

void ctl_stats_print(const char *json)
{
	struct member m;

	while (next_member(&json, &m)) {
		if (!strcmp(m.key, "extmem"))
			continue; /* version of the format */
		if (!strcmp(m.key, "regions"))
			print_regions(m.value);
		else if (!strcmp(m.key, "regions_rest")) {
			if (ctl_stats_number(m.value, "count"))
				printf("  and %llu more\n", ctl_stats_number(m.value, "count"));
		} else if (*m.value == '{')
			print_group(m.key, m.value);
		else
			print_scalar("", &m);
	}
}
