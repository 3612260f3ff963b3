#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Ordinary users, namespaces, seccomp filters, read-only roots, memory cgroups:
test_containers.py BUILD PROG JAIL [TEST...].  Builds the environments itself.  Prints TAP.

In each a program that checks its bytes pages, or is refused with one line, and the doctor agrees: it
exits with 0 exactly when `run` works, and differs from what it says outside in exactly the
items that the environment takes away.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tap'))
from pytap import Skip, run_tests

BUILD, PROG, JAIL = (os.path.abspath(p) for p in sys.argv[1:4])
WORK = os.path.realpath(tempfile.mkdtemp(prefix='extmem-containers-', dir='/var/tmp'))
SWAP = os.path.join(WORK, 'swap')
X, PROG_IN, JAIL_IN = (os.path.join(WORK, n) for n in ('extmem', 'prog', 'jail'))
PYTHON = '/usr/bin/python3'
ROOT = os.geteuid() == 0
MIB = 1 << 20
# Nobody's, without any capability, and none to be had.
NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all',
          '--bounding-set=-all'] if ROOT else []
USERFAULTFD_SYSCTL = '/proc/sys/vm/unprivileged_userfaultfd'
CGROUPS = '/sys/fs/cgroup/memory'
STANDBY = ('--standby', '50%,always')
CHURN = '''
import hashlib, os, threading
blocks = [bytearray([i & 255]) * 65536 for i in range(256)]
def check(part):
    assert all(b == bytearray([i & 255]) * 65536 for i, b in enumerate(blocks) if i % 2 == part)
threads = [threading.Thread(target=check, args=(i,)) for i in range(2)]
[t.start() for t in threads], [t.join() for t in threads]
pid = os.fork()
if not pid:
    check(0), check(1), os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
print(hashlib.sha256(b"".join(blocks)).hexdigest())
'''


def needs_root():
    if not ROOT:
        raise Skip('needs root')


def call(argv, env=None, timeout=60):
    clean = {k: v for k, v in os.environ.items()
             if not k.startswith('EXTMEM_') and k not in ('DRAMSIZE', 'SWAPDIR', 'SWAPPATH', 'TMPDIR',
                                                          'LD_PRELOAD')}
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, cwd=WORK,
                          env={**clean, **(env or {})})


def run(pre, *words, options=(), swap=SWAP, dram='2M', env=None, program=PROG_IN):
    swap = ['--swap', swap] if swap else []
    dram = ['--dram', dram] if dram else []
    return call([*pre, X, 'run', *dram, *swap, '--stats', '-', *options, '--', program, *words], env)


def right(pre, *words, **how):
    """The program runs, pages, and finds its bytes; returns its statistics."""
    p = run(pre, *words, **how)
    assert (p.returncode, p.stdout.split()[-1:]) == (0, ['right']), (p.returncode, p.stdout, p.stderr)
    # One object a line; its children write theirs as well.
    stats = [json.loads(line) for line in p.stderr.splitlines()]
    assert all(s['pages']['out'] > 0 for s in stats), [s['pages'] for s in stats]
    return {**stats[-1], 'features': stats[-1]['features'].split(','),
            'trapped': stats[-1]['kernel']['syscalls_trapped']}


def refused(pre, word, **how):
    """One line and exit status 2 before anything runs."""
    p = run(pre, **how)
    assert (p.returncode, p.stdout) == (2, ''), (p.returncode, p.stdout, p.stderr)
    assert re.fullmatch(r'extmem: [^\n]+\n', p.stderr) and word in p.stderr, p.stderr


def doctor(pre, swap=SWAP, env=None):
    p = call([*pre, X, 'doctor', '--json', *(['--swap', swap] if swap else [])], env)
    assert p.stderr == '' and p.returncode in (0, 1), (p.returncode, p.stderr)
    d = json.loads(p.stdout)
    assert d['run_would_work'] == (p.returncode == 0)
    return {i['id']: i for i in d['items']}, p.returncode == 0


