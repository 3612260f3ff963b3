# SPDX-License-Identifier: MIT
"""Programs that read a file or nothing, compute, and write a file."""
import os

from case import HERE, Case, generate


def cases(args, work):
    full = not args.quick
    build = args.build
    gentext = os.path.join(build, "tests/programs/gentext")
    text_mb = args.sort_mb or (500 if full else 48)
    big = os.path.join(work, f"text-{text_mb}")
    small_mb = 40 if full else 2
    small = os.path.join(work, f"text-{small_mb}")
    packed = small + ".xz"
    csrc = os.path.join(work, "big.c")
    scale = "20" if full else "17"
    # Each thread of xz has its block of the text in memory, and its dictionary with a tree over it that is
    # hit at random for each byte: that much has to fit, or it takes hours.
    xz = ["xz", "-T2", f"--block-size={small_mb // 2}MiB",
          "--lzma2=preset=6,dict=1MiB" if full else "-9", "-c", small]
    make_small = generate(small, [gentext, str(small_mb * 1000000)])

    def make_packed():
        make_small()
        generate(packed, xz)()

    yield Case("sort", lambda out: ["sort", "-S", "900M", "--parallel=2", "-T", work, big],
               prepare=generate(big, [gentext, str(text_mb * 1000000)]), needs=("sort", gentext))
    yield Case("python3", lambda out: ["/usr/bin/python3", os.path.join(HERE, "walk.py"),
                                       "4000000" if full else "600000"],
               needs=("/usr/bin/python3",))
    yield Case("xz", lambda out: xz, prepare=make_small, needs=("xz", gentext))
    yield Case("unxz", lambda out: ["xz", "-d", "-T2", "-c", packed], prepare=make_packed,
               needs=("xz", gentext))
    yield Case("gcc", lambda out: ["gcc", "-O2", "-c", "-o", os.path.join(out, "big.o"), csrc],
               files=("big.o",), needs=("gcc",),
               prepare=generate(csrc, ["/usr/bin/python3", os.path.join(HERE, "genc.py"),
                                       "3000" if full else "250"]))
    for name in ("pagerank", "bfs"):
        program = os.path.join(build, "bench", name)
        yield Case(name, lambda out, program=program: [program, "--scale", scale] + args.graph,
                   needs=(program,))
    mtalloc = os.path.join(build, "tests/programs/mtalloc")
    yield Case("mtalloc", lambda out: [mtalloc, "600" if full else "96", "6" if full else "3"],
               needs=(mtalloc,))
