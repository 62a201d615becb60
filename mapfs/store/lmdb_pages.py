"""What LMDB takes on trust, checked before LMDB maps the file.

LMDB has no checksums and follows every page number and offset that it finds: a truncated or
damaged file ends the process by SIGBUS, SIGSEGV or an assertion. It takes keys for sorted, and what
is listed as free for unused: otherwise it misses records, finds those of others, and overwrites
pages that are in use. So `check_pages` walks the trees by read(2) first. Layout after `mdb.c` of
LMDB 0.9 (`MDB_page`, `MDB_meta`, `MDB_db`, `MDB_node`), on a 64-bit little-endian machine.
"""

import os
import struct
from collections.abc import Iterator
from itertools import pairwise, repeat, starmap
from operator import lt
from typing import Final, NamedTuple, TypeAlias

from mapfs.errors import DamagedStoreError, NotAStoreError

_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_NO_PAGE: Final = (1 << 64) - 1
_META_PAGES: Final = 2
_DEEPEST: Final = 32

# page number, padding, flags, then lower and upper, or for an overflow page its pages
_PAGE: Final = struct.Struct("<QHHHH")
_OVERFLOW_PAGES: Final = struct.Struct("<I")
# magic, version, address, map size
_META: Final = struct.Struct("<IIQQ")
# padding (in the first tree's: the page size), flags, depth, branch, leaf and overflow pages,
# entries, root
_TREE: Final = struct.Struct("<IHH5Q")
# last page, transaction
_META_END: Final = struct.Struct("<QQ")
_META_BYTES: Final = _META.size + 2 * _TREE.size + _META_END.size
_NUMBER: Final = struct.Struct("<Q")
_NODE_BYTES: Final = 8

_BRANCH, _LEAF, _OVERFLOW, _IS_META = 0x01, 0x02, 0x04, 0x08
_BIG, _SUBTREE = 0x01, 0x02
_INTEGER_KEY: Final = 0x08
# What an environment keeps of its flags beside those of its list of free pages.
_TREE_FLAGS: Final = 0x7F
_LONGEST_KEY: Final = 511
# Above every key.
_BEHIND: Final = b"\xff" * (_LONGEST_KEY + 1)

# The keys of a page are not below the first, and are below the second.
_Bounds: TypeAlias = tuple[bytes, bytes]


class _Tree(NamedTuple):
    flags: int
    depth: int
    root: int


class _Meta(NamedTuple):
    page_size: int
    free: _Tree
    main: _Tree
    last_page: int
    transaction: int


class _Node(NamedTuple):
    """A key with its value; of a big value the first overflow page's number stands there."""

    flags: int
    key: bytes
    size: int
    value: bytes


def check_pages(fd: int, map_bytes: int, *, level: int) -> None:
    """Raise unless LMDB can follow the trees in the file without leaving it.

    Pages below `level` are not read. Level 1 are the leaves, which hold the records; each level
    above has about a fiftieth of the pages of the one below. Raises `NotAStoreError` if the file
    is no LMDB environment, and `DamagedStoreError` if it is one no more.
    """
    size = os.lseek(fd, 0, os.SEEK_END)
    meta = _newest_meta(fd)
    pages = size // meta.page_size
    if meta.last_page >= map_bytes // meta.page_size or meta.last_page < _META_PAGES - 1:
        raise DamagedStoreError("the catalog's last page is out of range")
    walk = _Walk(fd, meta, min(pages, meta.last_page + 1), level)
    walk.check()


def _newest_meta(fd: int) -> _Meta:
    first = _read_meta(fd, 0, 0)
    second = _read_meta(fd, first.page_size, 1)
    if first.page_size != second.page_size:
        raise DamagedStoreError("the catalog's two heads differ in page size")
    newest, other = (first, second) if first.transaction >= second.transaction else (second, first)
    # LMDB takes the head that the last transaction's number says, even or odd.
    if newest.transaction % 2 != (newest is second) or newest.transaction - other.transaction > 1:
        raise DamagedStoreError("the catalog's two heads do not follow each other")
    return newest


