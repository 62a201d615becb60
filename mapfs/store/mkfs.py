"""Making a store: the files of a bundle, and the records of an empty filesystem."""

import errno
import os
import stat
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mapfs.errors import StoreError, StoreExistsError, StoreInUseError, UsageError
from mapfs.format.extent import MAX_PAGE_SIZE, MIN_PAGE_SIZE, Extent, is_page_size, pages_for
from mapfs.format.records import (
    FIRST_ID,
    META_STATE,
    META_UUID,
    ROOT_INODE,
    Inode,
    State,
    Table,
    id_key,
    pack_count,
    pair_key,
)
from mapfs.format.superblock import COPY_OFFSETS, HEADER_BYTES, Superblock
from mapfs.store.bundle import Bundle, is_storage, lock_file
from mapfs.store.catalog import Catalog
from mapfs.store.leases import leased
from mapfs.store.log import IntentLog

_FIRST_STORE_BYTES: Final = 64 << 20
_LEAST_DATA_PAGES: Final = 16
_MOST_BYTES: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What mkfs decides for good: bytes that the store may grow to, and bytes in a page."""

    limit: int
    page_size: int

    def superblock(self) -> Superblock:
        """A superblock for a new store. Raises `UsageError` for sizes that cannot work."""
        if not is_page_size(self.page_size):
            raise UsageError(
                f"page size {self.page_size}: must be a power of two"
                f" from {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE}"
            )
        least = HEADER_BYTES + _LEAST_DATA_PAGES * self.page_size
        if self.limit < least:
            raise UsageError(f"size {self.limit}: a store needs at least {least} bytes")
        if self.limit > _MOST_BYTES:
            raise UsageError(f"size {self.limit}: no file is larger than {_MOST_BYTES} bytes")
        return Superblock(
            uuid.uuid4().bytes, self.page_size, self.limit // self.page_size, time.time_ns()
        )


def create_store(
    path: Path, options: StoreOptions, *, backing: Path | None = None, force: bool = False
) -> None:
    """mkfs: make a bundle at `path`, its store file at `backing` if given.

    Overwrites only with `force`, and then only a bundle, a file or a block device that nobody
    uses. Raises `StoreExistsError`, `StoreInUseError` or `UsageError`; leaves nothing behind then.
    """
    try:
        _create(Bundle(path), options.superblock(), backing, force=force)
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from error


def _create(bundle: Bundle, superblock: Superblock, backing: Path | None, *, force: bool) -> None:
    _refuse_to_overwrite(bundle, backing, force=force)
    if backing is not None and backing.is_block_device():
        _require_fits(backing, superblock)
    with ExitStack() as undo:
        _make_directory(bundle, undo)
        lock = bundle.take_lock(exclusive=True)
        undo.callback(os.close, lock)
        for leftover in (bundle.store, bundle.catalog, bundle.catalog_lock, bundle.log):
            leftover.unlink(missing_ok=True)
        if backing is not None:
            bundle.store.symlink_to(backing.absolute())
        superblock = _make_store_file(bundle.store, superblock)
        with Catalog(bundle.catalog) as catalog:
            catalog.apply(first_records(superblock, _pages_at_first(bundle.store, superblock)))
        IntentLog(bundle.log, superblock.uuid).close()
        undo.pop_all()
        os.close(lock)


def _refuse_to_overwrite(bundle: Bundle, backing: Path | None, *, force: bool) -> None:
    if bundle.path.exists() or bundle.path.is_symlink():
        if not force:
            raise StoreExistsError(f"{bundle.path} exists (overwrite a store with --force)")
        if not bundle.is_complete:
            raise StoreExistsError(f"{bundle.path} exists and is not a mapfs store: not touched")
    if backing is None:
        return
    if _is_mapped(backing):
        raise StoreInUseError(f"{backing} is mapped by a process")
    _require_unused(backing)
    if _has_content(backing) and not force:
        raise StoreExistsError(f"{backing} is not empty (overwrite it with --force)")


def _require_unused(path: Path) -> None:
    """Raise `StoreInUseError` for a device that is mounted, or that others are made of.

    Such have it for themselves (O_EXCL in open(2)), of which flock(2) knows nothing.
    """
    if not path.is_block_device():
        return
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise StoreInUseError(f"{path} is in use: mounted, or part of another device") from error


def _require_fits(device: Path, superblock: Superblock) -> None:
    size = default_limit(device)
    if size < superblock.limit_pages * superblock.page_size:
        raise UsageError(f"{device} holds {size} bytes, less than --size")


def _has_content(path: Path) -> bool:
    if path.exists() and not is_storage(path):
        raise UsageError(f"{path}: neither a file nor a block device")
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return size > 0
            return any(file.read(1 << 20))
    except FileNotFoundError:
        return False


def _is_mapped(path: Path) -> bool:
    """Whether a file or device has pages that somebody leased: a mapping of them would break."""
    if not path.exists() or not is_storage(path):
        return False
    with path.open("rb") as file:
        return bool(leased(file.fileno(), 0, _MOST_BYTES))


def _make_directory(bundle: Bundle, undo: ExitStack) -> None:
    if bundle.path.exists():
        return
    try:
        bundle.path.mkdir(mode=0o700)
    except OSError as error:
        raise StoreError(f"{bundle.path}: {error.strerror}") from error
    undo.callback(_remove_bundle, bundle)
    os.close(os.open(bundle.lock, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))


def _remove_bundle(bundle: Bundle) -> None:
    for file in bundle.path.iterdir():
        file.unlink()
    bundle.path.rmdir()


def _make_store_file(path: Path, superblock: Superblock) -> Superblock:
    """Write the superblocks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        lock_file(fd, path.resolve(), exclusive=True)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
            os.ftruncate(fd, _pages_at_first(path, superblock) * superblock.page_size)
        for offset in COPY_OFFSETS:
            os.pwrite(fd, superblock.pack(), offset)
        os.fsync(fd)
    finally:
        os.close(fd)
    return superblock


