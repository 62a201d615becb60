"""The command line of scripts/bench."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmark import comparison
from benchmark.catalogue import MAPFS_PROGRAM, SYSTEM_NAMES, make_system
from benchmark.inputs import Inputs
from benchmark.machine import describe
from benchmark.mapfs_system import Mapfs
from benchmark.plot import as_svg
from benchmark.postgresql import postgresql_programs
from benchmark.programs import BenchmarkError, need, say
from benchmark.report import as_json, as_markdown
from benchmark.results import Results, SystemDescription
from benchmark.schedule import Plan, run_plan
from benchmark.system import Role, System, empty_directory
from benchmark.workloads import WORKLOADS, Sizes, Workload
from benchmark.workspace import workspace

ROOT: Final = Path(__file__).resolve().parent.parent


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure mapfs beside other file systems. Needs root."
    )
    parser.add_argument(
        "--systems", type=_names(SYSTEM_NAMES), help=f"of {','.join(SYSTEM_NAMES)} (default: all)"
    )
    parser.add_argument(
        "--workloads",
        type=_names(list(WORKLOADS)),
        default=list(WORKLOADS),
        help=f"of {','.join(WORKLOADS)} (default: all)",
    )
    parser.add_argument("--repeat", type=int, default=5, help="repetitions (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="times all sizes (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the systems' order (default: 1)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp"),  # noqa: S108 (a fresh directory is made in it)
        help="where the data go: on the disk to measure (default: /var/tmp)",
    )
    parser.add_argument("--output", type=Path, help="write results.json, .md and .svg there")
    parser.add_argument("--compare", metavar="REV", help="measure mapfs of REV and as it is now")
    given = parser.parse_args(words)
    if given.compare and given.systems:
        parser.error("--compare measures mapfs only; leave --systems out")
    return given


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return names

    return parse


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 1 if mapfs failed, is missing or, with --compare, got slower."""
    given = arguments(words)
    if os.geteuid() != 0:
        say("needs root, to mount and to drop caches")
        return 2
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # a user's PATH lacks them
    try:
        with workspace(given.directory) as place:
            return _compare(given, place) if given.compare else _measure(given, place)
    except BenchmarkError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


def _measure(given: argparse.Namespace, place: Path) -> int:
    size = Sizes.scaled(given.scale).image_bytes
    names = given.systems or SYSTEM_NAMES
    systems = [make_system(name, place / name, size) for name in names]
    results = _run(given, place, systems, as_markdown)
    failed = {failure.system for failure in results.failures} | set(results.skipped)
    return (
        1 if any(system.role is Role.MAPFS and system.name in failed for system in systems) else 0
    )


def _compare(given: argparse.Namespace, place: Path) -> int:
    size = Sizes.scaled(given.scale).image_bytes
    with comparison.checked_out(ROOT, given.compare, place / "checkout") as other:
        systems: list[System] = [
            Mapfs(place / comparison.BEFORE, size, comparison.BEFORE, other),
            Mapfs(place / comparison.NOW, size, comparison.NOW, MAPFS_PROGRAM),
        ]
        results = _run(given, place, systems, comparison.as_markdown)
    for failure in results.failures:
        say(f"{failure.workload} failed with mapfs {failure.system}: {failure.reason}")
    return 1 if results.failures or comparison.slower_now(results) else 0


def _run(
    given: argparse.Namespace,
    place: Path,
    systems: Sequence[System],
    report: Callable[[Results], str],
) -> Results:
    need("fio", "fio")
    sizes = Sizes.scaled(given.scale)
    skipped = dict(_unavailable(systems))
    there = [system for system in systems if system.name not in skipped]
    results = Results(
        [_description(system) for system in there],
        skipped,
        describe(place, ROOT),
        {name: str(getattr(given, name)) for name in ("repeat", "scale", "seed")},
    )
    inputs = Inputs(place / "inputs", sizes.sources)
    inputs.make()
    plan = Plan(there, _available(given.workloads), given.repeat, given.seed)
    try:
        run_plan(plan, sizes, inputs, results)
    finally:  # after Ctrl-C, too: it says what was measured until then
        _write(given.output, results, report(results))
    return results


def _description(system: System) -> SystemDescription:
    return SystemDescription(
        system.name, system.role.value, system.version(), system.settings(), system.caveat
    )


def _unavailable(systems: Sequence[System]) -> Iterator[tuple[str, str]]:
    """Install the systems; names those that cannot be had, and why."""
    for system in systems:
        empty_directory(system.mnt)
        try:
            system.install()
        except BenchmarkError as error:
            say(f"without {system.name}: {error}")
            yield system.name, str(error)


def _available(names: Sequence[str]) -> dict[str, Workload]:
    if "pgbench" in names and postgresql_programs() is None:
        say("without pgbench: PostgreSQL is not installed")
        names = [name for name in names if name != "pgbench"]
    return {name: WORKLOADS[name] for name in names}


def _write(output: Path | None, results: Results, markdown: str) -> None:
    sys.stdout.write(markdown)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.json").write_text(as_json(results))
        (output / "results.md").write_text(markdown)
        if svg := as_svg(results, "ext4"):
            (output / "results.svg").write_text(svg)
