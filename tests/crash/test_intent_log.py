"""The daemon dies below FUSE: what the intent log brings back, and what it must not."""

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapfs.format.frames import FRAME_HEADER_BYTES, HALF_HEADER_BYTES, pack_frame, unpack_half
from mapfs.store import log
from mapfs.store.opening import open_store
from tests.crash.history import Tree, tree_of
from tests.crash.killing import (
    assert_as_acknowledged,
    assert_nothing_lost,
    copy_of,
    pretend_another_boot,
    reopened,
    small_bundle,
)
from tests.crash.workload import CommittingFilesystem, Operation, Workload, operations
from tests.unit.support import ME, ROOT, make

# So small that a few operations fill it.
_HALF_BYTES = 16 << 10

_numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def small_log() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "HALF_BYTES", _HALF_BYTES)
        patch.setattr(log, "LOG_BYTES", 2 * _HALF_BYTES)
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("intent-log")


@pytest.fixture
def workload(tmp_path: Path) -> Iterator[Workload]:
    """Some files in a store, committed, and the store's log."""
    path = small_bundle(tmp_path / "t.mapfs")
    running = started(path)
    for place in range(4):
        running.change(Operation("create", place))
        running.change(Operation("write", place, 0, 0, 9000))
    running.fs.commit()
    yield running
    running.fs.store.close()


def started(path: Path) -> Workload:
    return Workload(CommittingFilesystem(open_store(path)))


def bundle_of(workload: Workload, tmp_path: Path) -> Path:
    return copy_of(tmp_path / "t.mapfs", tmp_path / "left.mapfs")


@settings(max_examples=20)
@given(steps=operations(), pages=st.sampled_from((160, 12_000)), seed=st.integers(0, 1 << 32))
def test_a_killed_daemon_loses_nothing_at_any_moment(
    directory: Path, steps: list[Operation], pages: int, seed: int
) -> None:
    """In a large store many files have pages set aside, in a small one pages run short."""
    random = Random(seed)
    path = small_bundle(directory / f"{next(_numbers)}.mapfs", pages)
    left = directory / "left.mapfs"
    workload = started(path)

    def die(*, likely: float = 0.15) -> None:
        if not workload.fs.must_commit and random.random() < likely:
            assert_nothing_lost(workload, copy_of(path, left))

    _around(workload.fs.store.backing, "sync", lambda: die(likely=0.3))
    _around(workload.fs.store.catalog, "apply", lambda: die(likely=0.3))
    for _ in workload.run(steps):
        if workload.fs.must_commit:
            workload.commit()
            assert not workload.fs.must_commit
        die()
    die(likely=1)
    copy_of(path, left)
    pretend_another_boot(left, workload.fs.store)
    assert_as_acknowledged(workload.history, left)
    workload.fs.store.close()


def _around(owner: Any, name: str, call: Any) -> None:
    inner = getattr(owner, name)

    def wrapped(*arguments: Any) -> None:
        call()
        inner(*arguments)
        call()

    setattr(owner, name, wrapped)


def test_after_another_boot_the_last_commit_is_what_there_is(
    workload: Workload, tmp_path: Path
) -> None:
    workload.change(Operation("unlink", 1))
    workload.change(Operation("create", 5))
    left = bundle_of(workload, tmp_path)
    assert_nothing_lost(workload, left)
    left = bundle_of(workload, tmp_path)
    pretend_another_boot(left, workload.fs.store)
    assert_as_acknowledged(workload.history, left)


def test_without_its_log_a_store_is_as_of_the_last_commit(
    workload: Workload, tmp_path: Path
) -> None:
    workload.change(Operation("unlink", 1))
    left = bundle_of(workload, tmp_path)
    (left / "log").unlink()
    assert_as_acknowledged(workload.history, left)


def test_what_an_operation_did_before_it_failed_is_not_lost(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = workload.fs
    number = make(fs, b"growing")
    write = fs._content.write

    def write_and_fail(*arguments: Any, **options: Any) -> int:
        write(*arguments, **options)
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(fs._content, "write", write_and_fail)
    with pytest.raises(OSError, match="the disk"):
        fs.write(number, 0, bytes(9000))
    assert fs.inode(number).size == 9000
    assert_nothing_lost(workload, bundle_of(workload, tmp_path))


def test_a_store_killed_again_and_again_while_it_comes_back_loses_nothing(
    workload: Workload, tmp_path: Path
) -> None:
    for operation in (Operation("unlink", 1), Operation("create", 5), Operation("write", 2, 0, 7)):
        workload.change(operation)
    left = bundle_of(workload, tmp_path)
    for attempt in range(3):
        again = copy_of(left, tmp_path / f"again-{attempt}.mapfs")
        assert_nothing_lost(workload, again)
        left = again


def test_killed_while_the_replayed_operations_are_committed(
    workload: Workload, tmp_path: Path
) -> None:
    for operation in (Operation("unlink", 1), Operation("create", 5), Operation("append", 2, 0, 7)):
        workload.change(operation)
    left = bundle_of(workload, tmp_path)
    for name in ("sync", "apply"):
        store = open_store(copy_of(left, tmp_path / f"{name}.mapfs"))
        owner = store.backing if name == "sync" else store.catalog
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, _fail)
            with pytest.raises(OSError, match="dies here"):
                CommittingFilesystem(store)
        after = copy_of(tmp_path / f"{name}.mapfs", tmp_path / "after.mapfs")
        store.close()
        assert_nothing_lost(workload, after)


