#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Programs on a store that fails, stalls, or is full: test_store.py BUILD PROG"""
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD, PROG = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
EXTMEM = os.path.join(BUILD, 'extmem')
READ_LINE = re.compile(r'extmem: swap read failed: page 0x([0-9a-f]+), region 0x([0-9a-f]+)-'
                       r'0x([0-9a-f]+) offset (\d+), store (\S+) offset (\d+), errno (\d+) '
                       r'\((\w+)\): SIGBUS for who needs it\n')
FULL_LINE = re.compile(r'extmem: the swap store \S+ takes no more, errno 5 \(EIO\)[^\n]+\n')
WRITE_LINE = re.compile(r'extmem: swap write failed: store (\S+) offset (\d+), errno (\d+) '
                        r'\((\w+)\): the pages stay in memory\n')
# Each is seen by its own code: the ring, plain transfers, eviction without write protection, threads.
WAYS = {'uring': ('', 'upcall'), 'plain': ('uring', 'upcall'), 'lifting': ('wp', 'upcall'),
        'thread': ('', 'thread')}


def setUpModule():
    global DIR, SWITCH, STATS
    DIR = os.path.realpath(tempfile.mkdtemp(prefix='extmem-store-', dir='/var/tmp'))
    SWITCH, STATS = os.path.join(DIR, 'switch'), os.path.join(DIR, 'stats')
    for name in list(os.environ):
        if name.startswith('EXTMEM_') or name in ('DRAMSIZE', 'SWAPDIR', 'SWAPPATH', 'LD_PRELOAD'):
            del os.environ[name]


def tearDownModule():
    shutil.rmtree(DIR)


def run(what, inject='', way='uring', swap=None, dram='1M', options=(), timeout=60, **kw):
    mask, delivery = WAYS[way]
    if os.path.exists(SWITCH):
        os.unlink(SWITCH)
    env = {**os.environ, 'EXTMEM_INJECT': inject.replace('SWITCH', SWITCH), 'EXTMEM_MASK': mask}
    p = subprocess.run([EXTMEM, 'run', '--dram', dram, '--swap', swap or DIR, '--delivery', delivery,
                        '--stats', STATS, *options, '--', PROG, what, SWITCH],
                       capture_output=True, text=True, timeout=timeout, env=env, **kw)
    return p


def stats():
    with open(STATS) as f:
        return json.load(f)


class Case(unittest.TestCase):
    def ok(self, p, out='', err=''):
        self.assertEqual(p.returncode, 0, (p.stdout, p.stderr))
        self.assertRegex(p.stdout, rf'\A{out}\Z')
        self.assertRegex(p.stderr, rf'\A{err}\Z')


