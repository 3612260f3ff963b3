#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The parts of the bench harness that compute, and what it does when runs go wrong."""
import contextlib
import io
import os
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH = os.path.join(ROOT, "bench")
sys.path[:0] = [BENCH, os.path.join(BENCH, "lib")]
sys.dont_write_bytecode = True
import bench  # noqa: E402
import benches  # noqa: E402
import cases  # noqa: E402
import disk  # noqa: E402
import figures  # noqa: E402
import gen  # noqa: E402
import memlimit  # noqa: E402
import plot  # noqa: E402
import report  # noqa: E402
import runner  # noqa: E402
import timing  # noqa: E402
import units  # noqa: E402
import zram  # noqa: E402

SECONDS = cases.Metric("s", lambda sample: sample.wall_s)
RATE = cases.Metric("r", lambda sample: sample.wall_s, higher_is_better=True, unit="rate")


def sample(value, digest="same"):
    return runner.Sample(value, 1 << 20, "", digest, "")


def result_of(metric, bars=(), same_output=False, **values):
    variants = [runner.Variant(name.replace("_", " "), name.split("_")[0]) for name in values]
    case = cases.Case("case", [], variants, [metric], list(bars), same_output=same_output)
    samples = {name.replace("_", " "): list(map(sample, those))
               for name, those in values.items() if those}
    return cases.CaseResult(case, samples, {}, {})


class Figures(unittest.TestCase):
    def test_median(self):
        self.assertEqual(figures.median([3, 1, 2]), 2)
        self.assertEqual(figures.median([4, 1, 2, 3]), 2.5)
        self.assertRaises(ValueError, figures.median, [])

    def test_spread_is_relative_to_the_median(self):
        self.assertAlmostEqual(figures.spread([9, 10, 12]), 0.3)
        self.assertEqual(figures.spread([5]), 0)

    def test_times_as_fast(self):
        self.assertEqual(figures.times_as_fast([20], [10], True), 2)
        self.assertEqual(figures.times_as_fast([20], [10], False), 0.5)

    def test_interleaving_takes_turns(self):
        self.assertEqual(figures.interleave("AB", 2), [(0, "A"), (0, "B"), (1, "A"), (1, "B")])


class Units(unittest.TestCase):
    def test_sizes(self):
        self.assertEqual(units.parse_size("512M"), 512 << 20)
        self.assertEqual(units.parse_size("1.5GiB"), 3 << 29)
        self.assertEqual(units.parse_size("4096"), 4096)
        for bad in ("", "M", "-1", "1X", "1 M M"):
            self.assertRaises(ValueError, units.parse_size, bad)

    def test_formats(self):
        self.assertEqual(units.format_size(512 << 20), "512 MiB")
        self.assertEqual(units.format_time(0.0000016), "1.60 µs")
        self.assertEqual(units.format_rate(66100), "66.1 k/s")


class Parsing(unittest.TestCase):
    def test_timing_line(self):
        text = "noise\ntiming generate_s=1.5 kernel_s=0.25 threads=2\nmore noise\n"
        self.assertEqual(timing.parse_timing(text),
                         {"generate_s": 1.5, "kernel_s": 0.25, "threads": 2})
        self.assertRaises(ValueError, timing.parse_timing, "nothing")

    def test_fio(self):
        text = 'note: something\n{"jobs": [{"read": {"iops": 11000.5, "bw_bytes": 45000000}}]}'
        self.assertEqual(disk.parse_fio(text), (11000.5, 45000000))

    def test_memory_hierarchy(self):
        with tempfile.NamedTemporaryFile("w") as mounts:
            mounts.write("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
                         "cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,memory 0 0\n")
            mounts.flush()
            self.assertEqual(memlimit.find_hierarchy(mounts.name), (1, "/sys/fs/cgroup/memory"))

    def test_memory_hierarchy_version_2_and_none(self):
        with tempfile.TemporaryDirectory() as where:
            controllers = os.path.join(where, "cgroup.controllers")
            mounts = os.path.join(where, "mounts")
            with open(mounts, "w", encoding="ascii") as out:
                out.write(f"cgroup2 {where} cgroup2 rw 0 0\n")
            with open(controllers, "w", encoding="ascii") as out:
                out.write("cpu memory\n")
            self.assertEqual(memlimit.find_hierarchy(mounts), (2, where))
            with open(controllers, "w", encoding="ascii") as out:
                out.write("cpu\n")
            self.assertRaises(memlimit.Unavailable, memlimit.find_hierarchy, mounts)


    def test_memory_of_a_zram_device(self):
        text = "  4194304  1048576  1187840        0  1187840        3        0        0        0\n"
        self.assertEqual(zram.parse_mm_stat(text), (4194304, 1187840))

    def test_owner_of_a_swap_space_is_on_its_label(self):
        with tempfile.NamedTemporaryFile() as device:
            device.write(bytes(zram.LABEL_AT) + b"emb.1234567".ljust(zram.LABEL_BYTES, b"\0"))
            device.flush()
            self.assertEqual(zram._owner(device.name), 1234567)
            device.seek(zram.LABEL_AT)
            device.write(b"somebody else".ljust(zram.LABEL_BYTES, b"\0"))
            device.flush()
            self.assertIsNone(zram._owner(device.name))
        self.assertIsNone(zram._owner("/nonexistent"))

    def test_a_label_holds_the_largest_process_number(self):
        self.assertLess(len(f"{zram.LABEL_PREFIX}{1 << 22}"), zram.LABEL_BYTES)


