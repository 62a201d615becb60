"""For mmap: no system calls. Count how often random accesses enter the kernel."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from xxhash import xxh3_64_intdigest

from mapfs.claims.claim import MARGIN, Claim, Figure, Finding, Side, Verdict
from mapfs.claims.ground import Ground
from mapfs.claims.processes import Effort, effort_of
from mapfs.claims.samples import Spread, ratio
from mapfs.claims.subject import DIRECT, MOUNTED, PLAIN, Subject

_ACCESS_BYTES: Final = 4096
_MOST_ACCESSES: Final = 4096
# Faults that Python's own memory takes; a mapping that costs one each time has a hundred times it.
_MOST_FAULTS_EACH: Final = 0.01
READ: Final = "pread(2)"
FIRST: Final = "mapping, first pass"
AGAIN: Final = "mapping, second pass"


def _measure(ground: Ground, subject: Subject) -> Finding:
    size = ground.settings.size
    path = subject.file(size)
    count = min(_MOST_ACCESSES, size // _ACCESS_BYTES // 2)
    places = ground.places(size, _ACCESS_BYTES, count)
    found = ground.interleaved(
        {
            "read": lambda: [effort_of(partial(_read, path, places))],
            "map": lambda: _map(subject, path, places),
        }
    )
    efforts = {
        READ: [each[0] for each in found["read"]],
        FIRST: [each[0] for each in found["map"]],
        AGAIN: [each[1] for each in found["map"]],
    }
    return judge(subject.label, efforts, count)


def judge(subject: str, efforts: dict[str, list[Effort]], count: int) -> Finding:
    """From the efforts of `count` accesses in each way, by repetitions."""
    entries = {name: [_entries(each) for each in some] for name, some in efforts.items()}
    factor = ratio(entries[READ], entries[FIRST])
    has_calls = any(each.read_calls for each in efforts[AGAIN])
    is_present = max(entries[AGAIN]) <= _MOST_FAULTS_EACH * count
    holds = not has_calls and is_present and factor.low >= MARGIN
    calls, first, again = (Spread.of(each) for each in entries.values())
    reason = (
        f"{calls.median:,.0f} calls by pread(2) against {first.median:,.0f} page faults at first"
        f" and {again.median:,.0f} later, for {count:,} accesses"
    )
    figures = (
        Figure(f"{READ}: calls and page faults", "times", calls),
        Figure(f"{FIRST}: page faults", "times", first),
        Figure(f"{AGAIN}: page faults", "times", again),
    )
    verdict = Verdict.HOLDS if holds else Verdict.FAILS
    return Finding(subject, verdict, reason, figures=figures, factor=factor)


def _entries(effort: Effort) -> int:
    return effort.read_calls + effort.faults


def _read(path: Path, places: list[int]) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        for place in places:
            xxh3_64_intdigest(os.pread(fd, _ACCESS_BYTES, place))
    finally:
        os.close(fd)


def _map(subject: Subject, path: Path, places: list[int]) -> list[Effort]:
    """The efforts of a first and of a second pass over a new mapping."""
    with subject.map(path) as mapping:
        access: Callable[[], None] = partial(_touch, mapping.view, places)
        return [effort_of(access), effort_of(access)]


def _touch(view: memoryview, places: list[int]) -> None:
    for place in places:
        xxh3_64_intdigest(view[place : place + _ACCESS_BYTES])


CLAIM: Final = Claim(
    name="calls",
    side=Side.FOR,
    sentence="A mapping is read without system calls once its pages are present.",
    method=(
        "Random accesses of 4 KiB to a file in memory. Read calls as /proc/self/io counts them"
        " (syscr), page faults as getrusage(2) does, for two passes over the same places."
    ),
    rule=(
        "holds if the second pass over a mapping makes no read call and at most one page fault in"
        " a hundred accesses, and the first enters the kernel less often than pread(2)"
    ),
    factor="entries into the kernel by pread(2) / by the first pass over a mapping",
    subjects=(PLAIN, MOUNTED, DIRECT),
    measure=_measure,
    unit="times",
)
