# SPDX-License-Identifier: MIT
"""stress-ng's stressors with --verify, some of which fill and check memory in every pattern.

Set SEED to repeat a run.
"""
import os
import random
import subprocess

from case import MIB, Case

# name: operations each; 0: as many as a second gives.  Not mmapfork, which takes all memory
# that is free.
MEMORY = {
    "mmap": 60, "mremap": 100, "madvise": 40, "mlock": 100, "mincore": 100, "brk": 2000,
    "malloc": 3000, "bigheap": 300, "munmap": 5, "mprotect": 100, "mmapaddr": 500, "mmapfixed": 20,
    "mmapmany": 5, "pagemove": 4, "pageswap": 20, "remap": 3, "vm-addr": 2, "vm-rw": 40,
    "vm-segv": 5, "vm-splice": 500, "userfaultfd": 100, "stack": 0, "fault": 200, "mmaphuge": 4,
}
PROCESSES = {
    "fork": 100, "vfork": 200, "clone": 10, "daemon": 30, "zombie": 50, "pthread": 200, "futex": 2000,
    "exec": 0,
}
# In files in /tmp it takes, natively too, what the disk has: so only where /tmp can be read-only.
# By default it is 16384 resources in each of 4096 processes, and others on the machine get none.
FORKHEAVY = {"forkheavy": 100}
OPTIONS = {"forkheavy": "--forkheavy-procs 256 --forkheavy-allocs 1024 "}
SIGNALS = {
    "signal": 2000, "sigfd": 200, "sigpending": 500, "sigq": 500, "sigrt": 500, "sigsegv": 500,
    "sigsuspend": 500, "sigtrap": 500, "sigabrt": 20, "sigchld": 100, "sigfpe": 500, "sigio": 0,
}
TRANSFERS = {
    "pipe": 5000, "sock": 50, "aio": 200, "aiol": 200, "io-uring": 200, "shm": 10, "shm-sysv": 20,
    "poll": 500, "epoll": 200, "eventfd": 500, "mq": 500, "sendfile": 50, "splice": 200, "msync": 50,
}
METHODS = (
    "cache-lines cache-stripe checkerboard flip fwdrev galpat-0 galpat-1 gray grayflip rowhammer "
    "incdec inc-nybble lfsr32 rand-set rand-sum read64 ror swap move-inv modulo-x mscan "
    "wrrd128nt prime-0 prime-1 prime-gray-0 prime-gray-1 prime-incdec walk-0d walk-1d walk-0a "
    "walk-1a write64 write64nt write1024v zero-one").split()

# One after the other; the last lines of stderr name those that failed.
LOOP = """
cd "$1" && shift
for args; do
	stress-ng --verify $args >log 2>&1 && continue
	status=$?
	cat log >&2
	echo "status $status: stress-ng --verify $args" >&2
	failed=1
done
exit ${failed:-0}
"""


# For $1 and what is beside it all stays as it is.
READ_ONLY_TMP = """
set -e
work=$(dirname "$1")
mount --bind "$work" "$work"
mount --rbind /tmp /tmp
mount -o remount,bind,ro /tmp
cd "$1"
set +e
"""


def can_mount():
    return subprocess.run(["unshare", "-m", "mount", "--bind", "/tmp", "/tmp"], check=False,
                          stderr=subprocess.DEVNULL).returncode == 0


def stressors(table, factor, seed):
    for name, ops in table.items():
        limit = f"--{name}-ops {max(1, ops // factor)} --timeout 20" if ops else "--timeout 1"
        yield f"--seed {seed} --{name} 2 {OPTIONS.get(name, '')}{limit}"


def cases(args, work):
    seed = os.environ.get("SEED") or str(random.randrange(1 << 30))
    factor = 4 if args.quick else 1
    methods = [f"--seed {seed} --vm 1 --vm-bytes 24M --vm-method {m} --vm-ops 1 --timeout 5"
               for m in METHODS]
    processes, shell = PROCESSES | SIGNALS | TRANSFERS, ["sh", "-c"]
    begin = {"processes": shell + [LOOP]}
    if can_mount():
        processes |= FORKHEAVY
        begin["processes"] = ["unshare", "-m"] + shell + [READ_ONLY_TMP + LOOP]
    groups = {"vm": methods, "memory": stressors(MEMORY, factor, seed),
              "processes": stressors(processes, factor, seed)}
    print(f"# stress-ng: SEED={seed}")
    for name, runs in groups.items():
        command = begin.get(name, shell + [LOOP])
        yield Case("stress-" + name,
                   lambda out, runs=list(runs), command=command: command + ["sh", out] + runs,
                   files=(), needs=("stress-ng",), heavy=True,
                   touches=8 * MIB if name == "processes" else 0) # a copy of --shm's memory
