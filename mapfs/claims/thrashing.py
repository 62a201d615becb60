"""Against mmap: thrashing. Read at random from files that do and do not fit into memory."""

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from mapfs.claims.claim import MARGIN, Claim, Figure, Finding, Side, explained, judged
from mapfs.claims.ground import Ground
from mapfs.claims.memory_limit import CgroupLimit, cgroup_limit
from mapfs.claims.processes import effort_of, in_child
from mapfs.claims.samples import Spread, ratio
from mapfs.claims.subject import DIRECT, MOUNTED, PLAIN, Subject
from mapfs.store.machine_pages import PAGE_BYTES

_ACCESS_BYTES: Final = 4096
_BUFFER_BYTES: Final = 1 << 20
_SECONDS: Final = 0.2
_COLLAPSE: Final = 2
MAP: Final = "mapping"
ADVISED: Final = "mapping with MADV_RANDOM"
READ: Final = "pread(2)"


class Speed(NamedTuple):
    """Accesses in a second, and major page faults in a thousand accesses."""

    rate: float
    faults: float


Way = tuple[str, bool]  # what is used, and whether the file fits into memory


def _measure(ground: Ground, subject: Subject) -> Finding:
    size = ground.settings.size
    files = {True: subject.file(size // 4), False: subject.file(size)}
    ways: dict[str, tuple[Subject, Callable[[Path], Speed]]] = {
        MAP: (subject, partial(_map, subject, advised=False)),
        ADVISED: (subject, partial(_map, subject, advised=True)),
        READ: (subject.by_read, _read),
    }
    with cgroup_limit(size // 2) as limit:
        found = ground.interleaved(
            {
                (name, fits): partial(_run, user, path, way, limit)
                for name, (user, way) in ways.items()
                for fits, path in files.items()
            }
        )
    return judge(subject.label, found)


def judge(subject: str, found: dict[Way, list[Speed]]) -> Finding:
    """From the speeds of each way with and without room, by repetitions."""
    rates = {way: [speed.rate for speed in speeds] for way, speeds in found.items()}
    falls = {name: ratio(rates[name, True], rates[name, False]) for name in (MAP, READ)}
    factor = ratio(rates[MAP, False], rates[READ, False])
    worse, advised = (ratio(rates[READ, False], rates[name, False]) for name in (MAP, ADVISED))
    verdict = judged(worse, also=falls[MAP].median >= _COLLAPSE)
    reason = (
        f"without room the mapping is {falls[MAP]} times slower than with, pread(2)"
        f" {falls[READ]} times; there pread(2) is {worse} times as fast as the mapping,"
        f" {advised} times as with MADV_RANDOM"
    )
    names = {way: f"{way[0]}, file {'fits' if way[1] else 'does not fit'}" for way in found}
    figures = [Figure(names[way], "accesses/s", Spread.of(each)) for way, each in rates.items()]
    figures += [
        Figure(names[way], "major faults in 1,000", Spread.of([speed.faults for speed in speeds]))
        for way, speeds in found.items()
    ]
    return Finding(
        subject, verdict, explained(verdict, reason), figures=tuple(figures), factor=factor
    )


def _run(subject: Subject, path: Path, way: Callable[[Path], Speed], limit: CgroupLimit) -> Speed:
    """In a process of its own, which has to bring in what it uses: that is what is limited."""
    subject.disown(path)
    return in_child(partial(way, path), limit)


def _map(subject: Subject, path: Path, *, advised: bool) -> Speed:
    with subject.map(path) as mapping:
        view = mapping.view
        bytes(view[::PAGE_BYTES])
        if advised:
            mapping.advise_random()

        def access(place: int) -> None:
            xxh3_64_intdigest(view[place : place + _ACCESS_BYTES])

        return _speed(access, view.nbytes)


def _read(path: Path) -> Speed:
    fd = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(_BUFFER_BYTES)
        while os.readv(fd, [buffer]):
            pass

        def access(place: int) -> None:
            xxh3_64_intdigest(os.pread(fd, _ACCESS_BYTES, place))

        return _speed(access, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _speed(access: Callable[[int], None], size: int) -> Speed:
    """Of accesses at random places, for some time."""
    chance = random.Random()  # noqa: S311 (places, no secret)
    count = 0
    elapsed = 0.0

    def run() -> None:
        nonlocal count, elapsed
        begin = time.perf_counter()
        while elapsed < _SECONDS:
            access(chance.randrange(size // _ACCESS_BYTES) * _ACCESS_BYTES)
            count += 1
            elapsed = time.perf_counter() - begin

    effort = effort_of(run)
    return Speed(count / elapsed, 1000 * effort.major_faults / count)


CLAIM: Final = Claim(
    name="thrashing",
    side=Side.AGAINST,
    sentence="When a file does not fit into memory a mapping thrashes, worse than read(2) does.",
    method=(
        "Random accesses of 4 KiB by a process whose memory is limited by a cgroup: to a file of"
        " half the limit and to one of twice the limit, each read once in order before. For a"
        " mount the limit is that of the process that reads, not of the one that serves it."
    ),
    rule=(
        f"holds if the mapping has at most 1/{_COLLAPSE} of its speed where the file does not fit,"
        f" and there pread(2) is faster by {MARGIN:g} times at least"
    ),
    factor="speed of the mapping / of pread(2), file does not fit",
    subjects=(PLAIN, MOUNTED, DIRECT),
    measure=_measure,
    unit="accesses/s",
)
