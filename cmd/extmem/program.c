/* SPDX-License-Identifier: MIT */
/* What execvp would run, and whether LD_PRELOAD works there. */
#include "program.h"
#include "secure.h"
#include "../../src/options_impl.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCRIPT_LEVELS 4
#define HEAD_LEN 256 /* as much as the kernel looks at for #! */

/* What is said about a file, so that messages of nested interpreters name both. */
struct where {
	const char *what; /* "program", "interpreter" */
	const char *path;
	char *err;
	size_t err_len;
};

#define FAIL(w, fmt, ...)                                                                          \
	em_options_fail((w)->err, (w)->err_len, "%s %.400s: " fmt, (w)->what, (w)->path,           \
			##__VA_ARGS__)

static int check_file(const struct where *w, int level, bool *by_shell);

/* ---- ELF ------------------------------------------------------------------------- */

static bool read_at(int fd, void *buf, size_t len, uint64_t off)
{
	return pread(fd, buf, len, (off_t)off) == (ssize_t)len;
}

/* DF_1_PIE tells a static position-independent program from a library. */
static bool dynamic_is_pie(int fd, const Elf64_Phdr *ph)
{
	Elf64_Dyn d;

	for (uint64_t off = 0; off + sizeof(d) <= ph->p_filesz; off += sizeof(d)) {
		if (!read_at(fd, &d, sizeof(d), ph->p_offset + off) || d.d_tag == DT_NULL)
			return false;
		if (d.d_tag == DT_FLAGS_1)
			return (d.d_un.d_val & DF_1_PIE) != 0;
	}
	return false;
}

static int check_loader(const struct where *w, int fd, const Elf64_Phdr *ph)
{
	char path[4096];
	const char *base;
	size_t n = ph->p_filesz < sizeof(path) ? ph->p_filesz : sizeof(path) - 1;

	if (!read_at(fd, path, n, ph->p_offset))
		return FAIL(w, "damaged ELF file; rebuild it");
	path[n] = '\0';
	if (access(path, F_OK))
		return FAIL(w, "needs the dynamic linker %.200s, which is missing; install it",
			    path);
	base = strrchr(path, '/');
	if (strstr(base ? base : path, "ld-musl"))
		return FAIL(w, "linked with musl, extmem needs glibc; use a glibc build");
	return 0;
}

static int check_segments(const struct where *w, int fd, const Elf64_Ehdr *eh)
{
	bool pie = false, dynamic = false;
	Elf64_Phdr ph;

	if (eh->e_phentsize != sizeof(ph))
		return FAIL(w, "damaged ELF file; rebuild it");
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		if (!read_at(fd, &ph, sizeof(ph), eh->e_phoff + i * sizeof(ph)))
			return FAIL(w, "damaged ELF file; rebuild it");
		if (ph.p_type == PT_INTERP)
			return check_loader(w, fd, &ph);
		if (ph.p_type == PT_DYNAMIC) {
			dynamic = true;
			pie = dynamic_is_pie(fd, &ph);
		}
	}
	if (eh->e_type == ET_DYN && dynamic && !pie)
		return FAIL(w, "a shared library or dynamic linker; give the program itself");
	return FAIL(w,
		    "statically linked%s, nothing can be loaded into it; use a dynamically linked "
		    "build",
		    eh->e_type == ET_DYN ? " (static-pie)" : "");
}

static int check_elf(const struct where *w, int fd, const struct stat *st)
{
	const char *why;
	Elf64_Ehdr eh;

	if (!read_at(fd, &eh, sizeof(eh), 0) || eh.e_ident[EI_DATA] != ELFDATA2LSB)
		return FAIL(w, "damaged ELF file or for another machine; use an x86-64 build");
	if (eh.e_ident[EI_CLASS] == ELFCLASS32)
		return FAIL(w, "32-bit program; use a 64-bit (x86-64) build");
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != EM_X86_64)
		return FAIL(w, "ELF file for another machine; use an x86-64 build");
	if (eh.e_type != ET_EXEC && eh.e_type != ET_DYN)
		return FAIL(w, "ELF file, but not a program; link it first");
	if (check_segments(w, fd, &eh))
		return -EINVAL;
	why = secure_exec_reason(fd, st);
	if (why)
		return FAIL(w,
			    "%s, so the dynamic linker ignores LD_PRELOAD; run it as the user and "
			    "with the privileges that it changes to",
			    why);
	return 0;
}

/* ---- scripts --------------------------------------------------------------------- */

