"""Stores that are damaged, foreign or hostile: every command says so in one line and ends."""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from xxhash import xxh3_64_intdigest

import mapfs.cli
from mapfs.errors import DamagedStoreError, NotAStoreError
from mapfs.format.extent import Extent
from mapfs.format.frames import HALF_BYTES, Kind, pack_frame
from mapfs.format.records import (
    META_STATE,
    META_UUID,
    Inode,
    State,
    Table,
    id_key,
    pack_count,
    pack_extent,
    pair_key,
)
from mapfs.format.superblock import BLOCK_BYTES, CHECKSUM_OFFSET, MAGIC
from mapfs.store.lmdb_pages import check_pages
from tests.faults.bundles import LIMIT, PAGE, Damage, change, heads, patch, record, records
from tests.faults.child import Ended, assert_plain, mapfs_command, run_child
from tests.faults.open_all import main as open_all

pytestmark = pytest.mark.mount


def commands(bundle: Path, mnt: Path) -> Iterator[tuple[str, Ended]]:
    """What every command that only looks, and then mount, says of a store."""
    yield "stat", mapfs_command("stat", bundle)
    yield "df", mapfs_command("df", bundle)
    yield "fsck", mapfs_command("fsck", bundle)
    yield "mkfs", mapfs_command("mkfs", bundle, "--size", "16M")
    with mounting(mnt):
        yield "mount --read-only", mapfs_command("mount", bundle, mnt, "--read-only", *_LOG)
    with mounting(mnt):
        yield "mount", mapfs_command("mount", bundle, mnt, *_LOG)


_LOG = ("--log", "/dev/null")


@contextmanager
def mounting(mnt: Path) -> Iterator[None]:
    """A mount point that is free again behind the block, whether or not anything was mounted."""
    if not is_mounted(mnt):
        mnt.mkdir(exist_ok=True)
    yield
    if is_mounted(mnt):
        mapfs_command("umount", mnt)
    if is_mounted(mnt):
        subprocess.run(["umount", "-l", mnt], check=False, capture_output=True)


def is_mounted(mnt: Path) -> bool:
    return f" {mnt} " in Path("/proc/self/mountinfo").read_text(errors="surrogateescape")


def assert_refused(bundle: Path, mnt: Path) -> None:
    """No command opens it."""
    for name, ended in commands(bundle, mnt):
        assert_plain(ended, *((4, 8) if name == "fsck" else (1,)))
        assert name == "fsck" or str(bundle) in ended.err, (name, ended)
    force = mapfs_command("mkfs", bundle, "--size", "16M", "--force")
    assert_plain(force, 0, 1)
    if force.code == 0:
        assert_plain(mapfs_command("fsck", bundle), 0)


def assert_survived(bundle: Path, mnt: Path, fsck: tuple[int, ...] = (4, 8)) -> None:
    """Nothing crashes or hangs over it, and fsck finds it."""
    found = mapfs_command("fsck", bundle)
    assert_plain(found, *fsck)
    assert_plain(mapfs_command("df", bundle), 0, 1)
    with mounting(mnt):
        assert_plain(mapfs_command("mount", bundle, mnt, *_LOG), 0, 1)
    ended = run_child(lambda: open_all(bundle, read_only=False))
    assert ended.code in (0, 1), ended
    assert "Traceback" not in ended.err, ended


# The store file


def damage_store(offset: int, data: bytes) -> Damage:
    return lambda bundle: patch(bundle / "store", offset, data)


def superblock_with(field: str, value: int) -> Damage:
    """A superblock whose checksum is right and one field is not."""
    offset, code = {"version": (8, "<I"), "page": (12, "<I"), "limit": (32, "<Q")}[field]

    def damage(bundle: Path) -> None:
        body = bytearray((bundle / "store").read_bytes()[:CHECKSUM_OFFSET])
        struct.pack_into(code, body, offset, value)
        block = bytes(body) + struct.pack("<Q", xxh3_64_intdigest(bytes(body)))
        patch(bundle / "store", 0, block + block)

    return damage


