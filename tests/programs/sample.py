#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs a command and samples the memory of its processes.

Every 50 ms (at first more often, and less often when it takes long) /proc/PID/smaps of each process
of the tree is read.  For each process two figures are kept at their largest:

  managed  resident bytes of mappings registered with userfaultfd (um or uw in VmFlags)
  other    resident bytes of all else but of files that are mapped for reading: the kernel drops their
           pages when it needs memory, and the patcher maps each library whole for a moment

In a native run nothing is registered; there, `managed` counts what about would be: private
anonymous mappings of at least min_map, and the heap.  That is too much where the kernel has
merged small mappings; so what a program needs besides managed memory is better taken from a
run under the engine with more budget than it can use.
"""
import os
import re
import signal
import subprocess
import time

import children

HEAD = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)$")


class Process:
    def __init__(self):
        self.managed = self.other = self.total = 0


def mappings(pid):
    """Yields (bytes, permissions, is anonymous, name, rss bytes, flags)."""
    with open(f"/proc/{pid}/smaps", "rb") as f:
        head, rss = None, 0
        for line in f:
            m = HEAD.match(line)
            if m:
                head = (int(m[2], 16) - int(m[1], 16), m[3], m[4] == b"0", m[5])
            elif line.startswith(b"Rss:"):
                rss = int(line.split()[1]) * 1024
            elif line.startswith(b"VmFlags:") and head:
                yield head + (rss, line.split()[1:])
                head = None


def is_managed(m, native, min_map):
    size, perms, anonymous, name, _, flags = m
    if not native:
        return b"um" in flags or b"uw" in flags
    if name == b"[heap]":
        return True
    return (anonymous and perms.endswith(b"p") and name == b"" and size >= min_map and
            b"gd" not in flags)


def stopped(pid):
    """Stops it and waits until no thread runs, for a while: a thread may wait for its disk."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        states = set()
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat", "rb") as f:
                states.add(f.read().rsplit(b") ", 1)[1][:1])
        if states <= {b"T", b"t", b"Z", b"X"}:
            return True
        time.sleep(0.0005)
    return False


def resume(pid, native):
    if not native:
        try:
            os.kill(pid, signal.SIGCONT)
        except OSError:
            pass


def sample(processes, native, min_map):
    """Returns whether each could be looked at: one that waits for its disk cannot be stopped."""
    whole = True
    for pid in children.below(os.getpid()):
        managed = other = 0
        try:
            # The file is written mapping by mapping; pages that go out of one and come into the next
            # meanwhile would be counted twice.
            if not native and not stopped(pid):
                whole = False
                continue
            for m in mappings(pid):
                if is_managed(m, native, min_map):
                    managed += m[4]
                elif b"w" in m[1] or m[2]:
                    other += m[4]
        except (OSError, ValueError):
            continue
        finally:
            resume(pid, native)
        p = processes.setdefault(pid, Process())
        p.managed = max(p.managed, managed)
        p.other = max(p.other, other)
        p.total = max(p.total, managed + other)
    return whole


def run(command, native, stdin=None, stdout=None, stderr=None, env=None, timeout=600, min_map=1 << 20):
    """Returns (status, seconds, processes); status None: it took too long.

    What it leaves behind is killed.
    """
    begin = time.monotonic()
    child = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env,
                             start_new_session=True)
    processes = {}
    status = None
    try:
        while status is None and time.monotonic() - begin <= timeout:
            now = time.monotonic()
            whole = sample(processes, native, min_map)
            children.reap(but=(child.pid,))
            took = time.monotonic() - now
            try:
                status = child.wait(timeout=max(0.005 if now - begin < 1 else 0.05,
                                                5 * took if whole else took))
            except subprocess.TimeoutExpired:
                pass
        return status, time.monotonic() - begin, processes
    finally:
        children.end_all()
