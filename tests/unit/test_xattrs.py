"""Extended attributes, those of users and the virtual ones."""

import errno
import json
import os
from pathlib import Path

import pytest

from mapfs.errors import AttributeTooBigError, ExistsError, NoAttributeError, ReadOnlyError
from mapfs.filesystem.filesystem import Filesystem, Listing
from mapfs.store.mapped_file import MappedFile
from mapfs.store.syscalls import CacheStatistics
from tests.unit.support import ME, ROOT, code_of, make, memory_store, open_fs, value, values


@pytest.fixture
def number(fs: Filesystem) -> int:
    return make(fs, b"f", b"x" * 5000)


def test_set_get_list_remove(fs: Filesystem, number: int) -> None:
    fs.setxattr(number, b"user.b", b"two")
    fs.setxattr(number, b"user.a", b"\0\xff")
    fs.setxattr(number, b"trusted.t", b"")
    assert fs.getxattr(number, b"user.a") == b"\0\xff"
    assert sorted(fs.listxattr(number)) == [b"trusted.t", b"user.a", b"user.b"]
    fs.removexattr(number, b"user.a")
    assert sorted(fs.listxattr(number)) == [b"trusted.t", b"user.b"]
    for call in (fs.getxattr, fs.removexattr):
        with pytest.raises(NoAttributeError):
            call(number, b"user.a")


@pytest.mark.parametrize("name", [b"security.selinux", b"security.capability"])
def test_what_ls_asks_of_each_file_is_not_supported_until_something_has_an_attribute(
    fs: Filesystem, number: int, name: bytes
) -> None:
    """Then it does not ask for the next file (coreutils, `getfilecon_cache` in ls.c)."""
    assert code_of(lambda: fs.getxattr(number, name)) == errno.EOPNOTSUPP
    assert code_of(lambda: fs.removexattr(number, name)) == errno.ENODATA
    assert code_of(lambda: fs.getxattr(number, b"security.other")) == errno.ENODATA
    fs.setxattr(number, name, b"value")
    assert fs.getxattr(number, name) == b"value"
    assert code_of(lambda: fs.getxattr(ROOT, name)) == errno.ENODATA
    fs.commit()
    assert code_of(lambda: Filesystem(fs.store).getxattr(ROOT, name)) == errno.ENODATA
    fs.removexattr(number, name)
    assert code_of(lambda: fs.getxattr(number, name)) == errno.ENODATA


def test_trusted_attributes_are_for_the_privileged(fs: Filesystem, number: int) -> None:
    fs.setxattr(number, b"trusted.t", b"")
    fs.setxattr(number, b"security.s", b"")
    assert fs.listxattr(number, privileged=False) == [b"security.s"]


def test_create_and_replace(fs: Filesystem, number: int) -> None:
    with pytest.raises(NoAttributeError):
        fs.setxattr(number, b"user.a", b"1", os.XATTR_REPLACE)
    fs.setxattr(number, b"user.a", b"1", os.XATTR_CREATE)
    with pytest.raises(ExistsError):
        fs.setxattr(number, b"user.a", b"2", os.XATTR_CREATE)
    fs.setxattr(number, b"user.a", b"3", os.XATTR_REPLACE)
    assert fs.getxattr(number, b"user.a") == b"3"
    assert code_of(lambda: fs.setxattr(number, b"user.a", b"4", 4)) == errno.EINVAL


def test_sizes(fs: Filesystem, number: int) -> None:
    fs.setxattr(number, b"user.big", b"v" * 65536)
    assert len(fs.getxattr(number, b"user.big")) == 65536
    with pytest.raises(AttributeTooBigError):
        fs.setxattr(number, b"user.bigger", b"v" * 65537)
    fs.setxattr(number, b"user." + b"n" * 250, b"v")
    for name in (b"user." + b"n" * 251, b""):
        with pytest.raises(AttributeTooBigError):
            fs.setxattr(number, name, b"v")


@pytest.mark.parametrize("name", [b"user", b"user.", b"os2.x", b"system.other", b".x"])
def test_names_outside_the_namespaces(fs: Filesystem, number: int, name: bytes) -> None:
    assert code_of(lambda: fs.setxattr(number, name, b"v")) == errno.EOPNOTSUPP


def test_attributes_of_inodes_are_apart(fs: Filesystem, number: int) -> None:
    other = make(fs, b"g")
    fs.setxattr(number, b"user.a", b"1")
    fs.setxattr(other, b"user.b", b"2")
    assert (fs.listxattr(number), fs.listxattr(other)) == ([b"user.a"], [b"user.b"])


def test_setting_changes_ctime(fs: Filesystem, number: int) -> None:
    fs.inode(number).ctime = 5
    fs.setxattr(number, b"user.a", b"1")
    assert fs.inode(number).ctime > 5
    fs.inode(number).ctime = 5
    fs.removexattr(number, b"user.a")
    assert fs.inode(number).ctime > 5


def test_attributes_go_with_the_file(fs: Filesystem, number: int) -> None:
    fs.setxattr(number, b"user.a", b"1")
    fs.unlink(ROOT, b"f")
    assert fs.getxattr(number, b"user.a") == b"1"
    fs.forget(number)  # the check at the end finds attributes without an inode


# Virtual attributes


