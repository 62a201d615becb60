"""A memory cgroup of our own, for processes that shall have less memory than a file takes.

cgroup v2 (Documentation/admin-guide/cgroup-v2.rst in the kernel's sources) or, where memory is
still there, v1 (cgroup-v1/memory.rst). Page cache counts for the process that brings it in.
"""

import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from mapfs.claims.claim import CannotMeasureError

_PATIENCE_SECONDS: Final = 5


class MemoryLimit(Protocol):
    """What a process enters to have less memory from then on; `kind` says by what."""

    kind: str

    def enter(self) -> None:
        """Limit the process that calls this. Raises `OSError`."""


class CgroupLimit:
    """A memory cgroup with a limit."""

    kind = "a memory cgroup"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def enter(self) -> None:
        """Move this process into it: what it has keeps its place, what it takes is limited."""
        (self._directory / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Remove it: a cgroup takes a moment to be empty after its last process ended."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self._directory.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


class DataLimit:
    """A limit on what a process has for itself, where there can be no cgroup.

    RLIMIT_DATA (setrlimit(2)) does not count page cache. But to read a file into memory takes more
    than it allows, and to map it does not.
    """

    kind = "RLIMIT_DATA"

    def __init__(self, size: int) -> None:
        self._size = size

    def enter(self) -> None:
        """Allow this process `size` bytes in addition to what it has."""
        status = Path("/proc/self/status").read_text()
        has = int(status.partition("VmData:")[2].split()[0]) << 10
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (has + self._size, hard))


class _Hierarchy(NamedTuple):
    """Where the kernel shows a hierarchy, which group this process is in, and the limit's file."""

    root: Path
    group: Path
    limit: str


@contextlib.contextmanager
def cgroup_limit(size: int) -> Iterator[CgroupLimit]:
    """A cgroup that allows `size` bytes, removed at the end: nothing may run in it then.

    Raises `CannotMeasureError` if this process may not make one.
    """
    directory = _make(size)
    limit = CgroupLimit(directory)
    try:
        yield limit
    finally:
        limit.remove()


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[MemoryLimit]:
    """A cgroup that allows `size` bytes, or else a limit on what a process has for itself."""
    with contextlib.ExitStack() as stack:
        try:
            limit: MemoryLimit = stack.enter_context(cgroup_limit(size))
        except CannotMeasureError:
            limit = DataLimit(size)
        yield limit


def _make(size: int) -> Path:
    """In the group of this process, or the nearest above it where that is possible."""
    reason = "the kernel has no memory cgroups here"
    for hierarchy in _hierarchies():
        for parent in (hierarchy.group, *hierarchy.group.parents):
            try:
                return _limited(parent, hierarchy.limit, size)
            except OSError as error:
                reason = f"no memory cgroup can be made ({error.strerror}: {parent})"
            if parent == hierarchy.root:
                break
    raise CannotMeasureError(reason)


def _limited(parent: Path, name: str, size: int) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="mapfs-bench-", dir=parent))
    try:
        with (directory / name).open("r+") as file:  # there only if memory is controlled
            file.write(str(size))
        if not os.access(directory / "cgroup.procs", os.W_OK):
            raise PermissionError(1, "not permitted")
    except OSError:
        directory.rmdir()
        raise
    return directory


def _hierarchies() -> Iterator[_Hierarchy]:
    """The ones of cgroups(7) that may control memory."""
    mounts = dict(_mounted())
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if "memory" in controllers.split(",") and "memory" in mounts:
            root = mounts["memory"]
            yield _Hierarchy(root, root / group.lstrip("/"), "memory.limit_in_bytes")
        elif not controllers and "" in mounts:
            yield _Hierarchy(mounts[""], mounts[""] / group.lstrip("/"), "memory.max")


def _mounted() -> Iterator[tuple[str, Path]]:
    """The mounts of hierarchies: `memory` of v1, and without a name v2."""
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            yield "memory", Path(place)
        elif kind == "cgroup2":
            yield "", Path(place)
