"""Reading a tree out of the filesystem of a store that is not mounted.

The store may be damaged: whatever does not make sense is a failure of one member, and nothing that
a record says leads out of the target, or round in a circle.
"""

import contextlib
import os
import stat
from collections.abc import Generator, Iterator, Sequence

from mapfs.errors import DamagedStoreError, MapfsError, NoSuchOffsetError
from mapfs.filesystem.content import MAX_FILE_BYTES
from mapfs.filesystem.directory import MAX_NAME_BYTES, is_file_name
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import MAX_U64, Inode, Listed, Table, pair_key
from mapfs.transfer.entry import Entry, Piece, Segment, is_carried, split
from mapfs.transfer.outcome import Outcome, raise_unreadable


class StoreSource:
    """The file or directory `top` of a filesystem.

    It goes by the name `name` in the copy; `b""` if what is in it goes directly under the target.
    """

    def __init__(self, filesystem: Filesystem, top: Inode, name: bytes, outcome: Outcome) -> None:
        self._filesystem = filesystem
        self._top = top
        self._name = name
        self._outcome = outcome
        self._seen: dict[int, bytes] = {}

    def total(self) -> int:
        """Bytes of all files. Those of a file with several names count once."""
        return self._top.tree.bytes if self._top.is_directory else self._top.size

    def entries(self) -> Generator[Entry, None, None]:
        """See `Source.entries`."""
        yield from self._stepping(self._entry(self._top, self._name))
        # Depth first: tar(1) sets a directory's time when what follows is outside of it.
        listings = [self._listing(self._top, self._name)] if self._top.is_directory else []
        while listings:
            inode, path = next(listings[-1], (None, b""))
            if inode is None:
                listings.pop()
                continue
            yield from self._stepping(self._entry(inode, path))
            if inode.is_directory:
                listings.append(self._listing(inode, path))

    def _stepping(self, entry: Entry) -> Iterator[Entry]:
        before = self._outcome.done
        yield entry
        self._outcome.step(before + (entry.size if entry.is_file and entry.link is None else 0))

    def _listing(self, directory: Inode, path: bytes) -> Iterator[tuple[Inode, bytes]]:
        """What is in a directory, each with its path in the copy."""
        number = directory.number
        records = self._filesystem.store.transaction.scan(
            Table.COOKIES, pair_key(number, 0), pair_key(number, MAX_U64)
        )
        for key, value in records:
            below = path
            try:
                listed = Listed.unpack(key, value)
                below = path + b"/" + listed.name if path else listed.name
                inode = self._look(directory, listed)
            except (MapfsError, OSError) as error:
                self._outcome.failed(below, error)
                continue
            yield inode, below

    def _look(self, directory: Inode, listed: Listed) -> Inode:
        """The inode that a listing names. Raises `MapfsError` if the two cannot be right."""
        if not is_file_name(listed.name) or len(listed.name) > MAX_NAME_BYTES:
            raise DamagedStoreError("damaged: not a file name")
        inode = self._filesystem.inode(listed.inode)
        if inode.type != listed.type:
            raise DamagedStoreError(f"damaged: inode {inode.number} is not of the type listed")
        if inode.is_directory and (
            inode.parent != directory.number or inode.number == self._top.number
        ):
            raise DamagedStoreError(f"damaged: directory {inode.number} belongs elsewhere")
        return inode

    def _entry(self, inode: Inode, path: bytes) -> Entry:
        number = inode.number
        link = self._first_name(inode, path)
        return Entry(
            path,
            inode.mode,
            inode.uid,
            inode.gid,
            inode.atime,
            inode.mtime,
            0 if inode.is_directory else inode.size,
            inode.rdev,
            inode.target,
            link,
            lambda: self._attributes(number),
            lambda: contextlib.nullcontext(_Content(self._filesystem, inode, self._outcome)),
        )

    def _first_name(self, inode: Inode, path: bytes) -> bytes | None:
        """The path of a file that was met before under another name; None the first time."""
        if inode.nlink < 2 or inode.is_directory:
            return None
        first = self._seen.setdefault(inode.number, path)
        return None if first is path else first

    def _attributes(self, number: int) -> dict[bytes, bytes]:
        get = self._filesystem.getxattr
        try:
            names = self._filesystem.listxattr(number, privileged=os.geteuid() == 0)
            return {name: get(number, name) for name in names if is_carried(name)}
        except DamagedStoreError as error:
            raise_unreadable(error)
            raise


class _Content:
    """The content of a file in the store."""

    def __init__(self, filesystem: Filesystem, inode: Inode, outcome: Outcome) -> None:
        assert stat.S_ISREG(inode.mode)
        self._filesystem = filesystem
        self._number = inode.number
        self._outcome = outcome
        try:
            self.segments: Sequence[Segment] = list(_segments(filesystem, inode))
        except DamagedStoreError as error:
            raise_unreadable(error)
            raise

    def pieces(self) -> Iterator[Piece]:
        """See `Content.pieces`."""
        before = self._outcome.done
        for offset, length in split(self.segments):
            self._outcome.step(before + offset)
            at = offset
            for view in self._views(offset, length):
                yield at, view
                at += view.nbytes

    def _views(self, offset: int, length: int) -> list[memoryview]:
        try:
            load = self._filesystem.cold_loader(self._number, offset, length)
            if load is not None:
                load()  # an I/O error under the mapping would be a signal
            return self._filesystem.read(self._number, offset, length)
        except DamagedStoreError as error:
            raise_unreadable(error)
            raise


def _segments(filesystem: Filesystem, inode: Inode) -> Iterator[Segment]:
    size, offset = inode.size, 0
    if size > MAX_FILE_BYTES:
        raise DamagedStoreError(f"damaged: inode {inode.number} has an impossible size")
    if inode.pages * filesystem.store.page_size >= size and not inode.prealloc:
        if size:
            yield 0, size
        return
    while offset < size:
        try:
            start = filesystem.seek(inode.number, offset, os.SEEK_DATA)
        except NoSuchOffsetError:
            return
        offset = filesystem.seek(inode.number, start, os.SEEK_HOLE)
        yield start, offset - start
