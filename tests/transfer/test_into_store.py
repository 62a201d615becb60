"""Replacing what is in a store: until the new one is complete, the old one stays."""

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapfs.errors import NoSpaceError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.store.opening import open_store
from mapfs.transfer.archives import archive_source
from mapfs.transfer.copying import copy
from mapfs.transfer.into_store import StoreTree
from mapfs.transfer.outcome import Outcome
from tests.transfer.conftest import Vault
from tests.unit.support import assert_sound, content, names

OLD = b"old" * 2500


def symlink(info: tarfile.TarInfo) -> bytes:
    info.type, info.linkname = tarfile.SYMTYPE, "new"
    return b""


def fifo(info: tarfile.TarInfo) -> bytes:
    info.type = tarfile.FIFOTYPE
    return b""


def hard_link(info: tarfile.TarInfo) -> bytes:
    info.type, info.linkname = tarfile.LNKTYPE, "other"
    return b""


def file(info: tarfile.TarInfo) -> bytes:
    info.size = 3
    return b"new"


# Each kind of member, and the method of `Filesystem` that makes or names it.
KINDS = [(symlink, "symlink"), (fifo, "create"), (hard_link, "link"), (file, "link")]


def archive_of(path: Path, kind: Callable[[tarfile.TarInfo], bytes], **fields: Any) -> Path:
    """An archive with one member, `a`."""
    info = tarfile.TarInfo("a")
    data = kind(info)
    for name, value in fields.items():
        setattr(info, name, value)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def old(vault: Vault, tmp_path: Path) -> Vault:
    """A store with the files `a` and `other`."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "other"):
        (source / name).write_bytes(OLD)
    assert not vault.take(f"{source}/").failures
    return vault


def assert_kept(vault: Vault) -> None:
    with vault.opened() as filesystem:
        assert content(filesystem, filesystem.resolve(b"a").number) == OLD
        assert names(filesystem) == [b"a", b"other"]
        assert filesystem.resolve(b"other").nlink == 1
        assert filesystem.store.state.inodes == 3
        assert_sound(filesystem)


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_a_file_is_replaced_by_any_kind_and_keeps_its_place(
    old: Vault, tmp_path: Path, kind: Callable[[tarfile.TarInfo], bytes], method: str
) -> None:
    del method
    assert not old.take(archive_of(tmp_path / "new.tar", kind)).failures
    with old.opened() as filesystem:
        assert names(filesystem) == [b"a", b"other"]
        replaced = filesystem.resolve(b"a")
        assert (replaced.is_file, replaced.size) != (True, len(OLD)) or replaced.nlink == 2
        assert filesystem.store.state.inodes == (2 if kind is hard_link else 3)


def test_a_member_that_cannot_be_made_leaves_the_file_in_its_place(
    old: Vault, tmp_path: Path
) -> None:
    outcome = old.take(archive_of(tmp_path / "new.tar", symlink, linkname="x" * 5000))
    assert [failure.path for failure in outcome.failures] == ["a"]
    assert "too long" in outcome.failures[0].reason
    assert_kept(old)


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_a_full_store_keeps_the_file_that_was_to_be_replaced(
    old: Vault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[tarfile.TarInfo], bytes],
    method: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NoSpaceError("the store is at its limit")

    archive = archive_of(tmp_path / "new.tar", kind)
    with monkeypatch.context() as patch:
        patch.setattr(Filesystem, method, refuse)
        with pytest.raises(NoSpaceError):
            old.take(archive)
    assert_kept(old)


@pytest.mark.parametrize("name", ["a", "fresh"])
def test_a_node_without_room_for_its_attributes_is_not_left_as_if_it_were_complete(
    old: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    attributes = {"SCHILY.acl.access": "user::rwx,user:1:r--,group::r--,mask::r--,other::---"}
    archive = archive_of(tmp_path / "new.tar", fifo, name=name, pax_headers=attributes)

    def refuse(*_: object, **__: object) -> None:
        raise NoSpaceError("the store is at its limit")

    with monkeypatch.context() as patch:
        patch.setattr(Filesystem, "setxattr", refuse)
        with pytest.raises(NoSpaceError):
            old.take(archive)
    assert_kept(old)


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_a_crash_leaves_the_old_one_or_the_new_one_and_no_temporary_name(
    old: Vault, tmp_path: Path, kind: Callable[[tarfile.TarInfo], bytes], method: str
) -> None:
    del method
    archive = archive_of(tmp_path / "new.tar", kind)
    for is_logged in (False, True):
        crashed = Vault(tmp_path / f"crashed-{is_logged}.mapfs")
        shutil.copytree(old.path, crashed.path)
        filesystem, outcome = Filesystem(open_store(crashed.path)), Outcome()
        target = StoreTree(filesystem)
        with archive_source(str(archive), outcome) as source:
            assert source is not None
            if is_logged:
                copy(source, target, outcome)
            else:
                assert target.put(next(source.entries()))
        filesystem.store.close()  # without a commit
        with crashed.opened() as filesystem:
            assert names(filesystem) == [b"a", b"other"]
            assert_sound(filesystem)
        if not is_logged:
            assert_kept(crashed)


def test_a_temporary_name_that_is_taken_is_left_alone(old: Vault, tmp_path: Path) -> None:
    source = tmp_path / "more"
    source.mkdir()
    temporary = f".mapfs-partial-{os.getpid()}"
    (source / temporary).write_text("mine")
    old.take(f"{source}/")
    assert not old.take(archive_of(tmp_path / "new.tar", file)).failures
    with old.opened() as filesystem:
        assert names(filesystem) == [b"a", b"other", temporary.encode()]
        assert content(filesystem, filesystem.resolve(b"a").number) == b"new"
        assert content(filesystem, filesystem.resolve(temporary.encode()).number) == b"mine"
