/* SPDX-License-Identifier: MIT */
/*
 * jail RULE... -- PROGRAM ARGS: runs a program under a seccomp filter.
 *
 * Rules, the last one wins:
 *   default            what the default profiles of container engines allow; all else is EPERM
 *   CALL=WHAT          a system call by name or number: allow, kill, trap or an errno by name
 *   dispatch=WHAT      prctl(PR_SET_SYSCALL_USER_DISPATCH) alone
 *   wx=WHAT            mmap that is both writable and executable, mprotect to executable
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLS 512u
#define CLONE_NAMESPACES                                                                           \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | \
	 CLONE_NEWCGROUP)
#define ALLOW SECCOMP_RET_ALLOW
#define REFUSE(e) (SECCOMP_RET_ERRNO | (e))

static uint32_t action[CALLS + 1]; /* the last one: all numbers from there on */
static uint32_t dispatch = ALLOW, wx = ALLOW, namespaces = ALLOW;
static struct sock_filter code[4 * CALLS];
static unsigned codes;

static const struct {
	const char *name;
	unsigned nr;
} calls[] = {
	{"userfaultfd", SYS_userfaultfd},	{"io_uring_setup", SYS_io_uring_setup},
	{"io_uring_enter", SYS_io_uring_enter}, {"io_uring_register", SYS_io_uring_register},
	{"process_madvise", SYS_process_madvise}, {"pidfd_open", SYS_pidfd_open},
	{"memfd_create", SYS_memfd_create},	{"personality", SYS_personality},
	{"clone3", SYS_clone3},			{"close_range", SYS_close_range},
	{"rseq", SYS_rseq},			{"fallocate", SYS_fallocate},
	{"seccomp", SYS_seccomp},		{"openat2", SYS_openat2},
	{"statx", SYS_statx},			{"faccessat2", SYS_faccessat2},
	{"membarrier", SYS_membarrier},		{"ptrace", SYS_ptrace},
	{"sched_yield", SYS_sched_yield},
};

/* What those profiles do not allow a process without capabilities. */
static const unsigned refused[] = {
	SYS_acct, SYS_add_key, SYS_bpf, SYS_chroot, SYS_clock_adjtime, SYS_clock_settime,
	SYS_create_module, SYS_delete_module, SYS_fanotify_init, SYS_finit_module, SYS_fsconfig,
	SYS_fsmount, SYS_fsopen, SYS_fspick, SYS_get_kernel_syms, SYS_get_mempolicy,
	SYS_init_module, SYS_io_uring_enter, SYS_io_uring_register, SYS_io_uring_setup, SYS_ioperm,
	SYS_iopl, SYS_kcmp, SYS_kexec_file_load, SYS_kexec_load, SYS_keyctl, SYS_lookup_dcookie,
	SYS_mbind, SYS_mount, SYS_mount_setattr, SYS_move_mount, SYS_move_pages, SYS_nfsservctl,
	SYS_open_by_handle_at, SYS_open_tree, SYS_perf_event_open, SYS_pivot_root, SYS_query_module,
	SYS_quotactl, SYS_quotactl_fd, SYS_reboot, SYS_request_key, SYS_set_mempolicy, SYS_setdomainname,
	SYS_sethostname, SYS_setns, SYS_settimeofday, SYS_swapoff, SYS_swapon, SYS_sysfs,
	SYS__sysctl, SYS_umount2, SYS_unshare, SYS_uselib, SYS_userfaultfd, SYS_ustat, SYS_vhangup,
	SYS_syslog,
};

static void fail(const char *what)
{
	perror(what);
	exit(125);
}

static uint32_t parse_action(const char *word)
{
	static const struct {
		const char *name;
		uint32_t action;
	} words[] = {
		{"allow", ALLOW},	    {"kill", SECCOMP_RET_KILL_PROCESS},
		{"trap", SECCOMP_RET_TRAP}, {"EPERM", REFUSE(EPERM)},
		{"ENOSYS", REFUSE(ENOSYS)}, {"EACCES", REFUSE(EACCES)},
		{"EINVAL", REFUSE(EINVAL)},
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(words[i].name, word))
			return words[i].action;
	fprintf(stderr, "jail: %s: not an action\n", word);
	exit(125);
}

