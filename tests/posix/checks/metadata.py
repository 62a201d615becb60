"""Attributes: stat, chmod, chown, times, and which call moves which time."""

from __future__ import annotations

import errno
import os
import stat
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.posix import libc
from tests.posix.expect import (
    LONG_AGO_NS,
    changes,
    fails,
    file_clock,
    make_directory,
    make_file,
    mode_of,
    next_tick,
    opened,
)
from tests.posix.needs import needs

if TYPE_CHECKING:
    from collections.abc import Callable

BILLION = 10**9


def check_stat_tells_kind_and_size(root: Path) -> None:
    make_file(root / "file", b"x" * 1234)
    os.mkdir(root / "directory")
    assert os.stat(root / "file").st_size == 1234
    assert stat.S_ISREG(os.stat(root / "file").st_mode)
    assert stat.S_ISDIR(os.stat(root / "directory").st_mode)
    assert os.stat(root / "file").st_blksize > 0


def check_stat_of_missing_things_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOENT):
        os.stat(root / "missing")
    with fails(errno.ENOENT):
        os.stat(root / "missing" / "below")
    with fails(errno.ENOTDIR):
        os.stat(root / "file" / "below")
    with fails(errno.ENOTDIR):
        os.stat(f"{root}/file/")


def check_inode_numbers_are_unique_and_stay(root: Path) -> None:
    numbers = {}
    for number in range(200):
        numbers[number] = os.stat(make_file(root / f"{number}", b"")).st_ino
    assert len(set(numbers.values())) == 200
    assert all(os.stat(root / f"{n}").st_ino == ino for n, ino in numbers.items())


