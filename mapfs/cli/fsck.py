"""mapfs fsck: check a store that is not mounted, and repair it if asked to."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mapfs.cli.completion import stores
from mapfs.cli.output import STANDARD_OUTPUT
from mapfs.cli.terminal import complain, progress
from mapfs.errors import DamagedStoreError, MapfsError
from mapfs.names import printable

if TYPE_CHECKING:
    from mapfs.filesystem.finding import Finding
    from mapfs.store.store import Store

# The exit codes of fsck(8).
_CORRECTED: Final = 1
_ERRORS_LEFT: Final = 4
_OPERATIONAL_ERROR: Final = 8


@click.command("fsck")
@click.argument("store", type=click.Path(readable=False, path_type=Path), shell_complete=stores)
@click.option("--repair", is_flag=True, help="Repair what is wrong, saying each thing first.")
@click.option("--json", "as_json", is_flag=True, help="Print findings (and repairs) as JSON.")
def command(*, store: Path, repair: bool, as_json: bool) -> int:
    """Check STORE, which must not be mounted for writing.

    Changes nothing without --repair. Exit code 0: no errors; 1: all errors corrected; 4: errors
    left; 8: it could not be checked or repaired.

    \b
    mapfs fsck data.mapfs
    mapfs fsck --repair data.mapfs
    """
    report = _JsonReport() if as_json else _Report()
    try:
        return _repair(store, report) if repair else _check(store, report)
    except MapfsError as error:
        about = "" if str(store) in str(error) else f"{store}: "
        complain(f"{about}{error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        what = STANDARD_OUTPUT if error.filename == STANDARD_OUTPUT else store
        complain(f"{what}: {error.strerror}")
    return _OPERATIONAL_ERROR


class _Report:
    """Lines for people."""

    tells_all = False

    def begin_repair(self) -> None:
        """Start the report of a repair."""

    def findings(self, findings: "Iterable[Finding]") -> int:
        """Print what was found; returns how many things."""
        count = 0
        for finding in findings:
            click.echo(f"{finding.invariant}: {finding.message}")
            count += 1
        return count

    def repairs(self, actions: Iterable[str]) -> int:
        """Print what is repaired, as it is; returns how many things."""
        count = 0
        for action in actions:
            click.echo(f"repair: {action}")
            count += 1
        return count

    def checked(self, path: Path, count: int) -> None:
        """End the report of a check."""
        click.echo(f"{printable(str(path))}: {f'{count} errors' if count else 'clean'}")

    def repaired(self, path: Path, count: int, left: "Iterable[Finding]") -> int:
        """End the report of a repair; returns how many errors are left."""
        lasting = sum(1 for _ in left)
        outcome = f"{lasting} left" if lasting else "all corrected"
        click.echo(f"{printable(str(path))}: {count} errors, {outcome}")
        return lasting


class _JsonReport(_Report):
    """An array of findings, or after a repair an object of findings, repairs and what is left."""

    tells_all = True

    def begin_repair(self) -> None:
        click.echo('{"findings": ', nl=False)

    def findings(self, findings: "Iterable[Finding]") -> int:
        return self._array(map(asdict, findings))

    def repairs(self, actions: Iterable[str]) -> int:
        click.echo(',\n"repairs": ', nl=False)
        return self._array(actions)

    def checked(self, path: Path, count: int) -> None:
        del path, count
        click.echo()

    def repaired(self, path: Path, count: int, left: "Iterable[Finding]") -> int:
        del path, count
        click.echo(',\n"left": ', nl=False)
        lasting = self.findings(left)
        click.echo("}")
        return lasting

    def _array(self, items: Iterable[object]) -> int:
        """Print item by item: a damaged store may have more to tell than fits into memory."""
        count = 0
        for item in items:
            click.echo(f"{',' if count else '['}\n  {json.dumps(item)}", nl=False)
            count += 1
        click.echo("\n]" if count else "[]", nl=False)
        return count


def _check(path: Path, report: _Report) -> int:
    try:
        with _opened(path, read_only=True) as store:
            count = report.findings(_findings(store))
    except DamagedStoreError:
        # With these nothing else can be checked.
        obstacles = _obstacles(path)
        if not obstacles:
            raise
        count = report.findings(obstacles)
    report.checked(path, count)
    return _ERRORS_LEFT if count else 0


def _repair(path: Path, report: _Report) -> int:
    from mapfs.filesystem.repair import repair

    obstacles, mended = _let_open(path)
    with _opened(path, read_only=False) as store:
        report.begin_repair()
        count = report.findings(chain(obstacles, _findings(store)))
        if not count and not report.tells_all:
            report.checked(path, 0)
            return 0
        report.repairs(chain(mended, repair(store) if count else ()))
        left = report.repaired(path, count, _findings(store) if count else ())
        return _ERRORS_LEFT if left else _CORRECTED if count else 0


def _obstacles(path: Path) -> "list[Finding]":
    from mapfs.filesystem.repair.opening import find_obstacles

    return find_obstacles(path)


def _let_open(path: Path) -> "tuple[list[Finding], list[str]]":
    """Repair what keeps the store from being opened: what it was, and what was done."""
    from mapfs.filesystem.repair.opening import repair_opening
    from mapfs.store.opening import open_store

    try:
        open_store(path, thorough=True).close()  # opening for writing begins the log anew
    except DamagedStoreError:
        return _obstacles(path), list(repair_opening(path))
    return [], []


@contextlib.contextmanager
def _opened(path: Path, *, read_only: bool) -> "Iterator[Store]":
    """The store as opening it finds it: what the log holds counts, in memory."""
    from mapfs.filesystem.survey import settle
    from mapfs.store.opening import open_store

    with contextlib.closing(open_store(path, read_only=read_only, thorough=True)) as store:
        settle(store)
        yield store


def _findings(store: "Store") -> "Iterator[Finding]":
    from mapfs.filesystem.check import Check

    # Findings go to standard output by themselves; the bar is gone when the check ends.
    with progress("checking") as report:
        yield from (Check(store, report) if report else Check(store)).findings()