class Reads(Case):
    TEN = 'read:eio,slots=100-109,when=SWITCH'

    def lines(self, p, code=5, name='EIO'):
        """Each line is whole and names what it should; the slots they name."""
        found = READ_LINE.findall(p.stderr)
        self.assertEqual(READ_LINE.sub('', p.stderr), '')
        for page, start, end, offset, store, at, errno, errno_name in found:
            self.assertEqual(int(page, 16) - int(start, 16), int(offset))
            self.assertLess(int(page, 16), int(end, 16))
            self.assertEqual((store, int(errno), errno_name), (DIR, code, name))
        return [int(f[5]) // 4096 for f in found]

    def check(self, what, out='lost {n}', way='uring'):
        p = run(what, self.TEN, way)
        self.assertEqual(p.returncode, 0, (p.stdout, p.stderr))
        slots = self.lines(p)
        # once for each page, and for no other page
        self.assertEqual(len(slots), len(set(slots)))
        self.assertTrue(set(slots) <= set(range(100, 110)), slots)
        self.assertGreaterEqual(len(slots), 7)
        self.assertEqual(p.stdout, out.format(n=len(slots)) + '\n')
        self.assertEqual(stats()['io']['read_errors'], len(slots))

    def test_sigbus_exactly_there(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.check('reads', way=way)

    def test_the_store_recovers(self):
        self.check('recovers', 'lost {n}, back {n}')
        self.check('recovers', 'lost {n}, back {n}', 'plain')

    def test_with_threads_it_stays_lost(self):
        self.check('recovers', 'lost {n}, back 0', 'thread')

    def test_system_calls_fail(self):
        self.check('call')

    def test_forked_and_moved(self):
        p = run('forked', self.TEN)
        self.assertEqual(p.returncode, 0, (p.stdout, p.stderr))
        self.assertRegex(p.stdout, r'\Alost ([7-9]|10)\n\Z')

    def test_default_action_kills(self):
        for way in WAYS:
            with self.subTest(way=way):
                p = run('default', 'read:eio,slots=100-109,when=SWITCH', way)
                self.assertEqual(p.returncode, -signal.SIGBUS, p.stderr)
                self.assertEqual(len(self.lines(p)), 1)

    def test_other_errors_are_named(self):
        p = run('default', 'read:etimedout,when=SWITCH')
        self.assertEqual((p.returncode, len(self.lines(p, 110, 'ETIMEDOUT'))), (-signal.SIGBUS, 1))

    def test_transient_errors_do_not_show(self):
        """Each second read fails: the next attempt succeeds."""
        for way in WAYS:
            with self.subTest(way=way):
                self.ok(run('plain', 'read:eio,every=2', way))
                self.assertGreater(stats()['io']['retries'], 0)
                self.assertEqual(stats()['io']['errors'], 0)

    def test_short_and_interrupted(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.ok(run('plain', 'io:short=4096,rate=300;io:short=512,rate=100;'
                            'io:eintr,rate=100;io:eagain,rate=50', way))
                self.assertEqual(stats()['io']['errors'], 0)


class Writes(Case):
    def test_pages_stay_in_memory(self):
        for way in WAYS:
            for name in ('EIO', 'ENOSPC'):
                with self.subTest(way=way, error=name):
                    p = run('writes', f'write:{name.lower()},when=SWITCH', way)
                    self.assertEqual(p.returncode, 0, p.stderr)
                    found = WRITE_LINE.findall(p.stderr)
                    # one from the process, one from its child
                    self.assertLessEqual(len(found), 2)
                    self.assertEqual({(f[0], f[3]) for f in found}, {(DIR, name)}, p.stderr)
                    self.assertEqual(WRITE_LINE.sub('', p.stderr), '')
                    self.assertGreater(stats()['io']['write_errors'], 0)
                    self.assertGreater(stats()['pages']['out'], 500)

    def test_one_bad_place_costs_one_page(self):
        """Its neighbours in the same write leave memory all the same."""
        p = run('plain', 'write:eio,slots=300-300')
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(stats()['evictions']['budget_overruns'], 0)
        self.assertLess(stats()['resident_peak_bytes'], 2 << 20)

    def test_some_fail_always(self):
        for way in WAYS:
            with self.subTest(way=way):
                p = run('plain', 'write:eio,rate=200', way)
                self.assertEqual(p.returncode, 0, p.stderr)
                # The one that takes more of the file for this process may be among them.
                self.assertEqual(FULL_LINE.sub('', WRITE_LINE.sub('', p.stderr)), '')

    def test_a_message_never_kills(self):
        """stderr is a pipe that nobody reads any more, or a file at its size limit."""
        r, w = os.pipe()
        os.close(r)
        try:
            p = subprocess.run([EXTMEM, 'run', '--dram', '1M', '--swap', DIR, '--', PROG, 'plain', '-'],
                               stderr=w, env={**os.environ, 'EXTMEM_INJECT': 'write:eio'},
                               timeout=60, preexec_fn=lambda: signal.signal(signal.SIGPIPE,
                                                                            signal.SIG_DFL))
        finally:
            os.close(w)
        self.assertEqual(p.returncode, 0)

    def test_nobody_empties_the_pipe(self):
        r, w = os.pipe()
        os.set_blocking(w, False)
        try:
            while True:
                os.write(w, b'x' * 4096)
        except BlockingIOError:
            os.set_blocking(w, True)
        p = subprocess.run([EXTMEM, 'run', '--dram', '1M', '--swap', DIR, '--', PROG, 'plain', '-'],
                           stderr=w, env={**os.environ, 'EXTMEM_INJECT': 'write:eio'}, timeout=60)
        os.close(r)
        os.close(w)
        self.assertEqual(p.returncode, 0)


class Torture(Case):
    def test_wrong_memory_under_errors(self):
        program = os.path.join(BUILD, 'tests', 'torture', 'torture')
        for inject in ('write:eio,rate=50;io:short=4096,rate=100;io:eintr,rate=50;read:eagain,rate=50',
                       'write:enospc,rate=100;grow:enospc,every=2;io:delay=5,rate=20',
                       'write:eio,when=/,rate=900'):
            for mask in ('', 'uring', 'wp'):
                with self.subTest(inject=inject, mask=mask):
                    p = subprocess.run([EXTMEM, 'run', '--dram', '2M', '--swap', DIR, '--', program,
                                        '--seconds', '1', '--stall', '40'], capture_output=True,
                                       text=True, timeout=60, env={**os.environ, 'EXTMEM_MASK': mask,
                                                                   'EXTMEM_INJECT': inject})
                    self.assertEqual(p.returncode, 0, p.stdout + p.stderr)


class Stalls(Case):
    def test_who_does_not_need_the_store_goes_on(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.ok(run('stall', 'io:delay=30000,when=SWITCH', way))

    def test_in_the_middle_of_writing(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.ok(run('stall_writes', 'io:delay=30000,when=SWITCH;grow:delay=30000,when=SWITCH',
                            way))

    def test_exit(self):
        self.ok(run('exit', 'read:delay=300'))

    def test_slow(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.ok(run('plain', 'io:delay=20,rate=100', way))


class Full(Case):
    LINE = r'extmem: the swap store \S+ is full, errno [^\n]+\n'

    def test_goes_on_in_memory(self):
        for way in WAYS:
            for inject, swap in (('', DIR + ',size=1M'), ('grow:enospc,after=0', DIR)):
                with self.subTest(way=way, swap=swap):
                    self.ok(run('full', inject, way, swap), err=self.LINE)
                    self.assertGreater(stats()['evictions']['budget_overruns'], 0)

    def test_no_more_memory(self):
        """A memory cgroup stands for a machine that has no more."""
        group = memory_group(72 << 20)
        if not group:
            self.skipTest('no memory cgroup can be made')
        self.addCleanup(os.rmdir, group)
        join = lambda: write(os.path.join(group, 'cgroup.procs'), str(os.getpid()))
        for what, out in (('until_refused', r'refused after \d+\n'),
                          ('until_signal', r'signal at page \d+\n')):
            with self.subTest(what=what):
                p = run(what, swap=DIR + ',size=2M', dram='4M', preexec_fn=join)
                self.assertEqual(p.returncode, 0, p.stderr)
                self.assertRegex(p.stdout, out)


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


def memory_group(limit):
    for root, name in (('/sys/fs/cgroup/memory', 'memory.limit_in_bytes'),
                       ('/sys/fs/cgroup', 'memory.max')):
        group = os.path.join(root, f'extmem-test-{os.getpid()}')
        try:
            os.mkdir(group)
        except OSError:
            continue
        try:
            write(os.path.join(group, name), str(limit))
            return group
        except OSError:
            os.rmdir(group)
    return None


def limited(which, value):
    return lambda: resource.setrlimit(getattr(resource, 'RLIMIT_' + which), (value, value))


def patiently(path, text):
    """A device is busy until the ring of its last user has been torn down."""
    for _ in range(100):
        try:
            return write(path, text)
        except OSError:
            time.sleep(0.05)


class RealDevice(Case):
    def test_compressed_memory_that_is_used_up(self):
        """The kernel itself fails the writes with EIO."""
        try:
            with open('/sys/class/zram-control/hot_add') as f:
                n = f.read().strip()
        except OSError as e:
            self.skipTest(f'no zram device: {e}')
        base, device = f'/sys/block/zram{n}', f'/dev/zram{n}'
        self.addCleanup(patiently, '/sys/class/zram-control/hot_remove', n)
        self.addCleanup(patiently, base + '/reset', '1')
        write(base + '/disksize', '64M')
        write(base + '/mem_limit', '256K')
        for way in WAYS:
            with self.subTest(way=way):
                p = run('plain', way=way, swap=device)
                self.assertEqual(p.returncode, 0, p.stderr)
                self.assertEqual({f[3] for f in WRITE_LINE.findall(p.stderr)}, {'EIO'})
                self.assertEqual(WRITE_LINE.sub('', p.stderr), '')


class Limits(Case):
    def test_from_the_start(self):
        for which, value, err in (('FSIZE', 1 << 20, Full.LINE), ('NOFILE', 24, ''), ('NPROC', 1, ''),
                                  ('AS', 256 << 20, ''), ('DATA', 64 << 20, ''), ('MEMLOCK', 0, ''),
                                  ('CORE', 0, '')):
            with self.subTest(limit=which):
                p = run('plain', options=('--stats', '/dev/null'), preexec_fn=limited(which, value))
                self.ok(p, err=err)

    def test_while_it_runs(self):
        for way in WAYS:
            with self.subTest(way=way):
                p = run('limits', way=way, options=('--stats', '-'))
                self.assertEqual(p.returncode, 0, p.stderr)

    def test_address_space_is_the_programs(self):
        for which in ('AS', 'DATA'):
            with self.subTest(limit=which):
                p = run('address_space', preexec_fn=limited(which, 1 << 30))
                self.assertEqual(p.returncode, 0, p.stderr)
                self.assertGreater(int(p.stdout), 800)

    def test_memlock(self):
        self.ok(run('memlock'))


class SwapFiles(Case):
    def start(self, swap):
        p = subprocess.Popen([EXTMEM, 'run', '--dram', '1M', '--swap', swap, '--', PROG, 'wait', '-'],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.stderr.close)
        self.assertEqual(p.stdout.read(3), b'up\n')
        return p

    def refused(self, swap):
        p = run('plain', swap=swap)
        self.assertEqual((p.returncode, p.stdout), (2, ''))
        self.assertIn('in use', p.stderr)

    def test_two_on_one_file(self):
        name = os.path.join(DIR, 'named')
        p = self.start(name)
        for swap in (name, name + ',force'):
            self.refused(swap)
        # by another name, too
        os.link(name, name + '2')
        self.refused(name + '2')
        p.kill()
        p.wait()
        self.ok(run('plain', swap=name))

    @unittest.skipIf(os.geteuid(), 'needs root for a loop device')
    def test_two_on_one_device(self):
        image = os.path.join(DIR, 'image')
        with open(image, 'w') as f:
            f.truncate(64 << 20)
        made = subprocess.run(['losetup', '-f', '--show', image], capture_output=True, text=True)
        if made.returncode:
            self.skipTest('no loop device: ' + made.stderr)
        device = made.stdout.strip()
        self.addCleanup(subprocess.run, ['losetup', '-d', device])
        p = self.start(device)
        for swap in (device, device + ',force'):
            self.refused(swap)
        p.kill()
        p.wait()

    def test_killed_at_random_it_leaves_nothing(self):
        where = os.path.join(DIR, 'empty')
        os.mkdir(where)
        seed = random.randrange(1 << 30)
        rng = random.Random(seed)
        env = {**os.environ, 'TMPDIR': where}
        for _ in range(25):
            p = subprocess.Popen([EXTMEM, 'run', '--dram', '1M', '--', PROG, 'wait', '-'], env=env,
                                 stdout=subprocess.DEVNULL, cwd=where)
            time.sleep(rng.random() * 0.2)
            p.kill()
            p.wait()
            # the directory of the control sockets stays: the next process clears it
            self.assertEqual([f for f in os.listdir(where) if f != f'extmem-{os.getuid()}'], [],
                             f'seed {seed}')


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
