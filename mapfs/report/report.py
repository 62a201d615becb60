"""`Report`: all that one walk over a source found."""

from dataclasses import dataclass

from mapfs.report.groups import Groups
from mapfs.report.source import Source
from mapfs.report.tree import Keep, Node, OnError, OnFile, Walk
from mapfs.report.usage import Usage


@dataclass(frozen=True, slots=True)
class Report:
    """The tree as far as it was kept, its files in groups, and where they lie."""

    kind: str
    filesystem: str
    page_size: int
    root: Node
    groups: Groups


def make_report(
    source: Source, keep: Keep, *, totals_suffice: bool, on_file: OnFile, on_error: OnError
) -> Report:
    """Walk over a source. Raises `OSError` or `MapfsError` if its root cannot be looked at.

    Without the walk that `totals_suffice` may save, the groups are incomplete.
    """
    groups = Groups()

    def found(name: str, usage: Usage) -> None:
        groups.add(name, usage)
        on_file(name, usage)

    walk = Walk(source, keep, totals_suffice=totals_suffice, on_file=found, on_error=on_error)
    return Report(source.kind, source.filesystem, source.page_size, walk.run(), groups)
