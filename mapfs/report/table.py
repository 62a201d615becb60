"""Reports for people: tables, with bars and colours on a terminal."""

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

_BAR_WIDTH: Final = 16
_INDENT: Final = "  "


def print_section(console: Console, section: Section, *, human: bool) -> None:
    """One table. Bars of slack are drawn on a terminal only."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    bars = console.is_terminal
    for key in section.columns:
        if key == NAME and bars:
            table.add_column("", width=_BAR_WIDTH)
        _add_column(table, section, key)
    most = max((row.usage.slack for row in section.rows), default=0)
    for row in section.rows:
        table.add_row(*_cells(row, section, most if bars else None, human=human))
    if section.hidden:
        more = Text(f"… {section.hidden:,} more", style="dim")
        table.add_row(*[""] * (len(table.columns) - 1), more)
    if section.total is not None:
        row = section.total
        table.add_row(*_cells(row, section, 0 if bars else None, human=human), style="bold")
    _print(console, table)


def _add_column(table: Table, section: Section, key: str) -> None:
    if key == NAME:
        table.add_column(section.heading, overflow="ellipsis", no_wrap=True)
    else:
        table.add_column(COLUMNS[key].title, justify="right", no_wrap=True)


def _cells(row: Row, section: Section, most: int | None, *, human: bool) -> list[RenderableType]:
    cells: list[RenderableType] = []
    for key in section.columns:
        if key != NAME:
            cells.append(written(COLUMNS[key], row.usage, human=human))
            continue
        if most is not None:
            cells.append(_bar(row, most))
        cells.append(_name(row))
    return cells


def _bar(row: Row, most: int) -> RenderableType:
    if not most:
        return ""
    return Bar(most, 0, row.usage.slack, width=_BAR_WIDTH, color=shade(row.usage.slack_share))


def _name(row: Row) -> Text:
    name = row.name + "/" if row.is_directory and row.depth else row.name
    indent = _INDENT * (row.depth - 1)
    return Text(indent).append(name, style="blue" if row.is_directory and row.depth else "")


def _print(console: Console, table: Table) -> None:
    """To a file: without the spaces that fill the last column, and in full width."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
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
