"""What LMDB takes on trust, checked before LMDB maps the file.

LMDB has no checksums and follows every page number and offset that it finds: a truncated or
damaged file ends the process by SIGBUS, SIGSEGV or an assertion. So `check_pages` walks the trees
by read(2) first. Layout after `mdb.c` of LMDB 0.9 (`MDB_page`, `MDB_meta`, `MDB_db`, `MDB_node`),
on a 64-bit little-endian machine.
"""

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

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
        self._seen = bytearray(pages)

    def check(self) -> None:
        if self._meta.free.flags != _INTEGER_KEY or self._meta.main.flags:
            raise DamagedStoreError("the catalog's trees are of an unknown kind")
        free = list(self._records(self._meta.free, single_child=True))
        for node in self._records(self._meta.main, always=True):
            if node.flags != _SUBTREE or node.size != _TREE.size:
                raise DamagedStoreError("the catalog holds something that is no table")
            _, flags, depth, _, _, _, _, root = _TREE.unpack(node.value)
            if flags:
                raise DamagedStoreError("a table of the catalog is of an unknown kind")
            for record in self._records(_Tree(flags, depth, root)):
                self._check_value(record)
        for node in free:
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
        stack = [(tree.root, tree.depth)]
        while stack:
            number, level = stack.pop()
            self._reach(number)
            if level < self._lowest and not always:
                continue
            if level > 1:
                children = self._children(number)
                if len(children) < least:
                    raise DamagedStoreError(f"page {number} of the catalog has too few branches")
                stack.extend((child, level - 1) for child in children)
            else:
                yield from self._leaf_nodes(number)

    def _reach(self, number: int) -> None:
        if not _META_PAGES <= number < self._pages:
            raise DamagedStoreError(f"page {number} of the catalog lies outside of it")
        if self._seen[number]:
            raise DamagedStoreError(f"page {number} of the catalog is used twice")
        self._seen[number] = 1

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

    def _children(self, number: int) -> list[int]:
        page, offsets = self._page(number, _BRANCH)
        children = []
        for offset in offsets:
            low, high, top, key = struct.unpack_from("<4H", page, offset)
            if offset + _NODE_BYTES + key > len(page):
                raise DamagedStoreError(f"page {number} of the catalog is damaged")
            children.append(low | high << 16 | top << 32)
        return children

    def _leaf_nodes(self, number: int) -> Iterator[_Node]:
        page, offsets = self._page(number, _LEAF)
        for offset in offsets:
            low, high, flags, key = struct.unpack_from("<4H", page, offset)
            size = low | high << 16
            start = offset + _NODE_BYTES + key
            end = start + (_NUMBER.size if flags & _BIG else size)
            if end > len(page) or flags & ~(_BIG | _SUBTREE) or not key:
                raise DamagedStoreError(f"page {number} of the catalog is damaged")
            yield _Node(flags, page[start - key : start], size, page[start:end])

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
        """A record of free pages: a count and as many page numbers, none of them in use."""
        first = self._check_value(node)
        value = node.value
        if first:
            value = os.pread(self._fd, node.size, first * self._meta.page_size + _PAGE.size)
        if len(value) < node.size or node.size < _NUMBER.size or node.size % _NUMBER.size:
            raise DamagedStoreError("the catalog's list of free pages is damaged")
        count, *numbers = struct.unpack(f"<{node.size // _NUMBER.size}Q", value)
        if count > len(numbers):
            raise DamagedStoreError("the catalog's list of free pages is damaged")
        for number in numbers[:count]:
            in_file = number < self._pages
            if not _META_PAGES <= number <= self._meta.last_page or (
                in_file and self._seen[number]
            ):
                raise DamagedStoreError(f"page {number} of the catalog is free and in use")
