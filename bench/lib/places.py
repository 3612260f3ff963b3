# SPDX-License-Identifier: MIT
"""Where the built programs are and what machine this is."""
import os
import platform

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKLOADS = ("touch", "minorfault", "bare", "pagerank", "bfs", "lookup", "calls",
             "growth", "redisload")


def _is_program(path):
    return os.path.isfile(path) and os.access(path, os.X_OK)


def find_extmem(build):
    for place in ("extmem", "cmd/extmem/extmem"):
        path = os.path.join(build, place)
        if _is_program(path):
            return os.path.abspath(path)
    return None


def missing_workloads(build):
    return [name for name in WORKLOADS if not _is_program(os.path.join(build, "bench", name))]


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"kernel": platform.release(), "processor": model,
            "processors": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "load_average": os.getloadavg()[0]}
