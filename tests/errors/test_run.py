#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The command with the real library, seen from outside: test_run.py BUILD PROG"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD, PROG = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
EXTMEM = os.path.join(BUILD, 'extmem')
PRELOAD = os.path.join(BUILD, 'libextmem-preload.so')
PYTHON = '/usr/bin/python3'
CHURN = '''
import hashlib
blocks = [bytearray([i & 255]) * 65536 for i in range(512)]
assert all(b == bytearray([i & 255]) * 65536 for i, b in enumerate(blocks))
print(hashlib.sha256(b"".join(blocks)).hexdigest())
'''


def setUpModule():
    global DIR
    DIR = os.path.realpath(tempfile.mkdtemp(prefix='extmem-run-', dir='/var/tmp'))
    for name in list(os.environ):
        if name.startswith('EXTMEM_') or name in ('DRAMSIZE', 'SWAPDIR', 'SWAPPATH', 'LD_PRELOAD'):
            del os.environ[name]


def tearDownModule():
    shutil.rmtree(DIR)


def command(*args, options=(), dram='2M'):
    return [EXTMEM, 'run', '--dram', dram, '--swap', DIR, *options, '--', *args]


def call(argv, env=None, **kw):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60,
                          env={**os.environ, **(env or {})}, **kw)


class Status(unittest.TestCase):
    def check(self, script, status, out='', err=''):
        p = call(command('/bin/sh', '-c', script))
        self.assertEqual((p.returncode, p.stdout, p.stderr), (status, out, err))

    def test_exit_status(self):
        self.check('exit 7', 7)
        self.check('exit 0', 0)
        self.check('exit 255', 255)

    def test_signals(self):
        # Started by nohup or in the background, some of them would be ignored in the children too.
        for name in ('INT', 'HUP'):
            before = signal.signal(getattr(signal, 'SIG' + name), signal.SIG_DFL)
            self.addCleanup(signal.signal, getattr(signal, 'SIG' + name), before)
        for name in ('TERM', 'KILL', 'INT', 'HUP', 'SEGV', 'ABRT', 'PIPE', 'USR1', 'BUS'):
            with self.subTest(signal=name):
                self.check(f'ulimit -c 0; kill -{name} $$', -getattr(signal, 'SIG' + name))

    def test_streams(self):
        self.check('echo out; echo err >&2', 0, 'out\n', 'err\n')
        data = os.urandom(3 << 20)
        p = subprocess.run(command('/bin/cat'), input=data, capture_output=True, timeout=60)
        self.assertEqual((p.returncode, p.stderr), (0, b''))
        self.assertTrue(p.stdout == data)

    def test_python_natively_and_managed(self):
        native = call([PYTHON, '-c', CHURN])
        p = call(command(PYTHON, '-c', CHURN, dram='8M'))
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, native.stdout, ''))

    def test_original_variables(self):
        native = call([PYTHON, '-c', CHURN])
        stats = os.path.join(DIR, 'original')
        p = call([PYTHON, '-c', CHURN],
                 env={'DRAMSIZE': str(8 << 20), 'SWAPDIR': DIR, 'LD_PRELOAD': PRELOAD,
                      'EXTMEM_STATS': stats})
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, native.stdout, ''))
        with open(stats) as f:
            self.assertEqual(json.load(f)['budget_bytes'], 8 << 20)

    def test_bad_environment(self):
        for env in ({'DRAMSIZE': 'lots'}, {'EXTMEM_DRAM': '4K'}, {'SWAPDIR': '/no/such/place'},
                    {'EXTMEM_POLICY': 'lru2'}, {'EXTMEM_PREFETCH': 'magic'},
                    {'EXTMEM_DELIVERY': 'pigeon'}, {'EXTMEM_MIN_MAP': '-1'},
                    {'SWAPPATH': '/dev/null'}):
            for argv, more in (([EXTMEM, 'run', '--', '/bin/echo', 'ran'], {}),
                               (['/bin/echo', 'ran'], {'LD_PRELOAD': PRELOAD})):
                with self.subTest(env=env, argv=argv[0]):
                    p = call(argv, env={**env, **more})
                    self.assertEqual((p.returncode, p.stdout), (2, ''), p.stderr)
                    self.assertRegex(p.stderr, r'\Aextmem: [^\n]+\n\Z')


