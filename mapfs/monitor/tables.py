"""Statistics and rates as tables of text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mapfs.fuse.counters import Timings
from mapfs.fuse.statistics import FileUse, Process, Snapshot
from mapfs.monitor.rates import Rate, Rates
from mapfs.names import printable
from mapfs.sizes import format_size

FILE_COLUMNS: Final = ("file", "accesses", "size", "slack", "resident", "dirty")
RATE_COLUMNS: Final = ("operation", "per second", "errors", "p50", "p90", "p99")

# What rows can be in the order of, the largest first.
RATE_KEYS: Final[dict[str, Callable[[Rate], float]]] = {
    "rate": lambda rate: rate.per_second,
    "errors": lambda rate: rate.errors_per_second,
    "latency": lambda rate: rate.p99_seconds or 0,
}
FILE_KEYS: Final[dict[str, Callable[[FileUse], int]]] = {
    "accesses": lambda use: use.accesses,
    "size": lambda use: use.bytes,
    "slack": lambda use: use.slack_bytes,
    "resident": lambda use: use.resident_bytes or 0,
    "dirty": lambda use: use.dirty_bytes or 0,
}


def print_snapshot(console: Console, snapshot: Snapshot) -> None:
    """Print what a mount has done and holds."""
    timed = {**snapshot.operations, "(commits)": snapshot.commits}
    columns = ("operation", "count", "errors", "in all", "p50", "p99")
    console.print(table_of(columns, [_counted(*each) for each in sorted(timed.items())]))
    console.print(table_of(("", ""), _facts(snapshot)))
    if snapshot.files:
        console.print(table_of(FILE_COLUMNS, file_rows(snapshot.files)))


def print_rates(console: Console, rates: Rates) -> None:
    """Print what happened on a mount in an interval."""
    console.print(table_of(RATE_COLUMNS, rate_rows(rates)))
    console.print(table_of(("", ""), summary_rows(rates)))
    if rates.files:
        console.print(table_of(FILE_COLUMNS, file_rows(rates.files)))


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with all but the first column to the right."""
    table = Table(box=None, show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def rate_rows(rates: Rates, order: str = "rate") -> list[tuple[str, ...]]:
    """A row for each operation that was done, by a key of `RATE_KEYS`, and one for commits."""
    done = {name: rate for name, rate in rates.operations.items() if rate.per_second}
    ordered = sorted(done.items(), key=lambda item: -RATE_KEYS[order](item[1]))
    return [_rated(name, rate) for name, rate in [*ordered, ("(commits)", rates.commits)]]


def _rated(name: str, rate: Rate) -> tuple[str, ...]:
    quantiles = (rate.p50_seconds, rate.p90_seconds, rate.p99_seconds)
    counts = f"{rate.per_second:.1f}", f"{rate.errors_per_second:.1f}"
    return (name, *counts, *map(format_seconds, quantiles))


def summary_rows(rates: Rates) -> list[tuple[str, str]]:
    """What is to be said of a mount in a line each."""
    hits = rates.inode_cache_hit_share
    faults = rates.minor_faults_per_second, rates.major_faults_per_second
    return [
        ("read, resident", f"{_size(rates.resident_bytes_per_second)}/s"),
        ("read, cold", f"{_size(rates.cold_bytes_per_second)}/s"),
        ("written", f"{_size(rates.written_bytes_per_second)}/s"),
        ("slack change", f"{_change(rates.slack_bytes_per_second)}/s"),
        *_held(rates.filesystem, rates.process),
        ("page faults", f"{faults[0]:.1f}/s, {faults[1]:.1f}/s major"),
        ("inode cache", "-" if hits is None else f"{100 * hits:.1f} % hits"),
        ("takeovers", str(rates.takeovers)),
    ]


def _held(filesystem: Mapping[str, int | str], process: Process) -> list[tuple[str, str]]:
    """What a mount holds, and what mapping costs its process."""
    sizes = {
        name: _size(int(filesystem[f"{name}_bytes"])) for name in ("slack", "allocated", "store")
    }
    return [
        ("slack", sizes["slack"]),
        ("allocated", f"{sizes['allocated']} of {sizes['store']}"),
        ("windows", f"{process.windows}, {_size(process.address_space_bytes)} of address space"),
        ("page tables", _size(process.page_table_bytes)),
        ("process", f"{process.pid}, {_size(process.resident_bytes)}, {process.threads} threads"),
        ("state", str(filesystem["state"])),
    ]


def file_rows(files: Sequence[FileUse], order: str = "accesses") -> list[tuple[str, ...]]:
    """A row for each file that is used, by a key of `FILE_KEYS`."""
    return [_file_row(use) for use in sorted(files, key=lambda use: -FILE_KEYS[order](use))]


def _file_row(use: FileUse) -> tuple[str, ...]:
    sizes = (use.bytes, use.slack_bytes, use.resident_bytes, use.dirty_bytes)
    shown = ("-" if size is None else _size(size) for size in sizes)
    return (path_label(use.path, use.inode), str(use.accesses), *shown)


def path_label(path: str | None, inode: int) -> str:
    """A path as a terminal can take it; an inode that has none by its number."""
    if path is None:
        return f"inode {inode}"
    return printable(path) or "/"


def format_seconds(seconds: float | None) -> str:
    """A duration with two or three digits; `-` for none."""
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _counted(name: str, timings: Timings) -> tuple[str, ...]:
    spent = format_seconds(timings.nanoseconds / 1e9)
    quantiles = format_seconds(timings.quantile(0.5)), format_seconds(timings.quantile(0.99))
    return (name, str(timings.count), str(timings.errors), spent, *quantiles)


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    counted, process, cache = snapshot.bytes, snapshot.process, snapshot.inode_cache
    return [
        ("read, resident", _size(counted.read - counted.cold)),
        ("read, cold", _size(counted.cold)),
        ("written", _size(counted.written)),
        ("log syncs", str(snapshot.log_syncs)),
        *_held(snapshot.filesystem, process),
        ("windows so far", f"{process.windows_mapped} in {process.window_seconds * 1000:.1f} ms"),
        ("page faults", f"{process.minor_faults}, {process.major_faults} major"),
        ("inode cache", f"{cache.hits} hits, {cache.misses} misses, {cache.inodes} inodes"),
        ("served", f"{snapshot.uptime_seconds:.0f} s, after {snapshot.takeovers} takeovers"),
    ]


def _size(value: float) -> str:
    return format_size(int(value))


def _change(value: float) -> str:
    return ("-" if value < 0 else "+") + format_size(abs(int(value)))