def check_everything_is_on_one_device(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    devices = {os.stat(path).st_dev for path in (root, root / "file", root / "directory")}
    assert len(devices) == 1


def check_chmod_sets_every_bit(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    for path in (root / "file", root / "directory"):
        for mode in [1 << bit for bit in range(12)] + [0, 0o7777, 0o644]:
            os.chmod(path, mode)
            assert mode_of(path) == mode
    assert stat.S_ISDIR(os.stat(root / "directory").st_mode)


def check_chmod_through_a_descriptor(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        os.fchmod(fd, 0o4711)
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o4711
    with opened(root, os.O_RDONLY) as fd:
        os.fchmod(fd, 0o700)
    assert mode_of(root) == 0o700


def check_chmod_of_missing_things_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOENT):
        os.chmod(root / "missing", 0o644)
    with fails(errno.ENOTDIR):
        os.chmod(root / "file" / "below", 0o644)
    os.symlink("nowhere", root / "dangling")
    with fails(errno.ENOENT):
        os.chmod(root / "dangling", 0o644)


def check_chmod_shows_in_every_link(root: Path) -> None:
    make_file(root / "one")
    os.link(root / "one", root / "two")
    assert mode_of(root / "two") == 0o644
    os.chmod(root / "one", 0o400)
    assert mode_of(root / "two") == 0o400


@needs("root")
def check_chown_sets_owner_and_group(root: Path) -> None:
    make_file(root / "file")
    for uid, gid in ((1, 2), (65_535, 65_534), (70_000, 80_000), ((1 << 32) - 2, (1 << 31) + 5)):
        os.chown(root / "file", uid, gid)
        status = os.stat(root / "file")
        assert (status.st_uid, status.st_gid) == (uid, gid)


@needs("root")
def check_chown_leaves_what_is_minus_one(root: Path) -> None:
    make_file(root / "file")
    os.chown(root / "file", 10, 20)
    os.chown(root / "file", -1, 30)
    os.chown(root / "file", 40, -1)
    os.chown(root / "file", -1, -1)
    status = os.stat(root / "file")
    assert (status.st_uid, status.st_gid) == (40, 30)


@needs("root")
def check_chown_of_directories_and_descriptors(root: Path) -> None:
    os.mkdir(root / "directory")
    os.chown(root / "directory", 10, 20)
    with opened(root / "directory") as fd:
        os.fchown(fd, 11, -1)
        assert (os.fstat(fd).st_uid, os.fstat(fd).st_gid) == (11, 20)


def check_chown_of_missing_things_fails(root: Path) -> None:
    with fails(errno.ENOENT):
        os.chown(root / "missing", -1, -1)
    os.symlink("nowhere", root / "dangling")
    with fails(errno.ENOENT):
        os.chown(root / "dangling", -1, -1)
    os.lchown(root / "dangling", -1, -1)


def check_times_are_kept_to_the_nanosecond(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    for path in (root / "file", root / "directory"):
        os.utime(path, ns=(1_234_567_890 * BILLION + 123_456_789, 987_654_321 * BILLION + 1))
        status = os.stat(path)
        assert status.st_atime_ns == 1_234_567_890 * BILLION + 123_456_789
        assert status.st_mtime_ns == 987_654_321 * BILLION + 1


def check_times_at_the_edges(root: Path) -> None:
    make_file(root / "file")
    for seconds in (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 33) + 5):
        for nanoseconds in (0, 1, 999_999_999):
            wanted = seconds * BILLION + nanoseconds
            os.utime(root / "file", ns=(wanted, wanted))
            status = os.stat(root / "file")
            assert (status.st_atime_ns, status.st_mtime_ns) == (wanted, wanted)


def check_times_before_1970(root: Path) -> None:
    make_file(root / "file")
    for seconds, nanoseconds in ((-1, 0), (-1, 999_999_999), (-1_000_000_000, 5)):
        libc.utimens(root / "file", (seconds, nanoseconds), (seconds, nanoseconds))
        status = os.stat(root / "file")
        assert status.st_mtime_ns == status.st_atime_ns == seconds * BILLION + nanoseconds


def check_utimens_omits_atime(root: Path) -> None:
    make_file(root / "file")
    os.utime(root / "file", ns=(11, 22))
    libc.utimens(root / "file", libc.UTIME_OMIT, (5, 6))
    status = os.stat(root / "file")
    assert (status.st_atime_ns, status.st_mtime_ns) == (11, 5 * BILLION + 6)


def check_utimens_omits_mtime(root: Path) -> None:
    make_file(root / "file")
    os.utime(root / "file", ns=(11, 22))
    libc.utimens(root / "file", (5, 6), libc.UTIME_OMIT)
    status = os.stat(root / "file")
    assert (status.st_atime_ns, status.st_mtime_ns) == (5 * BILLION + 6, 22)


def check_utimens_omitting_both_changes_nothing(root: Path) -> None:
    make_file(root / "file")
    os.utime(root / "file", ns=(11, 22))
    with changes(root / "file"):
        libc.utimens(root / "file", libc.UTIME_OMIT, libc.UTIME_OMIT)
    assert os.stat(root / "file").st_atime_ns == 11


def check_utimens_now_is_now(root: Path) -> None:
    make_file(root / "file")
    os.utime(root / "file", ns=(LONG_AGO_NS, LONG_AGO_NS))
    earliest = file_clock()
    libc.utimens(root / "file", libc.UTIME_OMIT, libc.UTIME_NOW)
    status = os.stat(root / "file")
    assert status.st_atime_ns == LONG_AGO_NS
    assert earliest <= status.st_mtime_ns <= time.time_ns()
    libc.utimens(root / "file", libc.UTIME_NOW, libc.UTIME_OMIT)
    assert earliest <= os.stat(root / "file").st_atime_ns <= time.time_ns()
    assert os.stat(root / "file").st_mtime_ns == status.st_mtime_ns


def check_utime_without_times_is_now(root: Path) -> None:
    make_file(root / "file")
    os.utime(root / "file", ns=(LONG_AGO_NS, LONG_AGO_NS))
    earliest = file_clock()
    os.utime(root / "file")
    status = os.stat(root / "file")
    for moment in (status.st_mtime_ns, status.st_atime_ns):
        assert earliest <= moment <= time.time_ns()


def check_utimens_with_wrong_nanoseconds_fails(root: Path) -> None:
    make_file(root / "file")
    for nanoseconds in (-1, BILLION):
        with fails(errno.EINVAL):
            libc.utimens(root / "file", (0, nanoseconds), (0, 0))
    with fails(errno.EINVAL):
        libc.utimens(root / "file", (0, 0), (0, 0), flags=0x10)
    with fails(errno.ENOENT):
        libc.utimens(root / "missing", (0, 0), (0, 0))


def check_utimens_of_symlinks_and_descriptors(root: Path) -> None:
    os.symlink("nowhere", root / "link")
    libc.utimens(root / "link", (1, 2), (3, 4), libc.AT_SYMLINK_NOFOLLOW)
    assert os.lstat(root / "link").st_mtime_ns == 3 * BILLION + 4
    make_file(root / "file")
    with opened(root / "file") as fd:
        os.utime(fd, ns=(7, 8))
        assert (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns) == (7, 8)


def check_times_set_stay_after_writing_and_closing(root: Path) -> None:
    with opened(root / "file", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"x" * 10_000)
        os.utime(fd, ns=(11, 22))
        os.fchmod(fd, 0o600)
    with opened(root / "file", os.O_RDWR) as fd:
        os.fsync(fd)
        assert os.fstat(fd).st_mtime_ns == 22
    status = os.stat(root / "file")
    assert (status.st_atime_ns, status.st_mtime_ns) == (11, 22)


def check_new_things_are_of_now(root: Path) -> None:
    makers: tuple[Callable[[Path], object], ...] = (
        make_file,
        os.mkdir,
        os.mkfifo,
        partial(os.symlink, "target"),
    )
    for number, make in enumerate(makers):
        earliest = file_clock()
        make(root / f"{number}")
        status = os.lstat(root / f"{number}")
        for moment in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns):
            assert earliest <= moment <= time.time_ns()


def check_new_entries_move_the_times_of_their_directory(root: Path) -> None:
    make_file(root.parent / f"{root.name}-outside")
    actions = (
        lambda: make_file(root / "file"),
        lambda: os.mkdir(root / "directory"),
        lambda: os.mkfifo(root / "fifo"),
        lambda: os.symlink("target", root / "symlink"),
        lambda: os.link(root / "file", root / "link"),
        lambda: os.rename(root / "file", root / "renamed"),
        lambda: os.rename(root.parent / f"{root.name}-outside", root / "moved-in"),
    )
    for action in actions:
        with changes(root, "mtime", "ctime"):
            action()


def check_removed_entries_move_the_times_of_their_directory(root: Path) -> None:
    make_file(root / "file")
    make_file(root / "moved-out")
    os.mkdir(root / "directory")
    os.mkdir(root / "elsewhere")
    actions = (
        lambda: os.unlink(root / "file"),
        lambda: os.rmdir(root / "directory"),
        lambda: os.rename(root / "moved-out", root / "elsewhere" / "moved-in"),
    )
    for action in actions:
        with changes(root, "mtime", "ctime"):
            action()


def check_rename_moves_the_times_of_both_directories(root: Path) -> None:
    os.mkdir(root / "a")
    os.mkdir(root / "b")
    make_file(root / "a" / "file")
    with changes(root / "a", "mtime", "ctime"), changes(root / "b", "mtime", "ctime"):
        os.rename(root / "a" / "file", root / "b" / "file")


def check_exchange_moves_the_times_of_both_directories(root: Path) -> None:
    for parent in ("a", "b"):
        os.mkdir(root / parent)
        make_file(root / parent / "file")
    with changes(root / "a", "mtime", "ctime"), changes(root / "b", "mtime", "ctime"):
        libc.rename(root / "a" / "file", root / "b" / "file", libc.RENAME_EXCHANGE)


def check_failed_calls_move_no_times(root: Path) -> None:
    make_file(root / "file")
    os.mkdir(root / "directory")
    with changes(root), changes(root / "file"), changes(root / "directory"):
        with fails(errno.EEXIST):
            os.mkdir(root / "file")
        with fails(errno.EEXIST):
            os.link(root / "file", root / "directory")
        with fails(errno.EISDIR):
            os.rename(root / "file", root / "directory")
        with fails(errno.ENOTDIR):
            os.rmdir(root / "file")


def check_work_below_a_directory_leaves_its_times(root: Path) -> None:
    os.mkdir(root / "directory")
    make_file(root / "file")
    with changes(root):
        make_file(root / "directory" / "new")
        make_file(root / "file", b"changed", 0o600)
        os.listdir(root)
        os.utime(root / "file")


def check_write_moves_mtime_and_ctime(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        with changes(root / "file", "mtime", "ctime"):
            os.pwrite(fd, b"x", 0)
        with changes(fd, "mtime", "ctime"):
            os.pwrite(fd, b"x", 100)


def check_write_of_nothing_moves_no_times(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd, changes(root / "file"):
        os.write(fd, b"")


def check_times_of_a_write_survive_close_and_sync(root: Path) -> None:
    make_file(root / "file", b"x" * 9000)
    os.utime(root / "file", ns=(LONG_AGO_NS, LONG_AGO_NS))
    with opened(root / "file", os.O_RDWR) as fd:
        os.pwrite(fd, b"y", 5000)
        before = os.fstat(fd)
    next_tick()
    with opened(root / "file", os.O_RDWR) as fd:
        os.fsync(fd)
        after = os.fstat(fd)
    assert before.st_mtime_ns == after.st_mtime_ns > LONG_AGO_NS
    assert before.st_ctime_ns == after.st_ctime_ns


def check_truncate_moves_mtime_and_ctime(root: Path) -> None:
    make_file(root / "file")
    for size in (3, 10_000, 0):
        with changes(root / "file", "mtime", "ctime"):
            os.truncate(root / "file", size)
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd, changes(fd, "mtime", "ctime"):
        os.ftruncate(fd, 1)


def check_open_with_truncate_moves_mtime_and_ctime(root: Path) -> None:
    make_file(root / "file")
    with changes(root / "file", "mtime", "ctime"), opened(root / "file", os.O_WRONLY | os.O_TRUNC):
        pass


def check_reading_and_looking_moves_neither(root: Path) -> None:
    make_file(root / "file")
    os.symlink("file", root / "link")
    with changes(root / "file"), changes(root), changes(root / "link"):
        (root / "link").read_bytes()
        os.listdir(root)
        os.readlink(root / "link")
        os.access(root / "file", os.R_OK)
        os.statvfs(root / "file")


def check_open_and_close_for_writing_moves_neither(root: Path) -> None:
    make_file(root / "file")
    with changes(root / "file"), opened(root / "file", os.O_RDWR | os.O_CREAT):
        pass


def check_attribute_changes_move_ctime_only(root: Path) -> None:
    make_file(root / "file")
    os.mkdir(root / "directory")
    for path in (root / "file", root / "directory"):
        with changes(path, "ctime"):
            os.chmod(path, 0o700)
        with changes(path, "ctime"):
            os.chown(path, os.geteuid(), os.getegid())


@needs("user_xattr")
def check_xattr_changes_move_ctime_only(root: Path) -> None:
    make_file(root / "file")
    with changes(root / "file", "ctime"):
        os.setxattr(root / "file", "user.name", b"value")
    with changes(root / "file"):
        os.getxattr(root / "file", "user.name")
        os.listxattr(root / "file")
    with changes(root / "file", "ctime"):
        os.removexattr(root / "file", "user.name")


def check_utime_moves_ctime(root: Path) -> None:
    make_file(root / "file")
    mtime = os.stat(root / "file").st_mtime_ns
    with changes(root / "file", "ctime"):
        os.utime(root / "file", ns=(1, mtime))


def check_linking_and_unlinking_move_ctime_of_the_file(root: Path) -> None:
    make_file(root / "file")
    with changes(root / "file", "ctime"):
        os.link(root / "file", root / "link")
    with changes(root / "file", "ctime"):
        os.unlink(root / "link")
    with opened(root / "file") as fd, changes(fd, "ctime"):
        os.unlink(root / "file")


def check_being_replaced_moves_ctime_of_the_file(root: Path) -> None:
    make_file(root / "file")
    os.link(root / "file", root / "link")
    make_file(root / "new")
    with changes(root / "link", "ctime"):
        os.rename(root / "new", root / "file")


def check_rename_leaves_mtime_of_the_file(root: Path) -> None:
    make_file(root / "old")
    os.utime(root / "old", ns=(LONG_AGO_NS, LONG_AGO_NS))
    os.rename(root / "old", root / "new")
    assert os.stat(root / "new").st_mtime_ns == LONG_AGO_NS


def check_reading_moves_an_atime_older_than_mtime(root: Path) -> None:
    with opened(root / "file", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"x" * 10_000)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    mtime = os.stat(root / "file").st_mtime_ns
    os.utime(root / "file", ns=(LONG_AGO_NS, mtime))
    (root / "file").read_bytes()
    assert os.stat(root / "file").st_atime_ns >= mtime


def check_reading_leaves_a_young_atime(root: Path) -> None:
    with opened(root / "file", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"x" * 10_000)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    # Setting times moves ctime to now, and relatime compares with that too.
    young = time.time_ns() + 3600 * BILLION
    os.utime(root / "file", ns=(young, LONG_AGO_NS))
    (root / "file").read_bytes()
    assert os.stat(root / "file").st_atime_ns == young


def check_listing_moves_an_old_atime_of_the_directory(root: Path) -> None:
    os.mkdir(root / "directory")
    make_file(root / "directory" / "file")
    os.utime(root / "directory", ns=(LONG_AGO_NS, LONG_AGO_NS))
    os.listdir(root / "directory")
    status = os.stat(root / "directory")
    assert status.st_atime_ns > LONG_AGO_NS
    assert status.st_mtime_ns == LONG_AGO_NS


def check_readlink_moves_an_old_atime_of_the_symlink(root: Path) -> None:
    os.symlink("target", root / "link")
    os.utime(root / "link", ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)
    os.readlink(root / "link")
    assert os.lstat(root / "link").st_atime_ns > LONG_AGO_NS


def check_statvfs_is_plausible(root: Path) -> None:
    numbers = os.statvfs(root)
    assert numbers.f_namemax == 255
    assert numbers.f_bsize > 0
    assert numbers.f_frsize > 0
    assert 0 <= numbers.f_bavail <= numbers.f_bfree <= numbers.f_blocks
    assert 0 <= numbers.f_favail <= numbers.f_ffree <= numbers.f_files
    make_file(root / "file")
    with opened(root / "file") as fd:
        assert os.statvfs(fd).f_blocks == numbers.f_blocks


@needs("birth")
def check_the_time_of_birth_stays(root: Path) -> None:
    earliest = file_clock()
    make_file(root / "file")
    born = libc.birth_time(root / "file")
    assert born is not None
    assert earliest <= born <= time.time_ns()
    next_tick()
    (root / "file").write_bytes(b"more")
    os.utime(root / "file", ns=(LONG_AGO_NS, LONG_AGO_NS))
    os.chmod(root / "file", 0o600)
    os.rename(root / "file", root / "moved")
    assert libc.birth_time(root / "moved") == born
