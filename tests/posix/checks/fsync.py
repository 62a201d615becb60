"""fsync and its relatives: accepted everywhere they should be, and changing nothing."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from tests.posix import libc
from tests.posix.expect import changes, fails, make_file, opened, pattern

RDWR_CREATE = os.O_RDWR | os.O_CREAT


def check_fsync_and_fdatasync_of_files(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        for sync in (os.fsync, os.fdatasync):
            os.write(fd, pattern(100_000))
            sync(fd)
            sync(fd)
        assert os.fstat(fd).st_size == 200_000


def check_fsync_of_read_only_descriptors(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        os.fsync(fd)
        os.fdatasync(fd)


def check_fsync_of_directories(root: Path) -> None:
    make_file(root / "file")
    with opened(root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)
        os.unlink(root / "file")
        os.fdatasync(fd)


def check_fsync_of_unlinked_files(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.write(fd, pattern(50_000))
        os.unlink(root / "file")
        os.fsync(fd)
        assert os.pread(fd, 50_000, 0) == pattern(50_000)


def check_fsync_of_the_wrong_things_fails(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with opened(root / "fifo", os.O_RDWR) as fd, fails(errno.EINVAL):
        os.fsync(fd)
    with opened(root, os.O_PATH) as fd, fails(errno.EBADF):
        os.fsync(fd)


def check_fsync_moves_no_times(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd, changes(root / "file"), changes(root):
        os.fsync(fd)


def check_synchronous_descriptors_write(root: Path) -> None:
    for flag in (os.O_SYNC, os.O_DSYNC):
        with opened(root / "file", RDWR_CREATE | flag) as fd:
            os.pwrite(fd, pattern(10_000), 3)
            assert os.pread(fd, 10_000, 3) == pattern(10_000)


def check_syncing_ranges_and_filesystems(root: Path) -> None:
    with opened(root / "file", RDWR_CREATE) as fd:
        os.write(fd, pattern(100_000))
        libc.sync_file_range(fd, 0, 50_000)
        libc.syncfs(fd)
        assert os.pread(fd, 100_000, 0) == pattern(100_000)


def check_many_threads_sync_at_once(root: Path) -> None:
    failures = []

    def work(number: int) -> None:
        try:
            with opened(root / f"{number}", RDWR_CREATE) as fd:
                for _ in range(10):
                    os.write(fd, pattern(5000, number))
                    os.fsync(fd)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all((root / f"{n}").read_bytes() == pattern(5000, n) * 10 for n in range(8))


def check_files_written_replaced_and_synced_are_whole(root: Path) -> None:
    for number in range(20):
        with opened(root / "new", RDWR_CREATE | os.O_TRUNC) as fd:
            os.write(fd, pattern(20_000, number))
            os.fsync(fd)
        os.rename(root / "new", root / "file")
        with opened(root) as fd:
            os.fsync(fd)
        assert (root / "file").read_bytes() == pattern(20_000, number)
