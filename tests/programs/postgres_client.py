#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""PostgreSQL under the engine: postgres_client.py BINDIR OUT small|large.

initdb; pgbench while large sorts, hash joins and an index build run in another session; all server
processes killed with SIGKILL in the middle of pgbench; recovery.  Then the money that pgbench has
moved must add up, and what the queries find must be as before.  Prints the results that do
not depend on timing.  The server runs as the user who owns OUT; as root that is postgres.
"""
import os
import pwd
import subprocess
import sys
import time

from driver import Server, check, tool, wait_for

SEED = "0.577"
SETTINGS = {
    "listen_addresses": "", "shared_buffers": "32MB", "huge_pages": "off", "autovacuum": "off",
    "max_parallel_workers_per_gather": "2", "max_connections": "40", "jit": "off",
    "log_min_messages": "warning", "checkpoint_timeout": "30s",
}
# They sort by b, of which the first bytes tell nearly all apart: PostgreSQL keeps these in the array that
# it sorts.  Keys that are often equal would cost a random read or two for each comparison.
QUERIES = (
    "SELECT md5(string_agg(b, ',' ORDER BY b, a)) FROM t",
    "SELECT count(*), sum(x.a), md5(min(y.b)) FROM t x JOIN t y ON x.c = y.a",
    "SELECT c % 100, count(*), sum(length(b)), max(b) FROM t GROUP BY 1 ORDER BY 1",
    "SELECT md5(string_agg(s, ',')) FROM (SELECT sum(a) OVER (ORDER BY b ROWS 50 PRECEDING)::text AS s"
    " FROM t ORDER BY b DESC LIMIT 20000) q",
)


class Cluster:
    def __init__(self, bindir, out, small):
        self.bindir, self.out, self.small = bindir, out, small
        self.data, self.log = os.path.join(out, "data"), os.path.join(out, "server.log")
        self.before = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(out, user.pw_uid, user.pw_gid)
            self.before = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]

    def program(self, name):
        return os.path.join(self.bindir, name)

    def client(self, name, *words, log="clients.log"):
        tool(self.before + [self.program(name), "-h", self.out] + list(words),
             os.path.join(self.out, log), cwd=self.out)

    def sql(self, text, settings=()):
        """In a session of its own; what psql prints."""
        words = self.before + [self.program("psql"), "-h", self.out, "-XAtq", "-v", "ON_ERROR_STOP=1",
                               "-d", "postgres"]
        for s in list(settings) + [text]:
            words += ["-c", s]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              cwd=self.out, stdin=subprocess.DEVNULL)
        check(done.returncode == 0, f"{text[:60]}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def start(self):
        command = [self.program("postgres"), "-D", self.data, "-k", self.out]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        server = Server(command, self.log, self.before, cwd=self.out)
        ready = self.before + [self.program("pg_isready"), "-q", "-h", self.out]
        wait_for("PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0, server)
        return server


def fill(db):
    rows = 60000 if db.small else 250000
    db.sql(f"SELECT setseed({SEED}); CREATE TABLE t AS SELECT i AS a, "
           "md5(random()::text) || repeat(md5(i::text), i % 7) AS b, "
           f"(i::bigint * 7919 % {rows})::int AS c FROM generate_series(0, {rows - 1}) i")
    db.sql("ANALYZE t")


def ask(db):
    """Everything in memory, as much as a session may have."""
    memory = ["SET work_mem = '1GB'", "SET maintenance_work_mem = '512MB'"]
    found = [db.sql(q, memory) for q in QUERIES]
    found.append(db.sql("CREATE INDEX tb ON t(b); SELECT count(*) FROM t WHERE b < 'a'; DROP INDEX tb",
                        memory))
    return found


def bench(db, seconds):
    return subprocess.Popen(
        db.before + [db.program("pgbench"), "-h", db.out, "-c", "6", "-j", "2", "-T", str(seconds),
                     "--random-seed=577", "-n", "postgres"],
        stdout=open(os.path.join(db.out, "pgbench.log"), "ab"), stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, cwd=db.out)


def money(db, before):
    """pgbench adds the same amount to an account, its branch and a teller, and notes it."""
    sums = db.sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM "
                  "pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT "
                  "coalesce(sum(delta), 0) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)")
    parts = sums.strip().split("|")
    check(len(set(parts[:4])) == 1, f"the sums of pgbench differ: {sums}")
    check(int(parts[4]) >= before, f"{parts[4]} transactions, there were {before}")
    return int(parts[4])


def descendants(pid):
    found = [pid]
    for p in found:
        try:
            with open(f"/proc/{p}/task/{p}/children") as f:
                found += [int(x) for x in f.read().split()]
        except OSError:
            pass
    return found


def kill_all(server):
    for pid in descendants(server.child.pid):
        try:
            os.kill(pid, 9)
        except OSError:
            pass
    server.ended()


def main():
    bindir, out, size = sys.argv[1:]
    db = Cluster(bindir, out, size == "small")
    print("seed", SEED)
    init = Server([db.program("initdb"), "-D", db.data, "--locale=C", "-E", "UTF8", "-A", "trust"],
                  os.path.join(out, "initdb.log"), db.before, cwd=out)
    check(init.ended(300) == 0, "initdb failed: " + init.said())
    server = db.start()
    fill(db)
    db.client("pgbench", "-i", "-q", "-s", "2" if db.small else "10", "postgres")
    load = bench(db, 5 if db.small else 10)
    found = ask(db)
    check(load.wait() == 0, "pgbench failed")
    done = money(db, 1)

    load = bench(db, 30)
    time.sleep(2)
    kill_all(server)
    load.wait()
    server = db.start()
    money(db, done)
    check(ask(db) == found, "after recovery the queries find something else")
    server.child.terminate()
    check(server.ended() == 0, "the server did not end well: " + server.said())
    print("".join(found))


sys.exit(main())
