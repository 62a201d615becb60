"""The check of the store: each invariant, broken in the tables, gives the finding of its name."""

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mapfs.filesystem.check import Check
from mapfs.filesystem.filesystem import Filesystem
from mapfs.filesystem.finding import Finding
from mapfs.format.extent import Extent
from mapfs.format.records import (
    Entry,
    Inode,
    Listed,
    Table,
    id_key,
    id_of,
    name_key,
    pack_count,
    pack_extent,
    pair_key,
    unpack_count,
    unpack_mapping,
)
from mapfs.format.totals import Totals
from mapfs.store.catalog import Catalog
from mapfs.store.machine_pages import MachinePages
from mapfs.store.opening import open_store
from mapfs.store.store import Store
from tests.unit.support import ME, PAGE, ROOT, findings, make, memory_store, open_fs

D, F, S = 16, 18, 20  # the numbers of the directory, the file and the sparse file


@pytest.fixture
def fs() -> Filesystem:
    """d/, f of two pages with a second name d/g, s with two extents, and an orphan."""
    fs = Filesystem(memory_store(64))
    assert fs.mkdir(ROOT, b"d", 0o755, ME).number == D
    assert make(fs, b"f", b"x" * 5000) == F
    assert make(fs, b"s", b"x" * PAGE) == S
    fs.write(S, 5 * PAGE, b"x" * 10)
    fs.link(F, D, b"g")
    fs.setxattr(F, b"user.a", b"1")
    orphan = make(fs, b"gone")
    fs.unlink(ROOT, b"gone")
    assert fs.is_orphan(orphan)
    assert findings(fs) == []
    return fs


def change_inode(store: Store, number: int, **fields: object) -> None:
    value = store.transaction.get(Table.INODES, id_key(number))
    assert value is not None
    inode = Inode.unpack(number, value)
    for name, field in fields.items():
        setattr(inode, name, field)
    store.transaction.put(Table.INODES, id_key(number), inode.pack())


def inode(store: Store, number: int) -> Inode:
    value = store.transaction.get(Table.INODES, id_key(number))
    assert value is not None
    return Inode.unpack(number, value)


def first_mapping(store: Store, number: int) -> tuple[bytes, Extent]:
    keys = pair_key(number, 0), pair_key(number, 99)
    key, value = next(store.transaction.scan(Table.EXTENTS, *keys))
    mapping = unpack_mapping(key, value)
    return key, Extent(mapping.start, mapping.count)


def first_free(store: Store) -> Extent:
    key, value = next(store.transaction.scan(Table.PENDING, id_key(0), b"\xff" * 9))
    return Extent(id_of(key), unpack_count(value))


def entry(store: Store, parent: int, name: bytes) -> Entry:
    value = store.transaction.get(Table.ENTRIES, name_key(parent, name))
    assert value is not None
    return Entry.unpack(value)


def with_totals(totals: Totals, **more: int) -> Totals:
    return totals.plus(Totals(**more))


BREAKS: dict[str, tuple[Callable[[Store], object], set[str]]] = {}


def breaks(*names: str) -> Callable[[Callable[[Store], object]], Callable[[Store], object]]:
    """Register a way to break a store, and all that the check then finds."""

    def register(way: Callable[[Store], object]) -> Callable[[Store], object]:
        BREAKS[way.__name__] = (way, set(names))
        return way

    return register


@breaks("inode-number")
def number_from_the_future(store: Store) -> None:
    store.state.next_id = 20


@breaks("inode-counts", "accounting", "own-totals", "tree-totals")
def miscounted_pages(store: Store) -> None:
    change_inode(store, S, pages=3)


@breaks("inode-counts")
def miscounted_extents(store: Store) -> None:
    change_inode(store, S, extents=1)


@breaks("inode-counts", "accounting", "own-totals", "tree-totals")
def miscounted_tail(store: Store) -> None:
    change_inode(store, F, tail=1)


@breaks("inode-counts", "accounting", "own-totals", "tree-totals")
def miscounted_preallocation(store: Store) -> None:
    change_inode(store, F, prealloc=1)


@breaks("extents-ordered", "page-owned-once", "inode-counts")
def page_mapped_twice(store: Store) -> None:
    _, extent = first_mapping(store, F)
    store.transaction.put(Table.EXTENTS, pair_key(F, 1), pack_extent(Extent(extent.start + 1, 1)))


@breaks("extent-inside", "page-owned-once")
def extent_outside(store: Store) -> None:
    key, _ = first_mapping(store, F)
    store.transaction.put(Table.EXTENTS, key, pack_extent(Extent(1 << 40, 2)))


@breaks("extent-inside", "page-owned-once")
def extent_in_the_superblock(store: Store) -> None:
    key, _ = first_mapping(store, F)
    store.transaction.put(Table.EXTENTS, key, pack_extent(Extent(0, 2)))


