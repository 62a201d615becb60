"""The workloads: what is done on a fresh mount, and what of it is measured."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from benchmark import loops
from benchmark.inputs import Inputs, git
from benchmark.postgresql import postgresql_rate
from benchmark.programs import run
from benchmark.system import System

MIB: Final = 1 << 20
MICROSECONDS: Final = "µs"
SECONDS: Final = "s"
MEGABYTES: Final = "MB/s"
RATE: Final = "/s"
_PER_DIRECTORY: Final = 100


class Measured(NamedTuple):
    """One figure. In units of time less is better, in rates more."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a workload does, at most `seconds` where time ends it."""

    stream_bytes: int
    buffered_bytes: int
    synced_bytes: int
    seconds: float
    files: int
    unlinked: int
    listed: int
    sources: int
    rows: int
    image_bytes: int

    @classmethod
    def scaled(cls, scale: float) -> Self:
        """The sizes of a full run times `scale`, but none so small that nothing is measured."""
        return cls(
            stream_bytes=_mebibytes(1024 * scale, 4),
            buffered_bytes=_mebibytes(256 * scale, 2),
            synced_bytes=_mebibytes(16 * scale, 1),
            seconds=max(3 * scale, min(10 * scale, 1), 0.1),
            files=max(int(5000 * scale), 20),
            unlinked=max(int(20_000 * scale), 20),
            listed=max(int(100_000 * scale), 20),
            sources=max(int(3000 * scale), 20),
            rows=max(int(1000 * scale), 5),
            image_bytes=_mebibytes(4096 * scale, 512),
        )


def _mebibytes(wanted: float, least: int) -> int:
    return max(int(wanted), least) * MIB


@dataclass(frozen=True, slots=True)
class Turn:
    """A system, empty and mounted, with what a workload needs beside it."""

    system: System
    sizes: Sizes
    inputs: Inputs

    @property
    def mnt(self) -> Path:
        return self.system.mnt

    def loop(self, name: str, directory: str, count: int, per: int | None = None) -> float:
        """Seconds for each round of one of `loops`."""
        last = [per] if per else []
        return float(
            run(sys.executable, "-I", loops.__file__, name, self.mnt / directory, count, *last)
        )

    @property
    def time_limit(self) -> tuple[str, ...]:
        """Options of fio that end a job which is not done in time."""
        return (f"--runtime={int(self.sizes.seconds * 1000)}ms",)

    @property
    def fixed_time(self) -> tuple[str, ...]:
        """Options of fio that repeat a job until time is up."""
        return (*self.time_limit, "--time_based")

    def fio(self, *options: str) -> "Job":
        """Run one kind of job of fio in the mount."""
        common = ("--name=job", "--output-format=json", "--group_reporting", "--invalidate=0")
        output = run("fio", *common, "--fallocate=none", f"--directory={self.mnt}", *options)
        # A line that warns of something can stand before the JSON.
        job = json.loads(output[output.index("{") :])["jobs"][0]
        busy = max(job["read"], job["write"], key=lambda side: int(side["io_bytes"]))
        return Job(busy["bw_bytes"] / 1e6, busy["iops"])


class Job(NamedTuple):
    """What fio reports of a job."""

    megabytes: float  # a second, of a million bytes
    rate: float  # operations a second


Workload = Callable[[Turn], Iterator[Measured]]
_READ_SEQUENTIALLY: Final = ("--filename=data", "--rw=read", "--bs=1m", "--ioengine=psync")
_MAPPED: Final = ("--filename=data", "--bs=4k", "--ioengine=mmap")


def stream(turn: Turn) -> Iterator[Measured]:
    size = f"--size={turn.sizes.stream_bytes}"
    write = ("--filename=data", "--rw=write", "--bs=1m", "--end_fsync=1", size)
    yield Measured(
        "sequential write, 1 MiB, fsync at the end", turn.fio(*write).megabytes, MEGABYTES
    )
    read = (*_READ_SEQUENTIALLY, size)
    turn.fio(*read)
    warm = turn.fio(*read, *turn.fixed_time)
    yield Measured("sequential read, warm", warm.megabytes, MEGABYTES)
    turn.system.cool()
    yield Measured("sequential read, cold", turn.fio(*read).megabytes, MEGABYTES)


def buffered(turn: Turn) -> Iterator[Measured]:
    common = ("--filename=data", "--bs=4k", "--end_fsync=1", f"--size={turn.sizes.buffered_bytes}")
    for rw, name in (("write", "sequential"), ("randwrite", "random")):
        done = turn.fio(*common, f"--rw={rw}")
        yield Measured(f"4 KiB {name} writes, fsync at the end", done.megabytes, MEGABYTES)


