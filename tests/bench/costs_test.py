#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a fault costs, in counts that no clock and no neighbour changes: system calls, and calls
that make other processors flush their TLB.

    costs_test.py BUILD

Each case runs a workload under `strace -c` and `extmem run --stats` and holds the counts to limits a little
above what they are.  With --spin 0: how often a thread that waits awake looks is a matter of time.  Prints TAP.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

MIB = 1 << 20


class Counts:
    """Of one run: `calls` as strace saw them, `stats` as the engine did."""

    def __init__(self, build, command, budget):
        with tempfile.TemporaryDirectory(prefix="costs-") as work:
            trace, stats = os.path.join(work, "trace"), os.path.join(work, "stats")
            subprocess.run(["strace", "-f", "-c", "-U", "name,calls", "-o", trace,
                            os.path.join(build, "extmem"), "run", "--dram", str(budget), "--spin", "0",
                            "--stats", stats, "--", *command],
                           check=True, stdout=subprocess.DEVNULL, timeout=120)
            with open(trace, encoding="ascii") as text:
                rows = [line.split() for line in text]
            self.calls = {row[0]: int(row[1]) for row in rows
                          if len(row) == 2 and row[1].isdigit() and row[0] != "total"}
            with open(stats, encoding="ascii") as text:
                self.stats = json.load(text)
        self.faults = sum(v for k, v in self.stats["faults"].items()
                          if k in ("first_touch", "major", "prefetch_hit", "write_protect"))
        self.evicted = self.stats["pages"]["out"] + self.stats["pages"]["dropped_clean"]

    def of(self, *names):
        return sum(self.calls.get(name, 0) for name in names)


# What the fault path and reclaim are made of; the rest is start-up and end.
PAGING = ("ioctl", "rt_sigreturn", "preadv", "pread64", "pwritev", "pwrite64", "futex", "madvise",
          "process_madvise", "mremap", "sched_yield", "io_uring_enter", "rt_sigprocmask",
          "process_vm_readv", "vmsplice", "readv", "gettid")


def per(count, base):
    return count / base if base else float("inf")


def measures(c):
    """Name -> value; a case names those it limits."""
    return {
        "calls a fault": per(c.of(*PAGING), c.faults),
        "faults a page touched first": per(c.stats["faults"]["first_touch"],
                                           c.stats["pages"]["first_touch"]),
        "pages filled": c.stats["pages"]["first_touch"],
        "faults a page brought in": per(c.faults, c.stats["pages"]["in"]),
        "calls a page brought in": per(c.of(*PAGING), c.stats["pages"]["in"]),
        "shootdowns an evicted page": per(c.stats["kernel"]["shootdowns"], c.evicted),
        "bytes written a dirty page, in pages":
            per(c.stats["io"]["bytes_written"] / 4096, c.stats["pages"]["out"]),
        "pages prefetched in vain, of those prefetched":
            per(c.stats["prefetch"]["unused"], max(1, c.stats["prefetch"]["pages"])),
        "kept on standby, of those evicted": per(c.stats["standby"]["kept"], c.evicted),
        "read, of those that come back":
            per(c.stats["faults"]["major"], c.stats["faults"]["major"] + c.stats["standby"]["used"]),
        "waited for, of the pages that come in": per(c.stats["faults"]["major"], c.stats["pages"]["in"]),
        "copied back, of those that come back":
            per(c.stats["standby"]["used"], c.stats["faults"]["major"] + c.stats["standby"]["used"]),
        "expected to be written, of the pages brought in":
            per(c.stats["pages"]["writes_expected"], c.stats["pages"]["in"] + c.stats["standby"]["used"]),
        "pages written out": c.stats["pages"]["out"],
        "metadata, in pages": c.stats["metadata_bytes"] / 4096,
    }


def touch(build, pattern, touches, *more):
    return [os.path.join(build, "bench/touch"), "--pattern", pattern, "--bytes", str(64 * MIB),
            "--touches", str(touches), "--verify", "none", *more]


# 64 pages of a TiB: what unmapping it would have to look at.
RESERVE = """
import mmap, os
m = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # NORESERVE
for at in range(4096, 1 << 40, 1 << 34):
    m[at] = 1
os._exit(0)
"""


# Read in order, then three seconds at random: what read ahead has no use for its frames any more.
THEN_AT_RANDOM = """
import mmap, os, random, time
m = mmap.mmap(-1, 128 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in list(range(0, len(m), 4096)) * 2:
    m[at] = m[at] | 1
end = time.monotonic() + 3
while time.monotonic() < end:
    assert m[random.randrange(len(m)) & ~4095]
os._exit(0)
"""


