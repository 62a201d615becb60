"""Fixtures for tests that mount: a store in a directory of its own, checked when the test ends."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.volume import Volume

MakeVolume = Callable[..., Volume]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs the rights of root")


@pytest.fixture
def transport() -> str:
    """What speaks to the kernel; tests marked `both_transports` run with each."""
    return "auto"


@pytest.fixture
def make_volume(tmp_path: Path, transport: str) -> Iterator[MakeVolume]:
    """Makes volumes: `make_volume(name, directory)` has a mount point, but no store yet.

    When the test ends every one of them is unmounted and checked, and its log is read.
    """
    volumes: list[Volume] = []

    def make(name: str = "data", directory: Path = tmp_path, *, ephemeral: bool = False) -> Volume:
        volume = Volume(
            directory / f"{name}.mapfs",
            directory / f"{name}-mnt",
            directory / f"{name}.log",
            transport,
            ephemeral=ephemeral,
        )
        volume.mnt.mkdir()
        volumes.append(volume)
        return volume

    try:
        yield make
        for volume in volumes:
            volume.check()
    finally:
        for volume in volumes:
            volume.clean_up()


@pytest.fixture
def volume(make_volume: MakeVolume) -> Volume:
    """A store that is not mounted."""
    made = make_volume()
    made.mkfs()
    return made


@pytest.fixture
def mnt(volume: Volume) -> Path:
    """A mounted, empty filesystem."""
    return volume.mount()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach; those of pytest are for one user only."""
    with tempfile.TemporaryDirectory(prefix="mapfs-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
