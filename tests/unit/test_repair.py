"""fsck: what each kind of damage is called, and what repair makes of it."""

import inspect
import itertools
import json
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mapfs.cli import mapfs
from mapfs.errors import DamagedStoreError
from mapfs.filesystem import check, names_check
from mapfs.filesystem.check import Check
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.filesystem import Filesystem
from mapfs.filesystem.repair import repair
from mapfs.filesystem.repair.opening import obstacles_in, repair_catalog
from mapfs.filesystem.survey import PageSet, loose, tree_totals
from mapfs.format.extent import Extent
from mapfs.format.records import (
    META_LOST,
    META_STATE,
    Entry,
    Inode,
    Listed,
    State,
    Table,
    id_key,
    name_key,
    pack_count,
    pack_extent,
    pack_lost,
    pair_key,
    unpack_count,
    unpack_extent,
)
from mapfs.format.totals import Totals
from mapfs.store.catalog import Catalog
from mapfs.store.opening import open_store
from mapfs.store.store import Store
from tests.unit.support import ME, PAGE, ROOT, content, make, memory_store, names, new_bundle

Changes = dict[Table, dict[bytes, bytes | None]]
RENAME_EXCHANGE = 2


class Sample:
    """A small store at rest with a bit of everything, and what its files hold."""

    def __init__(self, store: Store) -> None:
        fs = Filesystem(store)
        self.dir = fs.mkdir(ROOT, b"dir", 0o755, ME).number
        self.below = fs.mkdir(self.dir, b"below", 0o755, ME).number
        self.deep = fs.mkdir(self.below, b"deep", 0o755, ME).number
        self.empty = fs.mkdir(ROOT, b"empty", 0o700, ME).number
        self.file = make(fs, b"file", b"file" * 2000)
        self.linked = make(fs, b"linked", b"linked", self.dir)
        fs.link(self.linked, ROOT, b"link1")
        fs.link(self.linked, self.below, b"link2")
        self.sparse = make(fs, b"sparse", b"s" * PAGE, self.below)
        for page in (3, 5, 9):
            fs.write(self.sparse, page * PAGE, b"%d" % page)
        self.ahead = make(fs, b"ahead", b"ahead", self.deep)
        fs.fallocate(self.ahead, 1, 0, 5 * PAGE)
        self.symlink = fs.symlink(ROOT, b"symlink", b"dir/below", ME).number
        self.fifo = fs.create(ROOT, b"fifo", stat.S_IFIFO | 0o600, ME).number
        fs.setxattr(self.file, b"user.a", b"value")
        fs.setxattr(self.dir, b"user.b", b"value")
        make(fs, b"gone", b"gone" * PAGE)
        self.last = make(fs, b"last")
        gone = fs.lookup(ROOT, b"gone").number
        fs.unlink(ROOT, b"gone")
        fs.forget(gone)
        while fs.is_dirty or store.allocator.reserved_pages:
            fs.commit(closing=True)
        self.store = store
        self.files = (self.file, self.linked, self.sparse, self.ahead, self.last)
        self.contents = {number: content(fs, number) for number in self.files}
        extents = ExtentMap(store.transaction)
        self.pages = {
            number: {
                page
                for each in extents.mappings(number)
                for page in range(each.start, each.start + each.count)
            }
            for number in self.files
        }

    def records(self) -> Changes:
        catalog = self.store.catalog
        return {table: dict(catalog.scan(table, b"", b"\xff" * 511)) for table in Table}

    def apply(self, changes: Changes) -> None:
        self.store.catalog.apply([changes.get(table, {}) for table in Table])
        self.store.catalog.renew()

    def reopened(self) -> Store:
        """The store as one who opens it sees it."""
        superblock, catalog = self.store.superblock, self.store.catalog
        try:
            return Store(superblock, self.store.backing, catalog)
        except DamagedStoreError:
            obstacles = obstacles_in(catalog, superblock, superblock.limit_pages)
            assert list(repair_catalog(catalog, list(obstacles)))
            return Store(superblock, self.store.backing, catalog)

    def inode(self, number: int) -> Inode:
        value = self.store.catalog.get(Table.INODES, id_key(number))
        assert value is not None
        return Inode.unpack(number, value)

    def put_inode(self, number: int, **values: object) -> None:
        inode = self.inode(number)
        for name, value in values.items():
            setattr(inode, name, value)
        self.apply({Table.INODES: {id_key(number): inode.pack()}})

    def entry(self, parent: int, name: bytes) -> Entry:
        value = self.store.catalog.get(Table.ENTRIES, name_key(parent, name))
        assert value is not None
        return Entry.unpack(value)

    def name(self, parent: int, name: bytes, entry: Entry) -> None:
        """Write an entry and its listing as if it were right."""
        listed = Listed(entry.cookie, entry.inode, entry.type, name).pack()
        self.apply(
            {
                Table.ENTRIES: {name_key(parent, name): entry.pack()},
                Table.COOKIES: {pair_key(parent, entry.cookie): listed},
            }
        )

    def put_state(self, **values: int) -> None:
        value = self.store.catalog.get(Table.META, META_STATE)
        assert value is not None
        state = replace(State.unpack(value), **values)
        self.apply({Table.META: {META_STATE: state.pack()}})

    def extent(self, number: int, page: int = 0) -> Extent:
        value = self.store.catalog.get(Table.EXTENTS, pair_key(number, page))
        assert value is not None
        return unpack_extent(value)

    def map(self, number: int, page: int, extent: Extent | None) -> None:
        value = None if extent is None else pack_extent(extent)
        self.apply({Table.EXTENTS: {pair_key(number, page): value}})

    def first(self, table: Table) -> tuple[bytes, bytes]:
        return next(self.store.catalog.scan(table, b"", b"\xff" * 511))

    def drop(self, table: Table, key: bytes | None = None) -> None:
        self.apply({table: {self.first(table)[0] if key is None else key: None}})

    def forget(self, parent: int, name: bytes) -> None:
        """Take a name and its listing away: only the inode still says that it had one."""
        cookie = self.entry(parent, name).cookie
        self.drop(Table.ENTRIES, name_key(parent, name))
        self.drop(Table.COOKIES, pair_key(parent, cookie))

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self.apply({table: {key: value}})


