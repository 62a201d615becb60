"""Times, owners and modes: setattr, relatime, and the clock."""

import errno
import os
import stat
import time as system_time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mapfs.filesystem import clock, metadata
from mapfs.filesystem.filesystem import AccessTimes, Changes, Filesystem
from tests.unit.support import ME, ROOT, assert_sound, code_of, content, make, memory_store

SECOND = 10**9
DAY = 24 * 3600 * SECOND
START = 1_800_000_000 * SECOND
Opener = Callable[[AccessTimes], Filesystem]


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> int:
        return self.time


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    patched = Clock()
    for module in ("content", "directory", "metadata", "namespace", "xattr"):
        monkeypatch.setattr(f"mapfs.filesystem.{module}.now", patched)
    monkeypatch.setattr("mapfs.filesystem.metadata.roughly_now", patched)
    return patched


@pytest.fixture
def opened(time: Clock) -> Iterator[Opener]:
    made: list[Filesystem] = []

    def make_one(access_times: AccessTimes) -> Filesystem:
        made.append(Filesystem(memory_store(), access_times=access_times))
        return made[-1]

    yield make_one
    for each in made:
        each.close()


def times(fs: Filesystem, number: int) -> tuple[int, int, int]:
    """atime, mtime and ctime in seconds since the start."""
    inode = fs.inode(number)
    return tuple((at - START) // SECOND for at in (inode.atime, inode.mtime, inode.ctime))  # type: ignore[return-value]


def test_the_clock_of_the_kernel() -> None:
    assert clock.now() > 1_700_000_000 * SECOND
    assert clock.now() <= clock.now()


def test_a_file_stamped_by_the_kernel_is_never_in_the_future(tmp_path: Path) -> None:
    """Looking at a file's times has Linux give it a fine one when it changes next."""
    file = tmp_path / "file"
    file.touch()
    for _ in range(100):
        file.stat()
        os.utime(file)
        stamped = file.stat().st_mtime_ns
        assert stamped <= clock.now() <= system_time.time_ns()


@pytest.mark.parametrize(
    ("time", "clamped"),
    [
        (0, 0),
        (-5, -5),
        ((1 << 63) - 1, (1 << 63) - 1),
        (1 << 63, (1 << 63) - 1),
        (-(1 << 64), -((1 << 63) - 1)),
    ],
)
def test_clamped(time: int, clamped: int) -> None:
    assert clock.clamped(time) == clamped


def test_what_changes_which_time(time: Clock, fs: Filesystem) -> None:
    number = make(fs, b"f")
    assert times(fs, number) == (0, 0, 0)
    steps: list[tuple[Callable[[], object], tuple[int, int, int]]] = [
        (lambda: fs.write(number, 0, b"x" * 100), (0, 1, 1)),
        (lambda: fs.setattr(number, Changes(mode=0o600)), (0, 1, 2)),
        (lambda: fs.setattr(number, Changes(size=50)), (0, 3, 3)),
        (lambda: fs.fallocate(number, 1, 0, 9000), (0, 3, 4)),
        (lambda: fs.fallocate(number, 0, 0, 9000), (0, 5, 5)),
        (lambda: fs.fallocate(number, 3, 0, 10), (0, 6, 6)),
        (lambda: fs.setxattr(number, b"user.a", b"1"), (0, 6, 7)),
        (lambda: fs.link(number, ROOT, b"g"), (0, 6, 8)),
        (lambda: fs.rename(ROOT, b"g", ROOT, b"h"), (0, 6, 9)),
        (lambda: fs.unlink(ROOT, b"h"), (0, 6, 10)),
        (lambda: fs.read(number, 0, 10), (11, 6, 10)),
        (lambda: fs.write(number, 0, b"y", stamp=False), (11, 6, 10)),
    ]
    for step, (call, expected) in enumerate(steps, 1):
        time.time = START + step * SECOND
        call()
        assert times(fs, number) == expected


def test_relatime(time: Clock, opened: Opener) -> None:
    fs = opened(AccessTimes.ALL)
    number = make(fs, b"f", b"data")
    atimes = []
    for moment in (5, 6, DAY // SECOND + 4, DAY // SECOND + 5, DAY // SECOND + 6):
        time.time = START + moment * SECOND
        content(fs, number)
        atimes.append(times(fs, number)[0])
    assert atimes == [5, 5, 5, DAY // SECOND + 5, DAY // SECOND + 5]
    fs.write(number, 0, b"x")
    time.time += SECOND
    content(fs, number)
    assert fs.inode(number).atime == time.time


def test_a_clock_that_steps_back(time: Clock, opened: Opener) -> None:
    """Times are what the clock said; nothing else follows them."""
    fs = opened(AccessTimes.ALL)
    number = make(fs, b"f", b"data")
    fs.commit()
    time.time = START - 10 * DAY
    fs.write(number, 0, b"DATA")
    assert times(fs, number)[1:] == (-10 * DAY // SECOND, -10 * DAY // SECOND)
    assert content(fs, number) == b"DATA"
    later = make(fs, b"g", b"later")
    assert later > number
    fs.commit()
    assert [entry.name for entry in fs.readdir(ROOT)][2:] == [b"f", b"g"]
    assert_sound(fs)


def test_reading_links_and_directories_counts_as_access(time: Clock, fs: Filesystem) -> None:
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    link = fs.symlink(ROOT, b"l", b"t", ME).number
    time.time += SECOND
    fs.readlink(link)
    list(fs.readdir(directory))
    assert times(fs, link)[0] == times(fs, directory)[0] == 1


@pytest.mark.parametrize(
    ("policy", "of_files", "of_directories"),
    [(AccessTimes.ALL, 1, 1), (AccessTimes.FILES, 1, 0), (AccessTimes.NONE, 0, 0)],
)
def test_whose_access_times(
    time: Clock, opened: Opener, policy: AccessTimes, of_files: int, of_directories: int
) -> None:
    fs = opened(policy)
    number = make(fs, b"f", b"data")
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    time.time += SECOND
    content(fs, number)
    list(fs.readdir(directory))
    assert times(fs, number)[0] == of_files
    assert times(fs, directory)[0] == of_directories


def test_an_access_that_changes_nothing_dirties_nothing(time: Clock, fs: Filesystem) -> None:
    number = make(fs, b"f", b"data")
    time.time += SECOND
    content(fs, number)
    while fs.is_dirty:
        fs.commit()
    content(fs, number)
    assert not fs.is_dirty


def test_setting_times(time: Clock, fs: Filesystem) -> None:
    number = make(fs, b"f")
    time.time += SECOND
    inode = fs.setattr(number, Changes(atime=-1, mtime=123_456_789_012_345_678))
    assert (inode.atime, inode.mtime, inode.ctime) == (-1, 123_456_789_012_345_678, time.time)
    inode = fs.setattr(number, Changes(ctime=77))
    assert (inode.atime, inode.ctime) == (-1, 77)
    inode = fs.setattr(number, Changes(atime=1 << 80, mtime=-(1 << 80)))
    assert (inode.atime, inode.mtime) == ((1 << 63) - 1, -((1 << 63) - 1))
    fs.commit()


def test_setting_nothing_is_a_change_all_the_same(time: Clock, fs: Filesystem) -> None:
    number = make(fs, b"f")
    time.time += SECOND
    assert fs.setattr(number, Changes()).ctime == time.time


@pytest.mark.parametrize("mode", [0, 0o7777, 0o644, stat.S_IFDIR | 0o755])
def test_chmod_keeps_the_type(fs: Filesystem, mode: int) -> None:
    number = make(fs, b"f")
    assert fs.setattr(number, Changes(mode=mode)).mode == stat.S_IFREG | (mode & 0o7777)


@pytest.mark.parametrize(
    ("before", "after"),
    [(0o6755, 0o755), (0o2644, 0o644), (0o4644, 0o644), (0o2670, 0o670), (0o1777, 0o1777)],
)
def test_chown_clears_setid_of_files(fs: Filesystem, before: int, after: int) -> None:
    number = make(fs, b"f")
    fs.setattr(number, Changes(mode=before))
    kept = fs.setattr(number, Changes(uid=6, keep_setgid=True))
    assert kept.mode & 0o7777 == after | before & stat.S_ISGID
    fs.setattr(number, Changes(mode=before))
    inode = fs.setattr(number, Changes(uid=5))
    assert (inode.uid, inode.gid, inode.mode & 0o7777) == (5, 1000, after)


def test_chown_leaves_directories_alone(fs: Filesystem) -> None:
    number = fs.mkdir(ROOT, b"d", 0o755, ME).number
    fs.setattr(number, Changes(mode=0o6755))
    inode = fs.setattr(number, Changes(uid=5, gid=6))
    assert (inode.uid, inode.gid, inode.mode & 0o7777) == (5, 6, 0o6755)


def test_chown_with_a_mode_keeps_what_the_mode_says(fs: Filesystem) -> None:
    number = make(fs, b"f")
    assert fs.setattr(number, Changes(gid=5, mode=0o6755)).mode & 0o7777 == 0o6755


def test_truncating_may_kill_setid(fs: Filesystem) -> None:
    number = make(fs, b"f", b"data")
    fs.setattr(number, Changes(mode=0o6755))
    assert fs.setattr(number, Changes(size=2)).mode & 0o7777 == 0o6755
    assert fs.setattr(number, Changes(size=1, kill_setid=True)).mode & 0o7777 == 0o755


def test_setattr_of_nothing(fs: Filesystem) -> None:
    assert code_of(lambda: fs.setattr(999, Changes(mode=0))) == errno.ENOENT
    assert metadata.Changes is Changes
