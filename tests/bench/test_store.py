"""What the parts below `Filesystem` cost."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.extent import Extent
from mapfs.format.frames import Change, Kind, pack_frame
from mapfs.format.records import Entry, Inode, Table, id_key, name_key
from tests.unit.support import ROOT

FILE = Inode(17, 0o100644, 0, 0, size=3000, pages=1, extents=1, tail=1096)
DIRECTORY = Inode(18, 0o040755, 0, 0, nlink=2)
KEY = name_key(ROOT, b"name")


@pytest.mark.parametrize("inode", [FILE, DIRECTORY], ids=["file", "directory"])
def test_pack_inode(benchmark: BenchmarkFixture, inode: Inode) -> None:
    assert benchmark(inode.pack)


@pytest.mark.parametrize("inode", [FILE, DIRECTORY], ids=["file", "directory"])
def test_unpack_inode(benchmark: BenchmarkFixture, inode: Inode) -> None:
    assert benchmark(Inode.unpack, 17, inode.pack()).mode == inode.mode


def test_pack_frame(benchmark: BenchmarkFixture) -> None:
    """What creating a file logs."""
    changes: list[Change] = [
        (Table.ENTRIES, KEY, Entry(17, 18, 0o100000).pack()),
        (Table.COOKIES, bytes(16), bytes(17)),
        (Kind.COUNTED, id_key(17), b""),
        (Table.INODES, id_key(17), FILE.pack()),
        (Kind.FIXED, id_key(1), DIRECTORY.pack_fixed()),
        (Kind.STATE, b"", bytes(56)),
    ]
    assert benchmark(pack_frame, changes, 7, 99)


def test_put(benchmark: BenchmarkFixture, fs: Filesystem) -> None:
    transaction = fs.store.transaction

    def put() -> None:
        transaction.put(Table.XATTRS, KEY, b"value")
        transaction.take_unlogged()

    benchmark(put)
    transaction.delete(Table.XATTRS, KEY)


@pytest.mark.parametrize("where", ["running", "catalog", "nowhere"])
def test_get(benchmark: BenchmarkFixture, fs: Filesystem, where: str) -> None:
    transaction = fs.store.transaction
    if where == "running":
        transaction.put(Table.ORPHANS, KEY, b"")
    key = id_key(ROOT) if where == "catalog" else KEY
    table = Table.INODES if where == "catalog" else Table.ORPHANS
    assert (benchmark(transaction.get, table, key) is None) == (where == "nowhere")
    transaction.delete(Table.ORPHANS, KEY)


@pytest.mark.parametrize("extents", [1, 10_000])
def test_find_extent(benchmark: BenchmarkFixture, fs: Filesystem, extents: int) -> None:
    table = ExtentMap(fs.store.transaction)
    for number in range(extents):
        table.insert(99, 2 * number, Extent(2 + 2 * number, 1))
    wanted = 2 * (extents // 2)

    def find() -> None:
        table._last.clear()
        assert table.find(99, wanted) is not None

    benchmark(find)
    table.remove(99, 0)


def test_allocate(benchmark: BenchmarkFixture, fs: Filesystem) -> None:
    allocator = fs.store.allocator

    def allocate() -> None:
        allocator.free(allocator.allocate(1))

    benchmark.pedantic(allocate, rounds=500 if benchmark.enabled else 1)
