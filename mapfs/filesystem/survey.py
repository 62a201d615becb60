"""What check and repair share: strict decoding, one bit for each page, and the tree as numbers.

Nothing here trusts a record; everything takes time and memory in proportion to what is there.
"""

import contextlib
import os
import stat
import struct
from collections import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from mapfs.errors import DamagedStoreError, MapfsError
from mapfs.filesystem.content import MAX_FILE_BYTES
from mapfs.filesystem.directory import MAX_NAME_BYTES, is_file_name
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.inode import InodeTable
from mapfs.filesystem.slack import contribution
from mapfs.format.extent import Extent, Mapping, pages_for
from mapfs.format.records import (
    FIRST_ID,
    ROOT_INODE,
    Entry,
    Inode,
    Listed,
    Table,
    id_key,
    id_of,
    name_of,
    pair_key,
    unpack_count,
    unpack_mapping,
)
from mapfs.format.totals import Totals
from mapfs.store.store import Store
from mapfs.store.transaction import Transaction

Record: TypeAlias = tuple[bytes, bytes]
# Above every key that LMDB can hold.
BEHIND: Final = b"\xff" * 512
ID_BYTES: Final = 8
# No counter comes this far in the life of a store; above it, it could overflow.
LAST_ID: Final = 1 << 62
# The part of an inode's record that every inode has ends with its home entry.
INODE_BYTES: Final = len(Inode(0, stat.S_IFREG, 0, 0).pack())
_HOME: Final = struct.Struct("<QQ")
_MODE: Final = struct.Struct("<I")
_HOME_OFFSET: Final = INODE_BYTES - _HOME.size
_CLAIM_PAGES: Final = 1 << 20
# Of a path that is shown; directories may go round in a circle.
_MOST_DEPTH: Final = 4096
FILE_TYPES: Final = {
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
    stat.S_IFCHR,
    stat.S_IFBLK,
}


def is_id(number: int) -> bool:
    """Whether the filesystem's counter could have handed out `number`."""
    return FIRST_ID <= number < LAST_ID


def number_key(key: bytes) -> int:
    """The number that is all of a key. Raises `DamagedStoreError`."""
    if len(key) != len(id_key(0)):
        raise DamagedStoreError("catalog key is not a number")
    return id_of(key)


def inode_of(key: bytes, value: bytes) -> Inode:
    """A record of INODES that makes sense by itself. Raises `DamagedStoreError`."""
    number = number_key(key)
    if number != ROOT_INODE and not is_id(number):
        raise DamagedStoreError(f"inode {number} cannot be one's number")
    inode = Inode.unpack(number, value)
    if inode.type not in FILE_TYPES:
        raise DamagedStoreError(f"inode {number} is of no type")
    if inode.is_file and inode.size > MAX_FILE_BYTES:
        raise DamagedStoreError(f"inode {number} has an impossible size")
    if inode.is_symlink and inode.size != len(inode.target):
        raise DamagedStoreError(f"symbolic link {number} has not its target's length")
    if inode.target and not inode.is_symlink:
        raise DamagedStoreError(f"inode {number} is no symbolic link and has more than its record")
    return inode


def home_of(value: bytes) -> tuple[int, int]:
    """The home entry of a record of INODES, the rest of which is not looked at."""
    return _HOME.unpack_from(value, _HOME_OFFSET) if len(value) >= INODE_BYTES else (0, 0)


def type_of(value: bytes) -> int:
    """The file type bits of a record of INODES, 0 if there are none."""
    return stat.S_IFMT(_MODE.unpack_from(value)[0]) if len(value) >= INODE_BYTES else 0


def entry_of(key: bytes, value: bytes) -> Entry:
    """A record of ENTRIES. Raises `DamagedStoreError`, also for a name that cannot be one."""
    name = name_of(key)
    if len(name) > MAX_NAME_BYTES or not is_file_name(name):
        raise DamagedStoreError(f"{name!r} is no file name")
    return Entry.unpack(value)


def mapping_of(key: bytes, value: bytes, page_size: int) -> Mapping:
    """A record of EXTENTS. Raises `DamagedStoreError`, also beyond the largest file."""
    mapping = unpack_mapping(key, value)
    if mapping.end > pages_for(MAX_FILE_BYTES, page_size):
        raise DamagedStoreError(f"an extent of inode {id_of(key)} ends beyond the largest file")
    return mapping


