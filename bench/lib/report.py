# SPDX-License-Identifier: MIT
"""Results as aligned tables for people and as JSON for programs."""
import unicodedata

import figures
import units


def format_value(value, metric):
    return {"time": units.format_time, "rate": units.format_rate,
            "size": units.format_size}[metric.unit](value)


def _width(text):
    return sum(not unicodedata.combining(char) for char in text)


def table(rows, left_columns=1, indent="  "):
    """Aligns cells; the first `left_columns` to the left, the others to the right."""
    columns = max(len(row) for row in rows)
    rows = [list(row) + [""] * (columns - len(row)) for row in rows]
    widths = [max(_width(row[i]) for row in rows) for i in range(columns)]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            pad = " " * (widths[i] - _width(cell))
            cells.append(cell + pad if i < left_columns else pad + cell)
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def disk_line(disk):
    if "unavailable" in disk:
        return f"disk: no raw figures: {disk['unavailable']}"
    return ("disk (fio, O_DIRECT): 4 KiB random reads, queue depth 1: "
            f"{units.format_rate(disk['rand_4k_qd1']['iops'])}; "
            "sequential 256 KiB, depth 4: "
            f"{disk['seq_256k_qd4']['bytes_per_s'] / 1e9:.2f} GB/s")


def _variant_row(result, variant, metric):
    if variant.name in result.skipped:
        return [variant.name, "not run"]
    if variant.name in result.failures:
        killed = variant.name in result.oom_kills
        return [variant.name, "does not fit" if variant.name in result.unfit else
                "OOM-killed" if killed else "FAILED"]
    values = result.values(variant.name, metric)
    ratio = result.standing(variant, metric)
    rss = figures.median([sample.peak_rss_bytes for sample in result.samples[variant.name]])
    return [variant.name, format_value(figures.median(values), metric),
            format_value(min(values), metric), format_value(max(values), metric),
            f"{figures.spread(values) * 100:.0f} %",
            f"{ratio:.2f} ×" if ratio is not None else "-",
            units.format_size(rss) if variant.kind != "disk" else "-"]


def _bar_lines(result):
    lines = []
    for bar in result.case.bars:
        measured, passed = result.judge(bar)
        if passed is None:
            verdict = "not measured"
        else:
            verdict = f"{'pass' if passed else 'MISS'}  measured {bar.figure_text(measured)}"
        lines.append(f"    bar: {bar.text()} ({bar.metric}): {verdict}")
    return lines


def _zram_lines(result, variant):
    held = [sample.zram for sample in result.samples.get(variant.name, []) if sample.zram]
    if not held:
        return []
    size = {key: units.format_size(max(one[key] for one in held)) for key in held[0]}
    return [f"    {variant.name}: {size['limit_bytes']} of the budget are for compressed data; at "
            f"most {size['data_peak_bytes']} took {size['memory_peak_bytes']}"]


def case_text(result):
    budget = f", budget {units.format_size(result.budget_bytes)}" if result.budget_bytes else ""
    lines = [f"  {result.case.label}{budget}"]
    for metric in result.case.metrics:
        rows = [[metric.name, "median", "min", "max", "spread", f"vs {result.case.base}",
                 "peak RSS"]]
        rows += [_variant_row(result, variant, metric) for variant in result.case.variants]
        lines.append(table(rows, indent="    "))
    for name, why in result.failures.items():
        lines.append(f"    {name} failed: {why}")
    for name, why in result.skipped.items():
        lines.append(f"    {name} not run: {why}")
    for variant in result.case.variants:
        lines += _zram_lines(result, variant)
    for name, kills in result.oom_kills.items():
        lines.append(f"    {name}: killed {kills} time{'s' * (kills != 1)} by the kernel's OOM "
                     "killer although swap was free")
    same = result.same_output()
    if same is not None:
        lines.append("    output: " + ("the same in every run" if same else
                                       "DIFFERENT BETWEEN RUNS"))
    return "\n".join(lines + _bar_lines(result))


def case_json(result):
    variants = {}
    for variant in result.case.variants:
        if variant.name in result.skipped:
            variants[variant.name] = {"skipped": result.skipped[variant.name]}
            continue
        entry = {"metrics": {}, "failed": result.failures.get(variant.name),
                 "oom_kills": result.oom_kills.get(variant.name, 0),
                 "does_not_fit": variant.name in result.unfit}
        for metric in result.case.metrics:
            values = result.values(variant.name, metric)
            if values:
                entry["metrics"][metric.name] = {
                    "values": values, "median": figures.median(values), "min": min(values),
                    "max": max(values), "compared_with": variant.against or result.case.base,
                    "times_as_fast": result.standing(variant, metric)}
        samples = result.samples.get(variant.name, [])
        entry["peak_rss_bytes"] = [sample.peak_rss_bytes for sample in samples]
        if variant.kind == "extmem":
            entry["stats"] = [sample.stats for sample in samples]
        if variant.kind == "zram":
            entry["zram"] = [sample.zram for sample in samples]
        variants[variant.name] = entry
    bars = [dict(zip(("measured", "passed"), result.judge(bar)), bar=bar.text(),
                 metric=bar.metric) for bar in result.case.bars]
    return {"label": result.case.label, "budget_bytes": result.budget_bytes,
            "same_output": result.same_output(), "variants": variants, "bars": bars}


def is_sound(result):
    """No run of native or extmem failed and no output differed.  A missed bar is not
    unsound, nor is Linux swap that did not survive, nor data that do not fit into zram."""
    failed = set(result.failures) - set(result.oom_kills) - result.unfit
    return not failed and result.same_output() is not False


def count_bars(results):
    """(passed, missed, not measured)"""
    verdicts = [result.judge(bar)[1] for result in results for bar in result.case.bars]
    return verdicts.count(True), verdicts.count(False), verdicts.count(None)
