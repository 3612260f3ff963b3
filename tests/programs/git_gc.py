#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""git_gc.py make REPOSITORY COMMITS: a repository of small and large files with loose history.
git_gc.py gc REPOSITORY OUT: collects a copy of it and prints what it then contains.

The second runs under the engine all that git starts, with two threads, so the packs differ from
run to run; what must be the same is each object, its content and the history.
"""
import hashlib
import os
import random
import shutil
import subprocess
import sys

import case
from driver import check

SEED = 1618
ENV = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null", LC_ALL="C")


def words(rng, n):
    return b"".join(b"%s\n" % rng.randbytes(9).hex().encode() for _ in range(n))


def stream(commits):
    """What git fast-import reads: a tree of files that change a little with each commit."""
    rng = random.Random(SEED)
    files = {}
    yield b"reset refs/heads/main\n"
    for n in range(commits):
        yield (b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 8\n%08d"
               % (1700000000 + n, n))
        for _ in range(6):
            name = b"dir%d/file%d" % (rng.randrange(40), rng.randrange(25))
            lines = files.setdefault(name, words(rng, 400).splitlines(True))
            at = rng.randrange(len(lines))
            lines[at:at + rng.randrange(4)] = words(rng, rng.randrange(1, 8)).splitlines(True)
            data = b"".join(lines)
            yield b"M 644 inline %s\ndata %d\n%s\n" % (name, len(data), data)
        if n % (commits // 10) == 0:
            data = rng.randbytes(6 << 20)
            yield b"M 644 inline large%d\ndata %d\n%s\n" % (n % 3, len(data), data)
        if n % 50 == 0:
            yield b"reset refs/tags/t%d\nfrom refs/heads/main\n\n" % n


def make(repository, commits):
    subprocess.run(["git", "init", "-q", "--bare", repository], env=ENV, check=True)
    with subprocess.Popen(["git", "-C", repository, "fast-import", "--quiet", "--depth=0"],
                          stdin=subprocess.PIPE, env=ENV) as git:
        for part in stream(commits):
            git.stdin.write(part)
    check(git.returncode == 0, "git fast-import failed")


def git(repository, *words, prefix=()):
    done = subprocess.run(list(prefix) + ["git", "-C", repository] + list(words), env=ENV,
                          stdout=subprocess.PIPE, check=False)
    check(done.returncode == 0, f"git {words[0]}: exit status {done.returncode}")
    return done.stdout


def gc(original, out):
    repository = os.path.join(out, "r.git")
    shutil.copytree(original, repository)
    print("seed", SEED)
    git(repository, "-c", "pack.threads=2", "-c", "pack.window=50", "-c", "gc.autoDetach=false",
        "gc", "--aggressive", "--prune=now", "--quiet", prefix=case.prefix())
    for words in (("fsck", "--full", "--strict"), ("show-ref",), ("rev-list", "--objects", "--all"),
                  ("log", "-p", "-20", "main"),
                  ("cat-file", "--batch-all-objects", "--batch")):
        print(words[0], hashlib.sha256(git(repository, *words)).hexdigest())
    packs = [f for f in os.listdir(os.path.join(repository, "objects/pack")) if f.endswith(".pack")]
    print(len(packs), "pack")


if sys.argv[1] == "make":
    make(sys.argv[2], int(sys.argv[3]))
else:
    gc(sys.argv[2], sys.argv[3])
