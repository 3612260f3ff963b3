#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""walk.py N: builds lists, dicts and bytearrays of about N elements, walks and changes them,
prints checksums.  The output depends on N alone (run with PYTHONHASHSEED=0)."""
import sys
import zlib


class Random:
    """A generator of our own: the same on every version of Python."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return self.state >> 33


def lists(n, rng):
    numbers = [rng.next() for _ in range(n)]
    yield "sum", sum(numbers)
    yield "sorted", zlib.crc32(repr(sorted(numbers)[:: max(1, n // 1000)]).encode())
    nested = [[i, str(i), (i, -i)] for i in range(n // 4)]
    nested[::3] = [None] * len(nested[::3])
    yield "nested", sum(e[2][1] for e in nested if e)
    total = 0
    for _ in range(n // 4):
        i = rng.next() % n
        numbers[i] ^= i
        total += numbers[rng.next() % n]
    yield "random", total


def dicts(n, rng):
    table = {f"key-{i}": i * i for i in range(n // 2)}
    yield "dict", sum(table[f"key-{rng.next() % (n // 2)}"] for _ in range(n // 4))
    for i in range(0, n // 2, 3):
        del table[f"key-{i}"]
    yield "left", len(table)
    yield "order", zlib.crc32("".join(list(table)[:: max(1, n // 5000)]).encode())
    inverse = {v: k for k, v in table.items()}
    yield "inverse", sum(len(inverse[v]) for v in table.values())
    yield "set", len({rng.next() % n for _ in range(n)})


def buffers(n, rng):
    blob = bytearray(n * 16)
    for _ in range(n // 2):
        at = rng.next() % (len(blob) - 8)
        blob[at:at + 4] = (rng.next() & 0xffffffff).to_bytes(4, "little")
    yield "bytearray", zlib.crc32(blob)
    blob.extend(blob[: n * 4])
    del blob[n:n * 2]
    yield "resized", zlib.crc32(blob)
    parts = [bytes(blob[i:i + 997]) for i in range(0, len(blob), 997)]
    yield "joined", zlib.crc32(b"-".join(reversed(parts)))


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
    rng = Random(n)
    for part in (lists, dicts, buffers):
        for what, value in part(n, rng):
            print(part.__name__, what, value)


main()
