# SPDX-License-Identifier: MIT
"""Runs the test_ functions of a script and prints TAP."""
import traceback


class Skip(Exception):
    """What keeps a test from running here."""


def run_tests(script, wanted, after=lambda: None):
    """script: its globals(); wanted: parts of names, empty for all.  Returns whether a test failed."""
    tests = [(name[5:], test) for name, test in script.items() if name.startswith('test_')
             and (not wanted or any(w in name for w in wanted))]
    bad = False
    print(f'1..{len(tests)}')
    for i, (name, test) in enumerate(tests, 1):
        try:
            test()
            print(f'ok {i} - {name}', flush=True)
        except Skip as why:
            print(f'ok {i} - {name} # SKIP {why}', flush=True)
        except Exception:  # pylint: disable=broad-except
            bad = True
            print(f'not ok {i} - {name}', flush=True)
            for line in traceback.format_exc().splitlines()[-12:]:
                print(f'# {line[:600]}')
        after()
    return bad