def damage_both_superblocks(bundle: Path) -> None:
    for offset in (0, BLOCK_BYTES):
        patch(bundle / "store", offset + 50, b"\x40")


def cut(name: str, size: int) -> Damage:
    return lambda bundle: os.truncate(bundle / name, size)


def random_bytes(name: str) -> Damage:
    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes(os.urandom((bundle / name).stat().st_size % (1 << 20) + 8192))

    return damage


_STORES: dict[str, Damage] = {
    "empty": cut("store", 0),
    "cut within the superblock": cut("store", 100),
    "cut behind the first superblock": cut("store", BLOCK_BYTES),
    "cut by one byte": lambda bundle: os.truncate(
        bundle / "store", (bundle / "store").stat().st_size - 1
    ),
    "random": random_bytes("store"),
    "zeros": damage_store(0, bytes(2 * BLOCK_BYTES)),
    "a bit flipped in both superblocks": damage_both_superblocks,
    "magic of another": damage_store(0, (b"foreign!" + bytes(BLOCK_BYTES - 8)) * 2),
    "a newer format": superblock_with("version", 2),
    "format 2^32-1": superblock_with("version", (1 << 32) - 1),
    "pages of nothing": superblock_with("page", 0),
    "pages of 3 bytes": superblock_with("page", 3),
    "pages of 2 GiB": superblock_with("page", 1 << 31),
    "other page size": superblock_with("page", 2 << 20),
    "no pages": superblock_with("limit", 0),
    "fewer pages than it has": superblock_with("limit", 5),
    "a directory": lambda bundle: replace(bundle / "store", "directory"),
    "a fifo": lambda bundle: replace(bundle / "store", "fifo"),
    "a socket": lambda bundle: replace(bundle / "store", "socket"),
    "a character device": lambda bundle: replace(bundle / "store", "/dev/zero"),
    "a dangling link": lambda bundle: replace(bundle / "store", "nowhere"),
    "a link to itself": lambda bundle: replace(bundle / "store", "store"),
}


def replace(path: Path, kind: str) -> None:
    """Put something that is no file where a file of the bundle was."""
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        directory = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
    else:
        path.symlink_to(kind)


@pytest.mark.parametrize("damage", [pytest.param(_STORES[name], id=name) for name in _STORES])
def test_a_bad_store_file(bundle: Path, tmp_path: Path, damage: Damage) -> None:
    damage(bundle)
    assert_refused(bundle, tmp_path / "mnt")


@pytest.mark.parametrize("copy", [0, BLOCK_BYTES])
def test_one_superblock_is_enough(bundle: Path, tmp_path: Path, copy: int) -> None:
    patch(bundle / "store", copy + 20, b"damaged")
    assert_plain(mapfs_command("df", bundle), 0)
    assert_plain(mapfs_command("fsck", bundle), 0, 4)
    assert (bundle / "store").read_bytes()[BLOCK_BYTES - copy :][:8] == MAGIC


def test_a_limit_beyond_all_disks_costs_nothing(bundle: Path, tmp_path: Path) -> None:
    superblock_with("limit", (1 << 64) - 1)(bundle)
    assert_survived(bundle, tmp_path / "mnt", (0, 4, 8))


# The catalog


def _swap(bundle: Path) -> None:
    (bundle / "store").rename(bundle / "other")
    (bundle / "catalog").rename(bundle / "store")
    (bundle / "other").rename(bundle / "catalog")


def _state(**fields: int) -> Damage:
    def damage(bundle: Path) -> None:
        state = State.unpack(record(bundle, Table.META, META_STATE))
        for name, value in fields.items():
            setattr(state, name, value)
        change(bundle, Table.META, {META_STATE: state.pack()})

    return damage


def _head(offset: int, code: str, value: int, *, both: bool = True) -> Damage:
    """Change a field of LMDB's heads; `offset` counts from the magic."""

    def damage(bundle: Path) -> None:
        found = sorted(heads(bundle / "catalog"), key=lambda head: head[1])
        for start, _ in found if both else found[1:]:
            patch(bundle / "catalog", start + offset, struct.pack(code, value))

    return damage


