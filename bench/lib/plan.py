# SPDX-License-Identifier: MIT
"""What the benches are made of: the plan of the command line, sides and metrics."""
import dataclasses
import json
import os
import typing

from cases import Metric
from runner import Variant
from timing import parse_timing

MIB = 1 << 20
GIB = 1 << 30


@dataclasses.dataclass
class Plan:
    """What the command line decided."""
    programs: str                  # the directory of the workloads
    scratch: str                   # for generated input
    quick: bool = False
    page_clusters: list = None     # of swap; None: as each bench prefers
    zram: bool = False

    def program(self, name):
        return os.path.join(self.programs, name)

    def swap_variants(self, preferred=(None,)):
        clusters = self.page_clusters
        if clusters is None:
            clusters = preferred[:1] if self.quick else preferred
        return [Variant("swap" if cluster is None else f"swap, page-cluster {cluster}", "swap",
                        page_cluster=cluster) for cluster in clusters]

    def zram_variants(self):
        """Read-ahead is of no use where there is nothing to wait for."""
        return [Variant("zram", "zram", page_cluster=0)] if self.zram else []

    def three_sides(self, preferred=(None,), zram=False):
        return [Variant("native", "native"), *self.swap_variants(preferred),
                *(self.zram_variants() if zram else []), Variant("extmem", "extmem")]


@dataclasses.dataclass
class Bench:
    name: str
    title: str
    cases: typing.Callable         # Plan -> [Case]


def native_and_extmem():
    return [Variant("native", "native"), Variant("extmem", "extmem")]


def threads_text(threads):
    return f"{threads} thread" + ("s" if threads > 1 else "")


def from_json(key):
    return lambda sample: float(json.loads(sample.stdout)[key])


def from_timing(*keys):
    return lambda sample: sum(parse_timing(sample.stderr)[key] for key in keys)


def nanoseconds(name, key):
    return Metric(name, lambda sample: from_json(key)(sample) / 1e9)


WALL = Metric("whole process", lambda sample: sample.wall_s)
# What all threads do at the pace of the slowest: where one thread's share stays in memory, its
# touches alone would outnumber those of all others a thousand times.
TOUCHES = Metric("touches", from_json("even_touches_per_s"), higher_is_better=True, unit="rate")
KERNEL = Metric("computation", from_timing("kernel_s"))
BUILD = Metric("graph build", from_timing("generate_s", "build_s"))
MEMORY = Metric("memory", lambda sample: sample.peak_rss_bytes, unit="size")


def share_of_data(native, percent):
    return int(parse_timing(native.stderr)["data_bytes"]) * percent // 100 // MIB * MIB


def share_of_rss(native, percent):
    return native.peak_rss_bytes * percent // 100 // MIB * MIB
