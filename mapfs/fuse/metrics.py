"""Statistics in the text format of Prometheus.

Names and units follow its conventions: base units, `_total` behind counters, one family for each
thing that is counted (https://prometheus.io/docs/practices/naming/).
"""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mapfs.fuse.counters import Timings
from mapfs.fuse.statistics import Snapshot

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# Buckets by powers of two in nanoseconds: from 1 µs to 17 s.
_FIRST_BIT: Final = 10
_LAST_BIT: Final = 34
# What is told of the attributes `user.mapfs.fs.*`, and under which name.
_FILESYSTEM: Final[Mapping[str, tuple[str, str]]] = {
    "stored_bytes": ("stored_bytes", "Bytes of files in allocated pages."),
    "allocated_bytes": ("allocated_bytes", "Bytes in allocated pages."),
    "slack_bytes": ("slack_bytes", "Bytes that mapping whole pages wastes."),
    "slack_tail_bytes": ("slack_tail_bytes", "Slack in the pages that hold the ends of files."),
    "slack_prealloc_bytes": ("slack_prealloc_bytes", "Slack in pages behind the ends of files."),
    "metadata_bytes": ("metadata_bytes", "Bytes of the store file that hold its superblock."),
    "free_bytes": ("free_bytes", "Bytes of the store file that belong to no file."),
    "store_bytes": ("store_bytes", "Size of the store file."),
    "limit_bytes": ("limit_bytes", "What the store file may grow to."),
    "catalog_bytes": ("catalog_bytes", "Bytes in use of the catalog."),
    "page_size": ("page_size_bytes", "Bytes in a page of the store."),
}
_STATES: Final = ("ok", "degraded", "read-only")


def exposition(snapshot: Snapshot, mountpoint: str) -> bytes:
    """The text that a scrape of a mount gets."""
    return generate_latest(_Snapshot(snapshot, mountpoint))


