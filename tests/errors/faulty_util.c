/* SPDX-License-Identifier: MIT */
#include "faulty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

const char *switch_file;
__thread sigjmp_buf faulty_jump;
__thread volatile siginfo_t faulty_info;
static __thread volatile sig_atomic_t expected;

void die(const char *what)
{
	dprintf(2, "%s: %s\n", what, strerror(errno));
	_exit(1);
}

void wrong(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vdprintf(2, fmt, ap);
	va_end(ap);
	_exit(3);
}

void nap_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

void faults_on(void)
{
	int fd = open(switch_file, O_WRONLY | O_CREAT, 0600);

	if (fd < 0)
		die(switch_file);
	close(fd);
}

void faults_off(void)
{
	if (unlink(switch_file))
		die(switch_file);
}

uint64_t *map_pages(size_t n)
{
	void *p = mmap(NULL, n * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

uint64_t page_value(size_t word, uint64_t salt)
{
	return (salt + 1) * 0x9e3779b97f4a7c15u + word;
}

void fill_page(uint64_t *page, uint64_t salt)
{
	for (size_t w = 0; w < WORDS; w++)
		page[w] = page_value(w, salt);
}

bool page_is(const uint64_t *page, uint64_t salt)
{
	for (size_t w = 0; w < WORDS; w++)
		if (page[w] != page_value(w, salt))
			return false;
	return true;
}

bool page_is_zero(const uint64_t *page)
{
	for (size_t w = 0; w < WORDS; w++)
		if (page[w])
			return false;
	return true;
}

void page_out(void *p, size_t pages)
{
	/* The first passes over what is being written in the background. */
	for (int i = 0; i < 2; i++) {
		if (madvise(p, pages * PG, MADV_PAGEOUT))
			die("MADV_PAGEOUT");
		nap_ms(30);
	}
}

static void on_sigbus(int sig, siginfo_t *si, void *uc)
{
	(void)sig, (void)uc;
	if (!expected)
		wrong("SIGBUS code %d at %p outside an attempt\n", si->si_code, si->si_addr);
	*(siginfo_t *)&faulty_info = *si;
	siglongjmp(faulty_jump, 1);
}

void faulty_install(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	if (sigaction(SIGBUS, &sa, NULL))
		die("sigaction");
}

static void check_info(const void *p)
{
	uintptr_t got = (uintptr_t)faulty_info.si_addr, want = (uintptr_t)p;

	/* poisoned pages: the kernel gives the page, not the byte */
	if (faulty_info.si_signo != SIGBUS ||
	    (faulty_info.si_code == BUS_ADRERR
		     ? got != want
		     : faulty_info.si_code != BUS_MCEERR_AR || got / PG != want / PG))
		wrong("signal %d code %d address %p, not %p\n", faulty_info.si_signo,
		      faulty_info.si_code, faulty_info.si_addr, p);
}

int try_read(const uint64_t *p)
{
	if (sigsetjmp(faulty_jump, 1)) {
		expected = 0;
		check_info(p);
		return 0;
	}
	expected = 1;
	(void)*(const volatile uint64_t *)p;
	expected = 0;
	return 1;
}

int try_write(uint64_t *p, uint64_t v)
{
	if (sigsetjmp(faulty_jump, 1)) {
		expected = 0;
		check_info(p);
		return 0;
	}
	expected = 1;
	*(volatile uint64_t *)p = v;
	expected = 0;
	return 1;
}