def _read_meta(fd: int, offset: int, number: int) -> _Meta:
    data = os.pread(fd, _PAGE.size + _META_BYTES, offset)
    if len(data) < _PAGE.size + _META_BYTES:
        raise NotAStoreError("the catalog is too short")
    magic, version, _, _ = _META.unpack_from(data, _PAGE.size)
    if magic != _MAGIC:
        raise NotAStoreError("the catalog is no LMDB environment")
    page, _, flags, _, _ = _PAGE.unpack_from(data)
    if version != _VERSION:
        raise NotAStoreError(f"the catalog's LMDB format is {version}, not {_VERSION}")
    trees = [
        _TREE.unpack_from(data, _PAGE.size + _META.size + which * _TREE.size) for which in (0, 1)
    ]
    page_size = int(trees[0][0])
    known_size = 512 <= page_size <= 1 << 15 and page_size & (page_size - 1) == 0
    if page != number or flags != _IS_META or not known_size:
        raise DamagedStoreError(f"head {number} of the catalog is damaged")
    end = _META_END.unpack_from(data, _PAGE.size + _META.size + 2 * _TREE.size)
    free, main = (_Tree(tree[1] & _TREE_FLAGS, tree[2], tree[7]) for tree in trees)
    return _Meta(page_size, free, main, *end)


