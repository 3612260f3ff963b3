/* SPDX-License-Identifier: MIT */
/* Calls whose pointers depend on what another argument asks for. */
#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/mempolicy.h>
#include <linux/prctl.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <linux/sem.h>
#include <sys/socket.h>

#include "../core/capture.h"
#include "../core/core.h"
#include "../core/sys.h"
#include "../store/store.h"
#include "hold.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67 /* 6.4 */
#endif

/* A filter that kills does so for the engine's calls in this thread, too: the fewer of them the better. */
static void filter_comes(void)
{
	if (em_engine.store)
		em_store_stop_looking(em_engine.store);
	em_capture_stop();
}

enum { LARGEST_UNKNOWN = 65536 };

static void in(struct em_hold *h, long p, size_t n)
{
	em_hold_range(h, (uintptr_t)p, n, EM_DIR_IN);
}

static void out(struct em_hold *h, long p, size_t n)
{
	em_hold_range(h, (uintptr_t)p, n, EM_DIR_OUT);
}

static void string(struct em_hold *h, long p)
{
	em_hold_string(h, (uintptr_t)p);
}

/* ---- descriptors -------------------------------------------------------------------------- */

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

static void hold_fcntl(struct em_hold *h, const long *a)
{
	switch ((int)a[1]) {
	case F_GETLK:
	case F_OFD_GETLK:
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		out(h, a[2], 32);
		break;
	case F_SETOWN_EX:
	case F_GETOWN_EX:
	case F_GETOWNER_UIDS:
	case F_GET_RW_HINT:
	case F_SET_RW_HINT:
	case F_GET_FILE_RW_HINT:
	case F_SET_FILE_RW_HINT:
		out(h, a[2], 8);
		break;
	default:
		break;
	}
}

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
enum { ATTACH_FILTER = 26, ATTACH_REUSEPORT_CBPF = 51, XDP_UMEM_REG_OPT = 4 };

static void hold_setsockopt(struct em_hold *h, const long *a)
{
	struct {
		uint64_t addr, len;
	} umem;

	in(h, a[3], (unsigned)a[4]);
	if (a[1] == SOL_SOCKET && (a[2] == ATTACH_FILTER || a[2] == ATTACH_REUSEPORT_CBPF))
		em_hold_fprog(h, (uintptr_t)a[3]);
	/* The device reads and writes there from now on. */
	if (a[1] == SOL_XDP && a[2] == XDP_UMEM_REG_OPT &&
	    !em_hold_get(h, &umem, (uintptr_t)a[3], sizeof(umem)) &&
	    em_space_may_manage(umem.addr, umem.len))
		em_range_pin(umem.addr, umem.len);
}

static void hold_getsockopt(struct em_hold *h, const long *a)
{
	size_t unit = a[1] == SOL_SOCKET && a[2] == ATTACH_FILTER ? 8 : 1; /* counts instructions */
	unsigned n;

	if (!a[4] || em_hold_get(h, &n, (uintptr_t)a[4], sizeof(n)))
		return;
	out(h, a[3], n * unit);
	out(h, a[4], sizeof(n));
}

/* ---- processes ------------------------------------------------------------------------------- */

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#ifndef PR_GET_AUXV
#define PR_GET_AUXV 0x41555856
#endif

static void hold_mm_map(struct em_hold *h, const long *a)
{
	struct prctl_mm_map m;

	if (a[1] == PR_SET_MM_AUXV) {
		in(h, a[2], (size_t)a[3] < 4096 ? (size_t)a[3] : 4096);
	} else if (a[1] == PR_SET_MM_MAP_SIZE) {
		out(h, a[2], 4);
	} else if (a[1] == PR_SET_MM_MAP && a[2] &&
		   !em_hold_get(h, &m, (uintptr_t)a[2], sizeof(m))) {
		em_hold_range(h, (uintptr_t)m.auxv, m.auxv_size, EM_DIR_IN);
	}
}

static void hold_prctl(struct em_hold *h, const long *a)
{
	switch ((int)a[0]) {
	case PR_SET_NAME:
		in(h, a[1], 16);
		break;
	case PR_GET_NAME:
		out(h, a[1], 16);
		break;
	case PR_GET_PDEATHSIG:
	case PR_GET_UNALIGN:
	case PR_GET_FPEMU:
	case PR_GET_FPEXC:
	case PR_GET_ENDIAN:
	case PR_GET_TSC:
	case PR_GET_CHILD_SUBREAPER:
		out(h, a[1], 4);
		break;
	case PR_GET_TID_ADDRESS:
		out(h, a[1], 8);
		break;
	case PR_SET_MEMORY_MERGE:
		em_capture_stop();
		break;
	case PR_SET_SECCOMP:
		filter_comes();
		if (a[1] == SECCOMP_MODE_FILTER)
			em_hold_fprog(h, (uintptr_t)a[2]);
		break;
	case PR_SET_MM:
		hold_mm_map(h, a);
		break;
	case PR_SCHED_CORE:
		out(h, a[4], 8);
		break;
	case PR_SET_VMA:
		string(h, a[4]);
		break;
	case PR_GET_AUXV:
		out(h, a[1], (size_t)a[2] < 4096 ? (size_t)a[2] : 4096);
		break;
	case PR_SET_SYSCALL_USER_DISPATCH:
		/* Read at every system call from now on. */
		if (a[4] && em_space_may_manage((uintptr_t)a[4], 1))
			em_range_pin((uintptr_t)a[4], 1);
		break;
	default:
		break;
	}
}