def test_the_groups(fs: Filesystem, number: int) -> None:
    directory = fs.mkdir(ROOT, b"d", 0o755, ME).number
    link = fs.symlink(ROOT, b"l", b"t", ME).number
    answers = {
        inode: {group for group in (b"file", b"dir", b"fs") if _has(fs, inode, group)}
        for inode in (number, directory, ROOT, link)
    }
    assert answers == {
        number: {b"file"},
        directory: {b"dir"},
        ROOT: {b"dir", b"fs"},
        link: set(),
    }


def _has(fs: Filesystem, inode: int, group: bytes) -> bool:
    return code_of(lambda: fs.getxattr(inode, b"user.mapfs." + group)) == 0


def test_every_value_alone_and_together(fs: Filesystem, number: int) -> None:
    for inode, group in ((number, b"file"), (ROOT, b"dir"), (ROOT, b"fs")):
        said = values(fs, inode, group)
        assert said
        for key, expected in said.items():
            alone = fs.getxattr(inode, b"user.mapfs." + group + b"." + key.encode())
            assert alone == str(expected).encode()
        together = fs.getxattr(inode, b"user.mapfs." + group)
        assert together.decode() == " ".join(f"{key}={number}" for key, number in said.items())


def test_the_names_that_the_design_promises(fs: Filesystem, number: int) -> None:
    what_ifs = {f"slack.at.{size}" for size in ("4k", "16k", "64k", "2m")}
    file = {"bytes", "allocated", "pages", "slack", "slack.tail", "slack.prealloc", "extents"}
    assert set(values(fs, number)) >= file | {"resident"} | what_ifs
    own = {"files", "subdirs", "bytes", "allocated", "slack"} | what_ifs
    assert set(values(fs, ROOT, b"dir")) == own | {f"r{name}" for name in own}
    whole = {f"{part}_bytes" for part in ("stored", "allocated", "slack", "metadata", "free")}
    assert set(values(fs, ROOT, b"fs")) >= whole | {"store_bytes", "page_size"}


def test_json_is_json(fs: Filesystem, number: int) -> None:
    parsed = json.loads(fs.getxattr(number, b"user.mapfs.file.json"))
    assert parsed["bytes"] == 5000
    assert parsed["slack"] == 3192


@pytest.mark.parametrize(
    "name",
    [b"", b"x", b"file.", b"file.x", b"file.json.x", b"dir", b"fs", b"file.slack.at.1k", b"\xff"],
)
def test_unknown_virtual_attributes(fs: Filesystem, number: int, name: bytes) -> None:
    for call in (
        lambda: fs.getxattr(number, b"user.mapfs." + name),
        lambda: fs.setxattr(number, b"user.mapfs." + name, b"1"),
        lambda: fs.removexattr(number, b"user.mapfs." + name),
    ):
        with pytest.raises(NoAttributeError):
            call()


@pytest.mark.parametrize("name", [b"file", b"file.json", b"file.slack", b"file.slack.at.64k"])
def test_virtual_attributes_are_read_only(fs: Filesystem, number: int, name: bytes) -> None:
    with pytest.raises(ReadOnlyError):
        fs.setxattr(number, b"user.mapfs." + name, b"1")
    with pytest.raises(ReadOnlyError):
        fs.removexattr(number, b"user.mapfs." + name)


@pytest.mark.parametrize(
    ("listing", "on_root", "on_file"),
    [
        (Listing.HIDDEN, False, False),
        (Listing.ROOT_ONLY, True, False),
        (Listing.ALWAYS, True, True),
    ],
)
def test_where_virtual_attributes_are_listed(
    listing: Listing, *, on_root: bool, on_file: bool
) -> None:
    fs = Filesystem(memory_store(), listing=listing)
    number = make(fs, b"f", b"x")
    fs.setxattr(number, b"user.a", b"1")
    for inode, expected in ((ROOT, on_root), (number, on_file)):
        virtual = [name for name in fs.listxattr(inode) if name.startswith(b"user.mapfs.")]
        assert bool(virtual) is expected
        for name in virtual:
            fs.getxattr(inode, name)
    assert b"user.a" in fs.listxattr(number)
    if on_file:
        assert b"user.mapfs.file" in fs.listxattr(number)
        assert b"user.mapfs.file.slack.tail" in fs.listxattr(number)
    fs.close()


def test_resident_and_dirty(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"f", b"x" * 20000)
    said = values(fs, number)
    assert said["resident"] == 20480
    fs.commit()
    if "dirty" in said:
        assert said["dirty"] == 20480
        assert value(fs, number, b"file.dirty") == 0
    fs.close()


def test_what_the_kernel_cannot_tell_is_left_out(
    fs: Filesystem, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MappedFile, "cached", lambda *_: CacheStatistics(2, None))
    assert "dirty" not in values(fs, number)
    assert values(fs, number)["resident"] == 8192
    with pytest.raises(NoAttributeError):
        fs.getxattr(number, b"user.mapfs.file.dirty")


def test_the_size_of_the_catalog(fs: Filesystem) -> None:
    before = value(fs, ROOT, b"fs.catalog_bytes")
    for number in range(500):
        make(fs, b"%d" % number)
    fs.commit()
    assert value(fs, ROOT, b"fs.catalog_bytes") > before
