"""A small ext4 of its own as the host of a store: one that really fills up."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_ext4(directory: Path, size: int, image: Path | None = None) -> Iterator[Path]:
    """Mount an ext4 of `size` bytes, in an image that is below `directory` unless given.

    Needs the rights of root.
    """
    for program in ("mkfs.ext4", "losetup"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    image, mnt = image or directory / "host.img", directory / "host"
    mnt.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    # Nothing is kept back for root: the last block can be used up.
    subprocess.run(
        ["mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-O", "^has_journal", image], check=True
    )
    done = subprocess.run(
        ["mount", "-o", "loop", image, mnt], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no loop device to mount: {done.stderr.strip()}")
    try:
        yield mnt
    finally:
        for _ in range(50):
            if subprocess.run(["umount", mnt], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", mnt], check=False)


def fill_up(directory: Path) -> Path:
    """Use up the last block of a host with a file of somebody else's; returns it."""
    filler = directory / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    os.write(fd, b"f" * size)
            except OSError:
                pass
        os.fsync(fd)
    finally:
        os.close(fd)
    return filler
