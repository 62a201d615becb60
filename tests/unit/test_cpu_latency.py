"""The bound for how long processors may take to wake up: set while requests come, then lifted."""

import os
from pathlib import Path
from struct import pack

import pytest
import trio

from mapfs.errors import MountError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse import cpu_latency
from mapfs.fuse.cpu_latency import NO_BOUND, CpuLatency
from mapfs.fuse.options import MountOptions
from mapfs.fuse.wire.protocol import Opcode
from tests.unit.wire_kernel import Kernel, play

LIFTED = pack("=i", 2_000_000_000)
MANY = 70


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of the kernel's device; it keeps everything that is written to it."""
    path = tmp_path / "cpu_dma_latency"
    path.touch()
    monkeypatch.setattr(cpu_latency, "_DEVICE", path)
    return path


def written(device: Path) -> bytes:
    return device.read_bytes()


def test_it_is_written_once_until_it_changes(device):
    latency = CpuLatency(7)
    latency.lift()
    assert written(device) == b""
    for _ in range(2):
        latency.set()
    for _ in range(2):
        latency.lift()
    latency.set()
    latency.close()
    latency.set()
    assert written(device) == pack("=i", 7) + LIFTED + pack("=i", 7)


def test_without_a_bound_the_device_is_left_alone(monkeypatch):
    monkeypatch.setattr(cpu_latency, "_DEVICE", None)
    latency = CpuLatency(NO_BOUND)
    latency.set()
    assert not latency.is_set
    latency.lift()
    latency.close()


@pytest.mark.parametrize(
    ("driver", "processors", "expected"),
    [
        ("haltpoll", 2, pack("=i", 0)),
        ("haltpoll", 4, pack("=i", 0)),
        ("haltpoll", 5, b""),
        ("intel_idle", 2, b""),
        (None, 2, b""),
    ],
)
def test_unasked_it_is_for_small_virtual_machines(
    device: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: str | None,
    processors: int,
    expected: bytes,
) -> None:
    current = tmp_path / "current_driver"
    if driver:
        current.write_text(f"{driver}\n")
    monkeypatch.setattr(cpu_latency, "_DRIVER", current)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    latency = CpuLatency(None)
    latency.set()
    assert written(device) == expected


def test_unasked_a_device_that_is_missing_is_no_news(device, tmp_path, monkeypatch, caplog):
    current = tmp_path / "current_driver"
    current.write_text("haltpoll\n")
    monkeypatch.setattr(cpu_latency, "_DRIVER", current)
    device.unlink()
    latency = CpuLatency(None)
    latency.set()
    assert not latency.is_set
    assert not caplog.text


def test_a_device_that_is_missing_is_refused_at_mount_and_logged_later(device, caplog):
    cpu_latency.check()
    device.unlink()
    with pytest.raises(MountError, match="cpu_dma_latency cannot be written"):
        cpu_latency.check()
    latency = CpuLatency(0)
    latency.set()
    assert not latency.is_set
    assert "No such file" in caplog.text


def test_it_is_set_while_requests_come_and_lifted_when_none_do(fs: Filesystem, device: Path):
    async def scenario(kernel: Kernel) -> None:
        for _ in range(3):
            await kernel.get(Opcode.GETATTR, bytes(16))
        assert written(device) == b"", "a few requests are no reason"
        for _ in range(2):
            await ask_until_set(kernel)
            await trio.sleep(0.1)
            assert written(device).endswith(LIFTED)

    async def ask_until_set(kernel: Kernel) -> None:
        while written(device)[-4:] in (b"", LIFTED):
            for _ in range(MANY):
                kernel.send(Opcode.GETATTR, bytes(16))
            await kernel.get(Opcode.GETATTR, bytes(16))

    play(fs, scenario, MountOptions(cpu_latency=0))
    assert written(device)[:16] == 2 * (pack("=i", 0) + LIFTED)