@pytest.fixture
def sample() -> Iterator[Sample]:
    store = memory_store(256)
    yield Sample(store)
    store.close()


def found(store: Store) -> set[str]:
    return {finding.invariant for finding in Check(store).findings()}


def assert_repaired(sample: Sample, affected: set[int] = frozenset()) -> Filesystem:  # type: ignore[assignment]
    """Repair, and see that it is complete, does nothing twice, and leaves other files alone."""
    assert list(repair(sample.reopened()))
    assert list(Check(sample.reopened()).findings()) == []
    records = sample.records()
    assert list(repair(sample.reopened())) == []
    assert sample.records() == records
    fs = Filesystem(sample.reopened())
    for number in set(sample.files) - affected:
        assert content(fs, number) == sample.contents[number]
    fs.commit()
    assert found(fs.store) == set()
    return fs


# Each kind of damage: the findings it must be among, what makes it, and the files that it ruins.


def cut(table: Table) -> Callable[[Sample], object]:
    """Cut the last byte off the value of a table's first record."""

    def damage(sample: Sample) -> None:
        key, value = sample.first(table)
        sample.put(table, key, value[:-1])

    return damage


def junk(table: Table, key: bytes, value: bytes = b"") -> Callable[[Sample], object]:
    return lambda sample: sample.put(table, key, value)


def overlap(sample: Sample) -> None:
    sample.map(sample.sparse, 3, sample.extent(sample.file))


def overlap_in_part(sample: Sample) -> None:
    """The last page of a file and two behind it, which are free."""
    owned = set().union(*sample.pages.values())
    starts = (int.from_bytes(key, "big") for key in sample.records()[Table.FREE])
    free = next(start for start in starts if start - 1 in owned)
    sample.map(sample.last, 7, Extent(free - 1, 3))


def cycle(sample: Sample) -> None:
    entry = sample.entry(ROOT, b"dir")
    sample.drop(Table.ENTRIES, name_key(ROOT, b"dir"))
    sample.drop(Table.COOKIES, pair_key(ROOT, entry.cookie))
    sample.name(sample.deep, b"up", entry)
    sample.put_inode(sample.dir, parent=sample.deep)


