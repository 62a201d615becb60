"""The store bundle `NAME.mapfs/`: its files, and the lock that keeps writers apart."""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from mapfs.errors import NotAStoreError, StoreError, StoreInUseError

# Without O_NONBLOCK a FIFO would wait for its other end.
_LOCK_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Bundle:
    """The paths of a bundle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.catalog = path / "catalog"
        self.catalog_lock = path / "catalog-lock"
        self.lock = path / "lock"
        self.log = path / "log"

    @property
    def is_complete(self) -> bool:
        """Whether the files that make a bundle are there, whatever they hold.

        Raises `PermissionError`, which names the bundle, if that may not be known.
        """
        try:
            return all(file.exists() for file in (self.store, self.catalog, self.lock))
        except PermissionError as error:
            raise PermissionError(error.errno, error.strerror, str(self.path)) from None

    def require(self) -> None:
        """Raise `NotAStoreError`, saying what is missing, unless the bundle is complete."""
        if not self.path.exists():
            raise NotAStoreError(f"{self.path}: no such store (make one with: mapfs mkfs)")
        if not self.path.is_dir():
            raise NotAStoreError(f"{self.path}: not a mapfs store (it is not a directory)")
        for file in (self.store, self.catalog, self.lock):
            if not file.exists():
                raise NotAStoreError(f"{self.path}: not a mapfs store ({file.name} is missing)")
        if not is_storage(self.store):
            raise NotAStoreError(f"{self.path}: not a mapfs store (store is no file)")
        # Nothing but the store may lead elsewhere: whoever opens a bundle for somebody else must
        # not be led to write to a file of his own.
        for file in (self.catalog, self.catalog_lock, self.lock, self.log):
            if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
                raise NotAStoreError(f"{self.path}: not a mapfs store ({file.name} is no file)")

    def take_lock(self, *, exclusive: bool) -> int:
        """Lock the bundle for a writer, or for readers that keep writers out.

        Returns the descriptor that holds the flock(2); closing it, or dying, lets go. Raises
        `StoreInUseError` naming the process that is in the way. Never writes a byte.
        """
        try:
            fd = os.open(self.lock, _LOCK_FLAGS)
        except OSError as error:
            raise StoreError(f"{self.lock}: {error.strerror}") from error
        try:
            _require_file(fd, self.lock)
            lock_file(fd, self.path, exclusive=exclusive)
        except StoreError:
            os.close(fd)
            raise
        return fd

    @property
    def holder(self) -> int | None:
        """The process that has the store locked, if it can be known."""
        fd = os.open(self.lock, _LOCK_FLAGS)
        try:
            return _holder_of(fd)
        finally:
            os.close(fd)

    def wait_for_lock(self) -> None:
        """Return when no writer holds the store."""
        fd = os.open(self.lock, _LOCK_FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)


def is_storage(path: Path) -> bool:
    """Whether `path` is, or leads to, what can hold a store: a regular file or a block device."""
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _require_file(fd: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise StoreError(f"{path}: no regular file")


def lock_file(fd: int, name: Path, *, exclusive: bool) -> None:
    """Take the flock(2) on `fd` or raise `StoreInUseError` naming who holds it.

    The store file is locked as well as the bundle: two bundles may lead to one device.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise StoreError(f"{name}: {error.strerror}") from error
        raise StoreInUseError(f"{name} is in use by {_name_of(_holder_of(fd))}") from error


def _holder_of(fd: int) -> int | None:
    """Who holds an flock on the file (proc_locks(5))."""
    inode = os.fstat(fd).st_ino
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if "FLOCK" in fields and fields[-3].rsplit(":", 1)[-1] == str(inode):
                return int(fields[-4])
    return None


def _name_of(pid: int | None) -> str:
    """A process as a message names it: `process 12 (mapfs)`."""
    with suppress(OSError):
        if pid is not None:
            return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    return "another process"
