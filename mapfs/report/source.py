"""`Source`: a tree of files that can be walked, wherever it is kept."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

from mapfs.report.usage import Usage


@dataclass(slots=True)
class Entry:
    """A name in a tree: a directory to go into, or anything else, with its usage.

    `path` leads there from the path that was asked for. `identity` is the same for all names of
    one file, and None if it has no other. `place` is what its source finds a directory by.
    `error` is why it cannot be looked at; then all else is without meaning.
    """

    name: str
    path: str
    usage: Usage | None = None  # None: a directory
    identity: Hashable = None
    place: int = 0
    error: Exception | None = None


class Source(Protocol):
    """Where a walk reads a tree from. Belongs to one thread.

    `kind` is "mount", "store" or "directory"; `filesystem` the type of what holds the files,
    empty if unknown; `page_size` the bytes in which that allocates.
    """

    kind: str
    filesystem: str
    page_size: int

    def root(self) -> Entry:
        """The top of the tree. Raises `OSError` or `MapfsError`."""

    def entries(self, directory: Entry) -> Iterator[Entry]:
        """What is in a directory, in the order of the names' bytes.

        Raises `OSError` or `MapfsError` if the directory cannot be read.
        """

    def totals(self, directory: Entry) -> Usage | None:
        """All that is below a directory, where that is known without a walk.

        A file with several names then counts in the directory of its home entry.
        """
