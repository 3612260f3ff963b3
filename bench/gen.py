#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes input for real programs, the same bytes for the same arguments.

gen.py lines --bytes 500M [--seed N]      lines of random letters for sort
gen.py c --functions N [--seed N]         a C file that takes the compiler memory and time
"""
import argparse
import base64
import os
import random
import sys

sys.dont_write_bytecode = True  # nothing but what was asked for is written
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import units  # noqa: E402

BLOCK_BYTES = 768 * 1024
LINE_LENGTHS = (20, 100)


def write_lines(out, total_bytes, seed):
    """Random base64 text cut into lines of varying length; the last line is complete."""
    rng = random.Random(seed)
    written = 0
    while written < total_bytes:
        text = base64.b64encode(rng.randbytes(BLOCK_BYTES))
        lines = []
        at = 0
        while at < len(text):
            length = rng.randint(*LINE_LENGTHS)
            lines.append(text[at:at + length])
            at += length
        data = b"\n".join(lines) + b"\n"
        left = total_bytes - written
        if len(data) > left:
            data = data[:left - 1] + b"\n"
        out.write(data)
        written += len(data)


OPERATORS = ("+", "-", "^", "|", "&", "*")


def expression(rng, names, depth):
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(names) if rng.random() < 0.8 else str(rng.randint(1, 9999)) + "u"
    left = expression(rng, names, depth - 1)
    right = expression(rng, names, depth - 1)
    return f"({left} {rng.choice(OPERATORS)} {right})"


def function_text(rng, number):
    names = ["a", "b", "c", "s->x", "s->y", f"table[{rng.randint(0, 255)}]"]
    lines = [f"unsigned f{number}(struct state *s, unsigned a, unsigned b)", "{",
             f"\tunsigned c = {rng.randint(1, 99999)}u;"]
    lines.append(f"\tfor (unsigned i = 0; i < (a & {rng.choice((7, 15, 31, 63))}u); i++) {{")
    for _ in range(rng.randint(3, 6)):
        target = rng.choice(("c", "s->x", "s->y", "table[i]"))
        lines.append(f"\t\t{target} += {expression(rng, names + ['i'], 3)};")
    lines.append("\t}")
    lines.append(f"\tswitch (c % {rng.randint(5, 12)}u) {{")
    for case in range(rng.randint(3, 5)):
        lines.append(f"\tcase {case}: c ^= {expression(rng, names, 3)}; break;")
    lines.append(f"\tdefault: c += {expression(rng, names, 4)};")
    lines.append("\t}")
    if number:
        lines.append(f"\tif (c & {rng.choice((1, 2, 4))}u)")
        lines.append(f"\t\tc += f{rng.randrange(number)}(s, a >> 1, b ^ c);")
    lines += ["\treturn c;", "}", ""]
    return "\n".join(lines)


def write_c(out, functions, seed):
    rng = random.Random(seed)
    out.write(b"struct state { unsigned x, y; };\nunsigned table[256];\n\n")
    for number in range(functions):
        out.write(function_text(rng, number).encode() + b"\n")


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    lines = kinds.add_parser("lines")
    lines.add_argument("--bytes", type=units.parse_size, required=True)
    lines.add_argument("--seed", type=int, default=1)
    source = kinds.add_parser("c")
    source.add_argument("--functions", type=int, required=True)
    source.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    if args.kind == "lines":
        write_lines(sys.stdout.buffer, args.bytes, args.seed)
    else:
        write_c(sys.stdout.buffer, args.functions, args.seed)


if __name__ == "__main__":
    main(sys.argv[1:])