@breaks("page-owned-once")
def page_with_two_owners(store: Store) -> None:
    _, extent = first_mapping(store, F)
    key, other = first_mapping(store, S)
    assert other.count == 1
    store.transaction.put(Table.EXTENTS, key, pack_extent(Extent(extent.start, 1)))


@breaks("page-owned-once")
def page_with_no_owner(store: Store) -> None:
    free = first_free(store)
    store.transaction.delete(Table.PENDING, id_key(free.start))


@breaks("page-owned-once")
def free_page_with_an_owner(store: Store) -> None:
    _, extent = first_mapping(store, F)
    store.transaction.put(Table.PENDING, id_key(extent.start), pack_count(1))


@breaks("extent-owner", "page-owned-once")
def extent_of_nobody(store: Store) -> None:
    free = first_free(store)
    store.transaction.put(Table.EXTENTS, pair_key(999, 0), pack_extent(Extent(free.start, 1)))
    # Such pages are neither a file's nor free.
    store.transaction.delete(Table.PENDING, id_key(free.start))
    behind = Extent(free.start + 1, free.count - 1)
    store.transaction.put(Table.PENDING, id_key(behind.start), pack_count(behind.count))


@breaks("home-entry")
def listing_without_home(store: Store) -> None:
    """The listing of a name is gone, and the name itself with it."""
    cookie = entry(store, ROOT, b"s").cookie
    store.transaction.delete(Table.ENTRIES, name_key(ROOT, b"s"))
    store.transaction.delete(Table.COOKIES, pair_key(ROOT, cookie))
    change_inode(store, ROOT, size=2)


@breaks("link-count")
def wrong_link_count(store: Store) -> None:
    change_inode(store, F, nlink=3)


@breaks("link-count")
def wrong_link_count_of_a_directory(store: Store) -> None:
    change_inode(store, ROOT, nlink=9)


@breaks("entry-parent")
def entry_in_no_directory(store: Store) -> None:
    listed = Listed(500, F, stat.S_IFREG, b"x")
    store.state.next_id = 1000
    store.transaction.put(Table.ENTRIES, name_key(S, b"x"), Entry(F, 500, stat.S_IFREG).pack())
    store.transaction.put(Table.COOKIES, pair_key(S, 500), listed.pack())


@breaks("entry-target", "entry-listed", "listed-entry")
def entry_of_another_type(store: Store) -> None:
    was = entry(store, ROOT, b"s")
    wrong = Entry(was.inode, was.cookie, stat.S_IFIFO)
    store.transaction.put(Table.ENTRIES, name_key(ROOT, b"s"), wrong.pack())


@breaks("entry-target", "inode-number", "directory-size")
def entry_of_nothing(store: Store) -> None:
    listed = Listed(500, 999, stat.S_IFREG, b"x")
    store.transaction.put(Table.ENTRIES, name_key(ROOT, b"x"), Entry(999, 500, stat.S_IFREG).pack())
    store.transaction.put(Table.COOKIES, pair_key(ROOT, 500), listed.pack())


@breaks("entry-link", "link-count")
def link_unknown_to_its_inode(store: Store) -> None:
    cookie = entry(store, D, b"g").cookie
    store.transaction.delete(Table.LINKS, pair_key(F, cookie))


@breaks("entry-listed", "home-entry")
def entry_that_is_not_listed(store: Store) -> None:
    cookie = entry(store, ROOT, b"s").cookie
    store.transaction.delete(Table.COOKIES, pair_key(ROOT, cookie))


@breaks("listed-entry")
def listed_and_not_named(store: Store) -> None:
    listed = Listed(500, F, stat.S_IFREG, b"ghost")
    store.transaction.put(Table.COOKIES, pair_key(ROOT, 500), listed.pack())


@breaks("link-entry", "link-count")
def link_without_entry(store: Store) -> None:
    store.transaction.put(Table.LINKS, pair_key(F, 500), pack_count(ROOT))


@breaks("orphan")
def orphan_with_a_name(store: Store) -> None:
    store.transaction.put(Table.ORPHANS, id_key(F), b"")


@breaks("orphan")
def orphan_that_is_not_there(store: Store) -> None:
    store.transaction.put(Table.ORPHANS, id_key(999), b"")


@breaks("orphan")
def nameless_and_no_orphan(store: Store) -> None:
    (key, _), *_ = store.transaction.scan(Table.ORPHANS, id_key(0), b"\xff" * 9)
    store.transaction.delete(Table.ORPHANS, key)


@breaks("attribute-owner")
def attributes_of_nobody(store: Store) -> None:
    store.transaction.put(Table.XATTRS, name_key(999, b"user.a"), b"1")


@breaks("attribute-flag")
def attributes_of_an_inode_without(store: Store) -> None:
    store.transaction.put(Table.XATTRS, name_key(ROOT, b"user.a"), b"1")


