"""The directory that holds everything a run makes, and taking it away again."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from benchmark.programs import BenchmarkError, run


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A directory in `parent`, gone at the end, also on Ctrl-C and SIGTERM.

    Whatever is still mounted in it is unmounted first. Raises `BenchmarkError` if that fails;
    then nothing is removed. The same if it cannot be made.
    """
    signal.signal(signal.SIGTERM, _end)
    try:
        path = Path(tempfile.mkdtemp(prefix="mapfs-bench-", dir=parent)).resolve()
    except OSError as error:
        raise BenchmarkError(f"{parent}: {error.strerror}") from error
    path.chmod(0o755)  # PostgreSQL runs as another user
    try:
        yield path
    finally:
        _end_children()
        for mountpoint in _mounts_below(path):
            run("umount", "--lazy", mountpoint)
        if _mounts_below(path):
            raise BenchmarkError(f"something is still mounted below {path}")
        shutil.rmtree(path)


def _end_children() -> None:
    """End what was just being started when Ctrl-C came: nobody knows of it, and it writes."""
    own = os.getpid()
    for pid in map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split()):
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _end(signum: int, _: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _mounts_below(path: Path) -> list[str]:
    """The innermost first."""
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    points = [line.split()[4] for line in lines]
    return sorted((each for each in points if Path(each).is_relative_to(path)), reverse=True)
