"""The catalog: ordered tables of bytes in one LMDB file. The only user of `lmdb`.

Reads go through one read transaction that is renewed after each commit, so that a reader never
keeps LMDB from reusing old pages for long. `apply` may run in a worker thread; everything else
belongs to the thread that opened the catalog. LMDB must not cross `fork()`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import lmdb

from mapfs.errors import (
    FULL,
    DamagedStoreError,
    MapfsError,
    NoSpaceError,
    NotAStoreError,
    StoreError,
)
from mapfs.format.records import Table
from mapfs.store.address_space import mappings_of
from mapfs.store.lmdb_pages import check_pages
from mapfs.store.syscalls import FALLOC_FL_KEEP_SIZE, MADV_DONTNEED, advise_memory, fallocate

# Address space, not memory or disk: the most that the catalog may grow to.
_MAP_BYTES: Final = 1 << 40
# Up to these sizes pages are checked, before LMDB sees them, down to a level above the leaves: each
# a tenth of a second at most. A thorough opening reads all, four seconds for a million files.
_CHECKED_LEVELS: Final = {8 << 20: 1, 512 << 20: 2}
_LEAST_CHECKED_LEVEL: Final = 3
# What a changed record takes of the catalog's file when it is committed, as a rule: it, its share
# of a page that is half full, and as much for the inode that changes with it.
_RECORD_BYTES: Final = 2048
# And a large value, for each of its bytes: it takes whole pages, and begins in one.
_LARGE_TIMES: Final = 2
# Blocks of the host kept behind the catalog's end, so that what makes space can be committed when
# the host has none left: a quarter of the catalog, within these bounds.
_LEAST_RESERVE_BYTES: Final = 1 << 20
_MOST_RESERVE_BYTES: Final = 32 << 20
# A search then ends anywhere. Opening finds it, but does not look at the leaves of a large catalog.
_OUT_OF_ORDER: Final = "the catalog cannot be read: its keys are out of order"


class Catalog:
    """The tables of `mapfs.format.records.Table` as of the last commit.

    `is_failed` says that a commit met an I/O error, `is_tight` that the host refused the last
    blocks that it was asked to set aside.
    """

    def __init__(
        self, path: Path, *, read_only: bool = False, lock: bool = True, thorough: bool = False
    ) -> None:
        """Open the catalog at `path`, or make an empty one if nothing is there.

        `lock` False is for a catalog that no other process can be using; nothing is then written
        beside it. `thorough` reads every page first, however many there are. Raises
        `NotAStoreError` or `DamagedStoreError` if LMDB cannot make sense of it.
        """
        is_new = not read_only and not (path.exists() and path.stat().st_size)
        if not is_new:
            _check(path, thorough=thorough)
        with _explaining(path):
            self._environment = lmdb.open(
                os.fsencode(path),
                map_size=_MAP_BYTES,
                subdir=False,
                max_dbs=len(Table),
                mode=0o600,
                readonly=read_only,
                create=is_new,
                lock=lock,
            )
            self._databases = [
                self._environment.open_db(table.name.lower().encode(), create=is_new)
                for table in Table
            ]
        self._file = path.stat()
        self._reader = self._environment.begin(buffers=False)
        self._end = self._reserved = 0
        self._fd = -1
        self.is_failed = self.is_tight = False
        if lock and not read_only:
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            self._keep_reserve()

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises `DamagedStoreError`, as the other reads do."""
        try:
            value: bytes | None = self._reader.get(key, db=self._databases[table])
        except lmdb.Error as error:
            raise DamagedStoreError(f"the catalog cannot be read: {error}") from error
        return value

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The records from `start` up to but not including `stop`, ascending."""
        try:
            cursor = self._reader.cursor(db=self._databases[table])
            if not cursor.set_range(start):
                return
            for key, value in cursor:
                if key >= stop:
                    return
                if key < start:
                    raise DamagedStoreError(_OUT_OF_ORDER)
                yield key, value
        except lmdb.Error as error:
            raise DamagedStoreError(f"the catalog cannot be read: {error}") from error

    def descend(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The records from `start` down to and including `stop`, descending."""
        try:
            cursor = self._reader.cursor(db=self._databases[table])
            found = cursor.set_range(start)
            if not (cursor.last() if not found else cursor.key() == start or cursor.prev()):
                return
            for key, value in cursor.iterprev():
                if key < stop:
                    return
                if key > start:
                    raise DamagedStoreError(_OUT_OF_ORDER)
                yield key, value
        except lmdb.Error as error:
            raise DamagedStoreError(f"the catalog cannot be read: {error}") from error

    def count(self, table: Table) -> int:
        """The number of records in a table, without reading them."""
        return int(self._reader.stat(self._databases[table])["entries"])

    def apply(self, changes: Sequence[Mapping[bytes, bytes | None]]) -> None:
        """Write one durable transaction: for each table new values, or None to delete.

        This is the commit point. Begins and ends in the calling thread. Raises `NoSpaceError` when
        the catalog or its disk is full and `MapfsError` for another failure, which also sets
        `is_failed`: what LMDB has mapped may not be what is on the disk. Nothing is then changed.
        """
        try:
            with self._environment.begin(write=True) as transaction:
                for database, table in zip(self._databases, changes, strict=True):
                    _write_table(transaction.cursor(db=database), table)
        except lmdb.MapFullError as error:
            raise NoSpaceError("the catalog is full") from error
        except lmdb.Error as error:
            if self._host_is_full():
                raise NoSpaceError(f"the catalog cannot grow: {error}") from error
            found = _from_lmdb(error)
            self.is_failed = not isinstance(found, NoSpaceError)
            raise found from error
        self._keep_reserve()

    def _keep_reserve(self) -> None:
        """Have blocks set aside behind the catalog's end; less if the host has no more."""
        self._end = end = self.size
        if self._fd < 0 or self._reserved >= end + self._reserve_bytes // 2:
            return
        with contextlib.suppress(OSError):
            self._set_aside(end, end + self._reserve_bytes)

    @property
    def _reserve_bytes(self) -> int:
        return min(max(self._end // 4, _LEAST_RESERVE_BYTES), _MOST_RESERVE_BYTES)

    def _set_aside(self, start: int, end: int) -> None:
        try:
            fallocate(self._fd, FALLOC_FL_KEEP_SIZE, start, end - start)
        except OSError as error:
            self.is_tight = error.errno in FULL
            if self.is_tight:
                raise
            end = _MAP_BYTES  # a host that cannot reserve is not asked again
        else:
            self.is_tight = False
        self._reserved = end

    def require_room(self, records: int, large_bytes: int) -> None:
        """Raise unless the host has blocks for so many changed records besides the reserve.

        `large_bytes` is what there is of large values in them.
        A system call only for every few hundred records, and while the host refuses. Raises
        `OSError` (ENOSPC, EDQUOT).
        """
        changed = records * _RECORD_BYTES + large_bytes * _LARGE_TIMES
        needed = self._end + self._reserve_bytes // 2 + changed
        if self._fd >= 0 and self._reserved < needed:
            self._set_aside(self._end, needed + self._reserve_bytes // 2)

    def _host_is_full(self) -> bool:
        """Whether the host has no room for the reserve: LMDB calls a short write an I/O error."""
        if self._fd < 0:
            return False
        try:
            fallocate(self._fd, FALLOC_FL_KEEP_SIZE, self.size, _LEAST_RESERVE_BYTES)
        except OSError as error:
            return error.errno in FULL
        return False

    def renew(self) -> None:
        """Let reads see what `apply` wrote since. Iterators from before become invalid."""
        self._reader.abort()
        self._reader = self._environment.begin(buffers=False)

    def drop_mapped(self) -> None:
        """Take what is mapped of the catalog out of the page tables; it stays in memory.

        May run in any thread while the catalog is open, which is mapped once for as long.
        """
        for place in mappings_of(self._file):
            advise_memory(place.start, len(place), MADV_DONTNEED)

    @property
    def size(self) -> int:
        """Bytes of the catalog file that are in use."""
        info = self._environment.info()
        return int((info["last_pgno"] + 1) * self._environment.stat()["psize"])

    def close(self) -> None:
        """End the read transaction and close the file."""
        self._reader.abort()
        self._environment.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Say of what cannot be opened whether it is no catalog, or a damaged one."""
    try:
        yield
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.NotFoundError) as error:
        raise NotAStoreError(f"{path} is no mapfs catalog ({error})") from error
    except lmdb.Error as error:
        raise DamagedStoreError(f"{path}: {error}") from error


def _check(path: Path, *, thorough: bool) -> None:
    """Raise for a file that LMDB would not survive."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotAStoreError(f"{path}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        levels = (level for most, level in _CHECKED_LEVELS.items() if thorough or size <= most)
        check_pages(fd, _MAP_BYTES, level=next(levels, _LEAST_CHECKED_LEVEL))
    except StoreError as error:
        raise type(error)(f"{path}: {error}") from error
    finally:
        os.close(fd)


def _write_table(cursor: "lmdb.Cursor", table: Mapping[bytes, bytes | None]) -> None:
    changes = sorted(table.items())  # in order each page is visited once
    cursor.putmulti([(key, value) for key, value in changes if value is not None])
    for key, value in changes:
        if value is None and cursor.set_key(key):
            cursor.delete()


def _from_lmdb(error: lmdb.Error) -> MapfsError:
    # py-lmdb gives an errno only as text.
    if "No space left" in str(error) or "quota" in str(error):
        return NoSpaceError(f"the catalog cannot grow: {error}")
    return MapfsError(f"the catalog cannot be written: {error}")
