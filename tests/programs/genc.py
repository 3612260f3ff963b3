#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""genc.py N: a C file of N functions that give a compiler something to do."""
import sys

n = int(sys.argv[1])
state = 12345


def rnd(k):
    global state
    state = (state * 1103515245 + 12345) % (1 << 31)
    return (state >> 8) % k


print("struct node { long key; double weight; struct node *left, *right; };")
for i in range(n):
    print(f"long f{i}(struct node *n, long a, long b, double *v, int m)\n{{")
    print("\tlong s = a, t = b;\n\tfor (int i = 0; i < m; i++) {")
    for _ in range(12):
        k = rnd(6)
        if k == 0:
            print(f"\t\tv[i] = v[i] * {rnd(99)}.5 + v[(i + {rnd(7)}) % m];")
        elif k == 1:
            print(f"\t\tif (s % {rnd(50) + 2} == {rnd(3)}) t += s / {rnd(9) + 1}; else s -= t >> {rnd(5)};")
        elif k == 2:
            print(f"\t\tswitch ((t + i) & 7) {{ case {rnd(4)}: s ^= t; break; "
                  f"case {rnd(4) + 4}: s += {rnd(1000)}; break; default: t++; }}")
        elif k == 3 and i:
            print(f"\t\ts += f{rnd(i)}(n, t, i, v, m / {rnd(3) + 2});")
        elif k == 4:
            print(f"\t\tfor (struct node *p = n; p; p = p->key < {rnd(100)} ? p->left : p->right) "
                  "s += p->key;")
        else:
            print(f"\t\ts = s * {rnd(1000) + 3} + t; t = (t << {rnd(5) + 1}) ^ (s >> {rnd(20)});")
    print("\t}\n\treturn s + t;\n}\n")
print("long (*const table[])(struct node *, long, long, double *, int) = {")
print(",\n".join(f"\tf{i}" for i in range(n)))
print("};")