def truth(pre, swap=SWAP, env=None):
    """Each line of the doctor against the oracle, in the same place; the items, and would run work."""
    items, works = doctor(pre, swap, env)
    p = call([*pre, PYTHON, os.path.join(WORK, 'oracle.py'), swap or '/var/tmp'], env)
    assert p.returncode == 0, p
    oracle = json.loads(p.stdout)
    for name, good in oracle['works'].items():
        assert (items[name]['status'] != 'missing') == good, (name, good, items[name])
    for name, words in oracle['says'].items():
        assert words in items[name]['detail'], (name, words, items[name])
    return items, works


BASE = {}


def outside(pre):
    """What the doctor says to this user outside of any environment."""
    key = tuple(pre)
    if key not in BASE:
        items, works = truth(pre)
        assert works, items
        BASE[key] = items
    return BASE[key]


def tells(pre, differs, works=True, base=(), ask=truth):
    """The doctor says that run works (or not), and differs in these items and no other."""
    items, would_work = ask(pre)
    assert would_work == works, {k: v['detail'] for k, v in items.items() if v['status'] == 'missing'}
    found = {k: i['status'] for k, i in items.items() if i['status'] != outside(base)[k]['status']}
    assert found == differs, (found, {k: items[k]['detail'] for k in found})
    return items


def both(test):
    """For root and for a user without privileges."""
    def run_both():
        for who in ([], NOBODY) if ROOT else ([],):
            try:
                test(who)
            except Exception:
                print(f'# as {"an ordinary user" if who or not ROOT else "root"}:')
                raise
    return run_both


def python_agrees(pre):
    native = call([PYTHON, '-c', CHURN])
    p = call([*pre, X, 'run', '--dram', '6M', '--swap', SWAP, '--', PYTHON, '-c', CHURN])
    found = (p.returncode, p.stdout, p.stderr)
    assert found == (0, native.stdout, ''), found


# ---- an ordinary user -----------------------------------------------------------------------


def test_a_user_without_capabilities():
    assert call([*NOBODY, PROG_IN]).stdout == 'right\n'
    stats = right(NOBODY, 'spawn')
    python_agrees(NOBODY)
    items, works = truth(NOBODY)
    assert works and items['userfaultfd.user_mode']['status'] == 'available'
    features = stats['features']
    for item, name in (('userfaultfd.wp', 'wp'), ('userfaultfd.move', 'move'),
                       ('process_madvise', 'process_madvise')):
        assert (items[item]['status'] == 'available') == (name in features), (item, features)
    if ROOT:
        with open(USERFAULTFD_SYSCTL) as f:
            assert f.read() == '0\n'
        assert items['userfaultfd.full']['status'] == 'missing'
        assert items['ebpf.capabilities']['status'] == 'missing'


def test_handler_threads_of_a_user_without_capabilities():
    right(NOBODY, options=('--delivery', 'thread,n=2'))


def with_device(mode):
    """A /dev/userfaultfd of this mode, in a mount namespace."""
    st = os.stat('/dev/userfaultfd')
    script = (f'mount -t tmpfs -o mode=755 none {WORK}/dev && '
              f'mknod {WORK}/dev/u c {os.major(st.st_rdev)} {os.minor(st.st_rdev)} && '
              f'chmod {mode} {WORK}/dev/u && mount --bind {WORK}/dev/u /dev/userfaultfd && '
              'exec "$0" "$@"')
    return ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script]


def test_a_user_with_access_to_the_device():
    needs_root()
    if not os.path.exists('/dev/userfaultfd'):
        raise Skip('no /dev/userfaultfd')
    pre = [*with_device('666'), *NOBODY, JAIL_IN, 'userfaultfd=EPERM', '--']
    right(pre, 'spawn')
    right(pre, options=('--delivery', 'thread'))
    tells(pre, {'userfaultfd.user_mode': 'missing', 'userfaultfd.device': 'available'},
          base=NOBODY)
    refused([*with_device('600'), *NOBODY, JAIL_IN, 'userfaultfd=EPERM', '--'], 'userfaultfd')


def test_the_device_serves_children_of_a_program_that_has_left_root():
    needs_root()
    if not os.path.exists('/dev/userfaultfd'):
        raise Skip('no /dev/userfaultfd')
    right([JAIL_IN, 'userfaultfd=EPERM', '--'], 'leave')


