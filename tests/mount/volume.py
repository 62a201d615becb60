"""A store of the `mapfs` command with its mount point and log, and running the command."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MAPFS = Path(sys.executable).with_name("mapfs")
both_transports = pytest.mark.parametrize("transport", ["wire", "pyfuse3"])
Finished = subprocess.CompletedProcess[str]
_PATIENCE_SECONDS = 60


def run(*command: str | Path | int, status: int = 0, **options: Any) -> Finished:
    """Run a program; fails with all that it said unless it exits with `status`."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, errors="surrogateescape", **options
    )
    said = done.stdout[-3000:] + done.stderr[-3000:]
    assert done.returncode == status, f"{shlex.join(words)}: exit code {done.returncode}\n{said}"
    return done


def mapfs(*words: str | Path | int, status: int = 0, **options: Any) -> Finished:
    """Run the `mapfs` command."""
    return run(MAPFS, *words, status=status, **options)


def refusal(done: Finished) -> str:
    """The error message of a command that failed as a command should: in one line."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    assert lines[0].startswith("mapfs: ")
    return lines[0]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll a condition; fails after a minute."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


@dataclass
class Volume:
    """One store, the directory it is mounted on, and what its daemon logs."""

    store: Path
    mnt: Path
    log: Path
    transport: str = "auto"
    ephemeral: bool = False

    def mkfs(self, *options: str | Path | int) -> None:
        """Make the store, up to 8 GiB if `options` do not say."""
        size = [] if "--size" in options or "--backing" in options else ["--size", "8G"]
        mapfs("mkfs", self.store, *size, *options)

    def mount(self, *options: str | Path | int, **how: Any) -> Path:
        """Mount the store and return the mount point."""
        transport = ("--transport", self.transport)
        mapfs("mount", self.store, self.mnt, "--log", self.log, *transport, *options, **how)
        return self.mnt

    def umount(self) -> None:
        """Unmount through the command; everything is on disk then."""
        mapfs("umount", self.mnt)
        self.wait_for_end()

    def remount(self, *options: str | Path | int) -> Path:
        """Unmount and mount again: nothing the kernel or the daemon cached is left."""
        self.umount()
        return self.mount(*options)

    def fsck(self) -> None:
        """Check the store, which must not be mounted."""
        done = mapfs("fsck", self.store)
        assert "clean" in done.stdout

    @property
    def mounted(self) -> bool:
        """Whether the kernel lists the mount; its daemon may be dead."""
        return any(line.split()[4] == _escaped(self.mnt) for line in _mountinfo())

    @property
    def daemons(self) -> set[int]:
        """The processes that serve the mount, or served it and have not ended yet."""
        return _processes_with_argument(self.mnt) | self.lock_holders

    @property
    def daemon(self) -> int:
        """The process that serves the mount: its worker, if it has a supervisor."""
        (pid,) = self.lock_holders or self.daemons
        return pid

    @property
    def lock_holders(self) -> set[int]:
        """The processes that have the store open."""
        return _lock_holders(self.store / "lock")

    @property
    def supervisor(self) -> int:
        """The process that keeps the mount when its worker dies."""
        (pid,) = self.daemons - {self.daemon}
        return pid

    def kill_daemon(self) -> None:
        """Let all that serves the mount end as by the OOM killer; the mount is left, and dead."""
        daemon = self.daemon
        for pid in [*(self.daemons - {daemon}), daemon]:
            os.kill(pid, signal.SIGKILL)
        self.wait_for_end()

    def kill(self) -> None:
        """Let the daemon end as by the OOM killer, and take the dead mount away."""
        self.kill_daemon()
        mapfs("umount", self.mnt)

    def wait_for_end(self) -> None:
        """Wait for the daemon to be gone."""
        wait_until(lambda: not self.daemons, "the daemon to end")

    def check(self) -> None:
        """At the end of a test: unmounts cleanly, the store is good, nothing was logged as bad."""
        if self.mounted:
            self.umount()
        self.wait_for_end()
        if not self.ephemeral:
            self.fsck()
        logged = self.log.read_text() if self.log.exists() else ""
        assert "ERROR" not in logged, logged
        assert "Traceback" not in logged, logged

    def clean_up(self) -> None:
        """Leave no mount and no process behind, whatever happened."""
        if self.mounted:
            subprocess.run(["fusermount3", "-u", self.mnt], check=False, capture_output=True)
        if self.mounted:
            subprocess.run(["umount", "-l", self.mnt], check=False, capture_output=True)
        for pid in self.daemons:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()


def mount_line(mnt: Path) -> str:
    """What the kernel says of the mount at `mnt` (proc_pid_mountinfo(5))."""
    return next(line for line in _mountinfo() if line.split()[4] == _escaped(mnt))


def _escaped(path: Path) -> str:
    text = str(path)
    for character in "\\ \t\n":
        text = text.replace(character, f"\\{ord(character):03o}")
    return text


def _processes_with_argument(path: Path) -> set[int]:
    """The `mapfs` processes that were started for this path."""
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and _has_argument(entry, os.fsencode(path))
    }


def _has_argument(process: Path, path: bytes) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")  # empty for a zombie
    except OSError:
        return False
    return path in words and any(os.path.basename(word) in _COMMANDS for word in words)


_COMMANDS = (b"mapfs", b"mount.fuse.mapfs", b"mapfs.cli.resume", b"dying_daemon.py")


def _lock_holders(lock: Path) -> set[int]:
    """The processes that hold an flock on a file (proc_locks(5))."""
    if not lock.exists():
        return set()
    inode = str(lock.stat().st_ino)
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {
        int(words[-4])
        for words in lines
        if "FLOCK" in words and "->" not in words and words[-3].rsplit(":", 1)[-1] == inode
    }


@contextlib.contextmanager
def process(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that runs beside the test, at the latest until the block ends."""
    started = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield started
    finally:
        for stream in (started.stdin, started.stdout, started.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            started.wait(timeout=10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
