"""Plots as SVG: panels of bars or lines, one for each kind of file, and all factors in one.

Colours are classes (`s0` …) and variables that the page, or the picture's own style, defines.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from mapfs.claims.claim import Axes, Figure, Finding, Result, Series
from mapfs.claims.samples import Interval, rounded
from mapfs.sizes import bytes_label

# After the palette of Okabe and Ito, which colour-blind people can tell apart.
STYLE: Final = """
:root{--paper:#fff;--ink:#1b1f24;--faint:#5b6470;--line:#d8dde3;--s0:#0072b2;--s1:#d55e00;
--s2:#009e73;--s3:#b4508c}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8ebef;--faint:#a2abb6;
--line:#353b43;--s0:#56a8e8;--s1:#f28e4b;--s2:#3cc99b;--s3:#e39bc7}}
svg{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .faint{fill:var(--faint)}svg .rule{stroke:var(--line)}svg .base{stroke:var(--faint)}
svg .range{stroke:var(--ink);stroke-width:1.2}
svg .s0{fill:var(--s0)}svg .s1{fill:var(--s1)}svg .s2{fill:var(--s2)}svg .s3{fill:var(--s3)}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}
svg polyline.s0{fill:none;stroke:var(--s0)}svg polyline.s1{fill:none;stroke:var(--s1)}
svg polyline.s2{fill:none;stroke:var(--s2)}svg polyline.s3{fill:none;stroke:var(--s3)}
"""
_NAMESPACE: Final = "http://www.w3.org/2000/svg"
_COLOURS: Final = 4
_WIDTH: Final = 360
_HEIGHT: Final = 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 24, 30, 40
_BAR: Final = 40
_ROW: Final = 30
_LABELS: Final = 84
_OVERVIEW: Final = 460


class _Scale:
    """Places on a logarithmic axis between whole powers of a base."""

    def __init__(self, values: Sequence[float], begin: float, end: float, base: int = 10) -> None:
        positive = [value for value in values if value > 0] or [1]
        self._base, self._begin, self._end = base, begin, end
        self._least = math.floor(math.log(min(positive), base) + 1e-9)
        self._most = max(math.ceil(math.log(max(positive), base) - 1e-9), self._least + 1)

    def place(self, value: float) -> float:
        exponent = max(math.log(max(value, 1e-12), self._base), self._least)
        share = (exponent - self._least) / (self._most - self._least)
        return self._begin + share * (self._end - self._begin)

    def ticks(self, most: int) -> list[float]:
        """Powers of the base, one of them 1 if it is there, at most so many."""
        step = -(-(self._most - self._least + 1) // most)
        exponents = range(self._least, self._most + 1)
        return [float(self._base) ** exponent for exponent in exponents if exponent % step == 0]


class _Percents:
    """Places on an axis from nothing to all."""

    def __init__(self, begin: float, end: float) -> None:
        self._begin, self._end = begin, end

    def place(self, value: float) -> float:
        return self._begin + value / 100 * (self._end - self._begin)

    def ticks(self, most: int) -> list[float]:
        return [100 * number / (most - 2) for number in range(most - 1)]


def panels(result: Result) -> Iterator[tuple[str, str]]:
    """The kinds of files that were measured, each with its picture; all on the same scales."""
    found = [finding for finding in result.findings if finding.figures]
    axes = result.claim.axes
    if axes is not None:
        every = [series for finding in found for series in finding.series]
        for finding in found:
            yield finding.subject, _lines(finding, every, axes)
    else:
        figures = {finding.subject: _plotted(finding, result.claim.unit) for finding in found}
        most = max((each.spread.most for some in figures.values() for each in some), default=0)
        for subject, some in figures.items():
            yield subject, _bars(some, most, result.claim.unit)


def _plotted(finding: Finding, unit: str) -> list[Figure]:
    return [figure for figure in finding.figures if figure.unit == unit]


def _bars(figures: Sequence[Figure], most: float, unit: str) -> str:
    """Medians from zero on, with the least and the most as a line."""
    width = _WIDTH - 2 * _RIGHT
    body = []
    for number, figure in enumerate(figures):
        y = number * _BAR
        least, median, top = (
            _RIGHT + width * value / (most or 1)
            for value in (figure.spread.least, figure.spread.median, figure.spread.most)
        )
        colour = f"s{number % _COLOURS}"
        body += [
            _text(_RIGHT, y + 14, figure.label, "start"),
            _text(_WIDTH - _RIGHT, y + 14, f"{rounded(figure.spread.median)} {unit}", "end"),
            f'<path class="{colour}" d="M{_RIGHT} {y + 20}H{median + 1:.1f}v12H{_RIGHT}z"/>',
            f'<path class="range" d="M{least:.1f} {y + 26}H{top:.1f}"/>',
        ]
    return _svg(_WIDTH, len(figures) * _BAR + 4, body, unit)


def _lines(finding: Finding, every: Sequence[Series], axes: Axes) -> str:
    """Lines over logarithmic axes, with the names of the lines above."""
    points = [point for series in every for point in series.points]
    top = 18 * len(finding.series) + _TOP
    bottom = top + _HEIGHT
    across = _Scale([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, 2 if axes.is_x_bytes else 10)
    up: _Scale | _Percents = _Scale([y for _, y in points], bottom, top)
    if axes.is_y_percent:
        up = _Percents(bottom, top)
    body = [*_grid(across, up, axes, top, bottom)]
    for number, series in enumerate(finding.series):
        places = [(across.place(x), up.place(y)) for x, y in series.points]
        colour = f"s{number % _COLOURS}"
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body += [
            f'<rect class="{colour}" x="{_LEFT}" y="{number * 18 + 4}" width="14" height="4"/>',
            _text(_LEFT + 20, number * 18 + 10, series.label, "start"),
            f'<polyline class="{colour}" points="{path}"/>',
            *(f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places),
        ]
    return _svg(_WIDTH, bottom + _BOTTOM, body, f"{axes.y} by {axes.x}")


def _grid(
    across: _Scale, up: _Scale | _Percents, axes: Axes, top: float, bottom: float
) -> Iterator[str]:
    for value in up.ticks(7):
        y = up.place(value)
        yield f'<path class="rule" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield _text(_LEFT - 6, y + 4, _short(value), "end", "faint")
    for value in across.ticks(5):
        x = across.place(value)
        label = bytes_label(int(value)) if axes.is_x_bytes else _short(value)
        yield f'<path class="rule" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>'
        yield _text(x, bottom + 16, label, "middle", "faint")
    yield _text(4, top - 10, axes.y, "start", "faint")
    yield _text(_WIDTH - _RIGHT, bottom + 34, axes.x, "end", "faint")


def overview(results: Sequence[Result]) -> str:
    """How many times better or worse mmap is, by claim and kind of file. Empty without any."""
    rows = [result for result in results if any(each.factor for each in result.findings)]
    factors = [each.factor for row in rows for each in row.findings if each.factor]
    if not rows:
        return ""
    subjects = list(dict.fromkeys(each.subject for row in rows for each in row.findings))
    edges = [edge for factor in factors for edge in (factor.low, factor.high)]
    scale = _Scale([*edges, 0.5, 2], _LABELS, _OVERVIEW - 2 * _RIGHT)
    top = 52
    bottom = top + len(rows) * _ROW
    body = [*_factor_grid(scale, top, bottom), *_names(subjects)]
    for number, row in enumerate(rows):
        y = top + (number + 0.5) * _ROW
        body.append(_text(_LABELS - 14, y + 4, row.claim.name, "end"))
        for finding in row.findings:
            if finding.factor:
                place = subjects.index(finding.subject)
                body.append(_mark(scale, finding.factor, y + 6 * (place - 1), place, finding))
    return _svg(_OVERVIEW, bottom + 44, body, "how many times better mmap is, by claim")


def _factor_grid(scale: _Scale, top: float, bottom: float) -> Iterator[str]:
    for value in scale.ticks(7):
        x = scale.place(value)
        kind = "base" if value == 1 else "rule"
        yield f'<path class="{kind}" d="M{x:.1f} {top}V{bottom}"/>'
        yield _text(x, bottom + 16, f"{_short(value)}×", "middle", "faint")
    one = scale.place(1)
    yield _text(one - 12, bottom + 36, "← mmap is worse", "end", "faint")
    yield _text(one + 12, bottom + 36, "mmap is better →", "start", "faint")


def _names(subjects: Sequence[str]) -> Iterator[str]:
    for number, subject in enumerate(subjects):
        x = _LABELS + number * 125
        yield f"{_shape(number, x + 6, 18)}</path>"
        yield _text(x + 18, 22, subject, "start")


def _mark(scale: _Scale, factor: Interval, y: float, number: int, finding: Finding) -> str:
    low, x, high = (scale.place(value) for value in (factor.low, factor.median, factor.high))
    title = f"<title>{escape(finding.subject)}: {escape(str(factor))}</title>"
    return (
        f'<path class="range" d="M{low:.1f} {y:.1f}H{high:.1f}"/>'
        f"{_shape(number, x, y)}{title}</path>"
    )


def _shape(number: int, x: float, y: float) -> str:
    """A disc, a diamond or a square: colour alone does not tell them apart."""
    shapes = ("m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "m0-6l6 6l-6 6l-6-6z", "m-4.5-4.5h9v9h-9z")
    return f'<path class="s{number % _COLOURS}" d="M{x:.1f} {y:.1f}{shapes[number % 3]}">'


def _short(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.10g}"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, body: Sequence[str], name: str) -> str:
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {box} role="img" aria-label="{escape(name)}">' + "\n".join(body) + "</svg>"


def standalone(picture: str) -> str:
    """A picture with its colours and a ground of its own, for a file; nothing if it is nothing."""
    if not picture:
        return ""
    head, _, rest = picture.replace("<svg", f'<svg xmlns="{_NAMESPACE}"', 1).partition(">")
    ground = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    return f"{head}><style>{STYLE}</style>{ground}{rest}\n"
