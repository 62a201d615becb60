"""The report as one page for a browser, which needs nothing but itself."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

from mapfs.format.totals import WHAT_IF_SIZES
from mapfs.names import printable
from mapfs.report.groups import label_of
from mapfs.report.report import Report
from mapfs.report.shades import SHADES
from mapfs.report.tree import Node
from mapfs.report.usage import DEFAULT_PAGE, Usage
from mapfs.whole_file import write_whole

# Each takes about 80 bytes of the page, and the reader can look at some thousands at most.
MOST_NODES: Final = 10_000
_MOST_TYPES: Final = 200
_SCRIPTS: Final = ("data.js", "treemap.js", "charts.js", "table.js", "page.js")
# What would end a script element or begin a comment in it, and what is no line end in JSON but
# one in JavaScript.
_UNSAFE: Final = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}
_DIRECTORY, _FILE, _REST = range(3)


def write_page(report: Report, path: Path) -> None:
    """Write the page to `path`, in one step. Raises what `write_whole` does."""
    write_whole(path, page(report))


def page(report: Report) -> str:
    """The page. Whatever names files have, they are data in it and never markup or script."""
    style = _part("page.css")
    script = "\n".join(map(_part, _SCRIPTS))
    return Template(_part("page.html")).substitute(
        title=html.escape(printable(_title(report.root))),
        style=style,
        style_hash=_hash_of(style),
        script=script,
        script_hash=_hash_of(script),
        data=json.dumps(_data(report), separators=(",", ":")).translate(_UNSAFE),
    )


def _title(root: Node) -> str:
    """The path that was asked for, unless that says nothing, as `.` does."""
    return root.name if set(root.name) - {".", "/"} else os.path.abspath(root.name)


def _part(name: str) -> str:
    return (resources.files("mapfs.report") / "page" / name).read_text(encoding="utf-8")


def _hash_of(source: str) -> str:
    """By which the page's own content security policy lets in this source, and no other."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _data(report: Report) -> dict[str, Any]:
    now = datetime.now(UTC)
    by_type = sorted(report.groups.by_type.items(), key=lambda each: -each[1].slack)
    return {
        "filesystem": report.filesystem,
        "pageSize": report.page_size,
        "defaultPage": DEFAULT_PAGE,
        "made": f"{now:%Y-%m-%d %H:%M} UTC",
        "shades": SHADES,
        "whatIf": list(WHAT_IF_SIZES.values()),
        "nodes": list(_nodes(report.root)),
        "types": [_group(printable(kind), usage) for kind, usage in by_type[:_MOST_TYPES]],
        "histogram": [_group(label_of(each), usage) for each, usage in report.groups.histogram()],
    }


def _group(name: str, usage: Usage) -> list[str | int]:
    return [name, usage.files, usage.size, usage.allocated, usage.slack]


def _nodes(root: Node) -> Iterator[list[str | int | None]]:
    """Every node with the number of its parent, which comes before it; -1 for the root.

    A flat list, as trees may be deeper than what parsers of JSON take.
    """
    waiting = [(root, -1)]
    count = 0
    while waiting:
        node, parent = waiting.pop()
        number, count = count, count + 1
        kind = _DIRECTORY if node.is_directory else _FILE
        yield _node(parent, printable(node.name), kind, node.usage)
        if node.rest.files:
            count += 1
            yield _node(number, f"{node.rest.files:,} smaller files", _REST, node.rest)
        waiting.extend((child, number) for child in node.children)


def _node(parent: int, name: str, kind: int, usage: Usage) -> list[str | int | None]:
    return [
        parent,
        name,
        kind,
        usage.files,
        usage.size,
        usage.stored,
        usage.allocated,
        usage.slack,
        None if usage.no_extents and not usage.extents else usage.extents,
        None if usage.no_resident and not usage.resident else usage.resident,
        *(usage.at(size) for size in WHAT_IF_SIZES.values()),
    ]
