"""Hard links and symbolic links."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tests.posix import libc
from tests.posix.expect import exists, fails, links_of, make_directory, make_file, mode_of, opened
from tests.posix.needs import needs, slow

MOST_LINKS = 65_000


def check_hard_links_are_one_file(root: Path) -> None:
    make_file(root / "one")
    os.link(root / "one", root / "two")
    assert os.path.samefile(root / "one", root / "two")
    assert links_of(root / "one") == links_of(root / "two") == 2
    make_file(root / "two", b"changed", 0o600)
    assert (root / "one").read_bytes() == b"changed"
    assert mode_of(root / "one") == 0o600


def check_unlinking_one_name_keeps_the_other(root: Path) -> None:
    make_file(root / "one")
    os.link(root / "one", root / "two")
    os.unlink(root / "one")
    assert links_of(root / "two") == 1
    assert (root / "two").read_bytes() == b"content"


def check_hard_links_across_directories(root: Path) -> None:
    os.mkdir(root / "a")
    os.mkdir(root / "b")
    make_file(root / "a" / "file")
    os.link(root / "a" / "file", root / "b" / "file")
    os.unlink(root / "a" / "file")
    os.rmdir(root / "a")
    assert (root / "b" / "file").read_bytes() == b"content"


def check_linking_a_directory_fails(root: Path) -> None:
    os.mkdir(root / "directory")
    with fails(errno.EPERM):
        os.link(root / "directory", root / "link")


def check_linking_onto_an_existing_name_fails(root: Path) -> None:
    make_file(root / "file")
    make_file(root / "other", b"other")
    os.mkdir(root / "directory")
    (root / "dangling").symlink_to("nowhere")
    for name in ("other", "directory", "dangling", "file"):
        with fails(errno.EEXIST):
            os.link(root / "file", root / name)
    assert (root / "other").read_bytes() == b"other"
    assert links_of(root / "file") == 1


def check_linking_missing_things_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOENT):
        os.link(root / "missing", root / "link")
    with fails(errno.ENOENT):
        os.link(root / "file", root / "missing" / "link")
    with fails(errno.ENOTDIR):
        os.link(root / "file" / "below", root / "link")
    with fails(errno.ENOTDIR):
        os.link(root / "file", root / "file" / "below")
    with fails(errno.ENOENT):
        os.link(root / "file", f"{root}/link/")


def check_linking_a_symlink_links_the_symlink(root: Path) -> None:
    make_file(root / "file")
    (root / "symlink").symlink_to("file")
    libc.link(root / "symlink", root / "link", 0)
    assert (root / "link").is_symlink()
    assert links_of(root / "symlink") == 2
    assert links_of(root / "file") == 1


def check_linking_a_symlink_may_follow_it(root: Path) -> None:
    make_file(root / "file")
    (root / "symlink").symlink_to("file")
    libc.link(root / "symlink", root / "link", libc.AT_SYMLINK_FOLLOW)
    assert not (root / "link").is_symlink()
    assert links_of(root / "file") == 2


def check_linking_with_an_unknown_flag_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.EINVAL):
        libc.link(root / "file", root / "link", 0x10)


def check_linking_special_files(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.link(root / "fifo", root / "link")
    assert stat.S_ISFIFO(os.lstat(root / "link").st_mode)
    assert links_of(root / "fifo") == 2


def check_linking_an_open_file_through_proc(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        libc.link(f"/proc/self/fd/{fd}", root / "link", libc.AT_SYMLINK_FOLLOW)
    assert links_of(root / "file") == 2


def check_linking_an_unlinked_file_fails(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        os.unlink(root / "file")
        with fails(errno.ENOENT):
            libc.link(f"/proc/self/fd/{fd}", root / "link", libc.AT_SYMLINK_FOLLOW)


def check_open_descriptors_see_the_link_count(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file") as fd:
        os.link(root / "file", root / "link")
        assert os.fstat(fd).st_nlink == 2
        os.unlink(root / "file")
        assert os.fstat(fd).st_nlink == 1
        os.unlink(root / "link")
        assert os.fstat(fd).st_nlink == 0


def check_a_thousand_hard_links(root: Path) -> None:
    make_file(root / "file")
    for number in range(1000):
        os.link(root / "file", root / f"link{number}")
    assert links_of(root / "file") == 1001
    for number in range(0, 1000, 2):
        os.unlink(root / f"link{number}")
    assert links_of(root / "file") == 501
    assert len(os.listdir(root)) == 501


@slow
def check_the_link_limit_is_an_error_that_passes(root: Path) -> None:
    make_file(root / "0")
    made = 1
    try:
        while made <= MOST_LINKS:
            os.link(root / "0", root / f"{made}")
            made += 1
    except OSError as error:
        assert error.errno == errno.EMLINK
        os.unlink(root / "1")
        os.link(root / "0", root / "again")
    assert links_of(root / "0") == made == len(os.listdir(root))


def check_symlink_keeps_its_target_exactly(root: Path) -> None:
    targets = ("x", "a/../b//c/", "/", ".", "\n", "\u00fc \udcff", "x" * 4095)
    for number, target in enumerate(targets):
        os.symlink(target, root / f"link{number}")
        assert os.readlink(root / f"link{number}") == target
        assert os.lstat(root / f"link{number}").st_size == len(os.fsencode(target))


def check_symlink_looks_like_a_symlink(root: Path) -> None:
    os.umask(0o077)
    os.symlink("target", root / "link")
    status = os.lstat(root / "link")
    assert stat.S_ISLNK(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o777, 1)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


def check_symlink_targets_of_wrong_length_fail(root: Path) -> None:
    with fails(errno.ENOENT):
        os.symlink("", root / "link")
    with fails(errno.ENAMETOOLONG):
        os.symlink("x" * 4096, root / "link")
    assert not exists(root / "link")


def check_symlink_onto_existing_name_fails(root: Path) -> None:
    make_file(root / "file")
    os.symlink("nowhere", root / "dangling")
    for name in ("file", "dangling", "."):
        with fails(errno.EEXIST):
            os.symlink("target", f"{root}/{name}")


def check_symlink_in_missing_or_wrong_place_fails(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENOENT):
        os.symlink("target", root / "missing" / "link")
    with fails(errno.ENOTDIR):
        os.symlink("target", root / "file" / "link")
    with fails(errno.ENOENT):
        os.symlink("target", f"{root}/link/")


def check_readlink_of_other_things_fails(root: Path) -> None:
    make_file(root / "file")
    for path in (root, root / "file"):
        with fails(errno.EINVAL):
            os.readlink(path)
    with fails(errno.ENOENT):
        os.readlink(root / "missing")


def check_dangling_symlink_is_there_but_leads_nowhere(root: Path) -> None:
    os.symlink("nowhere", root / "link")
    assert exists(root / "link")
    for action in (os.stat, os.listdir, os.chdir):
        with fails(errno.ENOENT):
            action(root / "link")


def check_relative_symlink_starts_at_its_own_directory(root: Path) -> None:
    os.makedirs(root / "a" / "b")
    make_file(root / "a" / "file")
    os.symlink("../file", root / "a" / "b" / "link")
    assert (root / "a" / "b" / "link").read_bytes() == b"content"
    os.rename(root / "a" / "b" / "link", root / "link")
    with fails(errno.ENOENT):
        (root / "link").read_bytes()


def check_absolute_symlink_is_followed(root: Path) -> None:
    make_file(root / "file")
    os.symlink(root.absolute() / "file", root / "link")
    assert (root / "link").read_bytes() == b"content"


def check_symlink_to_directory_is_a_way_into_it(root: Path) -> None:
    os.mkdir(root / "directory")
    os.symlink("directory", root / "link")
    make_file(root / "link" / "file")
    assert os.listdir(root / "directory") == ["file"]
    assert os.stat(f"{root}/link/..").st_ino == os.lstat(root).st_ino
    assert (root / "link").is_symlink()


def check_trailing_slash_follows_a_symlink_to_a_directory(root: Path) -> None:
    os.mkdir(root / "directory")
    os.symlink("directory", root / "link")
    assert stat.S_ISDIR(os.lstat(f"{root}/link/").st_mode)
    with fails(errno.ENOTDIR):
        os.unlink(f"{root}/link/")


def check_unlink_removes_the_symlink_not_its_target(root: Path) -> None:
    make_file(root / "file")
    os.symlink("file", root / "link")
    os.unlink(root / "link")
    assert os.listdir(root) == ["file"]


def check_symlinks_that_go_round_fail(root: Path) -> None:
    os.symlink("self", root / "self")
    os.symlink("b", root / "a")
    os.symlink("a", root / "b")
    for name in ("self", "a", "self/below", "a/"):
        with fails(errno.ELOOP):
            os.stat(f"{root}/{name}")
        with fails(errno.ELOOP):
            os.open(f"{root}/{name}", os.O_RDONLY)
    with fails(errno.ELOOP):
        os.mkdir(root / "a" / "new")


def check_forty_symlinks_in_a_row_are_followed_and_no_more(root: Path) -> None:
    make_file(root / "0")
    for number in range(41):
        os.symlink(f"{number}", root / f"{number + 1}")
    assert (root / "40").read_bytes() == b"content"
    with fails(errno.ELOOP):
        os.stat(root / "41")


def check_chmod_and_utime_go_through_a_symlink(root: Path) -> None:
    make_file(root / "file")
    os.symlink("file", root / "link")
    os.chmod(root / "link", 0o640)
    os.utime(root / "link", ns=(3, 4))
    assert mode_of(root / "file") == 0o640
    assert os.stat(root / "file").st_mtime_ns == 4
    assert os.lstat(root / "link").st_mtime_ns != 4


def check_times_of_a_symlink_itself(root: Path) -> None:
    make_file(root / "file")
    os.symlink("file", root / "link")
    os.utime(root / "link", ns=(3 * 10**9, 4 * 10**9), follow_symlinks=False)
    assert os.lstat(root / "link").st_mtime_ns == 4 * 10**9
    assert os.stat(root / "file").st_mtime_ns != 4 * 10**9


@needs("root")
def check_owner_of_a_symlink_itself(root: Path) -> None:
    make_file(root / "file")
    os.symlink("file", root / "link")
    os.lchown(root / "link", 1234, 4321)
    assert (os.lstat(root / "link").st_uid, os.lstat(root / "link").st_gid) == (1234, 4321)
    assert os.stat(root / "file").st_uid == 0
    os.chown(root / "link", 77, 88)
    assert (os.stat(root / "file").st_uid, os.lstat(root / "link").st_uid) == (77, 1234)


def check_open_symlink_as_path_and_read_it(root: Path) -> None:
    os.symlink("target", root / "link")
    with opened(root / "link", os.O_PATH | os.O_NOFOLLOW) as fd:
        assert stat.S_ISLNK(os.fstat(fd).st_mode)
        assert os.readlink("", dir_fd=fd) == "target"


def check_a_new_symlink_of_an_old_name_has_the_new_target(root: Path) -> None:
    for number in range(5):
        os.symlink(f"target{number}", root / "new")
        os.rename(root / "new", root / "link")
        assert os.readlink(root / "link") == f"target{number}"
        assert os.lstat(root / "link").st_size == 7


def check_linking_leaves_directories_linked_once(root: Path) -> None:
    make_directory(root / "directory")
    before = links_of(root / "directory")
    make_file(root / "file")
    os.link(root / "file", root / "directory" / "link")
    assert links_of(root / "directory") == before
