"""The records of the catalog: tables, keys and values. `docs/format.md` specifies them.

Values are little-endian; keys are big-endian, so that LMDB sorts them as numbers.
"""

import enum
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from mapfs.errors import DamagedStoreError
from mapfs.format.extent import Extent, Mapping
from mapfs.format.totals import TOTALS_BYTES, Totals

ROOT_INODE: Final = 1
# Ids below are spoken for: inode 1 is the root, directory cookies 1 and 2 are "." and "..".
FIRST_ID: Final = 16
MAX_U64: Final = (1 << 64) - 1
# Of a symbolic link: PATH_MAX of linux/limits.h, which counts a NUL.
MAX_TARGET_BYTES: Final = 4095


class Table(enum.IntEnum):
    """The catalog's tables; the number is an index in memory, the name is what LMDB knows."""

    META = 0
    INODES = 1
    ENTRIES = 2
    COOKIES = 3
    LINKS = 4
    EXTENTS = 5
    XATTRS = 6
    ORPHANS = 7
    FREE = 8
    FREE_BY_SIZE = 9
    PENDING = 10


META_UUID: Final = b"uuid"
META_STATE: Final = b"state"
META_LOST: Final = b"lost"

_ID = struct.Struct(">Q")
_ID_PAIR = struct.Struct(">QQ")
_EXTENT = struct.Struct("<QQ")
_ENTRY = struct.Struct("<QQI")
_COUNT = struct.Struct("<Q")
_COUNTED = struct.Struct("<QQQ")
_COOKIE = struct.Struct("<QI")
_STATE = struct.Struct("<7Q")
# mode uid gid nlink rdev flags | size pages extents prealloc tail | atime mtime ctime btime |
# parent cookie
_INODE = struct.Struct("<6I5Q4q2Q")
FIXED_BYTES: Final = _INODE.size
# In `Inode.flags`: without it there is nothing to look for in XATTRS.
HAS_ATTRIBUTES: Final = 1
# The bits of `Inode.flags` that hold its advice.
_ADVICE_SHIFT: Final = 8
_ADVICE_MASK: Final = 0xFF << _ADVICE_SHIFT


class Advice(enum.IntEnum):
    """How a file will be used, as `user.mapfs.advice` says it."""

    NORMAL = 0
    SEQUENTIAL = 1
    RANDOM = 2
    WILLNEED = 3
    DONTNEED = 4
    HUGEPAGE = 5
    PIN = 6


_ADVICE: Final = {int(advice): advice for advice in Advice}


_NO_TOTALS: Final = Totals()


def _packed(record: struct.Struct, *fields: int) -> bytes:
    try:
        return record.pack(*fields)
    except struct.error as error:
        raise DamagedStoreError(f"a count is out of range ({error})") from error


def id_key(number: int) -> bytes:
    """The key of INODES, ORPHANS, FREE and PENDING, and the prefix of the tables by inode."""
    return _ID.pack(number)


def id_of(key: bytes) -> int:
    """The number that a key starts with. Raises `DamagedStoreError` if the key is too short."""
    if len(key) < _ID.size:
        raise DamagedStoreError("catalog key is too short")
    return int(_ID.unpack_from(key)[0])


def pair_key(first: int, second: int) -> bytes:
    """The key of COOKIES, LINKS, EXTENTS (inode, number) and FREE_BY_SIZE (pages, start)."""
    return _ID_PAIR.pack(first, second)


def pair_of(key: bytes) -> tuple[int, int]:
    """The two numbers of a `pair_key`. Raises `DamagedStoreError` for another length."""
    if len(key) != _ID_PAIR.size:
        raise DamagedStoreError("catalog key is not a pair")
    return _ID_PAIR.unpack(key)


def name_key(inode: int, name: bytes) -> bytes:
    """The key of ENTRIES (directory, name) and XATTRS (inode, attribute)."""
    return _ID.pack(inode) + name


def name_of(key: bytes) -> bytes:
    """The name in a `name_key`."""
    return key[_ID.size :]


def pack_extent(extent: Extent) -> bytes:
    """The value of EXTENTS."""
    return _EXTENT.pack(*extent)


