/* SPDX-License-Identifier: MIT */
/*
 * Torture on a store that cannot always be read: lossy [--seed N] [--seconds N] [--sticky].
 *
 * Whatever a thread finds in its memory must be what it has put there, or the access must fail: SIGBUS,
 * or EFAULT from a system call.  EXTMEM_INJECT says which reads fail, while the file LOSSY_SWITCH exists.
 * When it has gone all must be there again, except with --sticky (handler threads), where what was lost
 * once stays so.
 *
 * A page whose writing was cut short may hold each version since the last that was complete.  All that
 * is needed to tell lies in static memory and on stacks, which are not managed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PG = 4096, WORDS = 512, PAGES = 1024, THREADS = 4, FORKED_PAGES = 64 };

struct page {
	uint32_t low, high; /* which versions it may hold: 0 zeros */
	uint32_t next;
};

struct owner {
	unsigned id;
	pthread_t tid;
	uint64_t rng;
	char *base;
	int file;
	uint64_t ops, lost;
	struct page page[PAGES];
};

static struct owner owners[THREADS];
static uint64_t seed = 1;
static unsigned seconds = 3;
static bool sticky;
static volatile bool over;
static __thread sigjmp_buf jump;
static __thread volatile uintptr_t guarded; /* the page that may fail */

#define FAIL(...) \
	do { \
		dprintf(1, "not ok: " __VA_ARGS__); \
		_exit(1); \
	} while (0)

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static size_t below(struct owner *o, size_t n)
{
	o->rng += 0x9e3779b97f4a7c15u;
	return mix(o->rng) % n;
}

static uint64_t word(const struct owner *o, size_t page, uint32_t version, size_t w)
{
	return version ? mix((uint64_t)o->id << 56 | (uint64_t)page << 42 | (uint64_t)version << 10 | w)
		       : 0;
}

static void on_sigbus(int sig, siginfo_t *si, void *uc)
{
	uintptr_t at = (uintptr_t)si->si_addr;

	(void)sig, (void)uc;
	if (!guarded || at / PG != guarded / PG)
		FAIL("SIGBUS code %d at %p, outside an access\n", si->si_code, si->si_addr);
	if (si->si_code != BUS_ADRERR && si->si_code != BUS_MCEERR_AR)
		FAIL("SIGBUS with code %d\n", si->si_code);
	siglongjmp(jump, 1);
}

/* ---- pages ---------------------------------------------------------------------------------- */

static void check_words(struct owner *o, size_t i, const uint64_t *p, size_t n, const char *how)
{
	const struct page *pg = &o->page[i];

	for (size_t w = 0; w < n; w++) {
		uint64_t got = p[w];
		uint32_t v = pg->low;

		while (v <= pg->high && got != word(o, i, v, w))
			v++;
		if (v > pg->high)
			FAIL("%s: thread %u page %zu word %zu is %llx, versions %u to %u\n", how, o->id, i, w,
			     (unsigned long long)got, pg->low, pg->high);
	}
}

static void copy_page(uint64_t *to, const volatile uint64_t *from)
{
	for (size_t w = 0; w < WORDS; w++)
		to[w] = from[w];
}

/* False: it failed, as it may. */
static bool read_page(struct owner *o, size_t i, const char *how)
{
	uint64_t copy[WORDS];

	guarded = (uintptr_t)o->base + i * PG;
	if (sigsetjmp(jump, 0)) {
		guarded = 0;
		o->lost++;
		return false;
	}
	copy_page(copy, (uint64_t *)guarded);
	guarded = 0;
	check_words(o, i, copy, WORDS, how);
	return true;
}

static void begin_write(struct page *pg)
{
	pg->high = ++pg->next;
}

static void end_write(struct page *pg)
{
	pg->low = pg->high;
}

