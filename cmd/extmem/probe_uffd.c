/* SPDX-License-Identifier: MIT */
/* userfaultfd: every way to open it, every operation the engine is built on. */
#include "probe.h"
#include "../../src/core/uffd_compat.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PAGE 4096ul
#define PATTERN 0xa5
#define OPEN_FLAGS (O_CLOEXEC | O_NONBLOCK)

/* ---- opening --------------------------------------------------------------------- */

static int open_user(void)
{
	return (int)syscall(SYS_userfaultfd, OPEN_FLAGS | UFFD_USER_MODE_ONLY);
}

static int open_full(void)
{
	return (int)syscall(SYS_userfaultfd, OPEN_FLAGS);
}

static int open_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd, saved;

	if (dev < 0)
		return -1;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, OPEN_FLAGS);
	saved = errno;
	close(dev);
	errno = saved;
	return fd;
}

static const struct {
	const char *name;
	int (*open)(void);
} ways[] = {
	{"system call, user-mode faults only", open_user},
	{"system call", open_full},
	{"/dev/userfaultfd", open_device},
};
#define NWAYS (sizeof(ways) / sizeof(ways[0]))

static void probe_way(unsigned way, struct probe_result *r)
{
	int fd = ways[way].open();

	if (fd < 0) {
		probe_errno(r, ways[way].name, errno);
		return;
	}
	probe_set(r, PROBE_AVAILABLE, "%s", ways[way].name);
	close(fd);
}

void probe_uffd_user(const struct em_options *o, struct probe_result *r)
{
	(void)o;
	probe_way(0, r);
}

void probe_uffd_full(const struct em_options *o, struct probe_result *r)
{
	(void)o;
	probe_way(1, r);
}

void probe_uffd_device(const struct em_options *o, struct probe_result *r)
{
	(void)o;
	probe_way(2, r);
}

/* Opens in the first way that works and asks for features. -1 and r set if it fails. */
static int open_any(uint64_t features, uint64_t *offered, struct probe_result *r)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = -1, first = 0;

	for (unsigned i = 0; i < NWAYS && fd < 0; i++) {
		fd = ways[i].open();
		if (fd < 0 && !first)
			first = errno;
	}
	if (fd < 0) {
		probe_errno(r, "userfaultfd cannot be opened", first);
		return -1;
	}
	if (ioctl(fd, UFFDIO_API, &api)) {
		probe_set(r, PROBE_MISSING, "the kernel does not have it");
		close(fd);
		return -1;
	}
	if (offered)
		*offered = api.features;
	return fd;
}

void probe_uffd_any(const struct em_options *o, struct probe_result *r)
{
	int fd = open_any(0, NULL, r);

	(void)o;
	if (fd < 0)
		return;
	probe_set(r, PROBE_AVAILABLE, "opened, API handshake done");
	close(fd);
}

/* ---- a page to try things on ----------------------------------------------------- */

struct area {
	int fd;
	unsigned char *page;   /* registered, missing */
	unsigned char *source; /* ordinary, filled with PATTERN */
};

static bool area_open(struct area *a, uint64_t features, uint64_t mode, struct probe_result *r)
{
	struct uffdio_register reg = {.mode = mode};

	a->fd = open_any(features, NULL, r);
	if (a->fd < 0)
		return false;
	a->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	a->source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (a->page == MAP_FAILED || a->source == MAP_FAILED) {
		probe_errno(r, "mmap", errno);
		return false;
	}
	memset(a->source, PATTERN, PAGE);
	reg.range.start = (uintptr_t)a->page;
	reg.range.len = PAGE;
	if (!ioctl(a->fd, UFFDIO_REGISTER, &reg))
		return true;
	probe_errno(r, "UFFDIO_REGISTER", errno);
	return false;
}

static int area_copy(const struct area *a, uint64_t mode)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)a->page, .src = (uintptr_t)a->source, .len = PAGE, .mode = mode};

	return ioctl(a->fd, UFFDIO_COPY, &copy);
}

static int area_unprotect(const struct area *a)
{
	struct uffdio_writeprotect wp = {.range = {(uintptr_t)a->page, PAGE}, .mode = 0};

	return ioctl(a->fd, UFFDIO_WRITEPROTECT, &wp);
}

/* Every probe here runs in a child of its own, which ends after it: nothing is undone. */

void probe_uffd_missing(const struct em_options *o, struct probe_result *r)
{
	struct uffdio_zeropage zero;
	struct area a;

	(void)o;
	if (!area_open(&a, 0, UFFDIO_REGISTER_MODE_MISSING, r))
		return;
	memset(&zero, 0, sizeof(zero));
	zero.range.start = (uintptr_t)a.page;
	zero.range.len = PAGE;
	if (ioctl(a.fd, UFFDIO_ZEROPAGE, &zero)) {
		probe_errno(r, "UFFDIO_ZEROPAGE", errno);
		return;
	}
	if (a.page[0] || madvise(a.page, PAGE, MADV_DONTNEED) || area_copy(&a, 0)) {
		probe_errno(r, "UFFDIO_COPY", errno);
		return;
	}
	if (a.page[PAGE - 1] == PATTERN)
		probe_set(r, PROBE_AVAILABLE, "zero page and copy done and read back");
	else
		probe_set(r, PROBE_MISSING, "a copied page did not read back");
}

/* ---- upcalls --------------------------------------------------------------------- */

static struct {
	struct area area;
	struct probe_result *result;
	int (*serve)(const struct area *a);
	volatile sig_atomic_t count;
} upcall;

static int serve_copy(const struct area *a)
{
	return area_copy(a, 0);
}

