"""fsck: a generator of findings. It reads the tables and changes nothing.

Each function holds some invariants of the catalog against the rest, reading its tables in order.
Memory is one bit for each page of the store and some numbers for each directory; files cost none.
Nothing that a catalog holds ends a check early: what does not decode is a finding.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.finding import Finding
from mapfs.filesystem.names_check import NamesCheck, stray_link
from mapfs.filesystem.survey import (
    BEHIND,
    ID_BYTES,
    ByInode,
    DirectoryCounts,
    PageSet,
    Record,
    Shape,
    counts_of,
    free_of,
    inode_of,
    is_id,
    loose,
    mapping_of,
    path_of,
    share_of,
    tree_totals,
)
from mapfs.format.extent import Extent, Mapping
from mapfs.format.records import (
    HAS_ATTRIBUTES,
    ROOT_INODE,
    Inode,
    Table,
    id_key,
    id_of,
    pair_key,
    pair_of,
    unpack_count,
)
from mapfs.format.totals import Totals
from mapfs.store.store import Store

_PROGRESS_RECORDS: Final = 4096

Progress: TypeAlias = Callable[[int, int], None]


def _reported(records: Iterable[Record], report: Callable[[bytes], Finding]) -> Iterator[Finding]:
    """A finding for each inode that `records` belong to."""
    last = b""
    for key, _ in records:
        if len(key) < ID_BYTES:
            yield Finding("record-decodes", "a catalog key is too short")
        elif key[:ID_BYTES] != last:
            yield report(key)
        last = key[:ID_BYTES]


class Check:
    """One run over a store that nobody changes meanwhile."""

    def __init__(self, store: Store, progress: Progress = lambda _done, _total: None) -> None:
        """`progress` is told now and then how many records are checked, and how many there are."""
        self._store = store
        self._transaction = store.transaction
        self._extents = ExtentMap(store.transaction)
        self._page_size = store.page_size
        self._progress = progress
        self._lost = store.backing.lost
        self._total = sum(map(store.catalog.count, Table))
        self._read = 0
        self._pages = PageSet(store.state.store_pages)
        self._budget = 2 * store.state.store_pages
        self._directories: dict[int, DirectoryCounts] = {}
        self._counted: dict[int, Totals] = {}
        self._inodes = self._homes = self._links = 0
        self._allocated = self._tail = self._prealloc = 0

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong, invariant by invariant; nothing for a good store."""
        self._pages.claim(Extent(0, self._store.superblock.metadata_pages))
        yield from self._inode_records()
        names = NamesCheck(self._store, self._records, self._directories)
        yield from names.findings(self._homes, self._links)
        yield from self._tree()
        yield from self._free_space()
        yield from self._accounting()

    def _records(self, table: Table) -> Iterator[Record]:
        read = 0
        for record in self._transaction.scan(table, b"", BEHIND):
            yield record
            read += 1
            if read % _PROGRESS_RECORDS == 0:
                self._read += _PROGRESS_RECORDS
                self._progress(self._read, self._total)
        self._read += read % _PROGRESS_RECORDS

    def _inode_records(self) -> Iterator[Finding]:
        extents, links, orphans, attributes = (
            ByInode(self._records(table))
            for table in (Table.EXTENTS, Table.LINKS, Table.ORPHANS, Table.XATTRS)
        )
        strays = (
            (extents, self._stray_extent),
            (links, stray_link),
            (orphans, self._stray_orphan),
            (attributes, self._stray_attribute),
        )
        for key, value in self._records(Table.INODES):
            self._inodes += 1
            for records, report in strays:
                if records.head < key:
                    yield from _reported(records.before(key), report)
            try:
                inode = inode_of(key, value)
            except DamagedStoreError as error:
                yield Finding("inode-decodes", str(error))
                continue
            yield from self._inode(inode, extents.of(key))
            yield from self._names(inode, links.of(key))
            if orphans.head == key or not inode.nlink:
                yield from self._orphan(inode, orphans.of(key))
            if attributes.head == key:
                yield from self._attributes(inode, attributes.of(key))
            self._count(inode)
        for records, report in strays:
            yield from _reported(records.before(BEHIND), report)
        self._links = links.count

    def _stray_extent(self, key: bytes) -> Finding:
        return Finding("extent-owner", f"extents of inode {id_of(key)}, which is no file")

    def _stray_orphan(self, key: bytes) -> Finding:
        return Finding("orphan", f"inode {id_of(key)} is listed as an orphan and is none")

    def _stray_attribute(self, key: bytes) -> Finding:
        return Finding("attribute-owner", f"attributes of inode {id_of(key)}, which is not there")

    def _inode(self, inode: Inode, records: Iterable[Record]) -> Iterator[Finding]:
        number = inode.number
        if number >= self._store.state.next_id:
            yield Finding("inode-number", f"inode {number} was never handed out")
        shape = Shape(inode, self._page_size)
        lost = False
        for key, value in records:
            try:
                mapping = mapping_of(key, value, self._page_size)
            except DamagedStoreError as error:
                yield Finding("record-decodes", f"extents of inode {number}: {error}")
                continue
            if mapping.page < shape.behind or mapping.count == 0:
                yield Finding("extents-ordered", f"inode {number} maps a page twice")
            shape.add(mapping)
            wrong = list(self._claim(Extent(mapping.start, mapping.count), f"inode {number}"))
            yield from wrong
            lost = lost or (not wrong and self._is_lost(mapping))
        if lost:
            path = path_of(self._transaction, inode)
            yield Finding("bytes-written", f"inode {number}, {path}: the disk refused some bytes")
        if shape.behind and not inode.is_file:
            yield self._stray_extent(id_key(number))
        yield from self._shape(inode, shape)

    def _shape(self, inode: Inode, shape: Shape) -> Iterator[Finding]:
        if shape.counts != counts_of(inode):
            yield Finding(
                "inode-counts",
                f"inode {inode.number}: its extents make (pages, extents, prealloc, tail)"
                f" {shape.counts}, its record says {counts_of(inode)}",
            )

    def _is_lost(self, mapping: Mapping) -> bool:
        start, length = mapping.start * self._page_size, mapping.count * self._page_size
        return bool(self._lost) and self._lost.touches(start, length)

    def _claim(self, extent: Extent, owner: str) -> Iterator[Finding]:
        within = self._store.superblock.holds(extent)
        if not within or extent.end > self._store.state.store_pages:
            yield Finding("extent-inside", f"{owner}: pages {extent} lie outside the store")
            return
        # Once more is mapped than there is, some of it overlaps: do not spend time on all of it.
        self._budget -= extent.count
        if self._budget < 0 or not self._pages.claim(extent):
            yield Finding("page-owned-once", f"{owner}: pages {extent} have another owner too")

    def _names(self, inode: Inode, records: Iterable[Record]) -> Iterator[Finding]:
        """Further names and the home entry make up the link count."""
        found = int(inode.cookie != 0)
        for key, value in records:
            found += 1
            try:
                pair_of(key), unpack_count(value)
            except DamagedStoreError as error:
                yield Finding("record-decodes", f"names of inode {inode.number}: {error}")
        is_root = inode.number == ROOT_INODE
        self._homes += inode.cookie != 0 and not is_root
        expected = min(inode.nlink, int(not is_root)) if inode.is_directory else inode.nlink
        if found != expected:
            yield Finding(
                "link-count",
                f"inode {inode.number} has {found} names, its record says {expected}",
            )

    def _orphan(self, inode: Inode, records: Iterable[Record]) -> Iterator[Finding]:
        listed = False
        for key, _ in records:
            if len(key) != ID_BYTES:
                yield Finding("record-decodes", "the key of an orphan is not a number")
            elif inode.nlink:
                yield self._stray_orphan(key)
            listed = True
        if not listed and inode.nlink == 0 and inode.number != ROOT_INODE:
            yield Finding("orphan", f"inode {inode.number} has no name and is no orphan")

    def _attributes(self, inode: Inode, records: Iterable[Record]) -> Iterator[Finding]:
        if not inode.flags & HAS_ATTRIBUTES:
            yield Finding("attribute-flag", f"inode {inode.number} has attributes it denies")
        for key, _ in records:
            if len(key) == ID_BYTES:
                yield Finding("record-decodes", f"inode {id_of(key)} has a nameless attribute")

    def _count(self, inode: Inode) -> None:
        self._allocated += inode.pages
        self._tail += inode.tail
        self._prealloc += inode.prealloc
        if inode.is_directory:
            self._directories[inode.number] = DirectoryCounts(
                inode.parent, inode.nlink, inode.size, inode.own, inode.tree
            )
        if inode.number != ROOT_INODE and inode.nlink:
            before = self._counted.get(inode.parent, Totals())
            share = share_of(inode, self._page_size, self._extents)
            self._counted[inode.parent] = before.plus(share)

    def _tree(self) -> Iterator[Finding]:
        """Every directory hangs on the root, and counts what is below it."""
        root = self._directories.get(ROOT_INODE)
        if root is None or root.parent != ROOT_INODE or not root.nlink:
            yield Finding("tree-connected", "there is no root directory that is its own parent")
        parents = {
            number: directory.parent
            for number, directory in self._directories.items()
            if directory.nlink
        }
        for number in sorted(loose(parents)):
            yield Finding("tree-connected", f"directory {number} does not hang on the root")
        trees = tree_totals(parents, self._counted)
        for number, directory in self._directories.items():
            own = self._counted.get(number, Totals())
            yield from self._directory_counts(number, directory, own, trees.get(number, own))

    def _directory_counts(
        self, number: int, directory: DirectoryCounts, own: Totals, tree: Totals
    ) -> Iterator[Finding]:
        if directory.nlink == 0 and directory.entries:
            yield Finding("orphan", f"directory {number} is deleted and has entries")
        if directory.entries != directory.size:
            yield Finding("directory-size", f"directory {number} miscounts its entries")
        if directory.nlink and directory.nlink != 2 + directory.subdirs:
            yield Finding("link-count", f"directory {number} has the wrong link count")
        if directory.own != own:
            yield Finding("own-totals", f"directory {number}: {directory.own}, found {own}")
        if directory.tree != tree:
            yield Finding("tree-totals", f"directory {number}: {directory.tree}, found {tree}")

    def _free_space(self) -> Iterator[Finding]:
        free = 0
        for table in (Table.FREE, Table.PENDING):
            for key, value in self._records(table):
                free += table is Table.FREE
                try:
                    extent = free_of(key, value)
                except DamagedStoreError as error:
                    yield Finding("record-decodes", f"table {table.name.lower()}: {error}")
                    continue
                yield from self._claim(extent, f"table {table.name.lower()}")
                size_key = pair_key(extent.count, extent.start)
                indexed = self._transaction.get(Table.FREE_BY_SIZE, size_key) is not None
                if indexed != (table is Table.FREE):
                    yield Finding("free-index", f"free pages {extent} are indexed wrongly")
        by_size = sum(1 for _ in self._records(Table.FREE_BY_SIZE))
        if free != by_size:
            yield Finding("free-index", f"{free} free extents, {by_size} in the index by size")

    def _accounting(self) -> Iterator[Finding]:
        """Stored + slack + free + metadata = size of the store, each page owned or free."""
        state = self._store.state
        lost = self._pages.unclaimed()
        if lost:
            yield Finding("page-owned-once", f"{lost} pages belong to nothing and are not free")
        if not is_id(state.next_id):
            yield Finding("inode-number", f"the next number would be {state.next_id}")
        for name, counted, said in (
            ("inodes", self._inodes, state.inodes),
            ("allocated pages", self._allocated, state.allocated_pages),
            ("tail bytes", self._tail, state.tail_bytes),
            ("preallocated pages", self._prealloc, state.prealloc_pages),
        ):
            if counted != said:
                yield Finding("accounting", f"{name}: counted {counted}, recorded {said}")
