# SPDX-License-Identifier: MIT
"""Runs one whole process the way a variant wants it and collects what it leaves."""
import contextlib
import dataclasses
import json
import os
import tempfile

import memlimit
import swapfile
import zram
from process import RunFailed, Sample, describe_failure, run_process, uninterrupted

__all__ = ["DoesNotFit", "OutOfMemory", "RunFailed", "Runner", "Sample", "Variant",
           "describe_failure", "run_process", "uninterrupted"]


class OutOfMemory(RunFailed):
    """The kernel's OOM killer ended it within its limit."""


class DoesNotFit(RunFailed):
    """zram: what the program needs and its compressed data together exceed the budget."""


@dataclasses.dataclass
class Variant:
    name: str
    kind: str                    # native, swap, zram, extmem, disk (the raw disk by itself)
    command: list = None         # instead of the case's own; of a disk: (job, factor)
    extmem_args: tuple = ()
    page_cluster: int = None     # of swap; None: as the machine has it
    against: str = None          # whom to compare it with; None: as the case has it


class Runner:
    """The sides to measure.  `swap_missing` and the like say why one is not there."""

    def __init__(self, extmem, directory, swap_bytes, extmem_args=(), timeout_s=900,
                 raw_disk=None):
        """`raw_disk` is a function of a job's name that gives operations a second."""
        self.extmem = extmem
        self.directory = directory
        self.swap_bytes = swap_bytes
        self.extmem_args = tuple(extmem_args)
        self.timeout_s = timeout_s
        self.raw_disk = raw_disk
        self.swap_missing = self.zram_missing = None
        self.extmem_missing = None if extmem else "there is no extmem in the build directory"
        self._swap = self._zram = None
        self._exits = contextlib.ExitStack()

    def __enter__(self):
        self.clean_stale()
        try:
            self._open_swap()
        except (memlimit.Unavailable, swapfile.Unavailable) as missing:
            self.swap_missing = str(missing)
        return self

    def __exit__(self, *_):
        with uninterrupted():
            self._exits.close()

    def clean_stale(self):
        if os.geteuid() == 0:
            swapfile.remove_stale(self.directory)
            zram.remove_stale()
            memlimit.remove_stale()

    def _open_swap(self):
        """Tries everything once, so that a side that cannot run is known at the start."""
        group = memlimit.Group(1 << 30)
        group.remove()
        swap = swapfile.SwapFile(self.directory, self.swap_bytes)
        self._exits.callback(swap.remove)
        swap.__enter__()
        self._swap = swap
        swap.on()
        swap.off()

    def open_zram(self):
        """Made only when somebody wants it."""
        if self.swap_missing:
            self.zram_missing = self.swap_missing
            return
        try:
            self._zram = zram.Device(self.swap_bytes)
            self._exits.callback(self._zram.remove)
            self._zram.on()
            self._zram.off()
        except swapfile.Unavailable as missing:
            self.zram_missing = str(missing)

    def missing(self, variant):
        """Why the variant cannot run here, or None."""
        if variant.kind == "disk":
            return None if self.raw_disk else "left out"
        return {"swap": self.swap_missing, "zram": self.zram_missing,
                "extmem": self.extmem_missing}.get(variant.kind)

    def run(self, variant, command, budget_bytes, env=None, client=None):
        if variant.kind == "disk":
            return self._run_disk(*variant.command)
        command = [str(word) for word in (variant.command or command)]
        how = {"env": dict(os.environ, **(env or {})), "timeout_s": self.timeout_s,
               "client": [str(word) for word in client] if client else None}
        if variant.kind == "swap":
            return self._run_limited(self._swap, variant, command, budget_bytes, how)
        if variant.kind == "zram":
            return self._run_zram(variant, command, budget_bytes, how)
        if variant.kind == "extmem":
            return self._run_extmem(variant, command, budget_bytes, how)
        return run_process(command, **how)

    def _run_disk(self, job, factor):
        """As a workload would put it; what `factor` is for, the bench knows."""
        rate = self.raw_disk(job) * factor
        return Sample(0, 0, json.dumps({"even_touches_per_s": rate}), "", "")

    def _run_limited(self, space, variant, command, budget_bytes, how, watching=None):
        """`watching`, a function of the group, gives what to look at every so often."""
        with contextlib.ExitStack() as undo:
            undo.enter_context(swapfile.Setting(swapfile.PAGE_CLUSTER, variant.page_cluster))
            group = memlimit.Group(budget_bytes)

            # The group goes first: its pages have to be off the swap space before that is.
            def clean():
                with uninterrupted():
                    try:
                        group.remove()
                    finally:
                        space.off()

            undo.callback(clean)
            space.on()
            undo.enter_context(memlimit.Watch(group, watching(group) if watching else None))
            try:
                return run_process(group.wrap(command), **how)
            except RunFailed as failure:
                if group.oom_kills():
                    raise OutOfMemory("killed by the kernel for want of memory") from failure
                raise

    def _run_zram(self, variant, command, budget_bytes, how):
        balance = None

        def watching(group):
            nonlocal balance
            balance = zram.Balance(self._zram, group, budget_bytes)
            return balance.look

        try:
            sample = self._run_limited(self._zram, variant, command, budget_bytes, how, watching)
        except RunFailed as failure:
            if isinstance(failure, OutOfMemory) or (balance and not balance.fits):
                raise DoesNotFit(balance.why_not()) from failure
            raise
        sample.zram = balance.figures()
        return sample

    def _run_extmem(self, variant, command, budget_bytes, how):
        handle, stats_path = tempfile.mkstemp(prefix="extmem-bench-stats.")
        os.close(handle)
        try:
            sample = run_process(
                [self.extmem, "run", "--dram", str(budget_bytes), "--swap", self.directory,
                 "--stats", stats_path, *self.extmem_args, *variant.extmem_args, "--", *command],
                **how)
            sample.stats = read_stats(stats_path)
            return sample
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stats_path)
            remove_child_stats(stats_path)


def read_stats(path):
    """None when the program wrote none: the figures are a by-product."""
    try:
        with open(path, encoding="utf-8") as text:
            return json.load(text)
    except (OSError, ValueError):
        return None


def remove_child_stats(path):
    """Children of the program write their own file, PATH.PID."""
    directory, base = os.path.split(path)
    for name in os.listdir(directory):
        if name.startswith(base + ".") and name[len(base) + 1:].isdigit():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
