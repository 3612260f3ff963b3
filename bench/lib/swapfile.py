# SPDX-License-Identifier: MIT
"""A swap file, on only while a run needs it, and settings of the kernel for a while."""
import os
import shutil
import subprocess

PREFIX = "extmem-bench-swap."
# Swap reads 2^value pages at a time.
PAGE_CLUSTER = "/proc/sys/vm/page-cluster"
# Above any swap the machine may have, so that the run swaps to this file.
PRIORITY = "32767"
MKSWAP_PATHS = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Unavailable(Exception):
    """The message says why there can be no swap here."""


def _tool(*command):
    program = shutil.which(command[0], path=MKSWAP_PATHS)
    if not program:
        raise Unavailable(f"there is no {command[0]}")
    done = subprocess.run([program, *command[1:]], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]}: {done.stdout.strip()}")


def active_paths():
    try:
        with open("/proc/swaps", encoding="utf-8") as lines:
            return [line.split()[0] for line in list(lines)[1:]]
    except OSError:
        return []


def make_swap(path, *options):
    _tool("mkswap", *options, path)


def swap_off(path):
    if path in active_paths():
        _tool("swapoff", path)


class Space:
    """A swap space that is on only between on() and off()."""

    def __init__(self, path):
        self.path = path
        self.is_on = False

    def on(self):
        # Set first: an interrupt right after the call must find it set.
        self.is_on = True
        try:
            _tool("swapon", "-p", PRIORITY, self.path)
        except Unavailable:
            self.is_on = False
            raise

    def off(self):
        if self.is_on:
            swap_off(self.path)
            self.is_on = False


class SwapFile(Space):
    """Use as a context manager: on() and off() in between, everything gone after."""

    def __init__(self, directory, size_bytes):
        super().__init__(os.path.join(directory, f"{PREFIX}{os.getpid()}"))
        self.size_bytes = size_bytes

    def __enter__(self):
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(fd, 0, self.size_bytes)
            finally:
                os.close(fd)
            make_swap(self.path)
        except OSError as error:
            self.remove()
            raise Unavailable(f"no swap file: {error}") from error
        except BaseException:
            self.remove()
            raise
        return self

    def remove(self):
        try:
            self.off()
        finally:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass

    def __exit__(self, *_):
        self.remove()


class Setting:
    """Sets a value of the kernel for a while; None leaves it as it is."""

    def __init__(self, path, value):
        self.path = path
        self.value = value
        self.before = None

    def __enter__(self):
        with open(self.path, encoding="ascii") as setting:
            before = setting.read().strip()
        if self.value is not None and str(self.value) != before:
            self._set(str(self.value))
            self.before = before
        return self

    def __exit__(self, *_):
        if self.before is not None:
            self._set(self.before)

    def _set(self, text):
        with open(self.path, "w", encoding="ascii") as setting:
            setting.write(text)


def remove_stale(directory):
    """Files of runs that were killed outright."""
    for name in os.listdir(directory):
        pid = name[len(PREFIX):]
        if name.startswith(PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            path = os.path.join(directory, name)
            try:
                swap_off(path)
                os.unlink(path)
            except (OSError, Unavailable):
                pass