def test_no_process_to_spare():
    """What cannot be tried in advance is not called missing."""
    needs_root()
    pre = [*NOBODY, 'prlimit', '--nproc=1']
    p = call([*pre, X, 'run', '--dram', '2M', '--swap', SWAP, '--', '/bin/true'])
    assert (p.returncode, p.stderr) == (0, ''), p
    items, works = doctor(pre)
    assert works and items['trial']['status'] == items['userfaultfd']['status'] == 'warning'


def test_few_descriptors():
    needs_root()
    for limit, works in ((12, False), (24, True)):
        items, would_work = doctor(['prlimit', f'--nofile={limit}'])
        assert would_work == works, items['trial']
    assert 'RLIMIT_NOFILE' in doctor(['prlimit', '--nofile=12'])[0]['trial']['detail']
    right(['prlimit', '--nofile=24'])


# ---- namespaces -----------------------------------------------------------------------------


def user_namespace():
    if call(['unshare', '-Ur', 'true']).returncode:
        raise Skip('user namespaces are not allowed')
    return ['unshare', '-Urpf', '--mount-proc']


@both
def test_user_pid_and_mount_namespaces(who):
    pre = [*who, *user_namespace()]
    right(pre, 'spawn')
    items, works = truth(pre)
    assert works and items['fork']['status'] == 'available'
    python_agrees(pre)


def test_proc_of_another_pid_namespace():
    """Process and thread numbers that are read in /proc are not those of our own namespace."""
    pre = ['unshare', '-Upf', '--map-root-user'] if not ROOT else ['unshare', '-pf']
    if call([*pre, 'true']).returncode:
        raise Skip('namespaces are not allowed')
    right(pre, 'generated', 'discard')
    tells(pre, {})


def bare_root(extra=''):
    """No /proc, no /sys, in /dev but null, zero and urandom; other directories as they are."""
    root = os.path.join(WORK, 'root')
    script = f'''
set -e
mount -t tmpfs -o mode=755 none {root}
for d in bin lib lib64 usr etc var; do
	[ -d /$d ] || continue
	mkdir -p {root}/$d; mount --rbind /$d {root}/$d
done
mkdir {root}/dev {root}/tmp
for d in null zero urandom; do touch {root}/dev/$d; mount --bind /dev/$d {root}/dev/$d; done
{extra}
exec chroot {root} "$0" "$@"
'''
    return ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script]


@both
def test_without_proc_and_with_few_devices(who):
    if who or not ROOT:
        user_namespace()
        pre = [*who, 'unshare', '-Ur', *bare_root()]
    else:
        pre = bare_root()
    right(pre, 'discard', 'dontfork')
    python_agrees(pre)
    items, works = truth(pre)
    assert works
    for item, status in (('fork', 'available'), ('limit.memory_cgroup', 'warning'),
                         ('userfaultfd.device', 'missing')):
        assert items[item]['status'] == status, items[item]
    assert '/dev/null' in items['fork']['detail']


def test_threads_that_leave_one_by_one_without_proc():
    needs_root()
    for options in (), ('--delivery', 'thread'), ('--syscalls', 'dispatch'):
        for word, output in (('leave-alone', ''), ('leave-early', 'right\n'), *3 * [('leave-together', '')]):
            p = run(bare_root(), word, options=options)
            assert (p.returncode, p.stdout) == (7, output), (word, p)
    # Nor does it try what would kill it.
    right([*bare_root(), JAIL_IN, f'{number("unshare")}=kill', '--'])


def test_without_proc_and_without_null():
    needs_root()
    pre = bare_root('umount $PWD/root/dev/null; rm $PWD/root/dev/null'.replace('$PWD', WORK))
    right(pre, 'nofork')
    p = run(pre)
    assert p.returncode == 1 and 'pid >= 0: Function not implemented' in p.stderr, p
    items, works = doctor(pre)
    assert works and items['fork']['status'] == 'missing' and items['trial']['status'] == 'warning'
    # and no memory file either: nowhere to have locks
    refused([*pre, JAIL_IN, 'memfd_create=EPERM', '--'], 'no place for locks')
    assert not doctor([*pre, JAIL_IN, 'memfd_create=EPERM', '--'])[1]


