#!/usr/bin/env python3
"""Measure a directory on a mapfs mount against one on the file system that holds its store.

measure.py DIRECTORY [REPETITIONS]: each repetition measures DIRECTORY itself, then a fresh store
in it, mounted with either cache mode. Needs `mapfs` in PATH, fio, and 1 GB of space.
`docs/performance.md` shows what it prints.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

FILES = 1000
SMALL = os.urandom(3000)
FIO = ("fio", "--name=job", "--bs=1m", "--size=256m", "--output-format=json", "--ioengine=psync")
Results = dict[str, float]


def timed(action: Callable[[Path], object], paths: list[Path]) -> float:
    """Microseconds that `action` takes for each path."""
    begin = time.perf_counter()
    for path in paths:
        action(path)
    return (time.perf_counter() - begin) * 1e6 / len(paths)


def create(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, SMALL)
    os.close(fd)


def read(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, len(SMALL))
    os.close(fd)


def small_files(where: Path) -> Iterator[tuple[str, float]]:
    where.mkdir()
    paths = [where / f"file{number}" for number in range(FILES)]
    yield "create, write 3 kB, close (µs)", timed(create, paths)
    yield "stat, the first after writing (µs)", timed(os.stat, paths)
    yield "stat, again (µs)", timed(os.stat, paths)
    yield "open, read 3 kB, close (µs)", timed(read, paths)
    yield "unlink (µs)", timed(os.unlink, paths)
    where.rmdir()


def fio(file: Path, *options: str) -> float:
    """MB/s."""
    command = [*FIO, f"--filename={file}", *options]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    job = json.loads(output)["jobs"][0]
    return max(job["read"]["bw_bytes"], job["write"]["bw_bytes"]) / 1e6


def streams(where: Path) -> Iterator[tuple[str, float]]:
    file = where.with_suffix(".data")
    yield "1 MiB writes in order, fsync (MB/s)", fio(file, "--rw=write", "--end_fsync=1")
    fio(file, "--rw=read")  # fills the page cache
    yield "1 MiB reads in order, warm (MB/s)", fio(file, "--rw=read", "--loops=4")
    mapped = ("--ioengine=mmap", "--rw=randread", "--bs=4k", "--loops=2")
    yield "4 KiB mapped reads at random, warm (MB/s)", fio(file, *mapped)
    file.unlink()


def mapfs(*arguments: str) -> None:
    subprocess.run(["mapfs", *arguments], check=True, stdout=subprocess.DEVNULL)


def measure(work: Path, place: str) -> Results:
    """One repetition in one place: the host's own file system, or a mount with a cache mode."""
    if place == "host":
        where = work / "host"
        return dict([*small_files(where), *streams(where)])
    store, mountpoint = str(work / "measure.mapfs"), work / "mnt"
    mapfs("mkfs", store, "--size", "4G", "--force")
    mapfs("mount", store, str(mountpoint), "--cache", place)
    try:
        where = mountpoint / "files"
        return dict([*small_files(where), *streams(where)])
    finally:
        mapfs("umount", str(mountpoint))


def main() -> None:
    work = Path(sys.argv[1]).absolute() / "measure"
    repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    (work / "mnt").mkdir(parents=True)
    places = ("host", "writeback", "writethrough")
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    mapfs("mkfs", str(work / "measure.mapfs"), "--size", "4G")
    for _ in range(repetitions):
        for place in places:
            for name, value in measure(work, place).items():
                found[name][place].append(value)
    shutil.rmtree(work)
    sys.stdout.write(f"| median (least to most) of {repetitions} | {' | '.join(places)} |\n")
    sys.stdout.write("|---" * (len(places) + 1) + "|\n")
    for name, values in found.items():
        cells = [cell(values[place], values["host"]) for place in places]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")


def cell(values: list[float], host: list[float]) -> str:
    """The median and the spread; and the median of the ratios to the host in each repetition."""
    text = (
        f"{rounded(statistics.median(values))} ({rounded(min(values))} to {rounded(max(values))})"
    )
    if values is host:
        return text
    ratio = statistics.median(mine / its for mine, its in zip(values, host, strict=True))
    return f"{text}, ×{ratio:.2g}"


def rounded(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
