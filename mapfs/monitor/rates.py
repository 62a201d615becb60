"""What happened on a mount between two snapshots of it. Pure; seconds and bytes."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from mapfs.filesystem.inode import CacheUse
from mapfs.fuse.counters import Timings
from mapfs.fuse.statistics import Bytes, FileUse, Process, Snapshot

# Clocks may say that no time has passed.
_LEAST_SECONDS: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something was done in a second, how often it failed, and how long it took.

    The quantiles are seconds, exact to within a factor of two; None if it was not done.
    """

    per_second: float
    errors_per_second: float
    p50_seconds: float | None
    p90_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """A mount in one interval of so many `seconds`, and how it was at its end.

    `process`, `filesystem` and `files` are as in a `Snapshot`.
    """

    seconds: float
    operations: dict[str, Rate]
    commits: Rate
    resident_bytes_per_second: float
    cold_bytes_per_second: float
    written_bytes_per_second: float
    minor_faults_per_second: float
    major_faults_per_second: float
    slack_bytes_per_second: float
    inode_cache_hit_share: float | None
    takeovers: int
    process: Process
    filesystem: dict[str, int | str]
    files: tuple[FileUse, ...]

    def as_json(self) -> dict[str, Any]:
        """The rates as JSON has them."""
        return asdict(self)


def rates_between(before: Snapshot, after: Snapshot) -> Rates:
    """What happened from one snapshot to the next.

    If another process has taken over in between, it is what that one has done so far.
    """
    slack = int(after.filesystem["slack_bytes"]) - int(before.filesystem["slack_bytes"])
    slack_seconds = max(after.time - before.time, _LEAST_SECONDS)
    if before.process.pid != after.process.pid:
        before = _beginning(after)
    seconds = max(after.uptime_seconds - before.uptime_seconds, _LEAST_SECONDS)
    counted = _bytes_between(before.bytes, after.bytes)
    faults, faults_before = after.process, before.process
    return Rates(
        seconds=seconds,
        operations={
            name: _rate(before.operations.get(name, Timings()), timings, seconds)
            for name, timings in after.operations.items()
        },
        commits=_rate(before.commits, after.commits, seconds),
        resident_bytes_per_second=(counted.read - counted.cold) / seconds,
        cold_bytes_per_second=counted.cold / seconds,
        written_bytes_per_second=counted.written / seconds,
        minor_faults_per_second=(faults.minor_faults - faults_before.minor_faults) / seconds,
        major_faults_per_second=(faults.major_faults - faults_before.major_faults) / seconds,
        slack_bytes_per_second=slack / slack_seconds,
        inode_cache_hit_share=_hit_share(before.inode_cache, after.inode_cache),
        takeovers=after.takeovers,
        process=after.process,
        filesystem=after.filesystem,
        files=after.files,
    )


def _beginning(snapshot: Snapshot) -> Snapshot:
    """How the counters of a snapshot were when its process began."""
    return replace(
        snapshot,
        uptime_seconds=0.0,
        operations={},
        commits=Timings(),
        bytes=Bytes(0, 0, 0),
        inode_cache=CacheUse(0, 0, 0),
        process=replace(snapshot.process, minor_faults=0, major_faults=0),
    )


def _bytes_between(before: Bytes, after: Bytes) -> Bytes:
    return Bytes(after.read - before.read, after.cold - before.cold, after.written - before.written)


def _rate(before: Timings, after: Timings, seconds: float) -> Rate:
    padded = before.buckets + (0,) * (len(after.buckets) - len(before.buckets))
    buckets = tuple(new - old for new, old in zip(after.buckets, padded, strict=True))
    done = Timings(after.count - before.count, buckets=buckets)
    return Rate(
        done.count / seconds,
        (after.errors - before.errors) / seconds,
        done.quantile(0.5),
        done.quantile(0.9),
        done.quantile(0.99),
    )


def _hit_share(before: CacheUse, after: CacheUse) -> float | None:
    hits, misses = after.hits - before.hits, after.misses - before.misses
    return hits / (hits + misses) if hits + misses else None
