#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Loads redis-server, reads and writes at random, and compares each answer with what it wrote.

Beside it redis-benchmark works on another database; meanwhile the server saves (BGSAVE) and
rewrites its log (BGREWRITEAOF).  Then it is restarted from the log, killed, and restarted
from the dump; the digest of all data has to be the same each time.  Prints a hash of our keys.
"""
import argparse
import hashlib
import os
import random
import socket
import subprocess
import sys

from driver import Server, check, free_port, tool, wait_for

BATCH = 128


class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb", 1 << 20)

    def reply(self):
        line = self.file.readline()
        check(line, "the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return check(False, "the server said " + line.decode(errors="replace"))

    def many(self, commands):
        out = []
        for words in commands:
            out.append(b"*%d\r\n" % len(words))
            for w in words:
                w = w if isinstance(w, bytes) else str(w).encode()
                out.append(b"$%d\r\n%s\r\n" % (len(w), w))
        self.sock.sendall(b"".join(out))
        return [self.reply() for _ in commands]

    def one(self, *words):
        return self.many([words])[0]

    def info(self, name):
        for line in self.one("INFO").decode().splitlines():
            if line.startswith(name + ":"):
                return line.split(":", 1)[1]
        return None


class Data:
    """What the server has to have: key i has the value of its version."""

    def __init__(self, seed, keys):
        self.seed, self.version, self.random = seed, [0] * keys, random.Random(seed)

    def value(self, i):
        h = hashlib.blake2b(b"%d %d %d" % (self.seed, i, self.version[i])).digest()
        return h * (1 + h[0] * h[1] // 700)

    def commands(self, i):
        """How key i is written: mostly a string, some other types."""
        v = self.value(i)
        if i % 8 == 1:
            return [("HSET", f"h:{i // 64}", i, v)]
        if i % 8 == 2:
            return [("ZADD", f"z:{i // 64}", self.version[i] * 1000 + i % 1000, b"m%d" % i)]
        return [("SET", f"k:{i}", v)]

    def question(self, i):
        if i % 8 == 1:
            return "HGET", f"h:{i // 64}", i
        if i % 8 == 2:
            return "ZSCORE", f"z:{i // 64}", b"m%d" % i
        return "GET", f"k:{i}"

    def answer(self, i):
        return b"%d" % (self.version[i] * 1000 + i % 1000) if i % 8 == 2 else self.value(i)


def load(client, data):
    for start in range(0, len(data.version), BATCH):
        client.many([c for i in range(start, min(start + BATCH, len(data.version)))
                     for c in data.commands(i)])


def verify(client, data, keys, when, total=None):
    for i, got in zip(keys, client.many([data.question(i) for i in keys])):
        check(got == data.answer(i), f"{when}: key {i}, version {data.version[i]}: {got!r:.100}")
        if total:
            total.update(got)


def verify_all(client, data, when):
    total = hashlib.sha256()
    for start in range(0, len(data.version), BATCH):
        verify(client, data, range(start, min(start + BATCH, len(data.version))), when, total)
    return total.hexdigest()


def rounds(client, data, n):
    for _ in range(n):
        verify(client, data, [data.random.randrange(len(data.version)) for _ in range(BATCH)],
               "random reads")
        writes = {data.random.randrange(len(data.version)) for _ in range(BATCH // 2)}
        for i in sorted(writes):
            data.version[i] += 1
        client.many([c for i in sorted(writes) for c in data.commands(i)])


def save(client, data, server, command, running, status, n):
    client.one(command)
    rounds(client, data, n)
    wait_for(command, lambda: client.info(running) == "0", server)
    check(client.info(status) == "ok", f"{command}: {client.info(status)}; {server.said()}")


def start(args, out, appendonly):
    sock = os.path.join(out, "redis.sock")
    port = free_port()
    server = Server(["redis-server", "--dir", out, "--unixsocket", sock, "--port", str(port),
                     "--save", "", "--appendonly", appendonly, "--appendfsync", "everysec",
                     # Only when we say so: ours is refused while one of the server's own is under way.
                     "--auto-aof-rewrite-percentage", "0",
                     "--enable-debug-command", "yes", "--daemonize", "no", "--io-threads",
                     args.io_threads], os.path.join(out, "server.log"))

    def ready():
        try:
            client = Client(sock)
            client.sock.sendall(b"PING\r\n")
            return client.file.readline() == b"+PONG\r\n"
        except OSError:
            return False
    wait_for("redis-server", ready, server)
    return server, Client(sock), port


def under_load(args, out, data):
    server, client, port = start(args, out, "yes")
    load(client, data)
    n = max(len(data.version) // BATCH // 8, 4)
    with open(os.path.join(out, "benchmark.log"), "wb") as log:
        bench = subprocess.Popen(
            ["redis-benchmark", "-p", str(port), "-t", "set,get,lpush,lpop,sadd,hset,mset", "-r",
             str(len(data.version)), "-d", "512", "-n", str(len(data.version) // 3), "-P", "8", "-c",
             "20", "-q", "--dbnum", "1"], stdout=log, stderr=log)
    rounds(client, data, n)
    save(client, data, server, "BGSAVE", "rdb_bgsave_in_progress", "rdb_last_bgsave_status", n)
    save(client, data, server, "BGREWRITEAOF", "aof_rewrite_in_progress",
         "aof_last_bgrewrite_status", n)
    check(bench.wait() == 0, "redis-benchmark failed")
    print(verify_all(client, data, "after the load"))
    digest = client.one("DEBUG", "DIGEST")
    client.sock.sendall(b"SHUTDOWN NOSAVE\r\n")
    server.ended()
    return digest


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--keys", type=int, default=100000)
    p.add_argument("--seed", type=int, default=3171)
    p.add_argument("--io-threads", default="2")
    args = p.parse_args()
    data = Data(args.seed, args.keys)
    print(f"seed {args.seed}")
    digest = under_load(args, args.out, data)

    server, client, port = start(args, args.out, "yes")
    check(client.one("DEBUG", "DIGEST") == digest, "restarted from the log, the data differ")
    rounds(client, data, 4)
    tool(["redis-cli", "-p", str(port), "SAVE"], os.path.join(args.out, "cli.log"))
    digest = client.one("DEBUG", "DIGEST")
    server.kill()

    server, client, _ = start(args, args.out, "no")
    check(client.one("DEBUG", "DIGEST") == digest, "restarted from the dump, the data differ")
    print(verify_all(client, data, "after the restarts"))
    client.sock.sendall(b"SHUTDOWN NOSAVE\r\n")
    server.ended()


sys.exit(main())
