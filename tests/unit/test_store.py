"""Creating and opening stores, and everything that can be wrong with them."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from mapfs.errors import (
    DamagedStoreError,
    MapfsError,
    NewerFormatError,
    NotAStoreError,
    StoreError,
    StoreExistsError,
    StoreInUseError,
    UsageError,
)
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import META_STATE, META_UUID, State, Table
from mapfs.format.superblock import BLOCK_BYTES, HEADER_BYTES, Superblock
from mapfs.store import mkfs as store_module
from mapfs.store.catalog import Catalog
from mapfs.store.mkfs import StoreOptions, create_store, default_limit, machine_page_size
from mapfs.store.opening import ephemeral_store, open_store
from tests.unit.support import PAGE, assert_sound, content, make, names, open_fs

LIMIT = 4 << 20
OPTIONS = StoreOptions(LIMIT, PAGE)


def change_meta(bundle: Path, key: bytes, value: bytes | None) -> None:
    with Catalog(bundle / "catalog") as catalog:
        catalog.apply([{key: value} if table is Table.META else {} for table in Table])


def state_of(bundle: Path) -> State:
    with Catalog(bundle / "catalog") as catalog:
        value = catalog.get(Table.META, META_STATE)
        assert value is not None
        return State.unpack(value)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Creating


def test_a_new_store(tmp_path: Path) -> None:
    create_store(tmp_path / "t.mapfs", OPTIONS)
    files = {file.name for file in (tmp_path / "t.mapfs").iterdir()}
    assert {"store", "catalog", "lock"} <= files
    assert stat.S_IMODE((tmp_path / "t.mapfs").stat().st_mode) == 0o700
    for name in ("store", "catalog", "lock"):
        assert stat.S_IMODE((tmp_path / "t.mapfs" / name).stat().st_mode) & 0o077 == 0
    fs = open_fs(tmp_path / "t.mapfs")
    assert names(fs) == []
    assert fs.store.superblock.limit_pages == LIMIT // PAGE
    assert_sound(fs)
    fs.close()


def test_a_large_limit_costs_nothing_yet(tmp_path: Path) -> None:
    create_store(tmp_path / "t.mapfs", StoreOptions(1 << 50, PAGE))
    assert (tmp_path / "t.mapfs" / "store").stat().st_blocks * 512 <= 1 << 16
    fs = open_fs(tmp_path / "t.mapfs")
    assert fs.store.allocator.growth_pages > 1 << 37
    fs.close()


@pytest.mark.parametrize("page_size", [0, 1000, 2048, 4 << 20, 5000])
def test_bad_page_sizes(page_size: int) -> None:
    with pytest.raises(UsageError, match="page size"):
        StoreOptions(LIMIT, page_size).superblock()


@pytest.mark.parametrize(("page_size", "least"), [(4096, 73728), (2 << 20, 33562624)])
def test_the_smallest_store(page_size: int, least: int) -> None:
    with pytest.raises(UsageError, match=f"at least {least}"):
        StoreOptions(least - 1, page_size).superblock()
    StoreOptions(least, page_size).superblock()
    fs = Filesystem(ephemeral_store(least, page_size))
    assert fs.statfs().free_pages >= 15
    assert_sound(fs)
    fs.close()


def test_stores_have_different_uuids() -> None:
    assert OPTIONS.superblock().uuid != OPTIONS.superblock().uuid


def test_something_there_is_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    before = (bundle / "store").read_bytes()
    with pytest.raises(StoreExistsError, match="--force"):
        create_store(bundle, OPTIONS)
    assert (bundle / "store").read_bytes() == before
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(StoreExistsError):
        create_store(tmp_path / "dangling", OPTIONS)


def test_force_overwrites_a_store(bundle: Path) -> None:
    fs = open_fs(bundle)
    uuid = fs.store.superblock.uuid
    make(fs, b"old", b"data")
    fs.close()
    create_store(bundle, OPTIONS, force=True)
    fs = open_fs(bundle)
    assert fs.store.superblock.uuid != uuid
    assert names(fs) == []
    assert_sound(fs)
    fs.close()


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_force_spares_what_is_no_store(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "directory":
        path.mkdir()
        (path / "store").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(StoreExistsError, match="not touched"):
        create_store(path, OPTIONS, force=True)
    assert path.exists()


def test_force_spares_a_store_in_use(bundle: Path) -> None:
    fs = open_fs(bundle)
    with pytest.raises(StoreInUseError, match=f"process {os.getpid()}"):
        create_store(bundle, OPTIONS, force=True)
    make(fs, b"still", b"works")
    assert_sound(fs)
    fs.close()


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        create_store(tmp_path / "no" / "t.mapfs", OPTIONS)


def test_the_store_file_may_be_elsewhere(tmp_path: Path) -> None:
    create_store(tmp_path / "t.mapfs", OPTIONS, backing=tmp_path / "elsewhere")
    assert (tmp_path / "t.mapfs" / "store").readlink() == tmp_path / "elsewhere"
    fs = open_fs(tmp_path / "t.mapfs")
    number = make(fs, b"f", b"data")
    fs.close()
    fs = open_fs(tmp_path / "t.mapfs")
    assert content(fs, number) == b"data"
    fs.close()


def test_a_backing_with_content_needs_force(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    with pytest.raises(StoreExistsError, match="not empty"):
        create_store(tmp_path / "t.mapfs", OPTIONS, backing=tmp_path / "elsewhere")
    assert not (tmp_path / "t.mapfs").exists()
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"
    create_store(tmp_path / "t.mapfs", OPTIONS, backing=tmp_path / "elsewhere", force=True)
    open_store(tmp_path / "t.mapfs").close()


def test_an_empty_backing_needs_no_force(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    create_store(tmp_path / "t.mapfs", OPTIONS, backing=tmp_path / "elsewhere")
    open_store(tmp_path / "t.mapfs").close()


def test_two_bundles_cannot_use_one_store_file(tmp_path: Path) -> None:
    create_store(tmp_path / "a.mapfs", OPTIONS, backing=tmp_path / "shared")
    fs = open_fs(tmp_path / "a.mapfs")
    with pytest.raises(StoreInUseError):
        create_store(tmp_path / "b.mapfs", OPTIONS, backing=tmp_path / "shared", force=True)
    assert not (tmp_path / "b.mapfs").exists()
    fs.close()


def test_a_backing_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        create_store(tmp_path / "t.mapfs", OPTIONS, backing=tmp_path / "no" / "store")
    assert not (tmp_path / "t.mapfs").exists()


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "first_records", fail)
    before = descriptors()
    with pytest.raises((OSError, MapfsError), match="No space"):
        create_store(tmp_path / "t.mapfs", OPTIONS)
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


def test_a_device_must_hold_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "device").open("wb") as device:
        device.truncate(LIMIT)
    monkeypatch.setattr(Path, "is_block_device", lambda _: True)
    with pytest.raises(UsageError, match="less than --size"):
        create_store(
            tmp_path / "t.mapfs",
            StoreOptions(2 * LIMIT, PAGE),
            backing=tmp_path / "device",
            force=True,
        )
    assert not (tmp_path / "t.mapfs").exists()
    create_store(tmp_path / "t.mapfs", OPTIONS, backing=tmp_path / "device", force=True)
    assert (tmp_path / "device").stat().st_size == LIMIT


def test_default_limit(tmp_path: Path) -> None:
    host = os.statvfs(tmp_path)
    for path in (tmp_path, tmp_path / "new" / "store"):
        assert 0 < default_limit(path) <= host.f_blocks * host.f_frsize


def test_machine_page_size() -> None:
    assert machine_page_size() in (4096, 16384, 65536)


# Opening


def test_one_writer(bundle: Path) -> None:
    store = open_store(bundle)
    before = descriptors()
    with pytest.raises(StoreInUseError, match=f"t.mapfs.* in use by process {os.getpid()}"):
        open_store(bundle)
    with pytest.raises(StoreInUseError):
        open_store(bundle, read_only=True)
    assert descriptors() == before
    store.close()
    open_store(bundle).close()


def test_a_reader_keeps_writers_out(bundle: Path) -> None:
    reader = open_store(bundle, read_only=True)
    with pytest.raises(StoreInUseError):
        open_store(bundle)
    reader.close()


def test_closing_lets_go_of_everything(bundle: Path) -> None:
    before = descriptors()
    for _ in range(3):
        open_store(bundle).close()
    assert descriptors() == before


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(NotAStoreError, match="no such store"):
        open_store(tmp_path / "t.mapfs")


@pytest.mark.parametrize(
    ("offset", "data", "error", "message"),
    [
        (0, bytes(HEADER_BYTES), NotAStoreError, "not a mapfs store"),
        (0, b"MAPFS" + bytes(HEADER_BYTES - 5), NotAStoreError, "not a mapfs store"),
    ],
)
def test_a_store_file_of_another_kind(
    bundle: Path, offset: int, data: bytes, error: type[StoreError], message: str
) -> None:
    with (bundle / "store").open("r+b") as file:
        file.seek(offset)
        file.write(data)
    before = descriptors()
    with pytest.raises(error, match=message) as caught:
        open_store(bundle)
    assert str(caught.value).startswith(str(bundle))
    assert descriptors() == before


def overwrite_copies(bundle: Path, *copies: bytes) -> None:
    with (bundle / "store").open("r+b") as file:
        for number, copy in enumerate(copies):
            file.seek(number * BLOCK_BYTES)
            file.write(copy)


def test_one_damaged_superblock_is_no_harm(bundle: Path) -> None:
    overwrite_copies(bundle, os.urandom(BLOCK_BYTES))
    open_store(bundle).close()


def test_two_damaged_superblocks(bundle: Path) -> None:
    good = (bundle / "store").read_bytes()[:BLOCK_BYTES]
    damaged = good[:100] + b"x" + good[101:]
    overwrite_copies(bundle, damaged, damaged)
    with pytest.raises(DamagedStoreError, match=r"t.mapfs: superblock checksum"):
        open_store(bundle)


def test_a_newer_format(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapfs.format.superblock.FORMAT_VERSION", 9)
    newer = OPTIONS.superblock().pack()
    overwrite_copies(bundle, newer, newer)
    monkeypatch.undo()
    with pytest.raises(NewerFormatError, match=r"t.mapfs: store format 9; .* upgrade"):
        open_store(bundle)


def test_a_truncated_store_file(bundle: Path) -> None:
    os.truncate(bundle / "store", 3 * PAGE)
    with pytest.raises(DamagedStoreError, match="truncated: 12288 bytes of"):
        open_store(bundle)


def test_a_store_file_longer_than_needed_is_fine(bundle: Path) -> None:
    os.truncate(bundle / "store", 1 << 30)
    open_store(bundle).close()


def test_a_catalog_of_another_store(bundle: Path, tmp_path: Path) -> None:
    create_store(tmp_path / "other.mapfs", OPTIONS)
    shutil.copy(tmp_path / "other.mapfs" / "catalog", bundle / "catalog")
    with pytest.raises(DamagedStoreError, match="do not belong together"):
        open_store(bundle)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"garbage" * 10_000])
def test_a_catalog_of_another_kind(bundle: Path, data: bytes, *, read_only: bool) -> None:
    (bundle / "catalog").write_bytes(data)
    before = descriptors()
    with pytest.raises(StoreError, match=r"t.mapfs"):
        open_store(bundle, read_only=read_only)
    assert descriptors() == before


def test_a_catalog_without_uuid_or_state(bundle: Path) -> None:
    change_meta(bundle, META_STATE, None)
    with pytest.raises(DamagedStoreError, match="no state record"):
        open_store(bundle)
    change_meta(bundle, META_UUID, None)
    with pytest.raises(DamagedStoreError, match="do not belong together"):
        open_store(bundle)


def test_a_state_of_the_wrong_length(bundle: Path) -> None:
    change_meta(bundle, META_STATE, b"short")
    with pytest.raises(DamagedStoreError, match="state record"):
        open_store(bundle)


@pytest.mark.parametrize("pages", [0, 1, 1 << 40])
def test_a_state_with_an_impossible_size(bundle: Path, pages: int) -> None:
    state = state_of(bundle)
    state.store_pages = pages
    change_meta(bundle, META_STATE, state.pack())
    with pytest.raises(DamagedStoreError, match="size is out of range"):
        open_store(bundle)


def test_a_store_that_cannot_be_read(bundle: Path) -> None:
    (bundle / "store").unlink()
    (bundle / "store").mkdir()
    with pytest.raises(StoreError, match=r"t.mapfs: "):
        open_store(bundle)


def snapshot(bundle: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in bundle.iterdir()}


def test_reading_writes_not_a_byte(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"f", b"data")
    fs.close()
    before = snapshot(bundle)
    fs = open_fs(bundle, read_only=True)
    assert content(fs, number) == b"data"
    assert names(fs) == [b"f"]
    fs.getxattr(1, b"user.mapfs.fs")
    fs.close()
    assert snapshot(bundle) == before


def test_numbers_are_never_used_again(bundle: Path) -> None:
    store = open_store(bundle)
    first = store.next_id()
    store.freeze().write()
    store.finish()
    store.close()
    store = open_store(bundle)
    assert store.next_id() == first + 1
    store.close()


def test_a_small_address_space(bundle: Path) -> None:
    store = open_store(bundle, address_space=8 << 20)
    assert store.backing._windows.window_bytes == 2 << 20  # type: ignore[attr-defined]
    store.close()


# Ephemeral stores


def test_an_ephemeral_store_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    fs = Filesystem(ephemeral_store(LIMIT, PAGE))
    number = make(fs, b"f", b"data")
    fs.commit()
    assert content(fs, number) == b"data"
    fs.close()
    assert descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_ephemeral_stores_are_apart() -> None:
    one, other = (Filesystem(ephemeral_store(LIMIT, PAGE)) for _ in range(2))
    make(one, b"f", b"data")
    assert names(other) == []
    one.close()
    other.close()


def test_an_ephemeral_store_grows() -> None:
    fs = Filesystem(ephemeral_store(256 << 20, PAGE))
    assert fs.store.state.store_pages == (64 << 20) // PAGE
    fs.fallocate(make(fs, b"f"), 0, 0, 100 << 20)
    assert fs.store.state.store_pages > (100 << 20) // PAGE
    assert_sound(fs)
    fs.close()


def test_sizes_that_cannot_work_are_refused_before_anything_is_made() -> None:
    before = descriptors()
    with pytest.raises(UsageError):
        ephemeral_store(100, PAGE)
    assert descriptors() == before


def test_superblocks_say_when_they_were_made() -> None:
    superblock: Superblock = OPTIONS.superblock()
    assert superblock.created_ns > 1_700_000_000 * 10**9
