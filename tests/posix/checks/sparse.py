"""Holes: what they cost, how they read, and how they are found, made and filled."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from pathlib import Path

from tests.posix import libc
from tests.posix.expect import fails, make_directory, make_file, opened, pattern
from tests.posix.needs import needs

RDWR_CREATE = os.O_RDWR | os.O_CREAT
PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1 << 20
GIB = 1 << 30


def blocks_of(path: Path) -> int:
    """Allocated bytes, once the filesystem has decided."""
    with opened(path) as fd:
        os.fsync(fd)
        return os.fstat(fd).st_blocks * 512


def check_a_hole_costs_nothing(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.pwrite(fd, b"x", GIB)
    assert os.stat(root / "file").st_size == GIB + 1
    assert PAGE <= blocks_of(root / "file") <= 64 * PAGE


def check_truncating_longer_costs_nothing(root: Path) -> None:
    make_file(root / "file", b"")
    os.truncate(root / "file", 10 * GIB)
    assert blocks_of(root / "file") == 0
    assert os.stat(root / "file").st_size == 10 * GIB


def check_data_is_counted_in_blocks(root: Path) -> None:
    for size in (1, PAGE, PAGE + 1, MIB):
        make_file(root / "file", pattern(size))
        assert size <= blocks_of(root / "file") + 511 <= size + 64 * PAGE


def check_truncating_shorter_gives_blocks_back(root: Path) -> None:
    make_file(root / "file", pattern(4 * MIB))
    assert blocks_of(root / "file") >= 4 * MIB
    os.truncate(root / "file", MIB)
    assert MIB <= blocks_of(root / "file") <= MIB + 64 * PAGE
    os.truncate(root / "file", 0)
    assert blocks_of(root / "file") == 0


def check_holes_read_as_zeros(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.pwrite(fd, b"head", 0)
        os.pwrite(fd, b"tail", 5 * MIB)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, 3 * MIB, 0) == b"head" + bytes(3 * MIB - 4)
        assert os.pread(fd, 100, 5 * MIB - 10) == bytes(10) + b"tail"


def check_reading_a_hole_costs_nothing(root: Path) -> None:
    make_file(root / "file", b"")
    os.truncate(root / "file", 1000 * PAGE)
    assert (root / "file").read_bytes() == bytes(1000 * PAGE)
    assert blocks_of(root / "file") == 0


def check_filling_a_hole_keeps_its_surroundings(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.ftruncate(fd, 40 * PAGE)
        model = bytearray(40 * PAGE)
        for offset in (20 * PAGE, 3 * PAGE + 5, 39 * PAGE, 0, 21 * PAGE - 1, 10 * PAGE):
            data = pattern(PAGE // 2, offset)
            model[offset : offset + len(data)] = data
            os.pwrite(fd, data, offset)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, 41 * PAGE, 0) == model


def check_a_file_of_a_thousand_holes(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        for number in range(1000):
            os.pwrite(fd, b"%04d" % number, number * 3 * PAGE + 17)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for number in range(0, 1000, 7):
            assert os.pread(fd, 6, number * 3 * PAGE + 16) == b"\0%04d\0" % number
    assert 1000 * PAGE <= blocks_of(root / "file") <= 1600 * PAGE


def check_seeking_data_and_holes_at_the_end(root: Path) -> None:
    make_file(root / "file", pattern(10 * PAGE))
    with opened(root / "file") as fd:
        assert os.lseek(fd, 5, os.SEEK_DATA) == 5
        assert os.lseek(fd, 5, os.SEEK_HOLE) == 10 * PAGE
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with fails(errno.ENXIO):
                os.lseek(fd, 10 * PAGE, whence)
            with fails(errno.ENXIO, errno.EINVAL):
                os.lseek(fd, -1, whence)


def check_seeking_in_an_empty_file_fails(root: Path) -> None:
    make_file(root / "file", b"")
    with opened(root / "file") as fd:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with fails(errno.ENXIO):
                os.lseek(fd, 0, whence)


@needs("seek_hole")
def check_seeking_finds_the_hole(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.pwrite(fd, pattern(MIB), 0)
        os.pwrite(fd, pattern(MIB), 8 * MIB)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == MIB
        assert os.lseek(fd, MIB, os.SEEK_DATA) == 8 * MIB
        assert os.lseek(fd, 3 * MIB, os.SEEK_HOLE) == 3 * MIB
        assert os.lseek(fd, 8 * MIB + 1, os.SEEK_DATA) == 8 * MIB + 1
        assert os.lseek(fd, 8 * MIB, os.SEEK_HOLE) == 9 * MIB


@needs("seek_hole")
def check_seeking_finds_no_data_behind_the_last(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.pwrite(fd, pattern(MIB), 0)
        os.ftruncate(fd, 4 * MIB)
        found = None
        try:
            found = os.lseek(fd, MIB, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO
        assert found is None
        assert os.lseek(fd, 0, os.SEEK_HOLE) == MIB


@needs("seek_hole")
def check_seeking_sees_what_another_has_written_and_not_synced(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as writer, opened(root / "file") as reader:
        os.ftruncate(writer, 8 * MIB)
        os.fsync(writer)
        os.pwrite(writer, b"x" * PAGE, 4 * MIB)
        assert os.lseek(reader, 0, os.SEEK_DATA) == 4 * MIB
        assert os.lseek(reader, 4 * MIB, os.SEEK_HOLE) == 4 * MIB + PAGE
        os.pwrite(writer, b"y" * PAGE, 2 * MIB)
        os.pwrite(writer, b"z" * PAGE, 16 * MIB)
        found, at = [], 0
        while at < 16 * MIB + PAGE:
            data = os.lseek(reader, at, os.SEEK_DATA)
            at = os.lseek(reader, data, os.SEEK_HOLE)
            found.append((data, at))
        assert found == [(start, start + PAGE) for start in (2 * MIB, 4 * MIB, 16 * MIB)]


@needs("seek_hole")
def check_seeking_sees_what_a_mapping_stored(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.ftruncate(fd, MIB)
        with mmap.mmap(fd, MIB) as mapped:
            mapped[512 * 1024] = 7
            assert os.lseek(fd, 0, os.SEEK_DATA) == 512 * 1024
            assert os.lseek(fd, 512 * 1024, os.SEEK_HOLE) == 512 * 1024 + PAGE


def check_blocks_are_counted_while_a_file_is_open(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        for size in (1, 2):
            os.pwrite(fd, pattern(64 * 1024), (size - 1) * 64 * 1024)
            os.fsync(fd)
            assert os.fstat(fd).st_blocks * 512 == size * 64 * 1024


def check_copying_a_file_that_is_being_written_copies_all(root: Path) -> None:
    expected = bytearray(8 * MIB)
    with opened(root / "file", RDWR_CREATE) as fd:
        os.ftruncate(fd, 8 * MIB)
        os.fsync(fd)
        for offset in (0, 3 * MIB + 5, 7 * MIB):
            expected[offset : offset + 5000] = pattern(5000, offset)
            os.pwrite(fd, pattern(5000, offset), offset)
        subprocess.run(["cp", "--sparse=auto", root / "file", root / "copy"], check=True)
        assert (root / "copy").read_bytes() == expected
    assert blocks_of(root / "copy") < MIB


def check_copying_with_cp_keeps_the_holes(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.pwrite(fd, pattern(MIB), 64 * MIB)
    subprocess.run(["cp", "--sparse=auto", root / "file", root / "copy"], check=True)
    subprocess.run(["cmp", root / "file", root / "copy"], check=True)
    assert blocks_of(root / "copy") <= 4 * MIB


@needs("fallocate")
def check_fallocate_extends_and_allocates(root: Path) -> None:
    make_file(root / "file", b"head")
    with opened(root / "file", os.O_RDWR) as fd:
        libc.fallocate(fd, 0, 0, 2 * MIB)
        assert os.fstat(fd).st_size == 2 * MIB
        assert os.pread(fd, MIB, 0) == b"head" + bytes(MIB - 4)
    assert blocks_of(root / "file") >= 2 * MIB


@needs("fallocate")
def check_fallocate_may_keep_the_size(root: Path) -> None:
    make_file(root / "file", b"head")
    with opened(root / "file", os.O_RDWR) as fd:
        libc.fallocate(fd, libc.FALLOC_FL_KEEP_SIZE, 0, 2 * MIB)
        assert os.fstat(fd).st_size == 4
        assert os.fstat(fd).st_blocks * 512 >= 2 * MIB
    assert (root / "file").read_bytes() == b"head"


@needs("fallocate")
def check_fallocate_behind_the_end_leaves_a_gap_of_zeros(root: Path) -> None:
    make_file(root / "file", b"head")
    with opened(root / "file", os.O_RDWR) as fd:
        libc.fallocate(fd, 0, MIB, MIB)
        assert os.fstat(fd).st_size == 2 * MIB
    assert (root / "file").read_bytes() == b"head" + bytes(2 * MIB - 4)


@needs("fallocate")
def check_punching_a_hole_zeros_and_frees(root: Path) -> None:
    make_file(root / "file", pattern(4 * MIB))
    flags = libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE
    with opened(root / "file", os.O_RDWR) as fd:
        libc.fallocate(fd, flags, MIB, 2 * MIB)
        assert os.fstat(fd).st_size == 4 * MIB
    data = bytearray(pattern(4 * MIB))
    data[MIB : 3 * MIB] = bytes(2 * MIB)
    assert (root / "file").read_bytes() == data
    assert 2 * MIB <= blocks_of(root / "file") <= 2 * MIB + 64 * PAGE


@needs("fallocate")
def check_punching_parts_of_pages_zeros_just_them(root: Path) -> None:
    flags = libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE
    for offset, length in ((10, 5), (PAGE - 3, 6), (PAGE + 1, 3 * PAGE), (5 * PAGE, 9 * PAGE)):
        data = bytearray(pattern(8 * PAGE + 100))
        make_file(root / "file", bytes(data))
        with opened(root / "file", os.O_RDWR) as fd:
            libc.fallocate(fd, flags, offset, length)
        end = min(offset + length, len(data))
        data[offset:end] = bytes(end - offset)
        assert (root / "file").read_bytes() == data


@needs("fallocate")
def check_zeroing_a_range_zeros_or_is_refused(root: Path) -> None:
    make_file(root / "file", pattern(8 * PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        libc.fallocate(fd, 0, 0, PAGE)
        try:
            libc.fallocate(fd, libc.FALLOC_FL_ZERO_RANGE, PAGE + 7, 2 * PAGE)
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            return
    data = bytearray(pattern(8 * PAGE))
    data[PAGE + 7 : 3 * PAGE + 7] = bytes(2 * PAGE)
    assert (root / "file").read_bytes() == data


@needs("fallocate")
def check_preallocated_pages_read_as_zeros_after_growing(root: Path) -> None:
    make_file(root / "file", pattern(8 * PAGE))
    os.truncate(root / "file", 10)
    with opened(root / "file", os.O_RDWR) as fd:
        libc.fallocate(fd, libc.FALLOC_FL_KEEP_SIZE, 0, 8 * PAGE)
        os.ftruncate(fd, 8 * PAGE)
    assert (root / "file").read_bytes() == pattern(10) + bytes(8 * PAGE - 10)


def check_posix_fallocate_allocates_and_keeps_what_is_there(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.pwrite(fd, b"dirty", PAGE)
        os.posix_fallocate(fd, 0, MIB)
        os.posix_fallocate(fd, 0, PAGE)
        assert os.fstat(fd).st_size == MIB
        assert os.pread(fd, PAGE + 6, 0) == bytes(PAGE) + b"dirty\0"
    assert blocks_of(root / "file") >= MIB


@needs("fallocate")
def check_zeroing_may_keep_the_size_or_extend(root: Path) -> None:
    make_file(root / "file", pattern(PAGE + 100))
    with opened(root / "file", os.O_RDWR) as fd:
        libc.fallocate(fd, 0, 0, PAGE)
        try:
            libc.fallocate(fd, libc.FALLOC_FL_ZERO_RANGE | libc.FALLOC_FL_KEEP_SIZE, PAGE, PAGE)
            assert os.fstat(fd).st_size == PAGE + 100
            libc.fallocate(fd, libc.FALLOC_FL_ZERO_RANGE, 10, 2 * PAGE)
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            return
    assert (root / "file").read_bytes() == pattern(10) + bytes(2 * PAGE)


@needs("fallocate")
def check_punching_takes_back_what_was_written_and_not_synced(root: Path) -> None:
    flags = libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE
    with opened(root / "file", RDWR_CREATE) as fd:
        os.pwrite(fd, pattern(8 * PAGE), 0)
        libc.fallocate(fd, flags, 2 * PAGE, 4 * PAGE)
        os.pwrite(fd, b"again", 3 * PAGE)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        expected = bytearray(pattern(8 * PAGE))
        expected[2 * PAGE : 6 * PAGE] = b"again".rjust(PAGE + 5, b"\0").ljust(4 * PAGE, b"\0")
        assert os.pread(fd, 9 * PAGE, 0) == expected


def check_fallocate_of_the_wrong_things_fails(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    with opened(root / "file", os.O_RDWR) as fd:
        for mode, offset, length in ((0, -1, 10), (0, 0, 0), (0, 0, -1)):
            with fails(errno.EINVAL):
                libc.fallocate(fd, mode, offset, length)
        with fails(errno.EOPNOTSUPP, errno.EINVAL):
            libc.fallocate(fd, libc.FALLOC_FL_PUNCH_HOLE, 0, 10)
        with fails(errno.EFBIG):
            libc.fallocate(fd, 0, (1 << 63) - 10, 100)
    with opened(root / "file") as fd, fails(errno.EBADF):
        libc.fallocate(fd, 0, 0, 10)
    with opened(root / "directory") as fd, fails(errno.EBADF):
        libc.fallocate(fd, 0, 0, 10)
