"""Directories: mkdir, rmdir, their link counts, dots, and life after removal."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tests.posix.expect import exists, fails, links_of, make_directory, make_file, mode_of, opened


def check_mkdir_makes_an_empty_directory(root: Path) -> None:
    os.mkdir(root / "new")
    status = os.lstat(root / "new")
    assert stat.S_ISDIR(status.st_mode)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert os.listdir(root / "new") == []


def check_mkdir_applies_the_umask(root: Path) -> None:
    for umask in (0, 0o022, 0o077, 0o777):
        os.umask(umask)
        os.mkdir(root / f"new{umask:o}", 0o777)
        assert mode_of(root / f"new{umask:o}") == 0o777 & ~umask


def check_mkdir_honours_the_sticky_bit_only(root: Path) -> None:
    os.umask(0)
    os.mkdir(root / "new", 0o7755)
    assert mode_of(root / "new") == 0o1755


def check_mkdir_of_existing_name_fails(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    (root / "dangling").symlink_to("nowhere")
    for name in ("file", "directory", "dangling"):
        with fails(errno.EEXIST):
            os.mkdir(root / name)
    for name in (".", "..", "directory/."):
        with fails(errno.EEXIST):
            os.mkdir(f"{root}/{name}")


def check_mkdir_in_missing_or_wrong_place_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOENT):
        os.mkdir(root / "missing" / "new")
    with fails(errno.ENOTDIR):
        os.mkdir(root / "file" / "new")
    with fails(errno.ENOENT):
        os.mkdir("")


def check_mkdir_accepts_a_trailing_slash(root: Path) -> None:
    os.mkdir(f"{root}/new///")
    assert (root / "new").is_dir()


def check_mkdir_and_rmdir_count_links(root: Path) -> None:
    before = links_of(root)
    os.mkdir(root / "one")
    os.mkdir(root / "two")
    assert links_of(root) == before + 2
    assert links_of(root / "one") == before
    os.rmdir(root / "one")
    assert links_of(root) == before + 1


def check_files_do_not_count_as_links_of_their_directory(root: Path) -> None:
    before = links_of(root)
    make_file(root / "file")
    (root / "link").symlink_to("file")
    os.mkfifo(root / "fifo")
    assert links_of(root) == before


def check_three_hundred_subdirectories_count_as_links(root: Path) -> None:
    before = links_of(root)
    for number in range(300):
        os.mkdir(root / f"{number}")
    assert links_of(root) == before + 300
    for number in range(300):
        os.rmdir(root / f"{number}")
    assert links_of(root) == before


def check_rmdir_removes_the_name(root: Path) -> None:
    os.mkdir(root / "gone")
    os.rmdir(root / "gone")
    assert not exists(root / "gone")
    assert os.listdir(root) == []


def check_rmdir_of_filled_directory_fails(root: Path) -> None:
    os.mkdir(root / "full")
    for fill in (os.mkdir, os.mkfifo, make_file):
        fill(root / "full" / "entry")
        with fails(errno.ENOTEMPTY, errno.EEXIST):
            os.rmdir(root / "full")
        (os.rmdir if fill is os.mkdir else os.unlink)(root / "full" / "entry")
    os.rmdir(root / "full")


def check_rmdir_of_the_wrong_things_fails(root: Path) -> None:
    make_file(root / "file")
    make_directory(root / "directory")
    (root / "link").symlink_to("directory")
    for name in ("file", "link", "file/below", "link/"):
        with fails(errno.ENOTDIR):
            os.rmdir(f"{root}/{name}")
    with fails(errno.ENOENT):
        os.rmdir(root / "missing")
    assert (root / "directory").is_dir()


def check_rmdir_of_dots_fails(root: Path) -> None:
    os.mkdir(root / "directory")
    with fails(errno.EINVAL):
        os.rmdir(f"{root}/directory/.")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(f"{root}/directory/..")


def check_dots_are_the_directory_and_its_parent(root: Path) -> None:
    os.mkdir(root / "child")
    assert os.stat(f"{root}/child/.").st_ino == os.lstat(root / "child").st_ino
    assert os.stat(f"{root}/child/..").st_ino == os.lstat(root).st_ino


def check_removed_directory_takes_no_new_entries(root: Path) -> None:
    make_file(root / "file")
    os.mkdir(root / "gone")
    with opened(root / "gone", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(root / "gone")
        for name in ("new", "other"):
            with fails(errno.ENOENT):
                os.mkdir(name, dir_fd=fd)
        with fails(errno.ENOENT):
            os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        with fails(errno.ENOENT):
            os.link(root / "file", "new", dst_dir_fd=fd)
        with fails(errno.ENOENT):
            os.rename(root / "file", "new", dst_dir_fd=fd)


def check_removed_directory_can_still_be_looked_at(root: Path) -> None:
    os.mkdir(root / "gone")
    with opened(root / "gone", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(root / "gone")
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []


def check_removed_working_directory_has_no_path(root: Path) -> None:
    os.mkdir(root / "gone")
    os.chdir(root / "gone")
    os.rmdir(root / "gone")
    with fails(errno.ENOENT):
        os.getcwd()
    with fails(errno.ENOENT):
        os.open("new", os.O_WRONLY | os.O_CREAT)


def check_a_directory_made_again_is_empty_and_new(root: Path) -> None:
    os.mkdir(root / "directory")
    with opened(root / "directory", os.O_RDONLY) as fd:
        make_file(root / "directory" / "file")
        os.unlink(root / "directory" / "file")
        os.rmdir(root / "directory")
        os.mkdir(root / "directory")
        assert os.listdir(root / "directory") == []
        assert os.fstat(fd).st_ino != os.lstat(root / "directory").st_ino


def check_calls_relative_to_a_descriptor(root: Path) -> None:
    os.mkdir(root / "here")
    with opened(root / "here", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rename(root / "here", root / "there")
        os.mkdir("directory", dir_fd=fd)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        os.symlink("file", "link", dir_fd=fd)
        os.rename("file", "renamed", src_dir_fd=fd, dst_dir_fd=fd)
        assert sorted(os.listdir(root / "there")) == ["directory", "link", "renamed"]
        os.rmdir("directory", dir_fd=fd)
        os.unlink("renamed", dir_fd=fd)
        assert os.readlink("link", dir_fd=fd) == "file"


def check_calls_relative_to_a_file_descriptor_fail(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd, fails(errno.ENOTDIR):
        os.mkdir("directory", dir_fd=fd)


def check_names_differ_by_case(root: Path) -> None:
    make_file(root / "name", b"small")
    make_file(root / "NAME", b"large")
    assert (root / "name").read_bytes() == b"small"
    assert sorted(os.listdir(root)) == ["NAME", "name"]


def check_names_differ_by_unicode_form(root: Path) -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    make_file(root / composed, b"composed")
    make_file(root / decomposed, b"decomposed")
    assert len(os.listdir(root)) == 2
    assert (root / composed).read_bytes() == b"composed"


def check_a_deep_tree(root: Path) -> None:
    path = root
    for depth in range(150):
        path /= f"level{depth}"
        os.mkdir(path)
    make_file(path / "bottom", b"deep")
    assert (path / "bottom").read_bytes() == b"deep"
    assert sum(1 for _ in os.walk(root)) == 151


def check_missing_names_are_noticed_when_they_come(root: Path) -> None:
    for number in range(20):
        path = root / f"name{number}"
        assert not exists(path)
        make_file(path)
        assert exists(path)
        os.unlink(path)
        assert not exists(path)
        os.mkdir(path)
        assert path.is_dir()


def check_directory_descriptors_refuse_writing(root: Path) -> None:
    with opened(root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        with fails(errno.EBADF):
            os.write(fd, b"x")
        with fails(errno.EINVAL, errno.EBADF):
            os.ftruncate(fd, 0)
