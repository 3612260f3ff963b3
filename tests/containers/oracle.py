#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What works here, found out in another way than the doctor does: oracle.py SWAP.

One JSON object: items of the doctor that are true or false here, and words that must be in their detail.
"""
import ctypes
import fcntl
import json
import mmap
import os
import resource
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
USERFAULTFD, IO_URING_SETUP, PIDFD_OPEN, PROCESS_MADVISE = 323, 425, 434, 440
PR_SET_SYSCALL_USER_DISPATCH, PR_GET_SECCOMP = 59, 21
USER_MODE_ONLY, USERFAULTFD_IOC_NEW = 1, 0xaa00
MADV_DONTNEED = 4
PAGE = 4096


def descriptor(fd):
    if fd < 0:
        return False
    os.close(fd)
    return True


def device():
    try:
        dev = os.open('/dev/userfaultfd', os.O_RDWR)
        return descriptor(fcntl.ioctl(dev, USERFAULTFD_IOC_NEW, os.O_CLOEXEC))
    except OSError:
        return False


def process_madvise():
    class Iovec(ctypes.Structure):
        _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
    memory = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    pidfd = LIBC.syscall(PIDFD_OPEN, os.getpid(), 0)
    iov = Iovec(address, PAGE)
    LIBC.syscall(PROCESS_MADVISE, pidfd, ctypes.byref(iov), 1, MADV_DONTNEED, 0)
    return memory[0] == 0


def memfd():
    try:
        return descriptor(os.memfd_create('oracle'))
    except OSError:
        return False


def changes_code():
    """A page that was written becomes executable."""
    LIBC.mmap.restype = ctypes.c_void_p
    at = LIBC.mmap(None, PAGE, mmap.PROT_READ | mmap.PROT_WRITE,
                   mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0))
    return LIBC.mprotect(ctypes.c_void_p(at), PAGE, mmap.PROT_READ | mmap.PROT_EXEC) == 0


def direct(path):
    try:
        return descriptor(os.open(path, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT, 0o600))
    except OSError:
        return False


def writable(path):
    try:
        return descriptor(os.open(path, os.O_TMPFILE | os.O_RDWR, 0o600))
    except OSError:
        return False


def status(name):
    try:
        with open('/proc/self/status') as f:
            return next(line.split()[1] for line in f if line.startswith(name + ':'))
    except OSError:
        return None


def setting(path, word=0):
    try:
        with open(path) as f:
            return f.read().split()[word]
    except OSError:
        return 'No such file'


swap = sys.argv[1]
params = ctypes.create_string_buffer(120)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
user = descriptor(LIBC.syscall(USERFAULTFD, USER_MODE_ONLY | os.O_CLOEXEC))
full = descriptor(LIBC.syscall(USERFAULTFD, os.O_CLOEXEC))
# In a user namespace of its own a process has its capabilities for that one only.
inner = setting('/proc/self/uid_map') + setting('/proc/self/uid_map', 2) != '04294967295'
caps = 0 if inner else int(status('CapEff') or '0', 16)
print(json.dumps({
    'works': {
        'userfaultfd': user or full or device(),
        'userfaultfd.user_mode': user,
        'userfaultfd.full': full,
        'userfaultfd.device': device(),
        'io_uring': descriptor(LIBC.syscall(IO_URING_SETUP, 4, params)),
        'process_madvise': process_madvise(),
        'memfd': memfd(),
        'dispatch': LIBC.prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0) == 0,
        'code': changes_code(),
        'fork': os.path.exists('/proc/self/fd') or os.access('/dev/null', os.W_OK),
        'swap': writable(swap),
        'swap.direct': direct(swap),
        'ebpf.btf': os.access('/sys/kernel/btf/vmlinux', os.R_OK),
        **({'ebpf.capabilities': bool(caps >> 21 & 1 or (caps >> 39 & 1 and caps >> 38 & 1))}
           if status('CapEff') else {}),
    },
    'says': {
        'kernel': os.uname().release,
        'limit.nofile': f'{soft}, at most {hard}',
        'setting.unprivileged_userfaultfd': setting('/proc/sys/vm/unprivileged_userfaultfd'),
        'limit.max_map_count': setting('/proc/sys/vm/max_map_count'),
        'setting.overcommit': setting('/proc/sys/vm/overcommit_memory'),
        'setting.seccomp': ('none', 'strict', 'filter')[LIBC.prctl(PR_GET_SECCOMP, 0, 0, 0, 0)],
    },
}))
