# SPDX-License-Identifier: MIT
"""Sizes, durations and rates: text to numbers and back."""
import re

SUFFIXES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def parse_size(text):
    """"512M" -> bytes; ValueError on nonsense."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"'{text}' is not a size")
    return int(float(match[1]) * (1 << SUFFIXES[match[2].upper()]))


def format_size(number):
    for suffix in ("T", "G", "M", "K"):
        unit = 1 << SUFFIXES[suffix]
        if number >= unit:
            value = number / unit
            return (f"{value:.0f}" if value >= 100 or value == int(value)
                    else f"{value:.1f}") + f" {suffix}iB"
    return f"{number:.0f} B"


def format_time(seconds):
    if seconds >= 100:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.1f} ms"
    if seconds >= 1e-6:
        return f"{seconds * 1e6:.2f} µs"
    return f"{seconds * 1e9:.0f} ns"


def format_rate(per_second):
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if per_second >= factor:
            return f"{per_second / factor:.3g} {suffix}/s"
    return f"{per_second:.3g} /s"