class Stats(unittest.TestCase):
    def read(self, name):
        with open(name) as f:
            return json.load(f)

    def test_normal_exit(self):
        name = os.path.join(DIR, 'stats')
        p = call(command(PROG, 'nothing', options=('--stats', name)))
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        stats = self.read(name)
        self.assertEqual(stats['budget_bytes'], 2 << 20)
        self.assertLessEqual(stats['resident_peak_bytes'], 6 << 20)
        self.assertGreaterEqual(stats['resident_peak_bytes'], 1 << 20)

    def test_child(self):
        """A process that was forked writes beside the name, its number behind it."""
        name = os.path.join(DIR, 'forked')
        p = call(command(PROG, 'fork', options=('--stats', name)))
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        self.assertIsInstance(self.read(name), dict)
        children = glob.glob(name + '.*')
        self.assertEqual(len(children), 1)
        self.assertIsInstance(self.read(children[0]), dict)

    def test_stderr(self):
        p = call(command(PROG, 'nothing', options=('--stats', '-')))
        self.assertEqual(p.returncode, 0)
        self.assertIsInstance(json.loads(p.stderr), dict)

    def test_exit_in_other_ways(self):
        for how in ('os._exit(3)', 'sys.exit(3)', 'os.execv("/bin/sh", ["sh", "-c", "exit 3"])'):
            with self.subTest(how=how):
                name = os.path.join(DIR, 'ways')
                p = call(command(PYTHON, '-c', f'import os, sys; x = bytearray(16 << 20); {how}',
                                 options=('--stats', name)))
                self.assertEqual((p.returncode, p.stderr), (3, ''))
                self.assertIsInstance(self.read(name), dict)
                os.unlink(name)


class SwapFile(unittest.TestCase):
    def test_nothing_is_left(self):
        where = os.path.join(DIR, 'swap')
        os.mkdir(where)
        for sig in (signal.SIGKILL, signal.SIGTERM):
            p = subprocess.Popen([EXTMEM, 'run', '--dram', '2M', '--swap', where, '--', PROG,
                                  'wait'], stdout=subprocess.PIPE)
            self.assertEqual(p.stdout.read(5), b'full\n')
            time.sleep(0.2)
            self.assertEqual(os.listdir(where), [])
            p.send_signal(sig)
            self.assertEqual(p.wait(30), -sig)
            p.stdout.close()
            self.assertEqual(os.listdir(where), [])

    def test_named_file_stays_and_is_private(self):
        name = os.path.join(DIR, 'named')
        p = call([EXTMEM, 'run', '--dram', '2M', '--swap', name, '--', PROG, 'nothing'])
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        self.assertEqual(os.stat(name).st_mode & 0o777, 0o600)


class Disturbed(unittest.TestCase):
    """Programs that do what must not matter, while most of their memory is swapped out."""


def disturbed(what, delivery, want=0):
    def test(self):
        p = call(command(PROG, what, options=('--delivery', delivery)))
        self.assertEqual((p.returncode, p.stdout, p.stderr), (want, '', ''))
    return test


for _what in ('nothing', 'close_loop', 'close_range', 'closefrom', 'dup_over', 'daemon', 'numbers',
              'own_sigbus', 'sigbus_kills', 'vfork', 'spawn', 'system', 'popen', 'from_threads',
              'fork'):
    for _delivery in ('upcall', 'thread'):
        setattr(Disturbed, f'test_{_what}_{_delivery}',
                disturbed(_what, _delivery, -signal.SIGBUS if _what == 'sigbus_kills' else 0))


class FollowExec(unittest.TestCase):
    """What is executed is managed too, or finds no trace of extmem."""

    SCRIPT = 'grep -c libextmem-preload /proc/self/maps; env | grep -e EXTMEM -e PRELOAD; true'

    def output(self, *options, **env):
        p = subprocess.run(command('/bin/sh', '-c', self.SCRIPT, options=options), text=True,
                           env=dict(os.environ, **env), stdout=subprocess.PIPE, timeout=60)
        return p.stdout.splitlines()

    def test_followed_by_default(self):
        lines = self.output()
        self.assertGreater(int(lines[0]), 0)
        self.assertTrue(any(i.startswith('EXTMEM_DRAM=') for i in lines))

    def test_not_followed(self):
        self.assertEqual(self.output('--follow-exec', 'no'), ['0'])
        self.assertEqual(self.output(EXTMEM_FOLLOW_EXEC='no'), ['0'])

    def test_other_preloaded_libraries_stay(self):
        lib = '/lib/x86_64-linux-gnu/libutil.so.1'
        if not os.path.exists(lib):
            self.skipTest('no ' + lib)
        self.assertEqual(self.output('--follow-exec', 'no', LD_PRELOAD=lib),
                         ['0', 'LD_PRELOAD=' + lib])


class Natively(unittest.TestCase):
    def test_the_programs_themselves(self):
        for what in ('close_loop', 'numbers', 'own_sigbus', 'spawn', 'popen', 'from_threads'):
            p = call([PROG, what])
            self.assertEqual((p.returncode, p.stdout, p.stderr), (0, '', ''), what)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