def test_memory_limit_without_proc():
    """As a container on cgroup v2 sees its own group."""
    needs_root()
    root = os.path.join(WORK, 'root')
    pre = bare_root(f'mkdir -p {root}/sys/fs/cgroup; echo 67108864 >{root}/sys/fs/cgroup/memory.max')
    items, works = doctor(pre)
    assert works and items['limit.memory_cgroup']['detail'].startswith('64.0 MiB of')
    assert items['budget']['detail'] == "32.0 MiB: half of the memory cgroup's limit of 64.0 MiB"


# ---- seccomp --------------------------------------------------------------------------------


def jail(*rules, who=()):
    return [*who, JAIL_IN, *rules, '--']


NO_URING = {'io_uring': 'missing'}


def test_default_filter_refuses_userfaultfd():
    for error in ('EPERM', 'ENOSYS'):
        pre = jail('default', f'userfaultfd={error}', who=NOBODY)
        refused(pre, 'userfaultfd')
        items, works = truth(pre)
        assert not works and items['userfaultfd']['status'] == 'missing'
        assert items['trial']['status'] == 'missing' and 'userfaultfd' in items['trial']['detail']


def test_default_filter_as_root_by_the_device():
    needs_root()
    if not os.path.exists('/dev/userfaultfd'):
        raise Skip('no /dev/userfaultfd')
    pre = jail('default')
    right(pre, 'spawn')
    items, works = truth(pre)
    assert works
    for item in ('io_uring', 'userfaultfd.user_mode', 'userfaultfd.full', 'ebpf'):
        assert items[item]['status'] == 'missing', items[item]
    assert items['setting.seccomp']['detail'].startswith('filter')


def test_default_filter_that_allows_userfaultfd():
    pre = jail('default', 'userfaultfd=allow', who=NOBODY)
    right(pre, 'spawn')
    tells(pre, NO_URING, base=NOBODY)
    python_agrees(pre)


@both
def test_io_uring_refused(who):
    right(jail('io_uring=ENOSYS', who=who))
    tells(jail('io_uring=EPERM', who=who), NO_URING, base=who)


@both
def test_process_madvise_refused(who):
    pre = jail('process_madvise=EPERM', who=who)
    stats = right(pre)
    assert 'process_madvise' not in stats['features'], stats['features']
    tells(pre, {'process_madvise': 'missing'}, base=who)


def test_dispatch_refused():
    pre = jail('dispatch=EPERM', who=NOBODY)
    right(pre)
    tells(pre, {'dispatch': 'missing'}, base=NOBODY)
    refused(pre, 'Syscall User Dispatch', options=('--syscalls', 'dispatch'))
    p = run(pre, 'generated')
    assert p.returncode == 1 and 'got == 9' in p.stderr, p


@both
def test_memory_files_refused(who):
    pre = jail('memfd_create=ENOSYS', who=who)
    right(pre, 'spawn')
    tells(pre, {'memfd': 'missing'}, base=who)


def test_code_cannot_be_changed():
    """systemd's MemoryDenyWriteExecute, for example."""
    pre = jail('wx=EPERM', who=NOBODY)
    assert right(pre, 'spawn')['trapped'] > 0
    tells(pre, {'code': 'missing'}, base=NOBODY)
    pre = jail('wx=EPERM', 'dispatch=EINVAL', who=NOBODY)
    refused(pre, 'cannot be trapped')
    tells(pre, {'code': 'missing', 'dispatch': 'missing', 'trial': 'missing'}, works=False,
          base=NOBODY)


def test_clone3_and_personality_unknown():
    pre = jail('clone3=ENOSYS', 'personality=ENOSYS', 'rseq=ENOSYS', 'close_range=ENOSYS',
               'faccessat2=ENOSYS', 'fallocate=EPERM', who=NOBODY)
    right(pre, 'spawn')
    tells(pre, {}, base=NOBODY)


def test_filter_that_kills():
    """What the engine could do without is not even tried."""
    rules = ('io_uring=kill', 'process_madvise=kill', 'memfd_create=kill', 'dispatch=kill',
             'close_range=kill', 'pidfd_open=kill')
    pre = jail(*rules, who=NOBODY)
    right(pre, 'spawn')
    # Nor where the filter comes between the command and the program.
    p = run(NOBODY, *rules, '--', PROG_IN, program=JAIL_IN)
    assert p.returncode == 0 and p.stdout == 'right\n', p
    tells(pre, {'io_uring': 'missing', 'process_madvise': 'missing', 'memfd': 'missing',
                'dispatch': 'missing'}, base=NOBODY, ask=doctor)
    pre = jail('userfaultfd=kill', who=NOBODY)
    refused(pre, 'seccomp')
    assert not doctor(pre)[1]


