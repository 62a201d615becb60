"""Bytes of files: reading, writing, holes, preallocation, copying."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from mapfs.errors import FileTooBigError, NoSpaceError, NoSuchOffsetError
from mapfs.filesystem import extents
from mapfs.filesystem.content import MAX_FILE_BYTES
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.store.mapped_file import MappedFile
from mapfs.store.syscalls import CacheStatistics
from tests.unit.support import (
    ME,
    PAGE,
    ROOT,
    assert_sound,
    code_of,
    content,
    make,
    new_bundle,
    open_fs,
    value,
    values,
)

KEEP, PUNCH, ZERO = 1, 2, 0x10
DATA, HOLE = os.SEEK_DATA, os.SEEK_HOLE
Sized = Callable[..., Filesystem]


@pytest.fixture
def number(fs: Filesystem) -> int:
    return make(fs, b"f")


def size(fs: Filesystem, number: int) -> int:
    return fs.inode(number).size


def pages(fs: Filesystem, number: int) -> int:
    return fs.inode(number).pages


# Reading and writing


@pytest.mark.parametrize("data", [b"x", b"x" * 4095, b"x" * 4096, os.urandom(100_001)])
@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 1 << 41])
def test_write_and_read(fs: Filesystem, number: int, data: bytes, offset: int) -> None:
    assert fs.write(number, offset, data) == len(data)
    assert size(fs, number) == offset + len(data)
    assert content(fs, number, offset) == data
    assert content(fs, number, offset + 1, len(data)) == data[1:]
    before = min(offset, 5000)
    assert content(fs, number, offset - before, before) == bytes(before)


def test_reading_at_and_behind_the_end(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"data")
    assert content(fs, number, 4) == b""
    assert content(fs, number, 1 << 50) == b""
    assert content(fs, number, 2, 0) == b""
    assert content(fs, number, 2, 100) == b"ta"


def test_files_that_grow_side_by_side_in_large_pieces_keep_their_bytes(tmp_path: Path) -> None:
    """Behind a large piece zeros are written, which must not hit what another file has there."""
    random = Random(7)
    fs = open_fs(new_bundle(tmp_path / "t.mapfs", 20_000))
    files = {make(fs, b"%d" % number): bytearray() for number in range(4)}
    for _ in range(60):
        number = random.choice(list(files))
        data = random.randbytes(random.choice((100, 5000, 300_000, 300 << 10, 900_000)))
        if random.random() < 0.2:
            fs.setattr(number, Changes(size=len(files[number]) // 2))
            del files[number][len(files[number]) // 2 :]
        fs.write(number, len(files[number]), data)
        files[number] += data
        if random.random() < 0.1:
            fs.commit()
    for number, written in files.items():
        assert content(fs, number) == written
    assert_sound(fs)
    fs.close()


def test_writing_nothing_changes_nothing(fs: Filesystem, number: int) -> None:
    fs.commit()
    assert fs.write(number, 1 << 40, b"") == 0
    assert size(fs, number) == 0


def test_writing_over_and_over(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"a" * 10_000)
    fs.write(number, 5000, b"b" * 10)
    assert content(fs, number) == b"a" * 5000 + b"b" * 10 + b"a" * 4990
    assert pages(fs, number) == 3


def test_reads_are_views_of_the_store(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"a" * 8192)
    (view,) = fs.read(number, 100, 4)
    fs.write(number, 100, b"bbbb")
    assert bytes(view) == b"bbbb"
    assert view.readonly


def test_a_growing_file_is_one_extent(fs: Filesystem, number: int) -> None:
    other = make(fs, b"g")
    for step in range(100):
        fs.write(number, step * PAGE, b"x" * PAGE)
        fs.write(other, step * PAGE, b"y" * PAGE)
    assert value(fs, number, b"file.extents") < 10
    assert value(fs, other, b"file.extents") < 10


def test_only_files_have_content(fs: Filesystem) -> None:
    for inode, code in (
        (ROOT, errno.EISDIR),
        (fs.symlink(ROOT, b"l", b"t", ME).number, errno.EINVAL),
    ):
        for call in (
            partial(fs.read, inode, 0, 1),
            partial(fs.write, inode, 0, b"x"),
            partial(fs.setattr, inode, Changes(size=0)),
            partial(fs.fallocate, inode, 0, 0, 1),
            partial(fs.seek, inode, 0, DATA),
            partial(fs.copy_range, inode, 0, inode, 0, 1),
            partial(fs.cold_loader, inode, 0, 1),
        ):
            assert code_of(call) == code


def test_the_largest_file(fs: Filesystem, number: int) -> None:
    fs.write(number, MAX_FILE_BYTES - 1, b"x")
    assert size(fs, number) == MAX_FILE_BYTES
    for call in (
        lambda: fs.write(number, MAX_FILE_BYTES, b"x"),
        lambda: fs.write(number, MAX_FILE_BYTES - 1, b"xx"),
        lambda: fs.setattr(number, Changes(size=MAX_FILE_BYTES + 1)),
        lambda: fs.fallocate(number, 0, MAX_FILE_BYTES, 1),
        lambda: fs.fallocate(number, PUNCH | KEEP, MAX_FILE_BYTES, 1),
        lambda: fs.fallocate(number, ZERO, 1, MAX_FILE_BYTES),
    ):
        with pytest.raises(FileTooBigError):
            call()
    assert pages(fs, number) == 1


def test_a_directory_of_huge_files_can_be_committed(fs: Filesystem) -> None:
    for name in range(5):
        fs.setattr(make(fs, b"%d" % name), Changes(size=MAX_FILE_BYTES))
    assert value(fs, ROOT, b"dir.rbytes") == 5 * MAX_FILE_BYTES
    fs.commit()


# Truncating


def test_truncate_down_and_up_reads_zeros(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"x" * 10_000)
    fs.setattr(number, Changes(size=5000))
    assert pages(fs, number) == 2
    fs.setattr(number, Changes(size=20_000))
    assert content(fs, number) == b"x" * 5000 + bytes(15_000)
    assert pages(fs, number) == 2


def test_truncate_drops_preallocated_pages(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"x" * 100)
    fs.fallocate(number, KEEP, 0, 50_000)
    fs.setattr(number, Changes(size=100))
    assert pages(fs, number) == 1
    fs.setattr(number, Changes(size=0))
    assert values(fs, number)["allocated"] == 0


@pytest.mark.parametrize("way", ["truncate", "write", "fallocate", "copy"])
def test_a_gap_reads_as_zeros_however_the_file_grows(fs: Filesystem, number: int, way: str) -> None:
    fs.fallocate(number, KEEP, 0, 5 * PAGE)
    fs.write(number, 0, b"x" * 3 * PAGE)
    fs.setattr(number, Changes(size=100))
    fs.fallocate(number, KEEP, 0, 5 * PAGE)
    {
        "truncate": lambda: fs.setattr(number, Changes(size=20_000)),
        "write": lambda: fs.write(number, 19_999, b"\0"),
        "fallocate": lambda: fs.fallocate(number, 0, 10_000, 10_000),
        "copy": lambda: fs.copy_range(make(fs, b"z", bytes(1)), 0, number, 19_999, 1),
    }[way]()
    assert content(fs, number) == b"x" * 100 + bytes(19_900)


# fallocate


def test_allocate(fs: Filesystem, number: int) -> None:
    fs.fallocate(number, 0, 5000, 10_000)
    assert (size(fs, number), pages(fs, number)) == (15_000, 3)
    assert content(fs, number) == bytes(15_000)
    assert values(fs, number)["slack"] == 16384 - 15_000
    fs.write(number, 6000, b"x")
    fs.fallocate(number, 0, 0, 7000)
    assert (size(fs, number), pages(fs, number)) == (15_000, 4)
    assert content(fs, number, 6000, 1) == b"x"


def test_allocate_beyond_the_end_keeping_the_size(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"x")
    fs.fallocate(number, KEEP, 0, 3 * PAGE)
    assert (size(fs, number), pages(fs, number)) == (1, 3)
    fs.write(number, 2 * PAGE, b"y")
    assert values(fs, number)["slack.prealloc"] == 0
    assert content(fs, number) == b"x" + bytes(2 * PAGE - 1) + b"y"


def test_punch(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"x" * 5 * PAGE)
    fs.fallocate(number, PUNCH | KEEP, 1000, 2 * PAGE + 100)
    assert content(fs, number) == (b"x" * 1000 + bytes(2 * PAGE + 100) + b"x" * (3 * PAGE - 1100))
    assert (size(fs, number), pages(fs, number)) == (5 * PAGE, 4)
    assert value(fs, number, b"file.extents") == 2


@pytest.mark.parametrize(
    ("offset", "length", "left"),
    [
        (0, PAGE, 2),
        (PAGE - 1, 1, 3),
        (PAGE - 1, 2, 3),
        (PAGE, 1, 3),
        (10, 20, 3),
        (0, 3 * PAGE, 0),
        (PAGE, 1 << 40, 1),
        (3 * PAGE, PAGE, 3),
        (1 << 50, PAGE, 3),
    ],
)
def test_punch_at_edges(fs: Filesystem, number: int, offset: int, length: int, left: int) -> None:
    fs.write(number, 0, b"x" * 3 * PAGE)
    fs.fallocate(number, PUNCH | KEEP, offset, length)
    zeros = min(3 * PAGE, offset + length) - min(3 * PAGE, offset)
    assert content(fs, number) == (
        b"x" * min(offset, 3 * PAGE)
        + bytes(zeros)
        + b"x" * (3 * PAGE - zeros - min(offset, 3 * PAGE))
    )
    assert pages(fs, number) == left


def test_punching_the_last_page_takes_the_tail(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"x" * (PAGE + 1))
    fs.fallocate(number, PUNCH | KEEP, PAGE, PAGE)
    assert (size(fs, number), values(fs, number)["slack"]) == (PAGE + 1, 0)


@pytest.mark.parametrize("keep", [0, KEEP])
def test_zero_range(fs: Filesystem, number: int, keep: int) -> None:
    fs.write(number, 0, b"x" * 3 * PAGE)
    fs.fallocate(number, ZERO | keep, 100, 4 * PAGE)
    assert pages(fs, number) == 5
    assert size(fs, number) == (3 * PAGE if keep else 4 * PAGE + 100)
    assert content(fs, number) == b"x" * 100 + bytes(size(fs, number) - 100)


@pytest.mark.parametrize("keep", [0, KEEP])
def test_zeroing_a_range_sets_the_times(fs: Filesystem, number: int, keep: int) -> None:
    fs.write(number, 0, b"x" * PAGE)
    fs.setattr(number, Changes(mtime=1))
    fs.fallocate(number, ZERO | keep, 0, PAGE)
    assert fs.inode(number).mtime == fs.inode(number).ctime > 1


def test_zero_range_of_a_full_store(sized: Sized) -> None:
    fs = sized(16)
    number = make(fs, b"f", b"x" * 16 * PAGE)
    fs.fallocate(number, ZERO, 100, 8 * PAGE)
    assert content(fs, number) == b"x" * 100 + bytes(8 * PAGE) + b"x" * (8 * PAGE - 100)


@pytest.mark.parametrize("mode", [2, 8, 0x20, 0x40, 0x11 | 2, 0x80])
def test_other_modes(fs: Filesystem, number: int, mode: int) -> None:
    assert code_of(lambda: fs.fallocate(number, mode, 0, 1)) == errno.EOPNOTSUPP


@pytest.mark.parametrize("mode", [0, KEEP, PUNCH | KEEP, ZERO])
@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (0, -1)])
def test_bad_ranges(fs: Filesystem, number: int, mode: int, offset: int, length: int) -> None:
    assert code_of(lambda: fs.fallocate(number, mode, offset, length)) == errno.EINVAL


# No space


@pytest.mark.parametrize("mode", [0, KEEP, ZERO])
def test_more_than_there_can_be_is_refused_before_the_store_grows(
    fs: Filesystem, number: int, mode: int
) -> None:
    before = fs.store.state.store_pages
    with pytest.raises(NoSpaceError):
        fs.fallocate(number, mode, 0, 1 << 50)
    assert fs.store.state.store_pages == before


def test_what_is_remembered_of_extents_is_bounded(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extents, "_MOST_REMEMBERED", 4)
    for each in range(10):
        make(fs, b"%d" % each, b"x")
        assert len(fs._extents._last) <= 4


def test_no_space_leaves_the_file_alone(sized: Sized) -> None:
    fs = sized(16)
    number = make(fs, b"f", b"x" * 10 * PAGE)
    for call in (
        lambda: fs.write(number, 9 * PAGE, b"y" * 8 * PAGE),
        lambda: fs.fallocate(number, 0, 0, 17 * PAGE),
        lambda: fs.fallocate(number, ZERO, 5 * PAGE, 20 * PAGE),
    ):
        with pytest.raises(NoSpaceError):
            call()
        assert content(fs, number) == b"x" * 10 * PAGE
        assert pages(fs, number) == 10
    assert fs.reclaimable
    fs.commit()
    assert fs.write(number, 10 * PAGE, b"y" * 6 * PAGE) == 6 * PAGE
    assert not fs.reclaimable


def test_a_deleted_file_makes_room_with_the_commit(sized: Sized) -> None:
    fs = sized(16)
    old = make(fs, b"old", b"x" * 16 * PAGE)
    new = make(fs, b"new")
    fs.unlink(ROOT, b"old")
    fs.forget(old)
    with pytest.raises(NoSpaceError):
        fs.write(new, 0, b"y")
    fs.commit()
    fs.write(new, 0, b"y" * 16 * PAGE)
    assert fs.statfs().free_pages == 0


def test_a_host_that_fails_in_the_middle(sized: Sized, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = sized(64)
    number = make(fs, b"f", b"x" * PAGE)

    def broken(_offset: int, _data: object, _spare: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fs.store.backing, "write", broken)
    assert code_of(lambda: fs.write(number, 0, b"y" * 10)) == errno.EIO
    assert code_of(lambda: fs.write(number, 5 * PAGE, b"y" * 10)) == errno.EIO
    monkeypatch.undo()
    assert content(fs, number, 0, PAGE) == b"x" * PAGE


# Seeking


@pytest.fixture
def holey(fs: Filesystem) -> int:
    """Data in pages 2 and 5, and 100 bytes of page 7; 9 pages and a half long."""
    number = make(fs, b"holey")
    for page, length in ((2, PAGE), (5, PAGE), (7, 100)):
        fs.write(number, page * PAGE, b"x" * length)
    fs.setattr(number, Changes(size=9 * PAGE + PAGE // 2))
    return number


@pytest.mark.parametrize(
    ("offset", "whence", "found"),
    [
        (0, DATA, 2 * PAGE),
        (2 * PAGE + 5, DATA, 2 * PAGE + 5),
        (3 * PAGE, DATA, 5 * PAGE),
        (7 * PAGE + 200, DATA, 7 * PAGE + 200),
        (0, HOLE, 0),
        (5, HOLE, 5),
        (2 * PAGE, HOLE, 3 * PAGE),
        (5 * PAGE + 1, HOLE, 6 * PAGE),
        (9 * PAGE, HOLE, 9 * PAGE),
    ],
)
def test_seek(fs: Filesystem, holey: int, offset: int, whence: int, found: int) -> None:
    assert fs.seek(holey, offset, whence) == found


@pytest.mark.parametrize(
    ("offset", "whence"),
    [(8 * PAGE, DATA), (10 * PAGE, DATA), (10 * PAGE, HOLE), (-1, DATA), (1 << 50, HOLE)],
)
def test_seek_to_nothing(fs: Filesystem, holey: int, offset: int, whence: int) -> None:
    with pytest.raises(NoSuchOffsetError):
        fs.seek(holey, offset, whence)


def test_seek_ends_at_the_end(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"x" * 100)
    fs.fallocate(number, KEEP, 0, 4 * PAGE)
    assert fs.seek(number, 50, HOLE) == 100
    with pytest.raises(NoSuchOffsetError):
        fs.seek(number, 100, DATA)
    assert code_of(lambda: fs.seek(number, 0, os.SEEK_END)) == errno.EINVAL


# Copying


def test_copy(fs: Filesystem, holey: int, number: int) -> None:
    length = 9 * PAGE + PAGE // 2
    assert fs.copy_range(holey, 0, number, 0, 1 << 40) == length
    assert content(fs, number) == content(fs, holey)
    assert fs.copy_range(holey, length, number, 0, 10) == 0
    assert fs.copy_range(holey, 0, number, 0, 0) == 0


def test_copy_at_odd_offsets(fs: Filesystem, number: int) -> None:
    source = make(fs, b"g", bytes(range(256)) * 100)
    assert fs.copy_range(source, 1001, number, 77, 20_000) == 20_000
    assert content(fs, number) == bytes(77) + (bytes(range(256)) * 100)[1001:21_001]


def test_copy_more_than_a_piece(fs: Filesystem, number: int) -> None:
    data = os.urandom(1 << 20) + b"and more" * 1000
    assert fs.copy_range(make(fs, b"g", data), 0, number, 3, 1 << 30) == len(data)
    assert content(fs, number) == b"\0\0\0" + data


def test_copy_within_a_file(fs: Filesystem, number: int) -> None:
    fs.write(number, 0, b"abcdefgh")
    assert fs.copy_range(number, 0, number, 8, 8) == 8
    assert content(fs, number) == b"abcdefgh" * 2
    for to in (0, 4, 7):
        assert code_of(partial(fs.copy_range, number, 0, number, to, 8)) == errno.EINVAL
    assert fs.copy_range(number, 0, number, 16, 100) == 16


def test_copy_into_a_full_store(sized: Sized) -> None:
    fs = sized(16)
    source = make(fs, b"f", b"x" * 4 * PAGE)
    fs.write(source, 6 * PAGE, b"y" * PAGE)
    make(fs, b"g", b"z" * 5 * PAGE)
    target = make(fs, b"h")
    done = fs.copy_range(source, 0, target, 0, 7 * PAGE)
    assert 0 < done < 7 * PAGE
    assert content(fs, target) == content(fs, source)[:done]
    fs.fallocate(target, PUNCH | KEEP, 0, 1 << 20)
    with pytest.raises(NoSpaceError):
        fs.copy_range(source, 0, target, 0, 7 * PAGE)


# Cold pages


def test_a_cold_range_is_loaded_by_another_thread(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"f", b"x" * 10 * PAGE)
    fs.setattr(number, Changes(size=100 * PAGE))
    assert fs.cold_loader(number, 0, 10 * PAGE) is None
    assert fs.cold_loader(number, 50 * PAGE, PAGE) is None
    assert fs.cold_loader(number, 1 << 40, PAGE) is None
    loaded: list[tuple[int, int]] = []
    monkeypatch.setattr(MappedFile, "cached", lambda *_: CacheStatistics(0, 0))
    monkeypatch.setattr(
        MappedFile, "load", lambda _, offset, length, **_how: loaded.append((offset, length))
    )
    load = fs.cold_loader(number, PAGE + 5, 20 * PAGE)
    assert load is not None
    load()
    start = next(iter(fs._extents.mappings(number))).start * PAGE
    assert loaded == [(start + PAGE + 5, 9 * PAGE - 5)]
    monkeypatch.undo()
    fs.close()


def test_pages_of_another_size(sized: Sized) -> None:
    fs = sized(64, 65536)
    number = make(fs, b"f", b"x" * 70_000)
    said = values(fs, number)
    assert (said["pages"], said["slack"]) == (2, 131072 - 70_000)
    assert said["slack.at.4k"] == -70_000 % 4096
    fs.fallocate(number, PUNCH | KEEP, 0, 65536)
    assert values(fs, number)["pages"] == 1
    assert content(fs, number, 65530, 10) == bytes(6) + b"x" * 4
    assert fs.cold_loader(number, 0, 70_000) is None


def test_statfs(sized: Sized) -> None:
    fs = sized(64)
    said = fs.statfs()
    assert (said.page_size, said.total_pages, said.free_pages) == (PAGE, 64, 64)
    assert (said.inodes, said.free_inodes) == (1, 64)
    make(fs, b"f", b"x" * 10 * PAGE)
    fs.mkdir(ROOT, b"d", 0o755, ME)
    said = fs.statfs()
    assert (said.total_pages, said.free_pages, said.inodes) == (64, 54, 3)


def test_statfs_never_promises_what_the_host_lacks(
    sized: Sized, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = sized(64)
    make(fs, b"f", b"x" * 10 * PAGE)
    reserved = fs.store.allocator.reserved_pages
    monkeypatch.setattr(fs.store.backing, "host_free", lambda: 0)
    assert fs.statfs().free_pages == reserved
    monkeypatch.setattr(fs.store.backing, "host_free", lambda: PAGE * 1_000_000)
    assert fs.statfs().free_pages == 54
