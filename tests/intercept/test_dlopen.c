/* SPDX-License-Identifier: MIT */
/* A library that comes later is patched when the dynamic linker maps it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "stub.h"

static const char *library;

static int patch(void **state)
{
	struct em_patch_report report;

	(void)state;
	return stub_patch_all(&report, NULL, NULL);
}

static void library_calls_are_seen(void **state)
{
	long (*get)(void), (*zero)(int, void *);
	unsigned long before;
	char buf[8] = "xxxxxxx";
	void *handle;
	int fd;

	(void)state;
	handle = dlopen(library, RTLD_NOW);
	assert_non_null(handle);
	assert_int_equal(stub_last_mapping, 5);
	get = (long (*)(void))dlsym(handle, "lib_getppid");
	zero = (long (*)(int, void *))dlsym(handle, "lib_read_zero");
	before = stub_count[SYS_getppid];
	assert_int_equal(get(), getppid());
	assert_int_equal(stub_count[SYS_getppid], before + 2);
	fd = open("/dev/zero", O_RDONLY);
	before = stub_count[SYS_read];
	assert_int_equal(zero(fd, buf), 8);
	assert_int_equal(buf[0], 0);
	assert_int_equal(zero(-1, buf), 9);
	assert_int_equal(stub_count[SYS_read], before + 2);
	close(fd);
	dlclose(handle);
}

/* A detour through padding, and operands that are relative to where they stand. */
static void awkward_sites_are_seen(void **state)
{
	static const char *const names[] = { "lib_boxed_getppid", "lib_relative_getppid",
					     "lib_relative_behind" };
	void *handle = dlopen(library, RTLD_NOW);

	(void)state;
	assert_non_null(handle);
	for (unsigned i = 0; i < 3; i++) {
		long (*get)(void) = (long (*)(void))dlsym(handle, names[i]);
		unsigned long before = stub_count[SYS_getppid];

		assert_int_equal(get(), getppid());
		assert_int_equal(stub_count[SYS_getppid], before + 2);
	}
	dlclose(handle);
}

/* mmap by hand, every vector register filled; the decoder uses them, and must not be seen to. */
static long mmap_with_vectors(int fd, size_t len, off_t off, unsigned *wrong)
{
	unsigned char in[16][16], out[16][16];
	register long r10 __asm__("r10") = MAP_PRIVATE, r8 __asm__("r8") = fd;
	register long r9 __asm__("r9") = off;
	long ret;

	for (unsigned i = 0; i < sizeof(in); i++)
		in[i / 16][i % 16] = i * 7 + 1;
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define LOAD(n) "movdqu " #n "*16(%[in]), %%xmm" #n "\n"
#define STORE(n) "movdqu %%xmm" #n ", " #n "*16(%[out])\n"
#define NAME(n) , "xmm" #n
	__asm__ volatile(EACH(LOAD) "movl $9, %%eax\n syscall\n" EACH(STORE)
			 : "=&a"(ret)
			 : [in] "b"(in), [out] "r"(out), "D"(0), "S"(len),
			   "d"(PROT_READ | PROT_EXEC), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory" EACH(NAME));
	*wrong = !!memcmp(in, out, sizeof(in));
	return ret;
}

static void vectors_survive_patching(void **state)
{
	int fd = open(library, O_RDONLY);
	Elf64_Phdr phdr[16];
	Elf64_Ehdr eh;
	unsigned wrong = 1;

	(void)state;
	assert_int_equal(pread(fd, &eh, sizeof(eh), 0), sizeof(eh));
	assert_true(eh.e_phnum <= 16);
	assert_int_equal(pread(fd, phdr, eh.e_phnum * sizeof(*phdr), eh.e_phoff),
			 eh.e_phnum * sizeof(*phdr));
	for (int i = 0; i < eh.e_phnum; i++) {
		long ret;

		if (phdr[i].p_type != PT_LOAD || !(phdr[i].p_flags & PF_X))
			continue;
		stub_last_mapping = 0;
		ret = mmap_with_vectors(fd, phdr[i].p_filesz, phdr[i].p_offset, &wrong);
		assert_true(ret > 0);
		assert_int_equal(stub_last_mapping, 5);
		munmap((void *)ret, phdr[i].p_filesz);
	}
	assert_int_equal(wrong, 0);
	close(fd);
}

static void reloading_works(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
		void *handle = dlopen(library, RTLD_NOW);
		long (*get)(void) = (long (*)(void))dlsym(handle, "lib_getppid");

		assert_int_equal(get(), getppid());
		dlclose(handle);
	}
}

/* The exact protection comes back: r-xp in every line of the library's text. */
static void protection_is_restored(void **state)
{
	void *handle = dlopen(library, RTLD_NOW);
	char line[512];
	FILE *maps;

	(void)state;
	assert_non_null(handle);
	maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof(line), maps))
		if (strchr(line, '/'))
			assert_null(strstr(line, "rwx"));
	fclose(maps);
	dlclose(handle);
}

/* Executable mappings that are no library, or shorter than their length says. */
static void odd_mappings_are_left_alone(void **state)
{
	static const unsigned char code[] = { 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3 };
	char name[] = "/tmp/em-odd-XXXXXX";
	int fd = mkstemp(name);
	void *p;

	(void)state;
	assert_int_equal(write(fd, code, sizeof(code)), sizeof(code));
	stub_last_mapping = 0;
	p = mmap(NULL, 65536, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(stub_last_mapping, 0);
	assert_memory_equal(p, code, sizeof(code));
	munmap(p, 65536);
	close(fd);
	unlink(name);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(library_calls_are_seen),
		cmocka_unit_test(awkward_sites_are_seen),
		cmocka_unit_test(vectors_survive_patching),
		cmocka_unit_test(reloading_works),
		cmocka_unit_test(protection_is_restored),
		cmocka_unit_test(odd_mappings_are_left_alone),
	};

	if (argc != 2) {
		puts("usage: test_dlopen LIBRARY");
		return 2;
	}
	library = argv[1];
	return cmocka_run_group_tests(tests, patch, NULL);
}
