# SPDX-License-Identifier: MIT
"""A zram device as swap, with a limit of the memory that it takes."""
import contextlib
import os

import swapfile
from swapfile import Unavailable

CONTROL = "/sys/class/zram-control"
LABEL_PREFIX = "emb."
# Where mkswap keeps the label, and how long it may be.
LABEL_AT, LABEL_BYTES = 1052, 16
# Parts of the budget that zram may take; the first with which the program survives is used.
SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
# Within this of its limit it is full: what does not compress takes whole pages.
FULL_WITHIN_BYTES = 1 << 20


def _attribute(number, name):
    return f"/sys/block/zram{number}/{name}"


def _write(path, text):
    with open(path, "w", encoding="ascii") as out:
        out.write(text)


def parse_mm_stat(text):
    """(bytes stored, bytes of memory that they take)"""
    fields = text.split()
    return int(fields[0]), int(fields[2])


class Device(swapfile.Space):
    """A device of our own; the swap space is made anew each time it is switched on."""

    def __init__(self, size_bytes):
        self.size_bytes = size_bytes
        self.number = None
        if not os.path.isdir(CONTROL):
            raise Unavailable("the kernel has no zram, or its module is not loaded")
        try:
            with open(f"{CONTROL}/hot_add", encoding="ascii") as number:
                self.number = int(number.read())
        except OSError as error:
            raise Unavailable(f"no zram device: {error}") from error
        super().__init__(f"/dev/zram{self.number}")

    def on(self, limit_bytes=0):
        try:
            _write(_attribute(self.number, "disksize"), str(self.size_bytes))
            _write(_attribute(self.number, "mem_limit"), str(limit_bytes))
        except OSError as error:
            raise Unavailable(f"cannot set up {self.path}: {error}") from error
        swapfile.make_swap(self.path, "-L", f"{LABEL_PREFIX}{os.getpid()}")
        super().on()

    def off(self):
        super().off()
        _write(_attribute(self.number, "reset"), "1")

    def memory(self):
        with open(_attribute(self.number, "mm_stat"), encoding="ascii") as text:
            return parse_mm_stat(text.read())

    def remove(self):
        try:
            self.off()
        finally:
            _write(f"{CONTROL}/hot_remove", str(self.number))


class Watcher:
    """Notes how much memory the device takes, and ends the group when it is full: from there on
    every page to be swapped out is a write error, and the OOM killer is near."""

    def __init__(self, device, group, limit_bytes):
        self.device, self.group, self.limit_bytes = device, group, limit_bytes
        self.used_peak = self.stored_peak = 0
        self.full = False

    def look(self):
        stored, used = self.device.memory()
        self.used_peak = max(self.used_peak, used)
        self.stored_peak = max(self.stored_peak, stored)
        if used > self.limit_bytes - FULL_WITHIN_BYTES:
            self.full = True
            self.group.kill()

    def figures(self):
        return {"limit_bytes": self.limit_bytes, "memory_peak_bytes": self.used_peak,
                "data_peak_bytes": self.stored_peak}


def _owner(path):
    """The process that labelled a swap space, or None."""
    try:
        with open(path, "rb") as device:
            device.seek(LABEL_AT)
            label = device.read(LABEL_BYTES).rstrip(b"\0").decode()
    except (OSError, ValueError):
        return None
    pid = label[len(LABEL_PREFIX):]
    return int(pid) if label.startswith(LABEL_PREFIX) and pid.isdigit() else None


def remove_stale():
    """Devices of runs that were killed outright while they swapped."""
    for name in os.listdir("/sys/block"):
        number = name[len("zram"):]
        if not name.startswith("zram") or not number.isdigit():
            continue
        pid = _owner(f"/dev/{name}")
        if pid is None or os.path.exists(f"/proc/{pid}"):
            continue
        with contextlib.suppress(OSError, Unavailable):
            swapfile.swap_off(f"/dev/{name}")
            _write(_attribute(number, "reset"), "1")
            _write(f"{CONTROL}/hot_remove", number)
