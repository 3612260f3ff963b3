#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Unpacks a source package and builds it: make_build.py SOURCE BUILD OUT TARGET.

BUILD is the same directory each time, as its name gets into what the compiler writes.  Prints
a hash of each object, library and program.
"""
import glob
import hashlib
import os
import shutil
import subprocess
import sys

import case
from driver import check

ENV = dict(os.environ, SOURCE_DATE_EPOCH="1700000000", LC_ALL="C")


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def is_output(path):
    if path.endswith((".o", ".a")):
        return True
    with open(path, "rb") as f:
        return f.read(4) == b"\x7fELF"


def main():
    source, build, out, target = sys.argv[1:]
    shutil.rmtree(build, ignore_errors=True)
    os.makedirs(build)
    archive = glob.glob(os.path.join(source, "*.orig.tar.*"))
    check(len(archive) == 1, "no source archive in " + source)
    subprocess.run(["tar", "xf", archive[0], "--strip-components=1", "-C", build], check=True)
    with open(os.path.join(out, "build.log"), "wb") as log, \
            open(os.path.join(out, "errors.log"), "wb") as errors:
        done = subprocess.run(case.prefix() + ["make", "-j2", "--output-sync=target", "MALLOC=libc",
                                               "BUILD_TLS=no", "USE_SYSTEMD=no", "V=0", target],
                              cwd=os.path.join(build, "src"), env=ENV, stdin=subprocess.DEVNULL,
                              stdout=log, stderr=errors, check=False)
    with open(os.path.join(out, "errors.log"), errors="replace") as f:
        said = f.read()
    check(done.returncode == 0 and "extmem:" not in said, "make: " + said[-600:])
    with open(os.path.join(out, "build.log"), errors="replace") as f:
        lines = sorted(f.read().splitlines())
    with open(os.path.join(out, "build.log"), "w") as f:
        f.write("\n".join(lines))
    for place, dirs, files in os.walk(build):
        dirs.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            if not os.path.islink(path) and is_output(path):
                print(digest(path), os.path.relpath(path, build))


main()
