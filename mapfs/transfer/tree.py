"""Copying into a tree of files: what is there and equal is skipped, the rest is replaced.

Nothing that is half written looks finished: a regular file gets its name, or its time, when all of
it is there, and a directory its time when everything in it is. Symbolic links are never followed.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from mapfs.errors import (
    FULL,
    InvalidArgumentError,
    IsADirectoryFileError,
    MapfsError,
    NotADirectoryFileError,
    NotFoundError,
    NotSupportedError,
)
from mapfs.filesystem.clock import clamped
from mapfs.transfer.entry import Entry
from mapfs.transfer.outcome import ENDS, Outcome, reason_of

Directory = TypeVar("Directory")

_MOST_OPEN: Final = 64
_SET_IDS: Final = stat.S_ISUID | stat.S_ISGID


class Found(NamedTuple):
    """What is in the target; `file` is the same for two names of one file."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    rdev: int
    file: int


class _Pending(NamedTuple):
    """A directory that gets its metadata when it is full."""

    entry: Entry
    attributes: Mapping[bytes, bytes]


class Tree(ABC, Generic[Directory]):
    """A target that is a tree of files. `Directory` is how it names a directory that is open."""

    def __init__(self, top: Directory) -> None:
        self._top = top
        self._open: OrderedDict[bytes, Directory] = OrderedDict()
        self._pending: dict[bytes, _Pending] = {}
        self._is_root = os.geteuid() == 0
        self._refused = ""

    def put(self, entry: Entry) -> bool:
        """See `Target.put`. Raises `NotSupportedError` for a copy that lacks an attribute."""
        is_copied = self._put(entry)
        self._raise_refused()
        return is_copied

    def _put(self, entry: Entry) -> bool:
        if entry.is_directory:
            return self._put_directory(entry)
        directory, name = self._place(entry.path)
        found = self.find(directory, name)
        if found is not None and stat.S_ISDIR(found.mode):
            raise IsADirectoryFileError("not copied: there is a directory of that name")
        if entry.link is not None:
            linked = self._put_link(entry, directory, name, found)
            if linked is not None:
                return linked
        if found is not None and self._is_equal(entry, found):
            return False
        if entry.is_file:
            self.write(directory, name, entry, is_there=found is not None)
        else:
            self.make(directory, name, entry, is_there=found is not None)
        return True

    def _put_directory(self, entry: Entry) -> bool:
        if not entry.path:
            directory, is_new = self._top, False
        else:
            parent, name = self._place(entry.path)
            found = self.find(parent, name)
            if found is not None and not stat.S_ISDIR(found.mode):
                raise NotADirectoryFileError("not copied: there is a file of that name")
            is_new = found is None
            if is_new:
                directory = self._keep(entry.path, self.mkdir(parent, name, 0o700))
            else:
                directory = self._directory(entry.path)
        self.open_up(directory)
        self._pending[entry.path] = _Pending(entry, entry.attributes())
        return is_new

    def _put_link(
        self, entry: Entry, directory: Directory, name: bytes, found: Found | None
    ) -> bool | None:
        """Make another name of a file that was copied; None if it was not, but can be."""
        assert entry.link is not None
        try:
            first_directory, first_name = self._place(entry.link, make=False)
            first = self.look(first_directory, first_name)
        except NotFoundError:
            first = None
        if first is None or stat.S_ISDIR(first.mode):
            if entry.open is None:
                raise NotFoundError(f"its other name was not copied: {os.fsdecode(entry.link)}")
            return None
        if found is not None and found.file == first.file:
            return False
        self.link(first_directory, first_name, directory, name, is_there=found is not None)
        return True

    def finish(self, outcome: Outcome) -> None:
        """See `Target.finish`: directories get their metadata, the innermost first."""
        for path, (entry, attributes) in reversed(self._pending.items()):
            try:
                directory = self._directory(path)
                if not self._is_equal(entry, self.look_at(directory)):
                    self.complete(directory, entry, attributes)
                    self._raise_refused()
            except (MapfsError, OSError) as error:
                if error.errno in ENDS:
                    raise
                outcome.failed(path, error)
        self._pending.clear()

    def close(self) -> None:
        """Let go of every open directory."""
        for directory in self._open.values():
            self.release(directory)
        self._open.clear()
        self.release(self._top)

    def set_attributes(
        self, attributes: Mapping[bytes, bytes], setxattr: Callable[[bytes, bytes], object]
    ) -> None:
        """Set what the target takes; what it does not take is reported when the copy is there."""
        for name, value in attributes.items():
            try:
                setxattr(name, value)
            except (MapfsError, OSError) as error:
                if error.errno in FULL:
                    raise
                reason = reason_of(error)
                self._refused = f"copied without attribute {os.fsdecode(name)}: {reason}"

    def _raise_refused(self) -> None:
        refused, self._refused = self._refused, ""
        if refused:
            raise NotSupportedError(refused)

    def owner_of(self, entry: Entry) -> tuple[int, int] | None:
        """Whom the copy shall belong to; None for whoever runs this: only root gives files away."""
        return (entry.uid, entry.gid) if self._is_root else None

    def mode_of(self, entry: Entry) -> int:
        """The permissions of the copy: without set-id bits for another owner than they meant."""
        mode = stat.S_IMODE(entry.mode)
        is_mine = self._is_root or (entry.uid, entry.gid) == (os.geteuid(), os.getegid())
        return mode if is_mine or not entry.is_file else mode & ~_SET_IDS

    def _is_equal(self, entry: Entry, found: Found) -> bool:
        """Whether the copy is there: same type, mode, owner, time, and what else stat shows."""
        owner = self.owner_of(entry)
        if entry.type != stat.S_IFMT(found.mode) or clamped(entry.mtime) != found.mtime:
            return False
        if owner is not None and owner != (found.uid, found.gid):
            return False
        if not stat.S_ISLNK(entry.mode) and stat.S_IMODE(found.mode) != self.mode_of(entry):
            return False
        if entry.is_file or stat.S_ISLNK(entry.mode):
            return entry.size == found.size
        return entry.rdev == found.rdev

    # Directories by path

    def _place(self, path: bytes, *, make: bool = True) -> tuple[Directory, bytes]:
        parent, _, name = path.rpartition(b"/")
        if not name:
            raise InvalidArgumentError("not copied: it has no name")
        return self._directory(parent, make=make), name

    def _directory(self, path: bytes, *, make: bool = True) -> Directory:
        """The directory at a path; what is missing is made. Raises `NotADirectoryFileError`."""
        directory = self._open.get(path)
        if directory is not None:
            self._open.move_to_end(path)
            return directory
        directory = self._top
        parts = path.split(b"/") if path else []
        for depth, name in enumerate(parts, 1):
            above = b"/".join(parts[:depth])
            below = self._open.get(above)
            directory = self._enter(directory, name, above, make=make) if below is None else below
        return directory

    def _enter(self, parent: Directory, name: bytes, path: bytes, *, make: bool) -> Directory:
        found = self.look(parent, name)
        if found is None and not make:
            raise NotFoundError("no such directory")
        if found is None:
            return self._keep(path, self.mkdir(parent, name, 0o755))
        if not stat.S_ISDIR(found.mode):
            raise NotADirectoryFileError(f"refused: {os.fsdecode(path)} is not a directory")
        return self._keep(path, self.enter(parent, name))

    def _keep(self, path: bytes, directory: Directory) -> Directory:
        self._open[path] = directory
        if len(self._open) > _MOST_OPEN:
            self.release(self._open.popitem(last=False)[1])
        return directory

    # What the kind of target does

    def find(self, directory: Directory, name: bytes) -> Found | None:
        """What is in the way of a new entry. A kind of target may guess that nothing is.

        If it is wrong, making the entry raises `FileExistsError`, and has changed nothing.
        """
        return self.look(directory, name)

    @abstractmethod
    def look(self, directory: Directory, name: bytes) -> Found | None:
        """lstat(2) of a name, or None if it is free."""

    @abstractmethod
    def look_at(self, directory: Directory) -> Found:
        """fstat(2) of an open directory."""

    @abstractmethod
    def mkdir(self, directory: Directory, name: bytes, mode: int) -> Directory:
        """Make a directory and open it."""

    @abstractmethod
    def enter(self, directory: Directory, name: bytes) -> Directory:
        """Open a directory; nothing else, and no link to one."""

    @abstractmethod
    def release(self, directory: Directory) -> None:
        """Close a directory."""

    @abstractmethod
    def open_up(self, directory: Directory) -> None:
        """Let a directory be filled that its final mode may forbid to be."""

    @abstractmethod
    def write(self, directory: Directory, name: bytes, entry: Entry, *, is_there: bool) -> None:
        """Copy a regular file; replace what is there when it is complete."""

    @abstractmethod
    def make(self, directory: Directory, name: bytes, entry: Entry, *, is_there: bool) -> None:
        """Make a symbolic link, FIFO, socket or device node; replace what is there."""

    @abstractmethod
    def link(
        self,
        first: Directory,
        first_name: bytes,
        directory: Directory,
        name: bytes,
        *,
        is_there: bool,
    ) -> None:
        """Give a file another name; replace what is there."""

    @abstractmethod
    def complete(
        self, directory: Directory, entry: Entry, attributes: Mapping[bytes, bytes]
    ) -> None:
        """Give a directory its owner, mode, attributes and times."""