def unpack_extent(value: bytes) -> Extent:
    """The inverse of `pack_extent`. Raises `DamagedStoreError` for another length."""
    if len(value) != _EXTENT.size:
        raise DamagedStoreError("extent record has the wrong length")
    return Extent(*_EXTENT.unpack(value))


def unpack_mapping(key: bytes, value: bytes) -> Mapping:
    """A record of EXTENTS. Raises `DamagedStoreError` if it cannot be one."""
    return Mapping(pair_of(key)[1], *unpack_extent(value))


def pack_lost(ranges: Iterable[tuple[int, int]]) -> bytes:
    """The value of META's `lost`: offsets and lengths in the store file, bytes."""
    return b"".join(_EXTENT.pack(offset, length) for offset, length in ranges)


def unpack_lost(value: bytes) -> list[tuple[int, int]]:
    """The inverse of `pack_lost`. Raises `DamagedStoreError` for an impossible length."""
    if len(value) % _EXTENT.size:
        raise DamagedStoreError("the record of lost bytes has the wrong length")
    return list(_EXTENT.iter_unpack(value))


def pack_count(count: int) -> bytes:
    """The value of FREE and PENDING: pages."""
    return _COUNT.pack(count)


def unpack_count(value: bytes) -> int:
    """The pages of a FREE or PENDING record, or the directory of a LINKS record."""
    if len(value) != _COUNT.size:
        raise DamagedStoreError("number record has the wrong length")
    return int(_COUNT.unpack(value)[0])


class Counted(NamedTuple):
    """What an inode counted for when totals were last brought up to date.

    Its home directory, what it added there, its bytes of tail and its preallocated pages.
    """

    parent: int
    share: Totals
    tail: int
    prealloc: int

    def pack(self) -> bytes:
        """The value of the log's COUNTED: nothing for what counted for nothing."""
        if self is NOT_COUNTED:
            return b""
        return _COUNTED.pack(self.parent, self.tail, self.prealloc) + self.share.pack()

    @classmethod
    def unpack(cls, value: bytes) -> "Counted":
        """Raises `DamagedStoreError` if `value` cannot be one."""
        if not value:
            return NOT_COUNTED
        if len(value) != _COUNTED.size + TOTALS_BYTES:
            raise DamagedStoreError("logged count has the wrong length")
        parent, tail, prealloc = _COUNTED.unpack_from(value)
        return cls(parent, Totals.unpack(value[_COUNTED.size :]), tail, prealloc)


# A new inode: any directory will do for adding nothing to it.
NOT_COUNTED: Final = Counted(ROOT_INODE, Totals(), 0, 0)


class Entry(NamedTuple):
    """One name in a directory: which inode, its place in the listing, and its file type bits."""

    inode: int
    cookie: int
    type: int

    def pack(self) -> bytes:
        """The value of ENTRIES."""
        return _ENTRY.pack(self.inode, self.cookie, self.type)

    @classmethod
    def unpack(cls, value: bytes) -> "Entry":
        """Raises `DamagedStoreError` if `value` cannot be an entry."""
        if len(value) != _ENTRY.size:
            raise DamagedStoreError("directory entry has the wrong length")
        return cls(*_ENTRY.unpack(value))


class Listed(NamedTuple):
    """A directory entry in listing order: table COOKIES, by (directory, cookie)."""

    cookie: int
    inode: int
    type: int
    name: bytes

    def pack(self) -> bytes:
        """The value of COOKIES."""
        return _COOKIE.pack(self.inode, self.type) + self.name

    @classmethod
    def unpack(cls, key: bytes, value: bytes) -> "Listed":
        """Raises `DamagedStoreError` if the record cannot be one."""
        if len(value) <= _COOKIE.size:
            raise DamagedStoreError("listing record is too short")
        inode, kind = _COOKIE.unpack_from(value)
        return cls(pair_of(key)[1], inode, kind, value[_COOKIE.size :])


