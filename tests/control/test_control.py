#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Live control, seen from outside: test_control.py BUILD PROG.  Prints TAP."""
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tap'))
from pytap import Skip, run_tests

BUILD, PROG = sys.argv[1:3]
EXTMEM = os.path.join(BUILD, 'extmem')
WORK = tempfile.mkdtemp(prefix='extmem-control-')
RUNTIME = os.path.join(WORK, 'run')
DIR = os.path.join(RUNTIME, 'extmem')
ENV = dict(os.environ, XDG_RUNTIME_DIR=RUNTIME)
ROOT = os.geteuid() == 0
NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
MIB = 1 << 20


class Managed:
    """A program under `extmem run` with a pipe that keeps it alive."""

    def __init__(self, *args, dram='8M', before=(), env=ENV):
        self.p = subprocess.Popen([*before, EXTMEM, 'run', '--dram', dram, '--', PROG, *args],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=env)
        self.pid = self.p.pid

    def ready(self):
        line = self.p.stdout.readline().split()
        if not line and self.p.wait() == 77:
            raise Skip('the machine does not allow it')
        assert line and line[0] == 'ready', (line, self.p.stderr.read())
        return int(line[1]) if len(line) > 1 else self.pid

    def end(self):
        self.p.stdin.close()
        rest = self.p.stdout.read() + self.p.stderr.read()
        status = self.p.wait(timeout=60)
        assert status == 0, (status, rest)
        return rest

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        for f in (self.p.stdin, self.p.stdout, self.p.stderr):
            f.close()


def ctl(*words, before=(), env=ENV):
    return subprocess.run([*before, EXTMEM, 'ctl', *map(str, words)], capture_output=True, text=True,
                          env=env, timeout=60)


def good(*words, **how):
    got = ctl(*words, **how)
    assert got.returncode == 0 and not got.stderr, (words, got)
    return got.stdout


def refused(*words, **how):
    got = ctl(*words, **how)
    assert got.returncode == 2 and not got.stdout, (words, got)
    assert got.stderr.startswith('extmem: ') and got.stderr.count('\n') == 1, got.stderr
    return got.stderr


def stats(pid):
    return json.loads(good(pid, 'stats', '--json'))


def sockets():
    return sorted(os.listdir(DIR)) if os.path.isdir(DIR) else []


