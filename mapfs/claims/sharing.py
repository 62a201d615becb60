"""For mmap: one copy for all. Let processes share a file, and add up what each has of memory."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from mapfs.claims.claim import Claim, Figure, Finding, Side, Verdict
from mapfs.claims.ground import Ground
from mapfs.claims.processes import Memory, Said, children, memory_of
from mapfs.claims.samples import Spread, ratio, rounded
from mapfs.claims.subject import DIRECT, MOUNTED, PLAIN, Access, Subject
from mapfs.sizes import bytes_label
from mapfs.store.machine_pages import PAGE_BYTES

PROCESSES: Final = 4
_MOST_BYTES: Final = 32 << 20
WRITTEN_PAGES: Final = 256
_MIB: Final = 1 << 20
# Of the file: pages that Python takes for itself meanwhile.
_ALLOWED: Final = 1.1
SHARED: Final = "mapped shared"
PRIVATE: Final = "mapped private"
WRITTEN: Final = "mapped private, pages written"
READ: Final = "read into memory"


def _measure(ground: Ground, subject: Subject) -> Finding:
    size = min(ground.settings.size, _MOST_BYTES)
    path = subject.file(size)
    subject.file(PAGE_BYTES)
    users: dict[str, Callable[[Said], object]] = {
        SHARED: partial(_map, subject, path, Access.READ, 0),
        READ: partial(_read, path),
    }
    if subject.can_write:
        writing = Access.PRIVATE | Access.WRITE
        users[PRIVATE] = partial(_map, subject, path, Access.PRIVATE, 0)
        users[WRITTEN] = partial(_map, subject, path, writing, WRITTEN_PAGES)
    found = ground.interleaved({name: partial(_memory_of_all, use) for name, use in users.items()})
    return judge(subject.label, found, size)


def judge(subject: str, found: dict[str, list[Memory]], size: int) -> Finding:
    """From what all processes take together, by repetitions, for each way to use `size` bytes."""
    shares = {name: [each.proportional for each in sums] for name, sums in found.items()}
    most = dict.fromkeys(found, size) | {WRITTEN: size + PROCESSES * WRITTEN_PAGES * PAGE_BYTES}
    holds = all(max(sums) <= _ALLOWED * most[name] for name, sums in shares.items() if name != READ)
    return Finding(
        subject,
        Verdict.HOLDS if holds else Verdict.FAILS,
        _in_words({name: Spread.of(sums).median / _MIB for name, sums in shares.items()}, size),
        figures=tuple(
            Figure(name, unit, Spread.of([each[number] / _MIB for each in sums]))
            for number, unit in enumerate(("MiB of PSS", "MiB of RSS"))
            for name, sums in found.items()
        ),
        factor=ratio(shares[READ], shares[SHARED]),
    )


def _in_words(medians: dict[str, float], size: int) -> str:
    text = (
        f"{rounded(medians[SHARED])} MiB for {PROCESSES} processes that map {bytes_label(size)},"
        f" {rounded(medians[READ])} MiB if each reads it"
    )
    if WRITTEN in medians:
        text += f"; {rounded(medians[WRITTEN])} MiB once each has written {WRITTEN_PAGES} pages"
    return text


def _memory_of_all(use: Callable[[Said], object]) -> Memory:
    """What all processes take together by using the file at the same time."""
    with children([use] * PROCESSES) as processes:
        for process in processes:
            process.hear()
        before = [memory_of(process.pid) for process in processes]
        for process in processes:
            process.go_on()
        for process in processes:
            process.hear()
        after = [memory_of(process.pid) for process in processes]
    grown = [
        (one[0] - other[0], one[1] - other[1]) for one, other in zip(after, before, strict=True)
    ]
    return Memory(*map(sum, zip(*grown, strict=True)))


def _map(subject: Subject, path: Path, access: Access, written: int, say: Said) -> None:
    """Touch every page, and write to some that are spread over the file."""
    with subject.map(subject.file(PAGE_BYTES), access):
        pass  # what the program itself takes to map a file is not the file's
    say("started")
    with subject.map(path, access) as mapping:
        bytes(mapping.view[::PAGE_BYTES])
        step = mapping.view.nbytes // max(written, 1)
        for number in range(written):
            mapping.view[number * step] ^= 1
        say("mapped")


def _read(path: Path, say: Said) -> None:
    say("started")
    data = path.read_bytes()
    say(len(data))


CLAIM: Final = Claim(
    name="sharing",
    side=Side.FOR,
    sentence="All processes that map a file share one copy of it, and copy only what they write.",
    method=(
        f"{PROCESSES} processes use the same file at the same time. The sum of their proportional"
        " (PSS) and resident (RSS) set sizes, as /proc/PID/smaps_rollup says, less what it was"
        " before."
    ),
    rule=(
        "holds if the PSS of all processes together is at most 1.1 times the file, and, where each"
        " writes pages of a private mapping, these pages"
    ),
    factor="PSS of processes that read the file / that map it",
    subjects=(PLAIN, MOUNTED, DIRECT),
    measure=_measure,
    unit="MiB of PSS",
)
