"""For mmap: seeking is pointer arithmetic. Time random accesses of eight bytes."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Final

from mapfs.claims.claim import Claim, Figure, Finding, Side, explained, judged
from mapfs.claims.ground import Ground
from mapfs.claims.samples import Spread, ratio
from mapfs.claims.subject import DIRECT, MOUNTED, PLAIN, Subject

_WORD_BYTES: Final = 8
_MOST_ACCESSES: Final = 20_000
MAP: Final = "mapping"
PREAD: Final = "pread(2)"
LSEEK: Final = "lseek(2) and read(2)"
LOOP: Final = "the loop without an access"


def _measure(ground: Ground, subject: Subject) -> Finding:
    size = ground.settings.size
    path = subject.file(size)
    count = min(_MOST_ACCESSES, size // _WORD_BYTES // 2)
    places = ground.places(size, _WORD_BYTES, count)
    numbers = [place // _WORD_BYTES for place in places]
    fd = os.open(path, os.O_RDONLY)
    try:
        with subject.map(path) as mapping, mapping.view.cast("Q") as words:
            ways: dict[str, Callable[[], Iterable[object]]] = {
                MAP: lambda: map(words.__getitem__, numbers),
                PREAD: lambda: map(os.pread, repeat(fd), repeat(_WORD_BYTES), places),
                LSEEK: lambda: _seek_and_read(fd, places),
                LOOP: lambda: map(int, numbers),
            }
            deque(words[::512], maxlen=0)  # every page is present from here on
            times = ground.interleaved(
                {name: partial(_nanoseconds_each, way, count) for name, way in ways.items()}
            )
    finally:
        os.close(fd)
    return judge(subject.label, times)


def judge(subject: str, times: dict[str, list[float]]) -> Finding:
    """From the nanoseconds of an access in each way, by repetitions."""
    by_pread, by_lseek = (ratio(times[name], times[MAP]) for name in (PREAD, LSEEK))
    verdict = judged(by_pread)
    reason = f"{by_pread} times as fast as pread(2), {by_lseek} times as lseek(2) and read(2)"
    figures = tuple(Figure(name, "ns", Spread.of(found)) for name, found in times.items())
    return Finding(subject, verdict, explained(verdict, reason), figures=figures, factor=by_pread)


def _seek_and_read(fd: int, places: list[int]) -> Iterable[object]:
    """Each place sought, and what is there read."""
    read = os.read
    seek = os.lseek
    return (read(fd, _WORD_BYTES) for place in places if seek(fd, place, os.SEEK_SET) >= 0)


def _nanoseconds_each(way: Callable[[], Iterable[object]], count: int) -> float:
    """CPU time of one access; the loop over them runs in C, but for the generator's."""
    accesses = way()
    begin = time.process_time_ns()
    deque(accesses, maxlen=0)
    return (time.process_time_ns() - begin) / count


CLAIM: Final = Claim(
    name="seek",
    side=Side.FOR,
    sentence="Seeking in a mapping is pointer arithmetic: it takes no call.",
    method=(
        "CPU time of random accesses of 8 bytes to a file in memory, every page of the mapping"
        " present. Python's own share is in all of them; a loop without an access shows it."
    ),
    rule="holds if an access through the mapping takes less time than by pread(2)",
    factor="time of pread(2) / of the mapping",
    subjects=(PLAIN, MOUNTED, DIRECT),
    measure=_measure,
    unit="ns",
)
