#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The command line of extmem: test_cli.py EXTMEM LIBRARY CC

Works on a copy of the command beside an empty preload library, so that it tests what the
command does and nothing else; the doctor, who tries a run, gets the real library.
"""
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

EXTMEM, LIBRARY, CC = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
REPORT = r'''
#include <stdio.h>
#include <sys/auxv.h>
int main(void) { printf("AT_SECURE=%lu\n", getauxval(AT_SECURE)); return 7; }
'''


def setUpModule():
    global DIR, X
    DIR = os.path.realpath(tempfile.mkdtemp(prefix='extmem-cli-'))
    os.chmod(DIR, 0o755)
    X = os.path.join(DIR, 'extmem')
    shutil.copy(EXTMEM, X)
    os.chdir(DIR)
    write('r.c', REPORT)
    write('empty.c', 'int extmem_nothing_here;\n')
    build('-shared', '-fPIC', 'empty.c', '-o', 'libextmem-preload.so')
    os.mkdir('whole')
    shutil.copy(EXTMEM, 'whole/extmem')
    shutil.copy(LIBRARY, 'whole/libextmem-preload.so')
    build('r.c', '-o', 'dyn')
    for name in list(os.environ):
        if name.startswith('EXTMEM_') or name in ('DRAMSIZE', 'SWAPDIR', 'SWAPPATH', 'LD_PRELOAD'):
            del os.environ[name]


def tearDownModule():
    os.chdir('/')
    shutil.rmtree(DIR)


def build(*args):
    subprocess.run([*CC.split(), *args], check=True)


def write(name, text, mode=0o755):
    with open(name, 'wb' if isinstance(text, bytes) else 'w') as f:
        f.write(text)
    os.chmod(name, mode)


def read(name):
    with open(name, 'rb') as f:
        return f.read()


def call(*args, pre=(), env=None, **kw):
    command = os.path.join(DIR, 'whole/extmem') if args[:1] == ('doctor',) else X
    return subprocess.run([*pre, command, *args], capture_output=True, text=True,
                          env={**os.environ, **(env or {})}, timeout=60, **kw)


class Case(unittest.TestCase):
    def refused(self, *args, word='', pre=(), env=None):
        """Exit status 2, one line on stderr that begins with the name, nothing else."""
        p = call(*args, pre=pre, env=env)
        self.assertEqual((p.returncode, p.stdout), (2, ''), p)
        self.assertRegex(p.stderr, r'\Aextmem: [^\n]+\n\Z')
        self.assertIn(word, p.stderr)

    def runs(self, *args, out=None, status=0, pre=(), env=None, **kw):
        p = call(*args, pre=pre, env=env, **kw)
        self.assertEqual((p.returncode, p.stderr), (status, ''), p)
        if out is not None:
            self.assertEqual(p.stdout, out)
        return p.stdout


class Global(Case):
    def test_help_and_version(self):
        for args in (['help'], ['--help'], ['-h'], ['help', 'run'], ['help', 'doctor'],
                     ['run', '--help'], ['doctor', '-h'], ['help', 'help'], ['help', 'trial']):
            self.assertIn('usage: extmem', self.runs(*args))
        self.assertEqual(self.runs('version'), self.runs('--version'))

    def test_wrong_usage(self):
        for args in ([], ['frobnicate'], ['--frobnicate'], ['help', 'frobnicate'], ['version', 'x'],
                     ['run'], ['run', '--'], ['run', '--frobnicate', 'true'], ['run', '-xv', 'true'],
                     ['run', '--dram'], ['doctor', 'x'], ['doctor', '--x'], ['doctor', '--swap'],
                     ['run', '--verbose=1', 'true'], ['run', '']):
            self.refused(*args)

    def test_no_second_line_from_hostile_names(self):
        self.refused('a\nb')
        self.refused('run', './a\nb\033[1m')


class Programs(Case):
    def test_dynamic(self):
        self.runs('run', './dyn', out='AT_SECURE=0\n', status=7)
        self.runs('run', '--', './dyn', '-x', out='AT_SECURE=0\n', status=7)
        build('-no-pie', 'r.c', '-o', 'nopie')
        self.runs('run', './nopie', status=7)

    def test_refused_elf(self):
        build('-static', 'r.c', '-o', 'static')
        self.refused('run', './static', word='static')
        build('-static-pie', 'r.c', '-o', 'spie')
        self.refused('run', './spie', word='static-pie')
        self.refused('run', './libextmem-preload.so', word='shared library')
        build('-c', 'r.c', '-o', 'obj')
        os.chmod('obj', 0o755)
        self.refused('run', './obj', word='link')
        elf = bytearray(read('dyn'))
        write('elf32', bytes(elf[:4] + b'\1' + elf[5:]))
        self.refused('run', './elf32', word='32-bit')
        write('arm', bytes(elf[:18] + b'\xb7\0' + elf[20:]))
        self.refused('run', './arm', word='another machine')
        for n in (4, 20, 63, 64, 100):
            write('cut', bytes(elf[:n]))
            self.refused('run', './cut')

    def test_not_programs(self):
        os.makedirs('d', exist_ok=True)
        write('plain', 'x', 0o644)
        write('binary', b'\x7fEL\0\1\2')
        for name in ('./none', './d', './plain', './binary', './plain/x', 'nonesuch', '/dev/null'):
            self.refused('run', name, word=name)

    def test_scripts(self):
        write('s1', '#!/bin/sh\necho "$0" "$@"\n')
        self.runs('run', './s1', 'a b', out='./s1 a b\n')
        write('s2', '#! ' + DIR + '/s1 arg\n')
        self.runs('run', './s2', 'x', out=f'{DIR}/s1 arg ./s2 x\n')
        write('loop', '#!./loop\n')
        self.refused('run', './loop', word='deep')
        write('bad', '#!/nonexistent\n')
        self.refused('run', './bad', word='/nonexistent')
        build('-static', 'r.c', '-o', 'static')
        write('toStatic', '#!./static\n')
        self.refused('run', './toStatic', word='static')

    def test_script_without_interpreter_line(self):
        write('s3', 'echo "$0" "$@"; exit 5\n')
        self.runs('run', './s3', 'a b', out='./s3 a b\n', status=5)
        write('empty', '')
        self.runs('run', './empty')

    def test_path_search(self):
        os.makedirs('p1', exist_ok=True)
        os.makedirs('p2/prog', exist_ok=True)
        os.makedirs('p3', exist_ok=True)
        write('p1/prog', 'no x', 0o644)
        self.refused('run', 'prog', env={'PATH': 'p1:p2:/nonexistent'}, word='executable')
        write('p3/prog', '#!/bin/sh\necho found $0\n')
        self.runs('run', 'prog', env={'PATH': 'p1:p2:p3'}, out='found p3/prog\n')
        write('here', '#!/bin/sh\necho here\n')
        self.runs('run', 'here', env={'PATH': '/bin:'}, out='here\n')
        self.refused('run', 'here', env={'PATH': '/bin'})
        p = call('run', 'true', env={'PATH': ''})
        self.assertEqual(p.returncode, 2)


@unittest.skipUnless(os.geteuid() == 0 and shutil.which('setpriv'), 'needs root and setpriv')
class SecureExecution(Case):
    """Refused exactly when the kernel sets AT_SECURE."""

    def test_matrix(self):
        for f in ('s_root', 's_other', 'g_other', 'g_nox', 'c_eff', 'c_perm', 'c_inh'):
            shutil.copy('dyn', f)
        os.chown('s_other', 65534, -1)
        os.chown('g_other', -1, 1)
        os.chown('g_nox', -1, 1)
        for f, mode in (('s_root', 0o4755), ('s_other', 0o4755), ('g_other', 0o2755),
                        ('g_nox', 0o2745)):
            os.chmod(f, mode)
        raw = 1 << 13
        for f, cap in (('c_eff', (0x02000001, raw, 0)), ('c_perm', (0x02000000, raw, 0)),
                       ('c_inh', (0x02000000, 0, raw))):
            os.setxattr(f, 'security.capability', struct.pack('<5I', *cap, 0, 0))
        for who in ([], NOBODY, [*NOBODY, '--no-new-privs'], ['setpriv', '--ruid=65534'],
                    ['setpriv', '--euid=65534'], ['setpriv', '--no-new-privs'],
                    [*NOBODY, '--inh-caps=+net_raw'],
                    ['setpriv', '--regid=65534', '--clear-groups'],
                    ['setpriv', '--rgid=65534', '--clear-groups']):
            for f in ('dyn', 's_root', 's_other', 'g_other', 'g_nox', 'c_eff', 'c_perm', 'c_inh'):
                with self.subTest(who=who, file=f):
                    real = subprocess.run([*who, './' + f], capture_output=True, text=True).stdout
                    p = call('run', './' + f, pre=who)
                    self.assertEqual(p.stdout, real if real == 'AT_SECURE=0\n' else '')
                    self.assertEqual(p.returncode, 7 if real == 'AT_SECURE=0\n' else 2)

    def test_unreadable(self):
        shutil.copy('dyn', 'xonly')
        os.chmod('xonly', 0o711)
        self.refused('run', './xonly', pre=NOBODY, word='readable')


class Options(Case):
    def test_refused(self):
        for args, word in (
                (['--dram', '5X'], '5X'), (['--dram', '64K'], 'minimum'), (['--dram', '0%'], ''),
                (['--dram', '200%'], '200%'), (['--policy', 'nix'], '2q, fifo'),
                (['--prefetch', 'nix'], 'sequential, none'), (['--policy', './no.so'], 'no.so'),
                (['--policy', './libextmem-preload.so'], 'extmem_policy'),
                (['--prefetch', 'libextmem-preload.so'], 'extmem_prefetch'),
                (['--policy', '2q,nix=1'], 'nix'), (['--swap', '/nonexistent/a/b'], '/nonexistent'),
                (['--swap', '/tmp,nix=1'], 'nix'), (['--stats', '/nonexistent/s'], '/nonexistent/s'),
                (['--stats', '/'], '/'), (['--delivery', 'pigeon'], 'pigeon'),
                (['--min-map', '1'], 'min-map')):
            with self.subTest(args=args):
                self.refused('run', *args, '--', '/bin/sh', '-c', 'echo ran', word=word)

    def test_refused_from_environment(self):
        for name in ('EXTMEM_DRAM', 'EXTMEM_POLICY', 'EXTMEM_PREFETCH', 'EXTMEM_DELIVERY',
                     'EXTMEM_MIN_MAP', 'EXTMEM_VERBOSE', 'EXTMEM_MASK', 'DRAMSIZE'):
            with self.subTest(name=name):
                self.refused('run', 'true', env={name: 'nonsense'}, word='nonsense')

    @unittest.skipIf(os.geteuid() == 0 and not shutil.which('setpriv'), 'needs setpriv')
    def test_unwritable(self):
        pre = NOBODY if os.geteuid() == 0 else []
        self.refused('run', '--swap', '/', 'true', pre=pre, word='--swap')
        self.refused('run', '--stats', '/s', 'true', pre=pre, word='--stats')

    def environment(self, *args, env=None):
        lines = self.runs('run', *args, 'env', env=env).splitlines()
        return dict(line.split('=', 1) for line in lines)

    def test_environment_of_the_program(self):
        os.makedirs('sw,ap', exist_ok=True)
        e = self.environment('--dram', '10M', '--swap', 'sw,,ap,size=1G', '--stats', 'out',
                             '--delivery', 'thread,n=2', '--policy', 'fifo',
                             env={'LD_PRELOAD': '', 'EXTMEM_PREFETCH': 'none'})
        self.assertEqual(e['EXTMEM_DRAM'], str(10 << 20))
        self.assertEqual(e['EXTMEM_SWAP'], DIR.replace(',', ',,') + '/sw,,ap,size=1073741824')
        self.assertEqual(e['EXTMEM_STATS'], DIR + '/out')
        self.assertEqual(e['EXTMEM_DELIVERY'], 'thread,n=2')
        self.assertEqual(e['EXTMEM_POLICY'], 'fifo')
        self.assertEqual(e['EXTMEM_PREFETCH'], 'none')
        self.assertEqual(e['LD_PRELOAD'], DIR + '/libextmem-preload.so')
        self.assertFalse(os.path.exists('out'))

    def test_preload_is_prepended(self):
        lib = DIR + '/libextmem-preload.so'
        shutil.copy(lib, 'other.so')
        e = self.environment(env={'LD_PRELOAD': f'{DIR}/other.so:{lib}'})
        self.assertEqual(e['LD_PRELOAD'], f'{lib}:{DIR}/other.so')

    def test_original_variables(self):
        e = self.environment(env={'DRAMSIZE': '2M', 'SWAPDIR': DIR})
        self.assertEqual((e['EXTMEM_DRAM'], e['EXTMEM_SWAP']), (str(2 << 20), DIR))
        e = self.environment('--dram', '3M', env={'DRAMSIZE': '2M', 'SWAPPATH': '.'})
        self.assertEqual((e['EXTMEM_DRAM'], e['EXTMEM_SWAP']), (str(3 << 20), DIR + '/.'))

    def test_library_missing(self):
        os.makedirs('alone', exist_ok=True)
        shutil.copy(X, 'alone/extmem')
        p = subprocess.run(['alone/extmem', 'run', 'true'], capture_output=True, text=True)
        if p.returncode == 0:
            self.skipTest('an installed library was found')
        self.assertIn('libextmem-preload.so', p.stderr)
        self.assertEqual(p.returncode, 2)


class PassThrough(Case):
    def test_exit_status_and_signals(self):
        self.runs('run', 'sh', '-c', 'exit 99', status=99)
        for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
            self.runs('run', 'sh', '-c', f'ulimit -c 0; kill -{int(sig)} $$', status=-int(sig))

    def test_streams_and_process_id(self):
        self.runs('run', 'cat', out='through\n', input='through\n')
        p = subprocess.Popen([X, 'run', 'sh', '-c', 'echo $$ $EXTMEM_STATS_PID'],
                             stdout=subprocess.PIPE, text=True)
        self.assertEqual(p.communicate()[0], f'{p.pid} {p.pid}\n')

    def test_verbose_goes_to_stderr(self):
        p = call('run', '-v', '--dram', '4M', 'true')
        self.assertEqual((p.returncode, p.stdout), (0, ''))
        for line in p.stderr.splitlines():
            self.assertTrue(line.startswith('extmem: '))

    def test_sigchld_ignored(self):
        p = subprocess.run(['sh', '-c', f"trap '' CHLD; exec {X} run true"], capture_output=True)
        self.assertEqual((p.returncode, p.stderr), (0, b''))


class Doctor(Case):
    def report(self, *args, status=0, pre=()):
        d = json.loads(self.runs('doctor', '--json', *args, status=status, pre=pre))
        self.assertEqual(d['run_would_work'], status == 0)
        return {i['id']: i for i in d['items']}

    def test_items_are_complete(self):
        items = self.report()
        for i in items.values():
            for key in ('title', 'detail', 'used_for', 'without', 'to_get'):
                self.assertTrue(i[key], i)
            self.assertIn(i['status'], ('available', 'missing', 'warning', 'information'))
        for name in ('userfaultfd', 'userfaultfd.sigbus', 'userfaultfd.wp', 'userfaultfd.move',
                     'process_madvise', 'io_uring', 'ebpf', 'swap', 'swap.direct', 'swap.space',
                     'limit.memlock', 'limit.max_map_count'):
            self.assertIn(name, items)

    def test_agrees_with_run(self):
        for args in ([], ['--swap', '/nonexistent/a/b'], ['--swap', DIR]):
            p = call('doctor', *args)
            self.assertEqual(p.returncode == 0, call('run', *args, 'true').returncode == 0)
            self.assertEqual('would work.' in p.stdout, p.returncode == 0)
            self.assertNotIn('\033', p.stdout)

    def test_bad_environment_is_reported(self):
        p = call('doctor', '--json', env={'EXTMEM_DRAM': 'no"nsense'})
        self.assertEqual(p.returncode, 1)
        items = {i['id']: i for i in json.loads(p.stdout)['items']}
        self.assertEqual(items['options']['status'], 'missing')
        self.assertIn('no"nsense', items['options']['detail'])

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which('setpriv'), 'needs root and setpriv')
    def test_truth_for_an_ordinary_user(self):
        items = self.report(pre=NOBODY)
        self.assertEqual(items['ebpf']['status'], 'missing')
        self.assertEqual(items['ebpf.capabilities']['status'], 'missing')
        self.assertEqual(items['userfaultfd.user_mode']['status'], 'available')
        self.report('--swap', '/', status=1, pre=NOBODY)

    def test_writes_nothing_to_an_existing_file(self):
        write('data', b'precious' * 1024, 0o600)
        call('doctor', '--swap', 'data')
        self.assertEqual(read('data'), b'precious' * 1024)
        before = set(os.listdir('.'))
        call('doctor', '--swap', '.')
        self.assertEqual(set(os.listdir('.')), before)

    def test_color_on_a_terminal_only(self):
        pid, fd = pty.fork()
        if pid == 0:
            os.environ.pop('NO_COLOR', None)
            os.execv('whole/extmem', ['extmem', 'doctor'])
        out = b''
        try:
            while chunk := os.read(fd, 4096):
                out += chunk
        except OSError:
            pass
        os.waitpid(pid, 0)
        self.assertIn(b'\033[', out)

    def test_full_disk(self):
        with open('/dev/full', 'w') as full:
            p = subprocess.run(['whole/extmem', 'doctor'], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(p.returncode, 2)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
