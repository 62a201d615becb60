"""For mmap: no copy. Read a file through a buffer and through a mapping, and count CPU time."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from xxhash import xxh3_64_intdigest

from mapfs.claims.claim import Claim, Figure, Finding, Side, explained, judged
from mapfs.claims.ground import Ground
from mapfs.claims.processes import Effort, effort_of
from mapfs.claims.samples import Spread, ratio
from mapfs.claims.subject import DIRECT, MOUNTED, PLAIN, Subject

_BUFFER_BYTES: Final = 1 << 20
_MIB: Final = 1 << 20
BUFFERED: Final = "read(2) into a buffer of 1 MiB"
WHOLE: Final = "read(2) into a buffer as large as the file"
FIRST: Final = "mapping, first touch of each page"
PRESENT: Final = "mapping, pages present"


def _measure(ground: Ground, subject: Subject) -> Finding:
    size = ground.settings.size
    path = subject.file(size)
    small, large = bytearray(_BUFFER_BYTES), bytearray(size)
    with subject.map(path) as mapping:
        present = mapping.view
        ways: dict[str, Callable[[], object]] = {
            BUFFERED: lambda: _read(path, small),
            WHOLE: lambda: _read(path, large),
            FIRST: lambda: _map(subject, path),
            PRESENT: lambda: _digest(present),
        }
        for call in ways.values():
            call()  # what comes first has to make the memory ready
        found = ground.interleaved({name: partial(effort_of, way) for name, way in ways.items()})
    return judge(subject.label, found, size)


def judge(subject: str, found: dict[str, list[Effort]], size: int) -> Finding:
    """From the efforts of each way to read `size` bytes, by repetitions."""
    times = {name: [each.seconds for each in efforts] for name, efforts in found.items()}
    copied = {
        name: [each.read_bytes / _MIB for each in found[name]] for name in (BUFFERED, PRESENT)
    }
    factor, first = (ratio(times[BUFFERED], times[name]) for name in (PRESENT, FIRST))
    verdict = judged(factor, also=not any(copied[PRESENT]))
    reason = f"{factor} times as fast once pages are present, {first} times on first touch"
    each_gib = 1e3 * (1 << 30) / size
    figures = [
        Figure(name, "ms/GiB", Spread.of([each * each_gib for each in seconds]))
        for name, seconds in times.items()
    ]
    figures += [Figure(name, "MiB copied", Spread.of(values)) for name, values in copied.items()]
    return Finding(
        subject, verdict, explained(verdict, reason), figures=tuple(figures), factor=factor
    )


def _read(path: Path, buffer: bytearray) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        while count := os.readv(fd, [buffer]):
            with memoryview(buffer)[:count] as found:
                _digest(found)
    finally:
        os.close(fd)


def _map(subject: Subject, path: Path) -> None:
    with subject.map(path) as mapping:
        _digest(mapping.view)


def _digest(data: memoryview) -> int:
    """Every byte once, at about the speed of memory."""
    return xxh3_64_intdigest(data)


CLAIM: Final = Claim(
    name="copy",
    side=Side.FOR,
    sentence="A mapping is read where it is: no copy is made, and that saves time.",
    method=(
        "CPU time, user and system, of a checksum (XXH3) over a file in memory: through read(2) and"
        " through a mapping. The bytes copied are those that /proc/self/io counts as read."
    ),
    rule=(
        "holds if nothing is copied and a mapping with its pages present takes less CPU time than"
        " read(2) into a buffer of 1 MiB"
    ),
    factor="CPU time of read(2) / of the mapping, pages present",
    subjects=(PLAIN, MOUNTED, DIRECT),
    measure=_measure,
    unit="ms/GiB",
)
