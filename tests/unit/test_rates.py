"""What happened between two snapshots."""

from dataclasses import replace

import pytest

from mapfs.filesystem.inode import CacheUse
from mapfs.fuse.counters import Timings
from mapfs.fuse.statistics import Bytes, FileUse
from mapfs.monitor.rates import rates_between
from mapfs.monitor.tables import file_rows, format_seconds, path_label, rate_rows, summary_rows
from tests.unit.test_metrics import SNAPSHOT

LATER = replace(
    SNAPSHOT,
    time=1010.0,
    uptime_seconds=110.0,
    operations={
        **SNAPSHOT.operations,
        "read": Timings(26, 2, 4_000_000, (0,) * 9 + (1, 22) + (0,) * 9 + (3,)),
        "mkdir": Timings(10, 5, 10_000, (0,) * 10 + (10,)),
    },
    bytes=Bytes(read=1100, cold=530, written=50),
    inode_cache=CacheUse(hits=100, misses=13, inodes=2),
    process=replace(SNAPSHOT.process, minor_faults=104),
    filesystem={**SNAPSHOT.filesystem, "slack_bytes": 1003},
)


def test_rates_of_one_process() -> None:
    rates = rates_between(SNAPSHOT, LATER)
    assert rates.seconds == 10
    read, write = rates.operations["read"], rates.operations["write"]
    assert (read.per_second, read.errors_per_second) == (2, 0.1)
    assert read.p50_seconds == pytest.approx(0.77e-6, rel=0.1)
    assert (write.per_second, write.p99_seconds) == (0, None)
    assert rates.operations["mkdir"].per_second == 1
    assert rates.resident_bytes_per_second == 50
    assert rates.cold_bytes_per_second == 50
    assert rates.written_bytes_per_second == 0
    assert rates.minor_faults_per_second == 10
    assert rates.inode_cache_hit_share == 0.9
    assert rates.slack_bytes_per_second == 100
    assert rates.filesystem["slack_bytes"] == 1003


def test_nothing_happened() -> None:
    rates = rates_between(SNAPSHOT, replace(SNAPSHOT, time=1001.0, uptime_seconds=101.0))
    assert {rate.per_second for rate in rates.operations.values()} == {0}
    assert rates.inode_cache_hit_share is None
    assert [row[0] for row in rate_rows(rates)] == ["(commits)"]
    assert dict(summary_rows(rates))["inode cache"] == "-"


def test_another_process_began_anew() -> None:
    process = replace(LATER.process, pid=2, minor_faults=3)
    other = replace(LATER, process=process, uptime_seconds=5.0, takeovers=3)
    rates = rates_between(SNAPSHOT, other)
    assert rates.seconds == 5
    assert rates.operations["read"].per_second == 26 / 5
    assert rates.minor_faults_per_second == 3 / 5
    assert rates.slack_bytes_per_second == 100


def test_rows_are_in_the_order_asked_for() -> None:
    rates = rates_between(SNAPSHOT, LATER)
    assert [row[0] for row in rate_rows(rates)] == ["read", "mkdir", "(commits)"]
    assert [row[0] for row in rate_rows(rates, "errors")] == ["mkdir", "read", "(commits)"]
    one = FileUse(1, "one", 5, 10, 4096, 4086, 4096, None)
    other = FileUse(2, None, 3, 20, 4096, 4076, 8192, 4096)
    assert [row[0] for row in file_rows([one, other])] == ["one", "inode 2"]
    for order in ("size", "resident", "dirty"):
        assert [row[0] for row in file_rows([one, other], order)] == ["inode 2", "one"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (2.5, "2.5 s"), (0.0123, "12.3 ms"), (45e-6, "45 µs"), (1e-9, "0.001 µs")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert format_seconds(seconds) == shown


def test_what_a_terminal_can_take() -> None:
    assert path_label("d/é\x1b[31m\udcff", 1) == r"d/é\x1b[31m\xff"
    assert path_label("", 1) == "/"
    assert path_label(None, 17) == "inode 17"
