"""What must not grow with the number of entries, files or extents: counted, not timed."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from mapfs.filesystem.filesystem import Filesystem
from mapfs.store.catalog import Catalog
from tests.unit.support import ME, PAGE, ROOT, assert_sound, content, make, memory_store, open_fs

ENTRIES = 100_000
EXTENTS = 10_000
Record = tuple[bytes, bytes]


class Counter:
    """Counts the records that are read from a catalog."""

    def __init__(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records = 0
        for name in ("scan", "descend"):
            monkeypatch.setattr(catalog, name, self._counting(getattr(catalog, name)))
        get = catalog.get

        def counted(*args: object) -> bytes | None:
            self.records += 1
            return get(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(catalog, "get", counted)

    def _counting(self, method: Callable[..., Iterator[Record]]) -> Callable[..., Iterator[Record]]:
        def counted(*args: object) -> Iterator[Record]:
            for record in method(*args):
                self.records += 1
                yield record

        return counted

    def of(self, call: Callable[[], object]) -> int:
        """The records that one call reads."""
        before = self.records
        call()
        return self.records - before


@pytest.fixture(scope="module")
def large() -> Iterator[Filesystem]:
    """A directory with 100,000 empty files, committed."""
    fs = Filesystem(memory_store())
    for number in range(ENTRIES):
        fs.create(ROOT, b"%06d" % number, 0o644, ME)
        if fs.wants_commit:
            fs.commit()
    while fs.is_dirty:
        fs.commit()
    fs._inodes._cache.clear()
    yield fs
    assert_sound(fs)
    fs.close()


@pytest.fixture
def counter(large: Filesystem, monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(large.store.catalog, monkeypatch)


@pytest.mark.parametrize("number", [0, ENTRIES // 2, ENTRIES - 1])
def test_lookup(large: Filesystem, counter: Counter, number: int) -> None:
    assert counter.of(lambda: large.lookup(ROOT, b"%06d" % number)) <= 3


def test_lookup_of_nothing(large: Filesystem, counter: Counter) -> None:
    with pytest.raises(Exception, match="no such entry"):
        large.lookup(ROOT, b"nothing")
    assert counter.records <= 2


@pytest.mark.parametrize("position", [1, ENTRIES // 3, ENTRIES - 20])
def test_a_listing_is_taken_up_in_the_middle(
    large: Filesystem, counter: Counter, position: int
) -> None:
    (entry,) = islice(large.readdir(ROOT), position + 1, position + 2)
    before = counter.records
    found = list(islice(large.readdir(ROOT, entry.cookie), 10))
    assert [each.name for each in found] == [
        b"%06d" % number for number in range(position, position + 10)
    ]
    assert counter.records - before <= 12


def test_changes(large: Filesystem, counter: Counter) -> None:
    number = 0

    def create() -> None:
        nonlocal number
        number = make(large, b"new", b"x")

    assert counter.of(create) <= 20
    assert counter.of(lambda: large.rename(ROOT, b"new", ROOT, b"newer")) <= 10
    assert counter.of(lambda: large.getxattr(ROOT, b"user.mapfs.dir.rbytes")) <= 5
    assert counter.of(large.statfs) == 0
    assert counter.of(lambda: large.unlink(ROOT, b"newer")) <= 10
    assert counter.of(lambda: large.forget(number)) <= 10
    large.commit()


def test_memory_is_bounded(large: Filesystem) -> None:
    for _ in islice(large.readdir(ROOT), ENTRIES):
        pass
    for number in range(ENTRIES):
        large.lookup(ROOT, b"%06d" % number)
    large.commit()
    assert len(large._inodes._cache) <= 32768
    assert len(large._inodes._live) <= 32768 + 10


def test_opening_reads_nothing_of_the_files(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = open_fs(bundle)
    for number in range(2000):
        make(fs, b"%d" % number)
    fs.close()
    read: list[object] = []
    scan = Catalog.scan

    def counted(self: Catalog, *args: object) -> Iterator[Record]:
        for record in scan(self, *args):  # type: ignore[arg-type]
            read.append(record)
            yield record

    monkeypatch.setattr(Catalog, "scan", counted)
    fs = open_fs(bundle)
    assert len(read) <= 10
    fs.close()


@pytest.fixture(scope="module")
def fragmented() -> Iterator[Filesystem]:
    """A file whose 10,000 pages are all apart: every second page of it is a hole."""
    fs = Filesystem(memory_store(2 * EXTENTS))
    number = make(fs, b"f")
    for page in range(EXTENTS):
        fs.write(number, 2 * page * PAGE, b"%08d" % page)
    while fs.is_dirty:
        fs.commit()
    yield fs
    assert_sound(fs)
    fs.close()


def test_a_file_of_10000_extents(fragmented: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fragmented
    number = fs.lookup(ROOT, b"f").number
    assert fs.inode(number).extents == EXTENTS
    fs.read(number, 0, 1)  # its access time changes
    counter = Counter(fs.store.catalog, monkeypatch)
    for page in (0, 77, EXTENTS // 2, EXTENTS - 1):
        offset = 2 * page * PAGE
        assert counter.of(partial(fs.read, number, offset, 8)) <= 2
        assert content(fs, number, offset, 8) == b"%08d" % page
        assert content(fs, number, offset + PAGE, 8) in (bytes(8), b"")
        assert counter.of(partial(fs.seek, number, offset, os.SEEK_HOLE)) <= 5
        assert counter.of(partial(fs.seek, number, offset, os.SEEK_DATA)) <= 5


def test_an_access_does_not_read_all_extents(
    fragmented: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fragmented
    number = fs.lookup(ROOT, b"f").number
    while fs.is_dirty:
        fs.commit()
    fs.inode(number).atime = 0
    counter = Counter(fs.store.catalog, monkeypatch)
    assert counter.of(lambda: fs.read(number, 0, 8)) <= 10
    assert counter.of(lambda: fs.write(number, 0, b"again")) <= 10
    assert counter.of(fs.flush) <= 10


def test_writing_into_a_fragmented_file(
    fragmented: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fragmented
    number = fs.lookup(ROOT, b"f").number
    fs.write(number, 0, b"warm")  # what it counted for before is worked out once
    counter = Counter(fs.store.catalog, monkeypatch)
    assert counter.of(lambda: fs.write(number, 5000 * PAGE, b"over")) <= 5
    assert counter.of(lambda: fs.write(number, 5001 * PAGE, b"fill")) <= 30
    assert counter.of(lambda: fs.fallocate(number, 3, 5001 * PAGE, PAGE)) <= 30
    assert counter.of(lambda: fs.write(number, 2 * EXTENTS * PAGE, b"end")) <= 30
