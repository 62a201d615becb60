"""Reading a file through `mapfs.open_mapping` beside mmap(2) of the same bytes in a plain file.

    python -m benchmark.direct_mapping [DIRECTORY] [--just-written] [--mebibytes SIZE]

Both are warm and on the file system of DIRECTORY (default: /var/tmp): brought in by readahead, as
after a start of the machine, or left as writing left them. They take turns, each beginning every
other one; the time is that of the processor, and the ratio that of the medians. Needs numpy.
"""

import argparse
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from benchmark.programs import run
from benchmark.workspace import workspace
from mapfs import open_mapping

_MAPFS: Final = Path(sys.executable).with_name("mapfs")
_FILE_MEBIBYTES: Final = 256
_PAGE_BYTES: Final = 4096
_READS: Final = 50_000
_ROUNDS: Final = 101

Words = np.ndarray[tuple[int], np.dtype[np.uint64]]


def sequential(words: Words) -> None:
    words.sum()


def random_pages(words: Words) -> None:
    """Sum 4 KiB at each of many places, the same ones every time."""
    pages = words.reshape(-1, _PAGE_BYTES // words.itemsize)
    places = np.random.default_rng(1).integers(0, len(pages), _READS)
    for some in np.array_split(places, _READS // 1000):
        pages[some].sum()


def write(path: Path, data: bytes) -> None:
    """Write in pieces of 1 MiB: their size decides how large the pages in the cache get."""
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
        os.fsync(file.fileno())


def read_anew(path: Path) -> None:
    """Have all of a file brought in from the disk, by readahead."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):
            pass


@contextmanager
def mounted(directory: Path, size: int) -> Iterator[Path]:
    store, mountpoint = directory / "bench.mapfs", directory / "mnt"
    mountpoint.mkdir()
    run(_MAPFS, "mkfs", store, "--size", str(max(4 * size, 64 << 20)))
    run(_MAPFS, "mount", store, mountpoint)
    try:
        yield mountpoint
    finally:
        run(_MAPFS, "umount", mountpoint)


def seconds(work: Callable[[Words], None], words: Words) -> float:
    begun = time.thread_time()
    work(words)
    return time.thread_time() - begun


def compare(work: Callable[[Words], None], native: Words, direct: Words) -> None:
    """Print both medians and their ratio: above 1 the mapping of the store is the faster one."""
    sides = {"native": native, "direct": direct}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for words in sides.values():
        work(words)  # the pages are in both page tables from here on
    for turn in range(_ROUNDS):
        for name in sorted(sides, reverse=bool(turn % 2)):
            taken[name].append(seconds(work, sides[name]))
    of_native, of_direct = (statistics.median(taken[name]) for name in sides)
    print(  # noqa: T201 (its output)
        f"{work.__name__}: native {1000 * of_native:.1f} ms, direct {1000 * of_direct:.1f} ms,"
        f" ratio {of_native / of_direct:.3f}"
    )


def main(parent: Path, size: int, *, just_written: bool) -> None:
    data = os.urandom(size)
    with workspace(parent) as directory, mounted(directory, size) as mnt:
        for path in (directory / "plain", mnt / "file"):
            write(path, data)
        for path in (directory / "plain", directory / "bench.mapfs" / "store"):
            if not just_written:
                read_anew(path)
        with (directory / "plain").open("rb") as file, open_mapping(mnt / "file") as direct:
            native = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            for work in (sequential, random_pages):
                compare(work, np.frombuffer(native, "u8"), np.frombuffer(direct, "u8"))
            print(f"{len(direct.extents)} extents")  # noqa: T201 (its output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure mapfs.open_mapping beside mmap(2).")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("/var/tmp"))  # noqa: S108 (on a disk)
    parser.add_argument("--just-written", action="store_true", help="leave the cache as it is then")
    parser.add_argument("--mebibytes", type=int, default=_FILE_MEBIBYTES, help="size of the file")
    given = parser.parse_args()
    main(given.directory, given.mebibytes << 20, just_written=given.just_written)
