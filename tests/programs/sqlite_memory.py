#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""SQLite, database in memory: sqlite_memory.py ROWS DIR.  Prints what the queries found.

Two databases in two threads; a table with two indexes, updates and deletes at random (rolled
back now and then), joins and sorts larger than the page cache of a file would be, VACUUM, a check,
and a copy in a file.
"""
import hashlib
import os
import random
import sqlite3
import sys
import threading

SEED = 2718


def text(i):
    h = hashlib.blake2b(b"%d" % i).hexdigest()
    return h * (1 + i % 5)


def fill(db, rows):
    db.execute("PRAGMA temp_store=MEMORY")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT, c BLOB)")
    db.executemany("INSERT INTO t VALUES(?,?,?,?)",
                   ((i, i * 7919 % rows, text(i), bytes(i % 97)) for i in range(rows)))
    db.execute("CREATE INDEX ta ON t(a)")
    db.execute("CREATE INDEX tb ON t(b)")
    db.commit()


def change(db, rows, rng):
    for turn in range(20):
        for _ in range(rows // 400):
            i = rng.randrange(rows)
            db.execute("UPDATE t SET b=?, a=a+1 WHERE id=?", (text(i + turn), i))
            db.execute("DELETE FROM t WHERE id=?", (rng.randrange(rows),))
        if turn % 5 == 4:
            db.rollback()
        else:
            db.commit()


def ask(db, say):
    total = hashlib.sha256()
    for row in db.execute("SELECT * FROM t ORDER BY b, id"):
        total.update(repr(row).encode())
    say(total.hexdigest())
    say(db.execute("SELECT count(*), sum(a), sum(length(b)), sum(length(c)) FROM t").fetchall())
    say(db.execute("SELECT x.a % 10, count(*), sum(length(y.b)) FROM t x JOIN t y ON x.a = y.id "
                   "GROUP BY 1 ORDER BY 1").fetchall())
    say(db.execute("SELECT substr(b, 1, 2), count(DISTINCT a) FROM t GROUP BY 1 ORDER BY 2 DESC, 1 "
                   "LIMIT 20").fetchall())


def work(number, rows, out, lines):
    rng = random.Random(SEED + number)
    db = sqlite3.connect(":memory:")
    fill(db, rows)
    change(db, rows, rng)
    ask(db, lines.append)
    db.execute("VACUUM")
    lines.append(db.execute("PRAGMA integrity_check").fetchall())
    if number == 0:
        db.execute("VACUUM INTO ?", (os.path.join(out, "copy.db"),))
    db.close()


def main():
    rows, out = int(sys.argv[1]), sys.argv[2]
    print("seed", SEED)
    lines = [[], []]
    threads = [threading.Thread(target=work, args=(n, rows // (n + 1), out, lines[n]))
               for n in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for part in lines:
        for line in part:
            print(line)


main()