# Counted up at random, then only looked at: what was expected to be written is so no more.
THEN_ONLY_READ = """
import mmap, os, random
source = random.Random(3)
m = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(m), 4096):
    m[at] = 1
for _ in range(12000):
    at = source.randrange(len(m)) & ~4095
    m[at] = m[at] % 255 + 1
for _ in range(24000):
    assert m[source.randrange(len(m)) & ~4095]
os._exit(0)
"""


def lines(path):
    """24 MiB of lines in no order."""
    source = random.Random(7)
    with open(path, "w", encoding="ascii") as text:
        for _ in range(24 * MIB // 64):
            text.write(f"{source.getrandbits(252):063x}\n")


def cases(build, work):
    minor = [os.path.join(build, "bench/minorfault"), "--op", "write", "--threads", "1",
             "--pages", "4096", "--stride", "16"]
    # One ioctl and the return from the signal.
    yield "first touch", minor, 512 * MIB, {"calls a fault": 2.3}
    # In no order: all of the memory, and a sixteenth of it.
    shuffled = [os.path.join(build, "bench/minorfault"), "--op", "write", "--threads", "1",
                "--pages", "4096", "--shuffle", "--stride"]
    yield "dense first touch in no order", [*shuffled, "1"], 512 * MIB, {
        "faults a page touched first": 0.6}
    yield "sparse first touch in no order", [*shuffled, "16"], 512 * MIB, {
        "pages filled": 4096 * 1.05}
    # One read more; a batch of victims is unmapped by one call.
    yield ("random read", touch(build, "rand-read", 20000), 32 * MIB,
           {"calls a fault": 3.4, "shootdowns an evicted page": 0.03})
    yield ("random write", touch(build, "rand-write", 20000), 32 * MIB,
           {"calls a fault": 3.6, "shootdowns an evicted page": 0.05,
            "bytes written a dirty page, in pages": 1.05})
    # Pages come in runs.
    yield ("sequential read", touch(build, "seq-read", 100000), 32 * MIB,
           {"calls a page brought in": 0.6, "faults a page brought in": 0.15,
            "shootdowns an evicted page": 0.03,
            "kept on standby, of those evicted": 0.2,
            "pages prefetched in vain, of those prefetched": 0.4})
    yield ("sequential write", touch(build, "seq-write", 100000), 32 * MIB,
           {"calls a page brought in": 1, "faults a page brought in": 0.3,
            "shootdowns an evicted page": 0.1,
            "bytes written a dirty page, in pages": 1.05})
    # Pages in use that are evicted all the same come back by a copy.
    yield ("hot set", touch(build, "hot", 300000, "--writes", "20"), 32 * MIB,
           {"calls a fault": 3.6, "shootdowns an evicted page": 0.1,
            "read, of those that come back": 0.95,
            "expected to be written, of the pages brought in": 0.001})
    # Each page is looked at, then written: one fault is enough.
    yield ("random update", touch(build, "rand-read", 30000, "--writes", "100", "--update"), 32 * MIB,
           {"faults a page brought in": 1.25, "calls a fault": 3.6,
            "bytes written a dirty page, in pages": 1.05})
    # 16384 pages written first, some 6000 counted up, some 12000 only looked at.
    yield ("update, then reads", ["/usr/bin/python3", "-c", THEN_ONLY_READ], 32 * MIB,
           {"expected to be written, of the pages brought in": 0.4, "pages written out": 22000})
    yield ("in order, then at random", ["/usr/bin/python3", "-c", THEN_AT_RANDOM], 64 * MIB,
           {"metadata, in pages": 700})
    # Nearly all is in use: it stays where it is rather than be copied to standby and back.
    yield ("nearly fits", touch(build, "rand-read", 150000), 61 * MIB,
           {"copied back, of those that come back": 0.52})
    # What the pages of pointers point to comes in before it is missed.
    lines(os.path.join(work, "lines"))
    yield ("sort", ["/usr/bin/sort", "-S", "100M", "--parallel=1", os.path.join(work, "lines")], 25 * MIB,
           {"waited for, of the pages that come in": 0.58})
    yield ("reserved, hardly touched", ["/usr/bin/python3", "-c", RESERVE], 64 * MIB,
           {"metadata, in pages": 512})


def main():
    build = os.path.abspath(sys.argv[1])
    if not shutil.which("strace"):
        print("1..0 # SKIP strace is not installed")
        return 0
    n = bad = 0
    with tempfile.TemporaryDirectory(prefix="costs-") as work:
        for name, command, budget, limits in cases(build, work):
            found = measures(Counts(build, command, budget))
            for what, limit in limits.items():
                n += 1
                good = found[what] <= limit
                bad += not good
                print(f"{'ok' if good else 'not ok'} {n} - {name}: {what}: {found[what]:.3f}, "
                      f"limit {limit}", flush=True)
    print(f"1..{n}")
    return 1 if bad else 0


sys.exit(main())
