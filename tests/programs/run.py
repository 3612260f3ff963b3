#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real programs at 40 % of the memory they touch; output compared byte for byte.

Each program runs three times: natively; under `extmem run` with more budget than it can use
(which tells how much managed memory it touches, and how much it needs besides: sample.py);
and with --dram at that percentage of it.  Prints TAP, the figures behind the name.

The bound, for each process of the last run: resident managed memory <= budget + slack, and
RSS <= budget + what it needed besides with the ample budget + slack, where it has managed memory
at all.  Slack is 1 % of the budget or 4 MiB, whichever is larger.

Which programs: the files case_*.py, see case.py.
"""
import argparse
import filecmp
import glob
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

import children
import sample
from case import HERE, MIB, Skip


def environment():
    env = {k: v for k, v in os.environ.items() if not k.startswith("EXTMEM_")}
    env.update(LC_ALL="C", PYTHONHASHSEED="0", OMP_NUM_THREADS="2")
    return env


def run(case, prefix, out, native, timeout):
    """Returns (seconds, processes, problem or "")."""
    os.makedirs(out)
    stdin = open(case.stdin, "rb") if case.stdin else subprocess.DEVNULL
    env, command = environment(), case.command(out)
    env.update(case.env)
    if case.driver:
        env["PROGRAMS_PREFIX"] = json.dumps(prefix)
    else:
        command = prefix + command
    with open(os.path.join(out, "stdout"), "wb") as stdout, \
            open(os.path.join(out, "stderr"), "wb") as stderr:
        status, seconds, processes = sample.run(
            command, native, stdin=stdin, stdout=stdout, stderr=stderr, env=env, timeout=timeout)
    if status == 0:
        return seconds, processes, ""
    with open(os.path.join(out, "stderr"), errors="replace") as said:
        tail = " | ".join(said.read().splitlines()[-4:])
    return seconds, processes, ("took too long" if status is None else f"exit status {status}") + \
        (": " + tail if tail else "")


def compare(case, native, managed):
    _, wrong, missing = filecmp.cmpfiles(native, managed, case.files, shallow=False)
    return [f"{name} differs from the native one" for name in wrong + missing]


def bound(case, ample, tight, budget):
    """What exceeds the bound, as texts."""
    slack = max(budget // 100, 4 * MIB)
    besides = max((p.other for p in ample.values() if p.managed or case.touches), default=0)
    managed = max(p.managed for p in tight.values())
    total = max((p.total for p in tight.values() if p.managed), default=0)
    text = []
    if managed > budget + slack:
        text.append(f"bound: managed memory {managed / MIB:.1f} MiB > {(budget + slack) / MIB:.1f}")
    if total > budget + besides + slack:
        text.append(f"bound: RSS {total / MIB:.1f} MiB > "
                    f"{(budget + besides + slack) / MIB:.1f} (besides: {besides / MIB:.1f})")
    return text


def counted(out):
    """The most managed memory that a process of the run in out had by its own statistics, which
    miss no moment, as sampling does when the machine is busy; but they are not there after SIGKILL."""
    most = 0
    for path in glob.glob(os.path.join(glob.escape(out), "extmem-stats*")):
        with open(path) as f:
            try:
                most = max(most, json.load(f)["resident_peak_bytes"])
            except ValueError:      # it was killed as it wrote
                pass
    return most


def show_logs(case, dirs):
    """What servers said last, in the runs that there were, as a comment in the TAP output."""
    for path in (os.path.join(d, name) for d in dirs[1:] for name in case.logs):
        if os.path.exists(path):
            print(f"# the end of {os.path.basename(os.path.dirname(path))}/{os.path.basename(path)}:")
            with open(path, errors="replace") as f:
                for line in f.read().splitlines()[-40:]:
                    print("#   " + line[:300])


def remove(dirs):
    for path in dirs:
        shutil.rmtree(path, ignore_errors=True)


def execute(case, args, work):
    for path in case.needs:
        if not os.path.exists(path) and not shutil.which(path):
            raise Skip(f"{path} is not there")
    if case.prepare:
        case.prepare()
    dirs = [os.path.join(work, f"{case.name}.{kind}") for kind in ("native", "ample", "tight")]
    remove(dirs)
    swap = os.path.join(work, "swap")

    def managed(out, budget):
        prefix = [args.extmem, "run", "--dram", str(budget), "--swap", swap] + args.option
        # What a driver starts may run as a user who cannot write there.
        if not case.driver:
            prefix += ["--stats", os.path.join(out, "extmem-stats")]
        prefix.append("--")
        return run(case, prefix, out, False, args.timeout)

    native_s, native, problem = run(case, [], dirs[0], True, args.timeout)
    if problem:
        raise Skip("natively: " + problem)
    touched = max(p.managed for p in native.values())
    ample_s, ample, problem = managed(dirs[1], 4 * touched + 256 * MIB)
    problems = ["ample budget: " + problem] if problem else compare(case, dirs[0], dirs[1])
    touched = case.touches or max([p.managed for p in ample.values()] + [counted(dirs[1])])
    percent = min(args.percent, case.percent)
    budget = max(touched * percent // 100, 2 * MIB) // 4096 * 4096
    tight_s, tight, problem = managed(dirs[2], budget)
    problems += [problem] if problem else compare(case, dirs[0], dirs[2])
    problems += bound(case, ample, tight, budget)
    if not touched:
        problems.append("nothing was managed")
    peak = max(p.managed for p in tight.values())
    rss = max((p.total for p in tight.values() if p.managed), default=0)
    if problems:
        show_logs(case, dirs)
    if not (problems and args.work):
        remove(dirs)
    return problems, (
        f"native {native_s:.1f} s, ample {ample_s:.1f} s, managed {tight_s:.1f} s; touches "
        f"{touched / MIB:.1f} MiB, budget {budget / MIB:.1f}, peak managed {peak / MIB:.1f}, "
        f"peak RSS {rss / MIB:.1f} MiB")


def cases(args, work):
    """Those of all files case_*.py, in the order of their names."""
    only = args.only.split(",") if args.only else []
    for path in sorted(glob.glob(os.path.join(HERE, "case_*.py"))):
        module = importlib.import_module(os.path.basename(path)[:-3])
        for case in module.cases(args, work):
            if case.name in only or (not only and not (case.heavy and args.quick)):
                yield case


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
    p.add_argument("--work", help="directory for inputs, outputs and the swap file; what a "
                   "failed program wrote stays there")
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
    children.adopt()
    work = args.work or tempfile.mkdtemp(prefix="programs-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    # Some servers run as a user of their own.
    os.makedirs(os.path.join(work, "swap"), exist_ok=True)
    os.chmod(work, 0o755)
    os.chmod(os.path.join(work, "swap"), 0o1777)
    good, n = True, 0
    try:
        for case in cases(args, work):
            n += 1
            good = tell(n, case, args, work) and good
    finally:
        children.end_all()
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)
    print(f"1..{n}")
    return 0 if good else 1


sys.exit(main())
