"""Repair of pages and of what is counted: extents, free pages, totals, the state's counters.

Names and the tree are right by now. A page keeps its first owner, by inode number; the others get
a hole. What no file owns is free.
"""

import stat
from collections.abc import Iterator
from itertools import islice

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.repair.tables import RepairTables
from mapfs.filesystem.survey import (
    PageSet,
    Shape,
    counts_of,
    free_of,
    mapping_of,
    share_of,
    tree_totals,
)
from mapfs.format.extent import Extent, Mapping
from mapfs.format.records import (
    MAX_U64,
    ROOT_INODE,
    Entry,
    Inode,
    Table,
    id_key,
    id_of,
    pack_count,
    pack_extent,
    pair_key,
    pair_of,
)
from mapfs.format.totals import Totals


class PageRepair:
    """Gives every page one owner, then counts everything."""

    def __init__(self, tables: RepairTables) -> None:
        self._tables = tables
        self._store = tables.store
        self._page_size = tables.store.page_size
        self._extents = ExtentMap(tables.store.transaction)
        self._pages = PageSet(tables.store.state.store_pages)
        self._parents: dict[int, int] = {}
        self._counted: dict[int, Totals] = {}
        self._inodes = self._allocated = self._tail = self._prealloc = 0

    def actions(self) -> Iterator[str]:
        """Sentences, each before what it tells of."""
        self._pages.claim(Extent(0, self._store.superblock.metadata_pages))
        yield from self._drop_stray_extents()
        yield from self._repair_extents()
        yield from self._repair_pending()
        yield from self._repair_free()
        yield from self._repair_directories()
        yield from self._repair_state()

    # Extents

    def _drop_stray_extents(self) -> Iterator[str]:
        for key, value in self._tables.records(Table.EXTENTS):
            try:
                mapping_of(key, value, self._page_size)
                owner = self._tables.inode(id_of(key))
                if owner is not None and owner.is_file:
                    continue
            except DamagedStoreError:
                pass
            yield f"drop an extent of inode {int.from_bytes(key[:8], 'big')}"
            self._tables.delete(Table.EXTENTS, key)

    def _repair_extents(self) -> Iterator[str]:
        for inode in self._tables.inodes():
            shape = Shape(inode, self._page_size)
            yield from self._repair_mappings(inode.number, shape)
            if shape.counts != counts_of(inode):
                yield f"count the pages of inode {inode.number}"
                inode.pages, inode.extents, inode.prealloc, inode.tail = shape.counts
                self._tables.put_inode(inode)
            self._count(inode)

    def _count(self, inode: Inode) -> None:
        self._inodes += 1
        self._allocated += inode.pages
        self._tail += inode.tail
        self._prealloc += inode.prealloc
        if inode.is_directory:
            self._parents[inode.number] = inode.parent
        if inode.nlink and inode.number != ROOT_INODE:
            share = share_of(inode, self._page_size, self._extents)
            before = self._counted.get(inode.parent, Totals())
            self._counted[inode.parent] = before.plus(share)

    def _repair_mappings(self, number: int, shape: Shape) -> Iterator[str]:
        done: set[bytes] = set()
        start, stop = pair_key(number, 0), pair_key(number, MAX_U64)
        for key, value in self._tables.records(Table.EXTENTS, start, stop):
            mapping = mapping_of(key, value, self._page_size)
            if key not in done:
                yield from self._repair_mapping(number, mapping, shape, done)

    def _repair_mapping(
        self, number: int, mapping: Mapping, shape: Shape, done: set[bytes]
    ) -> Iterator[str]:
        """Keep of an extent what nobody else has; the rest becomes a hole."""
        if mapping.page >= shape.behind and self._take(Extent(mapping.start, mapping.count)):
            shape.add(mapping)
            return
        yield f"take from inode {number} what others own of {mapping}: it reads as zeros"
        self._tables.delete(Table.EXTENTS, pair_key(number, mapping.page))
        if not self._is_inside(Extent(mapping.start, mapping.count)):
            return
        first = max(shape.behind, mapping.page)
        rest = Extent(mapping.store_page(first), max(0, mapping.end - first))
        for run in self._pages.unclaimed_runs(rest):
            self._pages.claim(run)
            kept = Mapping(mapping.page + run.start - mapping.start, *run)
            key = pair_key(number, kept.page)
            self._tables.put(Table.EXTENTS, key, pack_extent(run))
            shape.add(kept)
            done.add(key)

    def _is_inside(self, extent: Extent) -> bool:
        within = self._store.superblock.holds(extent)
        return within and extent.end <= self._store.state.store_pages

    def _take(self, extent: Extent) -> bool:
        """Claim pages for an owner, if all of them are to be had."""
        if not self._is_inside(extent):
            return False
        if next(self._pages.unclaimed_runs(extent), None) != extent:
            return False
        return self._pages.claim(extent)

    # Free pages

    def _repair_pending(self) -> Iterator[str]:
        for key, value in self._tables.records(Table.PENDING):
            try:
                if self._take(free_of(key, value)):
                    continue
            except DamagedStoreError:
                pass
            yield "drop a record of pending pages"
            self._tables.delete(Table.PENDING, key)

    def _repair_free(self) -> Iterator[str]:
        for key, value in self._tables.records(Table.FREE):
            if not self._is_free(key, value):
                yield "drop a record of free pages"
                self._tables.delete(Table.FREE, key)
        for run in self._pages.unclaimed_runs(Extent(0, self._store.state.store_pages)):
            if self._tables.get(Table.FREE, id_key(run.start)) != pack_count(run.count):
                yield f"note pages {run} as free"
                self._tables.put(Table.FREE, id_key(run.start), pack_count(run.count))
            if self._tables.get(Table.FREE_BY_SIZE, pair_key(run.count, run.start)) is None:
                yield f"index free pages {run} by size"
                self._tables.put(Table.FREE_BY_SIZE, pair_key(run.count, run.start), b"")
            self._tables.end_batch()
        for key, _ in self._tables.records(Table.FREE_BY_SIZE):
            if not self._is_indexed(key):
                yield "drop a record of the index by size"
                self._tables.delete(Table.FREE_BY_SIZE, key)

    def _is_free(self, key: bytes, value: bytes) -> bool:
        """Whether a record of FREE is one of the longest runs that nobody owns."""
        try:
            extent = free_of(key, value)
        except DamagedStoreError:
            return False
        if not self._is_inside(extent):
            return False
        before = Extent(extent.start - 1, 1)  # the superblock's pages come before any
        behind = Extent(extent.start, self._store.state.store_pages - extent.start)
        runs = self._pages.unclaimed_runs
        return not list(runs(before)) and list(islice(runs(behind), 1)) == [extent]

    def _is_indexed(self, key: bytes) -> bool:
        try:
            count, start = pair_of(key)
        except DamagedStoreError:
            return False
        return self._tables.get(Table.FREE, id_key(start)) == pack_count(count)

    # Counts

    def _repair_directories(self) -> Iterator[str]:
        """Set what directories count: entries, subdirectories, totals."""
        entries = dict.fromkeys(self._parents, 0)
        links = dict.fromkeys(self._parents, 2)
        for key, value in self._tables.records(Table.ENTRIES):
            entries[id_of(key)] += 1
            links[id_of(key)] += Entry.unpack(value).type == stat.S_IFDIR
        trees = tree_totals(self._parents, self._counted)
        for number in self._parents:
            inode = self._tables.inode(number)
            assert inode is not None
            before = inode.pack()
            inode.size = entries[number]
            inode.nlink = links[number] if inode.nlink else 0
            inode.own = self._counted.get(number, Totals())
            inode.tree = trees[number]
            if inode.pack() != before:
                yield f"count what directory {number} holds"
                self._tables.put_inode(inode)
                self._tables.end_batch()

    def _repair_state(self) -> Iterator[str]:
        state = self._store.state
        for name, counted in (
            ("inodes", self._inodes),
            ("allocated_pages", self._allocated),
            ("tail_bytes", self._tail),
            ("prealloc_pages", self._prealloc),
        ):
            if getattr(state, name) != counted:
                yield f"set the filesystem's {name.replace('_', ' ')} to {counted}"
                setattr(state, name, counted)