class _Snapshot(Collector):
    """A snapshot as families of metrics."""

    def __init__(self, snapshot: Snapshot, mountpoint: str) -> None:
        self._snapshot = snapshot
        self._mountpoint = mountpoint

    def collect(self) -> Iterator[Metric]:
        """Every family once."""
        yield self._info()
        yield from self._requests()
        yield from self._commits()
        yield from self._bytes()
        yield from self._inode_cache()
        yield from self._filesystem()
        yield from self._process()

    def _info(self) -> Metric:
        info = GaugeMetricFamily("mapfs_info", "What is mounted where.", labels=_INFO_LABELS)
        found = self._snapshot
        values = (found.version, found.transport, found.store or "", self._mountpoint)
        info.add_metric([_text(value) for value in values], 1)
        return info

    def _requests(self) -> Iterator[Metric]:
        labels = ("operation",)
        total = CounterMetricFamily("mapfs_requests", "Requests that were answered.", labels=labels)
        errors = CounterMetricFamily(
            "mapfs_request_errors", "Requests that were answered with an error.", labels=labels
        )
        durations = HistogramMetricFamily(
            "mapfs_request_duration_seconds",
            "From reading a request to having answered it.",
            labels=labels,
        )
        for operation, timings in sorted(self._snapshot.operations.items()):
            total.add_metric([operation], timings.count)
            errors.add_metric([operation], timings.errors)
            durations.add_metric([operation], _buckets(timings), timings.nanoseconds / 1e9)
        return iter((total, errors, durations))

    def _commits(self) -> Iterator[Metric]:
        commits = self._snapshot.commits
        yield HistogramMetricFamily(
            "mapfs_commit_duration_seconds",
            "How long commits took.",
            buckets=_buckets(commits),
            sum_value=commits.nanoseconds / 1e9,
        )
        yield CounterMetricFamily("mapfs_commit_failures", "Commits that failed.", commits.errors)
        yield CounterMetricFamily(
            "mapfs_log_syncs",
            "How often the log alone made everything durable.",
            self._snapshot.log_syncs,
        )

    def _bytes(self) -> Iterator[Metric]:
        counted = self._snapshot.bytes
        yield _counter_by(
            "pages",
            "mapfs_read_bytes",
            "Bytes of files that were read, by whether their pages were in memory.",
            {"resident": counted.read - counted.cold, "cold": counted.cold},
        )
        yield CounterMetricFamily(
            "mapfs_written_bytes", "Bytes of files that were written.", counted.written
        )

    def _inode_cache(self) -> Iterator[Metric]:
        cache = self._snapshot.inode_cache
        yield CounterMetricFamily(
            "mapfs_inode_cache_hits", "Inodes that were found in the cache.", cache.hits
        )
        yield CounterMetricFamily(
            "mapfs_inode_cache_misses", "Inodes that were not found in the cache.", cache.misses
        )
        yield GaugeMetricFamily(
            "mapfs_inode_cache_inodes", "Inodes that the cache holds.", cache.inodes
        )

    def _filesystem(self) -> Iterator[Metric]:
        values = self._snapshot.filesystem
        for key, (name, description) in _FILESYSTEM.items():
            yield GaugeMetricFamily(f"mapfs_{name}", description, int(values[key]))
        state = GaugeMetricFamily(
            "mapfs_state", "Whether the filesystem is in this state.", labels=("state",)
        )
        for each in _STATES:
            state.add_metric([each], values["state"] == each)
        yield state

    def _process(self) -> Iterator[Metric]:
        process, found = self._snapshot.process, self._snapshot
        gauges = {
            "windows": (process.windows, "Windows of the store file that are mapped."),
            "address_space_bytes": (process.address_space_bytes, "What these windows take."),
            "page_table_bytes": (process.page_table_bytes, "Page tables of the daemon."),
            "resident_memory_bytes": (process.resident_bytes, "Resident memory of the daemon."),
            "threads": (process.threads, "Threads of the daemon."),
            "start_time_seconds": (
                found.time - found.uptime_seconds,
                "When the process began to serve, since the epoch.",
            ),
        }
        for name, (value, description) in gauges.items():
            yield GaugeMetricFamily(f"mapfs_{name}", description, value)
        yield from self._windows()
        yield _counter_by(
            "kind",
            "mapfs_page_faults",
            "Page faults of the daemon.",
            {"minor": process.minor_faults, "major": process.major_faults},
        )
        yield CounterMetricFamily(
            "mapfs_takeovers", "Processes that served the mount before.", found.takeovers
        )

    def _windows(self) -> Iterator[Metric]:
        process = self._snapshot.process
        yield _counter_by(
            "kind",
            "mapfs_window_changes",
            "Windows that were mapped and unmapped.",
            {"mapped": process.windows_mapped, "unmapped": process.windows_unmapped},
        )
        yield CounterMetricFamily(
            "mapfs_window_seconds",
            "Time that took, page faults not counted.",
            process.window_seconds,
        )


def _counter_by(label: str, name: str, description: str, values: Mapping[str, float]) -> Metric:
    """A counter with one sample for each value of a label."""
    counter = CounterMetricFamily(name, description, labels=(label,))
    for value, count in values.items():
        counter.add_metric([value], count)
    return counter


_INFO_LABELS: Final = ("version", "transport", "store", "mountpoint")


def _buckets(timings: Timings) -> list[tuple[str, float]]:
    """How many durations were at most as long as each bound, in seconds."""
    buckets: list[tuple[str, float]] = []
    below = sum(timings.buckets[:_FIRST_BIT])
    for bits in range(_FIRST_BIT, _LAST_BIT + 1):
        below += timings.buckets[bits] if bits < len(timings.buckets) else 0
        buckets.append((repr((1 << bits) / 1e9), below))
    return [*buckets, ("+Inf", timings.count)]


def _text(value: str) -> str:
    """A path as UTF-8 can have it."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
