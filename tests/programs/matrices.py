#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""matrices.py N FILE: numpy on arrays of some times 8 N^2 bytes; prints checksums.

A file is read into managed memory (fromfile: read(2), readinto: a view) and mapped beside it
(memmap); matrix products and a decomposition run in the threads of the linear algebra
library; sorts and fancy indexing go through memory at random.  Integers are compared exactly, and
so are floating-point results: both runs use the same library and the same threads.
"""
import hashlib
import sys

import numpy


def digest(array):
    return hashlib.md5(numpy.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def files(n, path, rng):
    source = rng.integers(0, 1 << 62, n * n, dtype=numpy.int64)
    source.tofile(path)
    read = numpy.fromfile(path, dtype=numpy.int64)
    into = numpy.empty(n * n, dtype=numpy.int64)
    with open(path, "rb") as f:
        assert f.readinto(memoryview(into).cast("B")) == into.nbytes
    mapped = numpy.memmap(path, dtype=numpy.int64, mode="r+", shape=(n * n,))
    yield "read", bool((read == source).all() and (into == source).all())
    yield "mapped", int((mapped ^ read).sum())
    mapped[::7] = into[::-7][:len(mapped[::7])]
    mapped.flush()
    yield "written", digest(numpy.fromfile(path, dtype=numpy.int64))
    numpy.save(path + ".npy", source.reshape(n, n).T)
    yield "saved", digest(numpy.load(path + ".npy")[::3])


def algebra(n, rng):
    a = rng.standard_normal((n, n))
    b = rng.standard_normal((n, n))
    yield "product", digest(a @ b)
    yield "transposed", digest(a.T @ b[:, ::2])
    small = a[:n // 4, :n // 4]
    yield "inverse", digest(numpy.round(numpy.linalg.inv(small) @ small, 6) + 0.0)
    yield "fft", digest(numpy.round(numpy.fft.fft(a, axis=0).real, 6))
    a[a < 0] *= -1
    yield "root", digest(numpy.sqrt(a).sum(axis=0))


def order(n, rng):
    a = rng.integers(0, 1 << 40, n * n, dtype=numpy.int64)
    at = rng.permutation(n * n)
    yield "taken", digest(a[at])
    yield "sorted", digest(numpy.sort(a))
    yield "places", digest(a[numpy.argsort(a, kind="stable")][::13])
    b = numpy.zeros(n * n // 2, dtype=numpy.int64)
    numpy.add.at(b, at[:n * n // 4] % len(b), 1)
    yield "counted", int(b.sum()), digest(b)
    yield "grown", digest(numpy.concatenate([a[::2], b, a[1::2]]))


def main():
    n, path = int(sys.argv[1]), sys.argv[2]
    rng = numpy.random.Generator(numpy.random.PCG64(n))
    for name, part in (("files", files(n, path, rng)), ("algebra", algebra(n, rng)),
                       ("order", order(n, rng))):
        for result in part:
            print(name, *result, flush=True)


main()
