"""Opening a mapping: which store a file is in, where it is there, and the lease on its pages.

The lease is taken first and the layout read again behind it: pages that are the file's *then*
cannot be given to another file until the lease ends (`store/leases.py`).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Literal

from mapfs.errors import DamagedStoreError, MapfsError, NotSupportedError
from mapfs.filesystem.clock import now
from mapfs.filesystem.content import require_file
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.format.extent import Extent, joined
from mapfs.format.layout import Layout, joined_layouts
from mapfs.format.records import Inode
from mapfs.mapping.file_mapping import FileMapping
from mapfs.mounts import mount_of_device
from mapfs.store.bundle import Bundle
from mapfs.store.leases import end_leases, lease
from mapfs.store.mapped_file import identity_of
from mapfs.store.opening import open_store
from mapfs.store.syscalls import FALLOC_FL_KEEP_SIZE

_ATTRIBUTE: Final = "user.mapfs.file.layout"
# A file that changes its extents all the time has no layout that could be mapped.
_MOST_TRIES: Final = 100
_CHANGES: Final = "the file's extents change all the time"


def open_mapping(
    path: str | os.PathLike[str],
    mode: Literal["r", "r+"] = "r",
    *,
    store: str | os.PathLike[str] | None = None,
) -> FileMapping:
    """Map a file of a store: memory that is the store file's own pages, without FUSE in between.

    `path` is a file on a mount, or with `store` the path within a store that is not mounted.
    With mode `r` it can only be read. With `r+`, which needs a store that is not mounted, it can
    be written, too, and the store is locked until the mapping is closed; holes get pages first.

    What was written to the file before the call is in the mapping. `docs/mmap.md` says what is seen
    of later changes. Nobody can make another file's bytes appear in it.

    Raises `OSError` as open(2) does, and `PermissionError` unless the caller is root or the user
    whose store it is; `ValueError` for an empty file or another mode; `NotSupportedError` for `r+`
    on a mount and for what is no regular file; another `MapfsError` if `path` is not on a mapfs or
    the store cannot be opened.

    ```python
    with mapfs.open_mapping("mnt/vectors.f32") as mapping:
        vectors = numpy.frombuffer(mapping, dtype="float32")
    ```
    """
    if mode not in ("r", "r+"):
        raise ValueError(f"mode {mode!r}: must be 'r' or 'r+'")
    path = Path(path)
    if store is not None:
        opener = _open_writable if mode == "r+" else _open_readable
        return opener(Path(store), path)
    if mode == "r+":
        raise NotSupportedError("a file on a mount can only be mapped for reading")
    return _open_mounted(path)


def _open_mounted(path: Path) -> FileMapping:
    with ExitStack() as undo:
        # Without O_NONBLOCK a FIFO would wait for its other end.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        undo.callback(os.close, file)
        found = os.fstat(file)
        mount = mount_of_device(found.st_dev)
        if mount is None:
            raise MapfsError(f"{path}: not on a mapfs")
        if not stat.S_ISREG(found.st_mode):
            raise NotSupportedError(f"{path}: not a regular file")
        if not mount.source.is_absolute():
            raise NotSupportedError(f"{path}: a filesystem in memory has no store file to map")
        fd = undo.enter_context(_opened_store(mount.source, os.O_RDONLY))
        os.fsync(file)  # the kernel holds back what was written last
        layout = _leased_layout(fd, partial(layout_of, file))
        if layout.store != identity_of(fd):
            raise MapfsError(f"{mount.source}: not the store that is mounted")
        return FileMapping(fd, layout)


@contextlib.contextmanager
def _opened_store(path: Path, flags: int) -> Iterator[int]:
    """The store file of the bundle at `path`."""
    try:
        fd = os.open(Bundle(path).store, flags | os.O_CLOEXEC)
    except PermissionError as error:
        raise PermissionError(
            errno.EACCES, "only root and the user whose store it is may map its files", str(path)
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def layout_of(file: int) -> Layout:
    """Where an open file is, by the daemon. Raises `OSError`, and `MapfsError` for nonsense."""
    for _ in range(_MOST_TRIES):
        with contextlib.suppress(ValueError):
            return joined_layouts(_parts_of(file))
    raise OSError(errno.EAGAIN, _CHANGES)


def _parts_of(file: int) -> Iterator[Layout]:
    behind, attribute = 0, _ATTRIBUTE
    while True:
        part = Layout.unpack(os.getxattr(file, attribute))
        yield part
        if part.next is None:
            return
        if part.next <= behind:  # or it would never end
            raise DamagedStoreError("no layout of a file: its parts do not go on")
        behind = part.next
        attribute = f"{_ATTRIBUTE}.{behind}"


def _leased_layout(fd: int, ask: Callable[[], Layout]) -> Layout:
    """Where a file is, all of it leased by the store file `fd`."""
    layout = ask()
    for _ in range(_MOST_TRIES):
        # Neighbours together: the kernel goes through all locks of a file, one by one.
        places = joined(Extent(piece.store_offset, piece.length) for piece in layout.pieces)
        for place in places:
            lease(fd, place.start, place.count)
        seen, layout = layout, ask()
        if layout == seen:
            return layout
        end_leases(fd)
    raise OSError(errno.EAGAIN, _CHANGES)


def _inode_at(filesystem: Filesystem, path: Path) -> Inode:
    """The file at a path in a store that is not mounted; errors name it."""
    try:
        return require_file(filesystem.resolve(os.fsencode(path)))
    except MapfsError as error:
        raise type(error)(f"{path}: {error}") from error


def _open_readable(store: Path, path: Path) -> FileMapping:
    """Map a file of a store that is not mounted. The store's lock is not needed after that."""
    with contextlib.closing(Filesystem(open_store(store, read_only=True))) as filesystem:
        number = _inode_at(filesystem, path).number
        with _opened_store(store, os.O_RDONLY) as fd:
            layout = _leased_layout(fd, partial(filesystem.layout, number))
            return FileMapping(fd, layout)


def _open_writable(store: Path, path: Path) -> FileMapping:
    with ExitStack() as undo:
        filesystem = undo.enter_context(contextlib.closing(Filesystem(open_store(store))))
        inode = _inode_at(filesystem, path)
        if inode.size:
            # Pages, and blocks of the host, for all of it: a full disk is an error here, and no
            # signal when the memory is written.
            filesystem.fallocate(inode.number, FALLOC_FL_KEEP_SIZE, 0, inode.size)

        def on_flush() -> None:
            filesystem.setattr(inode.number, Changes(mtime=now()))
            filesystem.commit()

        with _opened_store(store, os.O_RDWR) as fd:
            layout = filesystem.layout(inode.number)
            mapping = FileMapping(fd, layout, on_flush=on_flush, on_close=filesystem.close)
        undo.pop_all()
        return mapping
