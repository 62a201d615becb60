"""Extended attributes: user, trusted and security."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path

from tests.posix import libc
from tests.posix.as_user import ALICE, BOB, as_user
from tests.posix.expect import fails, make_directory, make_file, opened, pattern
from tests.posix.needs import needs

LARGEST = 65_536
# A version 2 file capability that grants CAP_NET_RAW.
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def user_names(path: Path) -> list[str]:
    """The listed user attributes, sorted."""
    return sorted(n for n in os.listxattr(path, follow_symlinks=False) if n.startswith("user."))


@needs("user_xattr")
def check_what_was_set_is_got(root: Path) -> None:
    make_file(root / "file")
    for path in (root, root / "file"):
        for value in (b"value", b"", b"\0nul\0\xff", b"\n"):
            os.setxattr(path, "user.name", value)
            assert os.getxattr(path, "user.name") == value


@needs("user_xattr")
def check_missing_attributes_fail(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENODATA):
        os.getxattr(root / "file", "user.missing")
    with fails(errno.ENODATA):
        os.removexattr(root / "file", "user.missing")
    os.setxattr(root / "file", "user.name", b"value")
    with fails(errno.ENODATA):
        os.getxattr(root / "file", "user.nam")
    with fails(errno.ENODATA):
        os.getxattr(root / "file", "user.names")


@needs("user_xattr")
def check_missing_files_fail(root: Path) -> None:
    for action in (
        lambda: os.getxattr(root / "missing", "user.name"),
        lambda: os.setxattr(root / "missing", "user.name", b"value"),
        lambda: os.removexattr(root / "missing", "user.name"),
        lambda: os.listxattr(root / "missing"),
    ):
        with fails(errno.ENOENT):
            action()


@needs("user_xattr")
def check_create_refuses_an_existing_attribute(root: Path) -> None:
    make_file(root / "file")
    os.setxattr(root / "file", "user.name", b"first", os.XATTR_CREATE)
    with fails(errno.EEXIST):
        os.setxattr(root / "file", "user.name", b"second", os.XATTR_CREATE)
    assert os.getxattr(root / "file", "user.name") == b"first"


@needs("user_xattr")
def check_replace_refuses_a_missing_attribute(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.ENODATA):
        os.setxattr(root / "file", "user.name", b"first", os.XATTR_REPLACE)
    os.setxattr(root / "file", "user.name", b"first")
    os.setxattr(root / "file", "user.name", b"second", os.XATTR_REPLACE)
    assert os.getxattr(root / "file", "user.name") == b"second"


@needs("user_xattr")
def check_unknown_flags_fail(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.EINVAL):
        os.setxattr(root / "file", "user.name", b"value", 4)


@needs("user_xattr")
def check_removed_attributes_are_gone(root: Path) -> None:
    make_file(root / "file")
    os.setxattr(root / "file", "user.one", b"1")
    os.setxattr(root / "file", "user.two", b"2")
    os.removexattr(root / "file", "user.one")
    with fails(errno.ENODATA):
        os.getxattr(root / "file", "user.one")
    assert os.getxattr(root / "file", "user.two") == b"2"
    assert user_names(root / "file") == ["user.two"]


@needs("user_xattr")
def check_listing_gives_every_name_once(root: Path) -> None:
    make_file(root / "file")
    assert user_names(root / "file") == []
    wanted = sorted(f"user.name{number}" for number in range(60))
    for name in wanted:
        os.setxattr(root / "file", name, b"")
    os.setxattr(root / "file", wanted[0], b"again")
    assert user_names(root / "file") == wanted


@needs("user_xattr")
def check_sizes_can_be_asked_for(root: Path) -> None:
    make_file(root / "file")
    os.setxattr(root / "file", "user.name", b"12345")
    assert libc.getxattr(root / "file", "user.name", 0) == 5
    assert libc.getxattr(root / "file", "user.name", 5) == 5
    assert libc.getxattr(root / "file", "user.name", 100) == 5
    size = libc.listxattr(root / "file", 0)
    assert size >= len("user.name") + 1
    assert libc.listxattr(root / "file", size) == size


@needs("user_xattr")
def check_small_buffers_fail(root: Path) -> None:
    make_file(root / "file")
    os.setxattr(root / "file", "user.name", b"12345")
    with fails(errno.ERANGE):
        libc.getxattr(root / "file", "user.name", 4)
    with fails(errno.ERANGE):
        libc.listxattr(root / "file", 5)


@needs("user_xattr")
def check_values_of_several_sizes(root: Path) -> None:
    make_file(root / "file")
    for size in (1, 100, 1000, 3000):
        os.setxattr(root / "file", "user.name", pattern(size))
        assert os.getxattr(root / "file", "user.name") == pattern(size)
    os.setxattr(root / "file", "user.name", b"short")
    assert os.getxattr(root / "file", "user.name") == b"short"


@needs("user_xattr", "large_xattr")
def check_values_of_64_kib(root: Path) -> None:
    make_file(root / "file")
    for name in ("user.one", "user.two", "user.three"):
        os.setxattr(root / "file", name, pattern(LARGEST, len(name)))
    for name in ("user.one", "user.two", "user.three"):
        assert os.getxattr(root / "file", name) == pattern(LARGEST, len(name))
    os.removexattr(root / "file", "user.two")
    assert user_names(root / "file") == ["user.one", "user.three"]


@needs("user_xattr")
def check_values_above_64_kib_fail(root: Path) -> None:
    make_file(root / "file")
    with fails(errno.E2BIG):
        os.setxattr(root / "file", "user.name", bytes(LARGEST + 1))
    assert user_names(root / "file") == []


@needs("user_xattr")
def check_names_of_255_bytes_and_no_more(root: Path) -> None:
    make_file(root / "file")
    longest = "user." + "n" * 250
    os.setxattr(root / "file", longest, b"value")
    assert os.getxattr(root / "file", longest) == b"value"
    assert user_names(root / "file") == [longest]
    with fails(errno.ERANGE):
        os.setxattr(root / "file", longest + "n", b"value")
    with fails(errno.ERANGE):
        os.getxattr(root / "file", longest + "n")


@needs("user_xattr")
def check_names_of_any_bytes(root: Path) -> None:
    make_file(root / "file")
    names = ["user.\u00fc", "user.\udcff\udcfe", "user. ", "user.a.b", "user.A", "user.a", "user./"]
    for name in names:
        os.setxattr(root / "file", name, name.encode("utf-8", "surrogateescape"))
    assert user_names(root / "file") == sorted(names)
    for name in names:
        assert os.getxattr(root / "file", name) == name.encode("utf-8", "surrogateescape")


@needs("user_xattr")
def check_names_without_a_namespace_fail(root: Path) -> None:
    make_file(root / "file")
    for name in ("name", "nowhere.name", "user", "userx.name"):
        with fails(errno.EOPNOTSUPP):
            os.setxattr(root / "file", name, b"value")
        with fails(errno.EOPNOTSUPP, errno.ENODATA):
            os.getxattr(root / "file", name)
    for name in ("", "user."):
        with fails(errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP):
            os.setxattr(root / "file", name, b"value")


@needs("user_xattr")
def check_user_attributes_are_for_files_and_directories_only(root: Path) -> None:
    os.symlink("nowhere", root / "link")
    os.mkfifo(root / "fifo")
    for name in ("link", "fifo"):
        with fails(errno.EPERM):
            os.setxattr(root / name, "user.name", b"value", follow_symlinks=False)
        with fails(errno.ENODATA, errno.EPERM):
            os.getxattr(root / name, "user.name", follow_symlinks=False)
        assert user_names(root / name) == []


@needs("user_xattr")
def check_symlinks_are_followed_to_the_file(root: Path) -> None:
    make_file(root / "file")
    os.symlink("file", root / "link")
    os.setxattr(root / "link", "user.name", b"value")
    assert os.getxattr(root / "file", "user.name") == b"value"
    assert os.listxattr(root / "link", follow_symlinks=False) == []


@needs("user_xattr")
def check_attributes_through_descriptors(root: Path) -> None:
    make_file(root / "file")
    with opened(root / "file", os.O_RDWR) as fd:
        os.setxattr(fd, "user.name", b"value")
        os.unlink(root / "file")
        assert os.getxattr(fd, "user.name") == b"value"
        os.setxattr(fd, "user.other", b"")
        assert set(os.listxattr(fd)) >= {"user.name", "user.other"}
        os.removexattr(fd, "user.name")


@needs("user_xattr")
def check_attributes_belong_to_the_file_not_the_name(root: Path) -> None:
    make_file(root / "one")
    os.setxattr(root / "one", "user.name", b"value")
    os.link(root / "one", root / "two")
    assert os.getxattr(root / "two", "user.name") == b"value"
    os.rename(root / "one", root / "moved")
    os.unlink(root / "two")
    assert os.getxattr(root / "moved", "user.name") == b"value"
    make_file(root / "one")
    assert user_names(root / "one") == []


@needs("user_xattr")
def check_a_new_file_inherits_no_user_attributes(root: Path) -> None:
    os.setxattr(root, "user.name", b"value")
    make_file(root / "file")
    os.mkdir(root / "directory")
    assert user_names(root / "file") == user_names(root / "directory") == []


@needs("user_xattr")
def check_content_and_attributes_do_not_disturb_each_other(root: Path) -> None:
    make_file(root / "file", pattern(10_000))
    os.setxattr(root / "file", "user.name", pattern(2000))
    os.truncate(root / "file", 5)
    (root / "file").write_bytes(b"other")
    assert os.getxattr(root / "file", "user.name") == pattern(2000)
    os.removexattr(root / "file", "user.name")
    assert (root / "file").read_bytes() == b"other"


@needs("user_xattr")
def check_random_changes_match_a_model(root: Path) -> None:
    make_file(root / "file")
    generator = random.Random(3)
    model: dict[str, bytes] = {}
    for _ in range(300):
        name = f"user.{generator.randrange(12)}"
        if generator.random() < 0.3 and name in model:
            os.removexattr(root / "file", name)
            del model[name]
        else:
            model[name] = pattern(generator.randrange(200), generator.randrange(50))
            os.setxattr(root / "file", name, model[name])
        assert user_names(root / "file") == sorted(model)
    assert {name: os.getxattr(root / "file", name) for name in model} == model


@needs("root", "user_xattr")
def check_user_attributes_follow_the_mode(root: Path) -> None:
    make_file(root / "file", mode=0o644)
    os.setxattr(root / "file", "user.name", b"value")
    as_user(ALICE, lambda: os.getxattr(root / "file", "user.name"))
    for action in (
        lambda: os.setxattr(root / "file", "user.name", b"other"),
        lambda: os.removexattr(root / "file", "user.name"),
    ):
        with fails(errno.EACCES):
            as_user(ALICE, action)
    os.chmod(root / "file", 0o600)
    with fails(errno.EACCES):
        as_user(ALICE, lambda: os.getxattr(root / "file", "user.name"))


@needs("root", "user_xattr")
def check_in_a_sticky_directory_only_its_owner_sets_its_attributes(root: Path) -> None:
    make_directory(root / "sticky", 0o1777)
    os.chown(root / "sticky", ALICE.uid, ALICE.gid)
    with fails(errno.EPERM):
        as_user(BOB, lambda: os.setxattr(root / "sticky", "user.name", b"value"))
    as_user(ALICE, lambda: os.setxattr(root / "sticky", "user.name", b"value"))


@needs("root")
def check_trusted_attributes_work_for_root_on_everything(root: Path) -> None:
    make_file(root / "file")
    os.symlink("nowhere", root / "link")
    os.mkfifo(root / "fifo")
    for path in (root, root / "file", root / "link", root / "fifo"):
        os.setxattr(path, "trusted.name", b"value", follow_symlinks=False)
        assert os.getxattr(path, "trusted.name", follow_symlinks=False) == b"value"
        assert "trusted.name" in os.listxattr(path, follow_symlinks=False)
        os.removexattr(path, "trusted.name", follow_symlinks=False)
        with fails(errno.ENODATA):
            os.getxattr(path, "trusted.name", follow_symlinks=False)


@needs("root")
def check_trusted_attributes_are_hidden_from_users(root: Path) -> None:
    make_file(root / "file", mode=0o666)
    os.chown(root / "file", ALICE.uid, ALICE.gid)
    os.setxattr(root / "file", "trusted.name", b"value")
    with fails(errno.EPERM):
        as_user(ALICE, lambda: os.setxattr(root / "file", "trusted.other", b"value"))
    with fails(errno.ENODATA):
        as_user(ALICE, lambda: os.getxattr(root / "file", "trusted.name"))
    with fails(errno.EPERM):
        as_user(ALICE, lambda: os.removexattr(root / "file", "trusted.name"))


@needs("root", "user_xattr")
def check_trusted_attributes_are_not_listed_to_users(root: Path) -> None:
    make_file(root / "file", mode=0o666)
    os.setxattr(root / "file", "trusted.name", b"value")
    os.setxattr(root / "file", "user.name", b"value")

    def act() -> None:
        assert "trusted.name" not in os.listxattr(root / "file")
        assert "user.name" in os.listxattr(root / "file")

    as_user(ALICE, act)


@needs("root")
def check_security_attributes_work_for_root(root: Path) -> None:
    make_file(root / "file", mode=0o666)
    os.setxattr(root / "file", "security.name", b"value")
    assert os.getxattr(root / "file", "security.name") == b"value"
    as_user(ALICE, lambda: os.getxattr(root / "file", "security.name"))
    with fails(errno.EPERM):
        as_user(ALICE, lambda: os.setxattr(root / "file", "security.name", b"other"))
    assert "security.name" in os.listxattr(root / "file")
    os.removexattr(root / "file", "security.name")


@needs("root")
def check_file_capabilities_end_with_a_write(root: Path) -> None:
    make_file(root / "file")
    for change in (
        lambda: make_file(root / "file", b"new"),
        lambda: os.truncate(root / "file", 1),
        lambda: os.chown(root / "file", 7, 7),
    ):
        os.setxattr(root / "file", "security.capability", CAPABILITY)
        assert os.getxattr(root / "file", "security.capability") == CAPABILITY
        change()
        with fails(errno.ENODATA):
            os.getxattr(root / "file", "security.capability")


@needs("root")
def check_namespaces_are_apart(root: Path) -> None:
    make_file(root / "file")
    os.setxattr(root / "file", "trusted.name", b"trusted")
    os.setxattr(root / "file", "security.name", b"security")
    assert os.getxattr(root / "file", "trusted.name") == b"trusted"
    os.removexattr(root / "file", "trusted.name")
    assert os.getxattr(root / "file", "security.name") == b"security"
