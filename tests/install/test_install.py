#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is installed is complete and works from where it is: test_install.py BUILD CC..."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD, CC = os.path.abspath(sys.argv[1]), sys.argv[2:]
USES_LIBRARY = r'''
#include <extmem/extmem.h>
#include <extmem/policy.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(void)
{
	static char json[128 << 10];
	char err[300];
	size_t i, len = 16 << 20;
	int rc = extmem_start(err, sizeof(err));
	unsigned char *p;

	if (rc) {
		fprintf(stderr, "extmem_start: %d: %s\n", rc, err);
		return 1;
	}
	if (extmem_start(err, sizeof(err)) >= 0 || extmem_is_managed(json))
		return 2;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || !extmem_is_managed(p))
		return 3;
	for (i = 0; i < len; i += 4096)
		memset(p + i, (int)(i >> 12), 4096);
	for (i = 0; i < len; i++)
		if (p[i] != (unsigned char)(i >> 12))
			return 4;
	if (extmem_stats_json(json, 10) >= 0 || extmem_stats_json(json, sizeof(json)) <= 0)
		return 5;
	fputs(json, stdout);
	return 0;
}
'''


def setUpModule():
    global DIR, ROOT, PREFIX
    DIR = os.path.realpath(tempfile.mkdtemp(prefix='extmem-install-', dir='/var/tmp'))
    os.chmod(DIR, 0o755)
    ROOT = os.path.join(DIR, 'root')
    subprocess.run(['meson', 'install', '-C', BUILD, '--no-rebuild', '--quiet'], check=True,
                   env={**os.environ, 'DESTDIR': ROOT}, stdout=subprocess.DEVNULL)
    options = subprocess.run(['meson', 'introspect', '--buildoptions', BUILD], check=True,
                             capture_output=True, text=True).stdout
    PREFIX = next(o['value'] for o in json.loads(options) if o['name'] == 'prefix')


def tearDownModule():
    shutil.rmtree(DIR)


def installed(pattern):
    return sorted(glob.glob(ROOT + PREFIX + '/' + pattern, recursive=True))


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith('EXTMEM_')}
    return {**env, 'EXTMEM_SWAP': DIR, **more}


class Install(unittest.TestCase):
    def one(self, pattern):
        found = installed(pattern)
        self.assertTrue(found, f'{pattern}: not installed')
        return found[0]

    def pkg_config(self, *what):
        pc = os.path.dirname(self.one('**/extmem.pc'))
        return subprocess.run(
            ['pkg-config', *what, 'extmem'], check=True, capture_output=True, text=True,
            env={**os.environ, 'PKG_CONFIG_PATH': pc, 'PKG_CONFIG_SYSROOT_DIR': ROOT}).stdout.split()

    def test_everything_is_there(self):
        for pattern in ('bin/extmem', 'include/extmem/extmem.h', 'include/extmem/policy.h',
                        '**/libextmem.so', '**/libextmem-preload.so', '**/pkgconfig/extmem.pc',
                        'share/man/man1/extmem.1*', 'share/man/man1/extmem-run.1*',
                        'share/man/man1/extmem-ctl.1*', 'share/man/man1/extmem-doctor.1*'):
            self.one(pattern)

    def test_nothing_else_is_there(self):
        for path in installed('**/*'):
            if not os.path.isdir(path) and '/libexec/extmem/bench/' not in path:
                self.assertRegex(os.path.basename(path),
                                 r'^(lib)?extmem|^policy\.h$', path)

    def test_no_path_of_the_build(self):
        for pattern in ('bin/extmem', '**/libextmem.so', '**/libextmem-preload.so'):
            text = subprocess.run(['readelf', '-d', self.one(pattern)], capture_output=True,
                                  text=True, check=True).stdout
            self.assertNotRegex(text, 'RPATH|RUNPATH')

    def test_exports(self):
        """Only what the map lists; the preload library exports nothing."""
        def exports(pattern):
            text = subprocess.run(['nm', '-D', '--defined-only', self.one(pattern)],
                                  capture_output=True, text=True, check=True).stdout
            return {re.sub('@.*', '', line.split()[-1]) for line in text.splitlines()
                    if line.split()[-2] != 'A'}
        for name in exports('**/libextmem.so'):
            self.assertRegex(name, '^extmem_')
        self.assertIn('extmem_start', exports('**/libextmem.so'))
        self.assertEqual(exports('**/libextmem-preload.so'), set())

    def test_program_with_the_library(self):
        source, program = os.path.join(DIR, 'p.c'), os.path.join(DIR, 'p')
        with open(source, 'w') as f:
            f.write(USES_LIBRARY)
        subprocess.run([*CC, '-Wall', '-Wextra', '-Werror', source, '-o', program,
                        *self.pkg_config('--cflags', '--libs')], check=True)
        lib = os.path.dirname(self.one('**/libextmem.so'))
        p = subprocess.run([program], env=environment(LD_LIBRARY_PATH=lib, EXTMEM_DRAM='4M'),
                           capture_output=True, text=True, timeout=60)
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        self.assertIsInstance(json.loads(p.stdout), dict)

    def test_headers_in_cxx(self):
        if not shutil.which('c++'):
            self.skipTest('no C++ compiler')
        subprocess.run(['c++', '-fsyntax-only', '-Wall', '-Wextra', '-Werror', '-x', 'c++',
                        *self.pkg_config('--cflags'), '-'], check=True, text=True,
                       input='#include <extmem/extmem.h>\n#include <extmem/policy.h>\n')

    def test_bench_finds_its_programs(self):
        p = subprocess.run([self.one('bin/extmem'), 'bench', '--list'], capture_output=True,
                           text=True, timeout=60)
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        self.assertIn('rand-read', p.stdout)
        for name in ('touch', 'lookup', 'gen.py'):
            self.one('libexec/extmem/bench/' + name)

    def test_command(self):
        """It finds the library relative to itself, out of reach of the build directory."""
        p = subprocess.run([self.one('bin/extmem'), 'run', '--dram', '8M', '--', '/bin/ls', '/'],
                           env=environment(), capture_output=True, text=True, timeout=60)
        native = subprocess.run(['/bin/ls', '/'], capture_output=True, text=True)
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, native.stdout, ''))
        p = subprocess.run([self.one('bin/extmem'), 'run', '-v', '--', '/bin/true'],
                           env=environment(), capture_output=True, text=True, timeout=60)
        self.assertIn(ROOT, p.stderr)

    def test_manual_pages(self):
        if not shutil.which('mandoc'):
            self.skipTest('mandoc is not installed')
        for page in installed('share/man/man*/*'):
            p = subprocess.run(['mandoc', '-T', 'lint', '-W', 'warning', page], capture_output=True,
                               text=True)
            self.assertEqual((p.returncode, p.stdout), (0, ''), page)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