/* The numbers of a newer kernel than the profile's are refused as well. */
static void use_default(void)
{
	const unsigned last_old = SYS_rseq, first_new = SYS_pidfd_send_signal;

	for (unsigned nr = 0; nr <= CALLS; nr++)
		action[nr] = REFUSE(EPERM);
	for (unsigned nr = 0; nr <= last_old; nr++)
		action[nr] = ALLOW;
	for (unsigned nr = first_new; nr <= SYS_process_mrelease; nr++)
		action[nr] = ALLOW;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		action[refused[i]] = REFUSE(EPERM);
	action[SYS_clone3] = REFUSE(ENOSYS);
	namespaces = REFUSE(EPERM);
}

static void set_call(const char *name, uint32_t act)
{
	char *end;
	unsigned long nr = strtoul(name, &end, 10);

	for (size_t i = 0; *end && i < sizeof(calls) / sizeof(calls[0]); i++)
		if (!strcmp(calls[i].name, name)) {
			action[calls[i].nr] = act;
			return;
		}
	if (*end || nr >= CALLS) {
		fprintf(stderr, "jail: %s: not a rule\n", name);
		exit(125);
	}
	action[nr] = act;
}

static void use_rule(char *rule)
{
	char *what = strchr(rule, '=');
	uint32_t act;

	if (!what) {
		if (strcmp(rule, "default"))
			fprintf(stderr, "jail: %s: not a rule\n", rule), exit(125);
		use_default();
		return;
	}
	*what++ = '\0';
	act = parse_action(what);
	if (!strcmp(rule, "dispatch"))
		dispatch = act;
	else if (!strcmp(rule, "wx"))
		wx = act;
	else if (!strcmp(rule, "io_uring"))
		action[SYS_io_uring_setup] = action[SYS_io_uring_enter] =
			action[SYS_io_uring_register] = act;
	else
		set_call(rule, act);
}

static void emit(uint16_t op, uint8_t jt, uint8_t jf, uint32_t k)
{
	code[codes++] = (struct sock_filter){op, jt, jf, k};
}

static void load(uint32_t offset)
{
	emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset);
}

static void load_nr(void)
{
	load(offsetof(struct seccomp_data, nr));
}

/* The call `nr` whose argument, its low half and masked, is not 0 or equals `value`. */
static void emit_argument(unsigned nr, unsigned arg, uint32_t mask, uint32_t value, uint32_t act)
{
	load_nr();
	emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, nr);
	load((uint32_t)(offsetof(struct seccomp_data, args) + 8 * arg));
	emit(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
	if (value)
		emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value);
	else
		emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0);
	emit(BPF_RET | BPF_K, 0, 0, act);
}

/* One comparison for each run of numbers with the same action. */
static void emit_calls(void)
{
	load_nr();
	for (unsigned nr = 0; nr < CALLS; nr++) {
		if (action[nr] == action[nr + 1])
			continue;
		emit(BPF_JMP | BPF_JGE | BPF_K, 1, 0, nr + 1);
		emit(BPF_RET | BPF_K, 0, 0, action[nr]);
	}
	emit(BPF_RET | BPF_K, 0, 0, action[CALLS]);
}

static void install(void)
{
	struct sock_fprog prog = {.filter = code};

	load(offsetof(struct seccomp_data, arch));
	emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
	emit(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
	if (dispatch != ALLOW)
		emit_argument(SYS_prctl, 0, ~0u, PR_SET_SYSCALL_USER_DISPATCH, dispatch);
	if (wx != ALLOW) {
		emit_argument(SYS_mmap, 2, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC, wx);
		emit_argument(SYS_mprotect, 2, PROT_EXEC, PROT_EXEC, wx);
	}
	if (namespaces != ALLOW)
		emit_argument(SYS_clone, 0, CLONE_NAMESPACES, 0, namespaces);
	emit_calls();
	prog.len = (unsigned short)codes;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		fail("jail: no_new_privs");
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog))
		fail("jail: seccomp");
}

int main(int argc, char **argv)
{
	int i;

	for (unsigned nr = 0; nr <= CALLS; nr++)
		action[nr] = ALLOW;
	for (i = 1; i < argc && strcmp(argv[i], "--"); i++)
		use_rule(argv[i]);
	if (i + 1 >= argc) {
		fprintf(stderr, "usage: jail RULE... -- PROGRAM ARGS\n");
		return 125;
	}
	install();
	execvp(argv[i + 1], argv + i + 1);
	fail(argv[i + 1]);
}
