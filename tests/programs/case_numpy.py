# SPDX-License-Identifier: MIT
"""numpy, and Python processes that share and exchange arrays."""
import os

from case import HERE, Case

NEEDS = ("/usr/lib/python3/dist-packages/numpy",)


def cases(args, work):
    def python(script, n):
        return lambda out: ["/usr/bin/python3", "-B", os.path.join(HERE, script), n,
                            os.path.join(out, "data")]

    yield Case("numpy", python("matrices.py", "500" if args.quick else "1500"), needs=NEEDS)
    yield Case("multiprocessing", python("pool.py", "200000" if args.quick else "2000000"),
               needs=NEEDS, heavy=True)
