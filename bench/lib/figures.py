# SPDX-License-Identifier: MIT
"""Medians, spread and ratios of repeated measurements."""


def median(values):
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def spread(values):
    """(max - min) / median, 0 for a single value."""
    centre = median(values)
    return (max(values) - min(values)) / centre if centre else 0.0


def times_as_fast(values, base, higher_is_better):
    """How many times as fast `values` are as `base`, by the medians."""
    ours, theirs = median(values), median(base)
    if higher_is_better:
        return ours / theirs if theirs else float("inf")
    return theirs / ours if ours else float("inf")


def interleave(variants, repetitions):
    """A B C A B C ...: what changes on the machine meanwhile hits all alike."""
    return [(repetition, variant) for repetition in range(repetitions) for variant in variants]