class Judging(unittest.TestCase):
    def test_at_least_on_rates(self):
        bar = cases.Bar("r", "extmem", "swap", at_least=2)
        self.assertEqual(result_of(RATE, swap=[10], extmem=[19]).judge(bar), (1.9, False))
        self.assertEqual(result_of(RATE, swap=[10], extmem=[20]).judge(bar), (2, True))

    def test_at_most_on_times(self):
        bar = cases.Bar("s", "extmem", "native", at_most=1.05)
        self.assertTrue(result_of(SECONDS, native=[1.0], extmem=[1.04]).judge(bar)[1])
        self.assertFalse(result_of(SECONDS, native=[1.0], extmem=[1.06]).judge(bar)[1])

    def test_at_most_so_much_more(self):
        bar = cases.Bar("s", "extmem", "native", more=25e-9)
        result = result_of(SECONDS, [bar], native=[100e-9], extmem=[120e-9])
        self.assertTrue(result.judge(bar)[1])
        self.assertIn("pass  measured +20 ns", report.case_text(result))
        result = result_of(SECONDS, [bar], native=[100e-9], extmem=[130e-9])
        self.assertFalse(result.judge(bar)[1])
        result = result_of(SECONDS, [bar], native=[100e-9], extmem=[99e-9])
        self.assertTrue(result.judge(bar)[1])
        self.assertIn("measured -1 ns", report.case_text(result))

    def test_growth_is_held_against_the_growth_of_others(self):
        bar = cases.Bar("s", "extmem 8", "extmem 1", at_most=1.0, like=("native 8", "native 1"))
        result = result_of(SECONDS, native_1=[1.0], native_8=[2.0], extmem_1=[3.0],
                           extmem_8=[5.0])
        measured, passed = result.judge(bar)
        self.assertAlmostEqual(measured, 5 / 3 / 2)
        self.assertTrue(passed)
        result.samples["native 8"] = [sample(1.5)]
        self.assertFalse(result.judge(bar)[1])
        del result.samples["native 8"]
        self.assertEqual(result.judge(bar), (None, None))

    def test_each_side_is_compared_with_its_own_base(self):
        result = result_of(SECONDS, native_small=[1.0], native_big=[2.0], extmem_small=[2.0],
                           extmem_big=[2.0])
        small, big = result.case.variants[2:]
        small.against, big.against = "native small", "native big"
        self.assertEqual(result.standing(small, SECONDS), 0.5)
        self.assertEqual(result.standing(big, SECONDS), 1.0)

    def test_the_base_is_not_compared_with_itself(self):
        result = result_of(SECONDS, native=[1.0], extmem=[2.0])
        result.case.base = "native"
        native, extmem = result.case.variants
        self.assertIsNone(result.standing(native, SECONDS))
        self.assertEqual(result.standing(extmem, SECONDS), 0.5)

    def test_the_best_swap_setting_counts(self):
        bar = cases.Bar("s", "extmem", "swap", at_least=2)
        result = result_of(SECONDS, swap_a=[8.0], swap_b=[4.0], extmem=[2.0])
        self.assertEqual(result.judge(bar), (2, True))
        bar = cases.Bar("r", "extmem", "swap", at_least=2)
        result = result_of(RATE, swap_a=[8.0], swap_b=[4.0], extmem=[8.0])
        self.assertEqual(result.judge(bar), (1, False))

    def test_a_missing_side_is_not_a_pass(self):
        bar = cases.Bar("s", "extmem", "swap", at_least=2)
        result = result_of(SECONDS, [bar], swap=[], extmem=[2.0])
        self.assertEqual(result.judge(bar), (None, None))
        self.assertEqual(report.count_bars([result]), (0, 0, 1))
        self.assertIn("not measured", report.case_text(result_with_skip(result)))

    def test_different_output_is_unsound(self):
        result = result_of(SECONDS, same_output=True, native=[1.0], extmem=[1.0])
        self.assertTrue(report.is_sound(result))
        result.samples["extmem"][0].stdout_digest = "other"
        self.assertFalse(report.is_sound(result))
        self.assertIn("DIFFERENT", report.case_text(result))


