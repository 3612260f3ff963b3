# SPDX-License-Identifier: MIT
"""Allocators that are preloaded with extmem's library, before it and after it."""
import os

from case import Case

DIRECTORY = "/usr/lib/x86_64-linux-gnu"
LIBRARIES = ("libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc_minimal.so.4")


def cases(args, work):
    mtalloc = os.path.join(args.build, "tests/programs/mtalloc")
    size = ["96", "3"] if args.quick else ["600", "4"]
    for library in LIBRARIES:
        path = os.path.join(DIRECTORY, library)
        name = library[3:].split(".")[0].split("_")[0]
        # Under extmem $LD_PRELOAD is its library, natively nothing.
        for order, value in (("first", path + ":$LD_PRELOAD"), ("last", "$LD_PRELOAD:" + path)):
            yield Case(f"{name}-{order}",
                       lambda out, value=value: ["sh", "-c", f'LD_PRELOAD="{value}" exec "$@"', "sh",
                                                 mtalloc] + size,
                       needs=(mtalloc, path), heavy=True)
