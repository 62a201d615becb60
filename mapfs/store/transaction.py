"""Transactions: one generation of changes is gathered while the one before it is written.

A read looks in the running generation, then in the committing one, then in the catalog. The
order in which a commit reaches the disk is written here and nowhere else: `Commit.write`.
"""

import contextlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, TypeAlias

from mapfs.format.extent import Extent, joined, pages_for, without
from mapfs.format.frames import Change
from mapfs.format.records import META_LOST, Table, pack_lost
from mapfs.store.backing import Backing
from mapfs.store.catalog import Catalog
from mapfs.store.generation import Generation
from mapfs.store.log import IntentLog
from mapfs.store.machine_pages import MachinePages

# What a disk writes in the time that it takes to hand the work to a thread and back.
_SMALL_BYTES: Final = 256 << 10
# LMDB gives such a value pages of its own.
_LARGE_BYTES: Final = 1024

# Records in order; None stands for a record that a newer layer deletes.
Changed: TypeAlias = Iterator[tuple[bytes, bytes]] | Iterator[tuple[bytes, bytes | None]]


class Commit:
    """A frozen generation on its way to the disk."""

    def __init__(
        self, generation: Generation, backing: Backing, catalog: Catalog, page_size: int
    ) -> None:
        self.generation = generation
        # Once `write` returned: what it noted in the catalog, and which freed pages must stay.
        self.lost = backing.lost
        self.leased: list[Extent] = []
        self._backing = backing
        self._catalog = catalog
        self._page_size = page_size

    def write(self) -> None:
        """Make the generation durable. Runs in any one thread; changes nothing in memory.

        The data that the new records refer to must be on the disk before the records are: a crash
        in between leaves the catalog as it was. Freed pages may be given away only when no
        record on the disk refers to them. Raises `MapfsError` or `OSError` if the commit point was
        not reached.
        """
        self._sync()
        if any(self.generation.tables):
            self._catalog.apply(self._with_lost())
        freed = list(joined(self.generation.freed))
        # No file has these pages any more, so nobody can come to lease them from here on.
        self.leased = leased_pages(self._backing, freed, self._page_size)
        for extent in without(freed, self.leased):
            # Durable by now: a host that cannot take the blocks back does not undo the commit,
            # and `Backing.prepare` zeroes them before they are used again.
            with contextlib.suppress(OSError):
                self._backing.punch(extent.start * self._page_size, extent.count * self._page_size)

    def _sync(self) -> None:
        """Sync the backing; what is written over meanwhile may still be lost."""
        before = self._backing.lost
        self._backing.sync()
        self.lost = self._backing.lost
        if before and self.lost is not before:
            self.lost = MachinePages(chain(before.runs(), self.lost.runs()))

    def _with_lost(self) -> list[Mapping[bytes, bytes | None]]:
        """The changed records, and which bytes of the store `sync` could not write."""
        tables: list[Mapping[bytes, bytes | None]] = [*self.generation.tables]
        lost = pack_lost(self.lost.runs())
        tables[Table.META] = {**tables[Table.META], META_LOST: lost or None}
        return tables


