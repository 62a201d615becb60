"""What the checks expect of a call: errors, times, and descriptors that are closed again."""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLOCK_REALTIME_COARSE = 5  # linux/time.h; Python has no name for it
LONG_AGO_NS = 1_000_000_000 * 10**9


@contextmanager
def fails(*errnos: int) -> Iterator[None]:
    """The block must raise OSError with one of these errnos."""
    try:
        yield
    except OSError as error:
        found, wanted = names_of(error.errno), names_of(*errnos)
        assert error.errno in errnos, f"failed with {found}, not {wanted}"
    else:
        raise AssertionError(f"succeeded, expected {names_of(*errnos)}")


def names_of(*errnos: int | None) -> str:
    """ENOENT for 2, and so on."""
    codes = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
    return " or ".join(codes.get(number or 0, str(number)) for number in errnos)


@contextmanager
def opened(path: Path | str | bytes, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[int]:
    """A descriptor that is closed at the end of the block."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def file_clock() -> int:
    """The clock that stamps files, in nanoseconds: it moves in ticks, so it lags behind others."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def next_tick() -> int:
    """Wait until that clock has passed every stamp given so far; returns what it says."""
    latest = time.time_ns()  # where the kernel needs finer stamps it gives them, up to this
    while file_clock() <= latest:
        time.sleep(0.001)
    return file_clock()


@contextmanager
def changes(path: Path | int, *names: str) -> Iterator[None]:
    """The block moves exactly these of mtime and ctime forward, to about now."""
    before = stat_of(path)
    earliest = next_tick()
    yield
    after = stat_of(path)
    for name in ("mtime", "ctime"):
        old, new = getattr(before, f"st_{name}_ns"), getattr(after, f"st_{name}_ns")
        if name in names:
            assert new > old, f"{name} did not move"
            assert earliest <= new <= time.time_ns(), f"{name} is not now"
        else:
            assert new == old, f"{name} moved by {new - old} ns"


def stat_of(path: Path | int) -> os.stat_result:
    """What lstat (of a path) or fstat (of a descriptor) says."""
    return os.fstat(path) if isinstance(path, int) else os.lstat(path)


def mode_of(path: Path) -> int:
    """The twelve permission bits."""
    return os.lstat(path).st_mode & 0o7777


def links_of(path: Path) -> int:
    """The link count."""
    return os.lstat(path).st_nlink


def exists(path: Path) -> bool:
    """Whether the name is there, wherever it may point."""
    return os.path.lexists(path)


def make_file(path: Path, data: bytes = b"content", mode: int = 0o644) -> Path:
    """A file with this content and exactly this mode."""
    path.write_bytes(data)
    path.chmod(mode)
    return path


def make_directory(path: Path, mode: int = 0o755) -> Path:
    """An empty directory with exactly this mode."""
    path.mkdir()
    path.chmod(mode)
    return path


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that differ from page to page and from seed to seed."""
    unit = b"".join(((seed * 7919 + i) % 65521).to_bytes(2, "big") for i in range(3001))
    return (unit * (size // len(unit) + 1))[:size]