static void write_page(struct owner *o, size_t i)
{
	struct page *pg = &o->page[i];

	begin_write(pg);
	guarded = (uintptr_t)o->base + i * PG;
	if (sigsetjmp(jump, 0)) {
		guarded = 0;
		o->lost++;
		return;
	}
	for (size_t w = 0; w < WORDS; w++)
		((volatile uint64_t *)guarded)[w] = word(o, i, pg->high, w);
	guarded = 0;
	end_write(pg);
}

/* ---- system calls ------------------------------------------------------------------------------ */

static void from_file(struct owner *o, size_t i)
{
	struct page *pg = &o->page[i];
	uint64_t copy[WORDS];
	ssize_t n;

	begin_write(pg);
	for (size_t w = 0; w < WORDS; w++)
		copy[w] = word(o, i, pg->high, w);
	if (pwrite(o->file, copy, PG, 0) != PG)
		FAIL("pwrite: %s\n", strerror(errno));
	n = pread(o->file, o->base + i * PG, PG, 0);
	if (n == PG)
		end_write(pg);
	else if (n < 0 && errno != EFAULT)
		FAIL("pread: %s\n", strerror(errno));
	else
		o->lost++;
}

static void to_file(struct owner *o, size_t i)
{
	size_t pages = 1 + below(o, below(o, 8) ? 4 : 300);
	uint64_t copy[WORDS];
	ssize_t n;

	if (pages > PAGES - i)
		pages = PAGES - i;
	n = pwrite(o->file, o->base + i * PG, pages * PG, 0);
	if (n < 0 && errno != EFAULT)
		FAIL("pwrite of %zu pages: %s\n", pages, strerror(errno));
	if (n < (ssize_t)(pages * PG))
		o->lost++;
	for (ssize_t at = 0; at < n; at += PG, i++) {
		size_t part = n - at < PG ? (size_t)(n - at) : PG;

		if (pread(o->file, copy, part, at) != (ssize_t)part)
			FAIL("pread: %s\n", strerror(errno));
		check_words(o, i, copy, part / 8, "written to a file");
	}
}

/* ---- ranges --------------------------------------------------------------------------------------- */

static void become_zero(struct owner *o, size_t i, size_t n)
{
	for (; n--; i++)
		o->page[i].low = o->page[i].high = 0;
}

static void discard(struct owner *o, size_t i, size_t n)
{
	if (madvise(o->base + i * PG, n * PG, MADV_DONTNEED))
		FAIL("MADV_DONTNEED: %s\n", strerror(errno));
	become_zero(o, i, n);
}

