#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Counts tests: tally.py FILE...

A FILE is Meson's testlog.json or (*.tap) the output of one TAP program.  Cases inside a test
are counted where its output tells them (TAP, cmocka, unittest), else the test counts as one.
Prints what was skipped and what failed, and last `N passed, N failed, N skipped`.
"""
import json
import re
import sys

TAP = re.compile(r'^(not )?ok\b[ \t]*(\d*)[ \t]*-?[ \t]*(.*)$', re.M)
CMOCKA = re.compile(r'^\[ +(OK|FAILED|SKIPPED) +\] (\w+)$', re.M)
UNITTEST = re.compile(r'^Ran (\d+) tests? in ', re.M)


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def skip(self, name, why):
        self.skipped += 1
        print(f'skipped: {name}: {why}')

    def fail(self, name):
        self.failed += 1
        print(f'FAILED: {name}')

    def tap(self, name, text):
        for bad, _, what in TAP.findall(text):
            title, _, directive = what.partition('#')
            directive = directive.strip()
            if re.match(r'(?i)skip', directive):
                self.skip(f'{name}: {title.strip()}', directive[4:].strip(': ') or 'no reason given')
            elif bad and not directive.upper().startswith('TODO'):
                self.fail(f'{name}: {title.strip()}')
            else:
                self.passed += 1
        plan = re.search(r'^1\.\.0\b\s*(?:#\s*skip\S*\s*(.*))?$', text, re.M | re.I)
        if plan:
            self.skip(name, plan.group(1) or 'no reason given')

    def cmocka(self, name, found):
        for result, case in found:
            if result == 'OK':
                self.passed += 1
            elif result == 'SKIPPED':
                self.skip(f'{name}: {case}', 'see its output')
            else:
                self.fail(f'{name}: {case}')

    def unittest(self, name, ran, text):
        part = {k: int(v) for k, v in re.findall(r'(failures|errors|skipped)=(\d+)', text)}
        bad = part.get('failures', 0) + part.get('errors', 0)
        reasons = re.findall(r"skipped ['\"](.*)['\"]", text)
        for i in range(part.get('skipped', 0)):
            self.skip(name, reasons[i] if i < len(reasons) else 'see its output')
        for case in re.findall(r'^(?:FAIL|ERROR): (\w+)', text, re.M)[:bad]:
            self.fail(f'{name}: {case}')
        self.passed += max(0, ran - bad - part.get('skipped', 0))

    def test(self, t):
        """One test of Meson's.  Its verdict stands, whatever the cases inside say."""
        name, result = t['name'].split(' / ')[-1], t['result']
        out, err = t.get('stdout', ''), t.get('stderr', '')
        before = self.passed, self.failed, self.skipped
        found, ran = CMOCKA.findall(out + '\n' + err), UNITTEST.findall(err)
        # cmocka lists its failures again in the end, with the same words
        if re.search(r'^\[=+\] ', out + err, re.M):
            started = len(re.findall(r'^\[ RUN +\] ', out + err, re.M))
            self.cmocka(name, found[:started])
        elif ran:
            self.unittest(name, sum(map(int, ran)), err)
        elif TAP.search(out) or re.search(r'^1\.\.0', out, re.M):
            self.tap(name, out)
        counted = (self.passed, self.failed, self.skipped) != before
        if result in ('FAIL', 'ERROR', 'TIMEOUT', 'INTERRUPT', 'UNEXPECTEDPASS'):
            if self.failed == before[1]:
                self.fail(f'{name}: {result.lower()}, status {t.get("returncode")}')
        elif result == 'SKIP':
            if self.skipped == before[2]:
                words = [w for w in (err.strip() or out.strip()).splitlines() if w.strip()]
                self.skip(name, words[-1] if words else 'no reason given')
        elif not counted:
            self.passed += 1


def main():
    count = Count()
    for path in sys.argv[1:]:
        with open(path, errors='replace') as f:
            if path.endswith('.tap'):
                count.tap(path.rsplit('/', 1)[-1][:-4], f.read())
                continue
            for line in f:
                count.test(json.loads(line))
    print(f'{count.passed} passed, {count.failed} failed, {count.skipped} skipped')
    return 1 if count.failed or not count.passed else 0


sys.exit(main())
