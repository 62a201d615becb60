"""Inodes without a name: as long as they are used they work, and then their space comes back."""

import shutil
from pathlib import Path

import pytest

from mapfs.errors import NotFoundError
from mapfs.filesystem.check import Check
from mapfs.filesystem.filesystem import Filesystem
from mapfs.filesystem.survey import settle
from mapfs.store.opening import open_store
from tests.unit.support import (
    ME,
    ROOT,
    assert_sound,
    content,
    make,
    names,
    open_fs,
    value,
    values,
)


@pytest.fixture
def orphan(fs: Filesystem) -> int:
    """A file of 5,000 bytes that was unlinked."""
    number = make(fs, b"f", b"x" * 5000)
    fs.unlink(ROOT, b"f")
    return number


def test_an_orphan_works(fs: Filesystem, orphan: int) -> None:
    assert fs.is_orphan(orphan)
    assert fs.inode(orphan).nlink == 0
    fs.write(orphan, 5000, b"more")
    fs.setxattr(orphan, b"user.a", b"1")
    fs.commit()
    assert content(fs, orphan) == b"x" * 5000 + b"more"


def test_an_orphan_counts_for_the_filesystem_and_no_directory(fs: Filesystem, orphan: int) -> None:
    assert value(fs, ROOT, b"dir.rfiles") == 0
    assert value(fs, ROOT, b"dir.rbytes") == 0
    assert value(fs, ROOT, b"fs.slack_bytes") == 3192
    assert fs.statfs().inodes == 2
    fs.write(orphan, 0, b"y" * 8192)
    assert value(fs, ROOT, b"fs.slack_bytes") == 0
    assert value(fs, ROOT, b"dir.rslack") == 0


def test_forgetting_frees_it(fs: Filesystem, orphan: int) -> None:
    fs.setxattr(orphan, b"user.a", b"1")
    fs.forget(orphan)
    with pytest.raises(NotFoundError):
        fs.inode(orphan)
    assert not fs.is_orphan(orphan)
    assert value(fs, ROOT, b"fs.allocated_bytes") == 0
    assert value(fs, ROOT, b"fs.slack_bytes") == 0
    assert fs.statfs().inodes == 1
    fs.forget(orphan)


def test_forgetting_anything_else_does_nothing(fs: Filesystem) -> None:
    number = make(fs, b"f", b"data")
    fs.link(number, ROOT, b"g")
    fs.unlink(ROOT, b"f")
    assert not fs.is_orphan(number)
    for each in (number, ROOT, 999):
        fs.forget(each)
    assert content(fs, number) == b"data"


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_orphans_of_every_kind(fs: Filesystem, kind: str) -> None:
    if kind == "directory":
        number = fs.mkdir(ROOT, b"x", 0o755, ME).number
        fs.rmdir(ROOT, b"x")
    elif kind == "symlink":
        number = fs.symlink(ROOT, b"x", b"t", ME).number
        fs.unlink(ROOT, b"x")
    else:
        number = fs.create(ROOT, b"x", 0o010644, ME).number
        fs.unlink(ROOT, b"x")
    fs.commit()
    assert fs.is_orphan(number)
    fs.forget(number)
    assert fs.statfs().inodes == 1


def test_a_tree_is_deleted_from_below(fs: Filesystem) -> None:
    one = fs.mkdir(ROOT, b"one", 0o755, ME).number
    other = fs.mkdir(one, b"other", 0o755, ME).number
    number = make(fs, b"f", b"x", parent=other)
    fs.unlink(other, b"f")
    fs.rmdir(one, b"other")
    fs.rmdir(ROOT, b"one")
    for each in (one, other, number):
        fs.forget(each)
    assert set(values(fs, ROOT, b"dir").values()) == {0}


def test_an_unnamed_file(fs: Filesystem) -> None:
    number = fs.create_unnamed(ROOT, 0o600, ME).number
    fs.write(number, 0, b"data")
    assert names(fs) == []
    assert fs.is_orphan(number)
    fs.commit()
    assert_sound(fs)
    fs.link(number, ROOT, b"f")
    assert fs.inode(number).nlink == 1
    assert not fs.is_orphan(number)
    assert value(fs, ROOT, b"dir.rbytes") == 4
    fs.forget(number)
    assert content(fs, fs.lookup(ROOT, b"f").number) == b"data"


def test_an_unnamed_file_inherits(fs: Filesystem) -> None:
    directory = fs.mkdir(ROOT, b"d", 0o755, ME)
    directory.mode |= 0o2000
    directory.gid = 77
    assert fs.create_unnamed(directory.number, 0o600, ME).gid == 77


def test_closing_frees_orphans(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"f", b"x" * 5000)
    fs.commit()
    fs.unlink(ROOT, b"f")
    fs.close()
    fs = open_fs(bundle)
    with pytest.raises(NotFoundError):
        fs.inode(number)
    assert fs.statfs().free_pages == 1024
    fs.close()


@pytest.mark.parametrize("log", [True, False])
def test_opening_frees_orphans_of_a_daemon_that_died(bundle: Path, *, log: bool) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"f", b"x" * 5000)
    kept = make(fs, b"g", b"kept")
    fs.unlink(ROOT, b"f")
    fs.commit()
    fs.store.close()
    if not log:
        (bundle / "log").unlink()
    fs = open_fs(bundle)
    with pytest.raises(NotFoundError):
        fs.inode(number)
    assert content(fs, kept) == b"kept"
    assert fs.statfs().inodes == 2
    assert_sound(fs)
    fs.commit()
    assert value(fs, ROOT, b"fs.allocated_bytes") == 4096
    fs.close()


def test_a_read_only_open_leaves_orphans_alone(bundle: Path, tmp_path: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"f", b"x" * 5000)
    fs.unlink(ROOT, b"f")
    fs.commit()
    shutil.copytree(bundle, tmp_path / "copy.mapfs")
    fs.close()
    fs = Filesystem(open_store(tmp_path / "copy.mapfs", read_only=True))
    assert content(fs, number) == b"x" * 5000
    fs.close()


def test_a_file_that_never_had_a_name_is_no_error_after_a_crash(
    bundle: Path, tmp_path: Path
) -> None:
    fs = open_fs(bundle)
    make(fs, b"f", b"x" * 5000)
    unnamed = fs.create_unnamed(ROOT, 0o600, ME).number
    fs.write(unnamed, 0, b"x" * 5000)
    shutil.copytree(bundle, tmp_path / "copy.mapfs")
    fs.close()
    store = open_store(tmp_path / "copy.mapfs", read_only=True)
    settle(store)
    assert list(Check(store).findings()) == []
    store.close()
    fs = open_fs(tmp_path / "copy.mapfs")
    assert_sound(fs)
    assert names(fs) == [b"f"]
    fs.close()
