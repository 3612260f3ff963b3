# SPDX-License-Identifier: MIT
"""redis-server: our verifying client and redis-benchmark, saves under load, restarts."""
import os
import sys

from case import HERE, Case


def cases(args, work):
    size = "4000" if args.quick else "80000"
    yield Case("redis", lambda out: [sys.executable, "-B", os.path.join(HERE, "redis_client.py"), out,
                                     "--keys", size],
               needs=("redis-server", "redis-benchmark"), driver=True,
               logs=("server.log",))
