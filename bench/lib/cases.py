# SPDX-License-Identifier: MIT
"""A case: variants of one program, what is measured, and the bars it has to clear."""
import contextlib
import dataclasses
import typing

import figures
import runner
import swapfile
import units

# Of one variant of one case, all repetitions together.
OOM_KILLS_MAX = 4


@dataclasses.dataclass
class Metric:
    name: str
    extract: typing.Callable          # Sample -> number
    higher_is_better: bool = False
    unit: str = "time"                # time (seconds), rate (a second) or size (bytes)


@dataclasses.dataclass
class Bar:
    """`ours` against `base`: at_least times as fast, at_most times as much (time or memory),
    or at most `more` of the unit above it.  With `like`, two sides as well, at_most is not one
    but what those two have between them."""
    metric: str
    ours: str
    base: str
    at_least: float = None
    at_most: float = None
    more: float = None
    like: tuple = None

    def text(self):
        if self.at_least is not None:
            return f"{self.ours} ≥ {self.at_least:g} × {self.base}"
        if self.more is not None:
            return f"{self.ours} ≤ {self.base} + {units.format_time(self.more)}"
        if self.like:
            return (f"{self.ours} : {self.base} ≤ {self.at_most:g} × "
                    f"{self.like[0]} : {self.like[1]}")
        return f"{self.ours} ≤ {self.at_most:g} × that of {self.base}"

    def figure_text(self, measured):
        if self.more is None:
            return f"{measured:.2f} ×"
        sign = "-" if measured < 0 else "+"
        return sign + units.format_time(abs(measured))


@dataclasses.dataclass
class Case:
    label: str
    command: list
    variants: list
    metrics: list
    bars: list = dataclasses.field(default_factory=list)
    budget: typing.Any = None         # bytes, or a function of the first native Sample
    same_output: bool = False
    env: dict = None
    prepare: typing.Callable = None   # makes the input before the first run
    client: list = None               # the command is a server, and this talks to it
    settings: dict = None             # of the kernel, while it runs: path -> value
    base: str = "swap"                # whom each side is compared with in the table


@dataclasses.dataclass
class CaseResult:
    case: Case
    samples: dict                     # variant name -> [Sample]
    failures: dict                    # variant name -> why
    skipped: dict                     # variant name -> why
    budget_bytes: int = None
    oom_kills: dict = dataclasses.field(default_factory=dict)   # variant name -> how often
    unfit: set = dataclasses.field(default_factory=set)         # variants: zram cannot hold it

    def values(self, variant, metric):
        """[] when the variant did not run."""
        return [metric.extract(sample) for sample in self.samples.get(variant, [])]

    def metric(self, name):
        return next(metric for metric in self.case.metrics if metric.name == name)

    def resolve(self, name, metric):
        """"swap" stands for the best of several swap settings."""
        names = [variant.name for variant in self.case.variants
                 if (variant.name == name or variant.kind == name) and
                 self.values(variant.name, metric)]
        if name in names or not names:
            return name
        pick = max if metric.higher_is_better else min
        return pick(names, key=lambda one: figures.median(self.values(one, metric)))

    def ratio(self, ours, base, metric):
        """Times as fast, or None when one side is missing."""
        one = self.values(self.resolve(ours, metric), metric)
        other = self.values(self.resolve(base, metric), metric)
        if not one or not other:
            return None
        return figures.times_as_fast(one, other, metric.higher_is_better)

    def standing(self, variant, metric):
        """Times as fast as whom the variant is compared with; None for that side itself."""
        base = variant.against or self.case.base
        if base in (variant.name, variant.kind):
            return None
        return self.ratio(variant.name, base, metric)

    def judge(self, bar):
        """(measured figure in the bar's own terms, True / False), or (None, None)."""
        metric = self.metric(bar.metric)
        ratio = self.ratio(bar.ours, bar.base, metric)
        if ratio is None:
            return None, None
        if bar.more is not None:
            ours, base = (figures.median(self.values(side, metric))
                          for side in (bar.ours, bar.base))
            return ours - base, ours - base <= bar.more
        if bar.at_least is not None:
            return ratio, ratio >= bar.at_least
        slower = 1 / ratio if ratio else float("inf")
        if bar.like:
            likewise = self.ratio(*bar.like, metric)
            if likewise is None:
                return None, None
            slower *= likewise
        return slower, slower <= bar.at_most

    def same_output(self):
        """None when there is nothing to compare."""
        digests = {sample.stdout_digest for samples in self.samples.values()
                   for sample in samples}
        if not self.case.same_output or sum(map(len, self.samples.values())) < 2:
            return None
        return len(digests) == 1


def _budget(case, result):
    if not callable(case.budget):
        return case.budget
    native = next((result.samples[variant.name][0] for variant in case.variants
                   if variant.kind == "native" and result.samples.get(variant.name)), None)
    if native is None:
        raise runner.RunFailed("the native run that the budget depends on failed")
    return int(case.budget(native))


def _run_surviving(machine, case, variant, result):
    """Tries again when the OOM killer struck, and counts it."""
    while True:
        try:
            return machine.run(variant, case.command, result.budget_bytes, case.env, case.client)
        except runner.OutOfMemory:
            kills = result.oom_kills.get(variant.name, 0) + 1
            result.oom_kills[variant.name] = kills
            if kills >= OOM_KILLS_MAX:
                raise


def _run_one(machine, case, variant, result):
    try:
        if variant.kind not in ("native", "disk") and result.budget_bytes is None:
            result.budget_bytes = _budget(case, result)
        sample = _run_surviving(machine, case, variant, result)
        for metric in case.metrics:
            metric.extract(sample)
    except (runner.RunFailed, OSError, ValueError, KeyError) as error:
        result.failures[variant.name] = str(error)
        if isinstance(error, runner.DoesNotFit):
            result.unfit.add(variant.name)
        return
    result.samples.setdefault(variant.name, []).append(sample)


def run_case(machine, case, repetitions, progress=lambda text: None):
    """All variants in turn, `repetitions` times; one that failed is not tried again."""
    result = CaseResult(case, {}, {}, {})
    with contextlib.ExitStack() as exits:
        unset = None
        try:
            for path, value in (case.settings or {}).items():
                exits.enter_context(swapfile.Setting(path, value))
        except OSError as error:
            unset = f"cannot be set: {error}"
        for variant in case.variants:
            missing = unset or machine.missing(variant)
            if missing:
                result.skipped[variant.name] = missing
        if case.prepare:
            case.prepare()
        _run_all(machine, case, result, repetitions, progress)
    return result


def _run_all(machine, case, result, repetitions, progress):
    for repetition, variant in figures.interleave(case.variants, repetitions):
        if variant.name in result.skipped or variant.name in result.failures:
            continue
        progress(f"{case.label}: {variant.name} {repetition + 1}/{repetitions}")
        _run_one(machine, case, variant, result)
