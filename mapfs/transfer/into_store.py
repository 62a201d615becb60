"""Copying into the filesystem of a store that is not mounted."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from mapfs.errors import FULL, MapfsError, NotFoundError
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.format.records import ROOT_INODE, Inode
from mapfs.transfer.entry import Content, Entry
from mapfs.transfer.outcome import Outcome
from mapfs.transfer.tree import Found, Tree

_Answer = TypeVar("_Answer")

# Members that are logged as one operation, and bytes after which there is a commit.
_LOGGED_TOGETHER: Final = 64
_COMMIT_BYTES: Final = 256 << 20


class StoreTree(Tree[int]):
    """A tree in a `Filesystem`; directories go by inode number.

    A file is written without a name, as with O_TMPFILE, and linked when it is complete: a crash
    leaves an orphan, which the next opening of the store frees. Commits come in between.

    What replaces something has a temporary name until it is complete: whatever fails before that,
    the old one is still there. Making it and giving it its name are logged together.
    """

    def __init__(self, filesystem: Filesystem, top: bytes = b"") -> None:
        """Copy below the directory `top`, which is made if it is missing.

        The filesystem stays the caller's to close. Raises `NotADirectoryFileError`.
        """
        self._filesystem = filesystem
        self._caller = Caller(os.geteuid(), os.getegid())
        self._unlogged = self._uncommitted = 0
        self._temporary = b".mapfs-partial-%d" % os.getpid()
        filesystem.logs_calls = False
        super().__init__(ROOT_INODE)
        self._top = self._directory(top)
        self._open.clear()

    def put(self, entry: Entry) -> bool:
        """See `Target.put`."""
        try:
            return super().put(entry)
        finally:
            self._keep_up(0)

    def finish(self, outcome: Outcome) -> None:
        """See `Target.finish`."""
        super().finish(outcome)
        self._filesystem.log_operation()

    def _keep_up(self, written: int) -> None:
        """After each step: log and commit, so that neither memory nor the log runs over."""
        filesystem = self._filesystem
        self._unlogged += 1
        self._uncommitted += written
        if self._unlogged >= _LOGGED_TOGETHER:
            self._unlogged = 0
            filesystem.log_operation()
        if self._uncommitted >= _COMMIT_BYTES or filesystem.wants_commit or filesystem.must_commit:
            self._uncommitted = 0
            filesystem.commit()

    def _with_room(self, call: Callable[..., _Answer], *arguments: Any, **options: Any) -> _Answer:  # noqa: ANN401 (any method)
        """Call a method; if there is no space, once more after a commit that makes some."""
        try:
            return call(*arguments, **options)
        except (MapfsError, OSError) as error:
            if error.errno not in FULL or not self._filesystem.reclaimable:
                raise
        self._filesystem.commit()
        return call(*arguments, **options)

    def look(self, directory: int, name: bytes) -> Found | None:
        """See `Tree.look`."""
        try:
            return _found(self._filesystem.lookup(directory, name))
        except NotFoundError:
            return None

    def look_at(self, directory: int) -> Found:
        """See `Tree.look_at`."""
        return _found(self._filesystem.inode(directory))

    def mkdir(self, directory: int, name: bytes, mode: int) -> int:
        """See `Tree.mkdir`."""
        return self._with_room(self._filesystem.mkdir, directory, name, mode, self._caller).number

    def enter(self, directory: int, name: bytes) -> int:
        """See `Tree.enter`."""
        return self._filesystem.lookup(directory, name).number

    def release(self, directory: int) -> None:
        """See `Tree.release`: nothing is open."""

    def open_up(self, directory: int) -> None:
        """See `Tree.open_up`: nobody checks permissions here."""

    def write(self, directory: int, name: bytes, entry: Entry, *, is_there: bool) -> None:
        """See `Tree.write`."""
        assert entry.open is not None
        filesystem = self._filesystem
        number = self._with_room(filesystem.create_unnamed, directory, 0o600, self._caller).number
        try:
            with entry.open() as content:
                self._fill(number, content)
            if filesystem.inode(number).size != entry.size:
                filesystem.setattr(number, Changes(size=entry.size))
            self._complete(number, entry, entry.attributes())
            with self._place_of(directory, name, is_there=is_there) as made:
                self._with_room(filesystem.link, number, directory, made)
        except BaseException:
            filesystem.forget(number)
            raise

    def _fill(self, number: int, content: Content) -> None:
        for offset, data in content.pieces():
            self._with_room(self._filesystem.write, number, offset, data, stamp=False)
            if len(data) >= 1 << 20:
                self._keep_up(len(data))
            else:
                self._uncommitted += len(data)

    def make(self, directory: int, name: bytes, entry: Entry, *, is_there: bool) -> None:
        """See `Tree.make`."""
        filesystem, caller = self._filesystem, self._caller
        with self._place_of(directory, name, is_there=is_there) as made:
            if stat.S_ISLNK(entry.mode):
                inode = self._with_room(filesystem.symlink, directory, made, entry.target, caller)
            else:
                inode = self._with_room(
                    filesystem.create, directory, made, entry.mode, caller, rdev=entry.rdev
                )
            self._complete(inode.number, entry, entry.attributes())

    def link(
        self, first: int, first_name: bytes, directory: int, name: bytes, *, is_there: bool
    ) -> None:
        """See `Tree.link`."""
        number = self._filesystem.lookup(first, first_name).number
        with self._place_of(directory, name, is_there=is_there) as made:
            self._with_room(self._filesystem.link, number, directory, made)

    @contextlib.contextmanager
    def _place_of(self, directory: int, name: bytes, *, is_there: bool) -> Iterator[bytes]:
        """The name to make something under that `name` is for, which it gets when it is complete.

        If it cannot be made, what has `name` keeps it, and nothing else is left.
        """
        made = self._free_temporary(directory) if is_there else name
        try:
            yield made
            if is_there:
                self._replace(directory, made, name)
        except BaseException:
            with contextlib.suppress(MapfsError, OSError):  # it may never have been made
                self._remove(directory, made)
            raise

    def _free_temporary(self, directory: int) -> bytes:
        """A temporary name that is free: a crash, or the copy itself, may have brought one."""
        name = self._temporary
        while self.look(directory, name) is not None:
            name += b"_"
        return name

    def _replace(self, directory: int, made: bytes, name: bytes) -> None:
        replaced = self._filesystem.lookup(directory, name).number
        self._filesystem.rename(directory, made, directory, name)
        self._filesystem.forget(replaced)

    def _remove(self, directory: int, name: bytes) -> None:
        number = self._filesystem.lookup(directory, name).number
        self._filesystem.unlink(directory, name)
        self._filesystem.forget(number)

    def complete(self, directory: int, entry: Entry, attributes: Mapping[bytes, bytes]) -> None:
        """See `Tree.complete`."""
        self._complete(directory, entry, attributes)

    def _complete(self, number: int, entry: Entry, attributes: Mapping[bytes, bytes]) -> None:
        filesystem = self._filesystem
        mode = None if stat.S_ISLNK(entry.mode) else self.mode_of(entry)
        uid, gid = self.owner_of(entry) or (None, None)
        for name in filesystem.listxattr(number):
            if name not in attributes:  # inherited from a directory's default ACL
                filesystem.removexattr(number, name)
        filesystem.setattr(
            number, Changes(mode=mode, uid=uid, gid=gid, atime=entry.atime, mtime=entry.mtime)
        )
        self.set_attributes(
            attributes,
            lambda name, value: self._with_room(filesystem.setxattr, number, name, value),
        )


def _found(inode: Inode) -> Found:
    return Found(
        inode.mode, inode.uid, inode.gid, inode.size, inode.mtime, inode.rdev, inode.number
    )
