# SPDX-License-Identifier: MIT
"""Benches that touch pages of a memory twice the budget."""
import dataclasses

import units
from cases import Bar, Case
from plan import MIB, TOUCHES, threads_text
from runner import Variant


@dataclasses.dataclass
class _RawDisk:
    """What fio reads, as touches a second: `factor` touches for each page read."""
    job: str
    name: str
    factor: float
    at_least: float = None         # a bar, or only to compare

    def variant(self):
        return Variant(self.name, "disk", (self.job, self.factor))

    def bars(self):
        return [Bar("touches", "extmem", self.name, at_least=self.at_least)] if self.at_least else []


def _compressible(plan, pattern, threads=1):
    """Two thirds of each page are one word over and over: zram can hold it.  Zram's turn only."""
    if not plan.zram:
        return []
    return _touch_cases(plan, pattern, (0,), {threads: None}, ("--compressible", 67),
                        ", data that compress to a third", zram=True)


def _touch_cases(plan, pattern, preferred, bars, extra=(), note="", zram=False, disk=None):
    """One case for each number of threads in `bars`: {threads: at least so many times as fast as
    swap, or None}.  `disk`: {threads: _RawDisk} to be held against as well."""
    size = (256 if plan.quick else 1024) * MIB
    seconds, warmup = (2, 1) if plan.quick else (5, 3)
    result = []
    for threads, at_least in bars.items():
        sides = plan.three_sides(preferred, zram)
        command = [plan.program("touch"), "--pattern", pattern, "--bytes", size,
                   "--threads", threads, "--seconds", seconds, "--warmup", warmup,
                   "--verify", "sample", *extra]
        label = (f"{pattern}{note}, {threads_text(threads)}, "
                 f"{units.format_size(size)} touched")
        bar = [Bar("touches", "extmem", "swap", at_least=at_least)] if at_least else []
        if disk and threads in disk:
            sides.append(disk[threads].variant())
            bar += disk[threads].bars()
        result.append(Case(label, command, sides, [TOUCHES], bar, size // 2))
    return result


def seq_read(plan):
    disk = _RawDisk("seq_256k_qd4", "raw disk, 256 KiB reads", 1, 0.75)
    return [*_touch_cases(plan, "seq-read", (3, 0, 5), {1: 6, 8: 1.5}, zram=True,
                          disk={1: disk, 8: disk}),
            *_compressible(plan, "seq-read")]


def seq_write(plan):
    return _touch_cases(plan, "seq-write", (3, 0, 5), {1: 3, 8: 1.5})


def rand_read(plan):
    # Half of the pages are resident, so at best every other touch reads.
    name = "raw disk, 2 touches a read"
    disk = {1: _RawDisk("rand_4k_qd1", name, 2, 0.95),
            **{threads: _RawDisk(f"rand_4k_{threads}_threads", name, 2) for threads in (2, 8, 32)}}
    return [*_touch_cases(plan, "rand-read", (0, 3), {1: 1.0, 2: 1.1, 8: 1.3, 32: 1.2}, zram=True,
                          disk=disk),
            *_compressible(plan, "rand-read")]


def rand_write(plan):
    return _touch_cases(plan, "rand-write", (0, 3), {1: 1.1, 2: 1.1, 8: 1.3, 32: 1.3})


def streams(plan):
    return [case for pattern in ("back", "stride=3", "two-streams")
            for case in _touch_cases(plan, pattern, (3, 5), {1: 2})]


def hot(plan):
    kinds = {", reads": 0, ", every fifth a write": 20, ", writes": 100}
    return [*(case for note, writes in kinds.items()
              for case in _touch_cases(plan, "hot", (0, 3), {1: 1.3, 8: 1.3},
                                       ("--writes", writes), note, zram=True)),
            *_compressible(plan, "hot")]


def mmapbench(plan):
    """The bar is for updates; what only reads or only writes is there to compare."""
    modes = {"read": (["--writes", 0], None), "write": (["--writes", 100], None),
             "update": (["--writes", 100, "--update"], 1.2)}
    orders = {"sequential": ("seq-read", (3, 5)), "random": ("rand-read", (0, 3)),
              "hot": ("hot", (0, 3))}
    return [dataclasses.replace(case, label=case.label.replace(pattern, order, 1))
            for mode, (extra, at_least) in modes.items()
            for order, (pattern, preferred) in orders.items()
            for case in _touch_cases(plan, pattern, preferred,
                                     dict.fromkeys((1, 2, 4, 8, 16), at_least), extra,
                                     f" {mode}")]
