"""Directory streams: every entry once, cursors that stay true, entries that come and go."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections import Counter
from pathlib import Path

from tests.posix import libc
from tests.posix.expect import fails, make_file, opened
from tests.posix.needs import slow

MANY = 10_000
TYPES = {stat.S_IFREG: 8, stat.S_IFDIR: 4, stat.S_IFLNK: 10, stat.S_IFIFO: 1}


def fill(directory: Path, count: int, prefix: str = "entry") -> list[str]:
    """Empty files with numbered names."""
    names = [f"{prefix}{number:05}" for number in range(count)]
    for name in names:
        os.close(os.open(directory / name, os.O_WRONLY | os.O_CREAT))
    return names


def check_an_empty_directory_has_just_its_dots(root: Path) -> None:
    with libc.Directory(root) as stream:
        assert sorted(entry.name for entry in stream) == [b".", b".."]
    assert os.listdir(root) == []


def check_dots_have_the_right_numbers(root: Path) -> None:
    os.mkdir(root / "child")
    with libc.Directory(root / "child") as stream:
        numbers = {entry.name: entry.ino for entry in stream}
    assert numbers == {b".": os.stat(root / "child").st_ino, b"..": os.stat(root).st_ino}


def check_entries_tell_type_and_number(root: Path) -> None:
    make_file(root / "file")
    os.mkdir(root / "directory")
    os.symlink("target", root / "link")
    os.mkfifo(root / "fifo")
    with libc.Directory(root) as stream:
        for entry in stream:
            if entry.name not in {b".", b".."}:
                status = os.lstat(root / os.fsdecode(entry.name))
                assert entry.ino == status.st_ino
                # DT_UNKNOWN is allowed.
                assert entry.type in {0, TYPES[stat.S_IFMT(status.st_mode)]}


def check_opening_other_things_as_a_directory_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOTDIR):
        os.listdir(root / "file")
    with fails(errno.ENOENT):
        os.listdir(root / "missing")


@slow
def check_ten_thousand_entries_are_listed_once(root: Path) -> None:
    names = fill(root, MANY)
    assert sorted(os.listdir(root)) == names
    for name in names[::2]:
        os.unlink(root / name)
    assert sorted(os.listdir(root)) == names[1::2]


def check_long_names_are_listed_whole(root: Path) -> None:
    names = sorted(f"{number:03}" + "n" * 252 for number in range(300))
    for name in names:
        os.mkdir(root / name)
    assert sorted(os.listdir(root)) == names


def check_changes_show_in_the_next_listing(root: Path) -> None:
    for number in range(30):
        make_file(root / f"{number}")
        assert len(os.listdir(root)) == number + 1
    for number in range(30):
        os.unlink(root / f"{number}")
        assert len(os.listdir(root)) == 29 - number


def check_rewinding_shows_changes(root: Path) -> None:
    fill(root, 10)
    with libc.Directory(root) as stream:
        assert len(stream.names()) == 10
        make_file(root / "new")
        os.unlink(root / "entry00003")
        stream.rewind()
        names = stream.names()
    assert "new" in names
    assert "entry00003" not in names
    assert len(names) == 10


def check_a_cursor_leads_back_to_its_entry(root: Path) -> None:
    fill(root, 1000)
    with libc.Directory(root) as stream:
        places = []
        while True:
            cursor = stream.tell()
            entry = stream.read()
            if entry is None:
                break
            places.append((cursor, entry.name))
        random.Random(1).shuffle(places)
        for cursor, name in places:
            stream.seek(cursor)
            found = stream.read()
            assert found is not None
            assert found.name == name


def check_the_cursor_of_the_end_stays_the_end(root: Path) -> None:
    fill(root, 300)
    with libc.Directory(root) as stream:
        stream.names()
        end = stream.tell()
        stream.rewind()
        stream.read()
        stream.seek(end)
        assert stream.read() is None


def check_a_cursor_is_true_after_other_entries_went(root: Path) -> None:
    names = fill(root, 2000)
    with libc.Directory(root) as stream:
        seen = [os.fsdecode(entry.name) for _, entry in zip(range(1000), stream, strict=False)]
        cursor = stream.tell()
        for name in seen:
            if name not in {".", ".."}:
                os.unlink(root / name)
        stream.seek(cursor)
        assert sorted(stream.names() + [n for n in seen if n[0] != "."]) == names


def check_a_cursor_is_true_after_its_own_entry_went(root: Path) -> None:
    names = fill(root, 500)
    with libc.Directory(root) as stream:
        seen = [entry.name for _, entry in zip(range(250), stream, strict=False)]
        cursor = stream.tell()
        following = stream.read()
        assert following is not None
        os.unlink(root / os.fsdecode(following.name))
        stream.seek(cursor)
        rest = stream.names()
    missing = set(names) - {os.fsdecode(n) for n in seen} - set(rest)
    # The stream may have buffered the entry before it went.
    assert missing <= {os.fsdecode(following.name)}
    assert len(rest) == len(set(rest))


def check_entries_that_stay_are_seen_once_while_others_come(root: Path) -> None:
    stay = fill(root, 3000)
    seen: Counter[str] = Counter()
    with libc.Directory(root) as stream:
        for number, entry in enumerate(stream):
            seen[os.fsdecode(entry.name)] += 1
            if number % 3 == 0 and number < 6000:
                make_file(root / f"{'abz'[number % 3]}{number * 7919 % 100_003}", b"")
    assert all(seen[name] == 1 for name in stay)
    assert max(seen.values()) == 1


def check_entries_that_stay_are_seen_once_while_others_go(root: Path) -> None:
    stay, go = fill(root, 2000), fill(root, 2000, "other")
    random.Random(4).shuffle(go)
    seen: Counter[str] = Counter()
    with libc.Directory(root) as stream:
        for entry in stream:
            seen[os.fsdecode(entry.name)] += 1
            if go:
                os.unlink(root / go.pop())
    assert all(seen[name] == 1 for name in stay)
    assert max(seen.values()) == 1


def check_entries_that_stay_are_seen_once_while_others_are_renamed(root: Path) -> None:
    stay, move = fill(root, 1500), fill(root, 1500, "other")
    seen: Counter[str] = Counter()
    with libc.Directory(root) as stream:
        for entry in stream:
            seen[os.fsdecode(entry.name)] += 1
            if move:
                name = move.pop()
                os.rename(root / name, root / f"moved-{name}")
    assert all(seen[name] == 1 for name in stay)


def check_removing_each_entry_as_it_is_read_empties_the_directory(root: Path) -> None:
    fill(root, 3000)
    with libc.Directory(root) as stream:
        for entry in stream:
            if entry.name not in {b".", b".."}:
                os.unlink(root / os.fsdecode(entry.name))
    assert os.listdir(root) == []


def check_two_streams_do_not_disturb_each_other(root: Path) -> None:
    names = fill(root, 1000)
    with libc.Directory(root) as one, libc.Directory(root) as two:
        first = [entry.name for _, entry in zip(range(300), one, strict=False)]
        assert sorted(two.names()) == names
        rest = [entry.name for entry in one]
    assert len(set(first + rest)) == 1002


def check_small_buffers_give_every_entry(root: Path) -> None:
    fill(root, 200)
    with opened(root) as fd:
        total = 0
        while size := libc.getdents(fd, 100):
            assert size <= 100
            total += 1
    # 32 bytes a short entry: three in a buffer.
    assert total == (202 + 2) // 3


def check_too_small_buffers_fail(root: Path) -> None:
    make_file(root / ("n" * 200))
    with opened(root) as fd, fails(errno.EINVAL):
        while libc.getdents(fd, 60):
            pass


def check_seeking_a_descriptor_to_the_start_lists_again(root: Path) -> None:
    names = fill(root, 50)
    with opened(root) as fd:
        assert sorted(os.listdir(fd)) == names
        os.lseek(fd, 0, os.SEEK_SET)
        make_file(root / "new")
        assert len(os.listdir(fd)) == 51


def check_a_removed_directory_lists_nothing(root: Path) -> None:
    os.mkdir(root / "gone")
    with libc.Directory(root / "gone") as stream:
        os.rmdir(root / "gone")
        assert stream.names() == []


def check_scandir_knows_types_without_stat(root: Path) -> None:
    make_file(root / "file")
    os.mkdir(root / "directory")
    os.symlink("directory", root / "link")
    with os.scandir(root) as entries:
        kinds = {e.name: (e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries}
    assert kinds == {"file": (False, False), "directory": (True, False), "link": (False, True)}
