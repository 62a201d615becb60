"""Unmounting what is in use for a moment, or for longer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mapfs import mounts
from mapfs.cli import mapfs, run, umount
from mapfs.errors import BusyMountError
from mapfs.fuse import device
from mapfs.mounts import Mount

MNT = Path("/mnt/m")


@pytest.fixture
def unmount_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[int, int]]:
    """`mapfs umount` of a mount that refuses so many times: its exit code, and the tries."""

    def unmount(refusals: int) -> tuple[int, int]:
        tries = 0

        def refuse(mountpoint: Path) -> None:
            nonlocal tries
            tries += 1
            if tries <= refusals:
                raise BusyMountError(f"cannot unmount {mountpoint}: Device or resource busy")

        monkeypatch.setattr(umount, "_BETWEEN_TRIES_SECONDS", 0)
        monkeypatch.setattr(mounts, "mount_at", lambda _: Mount(Path("ephemeral"), MNT))
        monkeypatch.setattr(device, "unmount", refuse)
        return run(mapfs, ["umount", str(MNT)]), tries

    return unmount


def test_a_mount_that_is_only_looked_at_is_waited_for(
    unmount_with: Callable[[int], tuple[int, int]],
) -> None:
    assert unmount_with(2) == (0, 3)


def test_a_mount_that_stays_in_use_is_given_up_on(
    unmount_with: Callable[[int], tuple[int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, tries = unmount_with(100)
    assert code == 1
    assert 1 < tries < 100
    assert capsys.readouterr().err == "mapfs: cannot unmount /mnt/m: Device or resource busy\n"