# ---- filters of the program's own -------------------------------------------------------------


def number(name):
    source = f'#include <sys/syscall.h>\nSYS_{name}\n'
    p = subprocess.run(['cc', '-E', '-P', '-'], input=source, capture_output=True, text=True)
    return p.stdout.split()[-1]


def test_own_filter_refuses_what_the_engine_can_do_without():
    for name in ('process_madvise', 'fallocate', 'io_uring_enter'):
        right(NOBODY, f'tsync={number(name)}')
    for word in ('filter', 'tsync'):
        right(NOBODY, f'{word}={number("process_vm_readv")}', options=STANDBY)


def test_own_filter_refuses_what_a_fault_needs():
    for name in ('ioctl', 'preadv'):
        p = run(NOBODY, f'filter={number(name)}')
        assert p.returncode == -7 and p.stdout == '', p


def test_own_filter_refuses_writing():
    p = run(NOBODY, f'tsync={number("pwritev")}', 'nofork')
    assert (p.returncode, p.stdout) == (0, 'right\n'), p
    assert 'swap write failed' in p.stderr, p.stderr


def test_own_filter_refuses_what_fork_needs():
    p = run(NOBODY, f'filter={number("openat")}')
    assert p.returncode == 1 and 'pid >= 0: Operation not permitted' in p.stderr, p
    if ROOT and os.path.exists('/dev/userfaultfd'):
        right([], f'filter={number("userfaultfd")}')


def test_children_without_userfaultfd_do_without():
    no_uffd = f'filter={number("userfaultfd")}'
    for options in (('--delivery', 'upcall'), ('--delivery', 'thread'), STANDBY):
        for word in ('', 'dontfork', 'protected'):
            p = run(NOBODY, no_uffd, word, options=options)
            said = [line for line in p.stderr.splitlines() if line[0] != '{']
            assert (p.returncode, p.stdout) == (0, 'right\n'), p
            assert said and all('the child gets no userfaultfd' in line for line in said), p
            # Each child says so, and its own children do not.
            assert len(said) == (2 if word else 1), p


def test_children_without_userfaultfd_that_cannot_read_end():
    filters = [f'filter={number(name)}' for name in ('userfaultfd', 'preadv')]
    p = run(NOBODY, *filters, 'protected')
    assert p.returncode == 1 and p.stdout == '', p
    assert 'cannot read its memory back' in p.stderr and 'ended by signal 6' in p.stderr, p


MANY = '''
import mmap
def anonymous(n):
    return mmap.mmap(-1, n, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
large = anonymous(200 << 20)
for turn in 1, 2:
    for at in range(0, len(large), 4096):
        large[at] += 1
small = [anonymous(2 << 20) for i in range(180)]
for i, m in enumerate(small):
    for at in range(0, len(m), 65536):
        m[at] = 1 + i % 100
print(sum(large[at] for at in range(0, len(large), 4096)) + sum(m[0] for m in small))
'''


def test_limited_addresses_suffice_with_standby():
    """The frames, of which the budget allows more than the engine's range of addresses has, leave room for tables."""
    p = call(['prlimit', f'--as={800 * MIB}', X, 'run', '--dram', '120M', '--swap', SWAP, *STANDBY, '--', PYTHON,
              '-c', MANY])
    right_sum = 2 * 51200 + sum(1 + i % 100 for i in range(180))
    assert (p.returncode, p.stdout) == (0, f'{right_sum}\n'), p


def test_own_filter_kills():
    p = run(NOBODY, f'kill={number("ioctl")}')
    assert (p.returncode, p.stdout) == (-31, ''), p


def test_strict_mode():
    assert call([PROG_IN, 'strict']).stdout == 'right\n'
    p = run(NOBODY, 'strict')
    assert p.returncode < 0 and p.stdout == '', p


# ---- read-only root file systems ----------------------------------------------------------------


