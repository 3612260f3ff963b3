/* SPDX-License-Identifier: MIT */
/* What the programs that live on a failing store share: memory with known content, and a SIGBUS
   that is an answer. */
#ifndef TESTS_ERRORS_FAULTY_H
#define TESTS_ERRORS_FAULTY_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PG 4096ul
#define WORDS (PG / sizeof(uint64_t))

void die(const char *what) __attribute__((noreturn));
void wrong(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void nap_ms(long ms);

/* The file that switches the injected faults on (EXTMEM_INJECT when=). */
extern const char *switch_file;
void faults_on(void);
void faults_off(void);

uint64_t *map_pages(size_t n);
uint64_t page_value(size_t word, uint64_t salt);
void fill_page(uint64_t *page, uint64_t salt);
bool page_is(const uint64_t *page, uint64_t salt);
bool page_is_zero(const uint64_t *page);
void page_out(void *p, size_t pages);

/* Every thread has its own place to come back to. */
extern __thread sigjmp_buf faulty_jump;
extern __thread volatile siginfo_t faulty_info;
void faulty_install(void);
/* 1: *p could be read, 0: SIGBUS, and faulty_info tells. */
int try_read(const uint64_t *p);
int try_write(uint64_t *p, uint64_t value);

#endif
