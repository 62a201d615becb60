"""What the table runs on: tmpfs, which shows that the checks are right, and mapfs both ways."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.register_assert_rewrite("tests.posix.checks", "tests.posix.expect")

MAPFS = Path(sys.executable).with_name("mapfs")
# What each transport, with further options, cannot carry (docs/architecture.md).
LACKS = {
    "wire": frozenset[str](),
    "wire,cache=writethrough": frozenset[str](),
    "pyfuse3": frozenset(
        {
            "attribute_flags",
            "birth",
            "fallocate",
            "noatime_flag",
            "seek_hole",
            "setgid_of_others",
            "tmpfile",
        }
    ),
}


class Subject(NamedTuple):
    """A mounted filesystem to run the table on."""

    directory: Path
    lacks: frozenset[str]
    slow: bool = True  # whether checks that take long are worth it


@pytest.fixture(
    scope="session",
    params=["tmpfs", *(pytest.param(name, marks=pytest.mark.mount) for name in LACKS)],
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """One mount for all checks; each works in a directory of its own."""
    # pytest's own temporary directories keep other users out.
    with tempfile.TemporaryDirectory(prefix="mapfs-posix-") as name:
        base = Path(name)
        base.chmod(0o755)
        tested = _tmpfs(base) if request.param == "tmpfs" else _mapfs(base, request.param)
        with tested as subject:
            yield subject


@contextmanager
def _tmpfs(base: Path) -> Iterator[Subject]:
    if os.geteuid() != 0:
        with tempfile.TemporaryDirectory(prefix="mapfs-posix-", dir="/dev/shm") as shm:
            yield Subject(Path(shm), _what_tmpfs_lacks(Path(shm)))
        return
    mount = base / "mnt"
    mount.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "inode64,size=2G,mode=755", "mapfs-posix", mount)
    try:
        yield Subject(mount, _what_tmpfs_lacks(mount))
    finally:
        _run("umount", mount)


def _what_tmpfs_lacks(directory: Path) -> frozenset[str]:
    probe = directory / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"")
    except OSError:
        # Before Linux 6.6.
        return frozenset({"user_xattr"})
    finally:
        probe.unlink()
    return frozenset()


@contextmanager
def _mapfs(base: Path, transport: str) -> Iterator[Subject]:
    store, mount = base / "posix.mapfs", base / "mnt"
    mount.mkdir()
    _run(MAPFS, "mkfs", store, "--size", "4G")
    # fusermount3 lets only root share a mount, and only root's checks act as other users.
    others = ["--allow-other"] if os.geteuid() == 0 else []
    _run(MAPFS, "mount", store, mount, "-o", f"transport={transport}", *others)
    try:
        yield Subject(mount, LACKS[transport], slow=transport == "wire")
    finally:
        _run(MAPFS, "umount", mount)
    _run(MAPFS, "fsck", store)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = f"{done.stdout}{done.stderr}".strip()
    assert done.returncode == 0, f"{shutil.which(command[0]) or command[0]}: {said}"
