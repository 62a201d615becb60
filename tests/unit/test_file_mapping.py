"""`open_mapping` of files in stores that are not mounted, and what a layout says."""

import errno
import gc
import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mapfs
from mapfs.errors import (
    DamagedStoreError,
    InvalidArgumentError,
    MapfsError,
    NoAttributeError,
    NotFoundError,
    NotSupportedError,
    StoreInUseError,
)
from mapfs.filesystem.filesystem import Changes
from mapfs.format.layout import Layout, Piece, StoreIdentity, joined_layouts
from mapfs.mapping import file_mapping
from mapfs.store.machine_pages import MachinePages
from mapfs.store.mapped_file import identity_of
from mapfs.store.mkfs import StoreOptions, create_store
from tests.unit.support import PAGE, ROOT, assert_sound, content, make, open_fs, value

GIB = 1 << 30


@pytest.fixture
def bundle(bundle: Path):
    """An empty bundle, sound at the end."""
    yield bundle
    fs = open_fs(bundle)
    assert_sound(fs)
    fs.close()


def put(bundle: Path, name: bytes, data: bytes, size: int | None = None) -> None:
    """A file in a store; `size` makes it longer by a hole."""
    fs = open_fs(bundle)
    number = make(fs, name, data)
    if size is not None:
        fs.setattr(number, Changes(size=size))
    fs.close()


# Layouts


def test_a_layout_is_packed_and_unpacked() -> None:
    layout = Layout(50_000, PAGE, StoreIdentity(1, 2), (Piece(0, 8192, 8192),), 12_288)
    assert Layout.unpack(layout.pack()) == layout


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b"\xff", b'{"size": 1, "extents": [[1]]}'])
def test_what_is_no_layout(value: bytes) -> None:
    with pytest.raises(DamagedStoreError):
        Layout.unpack(value)


PIECES = (Piece(0, 8 * PAGE, PAGE), Piece(2 * PAGE, 4 * PAGE, 2 * PAGE))


@pytest.mark.parametrize(
    ("pieces", "changes"),
    [
        ((PIECES[0], Piece(-PAGE, 0, PAGE)), {}),
        ((PIECES[1], PIECES[0]), {}),
        ((PIECES[0], PIECES[0]), {}),
        ((Piece(0, -PAGE, PAGE),), {}),
        ((Piece(0, 1, PAGE),), {}),
        ((Piece(0, PAGE, PAGE + 1),), {}),
        ((Piece(0, PAGE, 0),), {}),
        ((Piece(100 * PAGE, PAGE, PAGE),), {}),
        (PIECES, {"size": -1}),
        (PIECES, {"size": "many"}),
        (PIECES, {"page_size": 3}),
        (PIECES, {"next": PAGE}),
        ((), {"next": 0}),
    ],
)
def test_pieces_that_would_lead_elsewhere_are_no_layout(
    pieces: tuple[Piece, ...], changes: dict[str, Any]
) -> None:
    """Whoever serves a mount must not have others write over their own memory."""
    fields = {"size": 5 * PAGE, "page_size": PAGE, "store": (1, 2), "extents": pieces, "next": None}
    assert Layout.unpack(json.dumps(fields | {"extents": PIECES}).encode()).pieces == PIECES
    with pytest.raises(DamagedStoreError, match="no layout"):
        Layout.unpack(json.dumps(fields | changes).encode())


def test_a_layout_comes_in_parts_that_fit_into_an_attribute(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"a")
    pages = 1000
    for page in range(0, 2 * pages, 4):  # with holes, so that none are joined
        fs.write(number, page * PAGE, b"x")
    whole = fs.layout(number)
    assert len(whole.pieces) == value(fs, number, b"file.extents") == pages // 2
    first = Layout.unpack(fs.getxattr(number, b"user.mapfs.file.layout"))
    assert first == whole
    with pytest.raises(NoAttributeError):
        fs.getxattr(number, b"user.mapfs.file.layout.")
    for bad in (b".x", b".-1", b"x", b"." + b"9" * 30):
        with pytest.raises(NoAttributeError):
            fs.getxattr(number, b"user.mapfs.file.layout" + bad)
    tail = Layout.unpack(fs.getxattr(number, b"user.mapfs.file.layout.%d" % (100 * 4 * PAGE)))
    assert tail.pieces == whole.pieces[100:]
    fs.close()


