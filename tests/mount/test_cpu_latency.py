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
DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")
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


def is_small_virtual_machine() -> bool:
    return DRIVER.exists() and DRIVER.read_text() == "haltpoll\n" and (os.cpu_count() or 1) <= 4


def opened_by(pid: int, path: Path) -> bool:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return any(os.readlink(link) == str(path) for link in links)


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


@pytest.mark.skipif(not is_small_virtual_machine(), reason="not a small virtual machine")
def test_a_small_virtual_machine_keeps_awake_while_a_program_asks(
    volume: Volume, device: int
) -> None:
    mnt = volume.mount()
    (mnt / "file").write_text("asked for")

    def is_bounded() -> bool:
        ask(mnt / "file")
        return bound_of(device) == 0

    assert opened_by(volume.daemon, DEVICE)
    wait_until(is_bounded, "the bound is set while a program asks")


def test_off_leaves_the_processors_alone(volume: Volume) -> None:
    volume.mount("--cpu-latency", "off")
    assert not opened_by(volume.daemon, DEVICE)


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
