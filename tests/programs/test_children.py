#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""run.py leaves no process behind, neither when a program does nor when a signal ends it.

The program here has a child in a session of its own, whose parent has ended: a daemon.
"""
import os
import signal
import subprocess
import sys
import tempfile
import time

import children
import sample

HERE = os.path.dirname(os.path.abspath(__file__))
DAEMON = 'setsid sh -c "sleep 900 & echo \\$! >\\$1.new; mv \\$1.new \\$1" sh "$1"; exec sleep $2'


def daemon(path):
    """Waits for it; its process id."""
    while not os.path.exists(path):
        time.sleep(0.01)
    with open(path) as f:
        return int(f.read())


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rsplit(b") ", 1)[1][:1] != b"Z"
    except OSError:
        return False


def inner(path, seconds):
    children.adopt()
    status, _, seen = sample.run(["sh", "-c", DAEMON, "sh", path, seconds], True)
    return 0 if status == 0 and daemon(path) in seen else 1


def start(path, seconds):
    return subprocess.Popen([sys.executable, "-B", __file__, path, seconds])


def program_ends(path):
    with start(path, "0.5") as child:
        pid = daemon(path)
        return child.wait() == 0 and not runs(pid)


def signal_ends(path, number):
    with start(path, "900") as child:
        pid = daemon(path)
        before = runs(pid)
        child.send_signal(number)
        return child.wait() == 128 + number and before and not runs(pid)


def main():
    if len(sys.argv) > 1:
        return inner(*sys.argv[1:])
    tests = {"daemon of a program that has ended": program_ends}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        tests[f"ended by {number.name}"] = lambda path, number=number: signal_ends(path, number)
    bad = 0
    print(f"1..{len(tests)}")
    for n, (name, test) in enumerate(tests.items(), 1):
        with tempfile.TemporaryDirectory() as work:
            good = test(os.path.join(work, "pid"))
        bad += not good
        print(f"{'ok' if good else 'not ok'} {n} - {name}", flush=True)
    return bad > 0


sys.exit(main())
