"""Directory entries: names, their inodes, and their order in a listing.

Every entry has a cookie, a number from the filesystem's counter that it keeps as long as it
exists. Listings go in the order of cookies, so a cursor stays good while entries come and go.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from mapfs.errors import (
    ExistsError,
    InvalidArgumentError,
    NameTooLongError,
    NotADirectoryFileError,
    NotFoundError,
)
from mapfs.filesystem.clock import now
from mapfs.filesystem.inode import InodeTable
from mapfs.format.records import (
    MAX_U64,
    Entry,
    Inode,
    Listed,
    Table,
    name_key,
    pack_count,
    pair_key,
    pair_of,
    unpack_count,
)
from mapfs.store.store import Store

MAX_NAME_BYTES: Final = 255


class Place(NamedTuple):
    """Where an entry is, or will be: a name in a directory."""

    directory: Inode
    name: bytes


class DirectoryTable:
    """The tables ENTRIES (by name), COOKIES (in listing order) and LINKS (further names).

    A change sets mtime and ctime of the directory, and the ctime of the inode to the same.
    """

    def __init__(self, store: Store, inodes: InodeTable) -> None:
        self._store = store
        self._transaction = store.transaction
        self._inodes = inodes

    def home_name(self, inode: Inode) -> bytes | None:
        """The name of an inode's home entry; None if it has none."""
        key = pair_key(inode.parent, inode.cookie)
        value = self._transaction.get(Table.COOKIES, key)
        return None if value is None else Listed.unpack(key, value).name

    def find(self, directory: Inode, name: bytes) -> Entry | None:
        """The entry `name`, or None. Raises `NotADirectoryFileError` or `NameTooLongError`."""
        if not directory.is_directory:
            raise NotADirectoryFileError(f"inode {directory.number} is not a directory")
        if len(name) > MAX_NAME_BYTES:
            raise NameTooLongError(f"a name of {len(name)} bytes")
        value = self._transaction.get(Table.ENTRIES, name_key(directory.number, name))
        return None if value is None else Entry.unpack(value)

    def require(self, directory: Inode, name: bytes) -> Entry:
        """The entry `name`. Raises `NotFoundError` if there is none."""
        entry = self.find(directory, name)
        if entry is None:
            raise NotFoundError("no such entry")
        return entry

    def require_free(self, directory: Inode, name: bytes) -> None:
        """Raise `ExistsError` if `name` is taken, or what is wrong with it as a new name."""
        if not is_file_name(name):
            raise InvalidArgumentError("not a file name")
        if self.find(directory, name) is not None:
            raise ExistsError("the name exists")
        if directory.nlink == 0:
            raise NotFoundError("the directory is deleted")

    def add(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Give `inode` the name `name`, which must be free. Link counts are the caller's.

        The first name of an inode becomes its home entry.
        """
        self._inodes.edit(inode)
        cookie = self._store.next_id()
        self._put(directory, name, inode, cookie)
        if inode.cookie == 0:
            inode.parent, inode.cookie = directory.number, cookie
        else:
            self._transaction.put(
                Table.LINKS, pair_key(inode.number, cookie), pack_count(directory.number)
            )
        self._changed(directory, 1)
        inode.ctime = directory.ctime

    def _put(self, directory: Inode, name: bytes, inode: Inode, cookie: int) -> None:
        entry = Entry(inode.number, cookie, inode.type)
        listed = Listed(cookie, inode.number, inode.type, name)
        self._transaction.put(Table.ENTRIES, name_key(directory.number, name), entry.pack())
        self._transaction.put(Table.COOKIES, pair_key(directory.number, cookie), listed.pack())

    def remove(self, directory: Inode, name: bytes, entry: Entry, inode: Inode) -> None:
        """Take a name away; the oldest name left becomes the home entry if it was that."""
        self._inodes.edit(inode)
        self._transaction.delete(Table.ENTRIES, name_key(directory.number, name))
        self._transaction.delete(Table.COOKIES, pair_key(directory.number, entry.cookie))
        if inode.cookie == entry.cookie:
            self._find_new_home(inode)
        else:
            self._transaction.delete(Table.LINKS, pair_key(inode.number, entry.cookie))
        self._changed(directory, -1)
        inode.ctime = directory.ctime

    def _find_new_home(self, inode: Inode) -> None:
        inode.cookie = 0
        if inode.nlink == 1 or inode.is_directory:
            return
        for cookie, directory in self.further_names(inode.number):
            inode.parent, inode.cookie = directory, cookie
            self._transaction.delete(Table.LINKS, pair_key(inode.number, cookie))
            return

    def further_names(self, inode: int) -> Iterator[tuple[int, int]]:
        """The names of an inode besides its home entry as (cookie, directory), oldest first."""
        records = self._transaction.scan(Table.LINKS, pair_key(inode, 0), pair_key(inode, MAX_U64))
        return ((pair_of(key)[1], unpack_count(value)) for key, value in records)

    def move(self, source: "Place", target: "Place", inode: Inode, cookie: int | None) -> None:
        """Rename an entry to a free name, anywhere; a home entry stays the home entry.

        `cookie` is the place in the listing of an entry that this one replaces.
        """
        self._inodes.edit(inode)
        cookie = self._store.next_id() if cookie is None else cookie
        old_cookie = self.require(source.directory, source.name).cookie
        self._transaction.delete(Table.ENTRIES, name_key(source.directory.number, source.name))
        self._transaction.delete(Table.COOKIES, pair_key(source.directory.number, old_cookie))
        self._put(target.directory, target.name, inode, cookie)
        self._rehome(inode, old_cookie, target.directory, cookie)
        self._changed(source.directory, -1)
        self._changed(target.directory, 1)
        inode.ctime = target.directory.ctime

    def exchange(self, first: "Place", one: Inode, second: "Place", other: Inode) -> None:
        """Let two entries swap the inodes they name."""
        self._inodes.edit(one)
        self._inodes.edit(other)
        first_cookie = self.require(first.directory, first.name).cookie
        second_cookie = self.require(second.directory, second.name).cookie
        self._put(first.directory, first.name, other, first_cookie)
        self._put(second.directory, second.name, one, second_cookie)
        self._rehome(one, first_cookie, second.directory, second_cookie)
        self._rehome(other, second_cookie, first.directory, first_cookie)
        self._changed(first.directory, 0)
        self._changed(second.directory, 0)
        one.ctime = other.ctime = second.directory.ctime

    def _rehome(self, inode: Inode, old_cookie: int, directory: Inode, cookie: int) -> None:
        """Note that the name of `inode` with `old_cookie` is now in `directory` at `cookie`."""
        if inode.cookie == old_cookie:
            inode.parent, inode.cookie = directory.number, cookie
            return
        self._transaction.delete(Table.LINKS, pair_key(inode.number, old_cookie))
        self._transaction.put(
            Table.LINKS, pair_key(inode.number, cookie), pack_count(directory.number)
        )

    def _changed(self, directory: Inode, entries: int) -> None:
        """Stamp a directory whose entries changed and count them."""
        self._inodes.edit(directory)
        directory.size += entries
        directory.mtime = directory.ctime = now()

    def listing(self, directory: Inode, after: int) -> Iterator[Listed]:
        """The entries with cookies above `after`, in order; drop the iterator before a change."""
        records = self._transaction.scan(
            Table.COOKIES,
            pair_key(directory.number, after + 1),
            pair_key(directory.number, MAX_U64),
        )
        return (Listed.unpack(key, value) for key, value in records)


def is_file_name(name: bytes) -> bool:
    """Whether an entry may be called so; its length is another matter."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name
