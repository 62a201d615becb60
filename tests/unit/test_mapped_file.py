"""Windows over the store file, and the ways to prepare pages where the host lacks the best one."""

import errno
import gc
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mapfs.store import mapped_file, writeback
from mapfs.store.address_space import MappingStatistics
from mapfs.store.mapped_file import MappedFile
from mapfs.store.syscalls import (
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    CacheStatistics,
    fallocate,
)
from mapfs.store.windows import DEFAULT_WINDOW_BYTES, window_size

MIB = 1 << 20
WINDOW = 2 * MIB
SIZE = 40 * MIB


@pytest.fixture
def open_mapped(tmp_path: Path) -> Iterator[Callable[..., MappedFile]]:
    """Makes a mapped file of 40 MiB in which each MiB begins with its number."""
    made: list[MappedFile] = []

    def make(address_space: int | None = None, size: int = SIZE) -> MappedFile:
        fd = os.open(tmp_path / "store", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, size)
        for number in range(size // MIB):
            os.pwrite(fd, b"%08d" % number, number * MIB)
        made.append(MappedFile(fd, size, address_space))
        return made[-1]

    yield make
    for each in made:
        each.close()


def read(mapped: MappedFile, offset: int, length: int) -> bytes:
    return b"".join(mapped.read(offset, length))


def mapped_by_process(path: Path) -> int:
    """The bytes of a file that this process has mapped, from proc_pid_maps(5)."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            start, _, end = line.split()[0].partition("-")
            total += int(end, 16) - int(start, 16)
    return total


@pytest.mark.parametrize(
    ("address_space", "window"),
    [
        (None, DEFAULT_WINDOW_BYTES),
        (1 << 40, DEFAULT_WINDOW_BYTES),
        (4 << 30, DEFAULT_WINDOW_BYTES),
        ((4 << 30) - 1, DEFAULT_WINDOW_BYTES // 2),
        (64 * MIB, 16 * MIB),
        (8 * MIB, 2 * MIB),
        (1, 2 * MIB),
    ],
)
def test_window_size(address_space: int | None, window: int) -> None:
    assert window_size(address_space) == window


def test_nothing_is_mapped_before_it_is_read(open_mapped: Callable[..., MappedFile]) -> None:
    mapped = open_mapped()
    assert mapped.statistics().address_space_bytes == 0
    read(mapped, 0, 1)
    assert mapped.statistics().address_space_bytes == SIZE  # less than a window


def test_a_small_address_space_is_kept(
    open_mapped: Callable[..., MappedFile], tmp_path: Path
) -> None:
    mapped = open_mapped(8 * MIB)
    for number in range(40):
        assert read(mapped, number * MIB, 8) == b"%08d" % number
        assert mapped.statistics().address_space_bytes <= 8 * MIB
        assert mapped_by_process(tmp_path / "store") <= 8 * MIB
    for number in reversed(range(40)):
        assert read(mapped, number * MIB, 8) == b"%08d" % number


def test_windows_leave_half_of_the_descriptors_to_others(
    open_mapped: Callable[..., MappedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (6, 6))
    mapped = open_mapped(1 << 40)
    monkeypatch.setattr(mapped._windows, "window_bytes", WINDOW)
    for window in range(10):
        read(mapped, window * WINDOW, 1)
    assert len(mapped._windows._cached) == 3


def test_the_least_recently_used_window_goes(open_mapped: Callable[..., MappedFile]) -> None:
    mapped = open_mapped(8 * MIB)
    for window in (0, 1, 2, 3, 0, 4):
        read(mapped, window * WINDOW, 1)
    assert set(mapped._windows._cached) == {0, 2, 3, 4}


def test_a_read_across_windows(open_mapped: Callable[..., MappedFile]) -> None:
    mapped = open_mapped(8 * MIB)
    views = list(mapped.read(WINDOW - 100, 2 * WINDOW + 108))
    assert [view.nbytes for view in views] == [100, WINDOW, WINDOW, 8]
    assert bytes(views[1][:8]) == b"%08d" % 2
    assert bytes(views[3]) == b"%08d" % 6


def test_a_read_of_more_than_the_address_space(open_mapped: Callable[..., MappedFile]) -> None:
    mapped = open_mapped(8 * MIB)
    data = read(mapped, 0, SIZE)
    assert [data[number * MIB :][:8] for number in (0, 20, 39)] == [
        b"%08d" % number for number in (0, 20, 39)
    ]


def test_a_view_survives_eviction(open_mapped: Callable[..., MappedFile], tmp_path: Path) -> None:
    mapped = open_mapped(8 * MIB)
    (view,) = mapped.read(0, 8)
    for number in range(40):
        read(mapped, number * MIB, 1)
    assert 0 not in mapped._windows._cached
    mapped.write(0, b"changed!")
    assert bytes(view) == b"changed!"
    before = mapped_by_process(tmp_path / "store")
    del view
    gc.collect()
    assert mapped_by_process(tmp_path / "store") == before - WINDOW


@pytest.mark.parametrize("size", [5 * MIB, 6 * MIB])
def test_the_last_window_grows_with_the_file(
    open_mapped: Callable[..., MappedFile], size: int
) -> None:
    mapped = open_mapped(8 * MIB, size)
    (view,) = mapped.read(size - MIB, 8)
    mapped.resize(9 * MIB)
    mapped.write(size, b"behind")
    assert read(mapped, size, 6) == b"behind"
    assert bytes(view) == b"%08d" % (size // MIB - 1)
    assert read(mapped, 9 * MIB - 4, 4) == bytes(4)


def test_a_device_is_not_truncated(
    open_mapped: Callable[..., MappedFile], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mapped = open_mapped(None, 8 * MIB)
    os.truncate(tmp_path / "store", 16 * MIB)  # a device holds more than the store uses
    monkeypatch.setattr(mapped, "_is_device", True)
    mapped.resize(12 * MIB)
    assert (tmp_path / "store").stat().st_size == 16 * MIB
    assert read(mapped, 12 * MIB - 4, 4) == bytes(4)
    assert mapped.host_free() is None


def test_a_memfd_has_no_host(open_mapped: Callable[..., MappedFile]) -> None:
    fd = os.memfd_create("x")
    os.ftruncate(fd, MIB)
    mapped = MappedFile(fd, MIB)
    assert mapped.host_free() is None
    mapped.close()


def test_partial_writes_are_completed(
    open_mapped: Callable[..., MappedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped, pwrite = open_mapped(), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
    mapped.write(100, b"ten bytes!")
    assert read(mapped, 100, 10) == b"ten bytes!"
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at: pwrite(fd, data[0][:3], at))
    monkeypatch.setattr(os, "pwrite", pwrite)
    much = os.urandom(MIB // 2)
    mapped.write(0, much, spare=MIB)
    assert read(mapped, 0, MIB // 2) == much


# Large folios


@pytest.mark.parametrize(
    ("length", "spare", "zeros"),
    [
        (MIB // 2, MIB, MIB // 4),  # as far as the folio goes
        (MIB // 2, 8192, 8192),  # as far as allowed
        (MIB // 2, 0, 0),
        (MIB // 4 * 3, MIB, 0),  # the folio is full
        (MIB, MIB, MIB // 4 * 3),
        (4096, MIB, 0),  # too little to matter
    ],
)
def test_much_fills_up_the_last_folio_with_zeros(
    open_mapped: Callable[..., MappedFile], length: int, spare: int, zeros: int
) -> None:
    mapped = open_mapped()
    mapped.write(0, b"x" * (4 * MIB))
    start = MIB + MIB // 4
    end = start + length
    mapped.write(start, b"y" * length, spare)
    assert read(mapped, 0, start) == b"x" * start
    assert read(mapped, start, length) == b"y" * length
    assert read(mapped, end, zeros) == bytes(zeros)
    assert read(mapped, end + zeros, 4 * MIB - end - zeros) == b"x" * (4 * MIB - end - zeros)


def test_a_folio_goes_to_the_disk_once_it_has_its_data(
    open_mapped: Callable[..., MappedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(writeback.Writeback, "begin", lambda _, *run: begun.append(run))
    mapped = open_mapped()
    for place in (MIB // 4, MIB // 4 + MIB):
        mapped.write(place, bytes(MIB), spare=MIB)
    assert begun == [(0, MIB), (MIB, MIB)]
    mapped.write(MIB // 4 + 2 * MIB, bytes(MIB))
    assert begun[2:] == [(2 * MIB, MIB + MIB // 4)]
    mapped.write(5 * MIB, bytes(MIB // 2), spare=MIB)
    assert len(begun) == 3


# Preparing pages


class Host:
    """Stands for fallocate(2) on a host that cannot do some of its modes."""

    def __init__(self, lacks: tuple[int, ...], code: int) -> None:
        self.lacks, self.code, self.calls = lacks, code, list[int]()

    def __call__(self, fd: int, mode: int, offset: int, length: int) -> None:
        self.calls.append(mode & ~1)
        if mode & ~1 in self.lacks:
            raise OSError(self.code, "cannot")
        fallocate(fd, mode, offset, length)


LACKS = {
    "nothing": (),
    "zero range": (FALLOC_FL_ZERO_RANGE,),
    "punching": (FALLOC_FL_ZERO_RANGE, FALLOC_FL_PUNCH_HOLE),
    "everything": (FALLOC_FL_ZERO_RANGE, FALLOC_FL_PUNCH_HOLE, 0),
}


@pytest.mark.parametrize("lacks", LACKS.values(), ids=LACKS)
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_pages_are_prepared_one_way_or_another(
    open_mapped: Callable[..., MappedFile],
    monkeypatch: pytest.MonkeyPatch,
    lacks: tuple[int, ...],
    code: int,
) -> None:
    host = Host(lacks, code)
    monkeypatch.setattr(mapped_file, "fallocate", host)
    mapped = open_mapped(None, 4 * MIB)
    for _ in range(2):
        mapped.write(0, b"x" * 3 * MIB)
        mapped.prepare(4096, 2 * MIB)
        data = read(mapped, 0, 3 * MIB)
        assert data == b"x" * 4096 + bytes(2 * MIB) + b"x" * (MIB - 4096)
    assert all(host.calls.count(mode) == 1 for mode in lacks if mode)


def test_prepared_pages_have_blocks(open_mapped: Callable[..., MappedFile], tmp_path: Path) -> None:
    mapped = open_mapped()
    before = (tmp_path / "store").stat().st_blocks
    mapped.prepare(10 * MIB + 65536, 512 * 1024)
    assert (tmp_path / "store").stat().st_blocks >= before + 1024
    mapped.punch(10 * MIB + 65536, 512 * 1024)
    assert (tmp_path / "store").stat().st_blocks < before + 1024


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_or_broken_host_is_an_error(
    open_mapped: Callable[..., MappedFile], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    mapped = open_mapped()
    host = Host((FALLOC_FL_ZERO_RANGE,), code)
    monkeypatch.setattr(mapped_file, "fallocate", host)
    with pytest.raises(OSError, match="cannot") as caught:
        mapped.prepare(0, 4096)
    assert caught.value.errno == code
    assert host.calls == [FALLOC_FL_ZERO_RANGE]


def test_the_last_way_has_no_other(
    open_mapped: Callable[..., MappedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = open_mapped()
    monkeypatch.setattr(mapped_file, "fallocate", Host(LACKS["everything"], errno.ENOSYS))
    mapped.prepare(0, 4096)

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "cannot write")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="cannot write"):
        mapped.prepare(0, 4096)


def test_punching_may_be_unsupported_but_must_not_fail(
    open_mapped: Callable[..., MappedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = open_mapped()
    monkeypatch.setattr(mapped_file, "fallocate", Host(LACKS["punching"], errno.EOPNOTSUPP))
    mapped.punch(0, 4096)
    monkeypatch.setattr(mapped_file, "fallocate", Host(LACKS["punching"], errno.EIO))
    with pytest.raises(OSError, match="cannot"):
        mapped.punch(0, 4096)


def test_cached_counts_dirty_pages(open_mapped: Callable[..., MappedFile]) -> None:
    mapped = open_mapped()
    mapped.sync()
    mapped.write(MIB, b"x" * 12288)
    found = mapped.cached(MIB, 16384)
    assert found.resident >= 3
    if found.dirty is not None:
        assert found.dirty == 3
        mapped.sync()
        assert mapped.cached(MIB, 16384).dirty == 0


@pytest.mark.parametrize(
    ("code", "is_loaded"),
    [(errno.EAGAIN, False), (errno.EOPNOTSUPP, True)],
    ids=["still on their way", "a host that cannot tell"],
)
def test_pages_that_are_cached_may_yet_have_to_come(
    open_mapped: Callable[..., MappedFile],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    *,
    is_loaded: bool,
) -> None:
    mapped = open_mapped()
    mapped.write(0, b"x" * 8192)
    asked: list[int] = []

    def preadv(_fd: int, _into: object, offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        asked.append(offset)
        raise OSError(code, "not now")

    monkeypatch.setattr(os, "preadv", preadv)
    assert mapped.is_loaded(100, 8000) == is_loaded
    assert asked == [8099], "the last one comes last"
    monkeypatch.setattr(mapped, "cached", lambda *_: CacheStatistics(1, None))
    assert not mapped.is_loaded(100, 8000)
    assert len(asked) == 1


def test_loading_one_page_brings_in_no_more_if_that_is_not_wanted(
    open_mapped: Callable[..., MappedFile],
) -> None:
    mapped = open_mapped()
    mapped.write(0, b"x" * (4 * MIB))
    mapped.sync()
    mapped.drop(0, 4 * MIB)
    if mapped.cached(0, 4 * MIB).resident:
        pytest.skip("a host that keeps its pages")
    mapped.load(MIB, 4096, ahead=False)
    assert mapped.cached(0, 4 * MIB).resident == 1
    mapped.read_ahead(MIB, 3 * MIB)
    assert mapped.cached(MIB, 3 * MIB).resident == 3 * MIB // 4096
    assert not mapped.is_loaded(0, 4 * MIB)


def test_clean_pages_leave_memory_though_a_window_maps_them(
    open_mapped: Callable[..., MappedFile],
) -> None:
    mapped = open_mapped()
    mapped.write(0, b"x" * MIB)
    view = next(iter(mapped.read(0, MIB)))
    assert bytes(view) == b"x" * MIB
    view.release()
    mapped.sync()
    before = mapped.resident()
    assert before >= MIB
    mapped.give_back()
    if mapped.resident() == before:
        pytest.skip("this filesystem keeps its pages in memory")
    assert mapped.resident() == 0
    view = next(iter(mapped.read(5, 3)))
    assert bytes(view) == b"xxx"


def test_what_is_written_where_a_sync_is_to_come_soon_goes_to_the_disk_at_once(
    open_mapped, monkeypatch
):
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(writeback, "sync_file_range", lambda _, *run: begun.append(run))
    mapped = open_mapped()
    mapped.write(0, bytes(4096))
    assert not begun
    mapped.sync()
    mapped.is_eager = True
    for page in range(8):
        mapped.write(page * 4096, bytes(4096))
    assert begun == [(page * 4096, 4096) for page in range(4)]  # behind that it is much
    mapped.is_eager = False
    mapped.sync()
    mapped.write(0, bytes(4096))
    assert len(begun) == 4


def test_what_mapping_costs_is_counted(open_mapped: Callable[..., MappedFile]) -> None:
    mapped = open_mapped(8 * MIB)
    assert mapped.statistics() == MappingStatistics()
    assert mapped.mappings() == 0
    for offset in range(0, 12 * MIB, 2 * MIB):
        mapped.read(offset, 1)
    found = mapped.statistics()
    assert (found.windows, found.mapped, found.unmapped) == (4, 6, 2)
    assert found.address_space_bytes == 8 * MIB
    assert found.mapping_seconds > 0
    assert found.unmapping_seconds > 0
    assert mapped.mappings() >= 1  # neighbours are one for the kernel
    mapped.pin(0, MIB)
    found = mapped.statistics()
    assert (found.pinned_bytes, found.address_space_bytes) == (MIB, 9 * MIB)
    mapped.unpin(0, MIB)
    mapped.give_back()
    assert mapped.statistics().unmapped == 6
    assert mapped.mappings() == 0
