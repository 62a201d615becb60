"""`Node`: a directory or file with its usage, as far as it is to be shown; and the walk to it.

What is not shown is only added up, so memory grows with what is kept of a tree, with the names of
one directory at a time, and with the files that have several names.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from mapfs.errors import MapfsError
from mapfs.report.source import Entry, Source
from mapfs.report.usage import Usage

OnFile = Callable[[str, Usage], None]
OnError = Callable[[str, Exception], None]


@dataclass(slots=True, eq=False)
class Node:
    """What is at `path`. `rest` is what `prune` took from it: files, and what was below."""

    name: str
    path: str
    is_directory: bool
    usage: Usage = field(default_factory=Usage)
    children: list["Node"] = field(default_factory=list)
    rest: Usage = field(default_factory=Usage)

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, parents first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


@dataclass(frozen=True, slots=True)
class Keep:
    """Which nodes to keep: `depth` levels below the root, and `nodes` in all (None: every one)."""

    depth: int | None = None
    nodes: int | None = None


@dataclass(slots=True)
class _Frame:
    """A directory that the walk is in."""

    node: Node
    entries: Iterator[Entry]


class Walk:
    """One walk over a source. A file with several names counts where it is met first."""

    def __init__(
        self,
        source: Source,
        keep: Keep,
        *,
        totals_suffice: bool,
        on_file: OnFile,
        on_error: OnError,
    ) -> None:
        """`totals_suffice`: do not enter a directory below `keep.depth` whose totals are known.

        `on_file` gets the name and usage of every file; `on_error` the path of what cannot be
        read, which is then left out.
        """
        self._source = source
        self._depth, self._most = keep.depth, keep.nodes
        self._totals_suffice = totals_suffice
        self._on_file = on_file
        self._on_error = on_error
        self._met: set[Hashable] = set()
        self._frames: list[_Frame] = []
        self._kept = 0
        self._limit = -1  # what is not larger is not kept

    def run(self) -> Node:
        """The root. Raises `OSError` or `MapfsError` if there is none."""
        entry = self._source.root()
        root = Node(entry.name, entry.path, entry.usage is None)
        if entry.usage is not None:
            self._count(root, entry.name, entry.usage)
        else:
            self._enter(entry, root)
        while self._frames:
            self._step()
        if self._most is not None and self._kept > self._most:
            prune([root], self._most)
        return root

    def _step(self) -> None:
        frame = self._frames[-1]
        try:
            entry = next(frame.entries, None)
        except (OSError, MapfsError) as error:
            self._on_error(frame.node.path, error)
            entry = None
        if entry is None:
            self._leave()
        elif entry.error is not None:
            self._on_error(entry.path, entry.error)
        elif entry.usage is None:
            self._enter(entry, Node(entry.name, entry.path, is_directory=True))
        elif entry.identity is None or entry.identity not in self._met:
            if entry.identity is not None:
                self._met.add(entry.identity)
            leaf = Node(entry.name, entry.path, is_directory=False)
            self._count(leaf, entry.name, entry.usage)
            self._attach(leaf)

    def _count(self, node: Node, name: str, usage: Usage) -> None:
        node.usage = usage
        self._on_file(name, usage)

    def _enter(self, entry: Entry, node: Node) -> None:
        if self._totals_suffice and len(self._frames) == self._depth:
            try:
                totals = self._source.totals(entry)
            except (OSError, MapfsError) as error:
                self._on_error(entry.path, error)
                totals = Usage()
            if totals is not None:
                node.usage = totals
                self._attach(node)
                return
        self._frames.append(_Frame(node, self._source.entries(entry)))

    def _leave(self) -> None:
        self._attach(self._frames.pop().node)

    def _attach(self, node: Node) -> None:
        """Count a finished node in the directory around it, and keep it there if asked to."""
        if not self._frames:
            return
        parent = self._frames[-1].node
        parent.usage = parent.usage.plus(node.usage)
        if self._depth is not None and len(self._frames) > self._depth:
            return
        if node.usage.allocated <= self._limit:
            parent.rest = parent.rest.plus(node.usage)
            return
        parent.children.append(node)
        self._kept += 1
        if self._most is not None and self._kept > 2 * self._most:
            self._limit, self._kept = prune([frame.node for frame in self._frames], self._most)


def prune(roots: list[Node], most: int) -> tuple[int, int]:
    """Move the smallest descendants into the `rest` around them until `most` are left at most.

    Smallest by allocated bytes; what is in a directory is never larger than it. The roots stay.
    Returns the size up to which nodes were moved, and how many descendants are left.
    """
    allocated = sorted(_allocated(roots), reverse=True)
    limit = allocated[most] if most < len(allocated) else -1
    left = 0
    for root in roots:
        for node in root.walk():
            for child in node.children:
                if child.usage.allocated <= limit:
                    node.rest = node.rest.plus(child.usage)
            node.children = [child for child in node.children if child.usage.allocated > limit]
            left += len(node.children)
    return limit, left


def _allocated(roots: list[Node]) -> Iterator[int]:
    for root in roots:
        for node in root.walk():
            yield from (child.usage.allocated for child in node.children)
