#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Keeps the page-state tables of docs/design.md those of src/core/pageword.h.

check_states.py pageword.h design.md            exit status 1 when they differ
check_states.py --write pageword.h design.md    writes them anew
"""
import re
import sys

BEGIN, END = "<!-- page states: tools/check_states.py -->", "<!-- end of page states -->"


def states(text):
    """Rows of the table in the comment: name, mapped, slot, stable, meaning."""
    start = text.index(" *   state      mapped")
    rows = []
    for line in text[start:text.index("*/", start)].splitlines()[1:]:
        first = re.match(r" \*   ([A-Z]+) +(\S+) +(\S+) +(\S+) +(.*)", line)
        more = re.match(r" \* {20,}(\S.*)", line)
        if first:
            rows.append(list(first.groups()))
        elif more and rows:
            rows[-1][4] += " " + more.group(1)
    return rows


def enum(text):
    body = re.search(r"enum em_state \{(.*?)\}", text, re.S).group(1)
    return [n for n in re.findall(r"EM_(\w+)", body) if n != "NSTATES"]


def transitions(text):
    start = text.index("#define EM_TRANSITIONS(T)")
    return re.findall(r'\bT\((\w+),\s*(\w+),\s*"([^"]*)"\)', text[start:text.index("\n\n", start)])


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def tables(text):
    rows = states(text)
    names = [row[0] for row in rows]
    if names != enum(text):
        sys.exit(f"states in the comment {names} are not those of the enum {enum(text)}")
    moves = transitions(text)
    unknown = {n for move in moves for n in move[:2]} - set(names)
    if unknown:
        sys.exit(f"transitions of unknown states: {sorted(unknown)}")
    return (BEGIN + "\n\n" + table(["state", "mapped", "slot", "stable", "meaning"], rows) + "\n\n" +
            table(["from", "to", "by whom and why"], moves) + "\n\n" + END)


def main(argv):
    write = argv[:1] == ["--write"]
    header, design = argv[1:] if write else argv
    want = tables(open(header, encoding="utf-8").read())
    doc = open(design, encoding="utf-8").read()
    at, end = doc.index(BEGIN), doc.index(END) + len(END)
    if doc[at:end] == want:
        print(f"{design}: the tables are those of {header}")
        return 0
    if write:
        with open(design, "w", encoding="utf-8") as out:
            out.write(doc[:at] + want + doc[end:])
        return 0
    have = set(doc[at:end].splitlines())
    for line in want.splitlines():
        if line not in have:
            print(f"missing: {line}")
    for line in sorted(have - set(want.splitlines())):
        print(f"not in {header}: {line}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
