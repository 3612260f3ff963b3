/* SPDX-License-Identifier: MIT */
/*
 * What it costs to trap system calls by their place: Syscall User Dispatch (`cost sud`) or a
 * seccomp filter (`cost seccomp`).  Prints cycles: the least of many short runs.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Calls from this page pass; the handler's way back and the end must come from there too. */
__asm__(".text\n.balign 4096\n"
	"inside: mov %rdi, %rax\n mov %rsi, %rdi\n mov %rdx, %rsi\n mov %rcx, %rdx\n syscall\n ret\n"
	"restorer: mov $15, %rax\n syscall\n"
	".balign 4096\n"
	"outside: mov %rdi, %rax\n syscall\n ret\n");
extern char restorer[];
long inside(long nr, long a, long b, long c);
long outside(long nr, long a, long b, long c);

static void on_sigsys(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)si;
	((ucontext_t *)uc)->uc_mcontext.gregs[REG_RAX] = 1;
}

static uint64_t cycles(long (*call)(long, long, long, long))
{
	uint64_t best = UINT64_MAX;

	for (int run = 0; run < 4000; run++) {
		uint64_t start = __builtin_ia32_rdtsc(), took;

		for (int i = 0; i < 20; i++)
			call(SYS_getppid, 0, 0, 0);
		took = (__builtin_ia32_rdtsc() - start) / 20;
		best = took < best ? took : best;
	}
	return best;
}

static long filter_on(void)
{
	uint64_t page = (uint64_t)inside;
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfffff000),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)page, 2, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};
	struct sock_fprog prog = { sizeof(f) / sizeof(f[0]), f };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0);
}

int main(int argc, char **argv)
{
	struct {
		void (*handler)(int, siginfo_t *, void *);
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} sa = { on_sigsys, SA_SIGINFO | 0x04000000, restorer, ~0ull };
	uint64_t native = cycles(outside), passed, trapped;
	char line[128];
	long ret;

	syscall(SYS_rt_sigaction, SIGSYS, &sa, NULL, 8);
	ret = argc > 1 && !strcmp(argv[1], "seccomp")
		      ? filter_on()
		      : prctl(59, 1, inside, 4096, 0); /* PR_SET_SYSCALL_USER_DISPATCH */
	if (ret) {
		perror("cost");
		return 77;
	}
	passed = cycles(inside);
	trapped = cycles(outside);
	inside(SYS_write, 1, (long)line,
	       sprintf(line, "native %lu, passed %lu, trapped %lu cycles\n", native, passed, trapped));
	inside(SYS_exit_group, 0, 0, 0);
	return 0;
}
