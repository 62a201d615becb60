"""What every measured system can do: be made empty, mounted, unmounted, and lose its caches."""

import contextlib
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from enum import Enum
from pathlib import Path
from typing import ClassVar, Final

from benchmark.programs import BenchmarkError, last_lines, run

_PATIENCE_SECONDS: Final = 120
_SHORT_PATIENCE_SECONDS: Final = 20


class Role(Enum):
    """What a system is measured for."""

    LIMIT = "limit"  # what the kernel itself can do
    PEER = "peer"  # another FUSE file system
    MAPFS = "mapfs"


class System(ABC):
    """A file system in a directory of its own, `place`, all on one disk."""

    name: str
    role: ClassVar[Role]
    caveat: ClassVar[str] = ""  # what the reader of its figures must know

    def __init__(self, place: Path, image_bytes: int) -> None:
        self.place = place
        self.mnt = place / "mnt"
        self.image_bytes = image_bytes

    @abstractmethod
    def install(self) -> None:
        """Get the programs. Raises `BenchmarkError` if they cannot be had."""

    @abstractmethod
    def version(self) -> str:
        """What the program says of its version."""

    @abstractmethod
    def settings(self) -> str:
        """How it is made and mounted, for the report."""

    @abstractmethod
    def create(self) -> None:
        """Make an empty file system in place of the one before."""

    @abstractmethod
    def mount(self) -> None:
        """Mount it on `mnt`, with every user let in."""

    @abstractmethod
    def unmount(self) -> None:
        """Unmount it, and return when its daemon is gone and has written everything."""

    def abandon(self) -> None:
        """Unmount in any case. Raises nothing."""
        if is_mounted(self.mnt):
            subprocess.run(["umount", "-l", self.mnt], check=False, capture_output=True)

    def remount(self) -> None:
        """Drop the mount's cache: the kernel's and the daemon's, but not what is cached beneath."""
        self.unmount()
        self.mount()

    def cool(self) -> None:
        """Drop all caches, of the mount and beneath it: the next read comes from the disk."""
        self.unmount()
        os.sync()
        drop_caches()
        self.mount()


class FuseSystem(System):
    """A file system served by a process, which runs in the foreground as long as it is mounted."""

    role = Role.PEER
    _daemon: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def serve(self) -> list[str]:
        """The command that mounts and serves until it is unmounted."""

    def settings(self) -> str:
        program, *words = self.serve()
        return " ".join([Path(program).name, *words]).replace(str(self.place), "")

    def mount(self) -> None:
        log = self.place / "log"
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                self.serve(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then unmounts
            )
        self._daemon = daemon
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_mounted(self.mnt):
            if daemon.poll() is not None or time.monotonic() > deadline:
                said = last_lines(log.read_text(errors="replace"))
                raise BenchmarkError(f"{self.name} does not mount: {said}")
            time.sleep(0.01)
        os.stat(self.mnt)  # noqa: PTH116 (waits for the daemon's first answer)

    def unmount(self) -> None:
        run("umount", self.mnt)
        self._wait()

    def abandon(self) -> None:
        super().abandon()
        if self._daemon is None:
            return
        # It ends the processes that it has, which write below `place` until then.
        self._daemon.terminate()
        try:
            self._wait(_SHORT_PATIENCE_SECONDS)
        except BenchmarkError:
            self._daemon.kill()
            with contextlib.suppress(BenchmarkError):
                self._wait()

    def _wait(self, seconds: float = _PATIENCE_SECONDS) -> None:
        if self._daemon is not None:
            try:
                self._daemon.wait(seconds)
            except subprocess.TimeoutExpired as error:
                raise BenchmarkError(f"{self.name} does not end after unmounting") from error
            self._daemon = None


def drop_caches() -> None:
    """Drop all clean pages, directory entries and inodes of the machine (proc_sys_vm(5))."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def is_mounted(path: Path) -> bool:
    """Whether the kernel lists a mount on this path, whose daemon may be dead."""
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return any(line.split()[4] == str(path) for line in lines)


def empty_directory(path: Path) -> Path:
    """A fresh directory that every user may enter."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    path.chmod(0o755)
    return path


def written_image(path: Path, size: int) -> Path:
    """A file of zeros to hold a file system.

    It is written, not sparse, and kept over a whole run, so that the host has no blocks to find
    while a guest is measured.
    """
    if not path.exists():
        block = bytes(1 << 20)
        with path.open("wb") as file:
            for _ in range(size >> 20):
                file.write(block)
            os.fsync(file.fileno())
    return path
