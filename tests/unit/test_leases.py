"""Leases: what somebody has mapped of the store file is not given to another file."""

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import NoSpaceError, StoreExistsError, StoreInUseError
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.filesystem.repair import repair
from mapfs.format.extent import Extent, joined, without
from mapfs.format.records import Table, id_key
from mapfs.store.leases import end_leases, lease, leased
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import open_store
from tests.posix.child import in_child
from tests.unit.support import (
    ME,
    PAGE,
    ROOT,
    assert_sound,
    content,
    make,
    new_bundle,
    open_fs,
    value,
)

EXTENTS = st.lists(st.builds(Extent, st.integers(0, 60), st.integers(1, 9)), max_size=8)


def pages(extents: list[Extent]) -> set[int]:
    return {page for each in extents for page in range(each.start, each.end)}


@given(EXTENTS, EXTENTS)
def test_without_is_the_difference_of_sets(some: list[Extent], taken: list[Extent]) -> None:
    some, taken = (
        list(joined(Extent(page, 1) for page in pages(extents))) for extents in (some, taken)
    )
    rest = list(without(some, taken))
    assert pages(rest) == pages(some) - pages(taken)
    assert sum(each.count for each in rest) == len(pages(rest))


# The locks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(16 * PAGE))
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[], int]]:
    """Opens the file again and again, closing at the end what is still open."""
    descriptors: list[int] = []

    def make_descriptor() -> int:
        descriptors.append(os.open(path, os.O_RDWR))
        return descriptors[-1]

    yield make_descriptor
    for fd in descriptors:
        os.close(fd)


def test_nothing_is_leased(opened: Callable[[], int]) -> None:
    assert leased(opened(), 0, 1 << 40) == []


def test_what_others_lease_is_seen_in_parts(opened: Callable[[], int]) -> None:
    mine, one, two = opened(), opened(), opened()
    lease(one, 2 * PAGE, PAGE)
    lease(one, 8 * PAGE, 2 * PAGE)
    lease(two, 9 * PAGE, 2 * PAGE)
    lease(mine, 0, PAGE)  # one's own do not count
    found = leased(mine, 0, 16 * PAGE)
    extents = joined(Extent(offset, length) for offset, length in found)
    assert list(extents) == [Extent(2 * PAGE, PAGE), Extent(8 * PAGE, 3 * PAGE)]
    assert leased(mine, 10 * PAGE, 16 * PAGE) == [(10 * PAGE, PAGE)]
    assert leased(mine, 3 * PAGE, 5 * PAGE) == []
    end_leases(one)
    assert leased(mine, 0, 16 * PAGE) == [(9 * PAGE, 2 * PAGE)]


def test_a_mapping_keeps_a_lease_when_its_descriptor_is_closed(
    path: Path, opened: Callable[[], int]
) -> None:
    mine, fd = opened(), os.open(path, os.O_RDONLY)
    lease(fd, 0, PAGE)
    mapping = mmap.mmap(fd, PAGE, prot=mmap.PROT_READ)
    os.close(fd)
    assert leased(mine, 0, PAGE) == [(0, PAGE)]
    mapping.close()
    assert leased(mine, 0, PAGE) == []


def test_a_lease_ends_with_its_process(path: Path, opened: Callable[[], int]) -> None:
    mine = opened()

    def hold() -> None:
        lease(os.open(path, os.O_RDONLY), 0, PAGE)
        assert leased(mine, 0, PAGE)

    in_child(hold)
    assert leased(mine, 0, PAGE) == []


# The store


class Leaseholder:
    """Somebody who has mapped pages of a store."""

    def __init__(self, bundle: Path, fs: Filesystem, number: int) -> None:
        self._fd = os.open(bundle / "store", os.O_RDONLY)
        self._pieces = fs.layout(number).pieces
        for piece in self._pieces:
            lease(self._fd, piece.store_offset, piece.length)

    @property
    def sees(self) -> bytes:
        return b"".join(os.pread(self._fd, each.length, each.store_offset) for each in self._pieces)

    def let_go(self) -> None:
        os.close(self._fd)


def remove(fs: Filesystem, name: bytes) -> None:
    number = fs.lookup(ROOT, name).number
    fs.unlink(ROOT, name)
    fs.forget(number)


