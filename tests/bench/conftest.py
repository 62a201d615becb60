"""Fixtures of the microbenchmarks: a store on disk whose log takes every operation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mapfs.filesystem.filesystem import Filesystem
from tests.unit.support import assert_sound, new_bundle, open_fs

PAGES = 16_384


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[Filesystem]:
    """An empty filesystem with room for 64 MiB, sound at the end."""
    fs = open_fs(new_bundle(tmp_path / "t.mapfs", PAGES))
    yield fs
    assert_sound(fs)
    fs.close()
