"""A `Source` made of dictionaries, and reports over it."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from mapfs.report.report import Report, make_report
from mapfs.report.source import Entry
from mapfs.report.tree import Keep
from mapfs.report.usage import Usage

PAGE = 4096
SIZES = {"at_4k": 4 << 10, "at_16k": 16 << 10, "at_64k": 64 << 10, "at_2m": 2 << 20}


def file_of(size: int) -> Usage:
    """A file without holes in pages of 4 KiB, in one extent, all in memory."""
    return Usage(
        files=1,
        size=size,
        stored=size,
        allocated=size + -size % PAGE,
        slack=-size % PAGE,
        **{name: -size % page for name, page in SIZES.items()},
        extents=min(size, 1),
        resident=size + -size % PAGE,
    )


class Unreadable(NamedTuple):
    """A directory that cannot be read."""

    error: Exception


class TreeOfDicts:
    """Directories are dictionaries, files their sizes, or the error of looking at them."""

    kind = "mount"
    filesystem = "mapfs"
    page_size = PAGE

    def __init__(self, tree: Any, links: Mapping[str, Hashable] | None = None) -> None:
        """`links`: the identity of the files at some paths."""
        self._trees: dict[str, Any] = {"top": tree}
        self._links = links or {}
        self.entered: list[str] = []

    def root(self) -> Entry:
        return self._entry("top", "top", self._trees["top"])

    def entries(self, directory: Entry) -> Iterator[Entry]:
        self.entered.append(directory.path)
        tree = self._trees[directory.path]
        if isinstance(tree, Unreadable):
            raise tree.error
        for name in sorted(tree):
            yield self._entry(name, f"{directory.path}/{name}", tree[name])

    def totals(self, directory: Entry) -> Usage | None:
        return sum_of(self._trees[directory.path])

    def _entry(self, name: str, path: str, tree: Any) -> Entry:
        if isinstance(tree, Exception):
            return Entry(name, path, error=tree)
        if isinstance(tree, int):
            return Entry(name, path, file_of(tree), self._links.get(path))
        self._trees[path] = tree
        return Entry(name, path)


def sum_of(tree: Any) -> Usage:
    """All files of a tree of dictionaries."""
    if isinstance(tree, int):
        return file_of(tree)
    total = Usage()
    for below in tree.values():
        total = total.plus(sum_of(below))
    return total


def report_on(
    source: Any, keep: Keep | None = None, *, totals_suffice: bool = False
) -> tuple[Report, list[str]]:
    """A report, and the paths of what could not be read."""
    failed: list[str] = []
    made = make_report(
        source if not isinstance(source, dict) else TreeOfDicts(source),
        keep or Keep(),
        totals_suffice=totals_suffice,
        on_file=lambda _name, _usage: None,
        on_error=lambda path, _error: failed.append(path),
    )
    return made, failed
