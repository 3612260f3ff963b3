# SPDX-License-Identifier: MIT
"""make -j2 of a C program, every process of it managed: the source package of redis."""
import os
import subprocess
import sys

from case import HERE, Case, Skip


def fetch(to):
    """With lists of our own, for few systems have sources among theirs."""
    if os.path.exists(os.path.join(to, "done")):
        return
    os.makedirs(os.path.join(to, "lists/partial"), exist_ok=True)
    with open("/etc/os-release") as f:
        release = dict(line.rstrip().replace('"', "").split("=", 1) for line in f if "=" in line)
    with open(os.path.join(to, "sources.list"), "w") as f:
        f.write(f"deb-src http://deb.debian.org/debian {release.get('VERSION_CODENAME')} main\n")
    options = []
    for name in (f"Dir::Etc::sourcelist={to}/sources.list", "Dir::Etc::sourceparts=-",
                 f"Dir::State::lists={to}/lists", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
                 "APT::Sandbox::User=root"):
        options += ["-o", name]
    for words in (["update"], ["source", "--download-only", "redis"]):
        done = subprocess.run(["apt-get", "-qq"] + options + words, cwd=to, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skip("apt-get " + words[0] + ": " + done.stderr.strip().replace("\n", " | "))
    with open(os.path.join(to, "done"), "w"):
        pass


def cases(args, work):
    source = os.path.join(work, "source-redis")
    build = os.path.join(work, "build-redis")
    target = "redis-cli" if args.quick else "all"
    yield Case("make", lambda out: [sys.executable, "-B", os.path.join(HERE, "make_build.py"),
                                    source, build, out, target],
               files=("stdout", "build.log"), prepare=lambda: fetch(source), heavy=True, driver=True,
               needs=("apt-get", "make", "gcc", "tar"), percent=15)
