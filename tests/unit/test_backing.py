"""What every backing promises, on memory, on a file, and on a memfd."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.store.backing import Backing, MemoryBacking
from mapfs.store.mapped_file import MappedFile
from mapfs.store.syscalls import CacheStatistics

SIZE = 1 << 20


def on_file(directory: Path) -> MappedFile:
    fd = os.open(directory / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, SIZE)
    return MappedFile(fd, SIZE)


def on_memfd() -> MappedFile:
    fd = os.memfd_create("backing")
    os.ftruncate(fd, SIZE)
    return MappedFile(fd, SIZE)


@pytest.fixture(params=["memory", "file", "memfd"])
def backing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backing]:
    kinds: dict[str, Callable[[], Backing]] = {
        "memory": lambda: MemoryBacking(SIZE),
        "file": lambda: on_file(tmp_path),
        "memfd": on_memfd,
    }
    made = kinds[request.param]()
    yield made
    made.close()


def read(backing: Backing, offset: int, length: int) -> bytes:
    return b"".join(backing.read(offset, length))


def test_it_begins_with_zeros(backing: Backing) -> None:
    assert read(backing, 0, SIZE) == bytes(SIZE)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_written_is_read(backing: Backing, kind: type) -> None:
    backing.write(5000, kind(b"some bytes"))
    assert read(backing, 4999, 12) == b"\0some bytes\0"


def test_views_see_later_writes_and_cannot_write(backing: Backing) -> None:
    (view,) = backing.read(4096, 4)
    backing.write(4096, b"late")
    assert bytes(view) == b"late"
    with pytest.raises(TypeError):
        view[0] = 1


def test_prepared_pages_are_zeros(backing: Backing) -> None:
    backing.write(0, b"x" * 16384)
    backing.prepare(4096, 8192)
    assert read(backing, 0, 16384) == b"x" * 4096 + bytes(8192) + b"x" * 4096


def test_punched_pages_are_zeros(backing: Backing) -> None:
    backing.write(0, b"x" * 16384)
    backing.punch(4096, 8192)
    assert read(backing, 0, 16384) == b"x" * 4096 + bytes(8192) + b"x" * 4096


def test_it_grows_and_never_shrinks(backing: Backing) -> None:
    backing.write(SIZE - 4, b"last")
    backing.resize(2 * SIZE)
    backing.resize(SIZE)
    assert read(backing, SIZE - 4, 8) == b"last\0\0\0\0"
    backing.prepare(2 * SIZE - 4096, 4096)
    backing.write(2 * SIZE - 4096, b"new")
    assert read(backing, 2 * SIZE - 4096, 3) == b"new"


def test_a_view_survives_growing(backing: Backing) -> None:
    backing.write(SIZE - 4096, b"old")
    (view,) = backing.read(SIZE - 4096, 3)
    backing.resize(2 * SIZE)
    assert bytes(view) == b"old"


def test_a_view_survives_closing(tmp_path: Path) -> None:
    backing = on_file(tmp_path)
    backing.write(0, b"here")
    (view,) = backing.read(0, 4)
    backing.close()
    assert bytes(view) == b"here"


def test_syncing_and_loading_return(backing: Backing) -> None:
    backing.write(0, b"x")
    backing.sync()
    backing.load(0, SIZE)
    assert read(backing, 0, 1) == b"x"


def test_what_was_loaded_is_cached(backing: Backing) -> None:
    backing.write(0, b"x" * 8192)
    backing.load(0, 8192)
    found = backing.cached(0, 8192)
    assert isinstance(found, CacheStatistics)
    assert found.resident == 2
    assert backing.is_loaded(5, 8187)


def test_the_room_on_the_host(backing: Backing, tmp_path: Path) -> None:
    room = backing.host_free()
    assert room is None or room > 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "prepare", "punch", "resize"]),
            st.integers(0, 31),
            st.integers(0, 8),
            st.binary(min_size=1, max_size=9000),
        ),
        max_size=12,
    )
)
def test_a_mapped_file_is_like_memory(steps: list[tuple[str, int, int, bytes]]) -> None:
    mapped, memory = on_memfd(), MemoryBacking(SIZE)
    size = SIZE
    for what, page, count, data in steps:
        for backing in (mapped, memory):
            if what == "write":
                backing.write(page * 4096 + 123, data)
            elif what == "resize":
                backing.resize(size + count * 4096)
            elif count:
                getattr(backing, what)(page * 4096, count * 4096)
        size = size + count * 4096 if what == "resize" else size
    assert read(mapped, 0, size) == read(memory, 0, size)
    mapped.close()