def self_cycle(sample: Sample) -> None:
    sample.put_inode(sample.empty, parent=sample.empty)
    entry = sample.entry(ROOT, b"empty")
    sample.drop(Table.ENTRIES, name_key(ROOT, b"empty"))
    sample.name(sample.empty, b"empty", entry)


def second_directory_name(sample: Sample) -> None:
    entry = sample.entry(ROOT, b"dir")._replace(cookie=sample.entry(ROOT, b"fifo").cookie + 999)
    sample.name(sample.empty, b"again", entry)
    sample.put(Table.LINKS, pair_key(entry.inode, entry.cookie), pack_count(sample.empty))


def same_cookie_twice(sample: Sample) -> None:
    home = sample.entry(sample.dir, b"linked")
    sample.name(sample.empty, b"twin", home)
    sample.put(Table.LINKS, pair_key(home.inode, home.cookie), pack_count(sample.empty))


def same_place_twice(sample: Sample) -> None:
    fifo, file = sample.entry(ROOT, b"fifo"), sample.entry(ROOT, b"file")
    sample.put(
        Table.ENTRIES, name_key(ROOT, b"fifo"), Entry(fifo.inode, file.cookie, fifo.type).pack()
    )


def lost_page(sample: Sample) -> None:
    key, value = sample.first(Table.FREE)
    count = unpack_count(value)
    sample.put(Table.FREE, key, pack_count(count - 1))
    sample.drop(Table.FREE_BY_SIZE, pair_key(count, int.from_bytes(key, "big")))
    sample.put(Table.FREE_BY_SIZE, pair_key(count - 1, int.from_bytes(key, "big")), b"")


def pending_overlap(sample: Sample) -> None:
    """What opening the store would punch."""
    extent = sample.extent(sample.file)
    sample.put(Table.PENDING, id_key(extent.start), pack_count(extent.count))


def forgotten_orphan(sample: Sample) -> None:
    sample.put_inode(sample.fifo, nlink=0, cookie=0)
    entry = sample.entry(ROOT, b"fifo")
    sample.drop(Table.ENTRIES, name_key(ROOT, b"fifo"))
    sample.drop(Table.COOKIES, pair_key(ROOT, entry.cookie))


def many(sample: Sample) -> None:
    """Extents of 2^63 pages everywhere."""
    for page in range(20, 60):
        sample.map(sample.file, page, Extent(2 + page, 1 << 63))


def cookie_zero(sample: Sample) -> None:
    entry = sample.entry(ROOT, b"file")._replace(cookie=0)
    sample.name(ROOT, b"file", entry)


