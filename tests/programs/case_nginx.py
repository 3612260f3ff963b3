# SPDX-License-Identifier: MIT
"""nginx serving files from large buffers to many slow clients."""
import os
import sys

from case import HERE, Case


def cases(args, work):
    clients = "12" if args.quick else "60"
    yield Case("nginx", lambda out: [sys.executable, "-B", os.path.join(HERE, "nginx_client.py"), out,
                                     clients],
               needs=("/usr/sbin/nginx",), heavy=True, driver=True,
               logs=("server.log", "error.log"))
