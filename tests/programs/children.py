# SPDX-License-Identifier: MIT
"""That no process started here outlives us, or the run that it belongs to.

Programs make daemons and put their processes into groups and sessions of their own.  So we are a
subreaper: whose parent ends becomes our child, and all that was started is below us.
"""
import ctypes
import os
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def adopt():
    """To be called first.  From then on the signals that end us do so by an exception, once."""
    def end(number, _):
        for n in ENDING:
            signal.signal(n, signal.SIG_IGN)
        sys.exit(128 + number)

    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    for number in ENDING:
        signal.signal(number, end)


def below(root):
    """The process ids of all descendants."""
    todo, seen = [root], []
    while todo:
        pid = todo.pop()
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as f:
                    found = [int(x) for x in f.read().split()]
                seen += found
                todo += found
        except OSError:
            pass
    return seen


def reap(but=()):
    """Of those that were adopted, who has ended."""
    with open(f"/proc/self/task/{os.getpid()}/children") as f:
        found = [int(x) for x in f.read().split()]
    for pid in found:
        if pid not in but:
            try:
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                pass


def end_all(seconds=30):
    """Kills until nobody is left.  Who forks meanwhile is found the next time, and so is whom the lists
    of /proc passed over, which they may while others end; wait(2) knows for certain."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in below(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)
