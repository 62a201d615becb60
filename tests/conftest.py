"""Fixtures for tests that mount: a store in a directory of its own, checked when the test ends."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mapfs.store.syscalls import PageCache
from tests.mount.volume import Volume, run

MakeVolume = Callable[..., Volume]


def pytest_configure() -> None:
    """Let programs be interrupted by tests that were started in the background of a script.

    There the shell has SIGINT ignored, and every child inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    """A block device of 64 MiB."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    tried = subprocess.run(
        ["losetup", "--find", "--show", image], check=False, capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"losetup: {tried.stderr.strip()}")
    device = Path(tried.stdout.strip())
    yield device
    run("losetup", "--detach", device)


@pytest.fixture
def forgetful_host(tmp_path: Path) -> None:
    """Skips where the file system keeps in memory what it is asked to drop, as tmpfs does."""
    path = tmp_path / "forgotten"
    path.write_bytes(bytes(64 << 10))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if PageCache(file.fileno()).statistics(0, 64 << 10).resident:
            pytest.skip("the file system keeps in memory what it is asked to drop")
