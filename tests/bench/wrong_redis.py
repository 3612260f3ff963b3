#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A server that accepts every SET and answers every GET with 64 bytes of its own.

    wrong_redis.py SOCKET

For one connection; ends with it.
"""
import socket
import sys

with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    stream = listener.accept()[0].makefile("rwb")
    while True:
        head = stream.readline()
        if not head:
            break
        words = [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
        if words[0] == b"SHUTDOWN":
            break
        stream.write(b"+OK\r\n" if words[0] == b"SET" else b"$64\r\n" + b"x" * 64 + b"\r\n")
        stream.flush()