def test_parts_are_joined() -> None:
    parts = [
        Layout(5 * PAGE, PAGE, StoreIdentity(1, 2), PIECES[:1], 2 * PAGE),
        Layout(5 * PAGE, PAGE, StoreIdentity(1, 2), PIECES[1:]),
    ]
    assert joined_layouts(parts) == Layout(5 * PAGE, PAGE, StoreIdentity(1, 2), PIECES)
    with pytest.raises(ValueError, match="order"):
        joined_layouts(parts[::-1])


def test_most_extents_of_a_part_fit(bundle: Path) -> None:
    largest = (1 << 63) - 1
    pieces = (Piece(largest, largest, largest),) * 900
    layout = Layout(largest, 2 << 20, StoreIdentity(largest, largest), pieces, largest)
    assert len(layout.pack()) <= 64 << 10


def test_lost_bytes_have_no_layout(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"a", b"x" * PAGE)
    (piece,) = fs.layout(number).pieces
    fs.store.backing.lost = MachinePages([(piece.store_offset, PAGE)])
    with pytest.raises(OSError, match="could not be written") as caught:
        fs.layout(number)
    assert caught.value.errno == errno.EIO
    fs.store.backing.lost = MachinePages()
    fs.close()


# Reading


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1, 100_000])
def test_a_mapping_has_the_bytes_of_the_file_and_no_more(bundle: Path, size: int) -> None:
    data = os.urandom(size)
    put(bundle, b"a", data)
    with mapfs.open_mapping("a", store=bundle) as mapping:
        assert len(mapping) == size
        assert mapping[:] == data
        assert memoryview(mapping).nbytes == size
        assert memoryview(mapping).readonly
        assert mapping[-1] == data[-1]
        with pytest.raises(IndexError):
            mapping[size]
        assert np.frombuffer(mapping, "u1").sum() == np.frombuffer(data, "u1").sum()
        (piece,) = mapping.extents
        assert piece.offset == 0


def test_holes_are_zeros(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"a")
    fs.write(number, 3 * PAGE, b"three")
    fs.write(number, 6 * PAGE, b"six")
    fs.setattr(number, Changes(size=9 * PAGE + 5))
    expected = content(fs, number)
    fs.close()
    with mapfs.open_mapping("a", store=bundle) as mapping:
        assert mapping[:] == expected
        assert [piece.offset for piece in mapping.extents] == [3 * PAGE, 6 * PAGE]


def test_a_sparse_file_of_a_terabyte(bundle: Path) -> None:
    put(bundle, b"a", b"begin", size=1024 * GIB)
    with mapfs.open_mapping("a", store=bundle) as mapping:
        assert len(mapping) == 1024 * GIB
        assert mapping[:5] == b"begin"
        assert mapping[-1] == 0


def test_nothing_but_holes(bundle: Path) -> None:
    put(bundle, b"a", b"", size=5000)
    with mapfs.open_mapping("a", store=bundle) as mapping:
        assert mapping[:] == bytes(5000)
        assert mapping.extents == ()


def test_preallocated_pages_are_not_in_it(bundle: Path) -> None:
    fs = open_fs(bundle)
    number = make(fs, b"a", b"x" * 100)
    fs.fallocate(number, 1, 0, 50 * PAGE)  # KEEP_SIZE
    fs.close()
    with mapfs.open_mapping("a", store=bundle) as mapping:
        assert len(mapping) == 100
        assert mapping[:] == b"x" * 100


@pytest.mark.parametrize("page_size", [64 << 10, 2 << 20])
def test_larger_pages(tmp_path: Path, page_size: int) -> None:
    bundle = tmp_path / "large.mapfs"
    create_store(bundle, StoreOptions(64 << 20, page_size))
    data = os.urandom(page_size + 5000)
    put(bundle, b"a", data)
    with mapfs.open_mapping("a", store=bundle) as mapping:
        assert mapping[:] == data
    with mapfs.open_mapping("a", "r+", store=bundle) as mapping:
        mapping[page_size] = 7
    fs = open_fs(bundle)
    assert content(fs, fs.lookup(ROOT, b"a").number)[page_size] == 7
    assert_sound(fs)
    fs.close()