def _fail(*_: object) -> None:
    raise OSError("dies here")


def test_an_operation_whose_record_is_torn_is_wholly_undone(
    workload: Workload, tmp_path: Path
) -> None:
    trees = _three_operations(workload)
    offset, length = _last_frame(bundle_of(workload, tmp_path), workload)
    random = Random(1)
    for place in (0, FRAME_HEADER_BYTES, length - 1, *random.sample(range(length), 12)):
        left = bundle_of(workload, tmp_path)
        content = bytearray((left / "log").read_bytes())
        content[offset + place] ^= 1 << random.randrange(8)
        (left / "log").write_bytes(content)
        with reopened(left) as fs:
            assert tree_of(fs) == trees[-2], f"byte {place} of {length}"


def test_an_operation_whose_record_was_not_finished_is_wholly_undone(
    workload: Workload, tmp_path: Path
) -> None:
    trees = _three_operations(workload)
    offset, length = _last_frame(bundle_of(workload, tmp_path), workload)
    for written in (0, 1, FRAME_HEADER_BYTES, length // 2, length - 1):
        left = bundle_of(workload, tmp_path)
        content = bytearray((left / "log").read_bytes())
        content[offset + written : offset + length] = b"\xa5" * (length - written)
        (left / "log").write_bytes(content)
        with reopened(left) as fs:
            assert tree_of(fs) == trees[-2]


def test_what_lies_behind_the_last_record_from_earlier_use_is_not_replayed(
    workload: Workload, tmp_path: Path
) -> None:
    for _ in range(3):  # each half was used and begun again
        for place in range(12):
            workload.change(Operation("chmod", place, 0, 0, place))
        workload.fs.commit()
    workload.change(Operation("unlink", 1))
    assert_nothing_lost(workload, bundle_of(workload, tmp_path))


def _three_operations(workload: Workload) -> list[Tree]:
    trees = []
    for operation in (Operation("create", 5), Operation("rename", 1, 6), Operation("link", 2, 7)):
        workload.change(operation)
        trees.append(tree_of(workload.fs))
    return trees


def _last_frame(bundle: Path, workload: Workload) -> tuple[int, int]:
    """Where the last frame of the running generation is in the log, and how long."""
    written = workload.fs.store.log
    assert written is not None
    content = (bundle / "log").read_bytes()
    start = written._generation % 2 * _HALF_BYTES
    header = content[start : start + HALF_HEADER_BYTES]
    assert unpack_half(header, workload.fs.store.superblock.uuid)
    offset = start + HALF_HEADER_BYTES
    while True:
        length = FRAME_HEADER_BYTES + int.from_bytes(content[offset : offset + 4], "little")
        if offset + length == written._offset:
            return offset, length
        assert offset + length < written._offset
        offset += length


def test_a_full_log_asks_for_a_commit_and_fails_nothing(tmp_path: Path) -> None:
    fs = CommittingFilesystem(open_store(small_bundle(tmp_path / "t.mapfs")))
    forced = 0
    number = make(fs, b"f", b"x" * 5000)
    for turn in range(400):
        fs.setxattr(number, b"user.%d" % (turn % 20), b"v" * 300)
        if fs.must_commit:
            fs.commit()
            forced += 1
    assert forced > 2
    expected = tree_of(fs)
    with reopened(copy_of(tmp_path / "t.mapfs", tmp_path / "left.mapfs")) as back:
        assert tree_of(back) == expected
    fs.store.close()


def test_an_operation_larger_than_the_log_is_committed_instead(tmp_path: Path) -> None:
    fs = CommittingFilesystem(open_store(small_bundle(tmp_path / "t.mapfs")))
    fs.create(ROOT, b"f", 0o644, ME)
    fs.setxattr(ROOT, b"user.large", b"v" * (_HALF_BYTES + 1))
    assert fs.must_commit
    fs.commit()
    fs.setxattr(ROOT, b"user.small", b"v")
    expected = tree_of(fs)
    with reopened(copy_of(tmp_path / "t.mapfs", tmp_path / "left.mapfs")) as back:
        assert tree_of(back) == expected
    fs.store.close()


def test_a_record_names_the_request_behind_it() -> None:
    frame = pack_frame([(1, b"key", b"value")], 7, request=99)
    assert int.from_bytes(frame[16:24], "little") == 99
