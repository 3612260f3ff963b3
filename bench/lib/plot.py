# SPDX-License-Identifier: MIT
"""A bench as an SVG picture: for each case and metric, how fast each side is next to Linux swap."""
from xml.sax.saxutils import escape

import figures
import report

BAR, GAP, LEFT, WIDTH, TOP = 18, 6, 320, 420, 34
COLOURS = {"native": "#9aa5b1", "swap": "#c8553d", "extmem": "#2a7f62"}
STYLE = "font: 12px sans-serif"


def _bars(result, metric):
    """(name, kind, median, times as fast as swap or None) of each side that ran."""
    rows = []
    for variant in result.case.variants:
        values = result.values(variant.name, metric)
        if values:
            rows.append((variant.name, variant.kind, figures.median(values),
                         result.ratio(variant.name, "swap", metric)))
    return rows


def _length(row, rows):
    """Speed in proportion to the fastest but native, which would dwarf the others."""
    name, kind, _, ratio = row
    others = [one[3] for one in rows if one[1] != "native" and one[3]]
    if not ratio or not others:
        return 0
    return min(1.0, ratio / max(others))


def _group(result, metric, y):
    rows = _bars(result, metric)
    out = [f'<text x="8" y="{y + 13}" style="{STYLE}; font-weight: bold">'
           f"{escape(result.case.label)}: {escape(metric.name)}</text>"]
    y += BAR + GAP
    for row in rows:
        name, kind, median, ratio = row
        length = round(WIDTH * _length(row, rows))
        cut = " (cut)" if kind == "native" and length == WIDTH else ""
        figure = report.format_value(median, metric)
        figure += f", {ratio:.2f} × swap{cut}" if ratio else ""
        out.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" style="{STYLE}">'
                   f"{escape(name)}</text>")
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
