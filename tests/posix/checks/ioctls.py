"""ioctl(2): the flags of files, and requests that no filesystem knows."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from tests.posix.expect import fails, make_directory, make_file, opened
from tests.posix.needs import needs

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE_FL = 0x10
NOT_AN_IOCTL = 0x80045A7F


@needs("attribute_flags")
def check_new_files_and_directories_have_no_flags(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    for name in ("file", "directory"):
        with opened(root / name) as fd:
            flags = int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4], "little")
            assert flags & FS_IMMUTABLE_FL == 0


def check_unknown_ioctls_fail(root: Path) -> None:
    make_file(root / "file")
    for path in (root / "file", root):
        with opened(path) as fd, fails(errno.ENOTTY):
            fcntl.ioctl(fd, NOT_AN_IOCTL, bytes(4))


def check_a_file_is_no_terminal(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        assert not os.isatty(fd)
