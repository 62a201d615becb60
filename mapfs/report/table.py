"""Reports for people: tables, with bars and colours on a terminal."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mapfs.report.columns import COLUMNS, NAME, written
from mapfs.report.report import Report
from mapfs.report.sections import Row, Section
from mapfs.report.shades import shade
from mapfs.report.usage import DEFAULT_PAGE
from mapfs.sizes import format_short, format_size

_WIDEST_BAR: Final = 20
_NARROWEST_BAR: Final = 4
_NARROWEST_NAME: Final = 16
_GAP: Final = 2  # between columns
_INDENT: Final = "  "


def print_section(console: Console, section: Section, *, human: bool) -> None:
    """One table, on a terminal with bars of slack, if there is room.

    Names are cut where they do not fit, numbers never.
    """
    shown = [*section.rows, *([section.total] if section.total else [])]
    numbers = _numbers_width(section, shown, human=human)
    name = min(_NARROWEST_NAME, max((len(_name(row)) for row in shown), default=0))
    bar = min(_WIDEST_BAR, console.width - numbers - name - _GAP)
    with_bars = console.is_terminal and bar >= _NARROWEST_BAR and NAME in section.columns
    table = _table(section, bar if with_bars else 0, human=human)
    _print(console, table, max(console.width, numbers + name))


def _numbers_width(section: Section, shown: Sequence[Row], *, human: bool) -> int:
    columns = [COLUMNS[key] for key in section.columns if key != NAME]
    return sum(
        _GAP
        + max(
            len(column.title), *(len(written(column, row.usage, human=human)) for row in shown), 0
        )
        for column in columns
    )


def _table(section: Section, bar: int, *, human: bool) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False)
    for key in section.columns:
        if key != NAME:
            table.add_column(COLUMNS[key].title, justify="right", no_wrap=True)
            continue
        if bar:
            table.add_column("", width=bar)
        table.add_column(section.heading)  # the only one that may get narrower: see `_text`
    most = max((row.usage.slack for row in section.rows), default=0)
    for row in section.rows:
        table.add_row(*_cells(row, section, bar, most, human=human))
    if section.hidden:
        more = _text(f"… {section.hidden:,} more", "dim")
        table.add_row(*[""] * (len(table.columns) - 1), more)
    if section.total is not None:
        table.add_row(*_cells(section.total, section, bar, 0, human=human), style="bold")
    return table


def _cells(
    row: Row, section: Section, bar: int, most: int, *, human: bool
) -> Iterator[RenderableType]:
    """The cells of a row; `most` is the slack of the longest bar, 0 for none."""
    for key in section.columns:
        if key != NAME:
            yield written(COLUMNS[key], row.usage, human=human)
            continue
        if bar:
            colour = shade(row.usage.slack_share)
            yield Bar(most, 0, row.usage.slack, width=bar, color=colour) if most else ""
        yield _text(_name(row), "blue" if row.is_directory and row.depth else "")


def _name(row: Row) -> str:
    return _INDENT * (row.depth - 1) + row.name + ("/" if row.is_directory and row.depth else "")


def _text(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _print(console: Console, table: Table, width: int) -> None:
    """To a file: without the spaces that fill the last column.

    A terminal narrower than `width` will break the lines itself.
    """
    narrow, console.width = console.width, width
    with console.capture() as captured:
        console.print(table)
    console.width = narrow
    if console.is_terminal:
        console.out(captured.get(), end="", highlight=False)
        return
    text = "\n".join(line.rstrip() for line in captured.get().splitlines())
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def verdict(report: Report) -> str:
    """What the numbers come to, in a sentence or two."""
    usage = report.root.usage
    share = f"{100 * usage.slack_share:.1f} %"
    taken = f"{format_size(usage.slack)} of {format_size(usage.allocated)} allocated ({share})"
    if report.filesystem == "mapfs":
        return (
            f"{taken} is slack: parts of pages of {format_short(report.page_size)} that hold no "
            f"data. With pages of 64K it would be {format_size(usage.at_64k)}."
        )
    return (
        f"On {report.filesystem or 'its own filesystem'}, {taken} is slack. In mapfs, with pages "
        f"of {format_short(DEFAULT_PAGE)}, it would be {format_size(usage.at(DEFAULT_PAGE))}."
    )
