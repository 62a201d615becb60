"""What the tests below FUSE share."""

import json
from collections.abc import Callable
from pathlib import Path

from mapfs.errors import MapfsError
from mapfs.filesystem.caller import Caller
from mapfs.filesystem.check import Check
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.superblock import HEADER_BYTES
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import ephemeral_store, open_store
from mapfs.store.store import Store

PAGE = 4096
HEADER_PAGES = HEADER_BYTES // PAGE
ROOT = 1
ME = Caller(1000, 1000)


def memory_store(pages: int = 1024, page_size: int = PAGE) -> Store:
    """A store in anonymous memory with `pages` data pages."""
    header = -(-HEADER_BYTES // page_size)
    return ephemeral_store((header + pages) * page_size, page_size)


def new_bundle(path: Path, pages: int = 1024) -> Path:
    """An empty store at `path`."""
    create_store(path, StoreOptions((HEADER_PAGES + pages) * PAGE, PAGE))
    return path


def open_fs(path: Path, *, read_only: bool = False) -> Filesystem:
    return Filesystem(open_store(path, read_only=read_only))


def make(fs: Filesystem, name: bytes, data: bytes = b"", parent: int = ROOT) -> int:
    """The number of a new file that holds `data`."""
    number = fs.create(parent, name, 0o644, ME).number
    if data:
        fs.write(number, 0, data)
    return number


def content(fs: Filesystem, number: int, offset: int = 0, size: int = 1 << 30) -> bytes:
    return b"".join(fs.read(number, offset, size))


def names(fs: Filesystem, number: int = ROOT) -> list[bytes]:
    """The names in a directory but for `.` and `..`, in listing order."""
    return [entry.name for entry in fs.readdir(number)][2:]


def values(fs: Filesystem, number: int, group: bytes = b"file") -> dict[str, int]:
    """A group of virtual attributes."""
    found: dict[str, int] = json.loads(fs.getxattr(number, b"user.mapfs." + group + b".json"))
    return found


def value(fs: Filesystem, number: int, key: bytes) -> int:
    return int(fs.getxattr(number, b"user.mapfs." + key))


def findings(fs: Filesystem) -> list[str]:
    """The invariants that the check of the store finds broken."""
    fs.flush()
    fs.store.allocator.settle()
    return [finding.invariant for finding in Check(fs.store).findings()]


def assert_sound(fs: Filesystem) -> None:
    """Nothing to find, and stored + slack + free + metadata make up the store."""
    fs.flush()
    fs.store.allocator.settle()
    found = list(Check(fs.store).findings())
    assert not found, found
    said = values(fs, ROOT, b"fs")
    parts = (said[f"{part}_bytes"] for part in ("stored", "slack", "free", "metadata"))
    assert said["store_bytes"] == sum(parts), said


def code_of(call: Callable[[], object]) -> int:
    """The errno that a call fails with, or 0."""
    try:
        call()
    except MapfsError as error:
        return error.errno
    except OSError as error:
        return error.errno or 0
    return 0