def fill(fs: Filesystem) -> int:
    """Write pages until there are none; returns how many."""
    number = fs.create(ROOT, b"filler", 0o644, ME).number
    written = 0
    try:
        while True:
            fs.write(number, written * PAGE, b"f" * PAGE)
            written += 1
    except NoSpaceError:
        return written


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A bundle of 64 pages."""
    return new_bundle(tmp_path / "small.mapfs", 64)


def test_leased_pages_are_not_given_away(small: Path) -> None:
    fs = open_fs(small)
    number = make(fs, b"a", b"a" * 10 * PAGE)
    holder = Leaseholder(small, fs, number)
    remove(fs, b"a")
    fs.commit()
    assert value(fs, ROOT, b"fs.leased_bytes") == 10 * PAGE
    assert_sound(fs)
    while fs.is_dirty:
        fs.commit()
    assert not fs.needs_commit
    assert fill(fs) == 54
    reclaimable = [fs.reclaimable]
    assert holder.sees == b"a" * 10 * PAGE
    holder.let_go()
    reclaimable.append(fs.reclaimable)
    assert reclaimable == [False, True]
    fs.commit()
    assert value(fs, ROOT, b"fs.leased_bytes") == 0
    fs.write(fs.lookup(ROOT, b"filler").number, 54 * PAGE, b"g" * 10 * PAGE)
    assert_sound(fs)
    fs.close()


@pytest.mark.parametrize("end", ["close", "kill"])
def test_leases_outlive_the_daemon(small: Path, end: str) -> None:
    fs = open_fs(small)
    holder = Leaseholder(small, fs, make(fs, b"a", b"a" * 10 * PAGE))
    remove(fs, b"a")
    if end == "close":
        fs.close()
    else:
        fs.store.close()  # before any commit: the log has it
    fs = open_fs(small)
    fs.commit()
    assert value(fs, ROOT, b"fs.leased_bytes") == 10 * PAGE
    assert fill(fs) == 54
    assert holder.sees == b"a" * 10 * PAGE
    fs.close()
    holder.let_go()
    fs = open_fs(small)
    fs.commit()
    assert value(fs, ROOT, b"fs.leased_bytes") == 0
    assert_sound(fs)
    fs.close()


def test_only_the_leased_part_stays(small: Path) -> None:
    fs = open_fs(small)
    number = make(fs, b"a", b"a" * 4 * PAGE)
    holder = Leaseholder(small, fs, number)
    fs.write(number, 4 * PAGE, b"b" * 4 * PAGE)
    assert value(fs, number, b"file.extents") == 1
    remove(fs, b"a")
    fs.commit()
    fs.commit()
    assert value(fs, ROOT, b"fs.leased_bytes") == 4 * PAGE
    (piece,) = holder._pieces
    start = piece.store_offset // PAGE
    assert fs.store.transaction.get(Table.PENDING, id_key(start)) is not None
    assert holder.sees == b"a" * 4 * PAGE
    assert fill(fs) == 60
    holder.let_go()
    fs.close()


def test_a_lease_on_a_part_ends_alone(small: Path) -> None:
    fs = open_fs(small)
    number = make(fs, b"a", b"a" * 8 * PAGE)
    first = Leaseholder(small, fs, number)
    (piece,) = fs.layout(number).pieces
    second = os.open(small / "store", os.O_RDONLY)
    lease(second, piece.store_offset + 2 * PAGE, PAGE)
    remove(fs, b"a")
    fs.commit()
    first.let_go()
    fs.commit()
    assert value(fs, ROOT, b"fs.leased_bytes") == PAGE
    assert fill(fs) == 63
    os.close(second)
    fs.commit()
    assert_sound(fs)
    fs.close()


def test_a_punched_hole_and_a_cut_tail_stay(small: Path) -> None:
    fs = open_fs(small)
    number = make(fs, b"a", bytes(range(1, 9)) * (PAGE))
    before = content(fs, number)
    holder = Leaseholder(small, fs, number)
    fs.fallocate(number, 3, PAGE, 2 * PAGE)  # PUNCH_HOLE | KEEP_SIZE
    fs.setattr(number, Changes(size=5 * PAGE))
    fs.commit()
    assert holder.sees == before
    assert value(fs, ROOT, b"fs.leased_bytes") == 5 * PAGE
    holder.let_go()
    fs.close()


def test_a_commit_that_fails_loses_no_lease(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = open_fs(small)
    holder = Leaseholder(small, fs, make(fs, b"a", b"a" * 4 * PAGE))
    remove(fs, b"a")
    with monkeypatch.context() as patch:
        patch.setattr(fs.store.backing, "sync", failing)
        with pytest.raises(OSError, match="broken"):
            fs.commit()
    fs.commit()
    assert fill(fs) == 60
    assert holder.sees == b"a" * 4 * PAGE
    holder.let_go()
    fs.close()


def failing() -> None:
    raise OSError(5, "broken")


def test_repair_waits_for_leases(small: Path) -> None:
    fs = open_fs(small)
    holder = Leaseholder(small, fs, make(fs, b"a", b"a"))
    fs.close()
    store = open_store(small)
    store.state.inodes += 1  # something to repair
    with pytest.raises(StoreInUseError):
        next(repair(store))
    holder.let_go()
    assert list(repair(store))
    store.close()


def test_mkfs_does_not_cut_what_is_mapped(tmp_path: Path) -> None:
    options = StoreOptions(1 << 20, PAGE)
    backing = tmp_path / "backing"
    create_store(tmp_path / "s.mapfs", options, backing=backing)
    fd = os.open(backing, os.O_RDONLY)
    lease(fd, 5 * PAGE, PAGE)
    with pytest.raises(StoreInUseError, match="mapped"):
        create_store(tmp_path / "s.mapfs", options, backing=backing, force=True)
    os.close(fd)
    with pytest.raises(StoreExistsError):
        create_store(tmp_path / "s.mapfs", options, backing=backing)
    create_store(tmp_path / "s.mapfs", options, backing=backing, force=True)
