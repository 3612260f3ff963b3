/* SPDX-License-Identifier: MIT */
/*
 * The primitive layer: raw system calls.
 *
 * Everything that may run inside the SIGBUS upcall or inside a hooked system
 * call goes through these wrappers: they take no libc lock, do not touch errno
 * and are never patched by our own interception, because the `syscall`
 * instruction lives in our own text.
 *
 * Context: any, signal-safe.  Errors: -errno.
 */
#ifndef EM_CORE_SYS_H
#define EM_CORE_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#ifndef __x86_64__
#error "extmem's primitive layer knows x86-64 only so far"
#endif

static inline long em_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define em_syscall0(nr) em_syscall6(nr, 0, 0, 0, 0, 0, 0)
#define em_syscall1(nr, a) em_syscall6(nr, (long)(a), 0, 0, 0, 0, 0)
#define em_syscall2(nr, a, b) em_syscall6(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define em_syscall3(nr, a, b, c) em_syscall6(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define em_syscall4(nr, a, b, c, d) \
	em_syscall6(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define em_syscall5(nr, a, b, c, d, e) \
	em_syscall6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

/* True for a raw return value that is an error (-4095..-1). */
static inline int em_is_err(long ret)
{
	return (unsigned long)ret >= (unsigned long)-4095L;
}

static inline long em_sys_mmap(void *addr, size_t len, int prot, int flags, int fd, int64_t off)
{
	return em_syscall6(SYS_mmap, (long)addr, (long)len, prot, flags, fd, off);
}

static inline long em_sys_munmap(void *addr, size_t len)
{
	return em_syscall2(SYS_munmap, addr, len);
}

static inline long em_sys_madvise(void *addr, size_t len, int advice)
{
	return em_syscall3(SYS_madvise, addr, len, advice);
}

static inline long em_sys_ioctl(int fd, unsigned long req, void *arg)
{
	return em_syscall3(SYS_ioctl, fd, req, arg);
}

static inline long em_sys_close(int fd)
{
	return em_syscall1(SYS_close, fd);
}

static inline long em_sys_gettid(void)
{
	return em_syscall0(SYS_gettid);
}

static inline long em_sys_getpid(void)
{
	return em_syscall0(SYS_getpid);
}

/* Compilers may emit calls to these; inside the island they resolve to ours. */
void em_memcpy(void *dst, const void *src, size_t n);
void em_memzero(void *dst, size_t n);

#endif
