/* SPDX-License-Identifier: MIT */
/* process_madvise, io_uring, eBPF. */
#include "probe.h"
#include "../../src/core/uffd_compat.h"
#include "../../src/options_impl.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096ul
#define PIDFD_SELF_GROUP (-10002) /* PIDFD_SELF_THREAD_GROUP, 6.14 */

#ifndef CAP_PERFMON
#define CAP_PERFMON 38
#endif
#ifndef CAP_BPF
#define CAP_BPF 39
#endif

void probe_process_madvise(const struct em_options *o, struct probe_result *r)
{
	struct iovec iov[2];
	unsigned char *p =
		mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = -1;
	ssize_t n;

	(void)o;
	if (p == MAP_FAILED) {
		probe_errno(r, "mmap", errno);
		return;
	}
	memset(p, 1, 3 * PAGE);
	/* Scattered: first and last page, not the one between. */
	iov[0] = (struct iovec){p, PAGE};
	iov[1] = (struct iovec){p + 2 * PAGE, PAGE};
	n = syscall(SYS_process_madvise, PIDFD_SELF_GROUP, iov, 2, MADV_DONTNEED, 0);
	if (n < 0) {
		fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
		if (fd < 0) {
			probe_errno(r, "pidfd_open", errno);
			return;
		}
		n = syscall(SYS_process_madvise, fd, iov, 2, MADV_DONTNEED, 0);
	}
	if (n < 0)
		probe_errno(r, "process_madvise(self, MADV_DONTNEED)", errno);
	else if (n == 2 * (ssize_t)PAGE && !p[0] && p[PAGE] == 1 && !p[2 * PAGE])
		probe_set(r, PROBE_AVAILABLE, "two scattered pages dropped in one call");
	else
		probe_set(r, PROBE_MISSING, "the pages were not dropped");
	if (fd >= 0)
		close(fd);
}

/* ---- io_uring -------------------------------------------------------------------------- */

static void uring_errno(struct probe_result *r, const char *what, int error)
{
	char text[32];

	if ((error == EPERM || error == EACCES) &&
	    !em_file_read_line("/proc/sys/kernel/io_uring_disabled", text, sizeof(text)) &&
	    text[0] != '0')
		probe_set(r, PROBE_MISSING, "%s: %s (sysctl kernel.io_uring_disabled is %s)", what,
			  strerror(error), text);
	else
		probe_errno(r, what, error);
}

/* One request through the ring that io_uring_setup has made. */
static void uring_nop(int fd, const struct io_uring_params *p, struct probe_result *r)
{
	size_t sq_len = p->sq_off.array + p->sq_entries * sizeof(unsigned);
	size_t cq_len = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	unsigned char *sq =
		mmap(NULL, sq_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	unsigned char *cq =
		mmap(NULL, cq_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqe = mmap(NULL, p->sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE,
					MAP_SHARED, fd, IORING_OFF_SQES);
	const struct io_uring_cqe *cqe;

	if (sq == MAP_FAILED || cq == MAP_FAILED || sqe == MAP_FAILED) {
		probe_errno(r, "mapping the ring", errno);
		return;
	}
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_NOP;
	sqe->user_data = 4711;
	*(unsigned *)(void *)(sq + p->sq_off.array) = 0;
	__atomic_store_n((unsigned *)(void *)(sq + p->sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) {
		uring_errno(r, "io_uring_enter", errno);
		return;
	}
	cqe = (const void *)(cq + p->cq_off.cqes);
	if (__atomic_load_n((unsigned *)(void *)(cq + p->cq_off.tail), __ATOMIC_ACQUIRE) == 1 &&
	    cqe->user_data == 4711 && cqe->res == 0)
		probe_set(r, PROBE_AVAILABLE, "ring created, a request went through");
	else
		probe_set(r, PROBE_MISSING, "a request did not complete");
}

void probe_uring(const struct em_options *o, struct probe_result *r)
{
	struct io_uring_params p;
	int fd;

	(void)o;
	memset(&p, 0, sizeof(p));
	fd = (int)syscall(SYS_io_uring_setup, 4, &p);
	if (fd < 0) {
		uring_errno(r, "io_uring_setup", errno);
		return;
	}
	uring_nop(fd, &p, r);
	close(fd);
}

/* ---- eBPF --------------------------------------------------------------------------------- */

static long bpf(int cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/* The same kind of program and the same helper as the reader of accessed bits uses. */
void probe_bpf(const struct em_options *o, struct probe_result *r)
{
	static const struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 1, .src_reg = 10},
		{.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 1, .imm = -8},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 8},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = 0},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_probe_read_kernel},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr;
	int fd;

	(void)o;
	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SYSCALL;
	attr.prog_flags = BPF_F_SLEEPABLE;
	attr.insns = (uintptr_t)code;
	attr.insn_cnt = sizeof(code) / sizeof(code[0]);
	attr.license = (uintptr_t) "Dual MIT/GPL";
	fd = (int)bpf(BPF_PROG_LOAD, &attr);
	if (fd < 0) {
		probe_errno(r, "loading a program of type syscall", errno);
		return;
	}
	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)fd;
	if (bpf(BPF_PROG_TEST_RUN, &attr))
		probe_errno(r, "running a program of type syscall", errno);
	else
		probe_set(r, PROBE_AVAILABLE, "a program that reads kernel memory loaded and ran");
	close(fd);
}

static bool has_cap(unsigned cap)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	memset(data, 0, sizeof(data));
	if (syscall(SYS_capget, &head, data))
		return false;
	return (data[cap / 32].effective >> cap % 32) & 1;
}

/* The first namespace maps all users to themselves.  Without /proc nobody knows. */
static bool in_user_namespace(void)
{
	char line[64];
	unsigned long inside, outside, count;

	return !em_file_read_line("/proc/self/uid_map", line, sizeof(line)) &&
	       (sscanf(line, "%lu %lu %lu", &inside, &outside, &count) != 3 || inside || outside ||
		count != UINT32_MAX);
}

void probe_bpf_caps(const struct em_options *o, struct probe_result *r)
{
	bool admin = has_cap(CAP_SYS_ADMIN), inner = in_user_namespace();
	bool b = has_cap(CAP_BPF) || admin, perfmon = has_cap(CAP_PERFMON) || admin;

	(void)o;
	probe_set(r, b && perfmon && !inner ? PROBE_AVAILABLE : PROBE_MISSING,
		  "CAP_BPF: %s, CAP_PERFMON: %s%s", b ? "yes" : "no", perfmon ? "yes" : "no",
		  inner ? ", in a user namespace, where they do not count for this" : "");
}

void probe_btf(const struct em_options *o, struct probe_result *r)
{
	(void)o;
	if (access("/sys/kernel/btf/vmlinux", R_OK))
		probe_errno(r, "/sys/kernel/btf/vmlinux", errno);
	else
		probe_set(r, PROBE_AVAILABLE, "/sys/kernel/btf/vmlinux is readable");
}
