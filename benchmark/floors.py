"""What mapfs is to reach in each measurement, and whether it did."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from benchmark.results import Results
from benchmark.summary import best_peer, ratio


class Floor(NamedTuple):
    """The least ratio of speeds, against the best FUSE peer and against native ext4."""

    peer: float
    ext4: float


FLOORS: Final[dict[str, Floor]] = {
    "stat, warm": Floor(1.0, 0.9),
    "sequential read, warm": Floor(1.0, 0.6),
    "4 KiB mapped random reads, warm": Floor(1.0, 0.6),
    "sequential read, cold": Floor(1.5, 0.9),
    "sequential write, 1 MiB, fsync at the end": Floor(1.2, 0.7),
    "4 KiB sequential writes, fsync at the end": Floor(1.5, 0.9),
    "4 KiB random writes, fsync at the end": Floor(1.5, 0.9),
    "4 KiB random write + fsync, 1 job": Floor(1.2, 0.8),
    "4 KiB random write + fsync, 16 jobs": Floor(1.2, 0.8),
    "create + write 3 kB + close": Floor(1.1, 0.15),
    "open + read + close, just written": Floor(5, 0.8),
    "open + read + close, mount's cache dropped": Floor(2, 0.15),
    "unlink in one directory": Floor(0.9, 0.15),
    "unlink in a tree": Floor(0.9, 0.15),
    "ls -l of many files, mount's cache dropped": Floor(2, 0.4),
    "ls -l of many files, warm": Floor(2, 0.4),
    "sqlite, 1 insert per transaction": Floor(1.2, 0.7),
    "git clone + git status": Floor(1.3, 0.4),
    "cp -a of a source tree": Floor(1.3, 0.4),
    "tar x of a source tree": Floor(1.3, 0.4),
}


@dataclass(frozen=True, slots=True)
class Reach:
    """One floor beside what was measured."""

    measurement: str
    against: str
    floor: float
    measured: float

    @property
    def reached(self) -> bool:
        return self.measured >= self.floor


def reaches(results: Results, system: str) -> Iterator[Reach]:
    """The floors for which both sides were measured, by the ratio of medians."""
    for measurement, floor in FLOORS.items():
        for other, least in ((best_peer(results, measurement), floor.peer), ("ext4", floor.ext4)):
            if other is None:
                continue
            found = ratio(results.of(measurement, system), results.of(measurement, other))
            if found is not None:
                yield Reach(measurement, other, least, found.of_medians)
