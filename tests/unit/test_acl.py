"""ACLs: the examples of acl(5), inheritance, and what is not an ACL."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import InvalidArgumentError
from mapfs.filesystem import acl
from mapfs.filesystem.acl import AclEntry
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.store.opening import open_store
from tests.unit.support import ME, ROOT, code_of, make, open_fs

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF
TAGS = {
    "user:": USER_OBJ,
    "user:lisa": USER,
    "group:": GROUP_OBJ,
    "group:toolies": GROUP,
    "mask:": MASK,
    "other:": OTHER,
}
LISA, TOOLIES = 501, 600
# The example of acl(5), "Correspondence between ACL entries and file permission bits".
EXAMPLE = "user::rw- user:lisa:rw- group::r-- group:toolies:rw- mask::r-- other::r--"


def acl_of(text: str) -> tuple[AclEntry, ...]:
    """An ACL in the long text form of acl(5), with lisa and toolies for names."""
    entries = []
    for entry in text.split():
        who, _, rights = entry.rpartition(":")
        tag = TAGS[who]
        permissions = int("".join("0" if letter == "-" else "1" for letter in rights), 2)
        name = {USER: LISA, GROUP: TOOLIES}.get(tag, NOBODY)
        entries.append(AclEntry(tag, permissions, name))
    return tuple(entries)


def raw(text: str) -> bytes:
    return acl.pack(acl_of(text))


PERMISSIONS = st.integers(0, 7)


@st.composite
def acls(draw: st.DrawFn) -> "tuple[AclEntry, ...]":
    users = draw(st.lists(st.integers(0, 1000), max_size=3, unique=True))
    groups = draw(st.lists(st.integers(0, 1000), max_size=3, unique=True))
    entries = [AclEntry(USER_OBJ, draw(PERMISSIONS))]
    entries += [AclEntry(USER, draw(PERMISSIONS), user) for user in sorted(users)]
    entries += [AclEntry(GROUP_OBJ, draw(PERMISSIONS))]
    entries += [AclEntry(GROUP, draw(PERMISSIONS), group) for group in sorted(groups)]
    has_mask = draw(st.booleans())
    if users or groups or has_mask:
        entries.append(AclEntry(MASK, draw(PERMISSIONS)))
    entries.append(AclEntry(OTHER, draw(PERMISSIONS)))
    return tuple(entries)


@given(acls())
def test_round_trip(entries: "tuple[AclEntry, ...]") -> None:
    assert acl.parse(acl.pack(entries)) == entries


def test_the_kernels_bytes() -> None:
    value = bytes.fromhex("02000000 0100 0600 ffffffff 0400 0400 ffffffff 2000 0400 ffffffff")
    assert acl.parse(value) == acl_of("user::rw- group::r-- other::r--")


def test_the_mode_of_the_example() -> None:
    assert acl.mode_of(acl_of(EXAMPLE)) == 0o644
    assert acl.mode_of(acl_of("user::rwx group::r-x other::--x")) == 0o751


@pytest.mark.parametrize(
    ("text", "minimal"),
    [("user::rw- group::r-- other::r--", True), (EXAMPLE, False)],
)
def test_minimal(text: str, *, minimal: bool) -> None:
    assert acl.is_minimal(acl_of(text)) is minimal


def test_chmod_changes_the_mask_and_leaves_the_group() -> None:
    changed = acl.with_mode(acl_of(EXAMPLE), 0o770)
    expected = "user::rwx user:lisa:rw- group::r-- group:toolies:rw- mask::rwx other::---"
    assert changed == acl_of(expected)
    assert acl.mode_of(changed) == 0o770


def test_chmod_without_a_mask_changes_the_group() -> None:
    changed = acl.with_mode(acl_of("user::rw- group::r-- other::r--"), 0o751)
    assert changed == acl_of("user::rwx group::r-x other::--x")


@given(acls(), st.integers(0, 0o777))
def test_chmod_sets_the_mode(entries: "tuple[AclEntry, ...]", mode: int) -> None:
    assert acl.mode_of(acl.with_mode(entries, mode)) == mode


@given(acls(), st.integers(0, 0o777))
def test_a_new_file_gets_no_more_than_default_and_mode_allow(
    default: "tuple[AclEntry, ...]", mode: int
) -> None:
    access, permissions = acl.inherited(default, mode)
    assert permissions == acl.mode_of(default) & mode
    assert [(entry.tag, entry.id) for entry in access] == [
        (entry.tag, entry.id) for entry in default
    ]
    for entry, was in zip(access, default, strict=True):
        assert entry.permissions & ~was.permissions == 0
        if entry.tag in (USER, GROUP):
            assert entry.permissions == was.permissions


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0",
        struct.pack("<I", 1) + raw(EXAMPLE)[4:],
        raw(EXAMPLE)[:-1],
        raw("user::rw- group::r--"),
        raw("user::rw- other::r--"),
        raw("group::r-- other::r--"),
        raw("user::rw- user::rw- group::r-- other::r--"),
        raw("user::rw- user:lisa:rw- group::r-- other::r--"),
        raw("user::rw- group::r-- mask::r-- mask::r-- other::r--"),
        raw("other::r-- user::rw- group::r--"),
        raw("user::rw- group::r-- other::r--") + struct.pack("<HHI", 0x40, 0, 0),
    ],
    ids=bytes.hex,
)
def test_what_is_no_acl(value: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        acl.parse(value)


def test_permissions_are_three_bits() -> None:
    value = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, 0xFF, NOBODY) for tag in (USER_OBJ, GROUP_OBJ, OTHER)
    )
    with pytest.raises(InvalidArgumentError):
        acl.parse(value)


# In the filesystem


def mode(fs: Filesystem, number: int) -> int:
    return fs.inode(number).mode & 0o7777


def test_setting_an_acl_sets_the_mode(fs: Filesystem) -> None:
    number = make(fs, b"f")
    fs.setxattr(number, acl.ACCESS, raw(EXAMPLE.replace("mask::r--", "mask::rwx")))
    assert mode(fs, number) == 0o674
    assert acl.ACCESS in fs.listxattr(number)


def test_a_minimal_acl_is_only_a_mode(fs: Filesystem) -> None:
    number = make(fs, b"f")
    fs.setxattr(number, acl.ACCESS, raw(EXAMPLE))
    fs.setxattr(number, acl.ACCESS, raw("user::rwx group::--- other::---"))
    assert mode(fs, number) == 0o700
    assert fs.listxattr(number) == []


def test_chmod_keeps_the_acl_in_step(fs: Filesystem) -> None:
    number = make(fs, b"f")
    fs.setxattr(number, acl.ACCESS, raw(EXAMPLE))
    fs.setattr(number, Changes(mode=0o4710))
    expected = "user::rwx user:lisa:rw- group::r-- group:toolies:rw- mask::--x other::---"
    assert fs.getxattr(number, acl.ACCESS) == raw(expected)
    assert mode(fs, number) == 0o4710


def test_a_default_acl_is_inherited_and_the_umask_is_not(fs: Filesystem) -> None:
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    default = "user::rwx user:lisa:rwx group::r-x mask::rwx other::---"
    fs.setxattr(directory, acl.DEFAULT, raw(default))
    assert mode(fs, directory) == 0o755
    caller = Caller(1000, 1000, umask=0o077)
    number = fs.create(directory, b"f", 0o666, caller).number
    assert mode(fs, number) == 0o660
    expected = "user::rw- user:lisa:rwx group::r-x mask::rw- other::---"
    assert fs.getxattr(number, acl.ACCESS) == raw(expected)
    assert fs.listxattr(number) == [acl.ACCESS]
    below = fs.mkdir(directory, b"e", 0o777, caller).number
    assert mode(fs, below) == 0o770
    assert fs.getxattr(below, acl.DEFAULT) == raw(default)
    assert fs.getxattr(below, acl.ACCESS) == raw(default)


def test_a_minimal_default_makes_no_access_acl(fs: Filesystem) -> None:
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    fs.setxattr(directory, acl.DEFAULT, raw("user::rw- group::r-- other::---"))
    number = fs.create(directory, b"f", 0o666, Caller(1, 1, umask=0o777)).number
    assert mode(fs, number) == 0o640
    assert fs.listxattr(number) == []


def test_mounted_without_acls_one_that_is_there_has_no_effect(bundle: Path) -> None:
    fs = open_fs(bundle)
    fs.setxattr(ROOT, acl.DEFAULT, raw("user::rwx user:lisa:rwx group::rwx mask::rwx other::rwx"))
    fs.setxattr(ROOT, b"user.other", b"1")
    fs.close()
    fs = Filesystem(open_store(bundle), acl=False)
    file = fs.create(ROOT, b"file", 0o666, Caller(0, 0, 0o077))
    assert file.mode & 0o777 == 0o600
    assert fs.listxattr(ROOT) == [b"user.other"]
    fs.forget(file.number)
    fs.close()
    fs = open_fs(bundle)
    assert acl.DEFAULT in fs.listxattr(ROOT)
    fs.close()


def test_without_a_default_the_umask_counts(fs: Filesystem) -> None:
    caller = Caller(1000, 1000, umask=0o027)
    assert mode(fs, fs.create(ROOT, b"f", 0o4666, caller).number) == 0o4640
    assert mode(fs, fs.mkdir(ROOT, b"d", 0o777, caller).number) == 0o750
    assert mode(fs, fs.symlink(ROOT, b"l", b"t", caller).number) == 0o777


def test_links_have_no_acl(fs: Filesystem) -> None:
    number = fs.symlink(ROOT, b"l", b"t", ME).number
    assert code_of(lambda: fs.setxattr(number, acl.ACCESS, raw(EXAMPLE))) != 0


def test_an_acl_from_outside_the_group_clears_setgid(fs: Filesystem) -> None:
    number = make(fs, b"f")
    fs.setattr(number, Changes(mode=0o2755))
    fs.setxattr(number, acl.ACCESS, raw(EXAMPLE))
    assert mode(fs, number) == 0o2644
    fs.setxattr(number, acl.ACCESS, raw(EXAMPLE), keep_setgid=False)
    assert mode(fs, number) == 0o644


def test_what_is_no_acl_is_not_stored(fs: Filesystem) -> None:
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    for name in (acl.ACCESS, acl.DEFAULT):
        with pytest.raises(InvalidArgumentError):
            fs.setxattr(directory, name, b"nonsense")
    assert fs.listxattr(directory) == []
    assert mode(fs, directory) == 0o755
