"""What happened on a mount between two snapshots of it. Pure; seconds and bytes."""

from dataclasses import asdict, dataclass
from typing import Any

from mapfs.fuse.counters import Timings
from mapfs.fuse.statistics import Bytes, FileUse, Snapshot


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

    `slack_change` is bytes for each second.
    """

    seconds: float
    operations: dict[str, Rate]
    commits: Rate
    resident_bytes_per_second: float
    cold_bytes_per_second: float
    written_bytes_per_second: float
    minor_faults_per_second: float
    major_faults_per_second: float
    inode_cache_hit_share: float | None
    slack_bytes: int
    slack_change: float
    allocated_bytes: int
    store_bytes: int
    windows: int
    address_space_bytes: int
    page_table_bytes: int
    process_resident_bytes: int
    pid: int
    takeovers: int
    state: str
    files: tuple[FileUse, ...]

    def as_json(self) -> dict[str, Any]:
        """The rates as JSON has them."""
        return asdict(self)


def rates_between(before: Snapshot, after: Snapshot) -> Rates:
    """What happened from one snapshot to the next.

    If another process has taken over in between, it is what that one has done so far.
    """
    is_same = before.process.pid == after.process.pid
    seconds = after.uptime_seconds - (before.uptime_seconds if is_same else 0)
    seconds = max(seconds, 1e-9)
    counted = _bytes_between(before.bytes, after.bytes) if is_same else after.bytes
    operations = {
        name: _rate(_since(before.operations.get(name) if is_same else None, timings), seconds)
        for name, timings in after.operations.items()
    }
    faults = [after.process.minor_faults, after.process.major_faults]
    if is_same:
        faults[0] -= before.process.minor_faults
        faults[1] -= before.process.major_faults
    return Rates(
        seconds=seconds,
        operations=operations,
        commits=_rate(_since(before.commits if is_same else None, after.commits), seconds),
        resident_bytes_per_second=(counted.read - counted.cold) / seconds,
        cold_bytes_per_second=counted.cold / seconds,
        written_bytes_per_second=counted.written / seconds,
        minor_faults_per_second=faults[0] / seconds,
        major_faults_per_second=faults[1] / seconds,
        inode_cache_hit_share=_hit_share(before if is_same else None, after),
        slack_bytes=_bytes(after, "slack_bytes"),
        slack_change=(_bytes(after, "slack_bytes") - _bytes(before, "slack_bytes"))
        / max(after.time - before.time, 1e-9),
        allocated_bytes=_bytes(after, "allocated_bytes"),
        store_bytes=_bytes(after, "store_bytes"),
        windows=after.process.windows,
        address_space_bytes=after.process.address_space_bytes,
        page_table_bytes=after.process.page_table_bytes,
        process_resident_bytes=after.process.resident_bytes,
        pid=after.process.pid,
        takeovers=after.takeovers,
        state=str(after.filesystem["state"]),
        files=after.files,
    )


def _bytes(snapshot: Snapshot, name: str) -> int:
    return int(snapshot.filesystem[name])


def _bytes_between(before: Bytes, after: Bytes) -> Bytes:
    return Bytes(after.read - before.read, after.cold - before.cold, after.written - before.written)


def _since(before: Timings | None, after: Timings) -> Timings:
    if before is None:
        return after
    padded = before.buckets + (0,) * (len(after.buckets) - len(before.buckets))
    return Timings(
        after.count - before.count,
        after.errors - before.errors,
        after.nanoseconds - before.nanoseconds,
        tuple(new - old for new, old in zip(after.buckets, padded, strict=True)),
    )


def _rate(timings: Timings, seconds: float) -> Rate:
    return Rate(
        timings.count / seconds,
        timings.errors / seconds,
        timings.quantile(0.5),
        timings.quantile(0.9),
        timings.quantile(0.99),
    )


def _hit_share(before: Snapshot | None, after: Snapshot) -> float | None:
    hits, misses = after.inode_cache.hits, after.inode_cache.misses
    if before is not None:
        hits -= before.inode_cache.hits
        misses -= before.inode_cache.misses
    return hits / (hits + misses) if hits + misses else None
