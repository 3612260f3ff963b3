#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The torture program, which verifies every word, while it is controlled at random:
under_load.py BUILD TORTURE [SECONDS [SEED]].  Prints TAP.

Budgets go up and down between a tenth and all of the memory, policies change, everything is
written out and brought in again.  Afterwards the resident bound must hold.
"""
import json
import os
import random
import signal
import subprocess
import sys
import time

BUILD, TORTURE = sys.argv[1:3]
SECONDS = int(sys.argv[3]) if len(sys.argv) > 3 else 6
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.SystemRandom().randrange(1 << 30)
EXTMEM = os.path.join(BUILD, 'extmem')
CELLS = [
    ('budget', 'upcall', '2q', ['budget'], []),
    ('policy', 'upcall', 'fifo', ['policy'], []),
    ('evict and load', 'upcall', '2q', ['evict', 'load'], []),
    ('everything', 'upcall', '2q', ['budget', 'policy', 'evict', 'load', 'stats'], ['--timer']),
    ('everything, without write protection', 'upcall', 'fifo',
     ['budget', 'policy', 'evict', 'load'], ['mask']),
    ('everything, handler threads', 'thread,n=2', '2q', ['budget', 'policy', 'evict', 'load'], []),
]


def ctl(pid, *words):
    return subprocess.run([EXTMEM, 'ctl', str(pid), *words], capture_output=True, text=True,
                          timeout=60)


def command(rng, kinds):
    kind = rng.choice(kinds)
    if kind == 'budget':
        return ['budget', f'{rng.randrange(3 << 10, 34 << 10)}K']
    if kind == 'policy':
        return ['policy', rng.choice(['2q', 'fifo', '2q,in=60', 'fifo,cluster=off'])]
    return [kind] if kind == 'stats' else [kind, 'all']


def settle(pid, problems):
    """A small budget at the end: it must be kept from then on."""
    got = ctl(pid, 'budget', '4M')
    if got.returncode:
        problems.append(f'last budget: {got.stderr.strip()}')
        return
    for _ in range(5):
        time.sleep(0.1)
        got = ctl(pid, 'stats', '--json')
        if got.returncode:
            return
        s = json.loads(got.stdout)
        # Each thread may be bringing in one run of 16 pages while others make room.
        if s['resident_bytes'] > (4 << 20) + 8 * 16 * 4096 and not s['evictions']['budget_overruns']:
            problems.append(f'resident {s["resident_bytes"]} at a budget of 4 MiB')


def run_cell(cell, seed):
    name, delivery, policy, kinds, extra = cell
    rng = random.Random(seed)
    env = dict(os.environ)
    if 'mask' in extra:
        env['EXTMEM_MASK'] = 'wp'
    args = [EXTMEM, 'run', '--dram', '8M', '--delivery', delivery, '--policy', policy, '--',
            TORTURE, '--seed', str(seed), '--seconds', str(SECONDS), '--bytes', '8M', '--threads',
            '4', '--stall', '60'] + [e for e in extra if e.startswith('--')]
    p = subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    problems, done = [], 0
    end = time.time() + SECONDS - 1
    try:
        while time.time() < end and p.poll() is None:
            words = command(rng, kinds)
            got = ctl(p.pid, *words)
            if got.returncode and p.poll() is None and done:
                problems.append(f'{" ".join(words)}: {got.stderr.strip()}')
            done += not got.returncode
            time.sleep(rng.random() * 0.05)
        if p.poll() is None:
            settle(p.pid, problems)
        out, _ = p.communicate(timeout=SECONDS + 90)
    except subprocess.TimeoutExpired:
        p.send_signal(signal.SIGKILL)
        out, _ = p.communicate()
        problems.append('hangs')
    if p.returncode:
        problems.append(f'exit status {p.returncode}')
        problems += out.splitlines()[-8:]
    if done < 3:
        problems.append(f'only {done} commands were carried out')
    return problems, done


def main():
    bad = False
    print(f'# seed {SEED}')
    print(f'1..{len(CELLS)}')
    for i, cell in enumerate(CELLS):
        problems, done = run_cell(cell, SEED + i)
        bad |= bool(problems)
        print(f'{"not ok" if problems else "ok"} {i + 1} - {cell[0]}, seed {SEED + i}, '
              f'{done} commands', flush=True)
        for p in problems[:12]:
            print(f'# {p}')
    return bad


sys.exit(main())
