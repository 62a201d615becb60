"""The kinds of files that claims are measured on, and mapping them."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path
from typing import Final, Self

from mapfs.claims.claim import CannotMeasureError
from mapfs.claims.mounted import MountedStore, drop_from_memory
from mapfs.mapping import open_mapping
from mapfs.store.machine_pages import PAGE_BYTES
from mapfs.store.syscalls import PageCache

PLAIN: Final = "plain file"
MOUNTED: Final = "file on a mount"
DIRECT: Final = "direct mapping"
STORE: Final = "temporary store"
_FILL_BYTES: Final = 1 << 20
# What may be left in memory of a file that was dropped from it.
_LEFT_SHARE: Final = 0.02


class Access(IntFlag):
    """How a file is mapped: MAP_SHARED to read unless it says more."""

    READ = 0
    WRITE = 1
    PRIVATE = 2


class Mapping:
    """A file as memory, until the block that it is used in ends."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self.view = memoryview(mapping)

    def advise_random(self) -> None:
        """madvise(2) with MADV_RANDOM: no read-ahead."""
        self._mapping.madvise(mmap.MADV_RANDOM)

    def sync(self, offset: int, length: int) -> None:
        """msync(2) with MS_SYNC of the pages that hold these bytes."""
        start = offset - offset % PAGE_BYTES
        self._mapping.flush(start, offset + length - start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.view.release()
        self._mapping.close()


class Subject:
    """One kind of file: files of any size on the host's file system, each made when asked for."""

    can_write = True

    def __init__(self, directory: Path, label: str = PLAIN) -> None:
        self._directory = directory
        self.label = label

    def file(self, size: int) -> Path:
        """A file of random bytes, on the disk and in memory."""
        path = self._directory / f"{size}"
        if not path.exists():
            _fill(path, size)
        return path

    def map(self, path: Path, access: Access = Access.READ) -> Mapping:
        """The whole of a file as memory."""
        writable = bool(access & Access.WRITE)
        flags = mmap.MAP_PRIVATE if access & Access.PRIVATE else mmap.MAP_SHARED
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        with _opened(path, os.O_RDWR if writable else os.O_RDONLY) as fd:
            return Mapping(mmap.mmap(fd, 0, flags=flags, prot=protection))

    def resident(self, path: Path) -> int:
        """Bytes of a file that are in memory."""
        with _opened(path) as fd:
            return PageCache(fd).statistics(0, path.stat().st_size).resident * PAGE_BYTES

    def drop(self, path: Path) -> None:
        """Drop a file from memory. Raises `CannotMeasureError` if it stays there."""
        self._drop(path)
        left = self.resident(path)
        if left > _LEFT_SHARE * path.stat().st_size:
            raise CannotMeasureError(f"{left >> 20} MiB of a file cannot be dropped from memory")

    def _drop(self, path: Path) -> None:
        drop_from_memory(path)

    def disown(self, path: Path) -> None:
        """Drop what the one who brings it in again is charged for (see `memory_limit`)."""
        self.drop(path)

    @property
    def by_read(self) -> "Subject":
        """The same files as read(2) sees them."""
        return self

    @property
    def server(self) -> int | None:
        """A process that does work for the one that uses the file, if there is one."""
        return None


class MountedSubject(Subject):
    """Files on a mount of a store of our own."""

    def __init__(self, store: MountedStore, label: str = MOUNTED) -> None:
        super().__init__(store.path, label)
        self._store = store

    def resident(self, path: Path) -> int:
        """Bytes in memory, which has them twice at most: the mount's and the store file's."""
        return super().resident(path) + in_store_memory(path)

    def _drop(self, path: Path) -> None:
        """What the daemon's windows have mapped stays in memory until it is another process."""
        drop_from_memory(path)
        drop_from_memory(self._store.bundle.store)
        if in_store_memory(path):
            self._store.renew()

    def disown(self, path: Path) -> None:
        """The mount's pages; it is the daemon that brings in those of the store."""
        drop_from_memory(path)

    @property
    def server(self) -> int | None:
        return self._store.worker


class DirectSubject(MountedSubject):
    """Files on the mount, of which the store file's own pages are mapped: they can be read only."""

    can_write = False

    def __init__(self, store: MountedStore) -> None:
        super().__init__(store, DIRECT)

    def map(self, path: Path, access: Access = Access.READ) -> Mapping:
        assert access is Access.READ
        return Mapping(open_mapping(path))

    def resident(self, path: Path) -> int:
        """Bytes that memory has of the store file."""
        return in_store_memory(path)

    def disown(self, path: Path) -> None:
        """The store file's pages are brought in by who maps them."""
        self.drop(path)

    @property
    def by_read(self) -> Subject:
        return MountedSubject(self._store)


def in_store_memory(path: Path) -> int:
    """Bytes of a file on a mount that memory has of the store file."""
    return int(os.getxattr(path, "user.mapfs.file.resident"))


def _fill(path: Path, size: int) -> None:
    """Random bytes, which no file system can compress."""
    with path.open("wb") as file:
        for start in range(0, size, _FILL_BYTES):
            file.write(os.urandom(min(_FILL_BYTES, size - start)))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)
