# SPDX-License-Identifier: MIT
"""node: the heap of V8 comes in pieces of 256 KiB."""
import os

from case import HERE, Case


def cases(args, work):
    n = "40000" if args.quick else "300000"
    yield Case("node", lambda out: ["node", "--max-old-space-size=2000", os.path.join(HERE, "heap.js"), n,
                                    os.path.join(out, "buffers")],
               env={"EXTMEM_MIN_MAP": "256K"}, needs=("node",), heavy=True)
