# SPDX-License-Identifier: MIT
"""SQLite with its database in memory: the shell, and the library in a threaded Python program."""
import os

from case import HERE, Case


def cases(args, work):
    rows = "15000" if args.quick else "250000"
    yield Case("sqlite", lambda out: ["/usr/bin/python3", "-B", os.path.join(HERE, "sqlite_memory.py"),
                                      rows, out],
               files=("stdout", "copy.db"), needs=("/usr/bin/python3",))
