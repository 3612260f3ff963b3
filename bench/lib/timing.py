# SPDX-License-Identifier: MIT
"""The clock, and the timing line of the workloads."""
import time


def now_s():
    return time.monotonic()


def parse_timing(stderr):
    """The last line "timing key=value ..." as numbers; ValueError when there is none."""
    for line in reversed(stderr.splitlines()):
        if line.startswith("timing "):
            return {key: float(value) for key, value in
                    (word.split("=", 1) for word in line.split()[1:])}
    raise ValueError("the program printed no timing line")
