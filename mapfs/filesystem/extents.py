"""Which store pages hold which pages of a file. Positions and counts are in pages."""

from collections.abc import Callable, Iterator

from mapfs.errors import DamagedStoreError
from mapfs.format.extent import Extent, Mapping
from mapfs.format.records import MAX_U64, Table, id_of, pack_extent, pair_key, unpack_mapping
from mapfs.store.transaction import Transaction

_MOST_REMEMBERED = 1024


class ExtentMap:
    """The EXTENTS table. Search is O(log n) in the extents; the last one found is remembered."""

    def __init__(
        self, transaction: Transaction, holds: Callable[[Extent], bool] = lambda _: True
    ) -> None:
        """`holds` tells whether pages lie in the store: a damaged record must not lead outside.

        Every method that finds an extent which does not raises `DamagedStoreError`.
        """
        self._transaction = transaction
        self._holds = holds
        self._last: dict[int, Mapping] = {}

    def find(self, inode: int, page: int) -> Mapping | None:
        """The extent that holds `page` of the file, or None in a hole."""
        last = self._last.get(inode)
        if last is not None and last.page <= page < last.page + last.count:
            return last
        found = self._at_or_before(inode, page)
        if found is None or found.end <= page:
            return None
        self._remember(inode, found)
        return found

    def _remember(self, inode: int, found: Mapping) -> None:
        if len(self._last) >= _MOST_REMEMBERED and inode not in self._last:
            self._last.clear()
        self._last[inode] = found

    def _at(self, inode: int, page: int) -> Mapping | None:
        """The extent that begins with `page`."""
        key = pair_key(inode, page)
        value = self._transaction.get(Table.EXTENTS, key)
        return None if value is None else self._unpack(key, value)

    def _at_or_before(self, inode: int, page: int) -> Mapping | None:
        found = self._at(inode, page)
        if found is not None:  # most files are one extent from page 0 on, and need no search
            return found
        records = self._transaction.descend(
            Table.EXTENTS, pair_key(inode, page), pair_key(inode, 0)
        )
        for key, value in records:
            return self._unpack(key, value)
        return None

    def _unpack(self, key: bytes, value: bytes) -> Mapping:
        mapping = unpack_mapping(key, value)
        if not self._holds(Extent(mapping.start, mapping.count)):
            raise DamagedStoreError(f"an extent of inode {id_of(key)} lies outside the store")
        return mapping

    def mappings(self, inode: int, first: int = 0, end: int = MAX_U64) -> Iterator[Mapping]:
        """The extents that touch pages `first` to `end` (exclusive), whole, ascending.

        The file must not be changed before the iterator is used up or dropped.
        """
        if first >= end:
            return
        before = self._at_or_before(inode, first) if first else None
        if before is not None and before.page < first < before.end:
            yield before
        records = self._transaction.scan(
            Table.EXTENTS, pair_key(inode, first), pair_key(inode, end)
        )
        for key, value in records:
            yield self._unpack(key, value)

    def pieces(self, inode: int, first: int, end: int) -> Iterator[tuple[int, int, int | None]]:
        """Pages `first` to `end` in order as (page, count, store page or None for a hole)."""
        page = first
        for mapping in self.mappings(inode, first, end):
            piece = mapping.clip(first, end)
            if piece.page > page:
                yield page, piece.page - page, None
            yield piece.page, piece.count, piece.start
            page = piece.end
        if page < end:
            yield page, end - page, None

    def insert(self, inode: int, page: int, extent: Extent) -> int:
        """Map `extent` at `page` of the file, where a hole must be.

        Returns the extents that the file has more: none if this one was joined to the one before.
        """
        added = 1
        before = self.find(inode, page - 1) if page else None
        if before is not None and before.start + before.count == extent.start:
            page, extent = before.page, Extent(before.start, before.count + extent.count)
            added = 0
        self._transaction.put(Table.EXTENTS, pair_key(inode, page), pack_extent(extent))
        self._remember(inode, Mapping(page, *extent))
        return added

    def remove(
        self, inode: int, first: int, end: int = MAX_U64, extents: int = 0
    ) -> tuple[list[Extent], int]:
        """Make a hole of pages `first` to `end` (exclusive).

        `extents` is how many the file has, 0 if unknown.
        Returns what it set free, and the extents that the file has less (-1 if one was split).
        """
        self._last.pop(inode, None)
        removed: list[Extent] = []
        kept = 0
        only = self._at(inode, first) if extents == 1 and first < end else None
        for mapping in list(self.mappings(inode, first, end)) if only is None else [only]:
            self._transaction.delete(Table.EXTENTS, pair_key(inode, mapping.page))
            if first <= mapping.page and mapping.end <= end:
                removed.append(Extent(mapping.start, mapping.count))
                continue
            gone = mapping.clip(first, end)
            kept += self._put(inode, mapping.clip(mapping.page, gone.page))
            kept += self._put(inode, mapping.clip(gone.end, mapping.end))
            removed.append(Extent(gone.start, gone.count))
        return removed, len(removed) - kept

    def _put(self, inode: int, mapping: Mapping) -> int:
        if mapping.count == 0:
            return 0
        extent = Extent(mapping.start, mapping.count)
        self._transaction.put(Table.EXTENTS, pair_key(inode, mapping.page), pack_extent(extent))
        return 1

    def page_after(self, inode: int, page: int) -> int:
        """The store page behind the file page before `page`: the goal that keeps it contiguous."""
        before = self.find(inode, page - 1) if page else None
        return before.store_page(page) if before is not None else 0