def free_of(key: bytes, value: bytes) -> Extent:
    """A record of FREE or PENDING. Raises `DamagedStoreError`."""
    return Extent(number_key(key), unpack_count(value))


def names(listing: bytes | None, inode: int) -> bool:
    """Whether a record of COOKIES is there and stands for `inode`."""
    try:
        key = b"\0" * 16
        return listing is not None and Listed.unpack(key, listing).inode == inode
    except DamagedStoreError:
        return False


def path_of(transaction: Transaction, inode: Inode) -> str:
    """The path of an inode's home entry, as far as the records lead."""
    path, number, parent, cookie = "", inode.number, inode.parent, inode.cookie
    for _ in range(_MOST_DEPTH):
        listing = transaction.get(Table.COOKIES, pair_key(parent, cookie))
        if number == ROOT_INODE or listing is None or not names(listing, number):
            break
        name = Listed.unpack(pair_key(parent, cookie), listing).name
        path = f"/{os.fsdecode(name)}{path}"
        number = parent
        parent, cookie = home_of(transaction.get(Table.INODES, id_key(number)) or b"")
    return repr(path)


@dataclass(slots=True)
class DirectoryCounts:
    """What is known of a directory while a check runs."""

    parent: int
    nlink: int
    size: int
    own: Totals
    tree: Totals
    entries: int = 0
    subdirs: int = 0


class ByInode:
    """The records of a table, to be read in step with a scan of the inodes."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._next: Record | None = None
        self.count = -1
        self.head = b""
        self._advance()

    def _advance(self) -> None:
        self.count += 1
        self._next = next(self._records, None)
        self.head = BEHIND if self._next is None else self._next[0][:ID_BYTES]

    def before(self, key: bytes) -> Iterator[Record]:
        """The records left over of inodes that come before the one with `key`."""
        while self._next is not None and self.head < key:
            yield self._next
            self._advance()

    def of(self, key: bytes) -> Iterable[Record]:
        """The records of the inode with `key`."""
        return self._of(key) if self.head == key else ()

    def _of(self, key: bytes) -> Iterator[Record]:
        while self._next is not None and self.head == key:
            yield self._next
            self._advance()


class PageSet:
    """One bit for each page of the store: whether something has claimed it."""

    def __init__(self, pages: int) -> None:
        self._pages = pages
        self._bits = bytearray(pages_for(pages, 8))

    def claim(self, extent: Extent) -> bool:
        """Mark pages, which must lie in the store; whether none of them was marked before."""
        if extent.count == 1:  # most files
            place, bit = extent.start >> 3, 1 << (extent.start & 7)
            found = self._bits[place]
            self._bits[place] = found | bit
            return not found & bit
        fresh = True
        for start in range(extent.start, extent.end, _CLAIM_PAGES):
            count = min(_CLAIM_PAGES, extent.end - start)
            mask = (1 << count) - 1 << start % 8
            first, last = start // 8, pages_for(start + count, 8)
            bits = int.from_bytes(self._bits[first:last], "little")
            self._bits[first:last] = (bits | mask).to_bytes(last - first, "little")
            fresh = fresh and bits & mask == 0
        return fresh

    def unclaimed(self) -> int:
        """How many pages nothing has claimed."""
        return self._pages - sum(
            int.from_bytes(self._bits[at : at + _CLAIM_PAGES], "little").bit_count()
            for at in range(0, len(self._bits), _CLAIM_PAGES)
        )

    def unclaimed_runs(self, within: Extent) -> Iterator[Extent]:
        """The longest runs of pages in `within` that nothing has claimed, ascending."""
        page = within.start
        while (page := self._find(page, within.end, claimed=False)) < within.end:
            end = self._find(page, within.end, claimed=True)
            yield Extent(page, end - page)
            page = end

    def _find(self, page: int, end: int, *, claimed: bool) -> int:
        """The first page from `page` on that is claimed, or is not; `end` if there is none."""
        uniform = b"\0" if claimed else b"\xff"
        while page < end:
            if page % 8 == 0 and self._bits[page // 8] == uniform[0]:
                # Whole bytes to pass over: let C find where they end.
                chunk = self._bits[page // 8 : min(page // 8 + _CLAIM_PAGES, pages_for(end, 8))]
                page += 8 * (len(chunk) - len(chunk.lstrip(uniform)))
            elif bool(self._bits[page // 8] >> page % 8 & 1) == claimed:
                return page
            else:
                page += 1
        return end


class Shape:
    """What the extents of an inode add up to, as its record should say it."""

    def __init__(self, inode: Inode, page_size: int) -> None:
        self._unused = -inode.size % page_size if inode.is_file else 0
        self._size = pages_for(inode.size, page_size) if inode.is_file else 0
        self._pages = self._extents = self._prealloc = 0
        self._has_tail = False
        self.behind = 0

    def add(self, mapping: Mapping) -> None:
        """Count the next extent."""
        self.behind = max(self.behind, mapping.end)
        self._pages += mapping.count
        self._extents += 1
        self._prealloc += max(0, mapping.end - max(self._size, mapping.page))
        self._has_tail = self._has_tail or mapping.page < self._size <= mapping.end

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Pages, extents, prealloc and tail."""
        tail = self._unused if self._has_tail else 0
        return self._pages, self._extents, self._prealloc, tail


