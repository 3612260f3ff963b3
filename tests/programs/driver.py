# SPDX-License-Identifier: MIT
"""For clients of ours that start a server under the engine and check what it answers."""
import atexit
import os
import socket
import subprocess
import sys
import time

import case


def fail(text):
    print(text, file=sys.stderr, flush=True)
    sys.exit(1)


def check(good, text):
    if not good:
        fail(text)


class Server:
    """A managed program that stays until it is told to stop; killed when the driver ends early."""

    def __init__(self, command, log, before=(), **kw):
        """before: words to put before the engine's command, such as one that changes the user."""
        self.name = command[0]
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(list(before) + case.prefix() + command, stdout=out,
                                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **kw)
        atexit.register(self.kill)

    def said(self):
        with open(self.log, errors="replace") as f:
            return " | ".join(f.read().splitlines()[-6:])

    def alive(self):
        status = self.child.poll()
        check(status is None, f"{self.name} ended with status {status}: {self.said()}")

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def ended(self, timeout=120):
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            return fail(f"{self.name} does not end: {self.said()}")


def wait_for(what, condition, server, timeout=120):
    end = time.monotonic() + timeout
    while not condition():
        server.alive()
        check(time.monotonic() < end, f"waited too long for {what}: {server.said()}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tool(command, log, **kw):
    """Runs a client program that is not managed."""
    with open(log, "ab") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False,
                                stdin=subprocess.DEVNULL, env=dict(os.environ), **kw).returncode
    if status:
        with open(log, errors="replace") as f:
            fail(f"{command[0]} ended with status {status}: " + " | ".join(f.read().splitlines()[-6:]))
