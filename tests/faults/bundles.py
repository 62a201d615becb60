"""Bundles to damage: a small good one with something of everything, copied for each test."""

import contextlib
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from mapfs.filesystem.caller import Caller
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import Table
from mapfs.store.catalog import Catalog
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import open_store

PAGE = 4096
ROOT = 1
ME = Caller(1000, 1000)
LIMIT = 16 << 20


def make_bundle(path: Path, *, logged: bool = False) -> Path:
    """A store with files, holes, links, attributes and directories.

    With `logged` it is left as by a daemon that was killed: the log is to be replayed.
    """
    create_store(path, StoreOptions(LIMIT, PAGE))
    with contextlib.closing(Filesystem(open_store(path))) as fs:
        populate(fs, ROOT)
    if logged:
        child = os.fork()
        if not child:
            try:
                fs = Filesystem(open_store(path))
                populate(fs, fs.mkdir(ROOT, b"logged", 0o755, ME).number)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    return path


def populate(fs: Filesystem, top: int) -> None:
    """Put something of everything into a directory."""
    small = fs.create(top, b"small", 0o644, ME).number
    fs.write(small, 0, b"small and whole")
    large = fs.create(top, b"large", 0o644, ME).number
    fs.write(large, 0, b"L" * (5 * PAGE))
    fs.write(large, 40 * PAGE, b"behind a hole")
    fs.setxattr(large, b"user.large", b"x" * 20_000)
    fs.link(large, top, b"second name")
    fs.symlink(top, b"symlink", b"small", ME)
    fs.create(top, b"fifo", 0o010644, ME)
    below = top
    for depth in range(4):
        below = fs.mkdir(below, b"below %d" % depth, 0o755, ME).number
        for number in range(20):
            made = fs.create(below, b"file %d" % number, 0o600, ME).number
            fs.write(made, 0, bytes([number]) * number * 97)
    fs.unlink(top, b"small")
    fs.forget(small)
    fs.write(fs.create(top, b"small", 0o644, ME).number, 0, b"small and whole")


def copy(bundle: Path, to: Path) -> Path:
    """A copy of a bundle, sparse files and symbolic links as they are."""
    shutil.copytree(bundle, to, symlinks=True)
    return to


def change(bundle: Path, table: Table, changes: Mapping[bytes, bytes | None]) -> None:
    """Put records into a catalog."""
    with Catalog(bundle / "catalog") as catalog:
        catalog.apply([changes if each is table else {} for each in Table])


def record(bundle: Path, table: Table, key: bytes) -> bytes:
    with Catalog(bundle / "catalog") as catalog:
        value = catalog.get(table, key)
        assert value is not None
        return value


def records(bundle: Path, table: Table) -> dict[bytes, bytes]:
    with Catalog(bundle / "catalog") as catalog:
        return dict(catalog.scan(table, b"\0", b"\xff" * 300))


def patch(file: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def heads(catalog: Path) -> list[tuple[int, int]]:
    """Of each of LMDB's two heads where it begins in the file, and its transaction."""
    data = catalog.read_bytes()
    found = []
    for page in (0, PAGE):
        (transaction,) = struct.unpack_from("<Q", data, page + 16 + 24 + 96 + 8)
        found.append((page + 16, transaction))
    return found


Damage = Callable[[Path], None]