def counts_of(inode: Inode) -> tuple[int, int, int, int]:
    """What the record says of the extents: see `Shape.counts`."""
    return inode.pages, inode.extents, inode.prealloc, inode.tail


def share_of(inode: Inode, page_size: int, extents: ExtentMap) -> Totals:
    """What an inode adds to the totals of its directory, as far as its extents decode."""
    try:
        return contribution(inode, page_size, lambda: extents.mappings(inode.number))
    except DamagedStoreError:
        return Totals()


def loose(parents: abc.Mapping[int, int]) -> set[int]:
    """The directories from which no way leads up to the root, given the parent of each."""
    leads = {ROOT_INODE: ROOT_INODE in parents}
    for start in parents:
        path = []
        number = start
        while number in parents and number not in leads:
            leads[number] = False  # until known better: a way that comes back here leads nowhere
            path.append(number)
            number = parents[number]
        leads.update(dict.fromkeys(path, leads.get(number, False)))
    return {number for number in parents if not leads[number]}


def tree_totals(parents: abc.Mapping[int, int], own: abc.Mapping[int, Totals]) -> dict[int, Totals]:
    """What every directory holds with all below it; those in a cycle only what they hold."""
    trees = {number: own.get(number, Totals()) for number in parents}
    below = dict.fromkeys(parents, 0)
    for number, parent in parents.items():
        if number != ROOT_INODE and parent in below:
            below[parent] += 1
    ready = [number for number, count in below.items() if count == 0]
    while ready:
        number = ready.pop()
        parent = parents[number]
        if number != ROOT_INODE and parent in trees:
            trees[parent] = trees[parent].plus(trees[number])
            below[parent] -= 1
            if below[parent] == 0:
                ready.append(parent)
    return trees


def settle(store: Store) -> None:
    """Bring the totals of directories up to date after a replay, as opening a filesystem does.

    Only in memory. What stands in the way is left to be found.
    """
    counted = store.replayed.counted
    inodes = InodeTable(store, ExtentMap(store.transaction))
    with contextlib.suppress(MapfsError, struct.error):
        for number, before in counted.items():
            value = store.transaction.get(Table.INODES, id_key(number))
            _require_way_up(store, before.parent)
            directory, cookie = home_of(value or b"")
            if cookie:  # an orphan counts in no directory
                _require_way_up(store, directory)
        inodes.adopt(counted)
        inodes.flush()


def _require_way_up(store: Store, directory: int) -> None:
    """Raise `DamagedStoreError` unless the parents of a directory lead to the root."""
    seen: set[int] = set()
    while directory != ROOT_INODE:
        value = store.transaction.get(Table.INODES, id_key(directory))
        if value is None or directory in seen:
            raise DamagedStoreError(f"directory {directory} does not hang on the root")
        seen.add(directory)
        directory = home_of(value)[0]
