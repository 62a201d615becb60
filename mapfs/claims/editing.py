"""For mmap: editing in place. Change some bytes in the middle, or write the file anew."""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from mapfs.claims.claim import (
    Axes,
    CannotMeasureError,
    Claim,
    Figure,
    Finding,
    Series,
    Side,
    explained,
    judged,
)
from mapfs.claims.ground import Ground
from mapfs.claims.processes import effort_of, io_of
from mapfs.claims.samples import Spread, ratio, rounded
from mapfs.claims.subject import MOUNTED, PLAIN, Access, Subject
from mapfs.sizes import bytes_label

_CHANGED_BYTES: Final = 100
_LEAST_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 64 << 20
_STEP: Final = 4
_MIB: Final = 1 << 20
_KIB: Final = 1 << 10
MAP: Final = "mapping and msync(2)"
WRITE: Final = "pwrite(2) and fsync(2)"
REWRITE: Final = "file written anew, fsync(2) and rename(2)"


class Cost(NamedTuple):
    """Seconds, and bytes made dirty: by the process that serves the file, or else by this one."""

    seconds: float
    dirtied: int


def _measure(ground: Ground, subject: Subject) -> Finding:
    largest = min(ground.settings.size // 2, _MOST_BYTES)
    ways = {MAP: _by_mapping, WRITE: _by_write, REWRITE: _by_rewriting}
    found: dict[int, dict[str, list[Cost]]] = {}
    size = _LEAST_BYTES
    while size <= largest:
        path = subject.file(size)
        found[size] = ground.interleaved(
            {
                name: partial(_cost, subject, partial(way, subject, path))
                for name, way in ways.items()
            }
        )
        size *= _STEP
    return judge(subject.label, found)


def judge(subject: str, found: dict[int, dict[str, list[Cost]]]) -> Finding:
    """From the costs of each way, by repetitions, for each size of the file."""
    largest = max(found)
    times = {name: [cost.seconds * 1e3 for cost in some] for name, some in found[largest].items()}
    dirtied = {
        name: Spread.of([cost.dirtied / _KIB for cost in some])
        for name, some in found[largest].items()
    }
    if not dirtied[REWRITE].most:
        raise CannotMeasureError("the kernel counts no bytes written on this file system")
    factor, by_write = (ratio(times[name], times[MAP]) for name in (REWRITE, WRITE))
    verdict = judged(factor, also=dirtied[MAP].most < dirtied[REWRITE].least)
    reason = (
        f"{factor} times as fast as writing {bytes_label(largest)} anew, and"
        f" {rounded(dirtied[MAP].median)} KiB written instead of"
        f" {rounded(dirtied[REWRITE].median)}; {by_write} times as fast as pwrite(2)"
    )
    figures = [Figure(name, "ms", Spread.of(values)) for name, values in times.items()]
    figures += [Figure(name, "KiB written", spread) for name, spread in dirtied.items()]
    return Finding(
        subject,
        verdict,
        explained(verdict, reason),
        figures=tuple(figures),
        series=tuple(Series(name, tuple(_medians(found, name))) for name in times),
        factor=factor,
    )


def _medians(found: dict[int, dict[str, list[Cost]]], name: str) -> Iterator[tuple[float, float]]:
    for size, ways in found.items():
        yield size, Spread.of([cost.seconds * 1e3 for cost in ways[name]]).median


def _cost(subject: Subject, edit: Callable[[], None]) -> Cost:
    """What one edit costs. All that was written before is on the disk when it begins."""
    before = _dirtied_by(subject.server)
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        begin = time.perf_counter()
        edit()
        seconds = time.perf_counter() - begin

    dirtied = effort_of(timed).dirtied_bytes
    if subject.server is not None:
        dirtied = _dirtied_by(subject.server) - before
    return Cost(seconds, dirtied)


def _dirtied_by(process: int | None) -> int:
    return 0 if process is None else io_of(process)["write_bytes"]


def _by_mapping(subject: Subject, path: Path) -> None:
    with subject.map(path, Access.WRITE) as mapping:
        middle = mapping.view.nbytes // 2
        mapping.view[middle : middle + _CHANGED_BYTES] = os.urandom(_CHANGED_BYTES)
        mapping.sync(middle, _CHANGED_BYTES)


def _by_write(_subject: Subject, path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        middle = path.stat().st_size // 2
        os.pwrite(file.fileno(), os.urandom(_CHANGED_BYTES), middle)
        os.fsync(file.fileno())


def _by_rewriting(_subject: Subject, path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + _CHANGED_BYTES] = os.urandom(_CHANGED_BYTES)
    written = path.with_suffix(".new")
    with written.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    written.replace(path)


CLAIM: Final = Claim(
    name="edit",
    side=Side.FOR,
    sentence="A file is edited in place: only the pages that change are written.",
    method=(
        f"{_CHANGED_BYTES} bytes in the middle of a file in memory are changed and made durable."
        " Elapsed time, and what /proc/PID/io counts as written, for a mount by the process that"
        " serves it. The kernel counts in folios, which may be larger than a page."
    ),
    rule=(
        "holds if a change through a mapping and msync(2) takes less time than writing the largest"
        " file anew, and writes less"
    ),
    factor="time of writing the file anew / of the mapping",
    subjects=(PLAIN, MOUNTED),
    measure=_measure,
    axes=Axes("size of the file", "ms", is_x_bytes=True),
)