def read_only(tmpfs=''):
    script = '''
set -e
for d in / /var/tmp /tmp /dev/shm /run; do
	mount --bind $d $d
	mount -o remount,bind,ro $d
done
''' + (f'mount -t tmpfs -o mode=1777,{tmpfs} none {SWAP}\n' if tmpfs else '') + 'exec "$0" "$@"\n'
    return ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script]


@both
def test_read_only_root_with_a_place_for_the_swap(who):
    needs_root()
    pre = [*read_only('size=64M'), *who]
    assert run(pre, options=('--stats', '/var/tmp/s')).returncode == 2
    right(pre, 'spawn')
    right(pre, 'nofork', swap=None, env={'TMPDIR': SWAP})
    items, works = truth(pre)
    assert works and 'tmpfs' in items['swap.space']['detail'], items['swap.space']


def test_read_only_root_with_too_small_a_place():
    """A full store: the pages stay in memory."""
    needs_root()
    p = run([*read_only('size=4M'), *NOBODY], 'nofork')
    assert (p.returncode, p.stdout) == (0, 'right\n') and 'is full' in p.stderr, p


@both
def test_nowhere_to_write(who):
    needs_root()
    pre = [*read_only(), *who]
    refused(pre, 'Read-only file system', swap=None)
    items, works = truth(pre, swap=None)
    assert not works and items['swap']['status'] == 'missing'


# ---- memory cgroups -------------------------------------------------------------------------------


def test_memory_cgroup_smaller_than_ram():
    needs_root()
    group = os.path.join(CGROUPS, f'extmem-test-{os.getpid()}')
    v1 = os.path.exists(os.path.join(CGROUPS, 'memory.limit_in_bytes'))
    if not v1:
        group = f'/sys/fs/cgroup/extmem-test-{os.getpid()}'
    try:
        os.mkdir(group)
        with open(os.path.join(group, 'memory.limit_in_bytes' if v1 else 'memory.max'), 'w') as f:
            f.write(str(96 * MIB))
    except OSError as error:
        raise Skip(f'no memory cgroup can be made: {error}') from error
    pre = ['sh', '-c', f'echo $$ >{group}/cgroup.procs && exec "$0" "$@"', *NOBODY]
    try:
        items, works = doctor(pre)
        assert works and items['limit.memory_cgroup']['detail'].startswith('96.0 MiB of'), items
        assert items['budget']['detail'] == "48.0 MiB: half of the memory cgroup's limit of 96.0 MiB"
        p = run(pre, dram=None)
        assert p.returncode == 0 and f'"budget_bytes":{48 * MIB},' in p.stderr, p
        assert right(pre, dram='2%')['budget_bytes'] == 96 * MIB // 50 & ~4095
        # More than the group may have at all.
        p = call([*pre, X, 'run', '--swap', SWAP, '--stats', '-', '--', PYTHON, '-c',
                  f'x = bytes([7]) * {120 * MIB}; print(x.count(7))'])
        assert (p.returncode, p.stdout) == (0, f'{120 * MIB}\n'), p
        assert json.loads(p.stderr)['resident_peak_bytes'] < 49 * MIB, p.stderr
    finally:
        os.rmdir(group)


# ---------------------------------------------------------------------------------------------------


def set_sysctl(value):
    with open(USERFAULTFD_SYSCTL, 'r+') as f:
        old = f.read()
        if old.strip() != value:
            f.seek(0)
            f.write(value)
    return old.strip()


def prepare():
    os.chmod(WORK, 0o755)
    shutil.copy(os.path.join(BUILD, 'extmem'), X)
    shutil.copy(os.path.join(BUILD, 'libextmem-preload.so'), WORK)
    shutil.copy(PROG, PROG_IN)
    shutil.copy(JAIL, JAIL_IN)
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'oracle.py'), WORK)
    for name in ('swap', 'root', 'dev'):
        os.mkdir(os.path.join(WORK, name))
    os.chmod(SWAP, 0o1777)


prepare()
OLD = set_sysctl('0') if ROOT and os.path.exists(USERFAULTFD_SYSCTL) else None
try:
    STATUS = run_tests(globals(), sys.argv[4:])
finally:
    if OLD is not None:
        set_sysctl(OLD)
    shutil.rmtree(WORK)
sys.exit(STATUS)