/* `addr` is in the other process, but for two requests. */
static void hold_ptrace(struct em_hold *h, const long *a)
{
	struct {
		uint64_t base, len;
	} v;

	switch (a[0]) {
	case PTRACE_POKETEXT:
	case PTRACE_POKEDATA:
	case PTRACE_POKEUSR:
	case PTRACE_CONT:
	case PTRACE_SYSCALL:
	case PTRACE_SETOPTIONS:
	case PTRACE_SEIZE:
		break; /* data is a number */
	case PTRACE_GETREGSET:
	case PTRACE_SETREGSET:
		if (a[3] && !em_hold_get(h, &v, (uintptr_t)a[3], sizeof(v)))
			em_hold_range(h, v.base, v.len < LARGEST_UNKNOWN ? v.len : LARGEST_UNKNOWN,
				      EM_DIR_OUT);
		out(h, a[3], sizeof(v));
		break;
	case PTRACE_PEEKSIGINFO: {
		struct ptrace_peeksiginfo_args s;

		if (!em_hold_get(h, &s, (uintptr_t)a[2], sizeof(s)) && s.nr > 0)
			out(h, a[3], (size_t)s.nr * 128);
		break;
	}
	case PTRACE_SECCOMP_GET_FILTER:
		out(h, a[3], 4096 * 8);
		break;
	default:
		out(h, a[3], 4096);
		break;
	}
}

static void hold_seccomp(struct em_hold *h, const long *a)
{
	if (a[0] != SECCOMP_GET_ACTION_AVAIL && a[0] != SECCOMP_GET_NOTIF_SIZES)
		filter_comes();
	if (a[0] == SECCOMP_SET_MODE_FILTER)
		em_hold_fprog(h, (uintptr_t)a[2]);
	else
		out(h, a[2], 8);
}

/* ---- keys ------------------------------------------------------------------------------------- */

static void hold_dh(struct em_hold *h, const long *a)
{
	struct {
		uintptr_t hashname, otherinfo;
		uint32_t otherinfolen, spare[8];
	} kdf;

	in(h, a[1], 12);
	out(h, a[2], (size_t)a[3]);
	if (a[4] && !em_hold_get(h, &kdf, (uintptr_t)a[4], sizeof(kdf))) {
		em_hold_string(h, kdf.hashname);
		em_hold_range(h, kdf.otherinfo, kdf.otherinfolen, EM_DIR_IN);
	}
}

static void hold_pkey(struct em_hold *h, const long *a)
{
	struct {
		int32_t key;
		uint32_t in_len, out_len, spare[7];
	} p;

	if (em_hold_get(h, &p, (uintptr_t)a[1], sizeof(p)))
		return;
	string(h, a[2]);
	in(h, a[3], p.in_len);
	out(h, a[4], p.out_len);
}

static void hold_keyctl(struct em_hold *h, const long *a)
{
	switch ((int)a[0]) {
	case KEYCTL_JOIN_SESSION_KEYRING:
		string(h, a[1]);
		break;
	case KEYCTL_UPDATE:
	case KEYCTL_INSTANTIATE:
		in(h, a[2], (size_t)a[3]);
		break;
	case KEYCTL_INSTANTIATE_IOV:
		em_hold_iov(h, (uintptr_t)a[2], a[3], EM_DIR_IN);
		break;
	case KEYCTL_DESCRIBE:
	case KEYCTL_READ:
	case KEYCTL_GET_SECURITY:
		out(h, a[2], (size_t)a[3]);
		break;
	case KEYCTL_SEARCH:
	case KEYCTL_RESTRICT_KEYRING:
		string(h, a[2]);
		string(h, a[3]);
		break;
	case KEYCTL_DH_COMPUTE:
		hold_dh(h, a);
		break;
	case KEYCTL_PKEY_QUERY:
		string(h, a[3]);
		out(h, a[4], 64);
		break;
	case KEYCTL_PKEY_ENCRYPT:
	case KEYCTL_PKEY_DECRYPT:
	case KEYCTL_PKEY_SIGN:
	case KEYCTL_PKEY_VERIFY:
		hold_pkey(h, a);
		break;
	case KEYCTL_CAPABILITIES:
		out(h, a[1], (size_t)a[2]);
		break;
	default:
		break;
	}
}

