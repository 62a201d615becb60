"""What calls on the host cost: the measurement that decided how the store file is written.

`python -m benchmark.host_calls DIRECTORY` writes fresh, reserved pages of files in DIRECTORY
through a mapping and by pwrite(2) in turn, and times fallocate(2) with FALLOC_FL_ZERO_RANGE over
holes. `docs/performance.md` shows results.
"""

import mmap
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mapfs.store.syscalls import FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, fallocate

TOTAL = 256 << 20
REPETITIONS = 7
Write = Callable[[int, bytes, list[int]], None]


@contextmanager
def sparse_file(directory: str) -> Iterator[int]:
    """A file of `TOTAL` bytes, all hole."""
    with tempfile.TemporaryFile(dir=directory) as file:
        os.ftruncate(file.fileno(), TOTAL)
        yield file.fileno()


def through_pwrite(fd: int, block: bytes, offsets: list[int]) -> None:
    for offset in offsets:
        os.pwrite(fd, block, offset)


def through_mapping(fd: int, block: bytes, offsets: list[int]) -> None:
    with mmap.mmap(fd, TOTAL) as mapping:
        for offset in offsets:
            mapping[offset : offset + len(block)] = block


def zero_range_us(directory: str, size: int) -> float:
    with sparse_file(directory) as fd:
        begin = time.perf_counter()
        count = min(TOTAL // size, 256)
        for number in range(count):
            fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, number * size, size)
        return (time.perf_counter() - begin) * 1e6 / count


def write_rate(write: Write, directory: str, block: bytes, offsets: list[int]) -> float:
    """MB for each second of processor time, which other processes disturb less than the clock."""
    with sparse_file(directory) as fd:
        fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, TOTAL)
        begin = time.process_time()
        write(fd, block, offsets)
        return TOTAL / 1e6 / (time.process_time() - begin)


def compare(directory: str, size: int, *, shuffled: bool) -> None:
    offsets = list(range(0, TOTAL, size))
    if shuffled:
        random.Random(1).shuffle(offsets)  # noqa: S311
    order = "at random" if shuffled else "in order"
    rates: dict[Write, list[float]] = {through_mapping: [], through_pwrite: []}
    for _ in range(REPETITIONS):
        for write, found in rates.items():
            found.append(write_rate(write, directory, os.urandom(size), offsets))
    for write, found in rates.items():
        report(f"{size >> 10} KiB {order} {write.__name__}", found, "MB per processor second")


def main() -> None:
    directory = sys.argv[1]
    compare(directory, 4 << 10, shuffled=False)
    compare(directory, 4 << 10, shuffled=True)
    compare(directory, 1 << 20, shuffled=False)
    for size in (4 << 10, 4 << 20, 64 << 20):
        costs = [zero_range_us(directory, size) for _ in range(REPETITIONS)]
        report(f"zero range of {size >> 10} KiB", costs, "µs")


def report(what: str, found: list[float], unit: str) -> None:
    low, middle, high = min(found), statistics.median(found), max(found)
    sys.stdout.write(f"{what}: {middle:.4g} ({low:.4g} to {high:.4g}) {unit}\n")


if __name__ == "__main__":
    main()