def test_an_empty_file_is_refused_as_by_mmap(bundle: Path) -> None:
    put(bundle, b"a", b"")
    for mode in ("r", "r+"):
        with pytest.raises(ValueError, match="cannot map an empty file"):
            mapfs.open_mapping("a", mode, store=bundle)


def test_it_cannot_be_closed_while_views_exist(bundle: Path) -> None:
    put(bundle, b"a", b"x" * PAGE)
    mapping = mapfs.open_mapping("a", store=bundle)
    array = np.frombuffer(mapping, "u1")
    with pytest.raises(BufferError):
        mapping.close()
    assert array.sum() == ord("x") * PAGE
    del array
    mapping.close()
    assert mapping.closed
    mapping.close()


def test_a_view_keeps_it_alive(bundle: Path) -> None:
    put(bundle, b"a", b"x" * PAGE)
    array = np.frombuffer(mapfs.open_mapping("a", store=bundle), "u1")
    gc.collect()
    assert array.sum() == ord("x") * PAGE


def test_it_cannot_be_written_or_resized(bundle: Path) -> None:
    put(bundle, b"a", b"x" * PAGE)
    with mapfs.open_mapping("a", store=bundle) as mapping:
        with pytest.raises(TypeError):
            mapping[0] = 1
        with pytest.raises(TypeError):
            mapping.resize(2 * PAGE)
        with pytest.raises(ValueError, match="read-only"):
            np.frombuffer(mapping, "u1")[0] = 1
        mapping.flush()


def test_the_store_may_be_used_beside_a_mapping(bundle: Path) -> None:
    put(bundle, b"a", b"x" * PAGE)
    with mapfs.open_mapping("a", store=bundle) as mapping:
        fs = open_fs(bundle)
        number = fs.lookup(ROOT, b"a").number
        fs.write(number, 0, b"in place")
        assert mapping[:8] == b"in place"
        fs.setattr(number, Changes(size=0))
        fs.write(number, 0, b"elsewhere")
        fs.commit()
        assert mapping[:8] == b"in place"
        fs.close()


def test_what_cannot_be_mapped(bundle: Path, tmp_path: Path) -> None:
    fs = open_fs(bundle)
    fs.mkdir(ROOT, b"d", 0o755, mapfs_caller())
    fs.symlink(ROOT, b"l", b"d", mapfs_caller())
    fs.create(ROOT, b"p", stat.S_IFIFO | 0o644, mapfs_caller())
    fs.close()
    for mode in ("r", "r+"):
        with pytest.raises(NotFoundError, match="none: no such entry"):
            mapfs.open_mapping("none", mode, store=bundle)
        with pytest.raises(MapfsError, match="directory"):
            mapfs.open_mapping("d", mode, store=bundle)
        for name in ("l", "p"):
            with pytest.raises(InvalidArgumentError):
                mapfs.open_mapping(name, mode, store=bundle)
        with pytest.raises(MapfsError, match="no such store"):
            mapfs.open_mapping("a", mode, store=tmp_path / "none")
    with pytest.raises(ValueError, match="mode"):
        mapfs.open_mapping("a", "w", store=bundle)  # type: ignore[arg-type]
    (tmp_path / "plain").write_bytes(b"x")
    with pytest.raises(MapfsError, match="not on a mapfs"):
        mapfs.open_mapping(tmp_path / "plain")
    with pytest.raises(FileNotFoundError):
        mapfs.open_mapping(tmp_path / "none")


def mapfs_caller():
    from mapfs.filesystem.caller import Caller  # noqa: PLC0415

    return Caller(0, 0)


def test_pages_smaller_than_the_machines(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bundle, b"a", b"x")
    monkeypatch.setattr(file_mapping, "PAGE_BYTES", 64 << 10)
    with pytest.raises(NotSupportedError, match="4096"):
        mapfs.open_mapping("a", store=bundle)


