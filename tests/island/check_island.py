#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The signal-handler allow-list: check_island.py ARCHIVE LIBRARY ALLOWED COMPILER...

The island is all code that may run inside the SIGBUS upcall or inside a hooked system call.
It may call nothing but itself and what ALLOWED names, and its C code uses no vector or x87
register.  The checker is checked too, with objects that break each rule.  Prints TAP.
"""
import os
import re
import subprocess
import sys
import tempfile

VECTOR = re.compile(r'%(?:[xyz]mm\d+|mm\d|st\b|k[0-7]\b)|\t(?:emms|fxsave|fldcw|fnstcw)\b')
# Saves and restores the caller's vector registers around Zydis: that is its purpose.
ASSEMBLER = {'src_intercept_entry.S.o'}


def tool(*args):
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout


def symbols(objects):
    """(defined, {undefined: objects that want it})"""
    defined, wanted = set(), {}
    for line in tool('nm', '-A', *objects).splitlines():
        # archive:member.o:000 T name, archive:member.o: U name, or without the archive
        where, fields = re.match(r'(.*\.o):\s*(.*)$', line).groups()
        fields = fields.split()
        if len(fields) == 2 and fields[0] in 'Uwv':
            wanted.setdefault(fields[1], set()).add(os.path.basename(where))
        elif len(fields) == 3 and (fields[1].isupper() or fields[1] == 'u'):
            defined.add(fields[2])
    return defined, wanted


def strangers(objects, allowed):
    defined, wanted = symbols(objects)
    return [f'{name} (wanted by {", ".join(sorted(who))})'
            for name, who in sorted(wanted.items()) if name not in defined | allowed]


def vector_code(objects):
    found, where, member = [], '?', '?'
    for line in tool('objdump', '-d', '--no-show-raw-insn', *objects).splitlines():
        file = re.match(r'(\S+\.o):\s+file format', line)
        if file:
            member = os.path.basename(file.group(1))
        elif line.endswith('>:'):
            where = line.split('<')[1][:-2]
        elif member not in ASSEMBLER and VECTOR.search(line):
            found.append(f'{member}: {where}: {line.split(chr(9), 1)[-1].strip()}')
    return found


def thread_calls(objects):
    """Thread-local variables are reached by initial-exec only: no call of __tls_get_addr."""
    return [line.strip() for line in tool('readelf', '-rW', *objects).splitlines()
            if re.search(r'R_X86_64_(TLSGD|TLSLD|GOTPC32_TLSDESC|TLSDESC)', line)]


def own_relocations(library):
    """Slots that the dynamic linker would fill in at the first call, inside a handler."""
    text = tool('readelf', '-dW', library)
    return [] if re.search(r'BIND_NOW|FLAGS.*NOW', text) else ['the library is not linked with -z now']


class Tap:
    def __init__(self):
        self.n, self.bad = 0, False

    def tell(self, good, name, problems=()):
        self.n += 1
        self.bad |= not good
        print(f'{"ok" if good else "not ok"} {self.n} - {name}')
        for p in list(problems)[:20]:
            print(f'# {p}')

    def clean(self, name, problems):
        self.tell(not problems, name, problems)


OFFENDERS = [
    ('calls malloc', '#include <stdlib.h>\nvoid *f(unsigned n) { return malloc(n); }', []),
    ('prints', '#include <stdio.h>\nvoid f(int n) { printf("%d\\n", n); }', []),
    ('refers weakly', 'int w(void) __attribute__((weak)); int f(void) { return w ? w() : 0; }', []),
    ('takes the address', '#include <string.h>\nvoid *f(void) { return (void *)memcpy; }', []),
    ('reads errno', '#include <errno.h>\nint f(void) { return errno; }', []),
    ('has hidden memset', 'void f(char *p, unsigned long n)\n'
     '{ for (unsigned long i = 0; i < n; i++) p[i] = 0; }', ['-O3']),
]


def negative_controls(tap, cc, allowed, dir):
    def build(text, *flags):
        source, out = os.path.join(dir, 'x.c'), os.path.join(dir, 'x.c.o')
        with open(source, 'w') as f:
            f.write(text)
        subprocess.run([*cc, '-O2', '-fPIC', *flags, '-c', source, '-o', out], check=True)
        return [out]

    for name, text, flags in OFFENDERS:
        tap.tell(bool(strangers(build(text, *flags), allowed)), f'finds code that {name}')
    tap.tell(bool(vector_code(build('double f(double x) { return x * 2; }'))),
             'finds code with vector registers')
    tap.tell(bool(vector_code(build('long double f(long double x) { return x * 2; }'))),
             'finds code with x87 registers')
    tls = 'static __thread int t; int *f(void) { return &t; }'
    tap.tell(bool(thread_calls(build(tls, '-ftls-model=global-dynamic'))),
             'finds thread-local storage that needs a call')
    good = build('int g(int); int g(int x) { return x + 1; } int f(int x) { return g(x); }',
                 '-mgeneral-regs-only')
    tap.tell(not strangers(good, allowed) and not vector_code(good) and not thread_calls(good),
             'finds nothing in harmless code')


def main():
    archive, library, allowed_file, *cc = sys.argv[1:]
    with open(allowed_file) as f:
        allowed = {line.strip() for line in f if line.strip() and not line.startswith('#')}
    tap = Tap()
    _, wanted = symbols([archive])
    tap.tell(len(wanted) > 10, 'the archive has code in it')
    tap.clean('the island refers to nothing but itself and the list', strangers([archive], allowed))
    tap.clean('nothing is on the list in vain', sorted(allowed - set(wanted)))
    tap.clean('no vector or x87 register in C code', vector_code([archive]))
    tap.clean('no thread-local storage that needs a call', thread_calls([archive]))
    tap.clean('the library is bound at load', own_relocations(library))
    with tempfile.TemporaryDirectory() as dir:
        negative_controls(tap, cc, allowed, dir)
    print(f'1..{tap.n}')
    return tap.bad


sys.exit(main())
