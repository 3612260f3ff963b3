# SPDX-License-Identifier: MIT
"""The demonstration that demo.sh starts: three runs of PageRank and what they show."""
import argparse
import os
import signal
import sys

import places
import report
import runner
import units
from timing import parse_timing

MIB = 1 << 20
ITERATIONS = 5
SWAP_ATTEMPTS = 3
SWAP_BYTES = 2 << 30


def say(text=""):
    print(text, flush=True)


def summary(sample):
    times = parse_timing(sample.stderr)
    return {"build": times["generate_s"] + times["build_s"], "kernel": times["kernel_s"],
            "data": int(times["data_bytes"])}


def checksum(sample):
    return next((line.split()[1] for line in sample.stdout.splitlines()
                 if line.startswith("checksum ")), "none")


def run_native(machine, command):
    say("1. With all the memory it wants: this is how fast it can be, and what it computes.")
    return machine.run(runner.Variant("in memory", "native"), command, None)


def run_swap(machine, command, budget):
    say("2. With half the memory under Linux swap: a cgroup limit and a swap file.")
    if machine.swap_missing:
        say(f"   Left out: {machine.swap_missing}.")
        return None
    for _ in range(SWAP_ATTEMPTS):
        try:
            return machine.run(runner.Variant("Linux swap", "swap"), command, budget)
        except runner.OutOfMemory:
            say("   The kernel's OOM killer ended it although swap was free; again.")
        except runner.RunFailed as failure:
            say(f"   It failed: {failure}.")
            return None
    return None


def run_extmem(machine, command, budget):
    say("3. With half the memory under extmem: the same program file, no root, stock kernel.")
    say(f"   extmem run --dram {budget // MIB}M -- {' '.join(map(str, command))}")
    if machine.extmem_missing:
        raise runner.RunFailed(machine.extmem_missing)
    return machine.run(runner.Variant("extmem", "extmem"), command, budget)


def print_table(samples):
    base = summary(samples["in memory"])["kernel"]
    rows = [["", "PageRank", "of in-memory", "graph build", "peak RSS", "checksum"]]
    for name, sample in samples.items():
        if sample is None:
            rows.append([name, "no result"])
            continue
        times = summary(sample)
        rows.append([name, units.format_time(times["kernel"]),
                     f"{times['kernel'] / base:.1f} × the time", units.format_time(times["build"]),
                     units.format_size(sample.peak_rss_bytes), checksum(sample)])
    say()
    say(report.table(rows))


def print_stats(stats):
    if not stats:
        say("extmem wrote no statistics.")
        return
    say("\nWhat extmem counted (--stats):")
    rows = []
    for label, group, key in (
            ("faults: first touch of a page", "faults", "first_touch"),
            ("faults: read from the swap file", "faults", "major"),
            ("faults: found prefetched", "faults", "prefetch_hit"),
            ("faults: first write to a clean page", "faults", "write_protect"),
            ("pages read, prefetched ones included", "pages", "in"),
            ("pages prefetched", "prefetch", "pages"),
            ("  of which used", "prefetch", "used"),
            ("pages written", "pages", "out"),
            ("pages dropped clean, without a write", "pages", "dropped_clean")):
        rows.append([label, f"{stats[group][key]:,}"])
    for label, key in (("bytes read", "bytes_read"), ("bytes written", "bytes_written")):
        rows.append([label, units.format_size(stats["io"][key])])
    say(report.table(rows))


def conclude(samples):
    """Returns the exit status: computing something else is the one failure."""
    sums = {checksum(sample) for sample in samples.values() if sample}
    if len(sums) != 1:
        say("\nThe checksums DIFFER: that is a bug.")
        return 1
    say("\nAll runs computed the same ranks.")
    if samples["Linux swap"]:
        ratio = summary(samples["Linux swap"])["kernel"] / summary(samples["extmem"])["kernel"]
        say(f"At half the memory PageRank was {ratio:.1f} times as fast under extmem as under "
            "Linux swap.")
    return 0


def show(args, machine):
    command = [os.path.join(args.build, "bench", "pagerank"), "--scale", args.scale,
               "--iterations", ITERATIONS]
    say(f"PageRank on a graph of {1 << args.scale:,} vertices, an ordinary OpenMP program.")
    native = run_native(machine, command)
    budget = summary(native)["data"] // 2 // MIB * MIB
    say(f"   It works on {units.format_size(summary(native)['data'])}; "
        f"from here on it gets {units.format_size(budget)}.")
    samples = {"in memory": native, "Linux swap": run_swap(machine, command, budget),
               "extmem": run_extmem(machine, command, budget)}
    print_table(samples)
    print_stats(samples["extmem"].stats)
    return conclude(samples)


def interrupt(*_):
    raise KeyboardInterrupt


def main(argv):
    parser = argparse.ArgumentParser(prog="demo.sh")
    parser.add_argument("--build", required=True)
    parser.add_argument("--scale", type=int, default=20)
    parser.add_argument("--dir", default="/var/tmp")
    args = parser.parse_args(argv)
    if not os.path.exists(os.path.join(args.build, "bench", "pagerank")):
        print(f"demo.sh: {args.build}/bench/pagerank is not built (it needs OpenMP)",
              file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        with runner.Runner(places.find_extmem(args.build), args.dir, SWAP_BYTES,
                           timeout_s=120) as machine:
            return show(args, machine)
    except runner.RunFailed as failure:
        print(f"demo.sh: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo.sh: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
