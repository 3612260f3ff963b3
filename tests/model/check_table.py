#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Compares the transitions of the page-state model with the engine's table.

check_table.py pageword.h pagestate.pml [TAKEN...]

TAKEN: output of the verifiers; then each transition of the table must also have been
taken in some run, and none besides.
"""
import re
import sys


def table(path):
    text = open(path).read()
    start = text.index("#define EM_TRANSITIONS(T)")
    end = text.index("\n\n", start)
    return set(re.findall(r"\bT\((\w+),\s*(\w+),", text[start:end]))


def model(path):
    text = re.sub(r"/\*.*?\*/", "", open(path).read(), flags=re.S)
    states = set(re.search(r"mtype = \{(.*?)\}", text, re.S).group(1).replace(",", " ").split())
    pairs = re.findall(r"\b(?:GO|TAKE)\((\w+), (\w+)\)", text)
    pairs += [(a, "UPGRADE") for a in re.findall(r"\bTAKE_UPGRADE\((\w+)\)", text)]
    return {(a, b) for a, b in pairs if a in states and b in states}


def taken(paths):
    text = "".join(open(p).read() for p in paths)
    return set(re.findall(r"^TOOK (\w+) (\w+)$", text, re.M))


def compare(what, left, right):
    for a, b in sorted(left - right):
        print(f"{a} -> {b}: {what}")
    return bool(left - right)


def main():
    want = table(sys.argv[1])
    have = model(sys.argv[2])
    bad = compare("in the table, not in the model", want, have)
    bad |= compare("in the model, not in the table", have, want)
    if len(sys.argv) > 3:
        seen = taken(sys.argv[3:])
        bad |= compare("in the table, never taken in any run", want & have, seen)
        bad |= compare("taken, not in the table", seen, want)
    print(f"{len(want)} transitions in the table, {len(have)} in the model")
    return bad


if __name__ == "__main__":
    sys.exit(main())
