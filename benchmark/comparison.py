"""mapfs of two revisions against each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmark.programs import run, say
from benchmark.report import rounded, table
from benchmark.results import Results
from benchmark.summary import ratio, spread

NOW: Final = "now"
BEFORE: Final = "before"


@contextmanager
def checked_out(root: Path, revision: str, where: Path) -> Iterator[Path]:
    """The `mapfs` command of another revision, in a worktree with a .venv of its own.

    Raises `BenchmarkError` if there is no such revision or it cannot be set up.
    """
    run("git", "-C", root, "worktree", "add", "--quiet", "--detach", where, revision)
    try:
        say(f"setting up {revision}")
        run(where / "scripts" / "setup")
        yield where / ".venv" / "bin" / "mapfs"
    finally:
        run("git", "-C", root, "worktree", "remove", "--force", where)


def slower_now(results: Results) -> list[str]:
    """The measurements in which the change costs more than five hundredths, beyond the noise."""
    return [
        name
        for name in results.measurements
        if (found := ratio(results.of(name, NOW), results.of(name, BEFORE))) and found.slower
    ]


def as_markdown(results: Results) -> str:
    """One row for each measurement: both medians, the ratio of speeds, and its bounds."""
    rows = []
    slower = slower_now(results)
    for name in results.measurements:
        now, before = results.of(name, NOW), results.of(name, BEFORE)
        found = ratio(now, before)
        if found is None:
            continue
        bounds = f"{rounded(found.low)} to {rounded(found.high)}"
        medians = [rounded(spread(samples).median) for samples in (before, now)]
        verdict = "**slower**" if name in slower else ""
        title = f"{name} ({now[0].unit})"
        rows.append([title, *medians, rounded(found.paired), bounds, verdict])
    return table(["", BEFORE, NOW, "speed now / before", "bounds", ""], rows)
