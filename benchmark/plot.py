"""A plot of the results: each measurement a row, each system a mark on a logarithmic axis."""

import math
from collections.abc import Iterator
from html import escape
from typing import Final

from benchmark.results import Results
from benchmark.summary import ratio

_ROW: Final = 24
_LEFT: Final = 320
_WIDTH: Final = 560
_TOP: Final = 72
_LEGEND_STEP: Final = 96
# After the palette of Okabe and Ito, which colour-blind people can tell apart.
_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442", "#000000")
_MAPFS_COLOURS: Final = ("#d55e00", "#7f3b08")


def as_svg(results: Results, reference: str) -> str:
    """Speeds relative to `reference`, which is the line at 1. Empty if it was not measured."""
    marks = list(_marks(results, reference))
    if not marks:
        return ""
    axis = _Axis([speed for _, _, speed in marks])
    rows = [name for name in results.measurements if any(name == mark[0] for mark in marks)]
    colours = _colours(results, reference)
    body = [
        *_grid(axis, len(rows), reference),
        *_legend(colours),
        *(_label(number, name) for number, name in enumerate(rows)),
        *(
            _mark(axis.x(speed), _y(rows.index(name)), system, colours[system])
            for name, system, speed in marks
        ),
    ]
    height = _TOP + len(rows) * _ROW + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 40} {height}"'
        ' font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


class _Axis:
    """Places on a logarithmic axis over whole decades."""

    def __init__(self, speeds: list[float]) -> None:
        self.first = math.floor(math.log10(min(*speeds, 0.5)))
        self.last = math.ceil(math.log10(max(*speeds, 2)))

    def x(self, speed: float) -> float:
        return _LEFT + _WIDTH * (math.log10(speed) - self.first) / (self.last - self.first)


def _marks(results: Results, reference: str) -> Iterator[tuple[str, str, float]]:
    for measurement in results.measurements:
        base = results.of(measurement, reference)
        for system in (each.name for each in results.systems if each.name != reference):
            found = ratio(results.of(measurement, system), base)
            if found is not None:
                yield measurement, system, found.of_medians


def _colours(results: Results, reference: str) -> dict[str, str]:
    mapfs = results.named("mapfs")
    others = [each.name for each in results.systems if each.name not in {reference, *mapfs}]
    plain = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(others)}
    return plain | {
        name: _MAPFS_COLOURS[number % len(_MAPFS_COLOURS)] for number, name in enumerate(mapfs)
    }


def _y(row: int) -> float:
    return _TOP + (row + 0.5) * _ROW


def _grid(axis: _Axis, rows: int, reference: str) -> Iterator[str]:
    bottom = _TOP + rows * _ROW
    for exponent in range(axis.first, axis.last + 1):
        x = axis.x(10.0**exponent)
        colour = "black" if exponent == 0 else "#ddd"
        yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>'
        yield _text(x, bottom + 16, f"{10.0**exponent:g}", "middle")
    yield _text(_LEFT, bottom + 34, f"speed relative to {reference} (more is faster)", "start")


def _legend(colours: dict[str, str]) -> Iterator[str]:
    each_line = (_LEFT + _WIDTH) // _LEGEND_STEP
    for number, (name, colour) in enumerate(colours.items()):
        x, y = 20 + number % each_line * _LEGEND_STEP, 20 + number // each_line * 20
        yield _mark(x, y - 4, name, colour)
        yield _text(x + 10, y, name, "start")


def _label(row: int, name: str) -> str:
    return _text(_LEFT - 12, _y(row) + 4, name, "end")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _mark(x: float, y: float, system: str, colour: str) -> str:
    """A disc; for mapfs a diamond, so that it stands out."""
    if colour in _MAPFS_COLOURS:
        shape = f'<path d="M{x:.1f} {y - 7:.1f}l6 7l-6 7l-6-7z" fill="{colour}"'
    else:
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" fill-opacity="0.8"'
    return f"{shape}><title>{escape(system)}</title>{'</path>' if 'path' in shape else '</circle>'}"
