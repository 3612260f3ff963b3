#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Statistics of programs that a signal ends: test_death.py BUILD PROG"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

BUILD, PROG = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
DELIVERIES = ('upcall', 'thread')


class Death(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='extmem-death-', dir='/var/tmp')
        self.addCleanup(shutil.rmtree, self.dir)
        self.stats = os.path.join(self.dir, 'stats')

    def start(self, delivery, *args, stats=None, env=None):
        for old in glob.glob(self.stats + '*'):
            os.unlink(old)
        # Started by nohup or in the background, some signals would be ignored in the children too.
        return subprocess.Popen(
            [os.path.join(BUILD, 'extmem'), 'run', '--dram', '2M', '--swap', self.dir,
             '--delivery', delivery, '--stats', stats or self.stats, '--', PROG, *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})},
            preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL)
                                for n in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP,
                                          signal.SIGPIPE)])

    def end(self, p, status, stderr=b''):
        _, err = p.communicate(timeout=60)
        self.assertEqual((p.returncode, err), (status, stderr))

    def is_report(self, name):
        with open(name) as f:
            report = json.load(f)
        self.assertGreater(report['io']['bytes_written'], 0)
        self.assertGreater(len(report['regions']), 1)

    def dies(self, delivery, signo, *args):
        with self.subTest(delivery=delivery, args=args):
            self.end(self.start(delivery, *args), -signo)
            self.is_report(self.stats)

    def test_raised(self):
        some = set(range(1, 32)) | {signal.SIGRTMIN, signal.SIGRTMAX}
        for n in some - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD,
                         signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGTSTP,
                         signal.SIGTTIN, signal.SIGTTOU}:
            for delivery in DELIVERIES:
                self.dies(delivery, n, 'raise', str(int(n)))

    def test_crashes_and_timers(self):
        for delivery in DELIVERIES:
            self.dies(delivery, signal.SIGABRT, 'abort')
            self.dies(delivery, signal.SIGSEGV, 'null')
            self.dies(delivery, signal.SIGTRAP, 'trap')
            self.dies(delivery, signal.SIGILL, 'ill')
            self.dies(delivery, signal.SIGALRM, 'timer')
            self.dies(delivery, signal.SIGPIPE, 'pipe')
            self.dies(delivery, signal.SIGSEGV, 'crashes')
        self.dies('upcall', signal.SIGSEGV, 'overflow')

    def test_action_is_the_program_s(self):
        for delivery in DELIVERIES:
            for n in (signal.SIGTERM, signal.SIGBUS, signal.SIGSEGV, signal.SIGSYS,
                      signal.SIGSTKFLT):
                self.dies(delivery, n, 'changes', str(int(n)))
                self.dies(delivery, n, 'unblock', str(int(n)))
                if delivery == 'upcall':  # docs/limits.md
                    self.dies(delivery, n, 'resethand', str(int(n)))
            self.end(self.start(delivery, 'stop'), 0)

    def test_sent(self):
        for delivery in DELIVERIES:
            for way in ('others', 'threads'):
                for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                    with self.subTest(delivery=delivery, way=way, signal=n):
                        p = self.start(delivery, way)
                        self.assertEqual(p.stdout.readline(), b'full\n')
                        p.send_signal(n)
                        self.end(p, -n)
                        self.is_report(self.stats)

    def test_not_for_kill(self):
        p = self.start('upcall', 'others')
        self.assertEqual(p.stdout.readline(), b'full\n')
        p.kill()
        self.end(p, -signal.SIGKILL)
        self.assertFalse(os.path.exists(self.stats))

    def test_processes(self):
        for delivery in DELIVERIES:
            with self.subTest(delivery=delivery):
                self.end(self.start(delivery, 'fork', '15'), 0)
                self.assertEqual(len(glob.glob(self.stats + '.*')), 1)
                for name in glob.glob(self.stats + '*'):
                    self.is_report(name)
                self.end(self.start(delivery, 'vfork', '15'), 0)
                self.is_report(self.stats)
                self.dies(delivery, signal.SIGTERM, 'exec', '15')

    def test_stderr(self):
        p = self.start('upcall', 'crashes', stats='-')
        _, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, -signal.SIGSEGV)
        self.assertIsInstance(json.loads(err), dict)  # once, though many threads crash

    def test_stalled_store_does_not_keep_it_alive(self):
        stall = os.path.join(self.dir, 'stall')
        p = self.start('upcall', 'stall',
                       env={'EXTMEM_INJECT': f'read:delay=600000,when={stall}', 'STALL': stall})
        self.assertEqual(p.stdout.readline(), b'full\n')
        p.send_signal(signal.SIGTERM)
        self.end(p, -signal.SIGTERM)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=1)
