"""Fixtures of the tests below FUSE. Every store that a test used is checked at its end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mapfs.filesystem.filesystem import Filesystem
from mapfs.store.store import Store
from tests.property import profiles
from tests.unit.support import assert_sound, memory_store, new_bundle

profiles.load()


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store of 1,024 pages in memory, which the test may ruin."""
    store = memory_store()
    yield store
    store.close()


@pytest.fixture
def fs() -> Iterator[Filesystem]:
    """An empty filesystem of 1,024 pages in memory, sound at the end."""
    fs = Filesystem(memory_store())
    yield fs
    assert_sound(fs)
    fs.close()


@pytest.fixture
def sized(request: pytest.FixtureRequest) -> Iterator[Callable[..., Filesystem]]:
    """Makes filesystems of a given number of pages, and checks and closes them."""
    made: list[Filesystem] = []

    def make(pages: int, page_size: int = 4096) -> Filesystem:
        made.append(Filesystem(memory_store(pages, page_size)))
        return made[-1]

    yield make
    for each in made:
        assert_sound(each)
        each.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The path of an empty bundle of 1,024 pages."""
    return new_bundle(tmp_path / "t.mapfs")