DAMAGES: dict[str, tuple[str, Callable[[Sample], object], set[str]]] = {
    "inode cut": ("inode-decodes", lambda s: s.put(Table.INODES, id_key(s.fifo), b"x"), set()),
    "root astray": ("tree-connected", lambda s: s.put_inode(ROOT, parent=s.dir), set()),
    "root deleted": ("tree-connected", lambda s: s.put_inode(ROOT, nlink=0), set()),
    "root named": ("link-count", lambda s: s.put_inode(ROOT, cookie=77), set()),
    "no type": ("inode-decodes", lambda s: s.put_inode(s.file, mode=0o644), set()),
    "too large": ("inode-decodes", lambda s: s.put_inode(s.file, size=1 << 63), {"file"}),
    "symlink's length": ("inode-decodes", lambda s: s.put_inode(s.symlink, size=5), set()),
    "file as symlink": ("inode-decodes", lambda s: s.put_inode(s.file, mode=0o120644), set()),
    "file as directory": ("entry-target", lambda s: s.put_inode(s.file, mode=0o040644), {"file"}),
    "directory as file": ("entry-parent", lambda s: s.put_inode(s.dir, mode=0o100644), set()),
    "inode's key": ("inode-decodes", junk(Table.INODES, b"12345678longer", b"x" * 200), set()),
    "inode 2": ("inode-decodes", junk(Table.INODES, id_key(2), b"x" * 200), set()),
    "next number": ("inode-number", lambda s: s.put_state(next_id=17), set()),
    "cookie": ("inode-number", cookie_zero, set()),
    "pages": ("inode-counts", lambda s: s.put_inode(s.file, pages=9), set()),
    "extents": ("inode-counts", lambda s: s.put_inode(s.sparse, extents=1), set()),
    "prealloc": ("inode-counts", lambda s: s.put_inode(s.ahead, prealloc=0), set()),
    "tail": ("inode-counts", lambda s: s.put_inode(s.file, tail=1), set()),
    "extent gone": ("inode-counts", lambda s: s.map(s.file, 0, None), {"file"}),
    "extent of none": ("extents-ordered", lambda s: s.map(s.file, 50, Extent(9, 0)), set()),
    "mapped twice": ("extents-ordered", lambda s: s.map(s.file, 1, Extent(200, 1)), set()),
    "outside": ("extent-inside", lambda s: s.map(s.file, 50, Extent(1 << 40, 1)), set()),
    "superblock": ("extent-inside", lambda s: s.map(s.file, 50, Extent(0, 1)), set()),
    "huge": ("record-decodes", lambda s: s.map(s.file, 50, Extent(9, 1 << 63)), set()),
    "many huge": ("record-decodes", many, set()),
    "all pages": ("page-owned-once", lambda s: s.map(s.ahead, 50, Extent(2, 256)), set()),
    "extent cut": ("record-decodes", cut(Table.EXTENTS), {"file"}),
    "extent's key": ("record-decodes", junk(Table.EXTENTS, id_key(ROOT), b""), set()),
    "short key": ("record-decodes", junk(Table.EXTENTS, b"short", b""), set()),
    "no owner": ("extent-owner", lambda s: s.map(9999, 0, Extent(9, 1)), set()),
    "fifo's extent": ("extent-owner", lambda s: s.map(s.fifo, 0, Extent(200, 1)), set()),
    "overlap": ("page-owned-once", overlap, {"sparse"}),
    "overlap in part": ("page-owned-once", overlap_in_part, set()),
    "home": ("home-entry", lambda s: s.put_inode(s.file, cookie=12345), set()),
    "no home": ("link-count", lambda s: s.put_inode(s.file, cookie=0), set()),
    "home elsewhere": ("home-entry", lambda s: s.put_inode(s.linked, parent=s.empty), set()),
    "links": ("link-count", lambda s: s.put_inode(s.linked, nlink=9), set()),
    "no links": ("link-count", lambda s: s.put_inode(s.linked, nlink=0), set()),
    "directory's links": ("link-count", lambda s: s.put_inode(s.dir, nlink=7), set()),
    "directory deleted": ("orphan", lambda s: s.put_inode(s.dir, nlink=0), set()),
    "entry cut": ("record-decodes", cut(Table.ENTRIES), set()),
    "entry's name": ("record-decodes", junk(Table.ENTRIES, name_key(1, b"a/b"), b"x" * 20), set()),
    "entry's key": ("record-decodes", junk(Table.ENTRIES, b"key", b"x" * 20), set()),
    "entry's parent": (
        "entry-parent",
        junk(Table.ENTRIES, name_key(999, b"a"), Entry(1, 2, 3).pack()),
        set(),
    ),
    "entry gone": ("listed-entry", lambda s: s.drop(Table.ENTRIES), set()),
    "inode gone": ("entry-target", lambda s: s.drop(Table.INODES, id_key(s.symlink)), set()),
    "file gone": ("extent-owner", lambda s: s.drop(Table.INODES, id_key(s.file)), {"file"}),
    "directory gone": ("entry-parent", lambda s: s.drop(Table.INODES, id_key(s.dir)), set()),
    "entry of root": ("entry-target", lambda s: s.name(s.dir, b"r", Entry(1, 77, 0o040000)), set()),
    "listing gone": ("entry-listed", lambda s: s.drop(Table.COOKIES), set()),
    "listing cut": ("record-decodes", lambda s: s.put(Table.COOKIES, b"k" * 16, b"x"), set()),
    "long listing": ("listed-entry", junk(Table.COOKIES, b"k" * 16, b"x" * 2000), set()),
    "link gone": ("entry-link", lambda s: s.drop(Table.LINKS), set()),
    "link cut": ("record-decodes", cut(Table.LINKS), set()),
    "stray link": ("link-entry", junk(Table.LINKS, pair_key(1, 5), pack_count(1)), set()),
    "same cookie": ("entry-link", same_cookie_twice, set()),
    "same place": ("entry-listed", same_place_twice, set()),
    "second name": ("link-count", second_directory_name, set()),
    "orphan": ("orphan", lambda s: s.put(Table.ORPHANS, id_key(s.file), b""), set()),
    "orphan of none": ("orphan", junk(Table.ORPHANS, id_key(99999)), set()),
    "orphan's key": ("orphan", junk(Table.ORPHANS, b"x" * 9), set()),
    "forgotten orphan": ("orphan", forgotten_orphan, set()),
    "attributes denied": ("attribute-flag", lambda s: s.put_inode(s.file, flags=0), set()),
    "attribute": ("attribute-owner", junk(Table.XATTRS, name_key(999, b"user.x")), set()),
    "nameless": ("record-decodes", lambda s: s.put(Table.XATTRS, id_key(s.file), b""), set()),
    "cycle": ("tree-connected", cycle, set()),
    "cycle of one": ("tree-connected", self_cycle, set()),
    "directory's size": ("directory-size", lambda s: s.put_inode(s.dir, size=1 << 60), set()),
    "own": ("own-totals", lambda s: s.put_inode(s.dir, own=Totals(5)), set()),
    "tree": ("tree-totals", lambda s: s.put_inode(s.dir, tree=Totals(-5)), set()),
    "free gone": ("free-index", lambda s: s.drop(Table.FREE), set()),
    "free cut": ("record-decodes", cut(Table.FREE), set()),
    "free huge": ("extent-inside", junk(Table.FREE, id_key(90), pack_count(1 << 63)), set()),
    "free index": ("free-index", lambda s: s.drop(Table.FREE_BY_SIZE), set()),
    "index's key": ("free-index", junk(Table.FREE_BY_SIZE, b"x"), set()),
    "lost page": ("page-owned-once", lost_page, set()),
    "pending": ("page-owned-once", pending_overlap, set()),
    "pending's key": ("record-decodes", junk(Table.PENDING, b"x", b"x" * 8), set()),
    "state": ("accounting", lambda s: s.put_state(inodes=1 << 60, tail_bytes=1), set()),
    "allocated": ("accounting", lambda s: s.put_state(allocated_pages=0), set()),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_repaired(sample, name):
    invariant, damage, ruined = DAMAGES[name]
    damage(sample)
    assert invariant in found(sample.reopened())
    assert_repaired(sample, {getattr(sample, each) for each in ruined})


def test_every_invariant_is_tried():
    source = "".join(map(inspect.getsource, (check, names_check)))
    invariants = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    # What the disk refused cannot be repaired.
    assert {invariant for invariant, _, _ in DAMAGES.values()} == invariants - {"bytes-written"}


def test_the_size_of_the_store_is_taken_from_its_file(sample):
    before = sample.records()
    sample.put_state(store_pages=1 << 60)
    assert found(sample.reopened()) == set()
    assert sample.records() == before


def test_a_good_store_is_left_as_it_is(sample):
    before = sample.records()
    assert list(repair(sample.reopened())) == []
    assert sample.records() == before


def test_all_at_once(sample):
    ruined = {sample.file, sample.linked, sample.sparse, sample.ahead}
    for _, damage, _ in DAMAGES.values():
        try:
            damage(sample)
        except (AssertionError, DamagedStoreError, StopIteration):
            continue  # what it would damage is gone
    assert_repaired(sample, ruined)


def test_a_lost_file_is_found_again(sample):
    entry = sample.entry(ROOT, b"file")
    sample.forget(ROOT, b"file")
    fs = assert_repaired(sample)
    lost = fs.resolve(b"lost+found")
    assert stat.S_IMODE(lost.mode) == 0o700
    assert names(fs, lost.number) == [b"#%d" % entry.inode]
    assert fs.getxattr(entry.inode, b"user.a") == b"value"


def test_an_existing_lost_and_found_is_used(sample):
    fs = Filesystem(sample.reopened())
    lost = fs.mkdir(ROOT, b"lost+found", 0o755, ME).number
    make(fs, b"#%d" % sample.file, b"in the way", lost)
    fs.commit(closing=True)
    sample.forget(ROOT, b"file")
    fs = assert_repaired(sample)
    assert names(fs, lost) == [b"#%d" % sample.file, b"#%d_" % sample.file]


def test_a_file_named_lost_and_found_stays(sample):
    fs = Filesystem(sample.reopened())
    make(fs, b"lost+found", b"mine")
    fs.commit(closing=True)
    sample.forget(ROOT, b"file")
    fs = assert_repaired(sample)
    assert content(fs, fs.resolve(b"lost+found").number) == b"mine"
    assert names(fs, fs.resolve(b"lost+found_").number) == [b"#%d" % sample.file]


def test_a_tree_survives_its_root(sample):
    sample.drop(Table.INODES, id_key(ROOT))
    fs = assert_repaired(sample)
    assert fs.resolve(b"dir/below/sparse").number == sample.sparse


def test_a_cycle_keeps_what_is_in_it(sample):
    cycle(sample)
    fs = assert_repaired(sample)
    top = names(fs, fs.resolve(b"lost+found").number)
    assert len(top) == 1
    assert fs.inode(sample.ahead).parent == sample.deep


def test_only_shared_pages_become_a_hole(sample):
    overlap_in_part(sample)
    fs = assert_repaired(sample)
    kept = ExtentMap(fs.store.transaction).mappings(sample.last)
    assert [(each.page, each.count) for each in kept] == [(8, 2)]


OBSTACLES: dict[str, Callable[[Sample], object]] = {
    "root cut": lambda s: s.put(Table.INODES, *cut_root(s)),
    "root gone": lambda s: s.drop(Table.INODES, id_key(ROOT)),
    "root a file": lambda s: s.put_inode(ROOT, mode=0o100644),
    "last number": lambda s: s.put_state(next_id=(1 << 64) - 1),
    "counts": lambda s: s.put_state(inodes=(1 << 64) - 1, tail_bytes=1 << 63),
    "no state": lambda s: s.drop(Table.META, META_STATE),
    "state cut": lambda s: s.put(Table.META, META_STATE, b"x"),
}


def cut_root(sample: Sample) -> tuple[bytes, bytes]:
    key, value = sample.first(Table.INODES)
    return key, value[:-1]


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_prevents_opening(sample, name):
    OBSTACLES[name](sample)
    with pytest.raises(DamagedStoreError):
        Store(sample.store.superblock, sample.store.backing, sample.store.catalog)
    fs = assert_repaired(sample)
    assert fs.resolve(b"dir/below/sparse").number == sample.sparse
    assert stat.S_IMODE(fs.inode(ROOT).mode) == 0o755


@pytest.mark.parametrize("value", [b"x", pack_lost([(0, 1 << 62)])])
def test_a_record_of_lost_bytes_that_makes_no_sense(sample, value):
    sample.put(Table.META, META_LOST, value)
    with pytest.raises(DamagedStoreError, match="lost bytes"):
        Store(sample.store.superblock, sample.store.backing, sample.store.catalog)
    assert found(sample.reopened()) == set()


def test_repair_writes_no_pages(sample):
    pages = 256 * PAGE
    before = b"".join(map(bytes, sample.store.backing.read(0, pages)))
    pending_overlap(sample)
    overlap(sample)
    list(repair(sample.reopened()))
    assert b"".join(map(bytes, sample.store.backing.read(0, pages))) == before


def test_repair_says_what_it_does_before(sample):
    sample.drop(Table.COOKIES)
    before = sample.records()
    assert next(repair(sample.reopened()))
    assert sample.records() == before


def test_batches(sample, monkeypatch):
    monkeypatch.setattr("mapfs.filesystem.repair.tables._BATCH_CHANGES", 1)
    monkeypatch.setattr("mapfs.filesystem.repair.tables._PIECE_RECORDS", 2)
    for _, damage, _ in DAMAGES.values():
        try:
            damage(sample)
        except (AssertionError, DamagedStoreError, StopIteration):
            continue
    assert_repaired(sample, set(sample.files))


# Random damage

Mutation = tuple[Table, int, int, int, int]
TABLES = [table for table in Table if table is not Table.META]


@st.composite
def mutations(draw: st.DrawFn) -> Mutation:
    table = draw(st.sampled_from(TABLES))
    kind = draw(st.integers(0, 4))
    where, offset = draw(st.integers(0, 30)), draw(st.integers(0, 300))
    return table, kind, where, offset, draw(st.integers(0, 255))


def mutated(records: dict[bytes, bytes], mutation: Mutation) -> dict[bytes, bytes | None]:
    """Delete a record, change a byte of its value or key, cut it, or copy it to another key."""
    if not records:
        return {}
    _, kind, where, offset, byte = mutation
    key = sorted(records)[where % len(records)]
    value = records[key]
    if kind == 0:
        return {key: None}
    if kind == 1 and value:
        changed = bytearray(value)
        changed[offset % len(value)] = byte
        return {key: bytes(changed)}
    if kind == 2:
        return {key: value[: offset % (len(value) + 1)]}
    moved = bytearray(key)
    moved[offset % len(key)] = byte
    return {bytes(moved): value} if kind == 3 else {key: None, bytes(moved): value}


def affected_by(sample: Sample, table: Table, changes: dict[bytes, bytes | None]) -> set[int]:
    """The files that damage to INODES and EXTENTS may ruin; the other tables cannot."""
    affected: set[int] = set()
    if table not in (Table.INODES, Table.EXTENTS):
        return affected
    pages = sample.pages
    for key, value in changes.items():
        affected.add(int.from_bytes(key[:8], "big"))
        if table is Table.EXTENTS and value is not None and len(value) == 16:
            extent = unpack_extent(value)
            taken = range(extent.start, extent.end)
            affected |= {number for number in pages if any(p in taken for p in pages[number])}
    return affected


@settings(max_examples=300)
@given(st.lists(mutations(), min_size=1, max_size=8))
def test_random_damage_is_repaired(damage):
    store = memory_store(256)
    try:
        sample = Sample(store)
        records = sample.records()
        affected: set[int] = set()
        for mutation in damage:
            changes = mutated(records[mutation[0]], mutation)  # type: ignore[arg-type]
            affected |= affected_by(sample, mutation[0], changes)
            sample.apply({mutation[0]: changes})
        if found(sample.reopened()):
            assert_repaired(sample, affected)
        else:
            assert list(repair(sample.reopened())) == []
    finally:
        store.close()


# The parts


@given(st.lists(st.tuples(st.integers(0, 299), st.integers(1, 300))))
def test_page_set(extents):
    pages = PageSet(300)
    model: set[int] = set()
    for start, count in extents:
        extent = Extent(start, min(count, 300 - start))
        wanted = set(range(extent.start, extent.end))
        assert pages.claim(extent) == (not wanted & model)
        model |= wanted
    assert pages.unclaimed() == 300 - len(model)
    runs = list(pages.unclaimed_runs(Extent(0, 300)))
    assert {page for run in runs for page in range(run.start, run.end)} == set(range(300)) - model
    assert all(one.end < other.start for one, other in itertools.pairwise(runs))


def test_tree_of_numbers_is_linear_and_safe():
    chain = {1: 1} | {number: number - 1 for number in range(2, 200_000)}
    assert loose(chain) == set()
    assert tree_totals(chain, {199_999: Totals(1)})[1] == Totals(1)
    ring = {1: 1, 5: 6, 6: 7, 7: 5, 8: 7, 9: 99}
    assert loose(ring) == {5, 6, 7, 8, 9}
    assert tree_totals(ring, {8: Totals(1)})[7] == Totals(1)


# The command


def damaged_bundle(path: Path) -> Path:
    """A store whose only file has lost its name: entry and listing are gone."""
    bundle = new_bundle(path)
    fs = Filesystem(open_store(bundle))
    number = make(fs, b"file", b"content")
    fs.close()
    with_name = open_store(bundle)
    with_name.transaction.delete(Table.ENTRIES, name_key(ROOT, b"file"))
    listings = with_name.transaction.scan(Table.COOKIES, b"", b"\xff" * 16)
    with_name.transaction.delete(Table.COOKIES, next(iter(listings))[0])
    commit = with_name.freeze()
    commit.write()
    with_name.finish()
    with_name.close()
    assert number
    return bundle


def fsck(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(mapfs, ["fsck", *map(str, arguments)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout


def test_command(tmp_path):
    bundle = damaged_bundle(tmp_path / "a.mapfs")
    before = (bundle / "catalog").read_bytes()
    code, output = fsck(bundle)
    assert code == 4
    assert output.endswith(" errors\n")
    assert (bundle / "catalog").read_bytes() == before
    code, output = fsck("--repair", bundle)
    assert code == 1
    assert "repair: put inode 16 into directory" in output
    assert output.endswith("all corrected\n")
    catalog = (bundle / "catalog").read_bytes()
    assert fsck("--repair", bundle) == (0, f"{bundle}: clean\n")
    assert fsck(bundle) == (0, f"{bundle}: clean\n")
    assert (bundle / "catalog").read_bytes() == catalog
    fs = Filesystem(open_store(bundle))
    assert content(fs, fs.resolve(b"lost+found/#16").number) == b"content"
    fs.close()


def test_command_as_json(tmp_path):
    bundle = damaged_bundle(tmp_path / "a.mapfs")
    code, output = fsck("--json", bundle)
    assert code == 4
    findings = json.loads(output)
    code, output = fsck("--json", "--repair", bundle)
    report = json.loads(output)
    assert code == 1
    assert report["findings"] == findings
    assert report["repairs"]
    assert report["left"] == []
    code, output = fsck("--json", "--repair", bundle)
    assert (code, json.loads(output)) == (0, {"findings": [], "repairs": [], "left": []})


def test_command_refuses_a_store_in_use(tmp_path):
    bundle = new_bundle(tmp_path / "a.mapfs")
    store = open_store(bundle, read_only=True)
    assert fsck("--repair", bundle)[0] == 8
    store.close()
    assert fsck(bundle)[0] == 0
    assert fsck(tmp_path / "none")[0] == 8


def crashed_bundle(path: Path) -> Path:
    """What is left when a daemon dies: some is committed, some in the log."""
    bundle = new_bundle(path)
    fs = Filesystem(open_store(bundle))
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    make(fs, b"one", b"one", directory)
    fs.commit()
    fs.write(make(fs, b"two", b"two", directory), 100, b"more")
    fs.unlink(directory, b"one")
    fs.store.close()  # without a commit
    return bundle


def test_a_crashed_store_is_clean_and_is_not_changed(tmp_path):
    bundle = crashed_bundle(tmp_path / "a.mapfs")
    before = (bundle / "catalog").read_bytes()
    assert fsck(bundle) == (0, f"{bundle}: clean\n")
    assert fsck("--repair", bundle) == (0, f"{bundle}: clean\n")
    assert fsck(bundle) == (0, f"{bundle}: clean\n")
    assert (bundle / "catalog").read_bytes() == before
    fs = Filesystem(open_store(bundle))
    assert names(fs, fs.resolve(b"d").number) == [b"two"]
    fs.close()
    assert fsck(bundle) == (0, f"{bundle}: clean\n")


def test_a_crashed_and_damaged_store_keeps_what_was_logged(tmp_path):
    bundle = crashed_bundle(tmp_path / "a.mapfs")
    with Catalog(bundle / "catalog") as catalog:
        changes: list[dict[bytes, bytes | None]] = [{} for _ in Table]
        changes[Table.COOKIES] = {pair_key(ROOT, 17): None}
        catalog.apply(changes)
    assert fsck("--repair", bundle)[0] == 1
    assert fsck(bundle)[0] == 0
    fs = Filesystem(open_store(bundle))
    two = fs.resolve(b"d/two")
    assert content(fs, two.number) == b"two" + bytes(97) + b"more"
    fs.close()
    assert fsck(bundle)[0] == 0


def test_a_store_that_cannot_be_opened_is_repaired(tmp_path):
    bundle = crashed_bundle(tmp_path / "a.mapfs")
    with Catalog(bundle / "catalog") as catalog:
        changes: list[dict[bytes, bytes | None]] = [{} for _ in Table]
        changes[Table.META] = {META_STATE: None}
        changes[Table.INODES] = {id_key(ROOT): None}
        catalog.apply(changes)
    code, output = fsck(bundle)
    assert code == 4
    assert output == (
        "accounting: there is no state\ntree-connected: there is no root directory\n"
        f"{bundle}: 2 errors\n"
    )
    code, output = fsck("--repair", bundle)
    assert code == 1
    assert "repair: discard the log" in output
    assert fsck(bundle)[0] == 0
    fs = Filesystem(open_store(bundle))
    assert content(fs, fs.resolve(b"d/one").number) == b"one"
    fs.close()
    assert fsck(bundle)[0] == 0
