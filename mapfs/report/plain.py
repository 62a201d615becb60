"""Reports for programs: JSON, and lines of fields between tabs."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mapfs.report.columns import COLUMNS, NAME, Value, written
from mapfs.report.report import Report
from mapfs.report.sections import Row, Section


def raw_lines(section: Section, *, human: bool) -> Iterator[str]:
    """A line for each row, the total last, without headings."""
    for row in (*section.rows, *([section.total] if section.total else [])):
        yield "\t".join(
            row.field if key == NAME else written(COLUMNS[key], row.usage, human=human)
            for key in section.columns
        )


def as_json(report: Report, sections: Iterable[Section]) -> str:
    """The report as one object. Numbers are bytes, counts and per cent, null where unknown."""
    described: dict[str, Any] = {
        "path": report.root.path,
        "kind": report.kind,
        "filesystem": report.filesystem,
        "page_size": report.page_size,
    }
    for section in sections:
        if section.total is not None:
            described["total"] = _members(section.total, section)
        described[section.key] = [_members(row, section) for row in section.rows]
    return json.dumps(described, indent=2)


def _members(row: Row, section: Section) -> dict[str, Any]:
    values = {key: COLUMNS[key].of(row.usage) for key in section.columns if key != NAME}
    return {**row.facts, **{key: _rounded(value) for key, value in values.items()}}


def _rounded(value: Value) -> Value:
    return round(value, 2) if isinstance(value, float) else value
