"""rename and renameat2, with all their rules."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

from tests.posix import libc
from tests.posix.expect import exists, fails, links_of, make_directory, make_file, opened


def number_of(path: Path) -> int:
    return os.lstat(path).st_ino


def check_rename_gives_a_file_another_name(root: Path) -> None:
    make_file(root / "old")
    number = number_of(root / "old")
    os.rename(root / "old", root / "new")
    assert os.listdir(root) == ["new"]
    assert (number_of(root / "new"), links_of(root / "new")) == (number, 1)
    assert (root / "new").read_bytes() == b"content"


def check_rename_makes_the_old_name_missing_and_the_new_one_present(root: Path) -> None:
    make_file(root / "old")
    assert not exists(root / "new")
    os.rename(root / "old", root / "new")
    assert exists(root / "new")
    with fails(errno.ENOENT):
        os.stat(root / "old")


def check_rename_replaces_a_file(root: Path) -> None:
    make_file(root / "old", b"winner")
    make_file(root / "new", b"loser")
    os.rename(root / "old", root / "new")
    assert os.listdir(root) == ["new"]
    assert (root / "new").read_bytes() == b"winner"


def check_rename_leaves_a_replaced_file_to_its_descriptors(root: Path) -> None:
    make_file(root / "old", b"winner")
    make_file(root / "new", b"loser")
    with opened(root / "new", os.O_RDWR) as fd:
        os.rename(root / "old", root / "new")
        assert os.fstat(fd).st_nlink == 0
        os.pwrite(fd, b"L", 0)
        assert os.pread(fd, 9, 0) == b"Loser"
    assert (root / "new").read_bytes() == b"winner"


def check_rename_takes_one_link_from_a_replaced_file(root: Path) -> None:
    make_file(root / "old")
    make_file(root / "new")
    os.link(root / "new", root / "link")
    os.rename(root / "old", root / "new")
    assert links_of(root / "link") == 1


def check_rename_replaces_an_empty_directory(root: Path) -> None:
    os.mkdir(root / "old")
    make_file(root / "old" / "file")
    os.mkdir(root / "new")
    number = number_of(root / "old")
    before = links_of(root)
    os.rename(root / "old", root / "new")
    assert number_of(root / "new") == number
    assert os.listdir(root / "new") == ["file"]
    assert links_of(root) == before - 1


def check_rename_onto_a_filled_directory_fails(root: Path) -> None:
    os.mkdir(root / "old")
    os.mkdir(root / "new")
    make_file(root / "new" / "file")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(root / "old", root / "new")
    assert sorted(os.listdir(root)) == ["new", "old"]


def check_rename_of_directory_onto_file_fails(root: Path) -> None:
    os.mkdir(root / "directory")
    make_file(root / "file")
    os.symlink("directory", root / "link")
    for name in ("file", "link"):
        with fails(errno.ENOTDIR):
            os.rename(root / "directory", root / name)


def check_rename_of_file_onto_directory_fails(root: Path) -> None:
    os.mkdir(root / "directory")
    make_file(root / "file")
    with fails(errno.EISDIR):
        os.rename(root / "file", root / "directory")
    os.symlink("file", root / "link")
    with fails(errno.EISDIR):
        os.rename(root / "link", root / "directory")


def check_rename_onto_itself_does_nothing(root: Path) -> None:
    make_file(root / "file")
    os.rename(root / "file", root / "file")
    os.mkdir(root / "directory")
    os.rename(root / "directory", root / "directory")
    assert sorted(os.listdir(root)) == ["directory", "file"]


def check_rename_onto_another_link_of_the_same_file_does_nothing(root: Path) -> None:
    make_file(root / "one")
    os.link(root / "one", root / "two")
    os.rename(root / "one", root / "two")
    assert sorted(os.listdir(root)) == ["one", "two"]
    assert links_of(root / "one") == 2


def check_rename_into_itself_fails(root: Path) -> None:
    os.makedirs(root / "a" / "b" / "c")
    for target in ("a/new", "a/b/new", "a/b/c/new", "a/b/c"):
        with fails(errno.EINVAL):
            os.rename(root / "a", root / target)
    assert (root / "a" / "b" / "c").is_dir()


def check_rename_onto_an_ancestor_fails(root: Path) -> None:
    os.makedirs(root / "a" / "b" / "c")
    for target in ("a", "a/b"):
        with fails(errno.ENOTEMPTY, errno.EEXIST):
            os.rename(root / "a" / "b" / "c", root / target)


def check_rename_of_missing_things_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOENT):
        os.rename(root / "missing", root / "new")
    with fails(errno.ENOENT):
        os.rename(root / "missing", root / "file")
    with fails(errno.ENOENT):
        os.rename(root / "file", root / "missing" / "new")
    with fails(errno.ENOTDIR):
        os.rename(root / "file" / "below", root / "new")
    with fails(errno.ENOTDIR):
        os.rename(root / "file", root / "file" / "below")
    assert os.listdir(root) == ["file"]


def check_rename_of_dots_fails(root: Path) -> None:
    os.mkdir(root / "directory")
    for name in ("directory/.", "directory/.."):
        with fails(errno.EINVAL, errno.EBUSY):
            os.rename(f"{root}/{name}", root / "new")
        with fails(errno.EINVAL, errno.EBUSY):
            os.rename(root / "directory", f"{root}/{name}")


def check_rename_to_a_trailing_slash_needs_a_directory(root: Path) -> None:
    make_file(root / "file")
    os.mkdir(root / "directory")
    with fails(errno.ENOTDIR):
        os.rename(root / "file", f"{root}/new/")
    with fails(errno.ENOTDIR):
        os.rename(f"{root}/file/", root / "new")
    os.rename(root / "directory", f"{root}/new/")
    assert (root / "new").is_dir()


def check_rename_moves_files_between_directories(root: Path) -> None:
    os.mkdir(root / "a")
    os.mkdir(root / "b")
    make_file(root / "a" / "file")
    os.rename(root / "a" / "file", root / "b" / "moved")
    assert os.listdir(root / "a") == []
    assert (root / "b" / "moved").read_bytes() == b"content"


def check_rename_moves_directories_with_their_content(root: Path) -> None:
    os.makedirs(root / "a" / "directory" / "deep")
    os.mkdir(root / "b")
    make_file(root / "a" / "directory" / "deep" / "file")
    os.rename(root / "a" / "directory", root / "b" / "moved")
    assert (root / "b" / "moved" / "deep" / "file").read_bytes() == b"content"
    assert os.listdir(root / "a") == []


def check_rename_moves_the_parent_of_a_directory(root: Path) -> None:
    os.makedirs(root / "a" / "directory")
    os.mkdir(root / "b")
    assert os.stat(f"{root}/a/directory/..").st_ino == number_of(root / "a")
    before = links_of(root / "a"), links_of(root / "b")
    os.rename(root / "a" / "directory", root / "b" / "directory")
    assert os.stat(f"{root}/b/directory/..").st_ino == number_of(root / "b")
    assert (links_of(root / "a"), links_of(root / "b")) == (before[0] - 1, before[1] + 1)


def check_rename_updates_dotdot_as_readdir_gives_it(root: Path) -> None:
    os.makedirs(root / "a" / "directory")
    os.mkdir(root / "b")
    os.rename(root / "a" / "directory", root / "b" / "directory")
    with libc.Directory(root / "b" / "directory") as stream:
        numbers = {entry.name: entry.ino for entry in stream}
    assert numbers[b".."] == number_of(root / "b")
    assert numbers[b"."] == number_of(root / "b" / "directory")


def check_rename_replacing_a_directory_of_another_parent_counts_links(root: Path) -> None:
    os.makedirs(root / "a" / "x")
    os.makedirs(root / "b" / "x")
    before = links_of(root / "a"), links_of(root / "b")
    os.rename(root / "a" / "x", root / "b" / "x")
    assert (links_of(root / "a"), links_of(root / "b")) == (before[0] - 1, before[1])


def check_rename_moves_open_files(root: Path) -> None:
    make_file(root / "old", b"")
    with opened(root / "old", os.O_RDWR) as fd:
        os.write(fd, b"before,")
        os.rename(root / "old", root / "new")
        os.write(fd, b"after")
    assert (root / "new").read_bytes() == b"before,after"


def check_rename_moves_the_working_directory(root: Path) -> None:
    os.mkdir(root / "old")
    os.chdir(root / "old")
    os.rename(root / "old", root / "new")
    make_file(Path("file"))
    assert (root / "new" / "file").read_bytes() == b"content"
    assert os.path.samefile(os.getcwd(), root / "new")


def check_rename_moves_the_symlink_itself(root: Path) -> None:
    make_file(root / "file")
    os.symlink("file", root / "link")
    os.rename(root / "link", root / "moved")
    assert os.readlink(root / "moved") == "file"
    assert (root / "file").read_bytes() == b"content"


def check_rename_replaces_the_symlink_not_its_target(root: Path) -> None:
    make_file(root / "file")
    make_file(root / "target", b"target")
    os.symlink("target", root / "link")
    os.rename(root / "file", root / "link")
    assert (root / "link").read_bytes() == b"content"
    assert not (root / "link").is_symlink()
    assert (root / "target").read_bytes() == b"target"


def check_rename_moves_special_files(root: Path) -> None:
    os.mkfifo(root / "old")
    os.mkfifo(root / "new")
    os.rename(root / "old", root / "new")
    assert stat.S_ISFIFO(os.lstat(root / "new").st_mode)
    assert os.listdir(root) == ["new"]


def check_rename_replaces_across_types_of_file(root: Path) -> None:
    os.mkfifo(root / "fifo")
    make_file(root / "file")
    os.symlink("nowhere", root / "link")
    os.rename(root / "file", root / "fifo")
    os.rename(root / "fifo", root / "link")
    assert os.listdir(root) == ["link"]
    assert (root / "link").read_bytes() == b"content"


def check_rename_a_thousand_times(root: Path) -> None:
    make_file(root / "name0")
    for number in range(1000):
        os.rename(root / f"name{number}", root / f"name{number + 1}")
    assert os.listdir(root) == ["name1000"]


def check_rename_replaces_without_a_gap(root: Path) -> None:
    make_file(root / "file", b"x" * 100)
    stop, seen = threading.Event(), set()

    def look() -> None:
        while not stop.is_set():
            seen.add(len((root / "file").read_bytes()))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(200):
            make_file(root / "new", b"y" * (100 + number % 2))
            os.rename(root / "new", root / "file")
    finally:
        stop.set()
        reader.join()
    assert seen <= {100, 101}


def check_rename_is_seen_in_listings(root: Path) -> None:
    for number in range(10):
        make_file(root / f"old{number}")
    assert len(os.listdir(root)) == 10
    for number in range(10):
        os.rename(root / f"old{number}", root / f"new{number}")
    assert sorted(os.listdir(root)) == [f"new{number}" for number in range(10)]


def check_noreplace_moves_to_a_free_name(root: Path) -> None:
    make_file(root / "old")
    os.mkdir(root / "directory")
    libc.rename(root / "old", root / "new", libc.RENAME_NOREPLACE)
    libc.rename(root / "directory", root / "moved", libc.RENAME_NOREPLACE)
    assert sorted(os.listdir(root)) == ["moved", "new"]


def check_noreplace_onto_existing_name_fails(root: Path) -> None:
    make_file(root / "old")
    make_file(root / "file")
    os.mkdir(root / "directory")
    os.symlink("nowhere", root / "dangling")
    for name in ("file", "directory", "dangling", "old"):
        with fails(errno.EEXIST):
            libc.rename(root / "old", root / name, libc.RENAME_NOREPLACE)
    assert len(os.listdir(root)) == 4


def check_exchange_swaps_two_files(root: Path) -> None:
    make_file(root / "a", b"was a")
    make_file(root / "b", b"was b")
    numbers = number_of(root / "a"), number_of(root / "b")
    libc.rename(root / "a", root / "b", libc.RENAME_EXCHANGE)
    assert (number_of(root / "b"), number_of(root / "a")) == numbers
    assert (root / "a").read_bytes() == b"was b"
    assert (root / "b").read_bytes() == b"was a"


def check_exchange_swaps_a_file_and_a_filled_directory(root: Path) -> None:
    make_file(root / "a")
    os.mkdir(root / "b")
    make_file(root / "b" / "inside")
    before = links_of(root)
    libc.rename(root / "a", root / "b", libc.RENAME_EXCHANGE)
    assert os.listdir(root / "a") == ["inside"]
    assert (root / "b").read_bytes() == b"content"
    assert links_of(root) == before


def check_exchange_across_directories_counts_links(root: Path) -> None:
    os.makedirs(root / "one" / "directory" / "deep")
    os.mkdir(root / "two")
    make_file(root / "two" / "file")
    before = links_of(root / "one"), links_of(root / "two")
    libc.rename(root / "one" / "directory", root / "two" / "file", libc.RENAME_EXCHANGE)
    assert (links_of(root / "one"), links_of(root / "two")) == (before[0] - 1, before[1] + 1)
    assert os.stat(f"{root}/two/file/..").st_ino == number_of(root / "two")
    assert (root / "two" / "file" / "deep").is_dir()
    assert (root / "one" / "directory").read_bytes() == b"content"


def check_exchange_swaps_directories_of_two_parents(root: Path) -> None:
    for parent, inside in (("one", "x"), ("two", "y")):
        os.makedirs(root / parent / "directory" / inside)
    libc.rename(root / "one" / "directory", root / "two" / "directory", libc.RENAME_EXCHANGE)
    for parent, inside in (("one", "y"), ("two", "x")):
        assert os.listdir(root / parent / "directory") == [inside]
        assert os.stat(f"{root}/{parent}/directory/..").st_ino == number_of(root / parent)


def check_exchange_swaps_symlinks_themselves(root: Path) -> None:
    os.symlink("nowhere", root / "link")
    make_file(root / "file")
    libc.rename(root / "link", root / "file", libc.RENAME_EXCHANGE)
    assert os.readlink(root / "file") == "nowhere"
    assert (root / "link").read_bytes() == b"content"


def check_exchange_with_itself_does_nothing(root: Path) -> None:
    make_file(root / "file")
    libc.rename(root / "file", root / "file", libc.RENAME_EXCHANGE)
    assert (root / "file").read_bytes() == b"content"


def check_exchange_with_a_missing_name_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOENT):
        libc.rename(root / "file", root / "missing", libc.RENAME_EXCHANGE)
    with fails(errno.ENOENT):
        libc.rename(root / "missing", root / "file", libc.RENAME_EXCHANGE)


def check_exchange_with_an_ancestor_fails(root: Path) -> None:
    os.makedirs(root / "a" / "b" / "c")
    for old, new in (("a", "a/b/c"), ("a/b/c", "a")):
        with fails(errno.EINVAL):
            libc.rename(root / old, root / new, libc.RENAME_EXCHANGE)


def check_contradicting_flags_fail(root: Path) -> None:
    make_file(root / "a")
    make_file(root / "b")
    for flags in (
        libc.RENAME_NOREPLACE | libc.RENAME_EXCHANGE,
        libc.RENAME_WHITEOUT | libc.RENAME_EXCHANGE,
    ):
        with fails(errno.EINVAL):
            libc.rename(root / "a", root / "b", flags)


def check_unknown_flags_fail(root: Path) -> None:
    make_file(root / "a")
    for flag in (8, 16, 1 << 30):
        with fails(errno.EINVAL):
            libc.rename(root / "a", root / "b", flag)
    assert os.listdir(root) == ["a"]


def check_whiteout_is_left_or_refused(root: Path) -> None:
    make_file(root / "a")
    try:
        libc.rename(root / "a", root / "b", libc.RENAME_WHITEOUT)
    except OSError as error:
        assert error.errno in {errno.EINVAL, errno.EPERM}
        assert os.listdir(root) == ["a"]
    else:
        status = os.lstat(root / "a")
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0


def check_rename_of_a_directory_needs_no_permission_on_its_content(root: Path) -> None:
    make_directory(root / "old", 0o000)
    os.rename(root / "old", root / "new")
    assert os.listdir(root) == ["new"]
