# SPDX-License-Identifier: MIT
"""The benches by name: programs, sizes, variants and the bars they are held to."""
import dataclasses
import json
import os
import subprocess
import sys
import typing

import units
from cases import Bar, Case, Metric
from runner import Variant
from timing import parse_timing

MIB = 1 << 20
GEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "gen.py")


@dataclasses.dataclass
class Plan:
    """What the command line decided."""
    programs: str                  # the directory of the workloads
    scratch: str                   # for generated input
    quick: bool = False
    page_clusters: list = None     # of swap; None: as each bench prefers

    def program(self, name):
        return os.path.join(self.programs, name)

    def swap_variants(self, preferred=(None,)):
        clusters = self.page_clusters
        if clusters is None:
            clusters = preferred[:1] if self.quick else preferred
        return [Variant("swap" if cluster is None else f"swap, page-cluster {cluster}", "swap",
                        page_cluster=cluster) for cluster in clusters]

    def three_sides(self, preferred=(None,)):
        return [Variant("native", "native"), *self.swap_variants(preferred),
                Variant("extmem", "extmem")]


@dataclasses.dataclass
class Bench:
    name: str
    title: str
    cases: typing.Callable         # Plan -> [Case]


def from_json(key):
    return lambda sample: float(json.loads(sample.stdout)[key])


def from_timing(*keys):
    return lambda sample: sum(parse_timing(sample.stderr)[key] for key in keys)


WALL = Metric("whole process", lambda sample: sample.wall_s)
# What all threads do at the pace of the slowest: where one thread's share stays in memory, its
# touches alone would outnumber those of all others a thousand times.
TOUCHES = Metric("touches", from_json("even_touches_per_s"), higher_is_better=True, unit="rate")
FAULT = Metric("fault", lambda sample: from_json("ns_per_page")(sample) / 1e9)
KERNEL = Metric("computation", from_timing("kernel_s"))
BUILD = Metric("graph build", from_timing("generate_s", "build_s"))


# --- minor faults ---------------------------------------------------------------

def _minor_case(plan, operation, threads):
    pages = 8192 if plan.quick else 32768
    loop = ["--op", operation, "--threads", threads, "--pages", pages, "--stride", 16]
    bare = [plan.program("bare"), *loop]
    fill = "zeropage" if operation == "read" else "copy"
    variants = [
        Variant("native", "native"),
        Variant("bare upcall, zeropage", "native", bare),
        Variant("bare upcall, copy", "native", [*bare, "--fill", "copy"]),
        Variant("extmem", "extmem"),
        Variant("bare thread", "native", [*bare, "--mode", "thread", "--fill", fill]),
        Variant("extmem thread", "extmem", extmem_args=("--delivery", "thread")),
    ]
    bars = [Bar("fault", "extmem", "bare upcall, zeropage", at_most=1.2),
            Bar("fault", "extmem", "extmem thread", at_least=8)]
    label = f"first {operation}, {threads} thread" + ("s" if threads > 1 else "")
    # Nothing is to be evicted: the budget holds whatever is mapped around each touch.
    budget = 2 * pages * 16 * 4096 * threads
    return Case(label, [plan.program("minorfault"), *loop], variants, [FAULT], bars, budget)


def minor(plan):
    return [_minor_case(plan, "read", 1), _minor_case(plan, "write", 1),
            _minor_case(plan, "read", 2)]


# --- system calls without managed memory --------------------------------------------

def calls(plan):
    """A call that does not concern extmem; the bar is 25 ns on top of native."""
    def metric(name):
        return Metric(name, lambda sample: from_json(f"{name}_ns")(sample) / 1e9)

    names = ("getppid", "read", "write")
    return [Case("calls with no pointer into managed memory",
                 [plan.program("calls"), 300 if plan.quick else 2000],
                 [Variant("native", "native"), Variant("extmem", "extmem")],
                 [metric(name) for name in names], [], 64 * MIB)]


