# SPDX-License-Identifier: MIT
"""Benches of the single fault and the single call."""
import json

import units
from cases import Bar, Case, Metric
from plan import (GIB, MEMORY, MIB, from_json, nanoseconds, native_and_extmem, threads_text)
from runner import Variant

FAULT = nanoseconds("fault", "ns_per_page")
PAGE = nanoseconds("page", "ns_per_page")
# Of all threads together, which the turns that they take do not distort.
ALL_FAULT = nanoseconds("fault, all threads", "ns_per_page_all")
FAULT_CPU = nanoseconds("CPU a fault", "cpu_ns_per_page")
MAX_MAP_COUNT = "/proc/sys/vm/max_map_count"


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
    label = f"first {operation}, {threads_text(threads)}"
    # Nothing is to be evicted: the budget holds whatever is mapped around each touch.
    budget = 2 * pages * 16 * 4096 * threads
    return Case(label, [plan.program("minorfault"), *loop], variants, [FAULT], bars, budget,
                base="native")


def _scaling_case(plan, numbers=(1, 8, 32)):
    """The same number of pages by more threads; each has a mapping of its own.  What one thread sees
    has no bar: natively it does all of its work in two or three time slices."""
    pages = 16384 if plan.quick else 131072
    stride = 16
    sides = []
    for kind in ("native", "extmem"):
        for threads in numbers:
            loop = [plan.program("minorfault"), "--op", "write", "--stride", stride,
                    "--threads", threads, "--pages", pages // threads]
            sides.append(Variant(f"{kind}, {threads_text(threads)}", kind, loop,
                                 against=f"native, {threads_text(threads)}"))

    def bar(metric, threads):
        pairs = [(f"{kind}, {threads_text(threads)}", f"{kind}, {threads_text(1)}")
                 for kind in ("extmem", "native")]
        return Bar(metric.name, *pairs[0], at_most=1.0, like=pairs[1])

    bars = [bar(metric, threads) for metric in (ALL_FAULT, FAULT_CPU) for threads in numbers[1:]]
    return Case("first write, more and more threads", [], sides, [FAULT, ALL_FAULT, FAULT_CPU],
                bars, 2 * pages * stride * 4096, base="native")


def minor(plan):
    return [_minor_case(plan, "read", 1), _minor_case(plan, "write", 1),
            _minor_case(plan, "read", 2), _scaling_case(plan)]


# --- system calls without managed memory --------------------------------------------

def calls(plan):
    names = ("getppid", "read", "write")
    return [Case("calls with no pointer into managed memory",
                 [plan.program("calls"), 300 if plan.quick else 2000],
                 native_and_extmem(), [nanoseconds(name, f"{name}_ns") for name in names],
                 [Bar(name, "extmem", "native", more=25e-9) for name in names], 64 * MIB,
                 base="native")]


# --- first touch of memory that fits --------------------------------------------------

def first_touch(plan):
    """In order many pages come with a fault; sparsely that would cost memory."""
    pages = (16 if plan.quick else 64) * 1024

    def case(label, extra, metrics, bars, space_pages):
        command = [plan.program("minorfault"), "--op", "write", "--pages", pages, *extra]
        return Case(label, command, native_and_extmem(), metrics, bars,
                    2 * space_pages * 4096, base="native")

    lean = [Bar("memory", "extmem", "native", at_most=1.05)]
    return [
        case("in order", ["--stride", 1], [PAGE, MEMORY],
             [Bar("page", "extmem", "native", at_least=2)], pages),
        case("every third page", ["--stride", 3], [PAGE, MEMORY], lean, 3 * pages),
        case("every 16th page", ["--stride", 16], [PAGE, MEMORY], lean, 16 * pages),
        case("every 16th page, in no order", ["--stride", 16, "--shuffle"], [PAGE, MEMORY], lean,
             16 * pages),
    ]


# --- cost as work grows -----------------------------------------------------------------

# "Flat" allows for what one run differs from the next.
FLAT = 1.25


def _majors(sample):
    """Pages brought in from the store while the memory was read again."""
    if sample.stats:
        return sample.stats["faults"]["major"] + sample.stats["faults"]["prefetch_hit"]
    return json.loads(sample.stdout)["again_major"]


def _cpu_a_major(sample):
    return from_json("again_cpu_ns")(sample) / _majors(sample) / 1e9


FIRST_CPU = nanoseconds("CPU a first touch", "first_cpu_ns")
MAP_CPU = nanoseconds("CPU a mapping", "map_cpu_ns")
MAJOR_CPU = Metric("CPU a page brought in", _cpu_a_major)


def _flat(metric, names):
    return [Bar(metric.name, name, names[0], at_most=FLAT) for name in names[1:]]


def _sizes(kind, name, sizes, command, **more):
    """One variant for each of {label: arguments}; extmem's are held against this side's."""
    return [Variant(f"{name}, {label}", kind, [*command, *extra], **more)
            for label, extra in sizes.items()]


def _growth_case(label, command, sizes, major, budget, extmem_args=(), settings=None, more=()):
    """All sizes are sides of one case, so that they take turns."""
    other = "swap" if major else "native"
    sides = _sizes(other, other, sizes, command, page_cluster=0 if major else None)
    ours = _sizes("extmem", "extmem", sizes, command, extmem_args=extmem_args)
    for base, variant in zip(sides, ours):
        variant.against = base.name
    metric = MAJOR_CPU if major else FIRST_CPU
    names = [variant.name for variant in ours]
    return Case(label, [], [*sides, *ours], [metric, *more], _flat(metric, names), budget,
                base=other, settings=settings)


def growth(plan):
    """The same pages are touched, in an order that no read-ahead follows."""
    pages = 8192 if plan.quick else 32768
    rounds = 2
    spaces = {units.format_size(size): ["--space", size, "--run", 64]
              for size in (GIB, 4 * GIB, 16 * GIB, 64 * GIB)}
    regions = {f"{number} regions": ["--space", 16 * GIB, "--run", 1, "--regions", number]
               for number in (10, 1000, 10000, 100000)}
    command = [plan.program("growth"), "--pages", pages, "--rounds"]
    touched = pages * 4096
    # Up to 16 GiB in pieces of 160 KiB: their metadata are 40 MiB and count.
    tables = 40 * MIB
    many = {"extmem_args": ("--min-map", "64K"), "settings": {MAX_MAP_COUNT: 400000}}
    return [
        _growth_case("address space: first touches", [*command, 0], spaces, False, 4 * touched),
        _growth_case("address space: half comes back from the store", [*command, rounds], spaces,
                     True, touched // 2),
        _growth_case("regions: first touches", [*command, 0], regions, False,
                     4 * (touched + tables), more=[MAP_CPU], **many),
        _growth_case("regions: half comes back from the store", [*command, rounds], regions, True,
                     touched // 2 + tables, **many),
    ]