def _pages_at_first(path: Path, superblock: Superblock) -> int:
    return superblock.limit_pages if path.is_block_device() else first_pages(superblock)


def first_pages(superblock: Superblock) -> int:
    """The pages that a store file starts with; it grows when they are used up."""
    return min(superblock.limit_pages, pages_for(_FIRST_STORE_BYTES, superblock.page_size))


def first_records(superblock: Superblock, store_pages: int) -> list[dict[bytes, bytes | None]]:
    """The catalog of an empty filesystem: a root directory, and everything else free."""
    tables: list[dict[bytes, bytes | None]] = [{} for _ in Table]
    now = time.time_ns()
    root = Inode(ROOT_INODE, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), nlink=2)
    root.atime = root.mtime = root.ctime = root.btime = now
    root.parent = ROOT_INODE
    free = Extent(superblock.metadata_pages, store_pages - superblock.metadata_pages)
    state = State(FIRST_ID, store_pages, 0, 1, 0, 0, 0)  # one inode: the root
    tables[Table.META] = {META_UUID: superblock.uuid, META_STATE: state.pack()}
    tables[Table.INODES] = {id_key(ROOT_INODE): root.pack()}
    tables[Table.FREE] = {id_key(free.start): pack_count(free.count)}
    tables[Table.FREE_BY_SIZE] = {pair_key(free.count, free.start): b""}
    return tables


def machine_page_size() -> int:
    """The page size of this machine, in bytes: what mkfs takes if nothing else is asked for."""
    return os.sysconf("SC_PAGE_SIZE")


def default_limit(path: Path) -> int:
    """The bytes that a store at `path` may grow to if nothing is said: what its host has free."""
    if path.is_block_device():
        with path.open("rb") as device:
            return device.seek(0, os.SEEK_END)
    while not path.exists():
        path = path.absolute().parent
    host = os.statvfs(path)
    return host.f_bavail * host.f_frsize
