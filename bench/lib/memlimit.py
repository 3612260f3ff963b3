# SPDX-License-Identifier: MIT
"""A memory cgroup with a limit, version 1 or 2, made for one run and removed after it."""
import contextlib
import errno
import os
import signal
import threading
import time

PREFIX = "extmem-bench-"


class Unavailable(Exception):
    """The message says why there can be no limit here."""


def find_hierarchy(mounts="/proc/self/mounts"):
    """(version, mount point) of the memory controller."""
    with open(mounts, encoding="utf-8") as lines:
        entries = [line.split() for line in lines]
    for entry in entries:
        if entry[2] == "cgroup" and "memory" in entry[3].split(","):
            return 1, entry[1]
    for entry in entries:
        if entry[2] == "cgroup2":
            with open(os.path.join(entry[1], "cgroup.controllers"), encoding="ascii") as names:
                if "memory" in names.read().split():
                    return 2, entry[1]
    raise Unavailable("no memory cgroup is mounted")


def _write(path, text):
    with open(path, "w", encoding="ascii") as out:
        out.write(text)


class Group:
    def __init__(self, limit_bytes):
        if os.geteuid() != 0:
            raise Unavailable("making a cgroup and adding swap take root")
        self.version, mount = find_hierarchy()
        self.path = os.path.join(mount, f"{PREFIX}{os.getpid()}")
        try:
            if self.version == 2:
                _write(os.path.join(mount, "cgroup.subtree_control"), "+memory")
            os.mkdir(self.path)
            name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
            _write(os.path.join(self.path, name), str(limit_bytes))
        except OSError as error:
            self.remove()
            raise Unavailable(f"cannot make a memory cgroup: {error}") from error

    def flush_statistics(self):
        with open(os.path.join(self.path, "memory.stat"), "rb") as text:
            text.read()

    def kill(self):
        with open(os.path.join(self.path, "cgroup.procs"), encoding="ascii") as pids:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def wrap(self, command):
        """The command, put into the group before it starts."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"',
                os.path.join(self.path, "cgroup.procs"), *command]

    def peak_bytes(self):
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        try:
            with open(os.path.join(self.path, name), encoding="ascii") as value:
                return int(value.read())
        except OSError:
            return None

    def oom_kills(self):
        """How often the kernel's OOM killer struck in the group."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        try:
            with open(os.path.join(self.path, name), encoding="ascii") as lines:
                fields = dict(line.split() for line in lines)
        except (OSError, ValueError):
            return 0
        return int(fields.get("oom_kill", 0))

    def remove(self):
        remove_group(self.path)


class Watch(threading.Thread):
    """Looks at a group every so often while a process runs in it.  Use as a context manager.

    Reclaim in a group goes by statistics that the kernel sums up every two seconds.  With those of
    before it may not look at a single page, and the OOM killer is called with all swap free (seen
    with Linux 6.18 and cgroup v1: GNU sort at half its memory, five times of five).  Reading
    memory.stat sums them up at once; with that, nine of nine survived.
    """

    def __init__(self, group, look=None):
        super().__init__(daemon=True)
        self.group = group
        self.look = look
        self.interval_s = 0.01 if look else 0.05
        self._end = threading.Event()

    def run(self):
        while not self._end.wait(self.interval_s):
            with contextlib.suppress(OSError):
                self.group.flush_statistics()
                if self.look:
                    self.look()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()


def remove_group(path):
    """The last process may take a moment to leave."""
    for _ in range(100):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.05)
    raise OSError(errno.EBUSY, "cgroup still has processes", path)


def remove_stale():
    """Groups of runs that were killed outright."""
    try:
        _, mount = find_hierarchy()
        names = os.listdir(mount)
    except (Unavailable, OSError):
        return
    for name in names:
        pid = name[len(PREFIX):]
        if name.startswith(PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            try:
                os.rmdir(os.path.join(mount, name))
            except OSError:
                pass
