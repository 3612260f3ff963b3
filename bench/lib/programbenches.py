# SPDX-License-Identifier: MIT
"""Benches of whole programs: those that fit their budget, and those that do not."""
import os
import subprocess
import sys

import units
from cases import Bar, Case, Metric
from plan import (BUILD, KERNEL, MIB, TOUCHES, WALL, from_json, nanoseconds, native_and_extmem,
                  share_of_data, share_of_rss)

GEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "gen.py")


# --- programs that fit their budget -------------------------------------------------

def _twice(native):
    return 2 * native.peak_rss_bytes


def fits(plan):
    scale, iterations = (19, 10) if plan.quick else (21, 20)
    touches = (50 if plan.quick else 200) * 1000 * 1000
    sides = native_and_extmem()

    def bars(*metrics):
        return [Bar(name, "extmem", "native", at_most=1.02) for name in metrics]

    graph = [plan.program("pagerank"), "--scale", scale, "--iterations", iterations]
    touch = [plan.program("touch"), "--bytes", 256 * MIB, "--touches", touches,
             "--threads", 2, "--pattern"]
    return [
        Case(f"PageRank, scale {scale}", graph, sides, [KERNEL, WALL],
             bars("computation", "whole process"), _twice, same_output=True, base="native"),
        Case("sequential touches, 256 MiB", [*touch, "seq-read"], sides, [TOUCHES, WALL],
             bars("touches", "whole process"), 512 * MIB, base="native"),
        Case("random touches, 256 MiB, every fifth a write",
             [*touch, "rand-read", "--writes", 20], sides, [TOUCHES, WALL],
             bars("touches", "whole process"), 512 * MIB, base="native"),
        Case("table look-ups", _lookup_command(plan), sides, [KERNEL, WALL],
             bars("computation", "whole process"), _twice, same_output=True, base="native"),
        _sort_case(plan, "", sides, [WALL], bars("whole process"), _twice, base="native"),
        _redis_case(plan, "redis, GET", sides, [REQUESTS, P99], bars(REQUESTS.name), _twice,
                    (80 if plan.quick else 400) * 1000, sets=0),
    ]


# --- graphs at half the memory --------------------------------------------------------

def _graph_case(plan, program, iterations, at_least=None, zram=False):
    scale = 20 if plan.quick else 22
    command = [plan.program(program), "--scale", scale, "--iterations", iterations]
    bars = [Bar("computation", "extmem", "swap", at_least=at_least)] if at_least else []
    return [Case(f"scale {scale}, {iterations} iterations, half the memory", command,
                 plan.three_sides((3, 5), zram), [KERNEL, BUILD], bars,
                 lambda native: share_of_data(native, 50), same_output=True)]


def pagerank(plan):
    return _graph_case(plan, "pagerank", 3 if plan.quick else 10, 2, zram=True)


def bfs(plan):
    return _graph_case(plan, "bfs", 1 if plan.quick else 4)


# --- table look-ups -------------------------------------------------------------------

def _lookup_command(plan):
    points, number = (6000, 200000) if plan.quick else (20000, 1000000)
    return [plan.program("lookup"), "--points", points, "--lookups", number, "--threads", 2]


def lookups(plan):
    return [Case("look-ups by 2 threads, 40 % of the memory", _lookup_command(plan),
                 plan.three_sides((0, 3)), [KERNEL, BUILD],
                 [Bar("computation", "extmem", "swap", at_least=1.2)],
                 lambda native: share_of_data(native, 40), same_output=True)]


# --- real programs ----------------------------------------------------------------------

def _input(plan, name, *args):
    """(path, what makes the file, unless another case did)"""
    path = os.path.join(plan.scratch, name)

    def make():
        if not os.path.exists(path):
            with open(path, "wb") as out:
                subprocess.run([sys.executable, GEN, *map(str, args)], stdout=out, check=True)
    return path, make


def _sort_case(plan, label, *args, **more):
    size = (60 if plan.quick else 200) * MIB
    path, make = _input(plan, "lines.txt", "lines", "--bytes", size)
    command = ["sort", "-S", 4 * size, "--parallel=2", "-T", plan.scratch, path]
    return Case(f"sort, {units.format_size(size)} of random lines{label}", command, *args,
                same_output=True, env={"LC_ALL": "C"}, prepare=make, **more)


def sort(plan):
    return [_sort_case(plan, ", half the memory", plan.three_sides((3, 0)), [WALL],
                       [Bar("whole process", "extmem", "swap", at_least=1.5)],
                       lambda native: share_of_rss(native, 50))]


def gcc(plan):
    functions = 200 if plan.quick else 1000
    path, make = _input(plan, "large.c", "c", "--functions", functions)
    command = ["gcc", "-w", "-O2", "-S", "-o", "-", path]
    return [Case(f"-O2 on {functions} generated functions, 40 % of the memory", command,
                 plan.three_sides((3,)), [WALL], [],
                 lambda native: share_of_rss(native, 40), same_output=True, prepare=make)]


# --- redis ------------------------------------------------------------------------------

REQUESTS = Metric("requests", from_json("requests_per_s"), higher_is_better=True, unit="rate")
P50 = nanoseconds("half of them within", "p50_ns")
P99 = nanoseconds("99 of 100 within", "p99_ns")


def _redis_case(plan, label, sides, metrics, bars, budget, keys, **more):
    """The server is what is measured; the client, which verifies, runs beside it unlimited."""
    socket = os.path.join(plan.scratch, "redis.sock")
    seconds, warmup = (2, 2) if plan.quick else (10, 10)
    server = ["redis-server", "--port", 0, "--unixsocket", socket, "--save", "",
              "--appendonly", "no", "--loglevel", "warning"]
    client = [plan.program("redisload"), "--socket", socket, "--keys", keys,
              "--seconds", seconds, "--warmup", warmup]
    for name, value in more.items():
        client += [f"--{name}", value]
    return Case(label, server, sides, metrics, bars, budget, client=client,
                base="swap" if any(side.kind == "swap" for side in sides) else "native")


def redis(plan):
    keys = (80 if plan.quick else 800) * 1000
    return [_redis_case(plan, f"{keys} values of 1 KiB, every fifth request a SET, pipelines of "
                              f"{depth}, half the memory", plan.three_sides((0, 3)),
                        [REQUESTS, P50, P99],
                        [Bar(REQUESTS.name, "extmem", "swap", at_least=1.2),
                         Bar(P99.name, "extmem", "swap", at_most=1.0)],
                        lambda native: share_of_rss(native, 50), keys, pipeline=depth)
            for depth in (1, 16)]
