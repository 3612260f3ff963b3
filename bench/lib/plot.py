# SPDX-License-Identifier: MIT
"""A bench as an SVG picture: for each case and metric, how fast each side is next to the others."""
from xml.sax.saxutils import escape

import figures
import report

BAR, GAP, LEFT, WIDTH, TOP = 18, 6, 320, 420, 34
COLOURS = {"native": "#9aa5b1", "swap": "#c8553d", "zram": "#c89b3d", "extmem": "#2a7f62",
           "disk": "#5b6b7b"}
STYLE = "font: 12px sans-serif"


def _bars(result, metric):
    """(variant, median, speed) of each side that ran."""
    rows = []
    for variant in result.case.variants:
        values = result.values(variant.name, metric)
        if values:
            median = figures.median(values)
            speed = median if metric.higher_is_better else 1 / median if median else 0
            rows.append((variant, median, speed))
    return rows


def _length(row, rows):
    """Speed in proportion to the fastest but native, which would dwarf the others."""
    others = [speed for variant, _, speed in rows if variant.kind != "native"]
    top = max(others or [speed for _, _, speed in rows])
    return min(1.0, row[2] / top) if top else 0


def _figure(result, metric, row, cut):
    variant, median, _ = row
    text = report.format_value(median, metric)
    standing = result.standing(variant, metric)
    if standing:
        text += f", {standing:.2f} × {variant.against or result.case.base}"
    return text + (" (cut)" if cut else "")


def _group(result, metric, y):
    rows = _bars(result, metric)
    out = [f'<text x="8" y="{y + 13}" style="{STYLE}; font-weight: bold">'
           f"{escape(result.case.label)}: {escape(metric.name)}</text>"]
    y += BAR + GAP
    for row in rows:
        kind = row[0].kind
        length = round(WIDTH * _length(row, rows))
        figure = _figure(result, metric, row, kind == "native" and length == WIDTH)
        out.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" style="{STYLE}">'
                   f"{escape(row[0].name)}</text>")
        out.append(f'<rect x="{LEFT}" y="{y}" width="{max(1, length)}" height="{BAR - 2}" '
                   f'fill="{COLOURS.get(kind, "#888888")}"/>')
        out.append(f'<text x="{LEFT + length + 6}" y="{y + 13}" style="{STYLE}">'
                   f"{escape(figure)}</text>")
        y += BAR
    return out, y + 2 * GAP


def svg(name, title, results):
    body, y = [], TOP
    for result in results:
        for metric in result.case.metrics:
            lines, y = _group(result, metric, y)
            body += lines
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 260}" height="{y}">'
            '<rect width="100%" height="100%" fill="white"/>'
            f'<text x="8" y="20" style="{STYLE}; font-size: 15px">{escape(name)}: '
            f"{escape(title)} (longer is faster)</text>")
    return "\n".join([head, *body, "</svg>", ""])
