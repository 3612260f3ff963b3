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
        self._zram_tried = {}        # (command, budget) -> how many divisions were too tight
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
            return self._run_swap(variant, command, budget_bytes, how)
        if variant.kind == "zram":
            return self._run_zram(variant, command, budget_bytes, how)
        if variant.kind == "extmem":
            return self._run_extmem(variant, command, budget_bytes, how)
        return run_process(command, **how)

    def _run_disk(self, job, factor):
        """As a workload would put it; what `factor` is for, the bench knows."""
        rate = self.raw_disk(job) * factor
        return Sample(0, 0, json.dumps({"even_touches_per_s": rate}), "", "")

    def _run_swap(self, variant, command, budget_bytes, how):
        with self._group(self._swap, self._swap.on, variant, budget_bytes) as group:
            with memlimit.Watch(group):
                return self._run_in(group, command, how)

    @contextlib.contextmanager
    def _group(self, space, switch_on, variant, limit_bytes):
        """A group that swaps to the space and nowhere else."""
        with swapfile.Setting(swapfile.PAGE_CLUSTER, variant.page_cluster):
            group = memlimit.Group(limit_bytes)
            try:
                switch_on()
                yield group
            finally:
                # The group goes first: its pages have to be off the swap space before that is.
                with uninterrupted():
                    try:
                        group.remove()
                    finally:
                        space.off()

    @staticmethod
    def _run_in(group, command, how):
        try:
            return run_process(group.wrap(command), **how)
        except RunFailed as failure:
            if group.oom_kills():
                raise OutOfMemory("killed by the kernel for want of memory") from failure
            raise

    def _run_zram(self, variant, command, budget_bytes, how):
        """Program and compressed data have a limit each, together the budget.  How best to
        divide it depends on the data and is found by trying."""
        tried = (tuple(command), budget_bytes)
        for share in zram.SHARES[self._zram_tried.get(tried, 0):]:
            sample = self._run_share(variant, command, budget_bytes, share, how)
            if sample:
                return sample
            self._zram_tried[tried] = self._zram_tried.get(tried, 0) + 1
        raise DoesNotFit("does not fit: however the budget is divided between the program and its "
                         "compressed data, one of them has too little")

    def _run_share(self, variant, command, budget_bytes, share, how):
        """None when this division leaves too little to one of them."""
        limit = int(budget_bytes * share)
        with self._group(self._zram, lambda: self._zram.on(limit), variant,
                         budget_bytes - limit) as group:
            watcher = zram.Watcher(self._zram, group, limit)
            try:
                with memlimit.Watch(group, watcher.look):
                    sample = self._run_in(group, command, how)
            except OutOfMemory:
                return None
            except RunFailed:
                if watcher.full:
                    return None
                raise
            sample.zram = watcher.figures()
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