def wait_until(what, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return
        time.sleep(0.01)
    raise AssertionError('has not happened')


def talk(pid, data, end=False):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(os.path.join(DIR, str(pid)))
    try:
        s.sendall(data)
        if end:
            s.shutdown(socket.SHUT_WR)
    except BrokenPipeError:
        pass
    answer = b''
    try:
        while True:
            got = s.recv(65536)
            if not got:
                break
            answer += got
    except ConnectionResetError:
        pass
    s.close()
    return answer


def test_directory_and_socket_are_private():
    with Managed('hold') as m:
        m.ready()
        assert stat.S_IMODE(os.lstat(DIR).st_mode) == 0o700
        st = os.lstat(os.path.join(DIR, str(m.pid)))
        assert stat.S_ISSOCK(st.st_mode) and not stat.S_IMODE(st.st_mode) & 0o077, oct(st.st_mode)
        m.end()


def test_nothing_is_left_behind():
    with Managed('hold') as m:
        m.ready()
        assert sockets() == [str(m.pid)]
        m.end()
        assert sockets() == []


def test_a_killed_process_leaves_a_socket_that_the_next_run_removes():
    with Managed('hold') as m:
        m.ready()
        m.p.kill()
        m.p.wait()
        assert sockets() == [str(m.pid)]
    with Managed('hold') as n:
        n.ready()
        assert sockets() == [str(n.pid)]
        n.end()


def test_the_list_removes_it_too():
    with Managed('hold') as m:
        m.ready()
        m.p.kill()
        m.p.wait()
    good()
    assert sockets() == []


def test_budget_shrinks_and_is_kept():
    with Managed('hold', dram='12M') as m:
        m.ready()
        before = stats(m.pid)
        text = good(m.pid, 'budget', '3M')
        assert 'budget 3.0 MiB' in text and 'evicted' in text, text
        s = stats(m.pid)
        assert before['resident_bytes'] > 10 * MIB and s['resident_bytes'] <= 3 * MIB, s
        assert s['budget_bytes'] == 3 * MIB
        m.end()


def test_budget_grows_at_once():
    with Managed('hold', dram='4M') as m:
        m.ready()
        assert good(m.pid, 'budget', '64M') and stats(m.pid)['budget_bytes'] == 64 * MIB
        good(m.pid, 'load', 'all')
        s = stats(m.pid)
        assert s['resident_bytes'] >= 16 * MIB, s
        m.end()


def test_budget_too_small_for_the_tables_is_refused():
    with Managed('sparse', dram='32M') as m:
        m.ready()
        line = refused(m.pid, 'budget', '1M')
        least = int(re.search(r'at least (\d+)K', line).group(1))
        assert least > 1024, line
        good(m.pid, 'budget', f'{least}K')
        m.end()


def test_locked_pages_stay_and_it_is_said():
    with Managed('locked', dram='16M') as m:
        m.ready()
        got = ctl(m.pid, 'budget', '4M')
        assert got.returncode == 0 and got.stderr.count('\n') == 1, got
        s = stats(m.pid)
        assert 8 * MIB <= s['resident_bytes'] < 9 * MIB, s
        good(m.pid, 'budget', '16M')
        m.end()


def test_evict_all_and_load_all():
    with Managed('hold', dram='64M') as m:
        m.ready()
        assert stats(m.pid)['resident_bytes'] >= 16 * MIB
        text = good(m.pid, 'evict', 'all')
        assert 'evicted' in text and stats(m.pid)['resident_bytes'] < MIB, text
        text = good(m.pid, 'load', 'all')
        assert 'loaded' in text and stats(m.pid)['resident_bytes'] >= 16 * MIB, text
        m.end()


def test_load_all_stops_at_the_budget():
    with Managed('hold', dram='6M') as m:
        m.ready()
        good(m.pid, 'evict', 'all')
        good(m.pid, 'load', 'all')
        s = stats(m.pid)
        assert 4 * MIB < s['resident_bytes'] <= 6 * MIB, s
        m.end()


def test_policy_changes_and_takes_over_the_residents():
    with Managed('hold') as m:
        m.ready()
        for name in ('fifo', '2q,in=40', 'fifo,cluster=off', '2q'):
            good(m.pid, 'policy', name)
            assert stats(m.pid)['policy'] == name.split(',')[0]
        before = stats(m.pid)['evictions']['scanned']
        good(m.pid, 'budget', '2M')
        after = stats(m.pid)
        assert after['resident_bytes'] <= 2 * MIB and after['pages']['out'] > 0, after
        assert after['evictions']['scanned'] == before, 'the new policy does not know the pages'
        m.end()


def test_policies_give_their_memory_back():
    with Managed('hold', dram='64M') as m:
        m.ready()
        good(m.pid, 'policy', 'fifo')
        good(m.pid, 'policy', '2q')
        before = stats(m.pid)['metadata_bytes']
        for _ in range(20):
            good(m.pid, 'policy', 'fifo')
            good(m.pid, 'policy', '2q')
        assert stats(m.pid)['metadata_bytes'] <= before + 300000
        m.end()


def test_refused_requests_are_one_line():
    with Managed('hold') as m:
        m.ready()
        for words in (('policy', 'nosuch'), ('policy', './x.so'), ('policy', 'fifo,no=1'),
                      ('policy', ''), ('policy', 'a b'), ('budget', '12X'), ('budget', '0'),
                      ('budget', '-1'), ('budget', '1'), ('budget', '99999999T'), ('budget',),
                      ('evict', 'some'), ('evict',), ('load', 'x'), ('stats', 'x'), ('frob',),
                      ('budget', '1M', '2M'), (), ('evict', 'all', '--json')):
            refused(m.pid, *words)
        m.end()


def test_processes_that_cannot_be_controlled():
    for pid in ('0', '-1', 'x', '1x', '99999999999', '2147483646'):
        refused(pid, 'stats')
    assert 'does not run under extmem' in refused(os.getpid(), 'stats')


def test_json_is_the_object_of_run_stats():
    path = os.path.join(WORK, 'stats.json')
    with Managed('hold', env=dict(ENV, EXTMEM_STATS=path)) as m:
        m.ready()
        live = stats(m.pid)
        m.end()
    with open(path) as f:
        assert list(json.load(f)) == list(live)


def test_stats_for_people_are_aligned():
    with Managed('hold') as m:
        m.ready()
        text = good(m.pid, 'stats')
        m.end()
    assert re.search(r'^budget {15}8\.0 MiB$', text, re.M), text
    assert re.search(r'^  major {13,14}\d+$', text, re.M) and 'regions' in text, text


def test_the_list_shows_every_process():
    with Managed('hold') as a, Managed('hold') as b:
        a.ready()
        b.ready()
        lines = good().splitlines()
        assert {int(x.split()[0]) for x in lines[1:]} >= {a.pid, b.pid}, lines
        assert {x['pid'] for x in json.loads(good('--json'))} >= {a.pid, b.pid}
        a.end()
        b.end()


def test_a_forked_child_has_a_socket_of_its_own():
    with Managed('forked', dram='12M') as m:
        child = m.ready()
        wait_until(lambda: str(child) in sockets())
        good(child, 'budget', '3M')
        assert stats(child)['budget_bytes'] == 3 * MIB and stats(m.pid)['budget_bytes'] == 12 * MIB
        good(m.pid, 'evict', 'all')
        m.end()
        assert sockets() == []


def test_a_child_inherits_the_changed_budget():
    with Managed('hold') as m:
        m.ready()
        m.end()
    # bash forks for the subshell after the budget was changed
    p = subprocess.Popen([EXTMEM, 'run', '--dram', '8M', '--', '/bin/bash', '-c',
                          'echo ready; read x; (echo $BASHPID; read y; :); :'], env=ENV, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdout.readline()
    good(p.pid, 'budget', '5M')
    p.stdin.write('\n')
    p.stdin.flush()
    child = int(p.stdout.readline())
    wait_until(lambda: str(child) in sockets())
    assert stats(child)['budget_bytes'] == 5 * MIB
    p.stdin.close()
    assert p.wait(timeout=20) == 0
    p.stdout.close()
    assert sockets() == []


def test_a_process_whose_threads_leave_one_by_one_ends():
    for mode, status in [('raw_exit', 7), ('raw_exit_of_two', 7)] + 10 * [('raw_exit_of_many', 7)]:
        with Managed(mode) as m:
            assert m.p.wait(timeout=20) == status
            assert sockets() == [], mode


def test_another_root_and_user_take_the_socket_along():
    if not ROOT:
        raise Skip('needs root')
    jail = os.path.join(WORK, 'jail')
    os.mkdir(jail)
    with Managed("jail", jail) as m:
        m.ready()
        assert sockets() == [str(m.pid)]
        good(m.pid, 'stats')
        m.end()
        assert sockets() == []


def test_an_exec_that_fails_leaves_the_socket():
    bad = os.path.join(WORK, 'bad')
    with open(bad, 'w') as f:
        f.write('no program\n')
    os.chmod(bad, 0o755)
    with Managed('failing_exec', bad) as m:
        m.ready()
        wait_until(lambda: sockets() == [str(m.pid)])
        good(m.pid, 'evict', 'all')
        m.end()
        assert sockets() == []


def test_an_unmanaged_program_has_no_socket():
    with Managed('leaving_exec') as m:
        m.ready()
        assert sockets() == []
        refused(m.pid, 'stats')
        m.end()


def test_a_new_user_namespace_is_possible():
    with Managed('new_user') as m:
        m.ready()
        m.end()


def test_descriptors_of_the_program_are_not_disturbed():
    with Managed('lowest_descriptor') as m:
        m.ready()
        for _ in range(40):
            good(m.pid, 'stats')
        m.end()


def test_bad_requests_get_one_line_and_do_no_harm():
    with Managed('hold') as m:
        m.ready()
        for data in (b'\n', b'GET / HTTP/1.0\r\n\r\n', b'extmem 2 stats\n', b'extmem 1\n',
                     b'extmem 1 \n', b'extmem  1 stats\n', b'extmem 1 budget 1e9\n',
                     b'extmem 1 policy ,\n', b'extmem 1 policy ' + b'x' * 64 + b'\n',
                     b'extmem 1 evict all all\n', b'x' * 5000, bytes(range(256)) * 8,
                     b'extmem 1 stats\0\n', b'extmem 1 budget 18446744073709551616\n'):
            answer = talk(m.pid, data)
            assert answer.startswith(b'error ') or not answer, (data, answer)
            assert answer.count(b'\n') <= 1, answer
        assert talk(m.pid, b'extmem 1 stats', end=True) == b''
        assert talk(m.pid, b'extmem 1 stats\nextmem 1 evict all\n').startswith(b'ok ')
        assert stats(m.pid)['pid'] == m.pid
        m.end()


def test_a_silent_client_does_not_hold_up_the_others_for_long():
    with Managed('hold') as m:
        m.ready()
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.path.join(DIR, str(m.pid)))
        s.sendall(b'extmem 1 st')
        assert stats(m.pid)['pid'] == m.pid
        s.close()
        m.end()


def test_a_client_that_goes_away_does_no_harm():
    with Managed('hold') as m:
        m.ready()
        for _ in range(20):
            s = socket.socket(socket.AF_UNIX)
            s.connect(os.path.join(DIR, str(m.pid)))
            s.sendall(b'extmem 1 stats\n')
            s.close()
        assert stats(m.pid)['pid'] == m.pid
        m.end()


def test_a_socket_can_be_found_without_the_environment():
    with Managed('hold') as m:
        m.ready()
        env = {k: v for k, v in ENV.items() if k != 'XDG_RUNTIME_DIR'}
        good(m.pid, 'stats', env=env)
        m.end()


def test_a_path_too_long_for_a_socket_is_passed_over():
    deep = os.path.join(WORK, 'd' * 90)
    os.makedirs(deep)
    with Managed('hold', env=dict(ENV, XDG_RUNTIME_DIR=deep)) as m:
        m.ready()
        good(m.pid, 'stats')
        assert os.listdir(deep) == []
        m.end()


def test_a_directory_of_somebody_else_is_not_used():
    if not ROOT:
        raise Skip('needs root')
    runtime = os.path.join(WORK, 'theirs')
    os.makedirs(os.path.join(runtime, 'extmem'))
    os.chown(os.path.join(runtime, 'extmem'), 65534, 65534)
    with Managed('hold', env=dict(ENV, XDG_RUNTIME_DIR=runtime)) as m:
        m.ready()
        assert os.listdir(os.path.join(runtime, 'extmem')) == []
        m.end()


def test_a_runtime_directory_of_somebody_else_is_not_used():
    if not ROOT:
        raise Skip('needs root')
    runtime = os.path.join(WORK, 'kept-by-sudo')
    os.mkdir(runtime)
    os.chown(runtime, 65534, 65534)
    with Managed('hold', env=dict(ENV, XDG_RUNTIME_DIR=runtime)) as m:
        m.ready()
        assert os.listdir(runtime) == []
        good(m.pid, 'stats')
        m.end()


def test_another_user_is_refused():
    if not ROOT:
        raise Skip('needs root')
    shutil.copy(EXTMEM, os.path.join(WORK, 'extmem'))
    os.chmod(WORK, 0o755)
    with Managed('hold') as m:
        m.ready()
        got = subprocess.run([*NOBODY, os.path.join(WORK, 'extmem'), 'ctl', str(m.pid), 'stats'],
                             capture_output=True, text=True, env=ENV)
        assert got.returncode == 2 and 'another user' in got.stderr, got
        m.end()


CONNECT = '''
import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    s.sendall(b"extmem 1 evict all\\n")
    print(s.recv(1000).decode())
except PermissionError:
    print("EACCES")
'''


def test_another_user_is_refused_by_directory_and_by_credentials():
    if not ROOT:
        raise Skip('needs root')
    for d in (WORK, RUNTIME):
        os.chmod(d, 0o755)
    with Managed('hold') as m:
        m.ready()
        path = os.path.join(DIR, str(m.pid))

        def attempt():
            return subprocess.run([*NOBODY, sys.executable, '-c', CONNECT, path], text=True,
                                  capture_output=True, cwd='/').stdout.strip()
        assert attempt() == 'EACCES', attempt()
        os.chmod(DIR, 0o777)
        os.chmod(path, 0o777)
        try:
            answer = attempt()
        finally:
            os.chmod(DIR, 0o700)
        assert answer.startswith('error only the program'), answer
        assert stats(m.pid)['pages']['out'] == stats(m.pid)['pages']['out']
        m.end()


def test_root_controls_the_process_of_a_user():
    if not ROOT:
        raise Skip('needs root')
    runtime = os.path.join(WORK, 'user')
    os.mkdir(runtime)
    os.chown(runtime, 65534, 65534)
    os.chmod(WORK, 0o755)
    for f in ('extmem', 'libextmem-preload.so'):
        shutil.copy(os.path.join(BUILD, f), WORK)
    prog = shutil.copy(PROG, os.path.join(WORK, 'prog'))
    env = dict(os.environ, XDG_RUNTIME_DIR=runtime)
    p = subprocess.Popen([*NOBODY, os.path.join(WORK, 'extmem'), 'run', '--dram', '8M', '--', prog],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert p.stdout.readline() == 'ready\n'
    good(p.pid, 'budget', '3M')
    assert stats(p.pid)['resident_bytes'] <= 3 * MIB
    p.stdin.close()
    assert p.wait(timeout=20) == 0
    p.stdout.close()
    assert os.listdir(os.path.join(runtime, 'extmem')) == []


def remove_sockets():
    for name in sockets():
        os.unlink(os.path.join(DIR, name))


signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.mkdir(RUNTIME, 0o700)
STATUS = run_tests(globals(), sys.argv[3:], remove_sockets)
shutil.rmtree(WORK)
sys.exit(STATUS)
