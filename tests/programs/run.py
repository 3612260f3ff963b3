#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real programs at 40 % of the memory they touch; output compared byte for byte.

Each program runs three times: natively; under `extmem run` with more budget than it can use
(which tells how much managed memory it touches, and how much it needs besides: sample.py);
and with --dram at that percentage of it.  Prints TAP, the figures behind the name.

The bound, for each process of the last run: resident managed memory <= budget + slack, and
RSS <= budget + what it needed besides with the ample budget + slack.  Slack is 1 % of the
budget or 4 MiB, whichever is larger.
"""
import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile

import sample

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20


class Skip(Exception):
    pass


class Case:
    """One program: command(out) gives argv; what it writes is in files."""

    def __init__(self, name, command, files=("stdout",), stdin=None, prepare=None, needs=()):
        self.name, self.command, self.files = name, command, files
        self.stdin, self.prepare, self.needs = stdin, prepare, needs


def environment():
    env = {k: v for k, v in os.environ.items() if not k.startswith("EXTMEM_")}
    env.update(LC_ALL="C", PYTHONHASHSEED="0", OMP_NUM_THREADS="2")
    return env


def run(case, prefix, out, native, timeout):
    """Returns (seconds, processes, problem or "")."""
    os.makedirs(out)
    stdin = open(case.stdin, "rb") if case.stdin else subprocess.DEVNULL
    with open(os.path.join(out, "stdout"), "wb") as stdout, \
            open(os.path.join(out, "stderr"), "wb") as stderr:
        status, seconds, processes = sample.run(
            prefix + case.command(out), native, stdin=stdin, stdout=stdout, stderr=stderr,
            env=environment(), timeout=timeout)
    if status == 0:
        return seconds, processes, ""
    with open(os.path.join(out, "stderr"), errors="replace") as said:
        tail = " | ".join(said.read().splitlines()[-4:])
    return seconds, processes, ("took too long" if status is None else f"exit status {status}") + \
        (": " + tail if tail else "")


def compare(case, native, managed):
    _, wrong, missing = filecmp.cmpfiles(native, managed, case.files, shallow=False)
    return [f"{name} differs from the native one" for name in wrong + missing]


def bound(ample, tight, budget):
    """What exceeds the bound, as texts."""
    slack = max(budget // 100, 4 * MIB)
    besides = max(p.other for p in ample.values())
    managed = max(p.managed for p in tight.values())
    total = max(p.total for p in tight.values())
    text = []
    if managed > budget + slack:
        text.append(f"bound: managed memory {managed / MIB:.1f} MiB > {(budget + slack) / MIB:.1f}")
    if total > budget + besides + slack:
        text.append(f"bound: RSS {total / MIB:.1f} MiB > "
                    f"{(budget + besides + slack) / MIB:.1f} (besides: {besides / MIB:.1f})")
    return text


def execute(case, args, work):
    for path in case.needs:
        if not os.path.exists(path) and not shutil.which(path):
            raise Skip(f"{path} is not there")
    if case.prepare:
        case.prepare()
    dirs = [os.path.join(work, f"{case.name}.{kind}") for kind in ("native", "ample", "tight")]

    def managed(out, budget):
        prefix = [args.extmem, "run", "--dram", str(budget), "--swap", work] + args.option + ["--"]
        return run(case, prefix, out, False, args.timeout)

    native_s, native, problem = run(case, [], dirs[0], True, args.timeout)
    if problem:
        raise Skip("natively: " + problem)
    touched = max(p.managed for p in native.values())
    ample_s, ample, problem = managed(dirs[1], 4 * touched + 256 * MIB)
    problems = ["ample budget: " + problem] if problem else compare(case, dirs[0], dirs[1])
    touched = max(p.managed for p in ample.values())
    budget = max(touched * args.percent // 100, 2 * MIB) // 4096 * 4096
    tight_s, tight, problem = managed(dirs[2], budget)
    problems += [problem] if problem else compare(case, dirs[0], dirs[2])
    problems += bound(ample, tight, budget)
    if not touched:
        problems.append("nothing was managed")
    peak = max(tight.values(), key=lambda p: p.total)
    for path in dirs:
        shutil.rmtree(path)
    return problems, (
        f"native {native_s:.1f} s, ample {ample_s:.1f} s, managed {tight_s:.1f} s; touches "
        f"{touched / MIB:.1f} MiB, budget {budget / MIB:.1f}, peak managed {peak.managed / MIB:.1f}, "
        f"peak RSS {peak.total / MIB:.1f} MiB")


def generate(path, command):
    def make():
        if not os.path.exists(path):
            with open(path + ".new", "wb") as out:
                subprocess.run(command, stdout=out, check=True)
            os.rename(path + ".new", path)
    return make


def cases(args, work):
    full = not args.quick
    build = args.build
    gentext = os.path.join(build, "tests/programs/gentext")
    text_mb = args.sort_mb or (500 if full else 48)
    big = os.path.join(work, f"text-{text_mb}")
    small_mb = 64 if full else 2
    small = os.path.join(work, f"text-{small_mb}")
    packed = small + ".xz"
    csrc = os.path.join(work, "big.c")
    scale = "20" if full else "17"
    make_small = generate(small, [gentext, str(small_mb * 1000000)])

    def make_packed():
        make_small()
        generate(packed, ["xz", "-9", "-T2", f"--block-size={small_mb // 2}MiB", "-c", small])()

    yield Case("sort", lambda out: ["sort", "-S", "900M", "--parallel=2", "-T", work, big],
               prepare=generate(big, [gentext, str(text_mb * 1000000)]), needs=("sort", gentext))
    yield Case("python3", lambda out: ["/usr/bin/python3", os.path.join(HERE, "walk.py"),
                                       "4000000" if full else "600000"],
               needs=("/usr/bin/python3",))
    yield Case("xz", lambda out: ["xz", "-9", "-T2", f"--block-size={small_mb // 2}MiB", "-c",
                                  small], prepare=make_small, needs=("xz", gentext))
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


def parse():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--build", help="build directory; default: $BUILD or build",
                   default=os.path.join(HERE, "..", "..", os.environ.get("BUILD", "build")))
    p.add_argument("--extmem", help="the command, default: in the build directory")
    p.add_argument("--quick", action="store_true", help="small inputs, minutes in all")
    p.add_argument("--only", help="names, separated by commas")
    p.add_argument("--percent", type=int, default=40)
    p.add_argument("--sort-mb", type=int, help="size of the file to sort")
    p.add_argument("--timeout", type=int, default=0, help="seconds for each run")
    p.add_argument("--option", action="append", default=[],
                   help="passed on to `extmem run` (--option=--policy --option=fifo)")
    p.add_argument("--work", help="directory for inputs, outputs and the swap file")
    args = p.parse_args()
    args.build = os.path.abspath(args.build)
    args.extmem = args.extmem or os.path.join(args.build, "extmem")
    args.timeout = args.timeout or (120 if args.quick else 3600)
    args.graph = []
    return args


def tell(n, case, args, work):
    try:
        problems, figures = execute(case, args, work)
    except Skip as why:
        print(f"ok {n} - {case.name} # SKIP {why}", flush=True)
        return True
    for p in problems:
        print(f"# {case.name}: {p}")
    print(f"{'not ok' if problems else 'ok'} {n} - {case.name}: {figures}", flush=True)
    return not problems


def main():
    args = parse()
    work = args.work or tempfile.mkdtemp(prefix="programs-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    os.makedirs(work, exist_ok=True)
    good, n = True, 0
    try:
        for case in cases(args, work):
            if args.only and case.name not in args.only.split(","):
                continue
            n += 1
            good = tell(n, case, args, work) and good
    finally:
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)
    print(f"1..{n}")
    return 0 if good else 1


sys.exit(main())
