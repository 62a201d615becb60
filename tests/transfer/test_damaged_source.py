"""Rescuing a damaged store: each file that cannot be read is named, and the rest goes on."""

import errno
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.extent import Extent
from mapfs.format.records import (
    Inode,
    Listed,
    Table,
    id_key,
    pack_extent,
    pair_key,
)
from mapfs.store.catalog import Catalog
from tests.transfer.conftest import Vault
from tests.unit.support import ME, ROOT, make, new_bundle

Change = tuple[Table, bytes, bytes | None]
SOUND = ("a", "c", "d", "e")


def text_of(name: str) -> bytes:
    return name.encode() * 5000


class Damaged:
    """A store with the files a to e, and the records of b."""

    def __init__(self, path: Path) -> None:
        self.vault = Vault(new_bundle(path))
        with self.vault.opened() as filesystem:
            for name in "abcde":
                number = make(filesystem, name.encode(), text_of(name))
                filesystem.setxattr(number, b"user.a", b"value")
            self.number = filesystem.resolve(b"b").number
            self.cookie = filesystem.inode(self.number).cookie
            filesystem.mkdir(ROOT, b"z", 0o755, ME)

    def change(self, change: Callable[["Damaged"], Change]) -> None:
        self.put(*change(self))

    def put(self, table: Table, key: bytes, value: bytes | None) -> None:
        with Catalog(self.vault.path / "catalog") as catalog:
            changes: list[dict[bytes, bytes | None]] = [{} for _ in Table]
            changes[table][key] = value
            catalog.apply(changes)

    def inode(self, **values: int) -> Change:
        """The record of b with other values."""
        with Catalog(self.vault.path / "catalog", read_only=True) as catalog:
            value = catalog.get(Table.INODES, id_key(self.number))
        assert value is not None
        inode = Inode.unpack(self.number, value)
        for name, each in values.items():
            setattr(inode, name, each)
        return Table.INODES, id_key(self.number), inode.pack_fixed()

    def extent(self, value: bytes) -> Change:
        return Table.EXTENTS, pair_key(self.number, 0), value

    def listing(self, number: int, kind: int, name: bytes) -> Change:
        listed = Listed(self.cookie, number, kind, name)
        return Table.COOKIES, pair_key(ROOT, self.cookie), listed.pack()


@pytest.fixture
def damaged(tmp_path: Path) -> Damaged:
    return Damaged(tmp_path / "damaged.mapfs")


DAMAGES: dict[str, Callable[[Damaged], Change]] = {
    "extent cut": lambda d: d.extent(b"x"),
    "extent outside": lambda d: d.extent(pack_extent(Extent(1 << 40, 5))),
    "extent outside, of a sparse file": lambda d: d.inode(size=1 << 30),
    "inode cut": lambda d: (Table.INODES, id_key(d.number), b"x"),
    "inode gone": lambda d: (Table.INODES, id_key(d.number), None),
    "inode's counts": lambda d: d.inode(pages=1 << 40),
    "inode's size": lambda d: d.inode(size=1 << 63),
    "file as socket": lambda d: d.inode(mode=stat.S_IFSOCK | 0o644),
    "file as directory": lambda d: d.inode(mode=stat.S_IFDIR | 0o644),
}


def exported(target: Path) -> dict[str, bytes]:
    """The contents of the files in a directory or an archive."""
    if target.is_dir():
        return {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}
    if target.suffix == ".zip":
        with zipfile.ZipFile(target) as archive:
            return {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    with tarfile.open(target) as tar:
        members = [member for member in tar if member.isfile()]
        return {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]


@pytest.mark.parametrize("target", ["out", "out.tar", "out.zip"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named_and_all_others_are_exported(
    damaged: Damaged, tmp_path: Path, name: str, target: str
) -> None:
    damaged.change(DAMAGES[name])
    if name == "extent outside, of a sparse file":
        damaged.change(DAMAGES["extent outside"])
    outcome = damaged.vault.give(tmp_path / target)
    assert [failure.path for failure in outcome.failures] == ["b"]
    found = exported(tmp_path / target)
    assert {each: found[each] for each in SOUND} == {each: text_of(each) for each in SOUND}


def test_a_listing_that_does_not_decode_hides_nothing_else(
    damaged: Damaged, tmp_path: Path
) -> None:
    damaged.change(lambda d: (Table.COOKIES, pair_key(ROOT, d.cookie), b"x"))
    outcome = damaged.vault.give(tmp_path / "out")
    assert [failure.path for failure in outcome.failures] == ["."]
    assert exported(tmp_path / "out") == {each: text_of(each) for each in SOUND}


@pytest.mark.parametrize("name", [b"../evil", b"..", b"/evil", b"e\0vil", b"z/evil", b"x" * 300])
def test_a_name_that_cannot_be_one_is_never_written(
    damaged: Damaged, tmp_path: Path, name: bytes
) -> None:
    damaged.change(lambda d: d.listing(d.number, stat.S_IFREG, name))
    outcome = damaged.vault.give(tmp_path / "deep" / "out")
    assert len(outcome.failures) == 1
    assert exported(tmp_path / "deep" / "out") == {each: text_of(each) for each in SOUND}
    assert os.listdir(tmp_path / "deep") == ["out"]
    assert os.listdir(tmp_path / "deep" / "out" / "z") == []


def test_a_directory_that_is_inside_itself_ends_no_export(damaged: Damaged, tmp_path: Path) -> None:
    with damaged.vault.opened() as filesystem:
        z = filesystem.resolve(b"z").number
        filesystem.link(filesystem.resolve(b"a").number, z, b"loop")
        cookie = filesystem._directories.require(filesystem.inode(z), b"loop").cookie
    for number in (z, ROOT):
        listed = Listed(cookie, number, stat.S_IFDIR, b"loop").pack()
        damaged.put(Table.COOKIES, pair_key(z, cookie), listed)
        for top, path in ((b"", "z/loop"), (b"z", "loop")):
            out = tmp_path / f"{number}{top.decode()}"
            outcome = damaged.vault.give(out, top)
            assert [failure.path for failure in outcome.failures] == [path]


def test_a_damaged_file_of_a_mount_is_named_and_all_others_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abcde":
        (source / name).write_bytes(text_of(name))
    real = os.preadv

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/b"):
            raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    vault = Vault(new_bundle(tmp_path / "vault.mapfs"))
    outcome = vault.take(f"{source}/")
    assert [failure.path for failure in outcome.failures] == ["b"]
    assert outcome.copied == len(SOUND)


def test_a_damaged_target_ends_the_copy(
    damaged: Damaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "new").write_bytes(b"new")

    def fail(*_: object, **__: object) -> None:
        raise DamagedStoreError("a record")

    monkeypatch.setattr(Filesystem, "create_unnamed", fail)
    with pytest.raises(DamagedStoreError):
        damaged.vault.take(f"{source}/")
