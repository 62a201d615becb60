"""A store of our own and its mount, made and unmade with the commands that users have."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from mapfs.claims.claim import CannotMeasureError
from mapfs.claims.interrupts import uninterrupted
from mapfs.errors import MountError
from mapfs.fuse.device import unmount
from mapfs.store.bundle import Bundle


class MountedStore:
    """A store in a directory, and its mount."""

    def __init__(self, directory: Path) -> None:
        self.bundle = Bundle(directory / "data.mapfs")
        self.path = directory / "mnt"
        self._log = directory / "log"

    def create(self, limit: int, page_size: int) -> None:
        """Make it, up to `limit` bytes, and mount it.

        Raises `CannotMeasureError` with what the command says.
        """
        self.path.mkdir(parents=True)
        sizes = ("--size", str(limit), "--page-size", str(page_size))
        _mapfs("mkfs", self.bundle.path, *sizes)
        self._mount()

    def _mount(self) -> None:
        _mapfs("mount", self.bundle.path, self.path, "--log", self._log)

    @property
    def worker(self) -> int | None:
        """The process that serves the mount, if it can be known."""
        return self.bundle.holder

    def renew(self) -> None:
        """Unmount, drop what memory has of the store, and mount: nothing is cached then."""
        _mapfs("umount", self.path)
        drop_from_memory(self.bundle.store)
        self._mount()

    def close(self) -> None:
        """Unmount. What does not let go is detached, so that nothing of it is left behind."""
        if not os.path.ismount(self.path):
            return
        with contextlib.suppress(CannotMeasureError):
            _mapfs("umount", self.path)
        if os.path.ismount(self.path):
            with contextlib.suppress(MountError):
                unmount(self.path, lazy=True)
            self.bundle.wait_for_lock()


def drop_from_memory(path: Path) -> None:
    """Write a file back and have the kernel forget it, as far as nobody maps it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _mapfs(*words: str | Path) -> None:
    """Run a verb. It is in a session of its own: Ctrl-C must not end it halfway."""
    command = [sys.executable, "-P", "-m", "mapfs", *map(str, words)]
    with uninterrupted():
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, start_new_session=True
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"mapfs {words[0]} failed"]
        raise CannotMeasureError(lines[-1].removeprefix("mapfs: "))
