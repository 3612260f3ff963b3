/* SPDX-License-Identifier: MIT */
/*
 * The floor for user-space paging: the same first touches as minorfault, served by the
 * least code that can serve them.  --mode sigbus: the faulting thread itself, in a SIGBUS
 * handler that does one ioctl.  --mode thread: a thread that reads the userfaultfd,
 * blocking, and does one ioctl.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "faultloop.h"
#include "util.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static int uffd;
static bool use_copy;
static uint64_t source_page[WL_PAGE_WORDS] __attribute__((aligned(4096)));

static int fill_page(uint64_t address)
{
	address &= ~(WL_PAGE_BYTES - 1);
	if (use_copy) {
		struct uffdio_copy copy = {.dst = address, .src = (uint64_t)(uintptr_t)source_page,
					   .len = WL_PAGE_BYTES};

		return ioctl(uffd, UFFDIO_COPY, &copy);
	}
	struct uffdio_zeropage zero = {.range = {.start = address, .len = WL_PAGE_BYTES}};

	return ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	static const char text[] = "bare: cannot fill a page\n";

	(void)sig;
	(void)context;
	if (fill_page((uint64_t)(uintptr_t)info->si_addr) && errno != EEXIST) {
		if (write(2, text, sizeof(text) - 1) < 0)
			_exit(3);
		_exit(2);
	}
}

static void *serve(void *arg)
{
	struct uffd_msg msg;

	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg))
		if (fill_page(msg.arg.pagefault.address) && errno != EEXIST)
			wl_die("cannot fill a page: %s", strerror(errno));
	wl_die("cannot read the userfaultfd: %s", strerror(errno));
	return arg;
}

static void prepare(void *memory, uint64_t bytes)
{
	struct uffdio_register reg = {
		.range = {.start = (uint64_t)(uintptr_t)memory, .len = bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		wl_die("UFFDIO_REGISTER: %s", strerror(errno));
}

static void open_uffd(bool sigbus)
{
	struct uffdio_api api = {.api = UFFD_API, .features = sigbus ? UFFD_FEATURE_SIGBUS : 0};

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0)
		wl_die("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_API, &api))
		wl_die("UFFDIO_API: %s", strerror(errno));
}

static void start_server(bool sigbus)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
	pthread_t thread;
	int err;

	if (sigbus) {
		sigaction(SIGBUS, &action, NULL);
		return;
	}
	err = pthread_create(&thread, NULL, serve, NULL);
	if (err)
		wl_die("cannot start a thread: %s", strerror(err));
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		FAULTLOOP_OPTIONS,
		{"mode", required_argument, NULL, 'm'},
		{"fill", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct faultloop f = {.threads = 1, .pages = 16384, .stride = 16, .prepare = prepare};
	bool sigbus = true;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (faultloop_option(&f, c, optarg))
			continue;
		if (c == 'm' && (!strcmp(optarg, "sigbus") || !strcmp(optarg, "thread")))
			sigbus = optarg[0] == 's';
		else if (c == 'f' && (!strcmp(optarg, "zeropage") || !strcmp(optarg, "copy")))
			use_copy = optarg[0] == 'c';
		else if (c == 'h') {
			printf("usage: %s [--mode sigbus|thread] [--fill zeropage|copy] "
			       "[--op read|write]\n	[--threads N] [--pages N] [--stride N]\n",
			       argv[0]);
			return 0;
		} else if (c == '?')
			return 2;
		else
			wl_die("--mode is sigbus or thread, --fill is zeropage or copy");
	}
	f.who = sigbus ? (use_copy ? "bare-sigbus-copy" : "bare-sigbus-zeropage")
		       : (use_copy ? "bare-thread-copy" : "bare-thread-zeropage");
	open_uffd(sigbus);
	start_server(sigbus);
	return faultloop_run(&f);
}