@dataclass(slots=True)
class State:
    """The filesystem's counters, one record, written by every commit.

    `next_id` numbers inodes and cookies alike and never goes back; pages are store pages;
    `tail_bytes` and `prealloc_pages`, which make the slack, count every inode, also those that
    are unlinked and still open.
    """

    next_id: int
    store_pages: int
    allocated_pages: int
    inodes: int
    tail_bytes: int
    prealloc_pages: int
    commits: int

    def pack(self) -> bytes:
        """The value of META's `state`. Raises `DamagedStoreError` if a count is out of range."""
        return _packed(
            _STATE,
            self.next_id,
            self.store_pages,
            self.allocated_pages,
            self.inodes,
            self.tail_bytes,
            self.prealloc_pages,
            self.commits,
        )

    @classmethod
    def unpack(cls, value: bytes) -> "State":
        """Raises `DamagedStoreError` if `value` cannot be the state."""
        if len(value) != _STATE.size:
            raise DamagedStoreError("state record has the wrong length")
        return cls(*_STATE.unpack(value))


@dataclass(slots=True, weakref_slot=True, eq=False)
class Inode:
    """An inode as it is stored. Mutable: `InodeTable` decides who may change it, and when.

    `size` is bytes for a file, the target's length for a symbolic link, and the number of
    entries for a directory. `pages` counts the allocated pages and `extents` their runs,
    `prealloc` the pages behind the one that holds the last byte, `tail` that page's unused bytes
    if it is allocated.
    `flags` has `HAS_ATTRIBUTES`, which stays when the last attribute goes, and the advice.
    `parent` and `cookie` name the inode's home entry: the name under which it is counted.
    `own` and `tree` are a directory's totals (itself; with everything below).
    `what_ifs` is not stored: the file's slack at the sizes of `WHAT_IF_SIZES`, while it is known.
    """

    number: int
    mode: int
    uid: int
    gid: int
    nlink: int = 1
    rdev: int = 0
    flags: int = 0
    size: int = 0
    pages: int = 0
    extents: int = 0
    prealloc: int = 0
    tail: int = 0
    atime: int = 0
    mtime: int = 0
    ctime: int = 0
    btime: int = 0
    parent: int = 0
    cookie: int = 0
    target: bytes = b""
    own: Totals = _NO_TOTALS
    tree: Totals = _NO_TOTALS
    what_ifs: tuple[int, ...] | None = None

    @property
    def type(self) -> int:
        """The file type bits of the mode."""
        return stat.S_IFMT(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.mode & 0o170000 == stat.S_IFREG

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.mode & 0o170000 == stat.S_IFLNK

    @property
    def advice(self) -> Advice:
        """How it will be used; what a later version wrote is NORMAL here."""
        value = (self.flags & _ADVICE_MASK) >> _ADVICE_SHIFT
        return _ADVICE.get(value, Advice.NORMAL)

    @advice.setter
    def advice(self, advice: Advice) -> None:
        self.flags = self.flags & ~_ADVICE_MASK | advice << _ADVICE_SHIFT

    def pack(self) -> bytes:
        """The value of INODES; the number is the key.

        Raises `DamagedStoreError` if a damaged store led to a count that is out of range.
        """
        if self.is_directory:
            return self.pack_fixed() + self.own.pack() + self.tree.pack()
        return self.pack_fixed() + self.target

    def pack_fixed(self) -> bytes:
        """The first `FIXED_BYTES` of `pack`: all but a directory's totals and a link's target."""
        return _packed(
            _INODE,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.rdev,
            self.flags,
            self.size,
            self.pages,
            self.extents,
            self.prealloc,
            self.tail,
            self.atime,
            self.mtime,
            self.ctime,
            self.btime,
            self.parent,
            self.cookie,
        )

    @classmethod
    def unpack(cls, number: int, value: bytes) -> "Inode":
        """Raises `DamagedStoreError` if `value` cannot be an inode."""
        if len(value) < _INODE.size:
            raise DamagedStoreError(f"inode {number} is too short")
        inode = cls(number, *_INODE.unpack_from(value))
        extra = value[_INODE.size :]
        if not inode.is_directory:
            inode.target = extra
        elif len(extra) == 2 * TOTALS_BYTES:
            inode.own = Totals.unpack(extra[:TOTALS_BYTES])
            inode.tree = Totals.unpack(extra[TOTALS_BYTES:])
        else:
            raise DamagedStoreError(f"directory {number} has no totals")
        return inode
