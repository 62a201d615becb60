"""What a mount has done and what it holds, as one frozen snapshot.

The counters begin anew with each process that serves the mount.
"""

import heapq
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from mapfs import __version__
from mapfs.errors import MapfsError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.filesystem.inode import CacheUse
from mapfs.filesystem.slack import slack_bytes
from mapfs.format.records import ROOT_INODE
from mapfs.fuse.commits import Committer
from mapfs.fuse.counters import Timings
from mapfs.fuse.transport import ServingTransport

_STATUS: Final = Path("/proc/self/status")
_STAT: Final = Path("/proc/self/stat")
_FILESYSTEM: Final = b"user.mapfs.fs.json"
# The page cache is asked once for each.
_MOST_EXTENTS: Final = 256


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of files that were read and written; `cold` are those read that were not in memory."""

    read: int
    cold: int
    written: int


@dataclass(frozen=True, slots=True)
class Process:
    """The process that serves the mount: its memory in bytes, and what mapping costs it.

    `windows` is the number of its mappings of the store file, which with what is pinned take
    `address_space_bytes`. Mapping and unmapping so many has taken `window_seconds`.
    """

    pid: int
    resident_bytes: int
    page_table_bytes: int
    minor_faults: int
    major_faults: int
    threads: int
    windows: int
    address_space_bytes: int
    windows_mapped: int
    windows_unmapped: int
    window_seconds: float


@dataclass(frozen=True, slots=True)
class FileUse:
    """A file that was read or written of late.

    `accesses` is its part of the last 1,024 READs and WRITEs. `path` is None if it has no name.
    What of it is in memory is None if it has too many extents to look at each, and what is dirty
    also before Linux 6.5.
    """

    inode: int
    path: str | None
    accesses: int
    bytes: int
    allocated_bytes: int
    slack_bytes: int
    resident_bytes: int | None
    dirty_bytes: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A mount at one moment.

    `time` is seconds since the epoch; `uptime_seconds` how long this process has served. Of
    `takeovers` each replaced the process before. `filesystem` has the attributes `user.mapfs.fs.*`.
    """

    version: str
    transport: str
    store: str | None
    time: float
    uptime_seconds: float
    takeovers: int
    operations: dict[str, Timings]
    commits: Timings
    log_syncs: int
    bytes: Bytes
    inode_cache: CacheUse
    process: Process
    filesystem: dict[str, int | str]
    files: tuple[FileUse, ...]

    def as_json(self) -> dict[str, Any]:
        """The snapshot as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Snapshot":
        """What `as_json` made. Raises `TypeError` or `KeyError` if another version made it."""
        operations = {name: _timings(each) for name, each in values["operations"].items()}
        return cls(
            **{
                **values,
                "operations": operations,
                "commits": _timings(values["commits"]),
                "bytes": Bytes(**values["bytes"]),
                "inode_cache": CacheUse(**values["inode_cache"]),
                "process": Process(**values["process"]),
                "files": tuple(FileUse(**each) for each in values["files"]),
            }
        )


def _timings(values: Mapping[str, Any]) -> Timings:
    return Timings(**{**values, "buckets": tuple(values["buckets"])})


class Statistics:
    """Takes snapshots of one mount. Belongs to the filesystem's thread."""

    def __init__(
        self,
        filesystem: Filesystem,
        committer: Committer,
        transport: ServingTransport,
        *,
        store: Path | None,
        takeovers: int,
    ) -> None:
        """`store` is the bundle, None for a filesystem in memory."""
        self._filesystem = filesystem
        self._committer = committer
        self._transport = transport
        self._store = store
        self._takeovers = takeovers
        self._begun = time.monotonic()

    def snapshot(self, files: tuple[FileUse, ...] = ()) -> Snapshot:
        """How the mount is now, and what `files` returned."""
        self._transport.collect()
        counters = self._transport.counters
        return Snapshot(
            version=__version__,
            transport=self._transport.name,
            store=None if self._store is None else str(self._store),
            time=time.time(),
            uptime_seconds=time.monotonic() - self._begun,
            takeovers=self._takeovers,
            operations=counters.operations(),
            commits=self._committer.commits,
            log_syncs=self._committer.log_syncs,
            bytes=Bytes(counters.read_bytes, counters.cold_bytes, counters.written_bytes),
            inode_cache=self._filesystem.cache_use,
            process=self._process(),
            filesystem=json.loads(self._filesystem.getxattr(ROOT_INODE, _FILESYSTEM)),
            files=files,
        )

    def _process(self) -> Process:
        status = dict(line.split(":\t", 1) for line in _STATUS.read_text().splitlines())
        # The name, in parentheses, may have anything in it (proc_pid_stat(5)).
        fields = _STAT.read_text().rpartition(")")[2].split()
        mapping = self._filesystem.store.backing.statistics()
        return Process(
            pid=int(status["Pid"]),
            resident_bytes=_kilobytes(status["VmRSS"]),
            page_table_bytes=_kilobytes(status["VmPTE"]),
            minor_faults=int(fields[7]),
            major_faults=int(fields[9]),
            threads=int(status["Threads"]),
            windows=mapping.windows,
            address_space_bytes=mapping.address_space_bytes,
            windows_mapped=mapping.mapped,
            windows_unmapped=mapping.unmapped,
            window_seconds=mapping.mapping_seconds + mapping.unmapping_seconds,
        )

    async def files(self, most: int) -> tuple[FileUse, ...]:
        """Up to so many of the files that were used most of late; the larger of those alike.

        Others get a turn after each: to see what of a file is in memory takes a while.
        """
        found: list[FileUse] = []
        for accesses, _, number in heapq.nlargest(most, self._used()):
            with suppress(MapfsError):  # it is gone by now
                found.append(self._file(number, accesses))
            await trio.lowlevel.checkpoint()
        return tuple(found)

    def _used(self) -> Iterator[tuple[int, int, int]]:
        """The accesses, pages and number of each file that was used of late and is still there."""
        for number, accesses in Counter(self._transport.counters.recent).items():
            with suppress(MapfsError):
                yield accesses, self._filesystem.inode(number).pages, number

    def _file(self, number: int, accesses: int) -> FileUse:
        inode = self._filesystem.inode(number)
        path = self._filesystem.path_of(number)
        page_size = self._filesystem.store.page_size
        resident: int | None = None
        dirty: int | None = None
        if inode.extents <= _MOST_EXTENTS:
            resident, dirty = self._filesystem.cached_bytes(number)
        return FileUse(
            number,
            None if path is None else path.decode("utf-8", "surrogateescape"),
            accesses,
            inode.size,
            inode.pages * page_size,
            slack_bytes(inode, page_size),
            resident,
            dirty,
        )


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) << 10
