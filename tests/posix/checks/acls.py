"""POSIX access control lists, set and read with the tools people use."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from pathlib import Path

from tests.posix.as_user import ALICE, BOB, GROUP, MEMBER, as_user
from tests.posix.expect import changes, fails, make_directory, make_file, mode_of, opened
from tests.posix.needs import needs

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"


def setfacl(path: Path, *arguments: str) -> None:
    """Run setfacl; a filesystem without ACLs is EOPNOTSUPP here too."""
    done = subprocess.run(
        ["setfacl", *arguments, "--", path], check=False, capture_output=True, text=True
    )
    for number in (errno.EOPNOTSUPP, errno.EPERM):
        if os.strerror(number) in done.stderr:
            raise OSError(number, done.stderr)
    assert done.returncode == 0, done.stderr


def getfacl(path: Path) -> set[str]:
    """The entries, such as user:54321:rw-, without comments."""
    done = subprocess.run(
        ["getfacl", "--numeric", "--omit-header", "--no-effective", "--absolute-names", "--", path],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(done.stdout.split())


def packed(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the kernel takes it: entries of tag, permissions, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def read(path: Path) -> None:
    path.read_bytes()


def write(path: Path) -> None:
    with opened(path, os.O_WRONLY):
        pass


@needs("acl", "acl_tools")
def check_an_acl_is_read_back(root: Path) -> None:
    make_file(root / "file", mode=0o640)
    setfacl(root / "file", "-m", "u:54321:rwx,g:54330:r,m::rx")
    assert getfacl(root / "file") == {
        "user::rw-", "user:54321:rwx", "group::r--", "group:54330:r--", "mask::r-x", "other::---",
    }  # fmt: skip


@needs("acl", "acl_tools", "root")
def check_a_named_user_gets_what_the_entry_says(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    setfacl(root / "file", "-m", "u:54321:r")
    as_user(ALICE, lambda: read(root / "file"))
    with fails(errno.EACCES):
        as_user(ALICE, lambda: write(root / "file"))
    with fails(errno.EACCES):
        as_user(BOB, lambda: read(root / "file"))


@needs("acl", "acl_tools", "root")
def check_a_named_user_gets_no_more_than_the_entry_says(root: Path) -> None:
    make_file(root / "file", mode=0o666)
    setfacl(root / "file", "-m", "u:54321:-")
    with fails(errno.EACCES):
        as_user(ALICE, lambda: read(root / "file"))
    as_user(BOB, lambda: write(root / "file"))


@needs("acl", "acl_tools", "root")
def check_a_named_group_gets_what_the_entry_says(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    setfacl(root / "file", "-m", f"g:{GROUP}:rw")
    as_user(MEMBER, lambda: write(root / "file"))
    with fails(errno.EACCES):
        as_user(BOB, lambda: read(root / "file"))


@needs("acl", "acl_tools", "root")
def check_the_mask_bounds_all_but_owner_and_others(root: Path) -> None:
    make_file(root / "file", mode=0o666)
    os.chown(root / "file", BOB.uid, BOB.gid)
    setfacl(root / "file", "-m", f"u:54321:rw,g:{GROUP}:rw,m::r")
    for user in (ALICE, MEMBER):
        as_user(user, lambda: read(root / "file"))
        with fails(errno.EACCES):
            as_user(user, lambda: write(root / "file"))
    as_user(BOB, lambda: write(root / "file"))


@needs("acl", "acl_tools", "root")
def check_directories_are_guarded_by_their_acl(root: Path) -> None:
    make_directory(root / "directory", 0o700)
    setfacl(root / "directory", "-m", "u:54321:rwx")
    as_user(ALICE, lambda: os.mkdir(root / "directory" / "new"))
    with fails(errno.EACCES):
        as_user(BOB, lambda: os.listdir(root / "directory"))


@needs("acl", "acl_tools", "root")
def check_access_knows_the_acl(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    setfacl(root / "file", "-m", "u:54321:rx")

    def act() -> None:
        assert os.access(root / "file", os.R_OK | os.X_OK)
        assert not os.access(root / "file", os.W_OK)

    as_user(ALICE, act)


@needs("acl", "acl_tools")
def check_the_mask_shows_as_group_bits(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    setfacl(root / "file", "-m", "u:54321:rwx")
    assert mode_of(root / "file") == 0o670
    setfacl(root / "file", "-m", "m::r,o::x")
    assert mode_of(root / "file") == 0o641


@needs("acl", "acl_tools")
def check_chmod_sets_the_mask(root: Path) -> None:
    make_file(root / "file", mode=0o660)
    setfacl(root / "file", "-m", "u:54321:rw")
    os.chmod(root / "file", 0o6740)
    assert mode_of(root / "file") == 0o6740
    assert getfacl(root / "file") >= {
        "user::rwx", "user:54321:rw-", "group::rw-", "mask::r--", "other::---",
    }  # fmt: skip


@needs("acl", "acl_tools")
def check_a_minimal_acl_is_only_a_mode(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    setfacl(root / "file", "-m", "g::rx,o::r")
    assert mode_of(root / "file") == 0o654
    with fails(errno.ENODATA):
        os.getxattr(root / "file", ACCESS)
    assert ACCESS not in os.listxattr(root / "file")


@needs("acl", "acl_tools")
def check_removing_an_acl_leaves_the_mode(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    setfacl(root / "file", "-m", "u:54321:rw")
    assert ACCESS in os.listxattr(root / "file")
    setfacl(root / "file", "-b")
    assert getfacl(root / "file") == {"user::rw-", "group::---", "other::---"}
    assert ACCESS not in os.listxattr(root / "file")


@needs("acl", "acl_tools")
def check_an_acl_is_empty_where_none_was_set(root: Path) -> None:
    make_file(root / "file", mode=0o640)
    assert getfacl(root / "file") == {"user::rw-", "group::r--", "other::---"}
    os.mkdir(root / "directory")
    setfacl(root / "directory", "-m", "u:54321:rw")
    with fails(errno.ENODATA):
        os.getxattr(root / "directory", DEFAULT)


@needs("acl", "acl_tools")
def check_an_acl_belongs_to_the_file_not_the_name(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    setfacl(root / "file", "-m", "u:54321:rw")
    os.link(root / "file", root / "link")
    os.rename(root / "file", root / "moved")
    assert "user:54321:rw-" in getfacl(root / "link")
    setfacl(root / "link", "-x", "u:54321")
    assert "user:54321:rw-" not in getfacl(root / "moved")


@needs("acl", "acl_tools")
def check_new_files_inherit_the_default_acl(root: Path) -> None:
    setfacl(root, "-d", "-m", "u::rwx,g::rx,o::-,u:54321:rwx,m::rwx")
    make_inherited = root / "file"
    with opened(make_inherited, os.O_WRONLY | os.O_CREAT, 0o666):
        pass
    assert getfacl(make_inherited) == {
        "user::rw-", "user:54321:rwx", "group::r-x", "mask::rw-", "other::---",
    }  # fmt: skip
    assert mode_of(make_inherited) == 0o660


@needs("acl", "acl_tools")
def check_the_default_acl_takes_the_place_of_the_umask(root: Path) -> None:
    os.umask(0o077)
    setfacl(root, "-d", "-m", "u::rwx,g::rwx,o::rwx")
    with opened(root / "file", os.O_WRONLY | os.O_CREAT, 0o666):
        pass
    os.mkdir(root / "directory", 0o777)
    os.mkfifo(root / "fifo", 0o666)
    assert mode_of(root / "file") == 0o666
    assert mode_of(root / "directory") == 0o777
    assert mode_of(root / "fifo") == 0o666


@needs("acl", "acl_tools")
def check_without_default_acl_the_umask_counts(root: Path) -> None:
    setfacl(root, "-m", "u:54321:rwx")
    os.umask(0o027)
    with opened(root / "file", os.O_WRONLY | os.O_CREAT, 0o666):
        pass
    os.mkdir(root / "directory")
    assert (mode_of(root / "file"), mode_of(root / "directory")) == (0o640, 0o750)
    assert ACCESS not in os.listxattr(root / "file")


@needs("acl", "acl_tools")
def check_the_mode_of_creation_bounds_the_default_acl(root: Path) -> None:
    setfacl(root, "-d", "-m", "u::rwx,g::rwx,o::rwx,u:54321:rwx")
    with opened(root / "file", os.O_WRONLY | os.O_CREAT, 0o640):
        pass
    assert mode_of(root / "file") == 0o640
    assert getfacl(root / "file") >= {"user:54321:rwx", "mask::r--", "other::---"}


@needs("acl", "acl_tools")
def check_new_directories_hand_the_default_acl_on(root: Path) -> None:
    setfacl(root, "-d", "-m", "u::rwx,g::rx,o::-,u:54321:rx")
    os.makedirs(root / "one" / "two")
    for path in (root / "one", root / "one" / "two"):
        assert getfacl(path) >= {"user:54321:r-x", "default:user:54321:r-x", "default:other::---"}


@needs("acl", "acl_tools", "root")
def check_inherited_acls_are_enforced_at_once(root: Path) -> None:
    setfacl(root, "-d", "-m", "u::rwx,g::-,o::-,u:54321:rwx")
    (root / "file").write_bytes(b"inherited")
    as_user(ALICE, lambda: write(root / "file"))
    with fails(errno.EACCES):
        as_user(BOB, lambda: read(root / "file"))


@needs("acl", "acl_tools")
def check_removing_the_default_acl_ends_inheritance(root: Path) -> None:
    setfacl(root, "-d", "-m", "u:54321:rwx")
    assert DEFAULT in os.listxattr(root)
    setfacl(root, "-k")
    assert DEFAULT not in os.listxattr(root)
    os.mkdir(root / "directory")
    assert os.listxattr(root / "directory") == []


@needs("acl", "acl_tools")
def check_symlinks_inherit_nothing(root: Path) -> None:
    setfacl(root, "-d", "-m", "u:54321:rwx")
    os.symlink("nowhere", root / "link")
    assert mode_of(root / "link") == 0o777
    assert os.listxattr(root / "link", follow_symlinks=False) == []


@needs("acl", "acl_tools")
def check_a_hundred_entries(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    entries = {f"user:{60_000 + number}:r--" for number in range(100)}
    setfacl(root / "file", "-m", ",".join(sorted(entries)))
    assert getfacl(root / "file") >= entries


@needs("acl", "acl_tools")
def check_setting_an_acl_moves_ctime_only(root: Path) -> None:
    make_file(root / "file", mode=0o600)
    with changes(root / "file", "ctime"):
        setfacl(root / "file", "-m", "u:54321:rw")


@needs("acl", "acl_tools", "root")
def check_acls_belong_to_the_owner(root: Path) -> None:
    make_file(root / "file", mode=0o666)
    os.chown(root / "file", ALICE.uid, ALICE.gid)
    with fails(errno.EPERM):
        as_user(BOB, lambda: setfacl(root / "file", "-m", "u:54322:rwx"))
    as_user(ALICE, lambda: setfacl(root / "file", "-m", "u:54322:rwx"))
    assert "user:54322:rwx" in getfacl(root / "file")


@needs("acl", "acl_tools", "root")
def check_setting_an_acl_outside_the_group_drops_setgid(root: Path) -> None:
    make_file(root / "file")
    os.chown(root / "file", ALICE.uid, GROUP)
    os.chmod(root / "file", 0o2755)
    as_user(ALICE, lambda: setfacl(root / "file", "-m", "u:54322:r"))
    assert mode_of(root / "file") == 0o755


@needs("acl")
def check_malformed_acls_fail(root: Path) -> None:
    make_file(root / "file")
    owner, group, other, mask, named = 1, 4, 0x20, 0x10, 2
    nobody = 0xFFFFFFFF
    for value in (
        b"\2",
        b"\1\0\0\0",
        packed((owner, 6, nobody), (group, 4, nobody)),
        packed((owner, 6, nobody), (named, 6, 54321), (group, 4, nobody), (other, 0, nobody)),
        packed((owner, 9, nobody), (group, 4, nobody), (other, 0, nobody)),
        packed((owner, 6, nobody), (group, 4, nobody), (mask, 6, nobody), (77, 0, nobody)),
    ):
        with fails(errno.EINVAL, errno.EOPNOTSUPP):
            os.setxattr(root / "file", ACCESS, value)
    assert ACCESS not in os.listxattr(root / "file")


@needs("acl")
def check_only_directories_have_a_default_acl(root: Path) -> None:
    make_file(root / "file")
    value = packed((1, 6, 0xFFFFFFFF), (4, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
    os.setxattr(root, DEFAULT, value)
    with fails(errno.EACCES):
        os.setxattr(root / "file", DEFAULT, value)