/* Runs on a synchronous fault of this file's own making, so printing is safe. */
static void on_sigbus(int sig, siginfo_t *si, void *context)
{
	uintptr_t page = (uintptr_t)si->si_addr & ~(PAGE - 1);

	(void)sig;
	(void)context;
	if (upcall.count++ || page != (uintptr_t)upcall.area.page) {
		probe_set(upcall.result, PROBE_MISSING, "SIGBUS repeated or at a wrong address");
		_exit(0);
	}
	if (upcall.serve(&upcall.area)) {
		probe_errno(upcall.result, "serving the fault in the handler", errno);
		_exit(0);
	}
}

static bool upcall_start(int (*serve)(const struct area *a), struct probe_result *r)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};

	upcall.result = r;
	upcall.serve = serve;
	upcall.count = 0;
	if (!sigaction(SIGBUS, &sa, NULL))
		return true;
	probe_errno(r, "sigaction(SIGBUS)", errno);
	return false;
}

void probe_uffd_sigbus(const struct em_options *o, struct probe_result *r)
{
	volatile unsigned char *p;

	(void)o;
	if (!area_open(&upcall.area, UFFD_FEATURE_SIGBUS, UFFDIO_REGISTER_MODE_MISSING, r) ||
	    !upcall_start(serve_copy, r))
		return;
	p = upcall.area.page;
	if (p[1] == PATTERN && upcall.count == 1)
		probe_set(r, PROBE_AVAILABLE, "missing page filled in the signal handler");
	else
		probe_set(r, PROBE_MISSING, "no SIGBUS came");
}

void probe_uffd_wp(const struct em_options *o, struct probe_result *r)
{
	struct area *a = &upcall.area;
	volatile unsigned char *p;

	(void)o;
	if (!area_open(a, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP,
		       UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP, r))
		return;
	if (area_copy(a, UFFDIO_COPY_MODE_WP)) {
		probe_errno(r, "UFFDIO_COPY_MODE_WP", errno);
		return;
	}
	if (!upcall_start(area_unprotect, r))
		return;
	p = a->page;
	if (p[0] != PATTERN || upcall.count) {
		probe_set(r, PROBE_MISSING, "a protected page could not be read");
		return;
	}
	p[0] = 1;
	if (p[0] == 1 && upcall.count == 1)
		probe_set(r, PROBE_AVAILABLE, "protected copy, write fault, protection lifted");
	else
		probe_set(r, PROBE_MISSING, "a write to a protected page was not reported");
}

void probe_uffd_move(const struct em_options *o, struct probe_result *r)
{
	struct uffdio_move move;
	struct area a;

	(void)o;
	if (!area_open(&a, UFFD_FEATURE_MOVE, UFFDIO_REGISTER_MODE_MISSING, r))
		return;
	memset(&move, 0, sizeof(move));
	move.dst = (uintptr_t)a.page;
	move.src = (uintptr_t)a.source;
	move.len = PAGE;
	if (ioctl(a.fd, UFFDIO_MOVE, &move)) {
		probe_errno(r, "UFFDIO_MOVE", errno);
		return;
	}
	/* The source is unregistered: it reads as zeros once its page is gone. */
	if (move.move == (int64_t)PAGE && a.page[7] == PATTERN && a.source[7] == 0)
		probe_set(r, PROBE_AVAILABLE, "a page moved, its source is empty");
	else
		probe_set(r, PROBE_MISSING, "a moved page did not read back");
}

/* ---- handler threads ------------------------------------------------------------- */

static void *serve_message(void *arg)
{
	const struct area *a = arg;
	struct pollfd p = {.fd = a->fd, .events = POLLIN};
	struct uffd_msg msg;

	if (poll(&p, 1, 3000) == 1 && read(a->fd, &msg, sizeof(msg)) == sizeof(msg) &&
	    msg.event == UFFD_EVENT_PAGEFAULT && !area_copy(a, 0))
		return arg;
	/* The main thread sleeps in its fault and can only be freed by the end. */
	_exit(0);
}

void probe_uffd_thread(const struct em_options *o, struct probe_result *r)
{
	struct area a;
	pthread_t thread;

	(void)o;
	if (!area_open(&a, 0, UFFDIO_REGISTER_MODE_MISSING, r))
		return;
	probe_set(r, PROBE_MISSING, "the fault did not reach the thread");
	errno = pthread_create(&thread, NULL, serve_message, &a);
	if (errno) {
		probe_errno(r, "pthread_create", errno);
		return;
	}
	if (*(volatile unsigned char *)a.page == PATTERN)
		probe_set(r, PROBE_AVAILABLE, "missing page filled by another thread");
	pthread_join(thread, NULL);
}

/* ---- what else the kernel offers ------------------------------------------------- */

void probe_uffd_other(const struct em_options *o, struct probe_result *r)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} bits[] = {
		{UFFD_FEATURE_THREAD_ID, "thread id"},
		{UFFD_FEATURE_EXACT_ADDRESS, "exact address"},
		{UFFD_FEATURE_WP_UNPOPULATED, "wp unpopulated"},
		{UFFD_FEATURE_WP_ASYNC, "wp async"},
		{UFFD_FEATURE_POISON, "poison"},
	};
	char text[200] = "";
	uint64_t offered;
	int fd = open_any(0, &offered, r);
	size_t n;

	(void)o;
	if (fd < 0)
		return;
	close(fd);
	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		n = strlen(text);
		snprintf(text + n, sizeof(text) - n, "%s%s: %s", n ? ", " : "", bits[i].name,
			 offered & bits[i].bit ? "yes" : "no");
	}
	probe_set(r, PROBE_INFO, "%s", text);
}