/* head begins with "#!"; cuts it down to the interpreter's path. NULL: none given. */
static char *script_interpreter(char *head)
{
	char *p = head + 2;

	p[strcspn(p, "\n")] = '\0';
	p += strspn(p, " \t");
	p[strcspn(p, " \t")] = '\0';
	return *p ? p : NULL;
}

/* Neither ELF nor #!: execve says ENOEXEC, and what execvp and shells do then is to
   hand the file to /bin/sh, unless it looks binary. */
static int check_text(const struct where *w, const char *head, size_t n, int level, bool *by_shell)
{
	struct where sh = *w;

	if (memchr(head, '\0', n))
		return FAIL(w, "neither an ELF program nor a script; give a program");
	if (level)
		return FAIL(w,
			    "a script without #! cannot be an interpreter; correct the first line");
	*by_shell = true;
	sh.what = "interpreter";
	sh.path = "/bin/sh";
	return check_file(&sh, level + 1, by_shell);
}

static int check_content(const struct where *w, int fd, const struct stat *st, int level,
			 bool *by_shell)
{
	char head[HEAD_LEN + 1];
	ssize_t n = pread(fd, head, HEAD_LEN, 0);
	struct where inner = *w;

	if (n < 0)
		return FAIL(w, "cannot be read: %s; make it readable", strerror(errno));
	head[n] = '\0';
	if (n >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG))
		return check_elf(w, fd, st);
	inner.path = n >= 2 && head[0] == '#' && head[1] == '!' ? script_interpreter(head) : NULL;
	if (!inner.path)
		return check_text(w, head, (size_t)n, level, by_shell);
	if (level >= SCRIPT_LEVELS)
		return FAIL(w,
			    "scripts interpreted by scripts, more than %d deep; name a program in "
			    "the #! line",
			    SCRIPT_LEVELS);
	inner.what = "interpreter";
	return check_file(&inner, level + 1, by_shell);
}

static int check_file(const struct where *w, int level, bool *by_shell)
{
	struct stat st;
	int fd, rc;

	if (stat(w->path, &st))
		return FAIL(w, "%s; %s", errno == ENOENT ? "not found" : strerror(errno),
			    level ? "correct the #! line" : "check the path");
	if (S_ISDIR(st.st_mode))
		return FAIL(w, "is a directory; give a program");
	if (!S_ISREG(st.st_mode))
		return FAIL(w, "not a regular file; give a program");
	if (faccessat(AT_FDCWD, w->path, X_OK, AT_EACCESS))
		return FAIL(w, "not executable: %s; check its permissions and mount options",
			    strerror(errno));
	fd = open(w->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return FAIL(w, "cannot be read to check it: %s; make it readable", strerror(errno));
	rc = check_content(w, fd, &st, level, by_shell);
	close(fd);
	return rc;
}

/* ---- the search in PATH ---------------------------------------------------------- */

static bool runnable(const char *path, bool *seen)
{
	struct stat st;

	if (stat(path, &st)) {
		*seen |= errno == EACCES;
		return false;
	}
	if (S_ISREG(st.st_mode) && !faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
		return true;
	*seen = true;
	return false;
}

static int path_search(const struct where *w, char *out, size_t len)
{
	char fallback[256] = "/bin:/usr/bin";
	const char *dirs = getenv("PATH"), *end;
	bool seen = false;
	int n;

	if (!dirs) {
		confstr(_CS_PATH, fallback, sizeof(fallback));
		dirs = fallback;
	}
	for (;; dirs = end + 1) {
		end = strchrnul(dirs, ':');
		/* An empty element is the current directory. */
		n = snprintf(out, len, "%.*s%s%s", (int)(end - dirs), dirs, end > dirs ? "/" : "",
			     w->path);
		if (n > 0 && (size_t)n < len && runnable(out, &seen))
			return 0;
		if (!*end)
			break;
	}
	if (seen)
		return FAIL(w, "found in PATH, but not executable; check its permissions");
	return FAIL(w, "not found in PATH; check the name or give the path");
}

int program_find(const char *name, struct program *p, char *err, size_t err_len)
{
	struct where w = {"program", name, err, err_len};

	p->by_shell = false;
	if (!*name)
		return FAIL(&w, "empty name; give a program");
	if (strlen(name) >= sizeof(p->path))
		return FAIL(&w, "path too long; give a shorter one");
	if (strchr(name, '/'))
		strcpy(p->path, name);
	else if (path_search(&w, p->path, sizeof(p->path)))
		return -EINVAL;
	w.path = p->path;
	return check_file(&w, 0, &p->by_shell);
}