def result_with_skip(result):
    result.skipped["swap"] = "not root"
    return result


class Machine:
    """Stands for runner.Runner: every command is a function."""

    def __init__(self, **behaviour):
        self.behaviour = behaviour
        self.calls = []

    def missing(self, variant):
        return "none here" if variant.kind not in self.behaviour else None

    def run(self, variant, _command, budget, _env, _client):
        self.calls.append((variant.name, budget))
        return self.behaviour[variant.kind]()


def failing(error):
    def run():
        raise error
    return run


class Running(unittest.TestCase):
    def case(self, *kinds, budget=100):
        return cases.Case("c", ["x"], [runner.Variant(kind, kind) for kind in kinds], [SECONDS],
                          budget=budget)

    def test_budget_from_the_native_run(self):
        machine = Machine(native=lambda: sample(1), extmem=lambda: sample(2))
        case = self.case("native", "extmem", budget=lambda native: native.peak_rss_bytes // 2)
        cases.run_case(machine, case, 2)
        self.assertEqual(machine.calls, [("native", None), ("extmem", 1 << 19)] +
                         [("native", 1 << 19), ("extmem", 1 << 19)])

    def test_a_failed_side_does_not_stop_the_others(self):
        machine = Machine(native=lambda: sample(1),
                          extmem=failing(runner.RunFailed("exit status 3")))
        result = cases.run_case(machine, self.case("native", "extmem", "swap"), 3)
        self.assertEqual(len(result.samples["native"]), 3)
        self.assertEqual(result.failures, {"extmem": "exit status 3"})
        self.assertEqual(result.skipped, {"swap": "none here"})
        self.assertFalse(report.is_sound(result))

    def test_oom_kills_are_counted_and_retried(self):
        left = [runner.OutOfMemory("killed"), runner.OutOfMemory("killed")]

        def unlucky():
            if left:
                raise left.pop()
            return sample(5)

        result = cases.run_case(Machine(swap=unlucky), self.case("swap"), 1)
        self.assertEqual(result.oom_kills, {"swap": 2})
        self.assertEqual(len(result.samples["swap"]), 1)
        always = Machine(swap=failing(runner.OutOfMemory("killed")))
        result = cases.run_case(always, self.case("swap"), 1)
        self.assertEqual(len(always.calls), cases.OOM_KILLS_MAX)
        self.assertTrue(report.is_sound(result))
        self.assertIn("OOM-killed", report.case_text(result))

    def test_what_does_not_fit_is_said_and_not_tried_again(self):
        machine = Machine(native=lambda: sample(1),
                          zram=failing(runner.DoesNotFit("does not fit: too much")))
        result = cases.run_case(machine, self.case("native", "zram"), 3)
        self.assertEqual([name for name, _ in machine.calls].count("zram"), 1)
        self.assertIn("does not fit", report.case_text(result))
        self.assertTrue(report.is_sound(result))
        self.assertTrue(report.case_json(result)["variants"]["zram"]["does_not_fit"])

    def test_zram_goes_on_with_the_next_division(self):
        machine = runner.Runner(None, "/nonexistent", 1)
        shares = []

        def run_share(_variant, _command, _budget, share, _how):
            shares.append(share)
            return sample(1) if share >= 0.5 else None

        machine._run_share = run_share
        variant = runner.Variant("zram", "zram")
        machine.run(variant, ["x"], 100)
        machine.run(variant, ["x"], 100)
        self.assertEqual(shares, [0.25, 0.375, 0.5, 0.5])
        machine._run_share = lambda *_: None
        self.assertRaises(runner.DoesNotFit, machine.run, variant, ["y"], 100)

    def test_settings_hold_while_a_case_runs(self):
        with tempfile.NamedTemporaryFile("w+") as setting:
            setting.write("65530\n")
            setting.flush()
            seen = []

            def look():
                with open(setting.name, encoding="ascii") as text:
                    seen.append(text.read())
                return sample(1)

            case = self.case("native")
            case.settings = {setting.name: 400000}
            cases.run_case(Machine(native=look), case, 1)
            look()
        self.assertEqual(seen, ["400000", "65530"])

    def test_a_setting_that_cannot_be_made_is_a_reason(self):
        case = self.case("native")
        case.settings = {"/nonexistent/setting": 1}
        machine = Machine(native=lambda: sample(1))
        result = cases.run_case(machine, case, 1)
        self.assertEqual(machine.calls, [])
        self.assertIn("cannot be set", result.skipped["native"])

    def test_input_is_made_before_the_first_run(self):
        order = []
        case = self.case("native")
        case.prepare = lambda: order.append("input")
        cases.run_case(Machine(native=lambda: order.append("run") or sample(1)), case, 1)
        self.assertEqual(order, ["input", "run"])

    def test_json_of_a_result(self):
        result = result_of(SECONDS, [cases.Bar("s", "extmem", "swap", at_least=2)],
                           swap=[4.0, 6.0], extmem=[2.0])
        record = report.case_json(result)
        self.assertEqual(record["variants"]["swap"]["metrics"]["s"]["median"], 5)
        self.assertEqual(record["bars"][0]["passed"], True)


class Processes(unittest.TestCase):
    def test_output_is_digested_and_kept(self):
        one = runner.run_process(["sh", "-c", "echo out; echo err >&2"])
        two = runner.run_process(["echo", "out"])
        self.assertEqual((one.stdout, one.stderr), ("out\n", "err\n"))
        self.assertEqual(one.stdout_digest, two.stdout_digest)

    def test_failures_say_how(self):
        with self.assertRaisesRegex(runner.RunFailed, "exit status 3: last words"):
            runner.run_process(["sh", "-c", "echo last words >&2; exit 3"])
        with self.assertRaisesRegex(runner.RunFailed, "SIGSEGV"):
            runner.run_process(["sh", "-c", "kill -SEGV $$"])

    def test_a_run_that_hangs_is_ended(self):
        with self.assertRaisesRegex(runner.RunFailed, "ended after"):
            runner.run_process(["sh", "-c", "sleep 60"], timeout_s=0.2)


# Waits for one connection, then ends with status 0.
SERVER = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print("server")
sys.stderr.write("server's last words")
s.accept()
"""


class Clients(unittest.TestCase):
    def setUp(self):
        where = tempfile.TemporaryDirectory()
        self.addCleanup(where.cleanup)
        self.path = os.path.join(where.name, "socket")

    def run_both(self, *client):
        return runner.run_process([sys.executable, "-c", SERVER, self.path], timeout_s=60,
                                  client=client)

    def test_the_output_is_the_clients(self):
        client = """
import socket, sys, time
while True:
    try:
        socket.socket(socket.AF_UNIX).connect(sys.argv[1])
        break
    except OSError:
        time.sleep(0.01)
print("client")
"""
        result = self.run_both(sys.executable, "-c", client, self.path)
        self.assertEqual(result.stdout, "client\n")
        self.assertIn("server's last words", result.stderr)

    def test_a_client_that_fails_ends_the_server(self):
        with self.assertRaisesRegex(runner.RunFailed, "exit status 3: nothing there"):
            self.run_both("sh", "-c", "echo nothing there >&2; exit 3")

    def test_a_server_that_fails_is_noticed(self):
        with self.assertRaisesRegex(runner.RunFailed, "exit status 4"):
            runner.run_process(["sh", "-c", "exit 4"], timeout_s=60, client=["true"])


class Generating(unittest.TestCase):
    def test_lines_have_the_size_and_repeat(self):
        one, two = io.BytesIO(), io.BytesIO()
        gen.write_lines(one, 2_000_000, 1)
        gen.write_lines(two, 2_000_000, 1)
        self.assertEqual(len(one.getvalue()), 2_000_000)
        self.assertEqual(one.getvalue(), two.getvalue())
        self.assertTrue(one.getvalue().endswith(b"\n"))

    def test_c_source_repeats(self):
        one, two = io.BytesIO(), io.BytesIO()
        gen.write_c(one, 5, 1)
        gen.write_c(two, 5, 1)
        self.assertEqual(one.getvalue(), two.getvalue())
        self.assertIn(b"unsigned f4(", one.getvalue())


def all_cases(**how):
    plan = benches.Plan("/programs", "/nonexistent", **how)
    return [(one, case) for one in benches.BENCHES for case in one.cases(plan)]


class CommandLine(unittest.TestCase):
    def test_names(self):
        self.assertEqual(len(benches.select(["all"])), 18)
        self.assertEqual([one.name for one in benches.select(["bfs", "minor"])],
                         ["bfs", "minor"])
        self.assertRaises(ValueError, benches.select, ["nonsense"])

    def test_mistakes_exit_with_2(self):
        for argv in ([], ["nonsense"], ["all", "--reps", "0"], ["all", "--page-cluster", "x"],
                     ["all", "--build", "/nonexistent"]):
            with self.assertRaises(SystemExit) as caught, \
                    contextlib.redirect_stderr(io.StringIO()):
                bench.main(argv)
            self.assertEqual(caught.exception.code, 2, argv)

    def test_every_bench_has_cases_whose_bars_exist(self):
        for one, case in all_cases(quick=True):
            names = [variant.name for variant in case.variants]
            self.assertEqual(len(names), len(set(names)), case.label)
            names += [variant.kind for variant in case.variants]
            for bar in case.bars:
                self.assertLessEqual({bar.ours, bar.base, *(bar.like or ())}, set(names))
                self.assertIn(bar.metric, {metric.name for metric in case.metrics})
            for base in {variant.against or case.base for variant in case.variants}:
                self.assertIn(base, names, case.label)

    def test_every_bench_has_a_bar_and_labels_of_its_own(self):
        barred, labels = set(), {}
        for one, case in all_cases(zram=True):
            labels.setdefault(one.name, []).append(case.label)
            if case.bars:
                barred.add(one.name)
        for name, those in labels.items():
            self.assertEqual(len(those), len(set(those)), name)
        self.assertEqual({one.name for one in benches.BENCHES} - barred, {"bfs", "gcc"})

    def test_zram_takes_part_where_it_is_asked_for(self):
        def kinds(**how):
            return {one.name for one, case in all_cases(**how) for variant in case.variants
                    if variant.kind == "zram"}

        self.assertEqual(kinds(), set())
        self.assertEqual(kinds(zram=True), {"seq-read", "rand-read", "hot", "pagerank"})

    def test_mmapbench_has_three_modes_at_each_number_of_threads(self):
        labels = [case.label for one, case in all_cases() if one.name == "mmapbench"]
        for order in ("sequential", "random", "hot"):
            for mode in ("read", "write", "update"):
                for threads in (1, 2, 4, 8, 16):
                    start = f"{order} {mode}, {threads} thread"
                    self.assertEqual(sum(label.startswith(start) for label in labels), 1, start)

    def test_a_plot_is_well_formed_whatever_ran(self):
        results = [result_of(SECONDS, native=[0.1], swap=[9.0, 10.0], extmem=[4.0]),
                   result_of(RATE, native=[100], swap=[], extmem=[4])]
        text = plot.svg("a & b", "<title>", results)
        root = xml.etree.ElementTree.fromstring(text)
        self.assertEqual(sum(node.tag.endswith("rect") for node in root.iter()), 1 + 5)
        self.assertIn("2.38 × swap", text)


if __name__ == "__main__":
    unittest.main()
