# SPDX-License-Identifier: MIT
"""A Java program with each collector whose heap is private memory (ZGC's is a shared file)."""
import os
import subprocess

from case import HERE, Case

COLLECTORS = ("Serial", "Parallel", "G1", "Shenandoah")


def cases(args, work):
    classes = os.path.join(work, "java")

    def compile_it():
        if not os.path.exists(os.path.join(classes, "Heap.class")):
            subprocess.run(["javac", "-d", classes, os.path.join(HERE, "Heap.java")], check=True)

    n = "60000" if args.quick else "600000"
    for name in COLLECTORS:
        yield Case("java-" + name.lower(),
                   lambda out, name=name: ["java", f"-XX:+Use{name}GC", "-Xmx768m", "-cp", classes,
                                           "Heap", n, os.path.join(out, "buffers")],
                   prepare=compile_it, needs=("java", "javac"), heavy=True)
