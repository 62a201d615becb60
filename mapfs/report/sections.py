"""What a report shows: lists of rows with the same columns, whatever form they are printed in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mapfs.names import field_of, printable
from mapfs.report.columns import NAME, sort_value
from mapfs.report.groups import bound_of, label_of
from mapfs.report.report import Report
from mapfs.report.tree import Node
from mapfs.report.usage import Usage
from mapfs.sizes import format_short

_OF_GROUPS: Final = ("files", "size", "allocated", "slack", "slack%", NAME)
_OF_PAGE_SIZES: Final = ("allocated", "slack", "slack%", NAME)


@dataclass(frozen=True, slots=True)
class Row:
    """What has this usage: its name for people, for scripts, and as members of a JSON object."""

    name: str
    field: str
    facts: Mapping[str, Any]
    usage: Usage
    depth: int = 1
    is_directory: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under a heading for their names; `hidden` rows more were left out."""

    key: str
    heading: str
    columns: Sequence[str]
    rows: Sequence[Row] = field(default_factory=tuple)
    total: Row | None = None
    hidden: int = 0


def entries(report: Report, columns: Sequence[str], sort: str, top: int | None) -> Section:
    """What is in the tree, as deep as it was kept, and the total.

    A directory is followed by what is in it, in the order of column `sort`. No more than `top`
    rows are taken.
    """
    rows: list[Row] = []
    waiting = [(1, node) for node in _in_order(report.root.children, sort)]
    while waiting:
        depth, node = waiting.pop()
        rows.append(_row_of(node, depth))
        waiting.extend((depth + 1, child) for child in _in_order(node.children, sort))
    shown = rows[:top]
    total = _row_of(report.root, 0)
    return Section("entries", "Name", columns, shown, total, len(rows) - len(shown))


def _in_order(nodes: Iterable[Node], sort: str) -> list[Node]:
    """By a column, to be taken from the end."""
    by_name = sorted(nodes, key=lambda node: node.name)
    if sort != NAME:
        by_name.sort(key=lambda node: sort_value(sort, node.usage))
    return by_name[::-1]


def _row_of(node: Node, depth: int) -> Row:
    facts = {"path": node.path, "type": "directory" if node.is_directory else "file"}
    name = printable(node.name)
    return Row(name, field_of(node.path), facts, node.usage, depth, node.is_directory)


def types(report: Report, columns: Sequence[str] | None, sort: str, top: int | None) -> Section:
    """All files by suffix."""
    by_type = sorted(report.groups.by_type.items())
    if sort != NAME:
        by_type.sort(key=lambda each: sort_value(sort, each[1]))
    rows = [
        Row(printable(kind) or "(none)", field_of(kind) or "-", {"suffix": kind}, usage)
        for kind, usage in by_type
    ]
    shown = rows[:top]
    return Section("types", "Type", columns or _OF_GROUPS, shown, hidden=len(rows) - len(shown))


def histogram(report: Report, columns: Sequence[str] | None) -> Section:
    """All files by size."""
    rows = [
        Row(label_of(bucket), str(bound_of(bucket)), {"up_to": bound_of(bucket)}, usage)
        for bucket, usage in report.groups.histogram()
    ]
    return Section("histogram", "File size", columns or _OF_GROUPS, rows)


def what_if(report: Report, page_sizes: Iterable[int]) -> Section:
    """What all files would take with other page sizes, behind what they take now."""
    usage = report.root.usage
    where = "" if report.filesystem == "mapfs" else f", on {report.filesystem or 'another'}"
    rows = [_what_if_row(f"{format_short(report.page_size)} (now{where})", usage, report.page_size)]
    for size in page_sizes:
        at = usage.at(size)
        other = usage._replace(slack=at, allocated=usage.stored + at)
        rows.append(_what_if_row(format_short(size), other, size))
    return Section("what_if", "Page size", _OF_PAGE_SIZES, rows)


def _what_if_row(name: str, usage: Usage, page_size: int) -> Row:
    return Row(name, str(page_size), {"page_size": page_size}, usage)