static void map_again(struct owner *o, size_t i, size_t n)
{
	char *at = o->base + i * PG;

	if (below(o, 2) && munmap(at, n * PG))
		FAIL("munmap: %s\n", strerror(errno));
	if (mmap(at, n * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		FAIL("mmap: %s\n", strerror(errno));
	become_zero(o, i, n);
}

static void move(struct owner *o)
{
	char *to = mmap(NULL, PAGES * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (to == MAP_FAILED)
		FAIL("mmap: %s\n", strerror(errno));
	/* EFAULT: it is several mappings by now, which older kernels do not move together. */
	if (mremap(o->base, PAGES * PG, PAGES * PG, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
		o->base = to;
	else if (errno == EFAULT || errno == ENOMEM)
		munmap(to, PAGES * PG);
	else
		FAIL("mremap: %s\n", strerror(errno));
}

static void advise(struct owner *o, size_t i, size_t n)
{
	static const int advice[] = { MADV_PAGEOUT, MADV_WILLNEED, MADV_COLD, MADV_SEQUENTIAL,
				      MADV_RANDOM, MADV_NORMAL };

	madvise(o->base + i * PG, n * PG, advice[below(o, sizeof(advice) / sizeof(advice[0]))]);
}

static void protect(struct owner *o, size_t i, size_t n)
{
	if (mprotect(o->base + i * PG, n * PG, PROT_READ))
		FAIL("mprotect: %s\n", strerror(errno));
	for (size_t k = 0; k < n; k++)
		read_page(o, i + k, "protected");
	if (mprotect(o->base + i * PG, n * PG, PROT_READ | PROT_WRITE))
		FAIL("mprotect: %s\n", strerror(errno));
}

static void forked(struct owner *o)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		FAIL("fork: %s\n", strerror(errno));
	if (!pid) {
		for (size_t k = 0; k < FORKED_PAGES; k++) {
			read_page(o, below(o, PAGES), "in a child");
			write_page(o, below(o, PAGES));
		}
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		FAIL("child: status 0x%x\n", (unsigned)status);
}

/* ---- running ----------------------------------------------------------------------------------------- */

static void step(struct owner *o)
{
	size_t i = below(o, PAGES), n = 1 + below(o, 40), what = below(o, 1000);

	if (n > PAGES - i)
		n = PAGES - i;
	o->ops++;
	if (what < 400)
		read_page(o, i, "read");
	else if (what < 750)
		write_page(o, i);
	else if (what < 820)
		from_file(o, i);
	else if (what < 890)
		to_file(o, i);
	else if (what < 930)
		advise(o, i, n);
	else if (what < 960)
		protect(o, i, n);
	else if (what < 980)
		discard(o, i, n);
	else if (what < 990)
		map_again(o, i, n);
	else if (what < 996)
		move(o);
	else
		forked(o);
}

static void *work(void *arg)
{
	struct owner *o = arg;

	while (!over)
		step(o);
	return NULL;
}

static void start(struct owner *o, unsigned id)
{
	char name[] = "/var/tmp/extmem-lossy-XXXXXX";

	o->id = id;
	o->rng = seed * 1000 + id;
	o->file = mkstemp(name);
	o->base = mmap(NULL, PAGES * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (o->file < 0 || unlink(name) || o->base == MAP_FAILED)
		FAIL("start: %s\n", strerror(errno));
	for (size_t i = 0; i < PAGES; i++)
		write_page(o, i);
}

/* All is there again; or what is not, can be had again by throwing it away. */
static void check_all(struct owner *o)
{
	for (size_t i = 0; i < PAGES; i++) {
		if (read_page(o, i, "at the end"))
			continue;
		if (!sticky)
			FAIL("thread %u page %zu is still lost\n", o->id, i);
		discard(o, i, 1);
		if (!read_page(o, i, "thrown away"))
			FAIL("thread %u page %zu stays lost though it was thrown away\n", o->id, i);
	}
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--sticky"))
			sticky = true;
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			seconds = (unsigned)atoi(argv[++i]);
		else
			FAIL("usage: lossy [--seed N] [--seconds N] [--sticky]\n");
	}
}

int main(int argc, char **argv)
{
	const char *name = getenv("LOSSY_SWITCH");
	struct sigaction sa = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	uint64_t ops = 0, lost = 0;
	time_t end;

	parse(argc, argv);
	dprintf(1, "# seed %llu\n", (unsigned long long)seed);
	sigaction(SIGBUS, &sa, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		start(&owners[i], i);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&owners[i].tid, NULL, work, &owners[i]))
			FAIL("pthread_create\n");
	if (name && close(open(name, O_CREAT | O_WRONLY, 0600)))
		FAIL("%s: %s\n", name, strerror(errno));
	for (end = time(NULL) + seconds; time(NULL) < end;)
		usleep(50000);
	over = true;
	if (name && unlink(name))
		FAIL("%s: %s\n", name, strerror(errno));
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(owners[i].tid, NULL);
		ops += owners[i].ops;
		lost += owners[i].lost;
		check_all(&owners[i]);
	}
	if (name && !lost)
		FAIL("%llu operations, none of them failed\n", (unsigned long long)ops);
	dprintf(1, "ok: %llu operations, %llu failed\n", (unsigned long long)ops, (unsigned long long)lost);
	return 0;
}
