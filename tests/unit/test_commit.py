"""Commits: what is durable when, and what a daemon that dies or a power cut leaves."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import lmdb
import pytest

from mapfs.errors import MapfsError, NotFoundError, ReadOnlyError
from mapfs.filesystem import durability
from mapfs.filesystem.filesystem import Changes, Filesystem
from mapfs.store import catalog as catalog_module
from mapfs.store import synced_file
from mapfs.store.machine_pages import MachinePages
from mapfs.store.mapped_file import MappedFile
from mapfs.store.opening import open_store
from mapfs.store.store import read_lost
from tests.unit.support import (
    ME,
    PAGE,
    ROOT,
    assert_sound,
    content,
    make,
    names,
    new_bundle,
    open_fs,
    value,
)

Left = Callable[[], Filesystem]


@pytest.fixture
def fs(bundle: Path) -> Filesystem:
    """A filesystem on a bundle; close it, or let it die, yourself."""
    return open_fs(bundle)


@pytest.fixture
def power_cut(bundle: Path, tmp_path: Path) -> Left:
    """Opens what a power cut would leave now: everything but the log."""

    def cut() -> Filesystem:
        left = tmp_path / f"left{len(list(tmp_path.iterdir()))}.mapfs"
        left.mkdir()
        for name in ("store", "catalog", "lock"):
            shutil.copy(bundle / name, left / name)
        opened = open_fs(left)
        assert_sound(opened)
        return opened

    return cut


def answer(fs: Filesystem) -> None:
    """What a transport does before it answers."""
    while fs.must_commit:
        fs.commit()


def settle(fs: Filesystem) -> None:
    """Commit until there is nothing more to write."""
    while fs.is_dirty:
        fs.commit()


def die(fs: Filesystem, bundle: Path) -> Filesystem:
    """Let the filesystem go without a word and open the store again."""
    fs.store.close()
    opened = open_fs(bundle)
    assert_sound(opened)
    return opened


def test_only_what_is_committed_survives_a_power_cut(fs: Filesystem, power_cut: Left) -> None:
    make(fs, b"kept", b"data")
    fs.commit()
    make(fs, b"lost", b"data")
    left = power_cut()
    assert names(left) == [b"kept"]
    assert content(left, left.lookup(ROOT, b"kept").number) == b"data"
    left.close()
    fs.close()


def test_everything_survives_a_daemon_that_dies(fs: Filesystem, bundle: Path) -> None:
    make(fs, b"one", b"data" * 2000)
    fs.commit()
    number = make(fs, b"two", b"more" * 2000)
    fs.write(fs.lookup(ROOT, b"one").number, 3, b"!")
    fs.setxattr(number, b"user.a", b"1")
    fs = die(fs, bundle)
    assert names(fs) == [b"one", b"two"]
    assert content(fs, number) == b"more" * 2000
    assert content(fs, fs.lookup(ROOT, b"one").number, 0, 5) == b"dat!d"
    assert fs.getxattr(number, b"user.a") == b"1"
    fs.close()


def test_what_was_written_over_before_a_death_is_synced_when_the_store_is_opened(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = make(fs, b"file", b"old" * 2000)
    settle(fs)
    fs.write(number, 0, b"new", stamp=False)  # over bytes that are there: nothing to log
    syncs: list[MappedFile] = []
    sync = MappedFile.sync

    def noted(backing: MappedFile) -> None:
        syncs.append(backing)
        sync(backing)

    monkeypatch.setattr(MappedFile, "sync", noted)
    fs = die(fs, bundle)
    assert syncs
    fs.close()


def test_a_daemon_may_die_in_a_commit(fs: Filesystem, bundle: Path) -> None:
    make(fs, b"one", b"1")
    fs.begin_commit()
    make(fs, b"two", b"2")
    fs = die(fs, bundle)
    assert names(fs) == [b"one", b"two"]
    commit = fs.begin_commit()
    make(fs, b"three", b"3")
    commit.write()
    make(fs, b"four", b"4")
    fs = die(fs, bundle)
    assert names(fs) == [b"one", b"two", b"three", b"four"]
    fs.close()


def test_a_daemon_may_die_again_and_again(fs: Filesystem, bundle: Path) -> None:
    for number in range(5):
        make(fs, b"%d" % number, b"x" * 5000)
        fs = die(fs, bundle)
    assert len(names(fs)) == 5
    assert value(fs, ROOT, b"dir.rslack") == 5 * 3192
    fs.close()


def test_a_power_cut_after_a_death_is_no_worse(
    fs: Filesystem, bundle: Path, power_cut: Left
) -> None:
    make(fs, b"one", b"1")
    fs = die(fs, bundle)  # opening commits what the log held
    left = power_cut()
    assert names(left) == [b"one"]
    left.close()
    fs.close()


def test_a_log_of_another_boot_is_not_replayed(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(fs, b"kept", b"1")
    fs.commit()
    make(fs, b"lost", b"2")
    fs.store.close()
    monkeypatch.setattr("mapfs.store.log._boot_id", lambda: bytes(16))
    fs = open_fs(bundle)
    assert names(fs) == [b"kept"]
    assert_sound(fs)
    fs = die(fs, bundle)
    assert names(fs) == [b"kept"], "not after a death in this boot either"
    fs.close()


def test_frames_of_another_boot_do_not_go_on_behind_new_ones(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (b"a", b"b", b"c"):
        make(fs, name, b"1")
    fs.store.close()
    monkeypatch.setattr("mapfs.store.log._boot_id", lambda: bytes(16))
    fs = open_fs(bundle)
    make(fs, b"x", b"1")  # frames as long as those that were there
    fs = die(fs, bundle)
    assert names(fs) == [b"x"]
    fs.close()


def test_a_full_log_asks_for_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapfs.store.log.HALF_BYTES", 8192)
    monkeypatch.setattr("mapfs.store.log.LOG_BYTES", 16384)
    bundle = new_bundle(tmp_path / "t.mapfs")
    fs = open_fs(bundle)
    made = 0
    for _ in range(3):
        while not fs.must_commit:
            make(fs, b"%d" % made)
            made += 1
        fs.commit()
        assert not fs.must_commit
    make(fs, b"last")
    fs = die(fs, bundle)
    assert len(names(fs)) == made + 1
    fs.close()


def test_a_log_that_fills_up_during_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapfs.store.log.HALF_BYTES", 8192)
    monkeypatch.setattr("mapfs.store.log.LOG_BYTES", 16384)
    bundle = new_bundle(tmp_path / "t.mapfs")
    fs = open_fs(bundle)
    commit = fs.begin_commit()
    made = 0
    while not fs.must_commit:
        make(fs, b"%d" % made)
        made += 1
    commit.write()
    fs.end_commit(succeeded=True)
    answer(fs)
    make(fs, b"last")
    fs = die(fs, bundle)
    assert len(names(fs)) == made + 1
    fs.close()


def test_much_change_wants_a_commit(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "_MOST_CHANGES", 50)
    wanted = [fs.wants_commit]
    for number in range(20):
        make(fs, b"%d" % number)
    wanted.append(fs.wants_commit)
    fs.commit()
    wanted.append(fs.wants_commit)
    assert wanted == [False, True, False]
    fs.close()


def test_operations_go_on_during_a_commit(fs: Filesystem, power_cut: Left) -> None:
    number = make(fs, b"one", b"1")
    commit = fs.begin_commit()
    dirty = [fs.is_dirty]
    make(fs, b"two", b"2")
    fs.unlink(ROOT, b"one")
    worker = threading.Thread(target=commit.write)
    worker.start()
    assert names(fs) == [b"two"]
    assert fs.inode(number).nlink == 0
    worker.join()
    fs.end_commit(succeeded=True)
    dirty.append(fs.is_dirty)
    assert dirty == [False, True]
    assert names(fs) == [b"two"]
    left = power_cut()
    assert names(left) == [b"one"]
    left.close()
    fs.close()


def test_a_failed_commit_is_tried_again(
    fs: Filesystem, power_cut: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(fs, b"one", b"1")

    def fail(_changes: object) -> None:
        raise OSError(errno.ENOSPC, "host full")

    monkeypatch.setattr(fs.store.catalog, "apply", fail)
    with pytest.raises(OSError, match="host full"):
        fs.commit()
    monkeypatch.undo()
    assert fs.is_dirty
    assert names(fs) == [b"one"]
    make(fs, b"two", b"2")
    answer(fs)
    fs.commit()
    left = power_cut()
    assert names(left) == [b"one", b"two"]
    left.close()
    fs.close()


def test_a_daemon_may_die_after_a_failed_commit(fs: Filesystem, bundle: Path) -> None:
    make(fs, b"one", b"1")
    fs.begin_commit()
    fs.end_commit(succeeded=False)
    make(fs, b"two", b"2")
    answer(fs)
    fs = die(fs, bundle)
    assert names(fs) == [b"one", b"two"]
    fs.close()


def _fail(_fd: int) -> None:
    raise OSError(errno.EIO, "broken disk")


def test_data_that_could_not_be_synced_are_written_again(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = make(fs, b"one", b"1")
    monkeypatch.setattr(os, "fdatasync", _fail)
    with pytest.raises(OSError, match="broken disk"):
        fs.commit()
    assert fs.getxattr(ROOT, b"user.mapfs.fs.state") == b"degraded"
    monkeypatch.undo()
    (where, length) = next(fs._placement.stored(number))
    again: list[tuple[int, bytes]] = []
    monkeypatch.setattr(
        synced_file, "_put", lambda _fd, data, offset: again.append((offset, bytes(data)))
    )
    fs.commit()
    assert again == [(where, b"1" + bytes(length - 1))]
    assert fs.getxattr(ROOT, b"user.mapfs.fs.state") == b"ok"
    fs.require_written(number)
    fs = die(fs, bundle)
    assert not fs.store.lost_data
    assert content(fs, number) == b"1"
    fs.close()


def test_an_fsync_after_a_commit_that_failed_takes_a_commit(fs: Filesystem) -> None:
    """The log has what it held in its other half, which is not synced."""
    make(fs, b"one", b"1")
    fs.begin_commit()
    fs.end_commit(succeeded=False)
    make(fs, b"two", b"2")
    assert fs.begin_log_sync() is None
    fs.commit()
    make(fs, b"three", b"3")
    # The half begins with what the catalog has: a power cut may leave a part of that.
    assert fs.begin_log_sync() is None
    fs.commit()
    make(fs, b"four", b"4")
    assert fs.begin_log_sync() is not None
    fs.end_log_sync(succeeded=True)
    fs.close()


def fail_to_commit(fs: Filesystem) -> None:
    fs.begin_commit()
    fs.end_commit(succeeded=False)


def test_a_log_with_a_gap_is_not_replayed_over_the_commit_that_was_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapfs.store.log.HALF_BYTES", 16 << 10)
    monkeypatch.setattr("mapfs.store.log.LOG_BYTES", 32 << 10)
    bundle = new_bundle(tmp_path / "t.mapfs")
    fs = open_fs(bundle)
    make(fs, b"one", b"1" * 5000)
    fail_to_commit(fs)
    for number in count():
        if fs.must_commit:
            break
        make(fs, b"%d" % number, b"x" * 5000)
    unlinked = fs.lookup(ROOT, b"0").number
    fs.unlink(ROOT, b"0")  # behind the gap
    fs.forget(unlinked)
    late = make(fs, b"late", b"late" * 3000)
    fs.commit()
    expected = names(fs)
    fs = die(fs, bundle)
    assert names(fs) == expected
    assert content(fs, late) == b"late" * 3000
    fs.close()


def test_a_lost_page_that_is_written_over_while_a_commit_syncs_stays_noted(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new bytes may not be on the disk."""
    number = make(fs, b"one", b"1" * PAGE)
    fs.store.backing.lost = MachinePages(fs._placement.stored(number))
    fs.commit()
    make(fs, b"two")
    commit = fs.begin_commit()
    sync = fs.store.backing.sync

    def write_meanwhile() -> None:
        sync()
        fs.write(number, 0, b"2" * PAGE, stamp=False)

    with monkeypatch.context() as patch:
        patch.setattr(fs.store.backing, "sync", write_meanwhile)
        commit.write()
    fs.end_commit(succeeded=True)
    noted = read_lost(fs.store.superblock, fs.store.catalog, fs.store.state)
    assert noted == list(fs._placement.stored(number))
    assert fs.begin_log_sync() is None
    fs.commit()
    assert not read_lost(fs.store.superblock, fs.store.catalog, fs.store.state)
    fs.close()


