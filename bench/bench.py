#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures programs natively, under Linux swap in a memory cgroup, and under extmem.

--zram adds swap to compressed memory.

All sides run in one go, interleaved, each repetition a process of its own, at the same
number of bytes.  Tables go to stdout, progress to stderr; --json writes a file as well.
Exit status: 0; 1 when a run failed or two sides computed different results (with
--strict also when a bar was missed); 2 for a wrong command line.
"""
import argparse
import json
import os
import shutil
import signal
import sys
import tempfile

sys.dont_write_bytecode = True  # nothing but what was asked for is written
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import benches  # noqa: E402
import cases  # noqa: E402
import disk  # noqa: E402
import places  # noqa: E402
import plot  # noqa: E402
import report  # noqa: E402
import runner  # noqa: E402
import units  # noqa: E402

LIMIT_NOTE = """\
Linux swap runs in a memory cgroup limited to the budget; that limit counts the program's
text, page tables and the page cache it fills as well, the budget of extmem only the
memory it manages.  "vs swap" is how many times as fast as swap, by the medians."""
ZRAM_NOTE = """\
With zram, the budget is divided into a limit for the program and one for its compressed data,
the first division tried with which it survives."""


def parse_args(argv):
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches, or all")
    parser.add_argument("--list", action="store_true", help="list the benches and exit")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one repetition")
    parser.add_argument("--reps", type=int, help="repetitions (default 3)")
    parser.add_argument("--case", metavar="TEXT", help="only cases whose label contains TEXT")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to FILE, and a plot of each "
                             "bench to FILE.NAME.svg")
    parser.add_argument("--build", default=os.path.join(places.REPOSITORY, "build"),
                        metavar="DIR", help="build directory (default: build)")
    parser.add_argument("--extmem", metavar="FILE",
                        help="the command (default: in the build directory)")
    parser.add_argument("--dir", default="/var/tmp", metavar="DIR",
                        help="where swap files and input go (default /var/tmp)")
    parser.add_argument("--page-cluster", metavar="N|best",
                        help="swap read-ahead of 2^N pages; best: 0, 3 and 5, the best counts "
                             "(default: as each bench has it, its best counts)")
    parser.add_argument("--zram", action="store_true",
                        help="measure swap to zram too, program and compressed data in one budget")
    parser.add_argument("--swap-size", type=units.parse_size, default=4 << 30, metavar="SIZE")
    parser.add_argument("--extmem-opt", action="append", default=[], metavar="OPT",
                        help="one more argument for extmem run, e.g. --extmem-opt=--policy=fifo")
    parser.add_argument("--no-disk", action="store_true", help="leave the raw disk figures out")
    parser.add_argument("--timeout", type=int, default=900, metavar="S", help="of one run")
    parser.add_argument("--strict", action="store_true", help="a missed bar is an error")
    args = parser.parse_args(argv)
    if args.reps is not None and args.reps < 1:
        parser.error("--reps: at least 1")
    if args.page_cluster not in (None, "best") and not args.page_cluster.isdigit():
        parser.error("--page-cluster: a number or best")
    if not args.list and not args.names:
        parser.error("name a bench, or all; --list shows them")
    return parser, args


def page_clusters(text):
    if text is None:
        return None
    return [0, 3, 5] if text == "best" else [int(text)]


def print_list():
    print(report.table([[bench.name, bench.title] for bench in benches.BENCHES], 2, indent=""))


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def progress_end():
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def print_header(machine, info, raw, with_zram):
    print(f"{info['processor']}, {info['processors']} processors, "
          f"{units.format_size(info['memory_bytes'])}, Linux {info['kernel']}, "
          f"load {info['load_average']:.2f}")
    print(report.disk_line(raw))
    if machine.swap_missing:
        print(f"The Linux swap side is NOT measured: {machine.swap_missing}")
    if machine.extmem_missing:
        print(f"The extmem side is NOT measured: {machine.extmem_missing}")
    print(LIMIT_NOTE)
    if with_zram:
        print(f"The zram side is NOT measured: {machine.zram_missing}" if machine.zram_missing
              else ZRAM_NOTE)


def run_bench(machine, bench, plan, repetitions, wanted):
    print(f"\n{bench.name}: {bench.title}", flush=True)
    progress(f"{bench.name}: preparing")
    results = []
    for case in bench.cases(plan):
        if wanted and wanted not in case.label:
            continue
        result = cases.run_case(machine, case, repetitions,
                                lambda text: progress(f"{bench.name}: {text}"))
        progress_end()
        print(report.case_text(result), flush=True)
        results.append(result)
    return results


def measure(args, selected, scratch):
    plan = benches.Plan(os.path.join(args.build, "bench"), scratch, args.quick,
                        page_clusters(args.page_cluster), args.zram)
    repetitions = args.reps or (1 if args.quick else 3)
    info = places.machine()
    progress("raw disk figures")
    raw_disk = disk.RawDisk(args.dir, (256 if args.quick else 1024) << 20, 2 if args.quick else 5)
    raw = {"unavailable": "left out"} if args.no_disk else raw_disk.measure()
    progress_end()
    everything = []
    with runner.Runner(args.extmem or places.find_extmem(args.build), args.dir, args.swap_size,
                       args.extmem_opt, args.timeout,
                       None if "unavailable" in raw else raw_disk.rate) as machine:
        if args.zram:
            machine.open_zram()
        print_header(machine, info, raw, args.zram)
        for bench in selected:
            everything.append((bench, run_bench(machine, bench, plan, repetitions,
                                                 args.case)))
    return everything, {"machine": info, "disk": raw, "repetitions": repetitions,
                        "quick": args.quick, "swap_missing": machine.swap_missing,
                        "zram_missing": machine.zram_missing,
                        "extmem_missing": machine.extmem_missing,
                        "benches": [{"name": bench.name, "title": bench.title,
                                     "cases": [report.case_json(one) for one in results]}
                                    for bench, results in everything]}


def on_signal(number, _):
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(argv):
    parser, args = parse_args(argv)
    if args.list:
        print_list()
        return 0
    try:
        selected = benches.select(args.names)
    except ValueError as error:
        parser.error(str(error))
    missing = places.missing_workloads(args.build)
    if missing:
        parser.error(f"{args.build}/bench has no {', '.join(missing)}: build first, or --build")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    scratch = tempfile.mkdtemp(prefix="extmem-bench.", dir=args.dir)
    try:
        everything, record = measure(args, selected, scratch)
    except KeyboardInterrupt:
        progress_end()
        print("bench.py: interrupted; swap and cgroup are removed", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(record, out, indent=1)
            out.write("\n")
        for bench, group in everything:
            with open(f"{args.json}.{bench.name}.svg", "w", encoding="utf-8") as out:
                out.write(plot.svg(bench.name, bench.title, group))
    results = [result for _, group in everything for result in group]
    passed, missed, unmeasured = report.count_bars(results)
    print(f"\nbars: {passed} passed, {missed} missed, {unmeasured} not measured")
    sound = all(map(report.is_sound, results))
    return 0 if sound and not (args.strict and missed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
