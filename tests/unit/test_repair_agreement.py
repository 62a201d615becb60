"""Repair of one damaged record where others agree against it: everything comes back as it was."""

import contextlib
import stat
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from mapfs.filesystem.check import Check
from mapfs.filesystem.filesystem import Filesystem
from mapfs.filesystem.repair import repair
from mapfs.format.extent import Extent
from mapfs.format.records import Entry, Listed, Table, id_key, id_of, name_of, pair_key
from tests.unit.support import ROOT, content, memory_store, names
from tests.unit.test_repair import Changes, Sample, assert_repaired, found

INODES = (
    "file", "linked", "sparse", "ahead", "last", "symlink", "fifo", "dir", "below", "deep", "empty"
)  # fmt: skip
TYPE_BITS = [1 << bit for bit in range(12, 16)]


@pytest.fixture
def sample() -> Iterator[Sample]:
    store = memory_store(256)
    yield Sample(store)
    store.close()


def tree(fs: Filesystem) -> dict[bytes, Any]:
    """What each path leads to: number, mode, links, and what can be read there."""
    shown: dict[bytes, Any] = {}
    below = [(ROOT, b"")]
    while below:
        number, path = below.pop()
        for listed in list(fs.readdir(number))[2:]:
            inode = fs.lookup(number, listed.name)
            shown[path + listed.name] = (
                inode.number,
                inode.mode,
                inode.nlink,
                content(fs, inode.number) if inode.is_file else inode.target,
            )
            if inode.is_directory:
                below.append((inode.number, path + listed.name + b"/"))
    return shown


def tables_of(sample: Sample) -> Changes:
    """Everything but the state, which counts commits."""
    return {table: each for table, each in sample.records().items() if table is not Table.META}


def assert_as_before(sample: Sample, table: Table, key: bytes, value: bytes | None) -> None:
    """Damage one record, repair, and see that nothing is missing and nothing is new."""
    records, before = tables_of(sample), tree(Filesystem(sample.reopened()))
    sample.apply({table: {key: value}})
    assert found(sample.reopened())
    assert list(repair(sample.reopened()))
    assert list(Check(sample.reopened()).findings()) == []
    assert tables_of(sample) == records
    assert tree(Filesystem(sample.reopened())) == before


def flipped(value: bytes, bit: int) -> bytes:
    """A record of INODES with another mode and all else as it was."""
    return (int.from_bytes(value[:4], "little") ^ bit).to_bytes(4, "little") + value[4:]


@pytest.mark.parametrize("bit", TYPE_BITS, ids=oct)
@pytest.mark.parametrize("name", INODES)
def test_an_inode_of_another_type_than_its_names_gets_its_type_back(sample, name, bit):
    key = id_key(getattr(sample, name))
    value = sample.records()[Table.INODES][key]
    assert_as_before(sample, Table.INODES, key, flipped(value, bit))


def test_a_file_that_became_a_socket_keeps_its_content(sample):
    """Bit 14 of a regular file's mode makes a socket of it, whose extents nobody owns."""
    sample.put_inode(sample.file, mode=stat.S_IFSOCK | 0o644)
    assert "extent-owner" in found(sample.reopened())
    fs = assert_repaired(sample)
    assert fs.resolve(b"file").is_file


def test_a_directory_that_became_a_device_keeps_its_names(sample):
    key = id_key(sample.dir)
    value = sample.records()[Table.INODES][key]
    sample.put(Table.INODES, key, flipped(value, stat.S_IFDIR ^ stat.S_IFBLK))
    assert "inode-decodes" in found(sample.reopened())
    fs = assert_repaired(sample)
    assert fs.resolve(b"dir/below/sparse").number == sample.sparse


def test_a_file_without_a_home_that_became_a_socket_keeps_its_content(sample):
    """Its names tell nothing then, but its extents do, and the count of its pages."""
    sample.put_inode(sample.file, mode=stat.S_IFSOCK | 0o644, cookie=0)
    fs = assert_repaired(sample)
    assert fs.inode(sample.file).is_file


def test_a_fifo_that_is_given_an_extent_stays_a_fifo(sample):
    sample.map(sample.fifo, 0, Extent(200, 1))
    fs = assert_repaired(sample)
    assert stat.S_ISFIFO(fs.resolve(b"fifo").mode)


def test_a_file_whose_names_are_wrong_keeps_its_content(sample):
    """Two records say that it is a FIFO: its extents weigh more."""
    sample.name(ROOT, b"file", sample.entry(ROOT, b"file")._replace(type=stat.S_IFIFO))
    fs = assert_repaired(sample)
    assert fs.resolve(b"file").is_file


def test_a_directory_whose_names_are_wrong_keeps_what_is_in_it(sample):
    sample.name(ROOT, b"dir", sample.entry(ROOT, b"dir")._replace(type=stat.S_IFREG))
    fs = assert_repaired(sample)
    assert fs.resolve(b"dir/below/sparse").number == sample.sparse


def entries(sample: Sample) -> list[tuple[bytes, Entry]]:
    return [(key, Entry.unpack(each)) for key, each in sample.records()[Table.ENTRIES].items()]  # type: ignore[arg-type]


def each_entry() -> Iterator[tuple[Sample, bytes, Entry]]:
    """Every entry of the sample, each in a store of its own that may be damaged."""
    for index in count():
        with contextlib.closing(memory_store(256)) as store:
            sample = Sample(store)
            all_entries = entries(sample)
            if index == len(all_entries):
                return
            yield sample, *all_entries[index]


@pytest.mark.parametrize(
    "change",
    [
        lambda s, e: e._replace(inode=s.last if e.inode != s.last else s.file).pack(),
        lambda s, e: e._replace(inode=s.empty if e.inode != s.empty else s.dir).pack(),
        lambda _, e: e._replace(inode=ROOT).pack(),
        lambda _, e: e._replace(inode=9999).pack(),
        lambda _, e: e._replace(type=stat.S_IFSOCK).pack(),
        lambda _, e: e.pack()[:-1],
        lambda *_: None,
    ],
    ids=["file", "directory", "root", "nothing", "type", "cut", "gone"],
)
def test_an_entry_against_its_listing_and_its_inode_is_made_anew(change):
    for sample, key, entry in each_entry():
        assert_as_before(sample, Table.ENTRIES, key, change(sample, entry))


@pytest.mark.parametrize(
    "change",
    [
        lambda s, e: e._replace(inode=s.last if e.inode != s.last else s.file).pack(),
        lambda _, e: e._replace(inode=9999).pack(),
        lambda _, e: e._replace(type=stat.S_IFSOCK).pack(),
        lambda _, e: e._replace(name=b"x" + e.name).pack(),
        lambda *_: b"x",
        lambda *_: None,
    ],
    ids=["file", "nothing", "type", "name", "cut", "gone"],
)
def test_a_listing_against_its_entry_and_its_inode_is_made_anew(change):
    for sample, key, entry in each_entry():
        listed = Listed(entry.cookie, entry.inode, entry.type, name_of(key))
        place = pair_key(id_of(key), entry.cookie)
        assert_as_before(sample, Table.COOKIES, place, change(sample, listed))


def test_a_name_that_nothing_but_its_listing_tells_of_is_not_made_anew(sample):
    """A listing of which the inode does not know."""
    cookie = sample.entry(ROOT, b"file").cookie - 1
    listed = Listed(cookie, sample.file, stat.S_IFREG, b"phantom")
    sample.put(Table.COOKIES, pair_key(ROOT, cookie), listed.pack())
    fs = assert_repaired(sample)
    assert b"phantom" not in names(fs)
    assert fs.resolve(b"file").nlink == 1