class _Walk:
    """One walk over the trees of a file; a page may be reached once."""

    def __init__(self, fd: int, meta: _Meta, pages: int, lowest: int) -> None:
        self._fd = fd
        self._meta = meta
        self._pages = pages
        self._lowest = lowest
        # One bit for each page; what is listed as free may lie behind the end of the file.
        self._seen = bytearray(meta.last_page // 8 + 1)

    def check(self) -> None:
        if self._meta.free.flags != _INTEGER_KEY or self._meta.main.flags:
            raise DamagedStoreError("the catalog's trees are of an unknown kind")
        for node in self._records(self._meta.main, always=True):
            if node.flags != _SUBTREE or node.size != _TREE.size:
                raise DamagedStoreError("the catalog holds something that is no table")
            _, flags, depth, _, _, _, _, root = _TREE.unpack(node.value)
            if flags:
                raise DamagedStoreError("a table of the catalog is of an unknown kind")
            for record in self._records(_Tree(flags, depth, root)):
                self._check_value(record)
        # Last, as none of these pages may be in use.
        for node in self._records(self._meta.free, single_child=True):
            self._check_free(node)

    def _records(
        self, tree: _Tree, *, always: bool = False, single_child: bool = False
    ) -> Iterator[_Node]:
        """The records of a tree; none, unless `always`, if the leaves are not to be read."""
        if tree.root == _NO_PAGE:
            return
        if not 1 <= tree.depth <= _DEEPEST:
            raise DamagedStoreError("a tree of the catalog has an impossible depth")
        least = 1 if single_child else 2
        integers = tree.flags == _INTEGER_KEY
        stack = [(tree.root, tree.depth, (b"", _BEHIND))]
        while stack:
            number, level, bounds = stack.pop()
            self._reach(number)
            if level < self._lowest and not always:
                continue
            if level > 1:
                children, within = self._children(number, bounds, integers=integers)
                if len(children) < least:
                    raise DamagedStoreError(f"page {number} of the catalog has too few branches")
                stack.extend(zip(children, repeat(level - 1), within))
            else:
                yield from self._leaf_nodes(number, bounds, integers=integers)

    def _reach(self, number: int) -> None:
        if not _META_PAGES <= number < self._pages:
            raise DamagedStoreError(f"page {number} of the catalog lies outside of it")
        if not self._mark(number):
            raise DamagedStoreError(f"page {number} of the catalog is used twice")

    def _mark(self, number: int) -> bool:
        """Whether the page is met for the first time."""
        byte, bit = number >> 3, 1 << (number & 7)
        if self._seen[byte] & bit:
            return False
        self._seen[byte] |= bit
        return True

    def _page(self, number: int, kind: int) -> tuple[bytes, tuple[int, ...]]:
        """A page of nodes and where in it they begin."""
        size = self._meta.page_size
        page = os.pread(self._fd, size, number * size)
        if len(page) < size:
            raise DamagedStoreError(f"page {number} of the catalog is cut off")
        found, _, flags, lower, upper = _PAGE.unpack_from(page)
        if found != number or flags != kind or not _PAGE.size <= lower <= upper <= size:
            raise DamagedStoreError(f"page {number} of the catalog is damaged")
        offsets = struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", page, _PAGE.size)
        if lower % 2 or not offsets or min(offsets) < upper or max(offsets) > size - _NODE_BYTES:
            raise DamagedStoreError(f"page {number} of the catalog is damaged")
        return page, offsets

    def _children(
        self, number: int, bounds: _Bounds, *, integers: bool
    ) -> tuple[list[int], Iterator[_Bounds]]:
        page, offsets = self._page(number, _BRANCH)
        children, keys = [], []
        for offset in offsets:
            low, high, top, key = struct.unpack_from("<4H", page, offset)
            start = offset + _NODE_BYTES
            if start + key > len(page) or key > _LONGEST_KEY:
                raise DamagedStoreError(f"page {number} of the catalog is damaged")
            children.append(low | high << 16 | top << 32)
            keys.append(page[start : start + key])
        # LMDB never looks at the first key, and leaves it empty.
        between = _ordered(keys[1:], number, bounds, integers=integers)
        return children, pairwise([bounds[0], *between, bounds[1]])

    def _leaf_nodes(self, number: int, bounds: _Bounds, *, integers: bool) -> Iterator[_Node]:
        page, offsets = self._page(number, _LEAF)
        keys = []
        for offset in offsets:
            low, high, flags, length = struct.unpack_from("<4H", page, offset)
            size = low | high << 16
            start = offset + _NODE_BYTES + length
            end = start + (_NUMBER.size if flags & _BIG else size)
            if end > len(page) or flags & ~(_BIG | _SUBTREE) or not 0 < length <= _LONGEST_KEY:
                raise DamagedStoreError(f"page {number} of the catalog is damaged")
            key = page[start - length : start]
            keys.append(key)
            yield _Node(flags, key, size, page[start:end])
        _ordered(keys, number, bounds, integers=integers)

    def _check_value(self, node: _Node) -> int:
        """Reach a big value's pages; returns the first, or 0 if the value is not big."""
        if node.flags & _SUBTREE:
            raise DamagedStoreError("a record of the catalog is a table")
        if not node.flags & _BIG:
            return 0
        size = self._meta.page_size
        (first,) = _NUMBER.unpack(node.value)
        header = os.pread(self._fd, _PAGE.size, first * size) if first < self._pages else b""
        pages = -(-(node.size + _PAGE.size) // size)
        if len(header) < _PAGE.size or _PAGE.unpack(header)[0:3:2] != (first, _OVERFLOW):
            raise DamagedStoreError("a large record of the catalog is damaged")
        if _OVERFLOW_PAGES.unpack_from(header, _PAGE.size - _OVERFLOW_PAGES.size)[0] != pages:
            raise DamagedStoreError("a large record of the catalog has the wrong length")
        for page in range(first, first + pages):
            self._reach(page)
        return int(first)

    def _check_free(self, node: _Node) -> None:
        """A record of free pages: in use is none of them, and none is in the list twice."""
        before = self._meta.last_page + 1
        for number in self._free_pages(node):
            if not _META_PAGES <= number < before:
                raise DamagedStoreError("the catalog's list of free pages is out of order")
            if not self._mark(number):
                raise DamagedStoreError(
                    f"page {number} of the catalog is free twice, or free and in use"
                )
            before = number

    def _free_pages(self, node: _Node) -> memoryview:
        """What a record of free pages lists: a count, and as many page numbers, descending."""
        size = node.size
        # No more than there are pages, and the count: a larger one is not even read.
        possible = size <= (self._meta.last_page + 2) * _NUMBER.size
        if not possible or not size or size % _NUMBER.size:
            raise DamagedStoreError("the catalog's list of free pages is damaged")
        first = self._check_value(node)
        value = node.value
        if first:
            value = os.pread(self._fd, size, first * self._meta.page_size + _PAGE.size)
        count = int.from_bytes(value[: _NUMBER.size], "little")
        if len(value) < size or count >= size // _NUMBER.size:
            raise DamagedStoreError("the catalog's list of free pages is damaged")
        return memoryview(value).cast("Q")[1 : count + 1]


def _ordered(keys: list[bytes], page: int, bounds: _Bounds, *, integers: bool) -> list[bytes]:
    """The keys of a page as they compare. Raises unless they ascend within the bounds."""
    if integers:
        if any(len(key) != _NUMBER.size for key in keys):
            raise DamagedStoreError(f"page {page} of the catalog is damaged")
        keys = [key[::-1] for key in keys]  # little-endian numbers then compare as bytes do
    inside = not keys or (bounds[0] <= keys[0] and keys[-1] < bounds[1])
    if not inside or not all(starmap(lt, pairwise(keys))):
        raise DamagedStoreError(f"page {page} of the catalog has keys out of order")
    return keys
