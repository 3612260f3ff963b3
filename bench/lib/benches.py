# SPDX-License-Identifier: MIT
"""The benches by name."""
import faultbenches
import programbenches
import touchbenches
from plan import Bench, Plan

__all__ = ["BENCHES", "Plan", "select"]

BENCHES = [
    Bench("minor", "first touch of a page: the fault itself, nothing read or written",
          faultbenches.minor),
    Bench("calls", "system calls that do not concern extmem: what the hook adds",
          faultbenches.calls),
    Bench("first-touch", "first touch of memory that fits, in order and sparsely",
          faultbenches.first_touch),
    Bench("growth", "processor time a fault, as address space and mappings grow",
          faultbenches.growth),
    Bench("seq-read", "sequential reads of twice the budget", touchbenches.seq_read),
    Bench("seq-write", "sequential writes of twice the budget", touchbenches.seq_write),
    Bench("rand-read", "random reads of twice the budget", touchbenches.rand_read),
    Bench("rand-write", "random writes of twice the budget", touchbenches.rand_write),
    Bench("streams", "backwards, every third page, two streams", touchbenches.streams),
    Bench("hot", "nine touches of ten to a tenth of the pages, reads and writes",
          touchbenches.hot),
    Bench("mmapbench", "sequential, random and hot reads, writes and updates with 1 to 16 threads",
          touchbenches.mmapbench),
    Bench("fits", "programs that fit their budget", programbenches.fits),
    Bench("pagerank", "PageRank on a Kronecker graph", programbenches.pagerank),
    Bench("bfs", "breadth-first search on a Kronecker graph", programbenches.bfs),
    Bench("lookups", "table look-ups in the manner of XSBench", programbenches.lookups),
    Bench("sort", "GNU sort", programbenches.sort),
    Bench("redis", "redis-server under zipfian GETs and SETs", programbenches.redis),
    Bench("gcc", "the C compiler", programbenches.gcc),
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