def test_more_extents_than_mappings(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bundle, b"a", b"x")
    limit = tmp_path / "max_map_count"
    limit.write_text("1\n")
    monkeypatch.setattr(file_mapping, "_MAX_MAP_COUNT", limit)
    with pytest.raises(OSError, match="max_map_count") as caught:
        mapfs.open_mapping("a", store=bundle)
    assert caught.value.errno == errno.ENOMEM


def test_more_than_the_address_space(bundle: Path) -> None:
    put(bundle, b"a", b"x", size=1 << 60)
    with pytest.raises(OSError, match="memory") as caught:
        mapfs.open_mapping("a", store=bundle)
    assert caught.value.errno == errno.ENOMEM


def test_which_store_file_is_open(bundle: Path) -> None:
    found = (bundle / "store").stat()
    with (bundle / "store").open("rb") as file:
        assert identity_of(file.fileno()) == (found.st_dev, found.st_ino)


# Writing


def test_a_file_is_edited_in_place(bundle: Path) -> None:
    put(bundle, b"a", b"x" * 3 * PAGE)
    fs = open_fs(bundle, read_only=True)
    before = fs.lookup(ROOT, b"a").mtime
    fs.close()
    with mapfs.open_mapping("a", "r+", store=bundle) as mapping:
        array = np.frombuffer(mapping, "u1")
        array[PAGE : PAGE + 5] = list(b"hello")
        del array
        mapping.flush()
        mapping[:3] = b"abc"
    fs = open_fs(bundle)
    inode = fs.lookup(ROOT, b"a")
    assert content(fs, inode.number)[PAGE : PAGE + 5] == b"hello"
    assert content(fs, inode.number)[:3] == b"abc"
    assert inode.mtime > before
    assert inode.size == 3 * PAGE
    fs.close()


def test_holes_get_pages_before_they_are_written(bundle: Path) -> None:
    put(bundle, b"a", b"x", size=10 * PAGE)
    with mapfs.open_mapping("a", "r+", store=bundle) as mapping:
        mapping[7 * PAGE] = 9
        assert sum(piece.length for piece in mapping.extents) == 10 * PAGE
    fs = open_fs(bundle)
    number = fs.lookup(ROOT, b"a").number
    assert content(fs, number)[7 * PAGE] == 9
    assert value(fs, number, b"file.pages") == 10
    fs.close()


def test_a_hole_larger_than_the_store_is_no_space(bundle: Path) -> None:
    put(bundle, b"a", b"x", size=10_000 * PAGE)
    with pytest.raises(MapfsError) as caught:
        mapfs.open_mapping("a", "r+", store=bundle)
    assert caught.value.errno == errno.ENOSPC


def test_the_store_is_locked_while_it_is_mapped_for_writing(bundle: Path) -> None:
    put(bundle, b"a", b"x" * PAGE)
    mapping = mapfs.open_mapping("a", "r+", store=bundle)
    view = memoryview(mapping)
    for mode in ("r", "r+"):
        with pytest.raises(StoreInUseError):
            mapfs.open_mapping("a", mode, store=bundle)
    with pytest.raises(BufferError):
        mapping.close()
    with pytest.raises(StoreInUseError):
        open_fs(bundle)
    view.release()
    mapping.close()
    open_fs(bundle).close()


def test_a_mapping_that_is_forgotten_lets_go_of_the_store(bundle: Path) -> None:
    put(bundle, b"a", b"x" * PAGE)
    mapping = mapfs.open_mapping("a", "r+", store=bundle)
    mapping[0] = 1
    del mapping
    gc.collect()
    fs = open_fs(bundle)
    assert content(fs, fs.lookup(ROOT, b"a").number)[:2] == b"\x01x"
    fs.close()


def test_it_is_what_python_calls_a_mapping() -> None:
    assert issubclass(mapfs.FileMapping, mmap.mmap)
    assert mapfs.open_mapping.__module__ == "mapfs.mapping.opening"
    with pytest.raises(AttributeError):
        mapfs.nothing  # noqa: B018