/* ---- bpf ------------------------------------------------------------------------------------- */

/* PROG_LOAD and BTF_LOAD say how long things are.  Keys and values are as long as their map says, which only
   the kernel knows: any word of the attributes that points to managed memory is taken for one. */
static void hold_bpf(struct em_hold *h, const long *a)
{
	uint64_t attr[20] = { 0 };
	size_t n = (unsigned)a[2] < sizeof(attr) ? (unsigned)a[2] & ~7u : sizeof(attr);
	enum { PROG_LOAD = 5, BTF_LOAD = 18 };

	out(h, a[1], (unsigned)a[2] <= 4096 ? (unsigned)a[2] : 0);
	if (!a[1] || em_hold_get(h, attr, (uintptr_t)a[1], n))
		return;
	for (size_t i = 0; i < n / 8; i++) {
		size_t len = LARGEST_UNKNOWN;

		if (a[0] == PROG_LOAD && i == 1) /* insns */
			len = (attr[0] >> 32) * 8;
		else if (a[0] == PROG_LOAD && i == 4) /* log_buf */
			len = attr[3] >> 32;
		else if (a[0] == BTF_LOAD && i < 2) /* btf, btf_log_buf */
			len = i ? attr[2] >> 32 : (uint32_t)attr[2];
		em_hold_range(h, attr[i], len, EM_DIR_OUT);
	}
}

/* ---- the rest ---------------------------------------------------------------------------------- */

static void hold_semctl(struct em_hold *h, const long *a)
{
	int cmd = (int)a[2] & 0xff;

	if (cmd == GETALL || cmd == SETALL)
		out(h, a[3], LARGEST_UNKNOWN); /* two bytes a semaphore */
	else if (cmd != SETVAL)
		out(h, a[3], 128);
}

static void hold_fsconfig(struct em_hold *h, const long *a)
{
	enum { SET_STRING = 1, SET_BINARY = 2, SET_PATH = 3, SET_PATH_EMPTY = 4 };

	if (a[1] == SET_BINARY)
		in(h, a[3], (unsigned)a[4]);
	else if (a[1] == SET_STRING || a[1] == SET_PATH || a[1] == SET_PATH_EMPTY)
		string(h, a[3]);
}

static void hold_quota(struct em_hold *h, int cmd, long addr)
{
	enum { QUOTAON = 0x800002 };

	if ((cmd >> 8) == QUOTAON)
		string(h, addr);
	else
		out(h, addr, 512);
}

static void hold_mq_notify(struct em_hold *h, const long *a)
{
	struct {
		uintptr_t value;
		int signo, notify;
		char rest[48];
	} ev;
	enum { BY_THREAD = 2 };

	if (a[1] && !em_hold_get(h, &ev, (uintptr_t)a[1], sizeof(ev)) && ev.notify == BY_THREAD)
		em_hold_range(h, ev.value, 32, EM_DIR_IN);
}

static void hold_sysfs(struct em_hold *h, const long *a)
{
	if (a[0] == 1)
		string(h, a[1]);
	else if (a[0] == 2)
		out(h, a[2], 4096);
}

void em_hold_multiplex(struct em_hold *h, long nr, const long *a)
{
	switch (nr) {
	case SYS_ioctl:
		em_hold_ioctl(h, (unsigned long)(unsigned)a[1], (uintptr_t)a[2]);
		break;
	case SYS_fcntl:
		hold_fcntl(h, a);
		break;
	case SYS_setsockopt:
		hold_setsockopt(h, a);
		break;
	case SYS_getsockopt:
		hold_getsockopt(h, a);
		break;
	case SYS_prctl:
		hold_prctl(h, a);
		break;
	case SYS_arch_prctl:
		/* The others take an address or a number. */
		if (a[0] == ARCH_GET_FS || a[0] == ARCH_GET_GS || a[0] >= 0x1000)
			out(h, a[1], 8);
		break;
	case SYS_ptrace:
		hold_ptrace(h, a);
		break;
	case SYS_seccomp:
		hold_seccomp(h, a);
		break;
	case SYS_keyctl:
		hold_keyctl(h, a);
		break;
	case SYS_bpf:
		hold_bpf(h, a);
		break;
	case SYS_semctl:
		hold_semctl(h, a);
		break;
	case SYS_fsconfig:
		hold_fsconfig(h, a);
		break;
	case SYS_quotactl:
		hold_quota(h, (int)a[0], a[3]);
		break;
	case SYS_quotactl_fd:
		hold_quota(h, (int)a[1], a[3]);
		break;
	case SYS_mq_notify:
		hold_mq_notify(h, a);
		break;
	case SYS_sysfs:
		hold_sysfs(h, a);
		break;
	case SYS_get_mempolicy:
		/* The kernel looks which page is at the address. */
		if (a[4] & MPOL_F_ADDR)
			in(h, a[3], 1);
		break;
	default:
		break;
	}
}
