# SPDX-License-Identifier: MIT
"""What a program to run looks like, and helpers for the files case_*.py that describe them.

Each case_NAME.py has cases(args, work), which yields objects of class Case.  args are those of
run.py; work is a directory for inputs that several runs share.
"""
import json
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20


class Skip(Exception):
    pass


class Case:
    """One program: command(out) gives argv; what it writes is in files.

    heavy    not among the small inputs, unless named with --only
    driver   command is a client of ours, which starts the program itself with prefix() and is not
             managed; it exits with 0 if all that it checked was right
    percent  of the memory it touches, when that is to be less than --percent
    env      variables to add
    touches  bytes that a process is known to touch.  For programs of which no process lives for long: sampling
             may meet none while it has managed memory, and would find nothing to take 40 % of.  For the
             same reason what they need besides is that of any process, with managed memory or not
    logs     of the files that it writes: those whose ends are shown when it fails
    """

    def __init__(self, name, command, files=("stdout",), stdin=None, prepare=None, needs=(),
                 heavy=False, driver=False, percent=100, env=None, logs=(),
                 touches=0):
        self.name, self.command, self.files = name, command, files
        self.stdin, self.prepare, self.needs = stdin, prepare, needs
        self.heavy, self.driver, self.percent, self.env = heavy, driver, percent, env or {}
        self.logs, self.touches = logs, touches


def prefix():
    """For a driver: what to put before the program's own command."""
    return json.loads(os.environ.get("PROGRAMS_PREFIX", "[]"))


def generate(path, command):
    """Returns a function that makes the file from what command prints, once."""
    def make():
        if not os.path.exists(path):
            with open(path + ".new", "wb") as out:
                subprocess.run(command, stdout=out, check=True)
            os.rename(path + ".new", path)
    return make
