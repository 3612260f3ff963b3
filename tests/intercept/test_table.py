#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No system call of the headers or of the running kernel is missing from the call table.

test_table.py DUMP NEWCALLS SYS_EVERY CC...   prints TAP; a call that is missing is named
"""
import re
import subprocess
import sys

KNOWN, NOPTR, SPECIAL = 1, 2, 4

# The kernel's function for a call is mostly called like the call; these are not.
ALIASES = {
    "newstat": "stat", "newlstat": "lstat", "newfstat": "fstat", "newuname": "uname",
    "umount": "umount2", "sendfile64": "sendfile",
}
# Functions behind no number of the 64-bit table: 32-bit and old calls.
NOT_64_BIT = set("""
    bdflush chown16 fchown16 fcntl64 fstat fstat64 fstatat64 ftruncate64 getegid16 geteuid16
    getgid16 getgroups16 getresgid16 getresuid16 getuid16 ipc lchown16 llseek lstat lstat64
    mmap_pgoff mmap2 nice ni_syscall old_getrlimit old_mmap old_msgctl old_readdir old_select
    old_semctl old_shmctl olduname oldumount pciconfig_iobase pciconfig_read pciconfig_write
    send recv setgid16 setgroups16 setregid16 setresgid16 setresuid16 setreuid16 setuid16 setfsgid16
    setfsuid16 sgetmask sigaction signal sigpending sigprocmask sigsuspend socketcall spu_create
    spu_run ssetmask stat stat64 statfs64 fstatfs64 stime truncate64 uname waitpid
    clock_gettime32 clock_settime32 clock_getres_time32 clock_nanosleep_time32 clock_adjtime32
    futex_time32 io_getevents_time32 io_pgetevents_time32 mq_timedreceive_time32
    mq_timedsend_time32 nanosleep_time32 ppoll_time32 pselect6_time32 recvmmsg_time32
    rt_sigtimedwait_time32 sched_rr_get_interval_time32 semtimedop_time32 adjtimex_time32
    time32 stime32 timer_gettime32 timer_settime32 timerfd_gettime32 timerfd_settime32
    fadvise64_64 gethostname ia32_fadvise64_64 ia32_fallocate ia32_ftruncate64 ia32_pread64
    ia32_pwrite64 ia32_readahead ia32_sync_file_range ia32_truncate64 rtas s390_ipc
    s390_pci_mmio_read s390_pci_mmio_write subpage_prot sync_file_range2
    utime32 utimensat_time32 utimes_time32 futimesat_time32 ia32_fadvise64 vm86 vm86old
    readahead_ia32 sync_file_range_ia32 get_mempolicy_ia32 sigreturn oldstat
""".split())

count = 0
failed = False


def tell(ok, text, details=()):
    global count, failed
    count += 1
    print(f"{'ok' if ok else 'not ok'} {count} - {text}")
    for line in details:
        print(f"# {line}")
    failed |= not ok


def header_numbers(cc, newcalls):
    text = subprocess.run([*cc, "-E", "-dM", "-x", "c", "-"], input="#include <asm/unistd_64.h>\n",
                          capture_output=True, text=True, check=True).stdout
    names = {m[1]: int(m[2]) for m in re.finditer(r"#define __NR_(\w+) (\d+)$", text, re.M)}
    with open(newcalls, encoding="utf-8") as file:
        for m in re.finditer(r"#define SYS_(\w+) (\d+)$", file.read(), re.M):
            names.setdefault(m[1], int(m[2]))
    return names


def kernel_names():
    try:
        with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
            found = {m[1] for m in re.finditer(r" __x64_sys_(\w+)$", file.read(), re.M)}
    except OSError:
        return None
    return {ALIASES.get(name, name) for name in found
            if name not in NOT_64_BIT and not name.startswith("compat_")} or None


def main():
    dump, newcalls, every, *cc = sys.argv[1:]
    table = {}
    for line in subprocess.run([dump], capture_output=True, text=True, check=True).stdout.split("\n"):
        if line:
            nr, flags, pointers = map(int, line.split())
            table[nr] = (flags, pointers)
    numbers = header_numbers(cc, newcalls)

    missing = sorted(name for name, nr in numbers.items()
                     if not table.get(nr, (0, 0))[0] & KNOWN)
    tell(not missing, "every call of the headers is in the table", missing)

    kernel = kernel_names()
    if kernel is None:
        tell(True, "every call of the running kernel is in the table # SKIP no /proc/kallsyms")
    else:
        missing = sorted(name for name in kernel
                         if name not in numbers or not table.get(numbers[name], (0, 0))[0] & KNOWN)
        tell(not missing and len(kernel) > 250, "every call of the running kernel is in the table",
             missing)

    wrong = [name for name, nr in numbers.items()
             if table.get(nr, (0, 0))[0] & NOPTR and table[nr][1]]
    tell(not wrong, "a call without pointers has none", wrong)

    with open(every, encoding="utf-8") as file:
        tested = set(re.findall(r"\bC\((\w+),", file.read()))
    untested = sorted(name for name, nr in numbers.items()
                      if table.get(nr, (0, 0))[1] and name not in tested)
    tell(not untested, "every entry with a pointer has its line in sys_every.c", untested)
    print(f"1..{count}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
