"""For mmap: lazy loading. Touch some pages of a file that memory cannot hold, and count."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

from mapfs.claims.claim import Axes, Claim, Figure, Finding, Series, Side, Verdict
from mapfs.claims.ground import Ground
from mapfs.claims.memory_limit import memory_limit
from mapfs.claims.processes import in_child
from mapfs.claims.samples import Spread, ratio
from mapfs.claims.subject import DIRECT, MOUNTED, PLAIN, Subject
from mapfs.sizes import bytes_label
from mapfs.store.machine_pages import PAGE_BYTES

# Touched one after the other, and counted after each of these.
STEPS: Final = (1, 4, 16, 64)
_ALLOWED: Final = 2
_MIB: Final = 1 << 20
DEFAULT: Final = "read-ahead as it is"
RANDOM: Final = "MADV_RANDOM"


def _measure(ground: Ground, subject: Subject) -> Finding:
    size = ground.settings.size
    path = subject.file(size)
    places = ground.places(size, PAGE_BYTES, STEPS[-1])
    with memory_limit(size // 2) as limit:

        def loaded(*, random: bool) -> list[int]:
            subject.drop(path)
            return in_child(lambda: list(_touch(subject, path, places, random=random)), limit)

        found = ground.interleaved(
            {DEFAULT: partial(loaded, random=False), RANDOM: partial(loaded, random=True)}
        )
    return judge(subject.label, found, size, limit.kind)


def judge(subject: str, found: dict[str, list[list[int]]], size: int, kind: str) -> Finding:
    """From the bytes in memory after each step, by repetitions, with and without read-ahead."""
    at_end = {name: [each[-1] for each in runs] for name, runs in found.items()}
    medians = {name: bytes_label(int(Spread.of(runs).median)) for name, runs in at_end.items()}
    touched = STEPS[-1] * PAGE_BYTES
    reason = (
        f"{bytes_label(touched)} touched brought in {medians[DEFAULT]}, {medians[RANDOM]} with"
        f" MADV_RANDOM, of {bytes_label(size)} where {kind} allows {bytes_label(size // 2)}"
    )
    return Finding(
        subject,
        Verdict.HOLDS if max(at_end[DEFAULT]) <= _ALLOWED * touched else Verdict.FAILS,
        reason,
        figures=tuple(
            Figure(f"in memory, {name}", "MiB", Spread.of([each / _MIB for each in runs]))
            for name, runs in at_end.items()
        ),
        series=tuple(Series(name, tuple(_medians(runs))) for name, runs in found.items()),
        factor=ratio([size] * len(at_end[DEFAULT]), at_end[DEFAULT]),
    )


def _touch(subject: Subject, path: Path, places: list[int], *, random: bool) -> Iterator[int]:
    """Bytes of the file in memory after each step."""
    with subject.map(path) as mapping:
        if random:
            mapping.advise_random()
        for begin, end in pairwise([0, *STEPS]):
            for place in places[begin:end]:
                mapping.view[place]
            yield subject.resident(path)


def _medians(runs: list[list[int]]) -> Iterator[tuple[float, float]]:
    for step, values in zip(STEPS, zip(*runs, strict=True), strict=True):
        yield step, Spread.of(values).median / _MIB


CLAIM: Final = Claim(
    name="loading",
    side=Side.FOR,
    sentence="A file larger than memory can be mapped, and only the pages touched are loaded.",
    method=(
        "A process whose memory is limited by a cgroup to half the file touches pages at random,"
        " with nothing of the file in memory at first. What is in memory of it then, by"
        " cachestat(2); for a mount what the store file has of it in memory, too."
    ),
    rule=(
        f"holds if {STEPS[-1]} pages touched bring in at most {_ALLOWED} times their bytes; what is"
        " more is read-ahead"
    ),
    factor="bytes of the file / bytes in memory",
    subjects=(PLAIN, MOUNTED, DIRECT),
    measure=_measure,
    axes=Axes("pages touched", "MiB in memory"),
)
