"""A bundle as a daemon that is killed at this moment leaves it, and looking into what is left."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mapfs.format.frames import FAILED_OFFSET, HALF_HEADER_BYTES, pack_half, unpack_half
from mapfs.store import log
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import open_store
from mapfs.store.store import Store
from tests.crash.history import Tree, content_of, foreign_byte, tree_of
from tests.crash.workload import CommittingFilesystem, Frozen, History, Workload
from tests.unit.support import HEADER_PAGES, PAGE, assert_sound

_ANOTHER_BOOT = b"another boot's id"[:16]


def small_bundle(path: Path, pages: int = 160) -> Path:
    create_store(path, StoreOptions((HEADER_PAGES + pages) * PAGE, PAGE))
    return path


def copy_of(bundle: Path, target: Path) -> Path:
    """What the page cache holds of the bundle, which outlives the process that has it open."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in ("store", "catalog", "log", "lock"):
        with (bundle / name).open("rb") as source, (target / name).open("wb") as copy:
            _copy_data(source.fileno(), copy.fileno())
    return target


def _copy_data(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    end = 0
    with contextlib.suppress(OSError):  # ENXIO: only a hole is left
        while end < size:
            start = os.lseek(source, end, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
            os.pwrite(target, os.pread(source, end - start, start), start)


@contextmanager
def reopened(bundle: Path) -> Iterator[CommittingFilesystem]:
    """The filesystem as it comes back, sound; it is left as if killed again."""
    fs = CommittingFilesystem(open_store(bundle))
    try:
        yield fs
        assert_sound(fs)
    finally:
        fs.store.close()


def assert_nothing_lost(workload: Workload, left: Path) -> None:
    """All that was ever answered is there."""
    expected = tree_of(workload.fs)
    with reopened(left) as fs:
        assert tree_of(fs) == expected
        for number, path in _files(expected, workload.history):
            assert content_of(fs, number) == workload.history.files[number].last, path


def assert_as_committed(history: History, commit: int, left: Path) -> None:
    """The tree is that of a commit."""
    with reopened(left) as fs:
        assert fs.store.state.commits == commit
        _assert_as(history.commits[commit], history, fs)


def assert_as_acknowledged(history: History, left: Path) -> None:
    """The tree is that last acknowledged."""
    with reopened(left) as fs:
        _assert_as(history.states[history.acknowledged], history, fs)


def _assert_as(frozen: Frozen, history: History, fs: CommittingFilesystem) -> None:
    """The tree is as it was, and files hold nothing but what was theirs since then."""
    assert tree_of(fs) == frozen.tree
    for number, path in _files(frozen.tree, history):
        versions = history.files[number].contents[frozen.versions[number] :]
        assert foreign_byte(content_of(fs, number), versions) is None, path


def _files(tree: Tree, history: History) -> Iterator[tuple[int, bytes]]:
    for path, (number, *_) in tree.items():
        if isinstance(number, int) and number in history.files:
            yield number, path


def pretend_another_boot(bundle: Path, store: Store) -> None:
    """Make the log one that was written before the machine started anew."""
    path = bundle / "log"
    content = bytearray(path.read_bytes())
    for start in (0, log.LOG_BYTES // 2):
        header = bytes(content[start : start + HALF_HEADER_BYTES])
        if not any(header):
            continue
        half = unpack_half(header, store.superblock.uuid)
        assert half is not None
        packed = pack_half(_ANOTHER_BOOT, store.superblock.uuid, half.generation)
        content[start : start + FAILED_OFFSET] = packed[:FAILED_OFFSET]
    path.write_bytes(content)
