# SPDX-License-Identifier: MIT
"""git gc on a large generated repository."""
import os
import shutil
import subprocess
import sys

from case import HERE, Case


def cases(args, work):
    size = "400" if args.quick else "4000"
    repository = os.path.join(work, f"repository-{size}.git")

    def make():
        if not os.path.exists(repository):
            shutil.rmtree(repository + ".new", ignore_errors=True)
            subprocess.run([sys.executable, "-B", os.path.join(HERE, "git_gc.py"), "make",
                            repository + ".new", size], check=True)
            os.rename(repository + ".new", repository)

    yield Case("git-gc", lambda out: [sys.executable, "-B", os.path.join(HERE, "git_gc.py"), "gc",
                                      repository, out],
               prepare=make, needs=("git",), heavy=True, driver=True)