_FREE, _MAIN, _END = 24, 24 + 48, 24 + 96
_CATALOGS: dict[str, Damage] = {
    "empty": cut("catalog", 0),
    "cut within the first head": cut("catalog", 60),
    "cut behind the first head": cut("catalog", PAGE),
    "cut behind the heads": cut("catalog", 2 * PAGE),
    "cut to five pages": cut("catalog", 5 * PAGE),
    "cut within a page": cut("catalog", 9 * PAGE + 100),
    "random": random_bytes("catalog"),
    "zeros": lambda bundle: patch(bundle / "catalog", 0, bytes(1 << 16)),
    "swapped with the store": _swap,
    "another LMDB version": _head(4, "<I", 2),
    "page size 0": _head(_FREE, "<I", 0),
    "page size 1 GiB": _head(_FREE, "<I", 1 << 30),
    "another page size": _head(_FREE, "<I", 8192),
    "depth of 60000": _head(_MAIN + 6, "<H", 60_000),
    "depth 0": _head(_MAIN + 6, "<H", 0),
    "duplicate keys": _head(_MAIN + 4, "<H", 4),
    "root outside": _head(_MAIN + 40, "<Q", 1 << 30),
    "root beyond everything": _head(_MAIN + 40, "<Q", (1 << 64) - 2),
    "root at a head": _head(_MAIN + 40, "<Q", 1),
    "free list outside": _head(_FREE + 40, "<Q", 1 << 40),
    "no tables": _head(_MAIN + 40, "<Q", (1 << 64) - 1),
    "last page 0": _head(_END, "<Q", 0),
    "last page beyond the map": _head(_END, "<Q", 1 << 60),
    "transactions that do not follow": _head(_END + 8, "<Q", 1 << 50, both=False),
    "garbage in every page but the heads": lambda bundle: patch(
        bundle / "catalog", 2 * PAGE, os.urandom((bundle / "catalog").stat().st_size - 2 * PAGE)
    ),
    "all ones but the heads": lambda bundle: patch(
        bundle / "catalog", 2 * PAGE, b"\xff" * ((bundle / "catalog").stat().st_size - 2 * PAGE)
    ),
    "of another store": lambda bundle: change(bundle, Table.META, {META_UUID: bytes(16)}),
    "without a UUID": lambda bundle: change(bundle, Table.META, {META_UUID: None}),
    "without a state": lambda bundle: change(bundle, Table.META, {META_STATE: None}),
    "with a short state": lambda bundle: change(bundle, Table.META, {META_STATE: b"short"}),
    "of a store of no pages": _state(store_pages=0),
    "of a larger store": _state(store_pages=LIMIT // PAGE + 1),
    "of a store of 2^64-1 pages": _state(store_pages=(1 << 64) - 1),
    "out of inode numbers": _state(next_id=(1 << 64) - 1),
    "with inode numbers from 0": _state(next_id=0),
    "a directory": lambda bundle: replace(bundle / "catalog", "directory"),
    "a fifo": lambda bundle: replace(bundle / "catalog", "fifo"),
    "a link": lambda bundle: replace(bundle / "catalog", "store"),
    "a dangling link": lambda bundle: replace(bundle / "catalog", "nowhere"),
}


@pytest.mark.parametrize("damage", [pytest.param(_CATALOGS[name], id=name) for name in _CATALOGS])
def test_a_bad_catalog(bundle: Path, tmp_path: Path, damage: Damage) -> None:
    damage(bundle)
    assert_refused(bundle, tmp_path / "mnt")


def test_a_catalog_cut_anywhere_never_ends_the_process(bundle: Path) -> None:
    pages = (bundle / "catalog").stat().st_size // PAGE
    for page in range(pages - 1, 0, -7):
        os.truncate(bundle / "catalog", page * PAGE)
        ended = run_child(lambda: open_all(bundle, read_only=True))
        assert ended.code in (0, 1), ended
        assert "Traceback" not in ended.err, ended


def test_branches_alone_tell_of_a_truncated_catalog(bundle: Path) -> None:
    """What is checked of a catalog that is too large to read all of it at every mount."""
    changes: dict[bytes, bytes | None] = {
        id_key(number): bytes(200) for number in range(1 << 20, (1 << 20) + 4000)
    }
    change(bundle, Table.ORPHANS, changes)
    fd = os.open(bundle / "catalog", os.O_RDWR)
    try:
        check_pages(fd, 1 << 40, level=2)
        check_pages(fd, 1 << 40, level=1)
        os.truncate(fd, os.fstat(fd).st_size // 2)
        with pytest.raises((DamagedStoreError, NotAStoreError)):
            check_pages(fd, 1 << 40, level=2)
    finally:
        os.close(fd)


# Records


def inode_with(**fields: int) -> Damage:
    """Change the inode of each regular file."""

    def damage(bundle: Path) -> None:
        changes: dict[bytes, bytes | None] = {}
        for key, value in records(bundle, Table.INODES).items():
            inode = Inode.unpack(0, value)
            if inode.is_file:
                for name, number in fields.items():
                    setattr(inode, name, number)
                changes[key] = inode.pack()
        change(bundle, Table.INODES, changes)

    return damage


def directories_with_parent(parent: int | None) -> Damage:
    """Hang every directory but the root below `parent`, or below itself."""

    def damage(bundle: Path) -> None:
        changes: dict[bytes, bytes | None] = {}
        for key, value in records(bundle, Table.INODES).items():
            inode = Inode.unpack(int.from_bytes(key, "big"), value)
            if inode.is_directory and inode.number != 1:
                inode.parent = inode.number if parent is None else parent
                changes[key] = inode.pack()
        change(bundle, Table.INODES, changes)

    return damage


def every_value(table: Table, value: bytes) -> Damage:
    return lambda bundle: change(bundle, table, dict.fromkeys(records(bundle, table), value))


def short_keys(bundle: Path) -> None:
    for table in Table:
        change(bundle, table, {b"?": b"?"})


_MANY = (1 << 64) - 1
_RECORDS: dict[str, Damage] = {
    "extents at the superblock": every_value(Table.EXTENTS, pack_extent(Extent(0, 1))),
    "extents outside": every_value(Table.EXTENTS, pack_extent(Extent(1 << 40, 1))),
    "extents at the last page there can be": every_value(
        Table.EXTENTS, pack_extent(Extent(_MANY - 1, 1))
    ),
    "extents of 2^64-1 pages": every_value(Table.EXTENTS, pack_extent(Extent(2, _MANY))),
    "extents of no pages": every_value(Table.EXTENTS, pack_extent(Extent(2, 0))),
    "extents that overlap": every_value(Table.EXTENTS, pack_extent(Extent(10, 4))),
    "extents that do not decode": every_value(Table.EXTENTS, b"?"),
    "files of 2^64-1 bytes": inode_with(size=_MANY),
    "files of 2^63-1 bytes": inode_with(size=(1 << 63) - 1),
    "files of 2^64-1 pages": inode_with(pages=_MANY, extents=_MANY, prealloc=_MANY),
    "files of no type": inode_with(mode=0o644),
    "files of all types": inode_with(mode=0xFFFFFFFF),
    "files without names": inode_with(nlink=0),
    "files in no directory": inode_with(parent=1 << 40),
    "times beyond all calendars": inode_with(atime=-(1 << 63), mtime=(1 << 63) - 1),
    "inodes that do not decode": every_value(Table.INODES, b"?"),
    "inodes missing": lambda bundle: change(
        bundle, Table.INODES, dict.fromkeys(records(bundle, Table.INODES))
    ),
    "entries that do not decode": every_value(Table.ENTRIES, b""),
    "entries all the root": every_value(Table.ENTRIES, struct.pack("<QQI", 1, 3, 0o040000)),
    "listings all the root": every_value(Table.COOKIES, struct.pack("<QI", 1, 0o040000) + b"name"),
    "names with slashes": every_value(Table.COOKIES, struct.pack("<QI", 1, 0o040000) + b"../../x"),
    "names of 60000 bytes": every_value(
        Table.COOKIES, struct.pack("<QI", 17, 0o100000) + b"n" * 60_000
    ),
    "directories above themselves": directories_with_parent(None),
    "directories below nothing": directories_with_parent(1 << 40),
    "free pages at the superblock": lambda bundle: change(
        bundle, Table.FREE, {id_key(0): pack_count(2)}
    ),
    "free pages outside": lambda bundle: change(
        bundle,
        Table.FREE_BY_SIZE,
        {pair_key(_MANY, _MANY): b"", pair_key(1 << 50, 1 << 50): b""},
    ),
    "pending pages at the superblock": lambda bundle: change(
        bundle, Table.PENDING, {id_key(0): pack_count(2)}
    ),
    "pending pages without end": lambda bundle: change(
        bundle, Table.PENDING, {id_key(2): pack_count(_MANY)}
    ),
    "orphans that are none": lambda bundle: change(
        bundle, Table.ORPHANS, {id_key(1): b"", id_key(1 << 60): b"", b"short": b""}
    ),
    "keys that do not decode": short_keys,
    "totals that overflow": _state(
        allocated_pages=_MANY, inodes=_MANY, tail_bytes=_MANY, prealloc_pages=_MANY
    ),
}


@pytest.mark.parametrize("damage", [pytest.param(_RECORDS[name], id=name) for name in _RECORDS])
def test_bad_records(bundle: Path, tmp_path: Path, damage: Damage) -> None:
    before = (bundle / "store").stat().st_size
    damage(bundle)
    fsck = (0,) if damage is _RECORDS["times beyond all calendars"] else (4, 8)
    assert_survived(bundle, tmp_path / "mnt", fsck)
    assert (bundle / "store").read_bytes().startswith(MAGIC)
    assert (bundle / "store").read_bytes()[BLOCK_BYTES:].startswith(MAGIC)
    assert (bundle / "store").stat().st_size <= max(before, LIMIT)


# Lock and log


@pytest.mark.parametrize("name", ["lock", "log", "catalog-lock"])
@pytest.mark.parametrize("kind", ["directory", "fifo", "store", "nowhere", "/dev/zero"])
def test_what_should_be_a_file_and_is_not(
    bundle: Path, tmp_path: Path, name: str, kind: str
) -> None:
    (bundle / name).touch()
    replace(bundle / name, kind)
    assert_refused(bundle, tmp_path / "mnt")


def test_nothing_is_written_where_a_planted_link_leads(bundle: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for name in ("lock", "log", "catalog", "catalog-lock"):
        victim.write_bytes(b"precious")
        (bundle / name).touch()
        kept = (bundle / name).read_bytes()
        replace(bundle / name, str(victim))
        assert_plain(mapfs_command("mount", bundle, tmp_path, *_LOG), 1)
        assert_plain(mapfs_command("mkfs", bundle, "--size", "16M"), 1)
        assert victim.read_bytes() == b"precious"
        (bundle / name).unlink()
        (bundle / name).write_bytes(kept)
    for name in ("log", "catalog", "catalog-lock", "store"):
        replace(bundle / name, str(victim))
    assert_plain(mapfs_command("mkfs", bundle, "--size", "16M", "--force"), 0)
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["lock", "store", "catalog"])
def test_a_missing_file(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).unlink()
    assert_refused(bundle, tmp_path / "mnt")


@pytest.mark.parametrize("content", [b"", b"?", os.urandom(1 << 16), b"\xff" * (17 << 20)])
def test_a_log_of_garbage_is_no_log(bundle: Path, tmp_path: Path, content: bytes) -> None:
    (bundle / "log").write_bytes(content)
    assert_survived(bundle, tmp_path / "mnt", (0, 8))


_FRAMES: dict[str, list[tuple[int, bytes, bytes | None]]] = {
    "unknown kind": [(99, b"key", b"value")],
    "short state": [(Kind.STATE, b"", b"?")],
    "no state": [(Kind.STATE, b"", None)],
    "a state of too many pages": [(Kind.STATE, b"", State(1 << 20, 1 << 40, 0, 1, 0, 0, 0).pack())],
    "a state without ids": [(Kind.STATE, b"", State(_MANY, 4096, 0, 1, 0, 0, 0).pack())],
    "empty key": [(Table.INODES, b"", b"value")],
    "endless key": [(Table.ENTRIES, b"k" * 60_000, b"value")],
    "short count": [(Kind.COUNTED, b"\0" * 8, b"?")],
    "count without a key": [(Kind.COUNTED, b"", b"?" * 200)],
    "run outside": [(Kind.RUN, id_key(1), pack_extent(Extent(0, 1 << 60)))],
    "run over the superblock": [(Kind.RUN, id_key(1), pack_extent(Extent(0, 2)))],
    "root gone": [(Table.INODES, id_key(1), None)],
    "root undecodable": [(Table.INODES, id_key(1), b"?")],
    "uuid gone": [(Table.META, META_UUID, None)],
    "orphan that is the root": [(Table.ORPHANS, id_key(1), b"")],
    "pending over the superblock": [(Table.PENDING, id_key(0), pack_count(2))],
}


@pytest.mark.parametrize("name", _FRAMES)
def test_hostile_frames_in_the_log(logged: Path, tmp_path: Path, name: str) -> None:
    """Frames that are whole and of this boot, behind a good header."""
    log = bytearray((logged / "log").read_bytes())
    for start in (0, HALF_BYTES):
        (generation,) = struct.unpack_from("<Q", log, start + 40)
        frame = pack_frame(_FRAMES[name], generation)
        log[start + 64 : start + 64 + len(frame)] = frame
    (logged / "log").write_bytes(log)
    assert_survived(logged, tmp_path / "mnt", (0, 4, 8))
    assert (logged / "store").read_bytes().startswith(MAGIC)
    assert (logged / "store").read_bytes()[BLOCK_BYTES:].startswith(MAGIC)


# Paths


def test_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "empty", "fifo", "loop", "missing", "n" * 300, "file/below"):
        path = tmp_path / name
        assert_plain(mapfs_command("df", path), 1)
        assert_plain(mapfs_command("fsck", path), 8)
        assert_plain(mapfs_command("mount", path, tmp_path / "empty", *_LOG), 1)
        assert_plain(mapfs_command("stat", path), 1)
        if name != "missing":
            assert_plain(mapfs_command("mkfs", path, "--size", "16M", "--force"), 1)


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("kind", ["fifo", "directory", "character"])
def test_mkfs_on_what_cannot_hold_a_store(tmp_path: Path, kind: str, force: list[str]) -> None:
    backing = tmp_path / "backing"
    if kind == "character":
        backing = Path("/dev/null")
    else:
        backing.touch()
        replace(backing, kind)
    for size in ([], ["--size", "16M"]):
        ended = mapfs_command("mkfs", tmp_path / "t.mapfs", "--backing", backing, *size, *force)
        assert_plain(ended, 1, 2)
        assert not (tmp_path / "t.mapfs").exists()


@pytest.mark.root
def test_an_unreadable_bundle(good_bundle: Path, open_directory: Path) -> None:
    bundle = open_directory / "t.mapfs"
    shutil.copytree(good_bundle, bundle)
    bundle.chmod(0o755)

    def as_nobody() -> int:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        mnt = os.fspath(open_directory / "mnt")
        store = os.fspath(bundle)
        calls = (["df", store], ["fsck", store], ["mount", store, mnt, *_LOG])
        codes = [mapfs.cli.run(mapfs.cli.mapfs, words) for words in calls]
        return int(codes != [1, 8, 1])

    (open_directory / "mnt").mkdir()
    ended = run_child(as_nobody)
    assert ended.code == 0, ended
    assert len(ended.err.splitlines()) == 3, ended
    assert "Traceback" not in ended.err