def test_an_fsync_of_bytes_that_are_not_lost_any_more_takes_a_commit(fs: Filesystem) -> None:
    """They are lost in the catalog's list, and would be after a power cut."""
    number = make(fs, b"one", b"1" * PAGE)
    fs.store.backing.lost = MachinePages(fs._placement.stored(number))
    fs.commit()
    fs.write(number, 0, b"2" * PAGE)
    assert not fs.store.backing.lost
    assert fs.begin_log_sync() is None
    fs.commit()
    fs.write(number, 0, b"3" * PAGE)
    assert fs.begin_log_sync() is not None
    fs.end_log_sync(succeeded=True)
    fs.close()


@pytest.mark.parametrize(
    ("change", "needs_data"),
    [
        (lambda fs, _: fs.mkdir(ROOT, b"d", 0o755, ME), False),
        (lambda fs, number: fs.setattr(number, Changes(mode=0o600)), False),
        (lambda fs, number: fs.write(number, 0, b"2"), True),
        (lambda fs, number: fs.fallocate(number, 1, 0, 32 << 20), True),
        (lambda fs, number: fs.fallocate(number, 3, 5, 10), True),
    ],
)
def test_an_fsync_syncs_the_data_if_any_page_is_not_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Filesystem, int], object],
    needs_data: bool,  # noqa: FBT001
) -> None:
    """Fresh pages must be zeros on the disk, and there at all, before a record refers to them."""
    fs = open_fs(new_bundle(tmp_path / "large.mapfs", 16_384))
    number = make(fs, b"one", b"1" * PAGE)
    synced: list[int] = []
    sync = MappedFile.sync

    def counted(backing: MappedFile) -> None:
        synced.append(1)
        sync(backing)

    monkeypatch.setattr(MappedFile, "sync", counted)
    for turn in range(2):
        if turn:
            change(fs, number)
        started = fs.begin_log_sync()
        assert started is not None
        assert started.write()
        fs.end_log_sync(succeeded=True)
    assert len(synced) == 1 + needs_data
    fs.close()


