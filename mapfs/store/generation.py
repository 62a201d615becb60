"""A generation: the changes that one commit will make durable, gathered in memory.

Changes are put far more often than they are scanned, so keys are put in order only for a scan.
"""

from collections.abc import Iterator
from itertools import chain, islice

from sortedcontainers import SortedList

from mapfs.format.extent import Extent
from mapfs.format.records import Table


class Generation:
    """Changed records by table (None for a deletion), and the extents they set free."""

    def __init__(self) -> None:
        self.tables: list[dict[bytes, bytes | None]] = [{} for _ in Table]
        self._keys: list[SortedList[bytes]] = [SortedList() for _ in Table]
        self.freed: list[Extent] = []
        self.data_written = False
        # Bytes of values that take pages of the catalog for themselves.
        self.large_bytes = 0

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return self.data_written or bool(self.freed) or any(self.tables)

    def __len__(self) -> int:
        """The number of changed records."""
        return sum(map(len, self.tables))

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """The changes from `start` up to but not including `stop`, ascending."""
        changes = self.tables[table]
        keys = self._in_order(table).irange(start, stop, inclusive=(True, False))
        return ((key, changes[key]) for key in keys)

    def descend(
        self, table: Table, start: bytes, stop: bytes
    ) -> Iterator[tuple[bytes, bytes | None]]:
        """The changes from `start` down to and including `stop`, descending."""
        changes = self.tables[table]
        keys = self._in_order(table).irange(stop, start, reverse=True)
        return ((key, changes[key]) for key in keys)

    def _in_order(self, table: Table) -> SortedList[bytes]:
        """The keys of a table. None ever leaves it: new ones are the last of the dictionary."""
        changes, keys = self.tables[table], self._keys[table]
        keys.update(islice(reversed(changes), len(changes) - len(keys)))
        return keys

    def absorb(self, newer: "Generation") -> None:
        """Lay the changes of a newer generation over these: both will be one commit."""
        for mine, theirs in zip(self.tables, newer.tables, strict=True):
            mine.update(theirs)
        self.freed = list(chain(self.freed, newer.freed))
        self.data_written |= newer.data_written
        self.large_bytes += newer.large_bytes
