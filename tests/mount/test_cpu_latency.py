"""A mount that bounds how long processors may take to wake up, by the kernel's own device."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from struct import unpack

import pytest

from tests.mount.volume import Volume, mapfs, refusal, wait_until

DEVICE = Path("/dev/cpu_dma_latency")
pytestmark = [
    pytest.mark.mount,
    pytest.mark.root,
    pytest.mark.skipif(not DEVICE.exists(), reason=f"there is no {DEVICE}"),
]
# One for each test, as the kernel has but one device: the lower one counts for the machine.
LOW, HIGH = 3, 4


@pytest.fixture
def device() -> Iterator[int]:
    fd = os.open(DEVICE, os.O_RDONLY)
    yield fd
    os.close(fd)


def bound_of(device: int) -> int:
    """What holds for the machine now, in microseconds."""
    (value,) = unpack("=i", os.pread(device, 4, 0))
    assert isinstance(value, int)
    return value


def ask(path: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            os.getxattr(path, "user.none")


def test_processors_may_sleep_again_once_nothing_is_asked(volume: Volume, device: int) -> None:
    mnt = volume.mount("--cpu-latency", LOW)
    (mnt / "file").write_text("asked for")

    def is_bounded() -> bool:
        ask(mnt / "file")
        return bound_of(device) == LOW

    for _ in range(2):
        wait_until(is_bounded, "the bound is set while a program asks")
        wait_until(lambda: bound_of(device) != LOW, "the bound is lifted")


def test_it_ends_with_a_worker_that_is_killed(volume: Volume, device: int) -> None:
    mnt = volume.mount("--cpu-latency", HIGH)
    (mnt / "file").write_text("asked for")
    for _ in range(3):
        ask(mnt / "file")
        os.kill(volume.daemon, 9)
        ask(mnt / "file")
    wait_until(lambda: bound_of(device) != HIGH, "the bound is lifted")


def test_it_is_refused_where_nothing_would_follow_it(volume: Volume) -> None:
    mount = ("mount", volume.store, volume.mnt, "--cpu-latency", 0, "--transport", "pyfuse3")
    assert "cpu_latency needs the transport wire" in refusal(mapfs(*mount, status=2))
    assert not volume.mounted
