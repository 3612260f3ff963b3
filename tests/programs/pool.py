#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""pool.py N FILE: worker processes, forked and spawned, that inherit arrays of N numbers, get them
through pipes and change them in shared memory.  Prints checksums."""
import multiprocessing
import sys
from multiprocessing import shared_memory

import numpy

inherited = None


def checksum(array):
    return int((array * numpy.arange(1, len(array) + 1, dtype=array.dtype)).sum()) & 0xffffffffffff


def slice_sum(at):
    """Of what the worker has from its parent, some of which it changes: a copy of its own."""
    part = inherited[at::8]
    before = checksum(part)
    inherited[at::8] = part[::-1]
    return before, checksum(inherited[at::8])


def through_pipe(array):
    return numpy.sort(array)[::-1].copy()


def in_shared(job):
    name, n, at = job
    memory = shared_memory.SharedMemory(name=name)
    array = numpy.ndarray((n,), dtype=numpy.int64, buffer=memory.buf)
    array[at::4] += numpy.arange(len(array[at::4]))
    del array
    memory.close()


def grandchild(queue, depth):
    """Each process changes the array and starts the next."""
    inherited[depth::10] += depth
    if depth < 5:
        child = multiprocessing.get_context("fork").Process(target=grandchild, args=(queue, depth + 1))
        child.start()
        child.join()
    queue.put((depth, checksum(inherited)))


def run(method, n):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        if method == "fork":
            print(method, "inherited", pool.map(slice_sum, range(8), chunksize=8))
        arrays = [inherited[i * n // 4:(i + 1) * n // 4] for i in range(4)]
        print(method, "pipes", [checksum(a) for a in pool.map(through_pipe, arrays)], flush=True)
        memory = shared_memory.SharedMemory(create=True, size=n * 8)
        array = numpy.ndarray((n,), dtype=numpy.int64, buffer=memory.buf)
        array[:] = inherited
        pool.map(in_shared, [(memory.name, n, at) for at in range(4)])
        print(method, "shared", checksum(array), flush=True)
        del array
        memory.close()
        memory.unlink()


def main():
    global inherited
    n = int(sys.argv[1])
    inherited = numpy.random.Generator(numpy.random.PCG64(n)).integers(0, 1 << 40, n)
    run("fork", n)
    run("spawn", n)
    queue = multiprocessing.get_context("fork").Queue()
    grandchild(queue, 0)
    print("tree", sorted(queue.get() for _ in range(6)))
    print("own", checksum(inherited))


if __name__ == "__main__":
    main()
