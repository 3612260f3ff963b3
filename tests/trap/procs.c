/* SPDX-License-Identifier: MIT */
/* Threads and processes made by code that cannot be patched, and those that run it. */
#include "trap.h"

#include <dlfcn.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static call_fn volatile ready;
static int wake[2];

static void *spin(void *arg)
{
	while (!ready)
		__builtin_ia32_pause();
	trap_check_io(ready);
	return arg;
}

static void *wait_in_a_call(void *arg)
{
	char c;

	CHECK(read(wake[0], &c, 1) == 1); /* not disturbed: no EINTR */
	trap_check_io(ready);
	return arg;
}

/* The setting is a thread's own: they must have it when the code comes. */
void test_threads_that_exist(void)
{
	pthread_t t[4];

	CHECK(pipe(wake) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, i < 2 ? spin : wait_in_a_call, NULL) == 0);
	usleep(50000);
	ready = trap_generate();
	CHECK(write(wake[1], "xx", 2) == 2);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
}

static void *check_io(void *arg)
{
	trap_check_io(ready);
	return arg;
}

void test_threads_that_come(void)
{
	pthread_t t[4];

	ready = trap_generate();
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, check_io, NULL) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
}

/* ---- clone from generated code --------------------------------------------------------- */

/* clone(flags, stack, ptid, ctid, tls), the child goes on at the function in its stack's first word.
   Nothing of ours may run between, so the child's first calls are the code's. */
static const unsigned char clone_code[] = {
	0xb8, 56, 0, 0, 0,	/* mov $SYS_clone, %eax */
	0x49, 0x89, 0xca,	/* mov %rcx, %r10 */
	0x0f, 0x05,		/* syscall */
	0x48, 0x85, 0xc0,	/* test %rax, %rax */
	0x74, 0x01,		/* jz 1f */
	0xc3,			/* ret */
	0x31, 0xed,		/* 1: xor %ebp, %ebp */
	0x58,			/* pop %rax */
	0xff, 0xd0,		/* call *%rax */
	0x0f, 0x0b,		/* ud2 */
};

typedef long (*clone_fn)(long flags, void *stack, int *ptid, int *ctid, void *tls);

static void *generate(const unsigned char *code, size_t n)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	memcpy(p, code, n);
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
	return p;
}

static void **new_stack(void (*fn)(void))
{
	size_t bytes = 512 * 1024;
	void **top = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	CHECK(top != MAP_FAILED);
	top += bytes / sizeof(*top) - 2;
	*top = (void *)fn;
	return top;
}

static int fd_of_test[2];
static char *evicted;
static volatile int child_tid;

static void thread_calls(void)
{
	CHECK(ready(SYS_write, fd_of_test[1], evicted, PAGE) == (long)PAGE);
	ready(SYS_exit, 0);
}

static void child_calls(void)
{
	CHECK(ready(SYS_write, fd_of_test[1], evicted, PAGE) == (long)PAGE);
	ready(SYS_exit_group, 0);
}

static void expect_page(char fill)
{
	char got[PAGE];

	CHECK(read(fd_of_test[0], got, PAGE) == (long)PAGE);
	for (size_t i = 0; i < PAGE; i++)
		CHECK(got[i] == fill);
}

void test_thread_from_code(void)
{
	void *(*allocate)(void *) = (void *(*)(void *))dlsym(RTLD_DEFAULT, "_dl_allocate_tls");
	clone_fn make = (clone_fn)generate(clone_code, sizeof(clone_code));
	void **tls;

	CHECK(allocate && pipe(fd_of_test) == 0);
	ready = trap_generate();
	for (int i = 0; i < 10; i++) {
		child_tid = -1;
		evicted = trap_evicted(MIB, (char)('a' + i));
		tls = allocate(NULL);
		CHECK(tls);
		tls[0] = tls[2] = tls;
		CHECK(make(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			   CLONE_SYSVSEM | CLONE_SETTLS | CLONE_CHILD_CLEARTID,
			   new_stack(thread_calls), NULL, (int *)&child_tid, tls) > 0);
		expect_page((char)('a' + i));
		while (child_tid)
			usleep(100);
	}
}

/* As posix_spawn does it. */
void test_clone_with_a_stack_from_code(void)
{
	clone_fn make = (clone_fn)generate(clone_code, sizeof(clone_code));
	const int flags[] = { CLONE_VM | CLONE_VFORK | SIGCHLD, SIGCHLD };
	int status;
	long pid;

	CHECK(pipe(fd_of_test) == 0);
	ready = trap_generate();
	for (int i = 0; i < 2; i++) {
		evicted = trap_evicted(MIB, (char)('a' + i));
		pid = make(flags[i], new_stack(child_calls), NULL, NULL, NULL);
		CHECK(pid > 0 && waitpid((pid_t)pid, &status, 0) == pid && status == 0);
		expect_page((char)('a' + i));
	}
}

void test_fork_from_code(void)
{
	call_fn call = trap_generate();
	int status;
	long pid;

	for (int i = 0; i < 5; i++) {
		char *p = trap_evicted(MIB, 'p');

		pid = call(i % 2 ? SYS_clone : SYS_fork, SIGCHLD, 0, 0, 0, 0);
		if (pid == 0) {
			CHECK(p[7] == 'p');
			trap_check_io(call);
			pid = call(SYS_fork);
			if (pid == 0)
				trap_check_io(call);
			else
				CHECK(waitpid((pid_t)pid, &status, 0) == pid && status == 0);
			call(SYS_exit_group, 0);
		}
		CHECK(pid > 0 && waitpid((pid_t)pid, &status, 0) == pid && status == 0);
		CHECK(p[7] == 'p');
	}
	trap_check_io(call);
}

/* The return address must survive the child's using it. */
static const unsigned char vfork_code[] = {
	0x5f,			/* pop %rdi */
	0xb8, 58, 0, 0, 0,	/* mov $SYS_vfork, %eax */
	0x0f, 0x05,		/* syscall */
	0xff, 0xe7,		/* jmp *%rdi */
};

void test_vfork_from_code(void)
{
	long (*make)(void) = (long (*)(void))generate(vfork_code, sizeof(vfork_code));
	volatile long pid; /* the compiler does not know that make returns twice */
	int status;

	CHECK(pipe(fd_of_test) == 0);
	ready = trap_generate();
	for (int i = 0; i < 5; i++) {
		evicted = trap_evicted(MIB, (char)('a' + i));
		pid = make();
		if (pid == 0) {
			ready(SYS_write, fd_of_test[1], evicted, PAGE);
			execl("/bin/true", "true", (char *)NULL);
			_exit(9);
		}
		CHECK(pid > 0 && waitpid((pid_t)pid, &status, 0) == pid && status == 0);
		expect_page((char)('a' + i));
	}
	trap_check_io(ready);
}

/* What is executed starts without the setting: /bin/sh has its calls patched, or none of ours. */
void test_exec_from_code(void)
{
	call_fn call = trap_generate();
	char *p = trap_evicted(MIB, 0), **argv = (char **)(p + PAGE);
	int status;
	pid_t pid;

	strcpy(p, "/bin/sh");
	strcpy(p + 2 * PAGE, "exit 7");
	argv[0] = p;
	argv[1] = "-c";
	argv[2] = p + 2 * PAGE;
	pid = fork();
	if (pid == 0) {
		munmap(trap_evicted(MIB, 0), 7 * MIB);
		call(SYS_execve, p, argv, NULL);
		_exit(1);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
}
