/* SPDX-License-Identifier: MIT */
/* Where the preload library is. */
#include "cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define LIBRARY "libextmem-preload.so"

/* Relative to the executable: the build directory first, then an installation that was moved. */
static const char *const places[] = {
	"",
	"../lib/x86_64-linux-gnu/",
	"../lib64/",
	"../lib/",
};

static bool usable(const char *path)
{
	return access(path, R_OK) == 0;
}

/* ld.so splits LD_PRELOAD at these and expands $ORIGIN; there is no way to quote. */
static int check_name(const char *path, char *err, size_t err_len)
{
	if (!strpbrk(path, " :$"))
		return 0;
	snprintf(err, err_len,
		 "%.400s: LD_PRELOAD cannot express blanks, colons and $ in a path; install extmem "
		 "elsewhere",
		 path);
	return -EINVAL;
}

/* Without /proc the kernel's note of the file that it executed helps, until somebody changes directory. */
bool library_self(char *path, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", path, len - 1);
	const char *name = (const char *)getauxval(AT_EXECFN);
	char *real = n > 0 || !name ? NULL : realpath(name, NULL);

	path[n > 0 ? n : 0] = '\0';
	if (real)
		snprintf(path, len, "%s", real);
	free(real);
	return *path;
}

int library_find(char *path, size_t len, char *err, size_t err_len)
{
	char dir[4096];
	char *slash;

	library_self(dir, sizeof(dir));
	slash = strrchr(dir, '/');
	for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
		slash[1] = '\0';
		if ((size_t)snprintf(path, len, "%s%s%s", dir, places[i], LIBRARY) < len &&
		    usable(path))
			return check_name(path, err, err_len);
	}
	snprintf(path, len, "%s/%s", LIBEXTMEM_DIR, LIBRARY);
	if (usable(path))
		return check_name(path, err, err_len);
	snprintf(err, err_len, LIBRARY ": not found beside %.400s nor in %s; install or build it",
		 dir, LIBEXTMEM_DIR);
	return -ENOENT;
}

/* Our library first, then what was there, except our library again (nested runs). */
int library_preload(const char *library)
{
	const char *old = getenv("LD_PRELOAD");
	size_t len = strlen(library) + (old ? strlen(old) : 0) + 2, n;
	char *value = malloc(len);
	int rc;

	if (!value)
		return -ENOMEM;
	n = (size_t)snprintf(value, len, "%s", library);
	while (old && *old) {
		size_t item = strcspn(old, ": ");

		if (item && (item != strlen(library) || strncmp(old, library, item)))
			n += (size_t)snprintf(value + n, len - n, ":%.*s", (int)item, old);
		old += item;
		old += strspn(old, ": ");
	}
	rc = setenv("LD_PRELOAD", value, 1) ? -errno : 0;
	free(value);
	return rc;
}
