"""Records that cannot be right are refused where they are read, before they do harm."""

import errno
import os
import stat
from pathlib import Path

import lmdb
import pytest

from mapfs.errors import DamagedStoreError, NotAStoreError, StoreError, UsageError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.frames import pack_frame, pack_half, unpack_frames
from mapfs.format.records import (
    Counted,
    Inode,
    State,
    Table,
    id_key,
    pack_count,
    pair_key,
)
from mapfs.format.totals import TOTALS_BYTES, Totals
from mapfs.store import log as log_module
from mapfs.store.backing import MemoryBacking
from mapfs.store.bundle import Bundle
from mapfs.store.catalog import Catalog
from mapfs.store.log import IntentLog
from mapfs.store.mapped_file import MappedFile
from mapfs.store.mkfs import StoreOptions, create_store
from mapfs.store.opening import open_store
from mapfs.store.store import Store
from tests.unit.support import PAGE, memory_store


def test_counts_that_no_record_holds() -> None:
    for pack in (
        Inode(1, stat.S_IFREG, 0, 0, nlink=-1).pack,
        Inode(1, stat.S_IFREG, 0, 0, pages=1 << 64).pack,
        State(1, 1, -1, 0, 0, 0, 0).pack,
        Totals(pages=1 << 63).pack,
    ):
        with pytest.raises(DamagedStoreError, match="out of range"):
            pack()


@pytest.mark.parametrize("length", [1, 23, 23 + TOTALS_BYTES, 25 + TOTALS_BYTES])
def test_logged_counts_of_a_wrong_length(length: int) -> None:
    with pytest.raises(DamagedStoreError, match="wrong length"):
        Counted.unpack(bytes(length))


def test_a_half_that_is_full_to_its_last_byte() -> None:
    frame = pack_frame([(1, b"k", b"v")], 7)
    assert len(list(unpack_frames(pack_half(bytes(16), bytes(16), 7) + frame, 7))) == 1


def free(store: Store, start: int, count: int) -> None:
    store.transaction.put(Table.FREE, id_key(start), pack_count(count))
    store.transaction.put(Table.FREE_BY_SIZE, pair_key(count, start), b"")


@pytest.mark.parametrize(("start", "count"), [(0, 5000), (1 << 40, 5000), (2, 1 << 40)])
def test_free_pages_outside_the_store_are_not_handed_out(
    store: Store, start: int, count: int
) -> None:
    free(store, start, count)
    with pytest.raises(DamagedStoreError, match="outside the store"):
        store.allocator.allocate(1500)


@pytest.mark.parametrize(("start", "count"), [(0, 1), (1 << 40, 1), (5, 0)])
def test_pending_pages_outside_the_store_are_not_made_free(
    store: Store, start: int, count: int
) -> None:
    store.transaction.put(Table.PENDING, id_key(start), pack_count(count))
    with pytest.raises(DamagedStoreError, match="outside the store"):
        store.allocator.recover()


def test_pending_pages_that_overlap_are_not_made_free(store: Store) -> None:
    store.transaction.put(Table.PENDING, id_key(10), pack_count(5))
    store.transaction.put(Table.PENDING, id_key(14), pack_count(5))
    with pytest.raises(DamagedStoreError, match="overlap"):
        store.allocator.recover()


def test_free_pages_in_the_index_alone_are_not_handed_out(store: Store) -> None:
    store.transaction.delete(Table.FREE_BY_SIZE, pair_key(1024, 2))
    store.transaction.put(Table.FREE_BY_SIZE, pair_key(1021, 5), b"")
    with pytest.raises(DamagedStoreError, match="indexed but not free"):
        store.allocator.allocate(1000)


def test_a_gap_in_the_log_is_no_matter_without_one() -> None:
    fs = Filesystem(memory_store())
    fs.store.reopen_log()
    fs.store.log_operation()
    assert not fs.must_commit
    fs.close()


@pytest.mark.parametrize("name", ["catalog", "catalog-lock", "lock", "log"])
def test_a_file_of_the_bundle_that_is_none(bundle: Path, name: str) -> None:
    (bundle / name).unlink(missing_ok=True)
    os.mkfifo(bundle / name)
    with pytest.raises(NotAStoreError, match=f"{name} is no file"):
        open_store(bundle)


def test_a_lock_that_became_a_fifo_is_not_locked(bundle: Path) -> None:
    (bundle / "lock").unlink()
    os.mkfifo(bundle / "lock")
    with pytest.raises(StoreError, match="lock"):
        Bundle(bundle).take_lock(exclusive=False)


def test_a_backing_that_is_neither_file_nor_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="neither a file nor a block device"):
        create_store(tmp_path / "t.mapfs", StoreOptions(1 << 20, PAGE), backing=tmp_path / "fifo")


def test_a_catalog_whose_pages_are_damaged(bundle: Path) -> None:
    with Catalog(bundle / "catalog") as catalog:
        catalog._reader.abort()  # stands for a page that LMDB finds corrupted
        for read in (
            lambda: catalog.get(Table.META, b"k"),
            lambda: list(catalog.scan(Table.META, b"a", b"b")),
            lambda: list(catalog.descend(Table.META, b"b", b"a")),
        ):
            with pytest.raises(DamagedStoreError, match="cannot be read"):
                read()


def test_an_lmdb_file_with_a_plain_value_for_a_table(tmp_path: Path) -> None:
    path = str(tmp_path / "catalog")
    with (
        lmdb.open(path, subdir=False, lock=False, max_dbs=20) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"meta", b"a value, not a table")
    with pytest.raises((DamagedStoreError, NotAStoreError)):
        Catalog(tmp_path / "catalog", read_only=True, lock=False)


def test_a_host_without_fallocate_can_hold_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "cannot")

    monkeypatch.setattr(log_module, "fallocate", lacking)
    IntentLog(tmp_path / "log", bytes(16)).close()
    assert (tmp_path / "log").stat().st_size == log_module.LOG_BYTES


def test_a_host_without_room_for_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_module, "fallocate", full)
    with pytest.raises(StoreError, match="No space left"):
        IntentLog(tmp_path / "log", bytes(16))


def test_a_store_file_that_became_shorter(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "store", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 1 << 20)
    mapped = MappedFile(fd, 1 << 20)
    mapped.load(0, 1 << 20)
    os.truncate(tmp_path / "store", 5000)
    for bring_in in (mapped.load, mapped.read_ahead):
        with pytest.raises(OSError, match="shorter"):
            bring_in(0, 8192)
    mapped.close()


def test_memory_never_fails() -> None:
    backing = MemoryBacking(10)
    backing.on_error(lambda: pytest.fail("memory has no errors"))
    backing.inherit()
    backing.sync()
    assert not backing.lost
