"""A read-only filesystem refuses every change with EROFS, and nothing of it is to be seen."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mapfs.errors import ReadOnlyError
from mapfs.filesystem.check import Check
from mapfs.filesystem.filesystem import Changes, Filesystem
from tests.unit.support import ME, ROOT, content, make, names, open_fs, value, values

D, F = 16, 18  # the numbers of the directory and the file below


@pytest.fixture
def fs(bundle: Path) -> Iterator[Filesystem]:
    """Read-only: a directory d, and a file f with a second name g, an attribute and 5,000 bytes."""
    writable = open_fs(bundle)
    assert writable.mkdir(ROOT, b"d", 0o755, ME).number == D
    assert make(writable, b"f", b"x" * 5000) == F
    writable.link(F, ROOT, b"g")
    writable.mkdir(D, b"e", 0o755, ME)
    writable.setxattr(F, b"user.a", b"1")
    writable.close()
    fs = open_fs(bundle, read_only=True)
    yield fs
    fs.close()


CHANGES: dict[str, Callable[[Filesystem], object]] = {
    "create": lambda fs: fs.create(ROOT, b"x", 0o644, ME),
    "mknod": lambda fs: fs.create(ROOT, b"x", stat.S_IFIFO, ME),
    "create unnamed": lambda fs: fs.create_unnamed(ROOT, 0o644, ME),
    "mkdir": lambda fs: fs.mkdir(ROOT, b"x", 0o755, ME),
    "symlink": lambda fs: fs.symlink(ROOT, b"x", b"t", ME),
    "link": lambda fs: fs.link(F, ROOT, b"x"),
    "unlink": lambda fs: fs.unlink(ROOT, b"f"),
    "unlink further": lambda fs: fs.unlink(ROOT, b"g"),
    "rmdir": lambda fs: fs.rmdir(D, b"e"),
    "rename": lambda fs: fs.rename(ROOT, b"f", ROOT, b"x"),
    "rename replacing": lambda fs: fs.rename(D, b"e", D, b"x"),
    "rename directory": lambda fs: fs.rename(D, b"e", ROOT, b"x"),
    "exchange": lambda fs: fs.rename(ROOT, b"f", ROOT, b"d", 2),
    "exchange directories": lambda fs: fs.rename(D, b"e", ROOT, b"f", 2),
    "write": lambda fs: fs.write(F, 0, b"y"),
    "write behind": lambda fs: fs.write(F, 100_000, b"y"),
    "truncate": lambda fs: fs.setattr(F, Changes(size=0)),
    "chmod": lambda fs: fs.setattr(F, Changes(mode=0)),
    "chown": lambda fs: fs.setattr(D, Changes(uid=0)),
    "utimens": lambda fs: fs.setattr(F, Changes(mtime=0)),
    "fallocate": lambda fs: fs.fallocate(F, 0, 0, 1 << 16),
    "punch": lambda fs: fs.fallocate(F, 3, 0, 4096),
    "zero": lambda fs: fs.fallocate(F, 0x10, 0, 4096),
    "copy": lambda fs: fs.copy_range(F, 0, F, 5000, 10),
    "setxattr": lambda fs: fs.setxattr(F, b"user.b", b"1"),
    "setxattr again": lambda fs: fs.setxattr(F, b"user.a", b"2"),
    "removexattr": lambda fs: fs.removexattr(F, b"user.a"),
}


def everything(fs: Filesystem) -> object:
    """All there is to see."""
    listed = [fs.inode(number).pack() for number in (ROOT, D, F)]
    entries = [list(fs.readdir(ROOT)), list(fs.readdir(D))]
    attributes = [fs.listxattr(F), fs.getxattr(F, b"user.a")]
    return listed, entries, attributes, content(fs, F), values(fs, ROOT, b"fs")


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_refused(fs: Filesystem, change: Callable[[Filesystem], object]) -> None:
    before = everything(fs)
    with pytest.raises(ReadOnlyError):
        change(fs)
    assert everything(fs) == before
    assert list(Check(fs.store).findings()) == []


def test_reading_works(fs: Filesystem) -> None:
    assert names(fs) == [b"d", b"f", b"g"]
    assert content(fs, F) == b"x" * 5000
    assert value(fs, ROOT, b"dir.rslack") == 3192
    assert fs.getxattr(F, b"user.a") == b"1"
    assert fs.statfs().inodes == 4
    assert fs.seek(F, 0, 4) == 5000
    assert fs.read_only
    assert not fs.is_dirty


def test_access_times_stay(fs: Filesystem) -> None:
    before = fs.inode(F).atime, fs.inode(ROOT).atime
    content(fs, F)
    names(fs)
    assert (fs.inode(F).atime, fs.inode(ROOT).atime) == before


def test_orphans_stay(fs: Filesystem) -> None:
    fs.forget(F)
    assert content(fs, F, 0, 1) == b"x"
