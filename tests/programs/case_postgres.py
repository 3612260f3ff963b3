# SPDX-License-Identifier: MIT
"""PostgreSQL: initdb, pgbench, large sorts and hash joins, kill -9 and recovery."""
import glob
import os
import sys

from case import HERE, Case


def cases(args, work):
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    program = found[-1] if found else "postgres"
    size = "small" if args.quick else "large"
    yield Case("postgres",
               lambda out: [sys.executable, "-B", os.path.join(HERE, "postgres_client.py"),
                            os.path.dirname(program), out, size],
               needs=(program, "setpriv"), heavy=True, driver=True,
               logs=("server.log", "pgbench.log"))