# --- touches of a memory twice the budget -----------------------------------------

def _touch_cases(plan, pattern, preferred, bars, extra=()):
    """One case for each number of threads in `bars`: {threads: at least so many times as fast as
    swap, or None}."""
    size = (256 if plan.quick else 1024) * MIB
    seconds, warmup = (2, 1) if plan.quick else (5, 3)
    result = []
    for threads, at_least in bars.items():
        command = [plan.program("touch"), "--pattern", pattern, "--bytes", size,
                   "--threads", threads, "--seconds", seconds, "--warmup", warmup,
                   "--verify", "sample", *extra]
        label = (f"{pattern}, {threads} thread" + ("s" if threads > 1 else "") +
                 f", {units.format_size(size)} touched")
        bar = [Bar("touches", "extmem", "swap", at_least=at_least)] if at_least else []
        result.append(Case(label, command, plan.three_sides(preferred), [TOUCHES], bar,
                           size // 2))
    return result


def seq_read(plan):
    return _touch_cases(plan, "seq-read", (3, 0, 5), {1: 6, 8: 1.5})


def seq_write(plan):
    return _touch_cases(plan, "seq-write", (3, 0, 5), {1: 3, 8: 1.5})


def rand_read(plan):
    return _touch_cases(plan, "rand-read", (0, 3), {1: 1.0, 2: 1.1, 8: 1.3, 32: 1.2})


def rand_write(plan):
    return _touch_cases(plan, "rand-write", (0, 3), {1: 1.1, 2: 1.1, 8: 1.3, 32: 1.3})


def streams(plan):
    return [case for pattern in ("back", "stride=3", "two-streams")
            for case in _touch_cases(plan, pattern, (3, 5), {1: 2})]


def hot(plan):
    return [case for writes in (0, 20)
            for case in _touch_cases(plan, "hot", (0, 3), {1: 1.3, 8: 1.3},
                                     ("--writes", writes))]


def mmapbench(plan):
    return [case for pattern in ("seq-write", "rand-write", "hot")
            for case in _touch_cases(plan, pattern, (0, 3), dict.fromkeys((1, 2, 4, 8, 16), 1.2),
                                     ("--writes", 100))]


# --- programs that fit their budget -------------------------------------------------

def fits(plan):
    scale, iterations = (19, 10) if plan.quick else (21, 20)
    touches = (50 if plan.quick else 200) * 1000 * 1000
    sides = [Variant("native", "native"), Variant("extmem", "extmem")]

    def bars(*metrics):
        return [Bar(name, "extmem", "native", at_most=1.02) for name in metrics]

    graph = [plan.program("pagerank"), "--scale", scale, "--iterations", iterations]
    touch = [plan.program("touch"), "--bytes", 256 * MIB, "--touches", touches,
             "--threads", 2, "--pattern"]
    return [
        Case(f"PageRank, scale {scale}", graph, sides, [KERNEL, WALL],
             bars("computation", "whole process"), lambda native: 2 * native.peak_rss_bytes,
             same_output=True),
        Case("sequential touches, 256 MiB", [*touch, "seq-read"], sides, [TOUCHES, WALL],
             bars("touches", "whole process"), 512 * MIB),
        Case("random touches, 256 MiB, every fifth a write",
             [*touch, "rand-read", "--writes", 20], sides, [TOUCHES, WALL],
             bars("touches", "whole process"), 512 * MIB),
    ]


# --- graphs at half the memory --------------------------------------------------------

def _share_of_data(native, percent):
    return int(parse_timing(native.stderr)["data_bytes"]) * percent // 100 // MIB * MIB


def _half_of_data(native):
    return _share_of_data(native, 50)


def _graph_case(plan, program, iterations, at_least=None):
    scale = 20 if plan.quick else 22
    command = [plan.program(program), "--scale", scale, "--iterations", iterations]
    bars = [Bar("computation", "extmem", "swap", at_least=at_least)] if at_least else []
    return [Case(f"scale {scale}, {iterations} iterations, half the memory", command,
                 plan.three_sides((3, 5)), [KERNEL, BUILD], bars, _half_of_data,
                 same_output=True)]


def pagerank(plan):
    return _graph_case(plan, "pagerank", 3 if plan.quick else 10, 2)


def bfs(plan):
    return _graph_case(plan, "bfs", 1 if plan.quick else 4)


# --- table look-ups -------------------------------------------------------------------

def lookups(plan):
    points, number = (6000, 200000) if plan.quick else (20000, 1000000)
    command = [plan.program("lookup"), "--points", points, "--lookups", number, "--threads", 2]
    return [Case(f"{number} look-ups by 2 threads, 40 % of the memory", command,
                 plan.three_sides((0, 3)), [KERNEL, BUILD],
                 [Bar("computation", "extmem", "swap", at_least=1.2)],
                 lambda native: _share_of_data(native, 40), same_output=True)]


# --- real programs ----------------------------------------------------------------------

def _generate(plan, name, *args):
    path = os.path.join(plan.scratch, name)
    if not os.path.exists(path):
        with open(path, "wb") as out:
            subprocess.run([sys.executable, GEN, *map(str, args)], stdout=out, check=True)
    return path


def _half_of_rss(native):
    return native.peak_rss_bytes // 2 // MIB * MIB


def _forty_percent(native):
    return native.peak_rss_bytes * 2 // 5 // MIB * MIB


def sort(plan):
    size = (60 if plan.quick else 200) * MIB
    path = _generate(plan, "lines.txt", "lines", "--bytes", size)
    command = ["sort", "-S", 4 * size, "--parallel=2", "-T", plan.scratch, path]
    return [Case(f"{units.format_size(size)} of random lines, half the memory", command,
                 plan.three_sides((3,)), [WALL],
                 [Bar("whole process", "extmem", "swap", at_least=1.5)], _half_of_rss,
                 same_output=True, env={"LC_ALL": "C"})]


def gcc(plan):
    functions = 200 if plan.quick else 1000
    path = _generate(plan, "large.c", "c", "--functions", functions)
    command = ["gcc", "-w", "-O2", "-S", "-o", "-", path]
    return [Case(f"-O2 on {functions} generated functions, 40 % of the memory", command,
                 plan.three_sides((3,)), [WALL], [], _forty_percent, same_output=True)]


BENCHES = [
    Bench("minor", "first touch of a page: the fault itself, nothing read or written", minor),
    Bench("calls", "system calls that do not concern extmem: what the hook adds", calls),
    Bench("seq-read", "sequential reads of twice the budget", seq_read),
    Bench("seq-write", "sequential writes of twice the budget", seq_write),
    Bench("rand-read", "random reads of twice the budget", rand_read),
    Bench("rand-write", "random writes of twice the budget", rand_write),
    Bench("streams", "backwards, every third page, two streams", streams),
    Bench("hot", "nine touches of ten to a tenth of the pages, reads and every fifth a write", hot),
    Bench("mmapbench", "sequential, random and hot updates with 1 to 16 threads", mmapbench),
    Bench("fits", "programs that fit their budget", fits),
    Bench("pagerank", "PageRank on a Kronecker graph", pagerank),
    Bench("bfs", "breadth-first search on a Kronecker graph", bfs),
    Bench("lookups", "table look-ups in the manner of XSBench", lookups),
    Bench("sort", "GNU sort", sort),
    Bench("gcc", "the C compiler", gcc),
]


def select(names):
    """Benches by name, "all" for all; ValueError names what is unknown."""
    known = {bench.name: bench for bench in BENCHES}
    if "all" in names:
        return BENCHES
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no bench '{unknown[0]}'; --list shows them")
    return [known[name] for name in names]
