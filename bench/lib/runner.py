# SPDX-License-Identifier: MIT
"""Runs one whole process the way a variant wants it and collects what it leaves."""
import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import threading

import memlimit
import swapfile
import timing

STDOUT_KEPT = 64 * 1024
STDERR_KEPT = 16 * 1024
READ_BYTES = 1 << 20


class RunFailed(Exception):
    """The process did not end well; the message says how."""


class OutOfMemory(RunFailed):
    """The kernel's OOM killer ended it within its limit.  Seen with Linux 6.18 and cgroup v1
    with gigabytes of swap free: reclaim returns without having scanned anything, and the
    charge gives up.  Why it does is not known; limits below 100 MiB fare worst."""


@dataclasses.dataclass
class Variant:
    name: str
    kind: str                    # native, swap, extmem
    command: list = None         # instead of the case's own
    extmem_args: tuple = ()
    page_cluster: int = None     # of swap; None: as the machine has it


@dataclasses.dataclass
class Sample:
    wall_s: float
    peak_rss_bytes: int          # not less than this Python's own: it is the one that forks
    stdout: str                  # its beginning
    stdout_digest: str
    stderr: str                  # its end
    stats: dict = None           # of extmem


@contextlib.contextmanager
def uninterrupted():
    """Cleaning up is short and must be complete: a second Ctrl-C waits."""
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _drain(stream):
    digest = hashlib.blake2b(digest_size=16)
    kept = b""
    while True:
        data = stream.read(READ_BYTES)
        if not data:
            return kept.decode(errors="replace"), digest.hexdigest()
        digest.update(data)
        if len(kept) < STDOUT_KEPT:
            kept += data[:STDOUT_KEPT - len(kept)]


def _kill_session(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_process(command, env=None, timeout_s=900, cwd=None):
    """Starts the command in a session of its own; nothing of it survives this call."""
    with tempfile.TemporaryFile() as errors:
        start = timing.now_s()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=errors, env=env, cwd=cwd, start_new_session=True)
        expired = threading.Event()

        def expire():
            expired.set()
            _kill_session(process)

        alarm = threading.Timer(timeout_s, expire)
        alarm.start()
        try:
            stdout, digest = _drain(process.stdout)
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = timing.now_s() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            alarm.cancel()
            with uninterrupted():
                _kill_session(process)
                if process.returncode is None:
                    process.wait()
                process.stdout.close()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - STDERR_KEPT))
        stderr = errors.read().decode(errors="replace")
    if expired.is_set():
        raise RunFailed(f"ended after {timeout_s} s without a result")
    if process.returncode:
        raise RunFailed(describe_failure(process.returncode, stderr))
    return Sample(wall_s, usage.ru_maxrss * 1024, stdout, digest, stderr)


def describe_failure(code, stderr):
    how = (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")
    lines = stderr.strip().splitlines()
    return how + (f": {lines[-1]}" if lines else "")


class Runner:
    """The sides to measure.  `swap_missing` / `extmem_missing` say why one is not there."""

    def __init__(self, extmem, directory, swap_bytes, extmem_args=(), timeout_s=900):
        self.extmem = extmem
        self.directory = directory
        self.swap_bytes = swap_bytes
        self.extmem_args = tuple(extmem_args)
        self.timeout_s = timeout_s
        self.swap_missing = None
        self.extmem_missing = None if extmem else "there is no extmem in the build directory"
        self._swap = None
        self._exits = contextlib.ExitStack()

    def __enter__(self):
        self.clean_stale()
        try:
            self._open_swap()
        except (memlimit.Unavailable, swapfile.Unavailable) as missing:
            self.swap_missing = str(missing)
        return self

    def __exit__(self, *_):
        with uninterrupted():
            self._exits.close()

    def clean_stale(self):
        if os.geteuid() == 0:
            swapfile.remove_stale(self.directory)
            memlimit.remove_stale()

    def _open_swap(self):
        """Tries everything once, so that a side that cannot run is known at the start."""
        group = memlimit.Group(1 << 30)
        group.remove()
        swap = swapfile.SwapFile(self.directory, self.swap_bytes)
        self._exits.callback(swap.remove)
        swap.__enter__()
        self._swap = swap
        swap.on()
        swap.off()

    def missing(self, variant):
        """Why the variant cannot run here, or None."""
        if variant.kind == "swap":
            return self.swap_missing
        return self.extmem_missing if variant.kind == "extmem" else None

    def run(self, variant, command, budget_bytes, env=None):
        command = [str(word) for word in (variant.command or command)]
        full_env = dict(os.environ, **(env or {}))
        if variant.kind == "swap":
            return self._run_swap(variant, command, budget_bytes, full_env)
        if variant.kind == "extmem":
            return self._run_extmem(variant, command, budget_bytes, full_env)
        return run_process(command, full_env, self.timeout_s)

    def _run_swap(self, variant, command, budget_bytes, env):
        with contextlib.ExitStack() as undo:
            undo.enter_context(swapfile.PageCluster(variant.page_cluster))
            group = memlimit.Group(budget_bytes)

            # The group goes first: its pages have to be off the swap file before that is.
            def clean():
                with uninterrupted():
                    try:
                        group.remove()
                    finally:
                        self._swap.off()

            undo.callback(clean)
            self._swap.on()
            try:
                return run_process(group.wrap(command), env, self.timeout_s)
            except RunFailed as failure:
                if group.oom_kills():
                    raise OutOfMemory("killed by the kernel for want of memory") from failure
                raise

    def _run_extmem(self, variant, command, budget_bytes, env):
        handle, stats_path = tempfile.mkstemp(prefix="extmem-bench-stats.")
        os.close(handle)
        try:
            sample = run_process(
                [self.extmem, "run", "--dram", str(budget_bytes), "--swap", self.directory,
                 "--stats", stats_path, *self.extmem_args, *variant.extmem_args, "--", *command],
                env, self.timeout_s)
            sample.stats = read_stats(stats_path)
            return sample
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stats_path)
            remove_child_stats(stats_path)


def read_stats(path):
    """None when the program wrote none: the figures are a by-product."""
    try:
        with open(path, encoding="utf-8") as text:
            return json.load(text)
    except (OSError, ValueError):
        return None


def remove_child_stats(path):
    """Children of the program write their own file, PATH.PID."""
    directory, base = os.path.split(path)
    for name in os.listdir(directory):
        if name.startswith(base + ".") and name[len(base) + 1:].isdigit():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