def test_nothing_is_committed_once_the_catalog_could_not_be_written(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = make(fs, b"one", b"1")
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise lmdb.DiskError("Input/output error")

        patch.setattr(catalog_module, "_write_table", fail)
        with pytest.raises(MapfsError, match="cannot be written"):
            fs.commit()
    assert fs.getxattr(ROOT, b"user.mapfs.fs.state") == b"read-only"
    with pytest.raises(MapfsError, match="no longer"):
        fs.commit()
    with pytest.raises(ReadOnlyError):
        fs.write(number, 0, b"2")
    fs.forget(number)
    assert content(fs, number) == b"1"
    fs.close()  # tries once more
    fs = open_fs(bundle)
    assert names(fs) == [b"one"]
    fs.close()


def test_a_log_is_not_trusted_after_a_sync_that_failed(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(fs, b"one", b"1")
    answer(fs)
    monkeypatch.setattr(os, "fdatasync", _fail)
    with pytest.raises(OSError, match="broken disk"):
        fs.commit()
    monkeypatch.undo()
    fs = die(fs, bundle)
    assert fs.store.lost_data
    fs.close()
    fs = open_fs(bundle)
    assert not fs.store.lost_data
    fs.close()


def test_an_error_about_what_a_killed_daemon_wrote_is_not_forgotten(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows which pages it had written: no commit of this life may succeed."""
    make(fs, b"one", b"1")
    answer(fs)
    fs.store.close()
    store = open_store(bundle)
    monkeypatch.setattr(os, "fdatasync", _fail)
    with pytest.raises(OSError, match="broken disk"):
        Filesystem(store)
    monkeypatch.undo()
    with pytest.raises(OSError, match="broken disk"):
        store.backing.sync()
    store.close()
    fs = open_fs(bundle)
    assert fs.store.lost_data
    fs.close()


def test_what_is_dirty(fs: Filesystem) -> None:
    number = make(fs, b"f", b"data")
    for change in (
        lambda: fs.write(number, 0, b"DATA"),
        lambda: fs.setattr(number, Changes(mode=0o600)),
        lambda: fs.setxattr(number, b"user.a", b"1"),
        lambda: fs.rename(ROOT, b"f", ROOT, b"g"),
    ):
        settle(fs)
        change()
        assert fs.is_dirty
    fs.close()


def test_closing_commits(fs: Filesystem, bundle: Path) -> None:
    number = make(fs, b"f", b"x" * 5000)
    fs.close()
    fs = open_fs(bundle)
    assert content(fs, number) == b"x" * 5000
    assert not fs.store.replayed.is_needed
    assert fs.store.allocator.pending_pages == 0
    fs.close()


def test_closing_twice_changes_nothing(bundle: Path) -> None:
    open_fs(bundle).close()
    before = (bundle / "store").read_bytes()
    open_fs(bundle).close()
    assert (bundle / "store").read_bytes() == before


def test_a_store_is_let_go_of_even_if_the_last_commit_fails(
    fs: Filesystem, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(fs, b"f", b"data")
    monkeypatch.setattr(MappedFile, "sync", lambda _: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(OSError, match="broken"):
        fs.close()
    monkeypatch.undo()
    fs = open_fs(bundle)
    assert names(fs) == [b"f"]
    fs.close()


def test_freed_space_goes_back_to_the_host(fs: Filesystem, bundle: Path) -> None:
    number = make(fs, b"f", b"x" * 512 * PAGE)
    fs.commit(closing=True)
    used = (bundle / "store").stat().st_blocks
    fs.unlink(ROOT, b"f")
    fs.forget(number)
    fs.commit(closing=True)
    assert (bundle / "store").stat().st_blocks <= used - 512 * 8
    fs.close()


# Bytes behind the end of a file that a crash took back


@pytest.mark.parametrize("grow", ["truncate", "write"])
def test_bytes_behind_the_end_are_not_seen_after_a_power_cut(
    fs: Filesystem, power_cut: Left, grow: str
) -> None:
    number = make(fs, b"f", b"abc")
    fs.fallocate(number, 1, 0, 4 * PAGE)
    fs.commit()
    fs.write(number, 3, b"SECRET" * 2000)
    left = power_cut()
    assert content(left, number) == b"abc"
    if grow == "truncate":
        left.setattr(number, Changes(size=4 * PAGE))
    else:
        left.write(number, 4 * PAGE - 1, b"\0")
    assert content(left, number) == b"abc" + bytes(4 * PAGE - 3)
    assert_sound(left)
    left.close()
    fs.close()


def test_pages_freed_after_the_last_commit_keep_their_bytes(
    fs: Filesystem, power_cut: Left
) -> None:
    number = make(fs, b"f", b"x" * 64 * PAGE)
    fs.commit()
    fs.unlink(ROOT, b"f")
    fs.forget(number)
    other = make(fs, b"g")
    fs.write(other, 0, b"y" * 900 * PAGE)
    left = power_cut()
    assert content(left, number) == b"x" * 64 * PAGE
    with pytest.raises(NotFoundError):
        left.inode(other)
    left.close()
    fs.close()
