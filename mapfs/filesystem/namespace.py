"""Names: creating, linking, removing and renaming, with the rules of rename(2) and unlink(2).

Names and inodes outlive each other: a file without names stays, as an orphan, until its last
user is gone and `forget` is called for it, or until the store is opened again.
"""

import stat
from typing import Final

from mapfs.errors import (
    ExistsError,
    InvalidArgumentError,
    IsADirectoryFileError,
    NameTooLongError,
    NotADirectoryFileError,
    NotEmptyError,
    NotFoundError,
    NotPermittedError,
    TooManyLinksError,
)
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.clock import now
from mapfs.filesystem.content import Content
from mapfs.filesystem.directory import DirectoryTable, Place
from mapfs.filesystem.inode import InodeTable
from mapfs.filesystem.xattr import XattrTable
from mapfs.format.records import MAX_TARGET_BYTES, ROOT_INODE, Inode, Table, id_key
from mapfs.format.totals import Totals
from mapfs.store.store import Store

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
MAX_LINKS: Final = 65_000


class Namespace:
    """The tree of names over the inode table."""

    def __init__(
        self,
        store: Store,
        inodes: InodeTable,
        directories: DirectoryTable,
        xattrs: XattrTable,
        content: Content,
    ) -> None:
        self._store = store
        self._inodes = inodes
        self._directories = directories
        self._xattrs = xattrs
        self._content = content

    def lookup(self, directory: Inode, name: bytes) -> Inode:
        """The inode that `name` stands for, `.` and `..` included. Raises `NotFoundError`."""
        if name in (b".", b".."):
            return directory if name == b"." else self._inodes.get(directory.parent)
        return self._inodes.get(self._directories.require(directory, name).inode)

    def path(self, inode: Inode) -> bytes | None:
        """The path of an inode from the root, by home entries; None if it has no name.

        Raises `DamagedStoreError` if it does not hang on the root.
        """
        names: list[bytes] = []
        for each in self._inodes.lineage(inode):
            name = b"" if each.number == ROOT_INODE else self._directories.home_name(each)
            if name is None:
                return None
            names.append(name)
        return b"/".join(reversed(names[:-1]))

    def create(
        self, place: Place, mode: int, caller: Caller, *, rdev: int = 0, target: bytes = b""
    ) -> Inode:
        """A new file, directory, link or node of the type in `mode`, named `place`."""
        if len(target) > MAX_TARGET_BYTES:
            raise NameTooLongError("the link's target is too long")
        self._directories.require_free(place.directory, place.name)
        inode = self._new_inode(place.directory, mode, caller)
        inode.rdev, inode.target = rdev, target
        inode.size = len(target)
        inode.nlink = 1
        self._directories.add(place.directory, place.name, inode)
        inode.atime = inode.mtime = inode.btime = inode.ctime
        if inode.is_directory:
            inode.nlink = 2
            place.directory.nlink += 1
        return inode

    def create_unnamed(self, directory: Inode, mode: int, caller: Caller) -> Inode:
        """O_TMPFILE: a regular file without a name, which `link` may give it."""
        inode = self._new_inode(directory, stat.S_IFREG | stat.S_IMODE(mode), caller)
        inode.nlink = 0
        inode.atime = inode.mtime = inode.ctime = inode.btime = now()
        self._store.transaction.put(Table.ORPHANS, id_key(inode.number), b"")
        return inode

    def _new_inode(self, directory: Inode, mode: int, caller: Caller) -> Inode:
        inode = Inode(self._store.next_id(), mode, caller.uid, caller.gid, nlink=0)
        if directory.mode & stat.S_ISGID:  # a setgid directory hands down its group
            inode.gid = directory.gid
            inode.mode |= stat.S_ISGID if inode.is_directory else 0
        if inode.is_file or inode.is_directory:
            inode.advice = directory.advice
        self._inodes.add(inode)
        self._xattrs.inherit(directory, inode, caller.umask)
        return inode

    def link(self, inode: Inode, place: Place) -> None:
        """link(2): another name for anything but a directory."""
        if inode.is_directory:
            raise NotPermittedError("a directory cannot have a second name")
        if inode.nlink >= MAX_LINKS:
            raise TooManyLinksError(f"a file may have {MAX_LINKS} names")
        self._directories.require_free(place.directory, place.name)
        self._directories.add(place.directory, place.name, inode)
        if inode.nlink == 0:
            self._store.transaction.delete(Table.ORPHANS, id_key(inode.number))
        inode.nlink += 1

    def unlink(self, place: Place) -> None:
        """unlink(2)."""
        entry = self._directories.require(place.directory, place.name)
        inode = self._inodes.get(entry.inode)
        if inode.is_directory:
            raise IsADirectoryFileError("use rmdir for a directory")
        self._directories.remove(place.directory, place.name, entry, inode)
        self._drop_link(inode)

    def rmdir(self, place: Place) -> None:
        """rmdir(2)."""
        if place.name in (b".", b".."):
            raise InvalidArgumentError("`.` and `..` cannot be removed")
        entry = self._directories.require(place.directory, place.name)
        inode = self._inodes.get(entry.inode)
        if not inode.is_directory:
            raise NotADirectoryFileError("not a directory")
        if inode.size:
            raise NotEmptyError("the directory has entries")
        # What was deleted in it must be off its totals before it drops out of the tree.
        self._inodes.fold()
        self._directories.remove(place.directory, place.name, entry, inode)
        place.directory.nlink -= 1
        self._drop_link(inode)

    def _drop_link(self, inode: Inode) -> None:
        inode.nlink = 0 if inode.is_directory else inode.nlink - 1
        if inode.nlink == 0:
            self._store.transaction.put(Table.ORPHANS, id_key(inode.number), b"")

    def forget(self, number: int) -> None:
        """Free an orphan whose last user is gone; anything else is left alone."""
        try:
            inode = self._inodes.get(number)
        except NotFoundError:
            return
        if inode.nlink == 0 and not self._store.read_only:
            if inode.is_file:
                self._content.release(inode)
            self._xattrs.remove_all(inode)
            self._inodes.remove(inode)
            self._store.transaction.delete(Table.ORPHANS, id_key(number))

    def rename(self, source: Place, target: Place, flags: int = 0) -> None:
        """renameat2(2) with no flag, RENAME_NOREPLACE or RENAME_EXCHANGE; others are EINVAL."""
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise InvalidArgumentError("unknown rename flags")
        inode = self._inodes.get(self._directories.require(source.directory, source.name).inode)
        entry = self._directories.find(target.directory, target.name)
        if flags == RENAME_EXCHANGE:
            if entry is None:
                raise NotFoundError("nothing to exchange with")
            self._exchange(source, inode, target, self._inodes.get(entry.inode))
        elif entry is None:
            self._directories.require_free(target.directory, target.name)
            self._move(source, target, inode, None)
        elif flags == RENAME_NOREPLACE:
            raise ExistsError("the name exists")
        elif entry.inode != inode.number:  # rename(2): two names of one file are left alone
            self._replace(source, target, inode, self._inodes.get(entry.inode))

    def _replace(self, source: Place, target: Place, inode: Inode, victim: Inode) -> None:
        self._refuse_loop(inode, target.directory)
        if inode.is_directory and not victim.is_directory:
            raise NotADirectoryFileError("a directory cannot replace a file")
        if victim.is_directory and not inode.is_directory:
            raise IsADirectoryFileError("a file cannot replace a directory")
        cookie = self._directories.require(target.directory, target.name).cookie
        if victim.is_directory:
            self.rmdir(target)
        else:
            self.unlink(target)
        self._move(source, target, inode, cookie)

    def _move(self, source: Place, target: Place, inode: Inode, cookie: int | None) -> None:
        self._refuse_loop(inode, target.directory)
        if inode.is_directory:
            self._move_tree(inode, source.directory, target.directory)
        self._directories.move(source, target, inode, cookie)

    def _exchange(self, source: Place, inode: Inode, target: Place, other: Inode) -> None:
        if inode is other:
            return
        self._refuse_loop(inode, target.directory)
        self._refuse_loop(other, source.directory)
        if inode.is_directory:
            self._move_tree(inode, source.directory, target.directory)
        if other.is_directory:
            self._move_tree(other, target.directory, source.directory)
        self._directories.exchange(source, inode, target, other)

    def _move_tree(self, inode: Inode, source: Inode, target: Inode) -> None:
        """Before a directory changes parents: take its totals and its `..` along."""
        if source is target:
            return
        self._inodes.fold()
        self._inodes.edit(source)
        self._inodes.edit(target)
        self._inodes.add_to_trees(source, Totals().minus(inode.tree))
        self._inodes.add_to_trees(target, inode.tree)
        source.nlink -= 1
        target.nlink += 1

    def _refuse_loop(self, inode: Inode, directory: Inode) -> None:
        """Raise `InvalidArgumentError` if `directory` is `inode` or lies below it."""
        if inode.is_directory and inode in self._inodes.lineage(directory):
            raise InvalidArgumentError("a directory cannot be moved into itself")
