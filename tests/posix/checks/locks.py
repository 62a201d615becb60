"""flock, and POSIX record locks by process and by open file."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.posix import libc
from tests.posix.child import beside, holding, in_child
from tests.posix.expect import fails, make_file, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY = (errno.EAGAIN, errno.EACCES)
NOW = fcntl.LOCK_NB


@contextmanager
def two_opened(path: Path) -> Iterator[tuple[int, int]]:
    """Two independent descriptors of one new file."""
    make_file(path)
    with opened(path, os.O_RDWR) as one, opened(path, os.O_RDWR) as two:
        yield one, two


def lock_elsewhere(path: Path, kind: int, start: int = 0, length: int = 0) -> None:
    """Take a record lock in another process, at once or not at all."""

    def lock() -> None:
        with opened(path, os.O_RDWR) as fd:
            fcntl.lockf(fd, kind | NOW, length, start)

    in_child(lock)


def flock_anew(path: Path) -> None:
    """Take the whole file's lock and leave it to the end of the process."""
    fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)


def lockf_anew(path: Path, length: int = 0, start: int = 0) -> None:
    """Take a record lock and leave it to the end of the process."""
    fcntl.lockf(os.open(path, os.O_RDWR), fcntl.LOCK_EX, length, start)


def record(kind: int, start: int, length: int) -> bytes:
    """A struct flock counted from the start of the file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def wait_until_someone_waits(path: Path) -> None:
    """Until a process sleeps for a record lock on this file."""
    number = f":{os.stat(path).st_ino} "
    for _ in range(1000):
        lines = Path("/proc/locks").read_text().splitlines()
        if any("->" in line and number in line for line in lines):
            return
        time.sleep(0.005)
    raise AssertionError("nobody waits for the lock")


def check_flock_excludes(root: Path) -> None:
    with two_opened(root / "file") as (one, two):
        fcntl.flock(one, fcntl.LOCK_EX)
        for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
            with fails(errno.EWOULDBLOCK):
                fcntl.flock(two, kind | NOW)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_EX | NOW)


def check_flock_shares(root: Path) -> None:
    with two_opened(root / "file") as (one, two):
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | NOW)
        with fails(errno.EWOULDBLOCK):
            fcntl.flock(one, fcntl.LOCK_EX | NOW)


def check_flock_turns_one_kind_into_the_other(root: Path) -> None:
    with two_opened(root / "file") as (one, two):
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | NOW)
        fcntl.flock(two, fcntl.LOCK_UN)
        fcntl.flock(one, fcntl.LOCK_EX | NOW)


def check_flock_ends_with_the_last_duplicate(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as two:
        one = os.open(root / "file", os.O_RDWR)
        duplicate = os.dup(one)
        fcntl.flock(one, fcntl.LOCK_EX)
        os.close(one)
        with fails(errno.EWOULDBLOCK):
            fcntl.flock(two, fcntl.LOCK_EX | NOW)
        os.close(duplicate)
        fcntl.flock(two, fcntl.LOCK_EX | NOW)


def check_flock_excludes_other_processes_until_they_end(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        lock = partial(flock_anew, root / "file")
        with holding(lock), fails(errno.EWOULDBLOCK):
            fcntl.flock(fd, fcntl.LOCK_SH | NOW)
        fcntl.flock(fd, fcntl.LOCK_SH | NOW)


def check_flock_is_inherited(root: Path) -> None:
    with two_opened(root / "file") as (one, two):
        fcntl.flock(one, fcntl.LOCK_EX)
        in_child(lambda: fcntl.flock(one, fcntl.LOCK_UN))
        fcntl.flock(two, fcntl.LOCK_EX | NOW)


def check_flock_of_directories_and_read_only_descriptors(root: Path) -> None:
    with opened(root) as one, opened(root) as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with fails(errno.EWOULDBLOCK):
            fcntl.flock(two, fcntl.LOCK_EX | NOW)


def check_flock_goes_with_the_file_not_the_name(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        os.rename(root / "file", root / "moved")
        make_file(root / "file")
        with opened(root / "file") as new, opened(root / "moved") as same:
            fcntl.flock(new, fcntl.LOCK_EX | NOW)
            with fails(errno.EWOULDBLOCK):
                fcntl.flock(same, fcntl.LOCK_EX | NOW)


def check_record_locks_exclude_other_processes(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
            with fails(*BUSY):
                lock_elsewhere(root / "file", kind)
        fcntl.lockf(fd, fcntl.LOCK_UN)
        lock_elsewhere(root / "file", fcntl.LOCK_EX)


def check_record_locks_share_for_reading(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_SH)
        lock_elsewhere(root / "file", fcntl.LOCK_SH)
        with fails(*BUSY):
            lock_elsewhere(root / "file", fcntl.LOCK_EX)


def check_record_locks_cover_just_their_range(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 100)
        for start, length in ((0, 100), (110, 0)):
            lock_elsewhere(root / "file", fcntl.LOCK_EX, start, length)
        for start, length in ((0, 101), (109, 1), (0, 0), (105, 2)):
            with fails(*BUSY):
                lock_elsewhere(root / "file", fcntl.LOCK_EX, start, length)


def check_record_locks_can_be_split(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 100, 0)
        fcntl.lockf(fd, fcntl.LOCK_UN, 10, 45)
        lock_elsewhere(root / "file", fcntl.LOCK_EX, 45, 10)
        for start in (44, 55):
            with fails(*BUSY):
                lock_elsewhere(root / "file", fcntl.LOCK_EX, start, 1)


def check_record_locks_end_when_any_descriptor_closes(root: Path) -> None:
    with two_opened(root / "file") as (one, _):
        fcntl.lockf(one, fcntl.LOCK_EX)
        os.close(os.open(root / "file", os.O_RDONLY))
        lock_elsewhere(root / "file", fcntl.LOCK_EX)


def check_record_locks_are_not_inherited(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        with fails(*BUSY):
            in_child(lambda: fcntl.lockf(fd, fcntl.LOCK_EX | NOW))


def check_record_locks_end_with_their_process(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        lock = partial(lockf_anew, root / "file")
        with holding(lock), fails(*BUSY):
            fcntl.lockf(fd, fcntl.LOCK_EX | NOW)
        fcntl.lockf(fd, fcntl.LOCK_EX | NOW)


def check_record_locks_name_their_holder(root: Path) -> None:
    make_file(root / "file")

    lock = partial(lockf_anew, root / "file", 10, 100)
    with opened(root / "file", os.O_RDWR) as fd, holding(lock) as holder:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, record(fcntl.F_WRLCK, 0, 0))
        kind, _, start, length, pid = struct.unpack("hhqqi4x", answer)
        assert (kind, start, length, pid) == (fcntl.F_WRLCK, 100, 10, holder)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, record(fcntl.F_WRLCK, 0, 50))
        assert struct.unpack("hhqqi4x", answer)[0] == fcntl.F_UNLCK


def check_record_locks_need_a_fitting_descriptor(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDONLY) as fd, fails(errno.EBADF):
        fcntl.lockf(fd, fcntl.LOCK_EX)
    with opened(root / "file", os.O_WRONLY) as fd, fails(errno.EBADF):
        fcntl.lockf(fd, fcntl.LOCK_SH)


def check_record_locks_far_beyond_the_end(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1 << 60)
        with fails(*BUSY):
            lock_elsewhere(root / "file", fcntl.LOCK_EX, 1 << 60, 1)
        assert os.fstat(fd).st_size == len(b"content")


def check_record_locks_in_a_circle_are_a_deadlock(root: Path) -> None:
    make_file(root / "file")
    turn, passed = os.pipe()

    def lock_second_then_first() -> None:
        fd = os.open(root / "file", os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
        os.write(passed, b"x")
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)

    def lock_first_then_second() -> None:
        fd = os.open(root / "file", os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
        with beside(lock_second_then_first):
            os.read(turn, 1)
            wait_until_someone_waits(root / "file")
            with fails(errno.EDEADLK):
                fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, 0)

    in_child(lock_first_then_second)
    os.close(turn)
    os.close(passed)


def check_open_file_locks_exclude_within_a_process(root: Path) -> None:
    with two_opened(root / "file") as (one, two):
        fcntl.fcntl(one, libc.F_OFD_SETLK, record(fcntl.F_WRLCK, 0, 10))
        with fails(*BUSY):
            fcntl.fcntl(two, libc.F_OFD_SETLK, record(fcntl.F_WRLCK, 5, 10))
        fcntl.fcntl(two, libc.F_OFD_SETLK, record(fcntl.F_WRLCK, 10, 10))
        os.close(os.open(root / "file", os.O_RDONLY))
        with fails(*BUSY):
            fcntl.fcntl(two, libc.F_OFD_SETLK, record(fcntl.F_RDLCK, 0, 1))


def check_both_kinds_of_lock_ignore_each_other(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        lock_elsewhere(root / "file", fcntl.LOCK_EX)


def check_locks_do_not_hinder_reading_and_writing(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_EX)

        def act() -> None:
            with opened(root / "file", os.O_RDWR) as other:
                os.pwrite(other, b"C", 0)

        in_child(act)
        assert os.pread(fd, 7, 0) == b"Content"
