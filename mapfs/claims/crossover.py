"""Against mmap: mappings cost. Open, use and close files of all sizes, by read(2) and mapped."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from mapfs.claims.claim import Axes, Claim, Figure, Finding, Series, Side, explained, judged
from mapfs.claims.ground import Ground
from mapfs.claims.samples import Interval, Spread, ratio
from mapfs.claims.subject import DIRECT, MOUNTED, PLAIN, Subject
from mapfs.sizes import bytes_label
from mapfs.store.machine_pages import PAGE_BYTES

_LEAST_BYTES: Final = 1 << 10
_MOST_BYTES: Final = 64 << 20
# A turn is as many files as give the clock something to measure.
_TURN_SECONDS: Final = 0.01
_MOST_IN_A_TURN: Final = 100
MAP: Final = "open, mmap, touch, munmap, close"
NEW: Final = "open, read, close: into a new buffer"
KEPT: Final = "open, read, close: into a kept buffer"


def _measure(ground: Ground, subject: Subject) -> Finding:
    sizes = _sizes(min(ground.settings.size // 2, _MOST_BYTES))
    return judge(subject.label, {size: _times(ground, subject, size) for size in sizes})


def judge(subject: str, found: dict[int, dict[str, list[float]]]) -> Finding:
    """From the seconds that a file of each size takes in each way, by repetitions."""
    least, largest = min(found), max(found)
    longer = ratio(found[least][MAP], found[least][NEW])
    verdict = judged(longer)
    factors = {
        way: {size: ratio(times[way], times[MAP]) for size, times in found.items()}
        for way in (NEW, KEPT)
    }
    reason = (
        f"for {bytes_label(least)} the mapping takes {longer} times as long; it wins"
        f" {_from(crossover(factors[NEW]))} against a new buffer, {_from(crossover(factors[KEPT]))}"
        f" against a kept one; for {bytes_label(largest)} it is {factors[NEW][largest]} times as"
        " fast"
    )
    return Finding(
        subject,
        verdict,
        explained(verdict, reason),
        figures=tuple(
            Figure(f"{bytes_label(size)}: {way}", "µs", Spread.of([1e6 * each for each in times]))
            for size in (least, largest)
            for way, times in found[size].items()
        ),
        series=tuple(Series(way, _points(found, way)) for way in found[least]),
        factor=factors[NEW][least],
    )


def _points(found: dict[int, dict[str, list[float]]], way: str) -> tuple[tuple[float, float], ...]:
    """Bytes and median microseconds."""
    return tuple((size, 1e6 * Spread.of(times[way]).median) for size, times in found.items())


def crossover(factors: Mapping[int, Interval]) -> int | None:
    """The size from which on mapping is faster, by the medians, up to the largest."""
    wins = None
    for size, factor in sorted(factors.items(), reverse=True):
        if factor.median <= 1:
            break
        wins = size
    return wins


def _from(size: int | None) -> str:
    return "at none of these sizes" if size is None else f"from {bytes_label(size)} on"


def _sizes(most: int) -> Iterator[int]:
    size = _LEAST_BYTES
    while size <= most:
        yield size
        size *= 2


def _times(ground: Ground, subject: Subject, size: int) -> dict[str, list[float]]:
    path = subject.file(size)
    kept = bytearray(size)
    ways: dict[str, Callable[[], None]] = {
        MAP: partial(_map, subject, path),
        NEW: partial(_read, path, size, None),
        KEPT: partial(_read, path, size, kept),
    }
    counts = {name: _count(way) for name, way in ways.items()}
    return ground.interleaved(
        {name: partial(_seconds_each, way, counts[name]) for name, way in ways.items()}
    )


def _count(way: Callable[[], None]) -> int:
    """How many files make a turn. The first use makes memory ready, the second is timed."""
    way()
    return max(1, min(_MOST_IN_A_TURN, int(_TURN_SECONDS / _seconds_each(way, 1))))


def _seconds_each(way: Callable[[], None], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        way()
    return (time.perf_counter() - begin) / count


def _map(subject: Subject, path: Path) -> None:
    with subject.map(path) as mapping:
        bytes(mapping.view[::PAGE_BYTES])  # a byte of each page, without a loop in Python


def _read(path: Path, size: int, kept: bytearray | None) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        if kept is None:
            data: bytes | bytearray = os.read(fd, size)
        else:
            os.readv(fd, [kept])
            data = kept
        bytes(memoryview(data)[::PAGE_BYTES])
    finally:
        os.close(fd)


CLAIM: Final = Claim(
    name="crossover",
    side=Side.AGAINST,
    sentence="To map a file costs more than to read it, if it is small.",
    method=(
        "Elapsed time to open a file in memory, look at a byte of each page and close it: through"
        " a mapping, and through one read(2) of the whole file, into a new buffer or one that is"
        " kept. The crossover is the size from which on the mapping is faster."
    ),
    rule="holds if at the smallest size the mapping takes longer than read(2) into a new buffer",
    factor="time of read(2) / of the mapping, smallest size",
    subjects=(PLAIN, MOUNTED, DIRECT),
    measure=_measure,
    axes=Axes("size of the file", "µs", is_x_bytes=True),
)