@breaks("tree-connected", "home-entry", "entry-link", "own-totals", "tree-totals")
def directory_above_itself(store: Store) -> None:
    change_inode(store, D, parent=D)


@breaks("directory-size")
def wrong_directory_size(store: Store) -> None:
    change_inode(store, ROOT, size=7)


@breaks("own-totals")
def wrong_own_totals(store: Store) -> None:
    change_inode(store, ROOT, own=with_totals(inode(store, ROOT).own, at_2m=1))


@breaks("tree-totals")
def wrong_tree_totals(store: Store) -> None:
    change_inode(store, D, tree=Totals(files=1))


@breaks("free-index")
def free_extent_that_is_not_indexed(store: Store) -> None:
    free = first_free(store)
    store.transaction.delete(Table.PENDING, id_key(free.start))
    store.transaction.put(Table.FREE, id_key(free.start), pack_count(free.count))


@breaks("free-index")
def index_of_no_free_extent(store: Store) -> None:
    store.transaction.put(Table.FREE_BY_SIZE, pair_key(3, 60), b"")


@breaks("free-index")
def pending_and_indexed(store: Store) -> None:
    free = first_free(store)
    store.transaction.put(Table.FREE_BY_SIZE, pair_key(free.count, free.start), b"")


@breaks("accounting")
def miscounted_inodes(store: Store) -> None:
    store.state.inodes += 1


@breaks("accounting")
def miscounted_allocation(store: Store) -> None:
    store.state.allocated_pages -= 1


@breaks("accounting")
def miscounted_slack(store: Store) -> None:
    store.state.tail_bytes += 1
    store.state.prealloc_pages += 1


@breaks(
    "inode-decodes",
    "entry-target",
    "accounting",
    "own-totals",
    "tree-totals",
    "page-owned-once",
    "extent-owner",
    "attribute-owner",
    "link-entry",
)
def inode_that_does_not_decode(store: Store) -> None:
    store.transaction.put(Table.INODES, id_key(F), b"short")


@breaks("record-decodes")
def attribute_key_that_does_not_decode(store: Store) -> None:
    store.transaction.put(Table.XATTRS, b"abc", b"1")


@breaks("record-decodes")
def listing_that_does_not_decode(store: Store) -> None:
    store.transaction.put(Table.COOKIES, pair_key(D, 600), b"")


@breaks("bytes-written")
def bytes_that_the_disk_refused(store: Store) -> None:
    _, extent = first_mapping(store, F)
    store.backing.lost = MachinePages([(extent.start * PAGE, 1)])


@pytest.mark.parametrize(("way", "expected"), BREAKS.values(), ids=BREAKS)
def test_each_invariant(fs: Filesystem, way: Callable[[Store], object], expected: set[str]) -> None:
    way(fs.store)
    found = list(Check(fs.store).findings())
    assert {finding.invariant for finding in found} == expected
    assert all(finding.message for finding in found)
    fs.store.close()


def test_every_invariant_of_the_check_is_broken_here() -> None:
    source = Path(Check.findings.__code__.co_filename).read_text()
    named = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    assert named
    assert set().union(*(names for _, names in BREAKS.values())) >= named


def test_lost_bytes_are_those_of_a_path() -> None:
    fs = Filesystem(memory_store(64))
    directory = fs.mkdir(ROOT, b"a directory", 0o755, ME).number
    number = make(fs, b"file", b"x" * 3 * PAGE, directory)
    make(fs, b"other", b"x" * 3 * PAGE)
    _, extent = first_mapping(fs.store, number)
    fs.store.backing.lost = MachinePages([((extent.end - 1) * PAGE, PAGE)])
    fs.flush()
    fs.store.allocator.settle()
    (found,) = Check(fs.store).findings()
    assert f"inode {number}, '/a directory/file':" in found.message
    fs.close()


def test_a_good_store(fs: Filesystem) -> None:
    assert list(Check(fs.store).findings()) == []
    fs.close()


def test_a_check_of_a_store_at_rest_changes_nothing(bundle: Path) -> None:
    fs = open_fs(bundle)
    make(fs, b"f", b"x" * 5000)
    fs.close()
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    store = open_store(bundle, read_only=True)
    assert list(Check(store).findings()) == []
    store.close()
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before


def test_damage_at_rest_is_found(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"f", b"x" * 5000)
    fs.close()
    with Catalog(bundle / "catalog") as catalog:
        catalog.apply([{id_key(number): None} if table is Table.INODES else {} for table in Table])
    store = open_store(bundle, read_only=True)
    found = list(Check(store).findings())
    assert {finding.invariant for finding in found} >= {"entry-target", "extent-owner"}
    assert all(isinstance(finding, Finding) for finding in found)
    store.close()
