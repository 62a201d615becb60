"""Opening a store: from a bundle on disk, or in memory."""

import os
from contextlib import ExitStack
from pathlib import Path

from mapfs.errors import MapfsError, NotAStoreError, StoreError
from mapfs.format.superblock import COPY_OFFSETS, HEADER_BYTES, Superblock, read_superblock
from mapfs.store.bundle import Bundle, lock_file
from mapfs.store.catalog import Catalog
from mapfs.store.log import IntentLog
from mapfs.store.mapped_file import MappedFile
from mapfs.store.mkfs import StoreOptions, first_pages, first_records
from mapfs.store.store import Store, check_state, read_state


def open_store(
    path: Path,
    *,
    read_only: bool = False,
    address_space: int | None = None,
    thorough: bool = False,
) -> Store:
    """Open the bundle at `path`; `address_space` bounds the bytes mapped at a time.

    `thorough` looks at every page of the catalog first, however large that is.

    Raises `StoreError`s: not a store, damaged, of a newer format, in use (by a writer; or, to
    write, by anyone). With `read_only` not a byte of the bundle is written.
    """
    bundle = Bundle(path)
    bundle.require()
    try:
        return _open(bundle, read_only=read_only, address_space=address_space, thorough=thorough)
    except StoreError as error:
        raise _naming(error, path) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def _open(bundle: Bundle, *, read_only: bool, address_space: int | None, thorough: bool) -> Store:
    with ExitStack() as undo:
        lock = bundle.take_lock(exclusive=not read_only)
        undo.callback(os.close, lock)
        fd = _open_storage(bundle.store, read_only=read_only)
        close_store = undo.enter_context(ExitStack())
        close_store.callback(os.close, fd)
        lock_file(fd, bundle.store.resolve(), exclusive=not read_only)
        superblock = read_superblock(os.pread(fd, HEADER_BYTES, 0))
        catalog = undo.enter_context(
            _open_catalog(bundle.catalog, read_only=read_only, thorough=thorough)
        )
        pages = _pages_of(fd, superblock)
        check_state(superblock, read_state(superblock, catalog), pages)
        log = _open_log(bundle, superblock, read_only=read_only)
        backing = MappedFile(fd, pages * superblock.page_size, address_space)
        close_store.pop_all()
        undo.callback(backing.close)
        store = Store(
            superblock,
            backing,
            catalog,
            log=log,
            pages=pages,
            read_only=read_only,
            on_close=lambda: os.close(lock),
        )
        undo.pop_all()
        return store


def _open_storage(path: Path, *, read_only: bool) -> int:
    """The store file; of a device that is written nobody else may have a file system on it."""
    flags = os.O_RDONLY if read_only else os.O_RDWR
    if path.is_block_device() and not read_only:
        flags |= os.O_EXCL
    return os.open(path, flags | os.O_CLOEXEC)


def _open_catalog(path: Path, *, read_only: bool, thorough: bool) -> Catalog:
    if path.stat().st_size == 0:
        raise NotAStoreError(f"{path} is empty")
    return Catalog(path, read_only=read_only, lock=not read_only, thorough=thorough)


def _open_log(bundle: Bundle, superblock: Superblock, *, read_only: bool) -> IntentLog | None:
    if read_only and not bundle.log.exists():
        return None
    return IntentLog(bundle.log, superblock.uuid, read_only=read_only)


def _pages_of(fd: int, superblock: Superblock) -> int:
    """The whole pages in the store file: more than the catalog knows of if a crash came soon."""
    return min(os.lseek(fd, 0, os.SEEK_END) // superblock.page_size, superblock.limit_pages)


def _naming(error: MapfsError, path: Path) -> MapfsError:
    """The same error, naming the store it is about."""
    message = str(error)
    if message.startswith(os.fspath(path)):
        return error
    if isinstance(error, NotAStoreError):
        message = f"not a mapfs store ({message})"
    return type(error)(f"{path}: {message}")


def ephemeral_store(limit: int, page_size: int, *, address_space: int | None = None) -> Store:
    """A store in anonymous memory (memfd_create(2)) that is gone when it is closed."""
    superblock = StoreOptions(limit, page_size).superblock()
    pages = first_pages(superblock)
    fd = os.memfd_create("mapfs-store")
    os.ftruncate(fd, pages * page_size)
    for offset in COPY_OFFSETS:
        os.pwrite(fd, superblock.pack(), offset)
    catalog_fd = os.memfd_create("mapfs-catalog")
    try:
        catalog = Catalog(Path(f"/proc/self/fd/{catalog_fd}"), lock=False)
    finally:
        os.close(catalog_fd)
    catalog.apply(first_records(superblock, pages))
    catalog.renew()
    return Store(superblock, MappedFile(fd, pages * page_size, address_space), catalog)
