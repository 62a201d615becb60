"""A disk that refuses some pages: which are lost, which are written, who is told."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapfs.store import synced_file
from mapfs.store.machine_pages import PAGE_BYTES, MachinePages
from mapfs.store.synced_file import SyncedFile
from mapfs.store.syscalls import PageCache

PAGES = 600


class Disk:
    """What fdatasync(2) does above a disk with bad pages: an error once, and all pages clean."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        path.write_bytes(bytes(PAGES * PAGE_BYTES))
        self.fd = os.open(path, os.O_RDWR)
        self.bad = set[int]()
        self.code = errno.EIO
        self.image = [0] * PAGES
        self.dirty = set[int]()
        self.syncs = 0
        self._pwrite, self._fdatasync = os.pwrite, os.fdatasync
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        count = self._pwrite(fd, data, offset)
        self.dirty |= set(range(offset // PAGE_BYTES, -(-(offset + count) // PAGE_BYTES)))
        return count

    def fdatasync(self, _fd: int) -> None:
        self.syncs += 1
        dirty, self.dirty = self.dirty, set()
        for page in dirty - self.bad:
            self.image[page] = self.memory(page)
        if dirty & self.bad:
            raise OSError(self.code, "the disk refuses")

    def memory(self, page: int) -> int:
        return os.pread(self.fd, 1, page * PAGE_BYTES)[0]

    def evict(self) -> None:
        """Drop all pages from memory, whether or not they could be written."""
        self.dirty = set()
        self._fdatasync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if PageCache(self.fd).statistics(0, PAGES * PAGE_BYTES).resident:
            pytest.skip("this filesystem keeps its pages in memory")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(tmp_path / "file", monkeypatch)
    yield disk
    os.close(disk.fd)


@pytest.fixture
def file(disk: Disk) -> SyncedFile:
    return SyncedFile(disk.fd)


def put(file: SyncedFile, page: int, value: int, count: int = 1) -> None:
    file.write(page * PAGE_BYTES, bytes([value]) * (count * PAGE_BYTES))


def lost(file: SyncedFile) -> set[int]:
    return {
        page
        for offset, length in file.lost.runs()
        for page in range(offset // PAGE_BYTES, (offset + length) // PAGE_BYTES)
    }


def test_a_good_disk_loses_nothing(disk: Disk, file: SyncedFile) -> None:
    put(file, 3, 7, 20)
    file.sync()
    assert disk.image[2:24] == [0, *[7] * 20, 0]
    assert not file.lost
    assert disk.syncs == 1


_writes = st.lists(
    st.tuples(st.integers(0, PAGES - 41), st.integers(1, 40), st.integers(1, 255)), max_size=8
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, PAGES - 1), max_size=6), st.lists(_writes, max_size=4))
def test_only_what_the_disk_refuses_is_lost(
    disk: Disk, bad: set[int], rounds: list[list[tuple[int, int, int]]]
) -> None:
    disk.bad, disk.dirty, disk.image = bad, set(), [disk.memory(page) for page in range(PAGES)]
    file, written = SyncedFile(disk.fd), set[int]()
    for writes in rounds:
        for page, count, value in writes:
            put(file, page, value, count)
            written |= set(range(page, page + count))
        file.sync()
        assert lost(file) == bad & written
        for page in range(PAGES):
            assert page in lost(file) or disk.image[page] == disk.memory(page)


def test_the_error_is_told_before_anything_is_tried(disk: Disk, file: SyncedFile) -> None:
    told: list[int] = []
    file.on_error = lambda: told.append(disk.syncs)
    disk.bad = {5}
    put(file, 5, 1)
    file.sync()
    assert told == [1]


def test_a_page_that_is_written_again_is_not_lost(disk: Disk, file: SyncedFile) -> None:
    disk.bad = {5, 6}
    put(file, 5, 1, 2)
    file.sync()
    assert lost(file) == {5, 6}
    disk.bad = {6}
    file.write(5 * PAGE_BYTES, b"only a part")
    file.sync()
    assert lost(file) == {5, 6}
    put(file, 5, 2)
    assert lost(file) == {6}
    file.sync()
    assert lost(file) == {6}
    file.emptied(6 * PAGE_BYTES, PAGE_BYTES)
    assert not file.lost
    assert disk.image[5] == 2


def test_a_host_that_fails_as_a_whole_is_tried_again(
    disk: Disk, file: SyncedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later success of fdatasync says nothing of what it had not written."""

    def refuse(_fd: int) -> None:
        disk.dirty = set()
        raise OSError(errno.EIO, "no disk")

    put(file, 5, 1, 3)
    monkeypatch.setattr(os, "fdatasync", refuse)
    for _ in range(2):
        with pytest.raises(OSError, match="no disk"):
            file.sync()
    put(file, 9, 4)
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    file.sync()
    assert disk.image[5:10] == [1, 1, 1, 0, 4]
    assert not file.lost


def test_a_full_host_is_tried_again(disk: Disk, file: SyncedFile) -> None:
    disk.bad, disk.code = {6}, errno.ENOSPC
    put(file, 5, 1, 3)
    for _ in range(2):
        with pytest.raises(OSError, match="refuses"):
            file.sync()
    assert not file.lost
    disk.bad = set()
    file.sync()
    assert disk.image[5:8] == [1, 1, 1]


def test_what_is_written_during_a_sync_that_fails_is_not_forgotten(
    disk: Disk, file: SyncedFile
) -> None:
    """The error of one sync may be about pages of the next."""
    disk.bad = {5}
    put(file, 5, 1)

    def meanwhile() -> None:
        put(file, 7, 2)
        disk.dirty.discard(7)  # the kernel tried to write it, and could not

    file.on_error = meanwhile
    file.sync()
    assert disk.image[7] == 2
    assert lost(file) == {5}


def test_a_page_that_left_memory_is_lost(disk: Disk, file: SyncedFile) -> None:
    put(file, 5, 1, 40)
    disk.evict()
    disk.bad = {9}
    put(file, 9, 2, 2)
    file.sync()
    assert lost(file) == set(range(5, 45)) - {10}
    assert disk.image[10] == 2


def test_a_page_that_came_back_from_the_disk_is_lost(disk: Disk, file: SyncedFile) -> None:
    """It looks like one that was never dropped, but may hold what the disk had before."""
    put(file, 5, 1, 40)
    disk.evict()
    file.before_load(300 * PAGE_BYTES, PAGE_BYTES)  # there is readahead
    assert [disk.memory(page) for page in range(PAGES)][5:45] == [1] * 40
    disk.bad = {9}
    put(file, 9, 2, 2)
    file.sync()
    assert lost(file) == set(range(5, 45)) - {10}


def test_what_came_back_and_had_been_written_is_not_lost(disk: Disk, file: SyncedFile) -> None:
    put(file, 5, 1, 40)
    disk.evict()
    file.before_load(20 * PAGE_BYTES, PAGE_BYTES)
    assert disk.memory(20) == 1
    file.sync()
    put(file, 9, 2)
    disk.bad = {9}
    file.sync()
    assert lost(file) == {9}


def test_a_disk_that_is_bad_all_over_ends_the_search(disk: Disk, file: SyncedFile) -> None:
    disk.bad = set(range(PAGES)) - {0}
    put(file, 0, 1, PAGES)
    file.sync()
    assert lost(file) >= disk.bad
    assert disk.syncs < synced_file._MOST_SYNCS + 5


def test_an_error_about_the_bytes_of_another_process_stays(disk: Disk, file: SyncedFile) -> None:
    file.inherit()
    disk.bad = {5}
    put(file, 5, 1)
    for _ in range(2):
        with pytest.raises(OSError, match="refuses"):
            file.sync()
        disk.bad = set()
    assert not file.lost


def test_inheriting_ends_with_a_sync_that_succeeds(disk: Disk, file: SyncedFile) -> None:
    file.inherit()
    file.sync()
    disk.bad = {5}
    put(file, 5, 1)
    file.sync()
    assert lost(file) == {5}


def test_lost_pages_are_replaced_and_not_changed(disk: Disk, file: SyncedFile) -> None:
    file.lost = before = MachinePages([(0, 3 * PAGE_BYTES)])
    put(file, 1, 1)
    assert len(before) == 3
    assert lost(file) == {0, 2}
    assert disk.dirty == {1}
