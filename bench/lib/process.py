# SPDX-License-Identifier: MIT
"""Runs one process, or a server and its client, to the end and collects what is left."""
import contextlib
import dataclasses
import hashlib
import os
import signal
import subprocess
import tempfile
import threading

import timing

STDOUT_KEPT = 64 * 1024
STDERR_KEPT = 16 * 1024
READ_BYTES = 1 << 20


class RunFailed(Exception):
    """The process did not end well; the message says how."""


@dataclasses.dataclass
class Sample:
    wall_s: float
    peak_rss_bytes: int          # not less than this Python's own: it is the one that forks
    stdout: str                  # its beginning; of the client when there is one
    stdout_digest: str
    stderr: str                  # its end
    stats: dict = None           # of extmem
    zram: dict = None            # most memory that it took, and for how much data


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


def _end_of(errors):
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - STDERR_KEPT))
    return errors.read().decode(errors="replace")


class _Process:
    """A process in a session of its own, killed with all of it when it has to go."""

    def __init__(self, command, env, cwd, stdout):
        self.errors = tempfile.TemporaryFile()
        self.usage = None
        try:
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout,
                                          stderr=self.errors, env=env, cwd=cwd,
                                          start_new_session=True)
        except BaseException:
            self.errors.close()
            raise

    def wait(self):
        _, status, self.usage = os.wait4(self.popen.pid, 0)
        self.popen.returncode = os.waitstatus_to_exitcode(status)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    def clean(self):
        with uninterrupted():
            self.kill()
            if self.popen.returncode is None:
                self.popen.wait()
            if self.popen.stdout:
                self.popen.stdout.close()
            self.errors.close()


def run_process(command, env=None, timeout_s=900, cwd=None, client=None):
    """Starts the command; nothing of it survives this call.  A `client` is a second command
    that talks to the first, a server, and tells it to end; its output is the result."""
    with contextlib.ExitStack() as exits:
        start = timing.now_s()
        processes = []

        def launch(words, environment, stdout):
            processes.append(_Process(words, environment, cwd, stdout))
            exits.callback(processes[-1].clean)

        launch(command, env, subprocess.DEVNULL if client else subprocess.PIPE)
        if client:
            launch(client, None, subprocess.PIPE)
        expired = threading.Event()

        def expire():
            expired.set()
            for process in processes:
                process.kill()

        alarm = threading.Timer(timeout_s, expire)
        alarm.start()
        exits.callback(alarm.cancel)
        stdout, digest = _drain(processes[-1].popen.stdout)
        failed = None
        for process in reversed(processes):
            process.wait()
            if process.popen.returncode and not failed:
                failed = process
                processes[0].kill()  # a server that nobody is left to end
        wall_s = timing.now_s() - start
        if expired.is_set():
            raise RunFailed(f"ended after {timeout_s} s without a result")
        if failed:
            raise RunFailed(describe_failure(failed.popen.returncode, _end_of(failed.errors)))
        return Sample(wall_s, processes[0].usage.ru_maxrss * 1024, stdout, digest,
                      _end_of(processes[0].errors))


def describe_failure(code, stderr):
    how = (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")
    lines = stderr.strip().splitlines()
    return how + (f": {lines[-1]}" if lines else "")
