"""copy_file_range(2): what the filesystem copies by itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.posix import libc
from tests.posix.expect import changes, fails, make_file, opened, pattern

RDWR_CREATE = os.O_RDWR | os.O_CREAT
PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1 << 20


def copy_all(source: int, start: int, target: int, to: int, length: int) -> int:
    """Copy until nothing is left: one call may copy less than it was asked for."""
    done = 0
    while done < length:
        step = libc.copy_file_range(source, start + done, target, to + done, length - done)
        if step == 0:
            break
        done += step
    return done


def check_copying_what_is_on_disk(root: Path) -> None:
    make_file(root / "file", pattern(9 * MIB + 100))
    with opened(root / "file") as source, opened(root / "copy", RDWR_CREATE) as target:
        os.fsync(source)
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
        assert copy_all(source, 0, target, 0, 100 * MIB) == 9 * MIB + 100
    assert (root / "copy").read_bytes() == pattern(9 * MIB + 100)


def check_copying_what_is_written_and_not_synced(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as source, opened(root / "copy", RDWR_CREATE) as target:
        os.pwrite(source, pattern(MIB), 0)
        os.pwrite(target, pattern(MIB, 2), 0)
        os.pwrite(source, b"last", 100)
        assert copy_all(source, 100, target, PAGE + 1, 3 * PAGE) == 3 * PAGE
        os.pwrite(target, b"later", PAGE + 1)
        copied = bytearray(pattern(MIB, 2))
        copied[PAGE + 1 : 4 * PAGE + 1] = b"last" + pattern(MIB)[104 : 100 + 3 * PAGE]
        copied[PAGE + 1 : PAGE + 6] = b"later"
        os.fsync(target)
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(target, 2 * MIB, 0) == copied


def check_copying_within_a_file(root: Path) -> None:
    make_file(root / "file", pattern(8 * PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        assert copy_all(fd, 0, fd, 6 * PAGE, 2 * PAGE) == 2 * PAGE
        with fails(errno.EINVAL):
            libc.copy_file_range(fd, 0, fd, PAGE, 2 * PAGE)
    assert (root / "file").read_bytes() == pattern(8 * PAGE)[: 6 * PAGE] + pattern(2 * PAGE)


def check_copying_behind_the_end_copies_nothing(root: Path) -> None:
    make_file(root / "file", b"short")
    with opened(root / "file") as source, opened(root / "copy", RDWR_CREATE) as target:
        assert libc.copy_file_range(source, 5, target, 0, 100) == 0
        assert os.fstat(target).st_size == 0


def check_copying_leaves_a_gap_of_zeros(root: Path) -> None:
    make_file(root / "file", b"content")
    with opened(root / "file") as source, opened(root / "copy", RDWR_CREATE) as target:
        assert copy_all(source, 0, target, 3 * PAGE + 5, 7) == 7
    assert (root / "copy").read_bytes() == bytes(3 * PAGE + 5) + b"content"


def check_copying_is_seen_in_times(root: Path) -> None:
    make_file(root / "file")
    make_file(root / "copy")
    with (
        opened(root / "file") as source,
        opened(root / "copy", os.O_RDWR) as target,
        changes(root / "file"),
        changes(root / "copy", "mtime", "ctime"),
    ):
        copy_all(source, 0, target, 0, 7)


def check_copying_between_wrong_descriptors_fails(root: Path) -> None:
    make_file(root / "file")
    make_file(root / "copy")
    with opened(root / "file") as source, opened(root / "copy") as target, fails(errno.EBADF):
        libc.copy_file_range(source, 0, target, 0, 1)
    with opened(root) as source, opened(root / "copy", os.O_WRONLY) as target, fails(errno.EISDIR):
        libc.copy_file_range(source, 0, target, 0, 1)