def synced(turn: Turn) -> Iterator[Measured]:
    common = ("--rw=randwrite", "--bs=4k", "--fsync=1", "--overwrite=1")
    size = f"--size={turn.sizes.synced_bytes}"
    for jobs, name in ((1, "1 job"), (16, "16 jobs")):
        done = turn.fio(*common, size, f"--numjobs={jobs}", *turn.fixed_time)
        yield Measured(f"4 KiB random write + fsync, {name}", done.rate, RATE)


def mapped(turn: Turn) -> Iterator[Measured]:
    size = f"--size={turn.sizes.buffered_bytes}"
    turn.fio("--filename=data", "--rw=write", "--bs=1m", "--end_fsync=1", size)
    turn.system.cool()
    cold = turn.fio(*_MAPPED, "--rw=randread", size, *turn.time_limit)
    yield Measured("4 KiB mapped random reads, cold", cold.megabytes, MEGABYTES)
    turn.fio(*_READ_SEQUENTIALLY, size)
    warm = turn.fio(*_MAPPED, "--rw=randread", size, *turn.fixed_time)
    yield Measured("4 KiB mapped random reads, warm", warm.megabytes, MEGABYTES)
    # fio's fsync of a mapped file is msync(2)
    written = turn.fio(*_MAPPED, "--rw=randwrite", "--fsync=256", size, *turn.time_limit)
    yield Measured("4 KiB mapped random writes, msync every 1 MiB", written.megabytes, MEGABYTES)


def files(turn: Turn) -> Iterator[Measured]:
    count = turn.sizes.files
    (turn.mnt / "files").mkdir()

    def measured(name: str, loop: str) -> Measured:
        return Measured(name, turn.loop(loop, "files", count) * 1e6, MICROSECONDS)

    yield measured("create + write 3 kB + close", "create")
    yield measured("open + read + close, just written", "read")
    yield measured("stat, warm", "stat-again")
    turn.system.remount()
    turn.loop("read", "files", count)  # now what lies beneath is cached
    turn.system.remount()
    yield measured("open + read + close, mount's cache dropped", "read")
    turn.system.cool()
    yield measured("stat, cold", "stat")


def unlink(turn: Turn) -> Iterator[Measured]:
    count = turn.sizes.unlinked
    for name, per_directory in (("one directory", None), ("a tree", _PER_DIRECTORY)):
        for path in loops.file_paths(turn.mnt, count, per_directory)[:: per_directory or count]:
            Path(path).parent.mkdir(exist_ok=True)
        turn.loop("create", "", count, per_directory)
        took = turn.loop("unlink", "", count, per_directory)
        yield Measured(f"unlink in {name}", took * 1e6, MICROSECONDS)


def listing(turn: Turn) -> Iterator[Measured]:
    (turn.mnt / "many").mkdir()
    turn.loop("create-empty", "many", turn.sizes.listed)

    def ls() -> float:
        return _seconds("ls", "-l", turn.mnt / "many")

    turn.system.remount()
    ls()  # now what lies beneath is cached
    turn.system.remount()
    yield Measured("ls -l of many files, mount's cache dropped", ls(), SECONDS)
    yield Measured("ls -l of many files, warm", ls(), SECONDS)


def trees(turn: Turn) -> Iterator[Measured]:
    (turn.mnt / "tree").mkdir()
    extract = ("tar", "-C", turn.mnt / "tree", "-xf", turn.inputs.archive)
    yield Measured("tar x of a source tree", _seconds(*extract), SECONDS)
    copy = ("cp", "-a", turn.mnt / "tree", turn.mnt / "copy")
    yield Measured("cp -a of a source tree", _seconds(*copy), SECONDS)


def clone(turn: Turn) -> Iterator[Measured]:
    begin = time.perf_counter()
    source = f"file://{turn.inputs.repository}"
    git(turn.mnt, "clone", "--quiet", source, "clone")
    git(turn.mnt / "clone", "status", "--short")
    yield Measured("git clone + git status", time.perf_counter() - begin, SECONDS)


def sqlite(turn: Turn) -> Iterator[Measured]:
    rows = turn.sizes.rows
    each = turn.loop("sqlite", "single.db", rows, 1)
    yield Measured("sqlite, 1 insert per transaction", 1 / each, RATE)
    each = turn.loop("sqlite", "bulk.db", 100 * rows, 1000)
    yield Measured("sqlite, 1,000 inserts per transaction", 1 / each, RATE)


def pgbench(turn: Turn) -> Iterator[Measured]:
    yield Measured("pgbench, 4 clients", postgresql_rate(turn.mnt, turn.sizes.seconds), RATE)


def _seconds(*words: str | Path | int) -> float:
    begin = time.perf_counter()
    run(*words)
    return time.perf_counter() - begin


WORKLOADS: Final[dict[str, Workload]] = {
    function.__name__: function
    for function in (
        stream,
        buffered,
        synced,
        mapped,
        files,
        unlink,
        listing,
        trees,
        clone,
        sqlite,
        pgbench,
    )
}