def leased_pages(backing: Backing, extents: Sequence[Extent], page_size: int) -> list[Extent]:
    """The pages of `extents`, which ascend, that somebody has leased."""
    if not extents:
        return []
    start, end = extents[0].start * page_size, extents[-1].end * page_size
    if not backing.leased(start, end - start):  # the usual case costs one system call
        return []
    return [
        Extent(offset // page_size, pages_for(offset + length, page_size) - offset // page_size)
        for extent in extents
        for offset, length in backing.leased(extent.start * page_size, extent.count * page_size)
    ]


class LogSync:
    """What changed so far on its way to the disk by the log, without a commit.

    `is_whole` False leaves the log alone: it has nothing more than times. `is_eager` says that the
    next sync will come soon.
    """

    is_eager = False

    def __init__(
        self, backing: Backing, log: IntentLog, *, has_data: bool, is_whole: bool = True
    ) -> None:
        """`has_data` False says that the backing is as it was at the last sync."""
        self.is_whole = is_whole
        self._backing = backing
        self._log = log
        self._has_data = has_data
        self._position = log.position

    @property
    def is_small(self) -> bool:
        """Whether there is so little to write that the caller may as well wait for it."""
        return self._backing.unsynced + self._position - self._log.synced <= _SMALL_BYTES

    def write(self) -> bool:
        """Make everything durable that was logged before. Runs in any one thread, as a commit does.

        The data that frames refer to must be on the disk before the frames count. False if that
        needs a commit: bytes that the disk refused are noted in the catalog, and a log that cannot
        be written is of no use. Raises `OSError` if the host failed as a whole, or is full.
        """
        self._backing.is_eager = self.is_eager
        if self._has_data and not self._sync_data():
            return False
        if not self.is_whole or self._log.synced == self._position:
            return True  # nothing but data has changed
        try:
            self._log.sync(self._position)
        except OSError:
            return False
        return True

    def _sync_data(self) -> bool:
        known = self._backing.lost
        self._backing.sync()
        if self._backing.lost is not known:
            return False
        self._log.mark_failed(failed=False)  # should it be: all that failed is on the disk by now
        return True


class Transaction:
    """The tables as the filesystem sees them now. Belongs to the filesystem's thread."""

    def __init__(self, catalog: Catalog, backing: Backing, page_size: int) -> None:
        self._catalog = catalog
        self._backing = backing
        self._page_size = page_size
        self._running = Generation()
        self._committing: Generation | None = None
        self._unlogged: list[Change] | None = None
        self.has_unsynced_data = False

    def keep_log(self) -> None:
        """From now on gather every change for `take_unlogged`."""
        self._unlogged = []

    def note(self, kind: int, key: bytes, value: bytes | None) -> None:
        """Gather a change that is not to a table."""
        if self._unlogged is not None:
            self._unlogged.append((kind, key, value))

    def note_all(self) -> None:
        """Gather everything that the running generation has changed in the tables."""
        self._unlogged = [
            (table, key, value)
            for table, changes in enumerate(self._running.tables)
            for key, value in changes.items()
        ]

    def take_unlogged(self) -> list[Change]:
        """What was changed since the last time, in order; nothing unless `keep_log` was called."""
        taken = self._unlogged or []
        if self._unlogged is not None:
            self._unlogged = []
        return taken

    @property
    def changes(self) -> int:
        """The number of records changed since the last `freeze`."""
        return len(self._running)

    @property
    def large_bytes(self) -> int:
        """Bytes of large values since the last `freeze`, as `expect_value` was told."""
        return self._running.large_bytes

    def expect_value(self, size: int) -> None:
        """Note that a value of so many bytes will be put."""
        if size > _LARGE_BYTES:
            self._running.large_bytes += size

    @property
    def is_dirty(self) -> bool:
        """Whether anything is not yet durable, a commit under way not counted."""
        return bool(self._running)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        changes = self._running.tables[table]
        if key in changes:
            return changes[key]
        if self._committing is not None:
            changes = self._committing.tables[table]
            if key in changes:
                return changes[key]
        return self._catalog.get(table, key)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Set the value under `key`."""
        if self._unlogged is not None:
            self._unlogged.append((table, key, value))
        self._running.tables[table][key] = value

    def delete(self, table: Table, key: bytes) -> None:
        """Remove `key`, which need not exist."""
        if self._unlogged is not None:
            self._unlogged.append((table, key, None))
        self._running.tables[table][key] = None

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The records from `start` up to but not including `stop`, ascending.

        The table must not be changed before the iterator is used up or dropped.
        """
        layers = self._layers(table)
        if not layers:
            return self._catalog.scan(table, start, stop)
        streams: list[Changed] = [layer.scan(table, start, stop) for layer in layers]
        streams.append(self._catalog.scan(table, start, stop))
        ranked = [_ranked(stream, rank) for rank, stream in enumerate(streams)]
        return _newest(heapq.merge(*ranked))

    def descend(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The records from `start` down to and including `stop`, descending; see `scan`."""
        layers = self._layers(table)
        if not layers:
            return self._catalog.descend(table, start, stop)
        streams: list[Changed] = [layer.descend(table, start, stop) for layer in layers]
        streams.append(self._catalog.descend(table, start, stop))
        ranked = [_ranked(stream, -rank) for rank, stream in enumerate(streams)]
        return _newest(heapq.merge(*ranked, reverse=True))

    def _layers(self, table: Table) -> list[Generation]:
        generations = (self._running, self._committing)
        return [each for each in generations if each is not None and each.tables[table]]

    def data_written(self) -> None:
        """Note that the backing holds bytes that the next commit must make durable."""
        self._running.data_written = self.has_unsynced_data = True

    def backing_changed(self) -> None:
        """Note that the backing has grown, or has fresh pages: records may refer to that."""
        self.has_unsynced_data = True

    def freed(self, extent: Extent) -> None:
        """Note pages that no record refers to any more, as soon as this generation is durable."""
        self._running.freed.append(extent)

    def freeze(self) -> Commit:
        """Turn the running generation into the committing one and start an empty one.

        One commit at a time: the commit before must have gone through `finish` or `abort`.
        """
        assert self._committing is None
        self.take_unlogged()
        self.has_unsynced_data = False
        self._committing, self._running = self._running, Generation()
        return Commit(self._committing, self._backing, self._catalog, self._page_size)

    def finish(self) -> list[Extent]:
        """After a `Commit.write` that succeeded: read from the catalog what was written.

        Returns the extents that may now be given away.
        """
        assert self._committing is not None
        freed = self._committing.freed
        self._committing = None
        self._catalog.renew()
        return freed

    def abort(self) -> None:
        """After a `Commit.write` that failed: the next commit will try these changes again."""
        assert self._committing is not None
        self.has_unsynced_data = True
        self._committing.absorb(self._running)
        self._running, self._committing = self._committing, None


def _ranked(stream: Changed, rank: int) -> Iterator[tuple[bytes, int, bytes | None]]:
    """The records with the age of their layer behind the key: equal keys then merge by age."""
    return ((key, rank, value) for key, value in stream)


def _newest(
    merged: Iterator[tuple[bytes, int, bytes | None]],
) -> Iterator[tuple[bytes, bytes]]:
    """Of each run of equal keys the first, which is the newest, unless it is a deletion."""
    last = None
    for key, _, value in merged:
        if key != last and value is not None:
            yield key, value
        last = key
