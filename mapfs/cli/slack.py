"""mapfs slack: where the bytes of a tree go."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from mapfs.cli.completion import one_of, some_of
from mapfs.cli.terminal import console
from mapfs.errors import UsageError
from mapfs.format.totals import WHAT_IF_SIZES

if TYPE_CHECKING:
    from rich.status import Status

    from mapfs.report.report import Report
    from mapfs.report.sections import Section
    from mapfs.report.source import Source
    from mapfs.report.tree import Keep
    from mapfs.report.usage import Usage

# Of the lines of a terminal: what stands around the rows of a table.
_LINES_AROUND: Final = 7
_FEWEST_ROWS: Final = 5
_FILES_BETWEEN_UPDATES: Final = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options as they were given."""

    output: str | None
    sort: str
    depth: int | None
    summarize: bool
    top: int | None
    one_file_system: bool
    human: bool
    exact: bool
    by_type: bool
    histogram: bool
    what_if: tuple[int, ...] | None
    as_json: bool
    raw: bool
    html: Path | None

    def check(self) -> None:
        """Raise `UsageError` if two of them contradict each other."""
        if self.summarize and self.depth is not None:
            raise UsageError("--summarize is --depth 0: give one of them")
        if self.human and self.exact:
            raise UsageError("--human-readable and --bytes exclude each other")
        if sum((self.as_json, self.raw, self.html is not None)) > 1:
            raise UsageError("give one of --json, --raw and --html")
        if self.raw and self.views > 1:
            raise UsageError("--raw takes one of --by-type, --histogram and --what-if")
        if self.html is not None and self._chooses:
            raise UsageError("--html shows everything: choose nothing with it")

    @property
    def _chooses(self) -> bool:
        rows = self.summarize or self.depth is not None or self.top is not None
        return bool(self.views or self.output or rows)

    @property
    def views(self) -> int:
        """How many tables are asked for instead of that of files and directories."""
        return sum((self.by_type, self.histogram, self.what_if is not None))


class _PageSizes(click.ParamType[tuple[int, ...]]):
    """Some of the page sizes that what-if slack is kept for: `4k,64k`."""

    name = "sizes"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Bytes; fails with click's usage error."""
        labels = [label.strip().lower() for label in value.split(",")]
        if wrong := [label for label in labels if label not in WHAT_IF_SIZES]:
            self.fail(f"{wrong[0]!r} is none of {', '.join(WHAT_IF_SIZES)}", param, ctx)
        return tuple(WHAT_IF_SIZES[label] for label in labels)


def _columns() -> Iterable[str]:
    from mapfs.report.columns import COLUMNS, NAME

    return (*COLUMNS, NAME)


@click.command(
    "slack",
    short_help="Show where the bytes of a tree go, and what is slack.",
    context_settings={"help_option_names": ["--help"]},
)
@click.argument(
    "path", default=".", type=click.Path(readable=False, path_type=Path), metavar="[PATH|STORE]"
)
@click.option("-d", "--depth", type=click.IntRange(0), help="Levels to show (default: 1).")
@click.option("-s", "--summarize", is_flag=True, help="The total only, as --depth 0.")
@click.option("-n", "--top", type=click.IntRange(1), help="Rows to show (default: all that fit).")
@click.option(
    "--sort",
    default="slack",
    metavar="COL",
    help="Largest first (default: slack).",
    shell_complete=one_of(_columns),
)
@click.option(
    "-o",
    "--output",
    metavar="COLS",
    help="Columns, as in size,slack,name.",
    shell_complete=some_of(_columns),
)
@click.option("-b", "--bytes", "exact", is_flag=True, help="Exact bytes.")
@click.option("-h", "--human-readable", "human", is_flag=True, help="Sizes like 4.0K.")
@click.option("-x", "--one-file-system", is_flag=True, help="Do not enter other file systems.")
@click.option("--by-type", is_flag=True, help="Files by suffix.")
@click.option("--histogram", is_flag=True, help="Files by size.")
@click.option(
    "--what-if",
    type=_PageSizes(),
    metavar="SIZES",
    help="With other pages: of 4k,16k,64k,2m.",
    shell_complete=some_of(lambda: WHAT_IF_SIZES),
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--raw", is_flag=True, help="Print fields between tabs, without headings.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page.")
def command(*, path: Path, **given: Any) -> int:  # noqa: ANN401 (what Wanted has)
    """Show where the bytes of a tree go, and which of them are page slack.

    PATH may be on a mounted mapfs, or in any other file system: then what it would waste in mapfs
    is shown, too. STORE may be mounted or not. The default is the current directory.

    \b
    mapfs slack mnt
    mapfs slack data.mapfs --what-if 4k,64k --histogram
    mapfs slack /usr/share -o slack,slack%,mapfs,name --sort mapfs -n 20
    mapfs slack mnt --html slack.html
    """
    wanted = Wanted(**given)
    wanted.check()
    if wanted.html is not None:
        from mapfs.whole_file import checked_target

        checked_target(wanted.html)  # now, and not after a long walk
    with _source(path, one_filesystem=wanted.one_file_system) as source, _Progress() as progress:
        report = _walk(source, wanted, progress)
    if wanted.html is not None:
        from mapfs.report.html import write_page

        write_page(report, wanted.html)
    else:
        _show(report, wanted)
    return int(progress.failed)


@contextlib.contextmanager
def _source(path: Path, *, one_filesystem: bool) -> "Iterator[Source]":
    """Where to read: a mount rather than its store."""
    from mapfs.mounts import mount_of_store
    from mapfs.report.live import LiveTree
    from mapfs.store.bundle import Bundle

    mount = mount_of_store(path)
    if mount is None and Bundle(path).is_complete:
        from mapfs.report.at_rest import StoreTree

        with contextlib.closing(StoreTree(path)) as tree:
            yield tree
        return
    where = mount.mountpoint if mount is not None else path
    yield LiveTree(str(where), one_filesystem=one_filesystem)


def _walk(source: "Source", wanted: Wanted, progress: "_Progress") -> "Report":
    from mapfs.report.columns import chosen, default_columns, need_walk, require_column
    from mapfs.report.report import make_report

    columns = [*chosen(wanted.output or default_columns(source.kind)), require_column(wanted.sort)]
    in_groups = wanted.by_type or wanted.histogram or wanted.html is not None
    rows_need_walk = not wanted.views and need_walk(columns)
    return make_report(
        source,
        _kept(wanted),
        totals_suffice=not in_groups and not rows_need_walk,
        on_file=progress.count,
        on_error=progress.complain,
    )


def _kept(wanted: Wanted) -> "Keep":
    from mapfs.report.tree import Keep

    if wanted.html is not None:
        from mapfs.report.html import MOST_NODES

        return Keep(nodes=MOST_NODES)
    if wanted.views or wanted.summarize:
        return Keep(depth=0)
    return Keep(depth=1 if wanted.depth is None else wanted.depth)


def _show(report: "Report", wanted: Wanted) -> None:
    if wanted.as_json:
        from mapfs.report.plain import as_json

        click.echo(as_json(report, _sections(report, wanted, wanted.top)))
    elif wanted.raw:
        from mapfs.report.plain import raw_lines

        for section in _sections(report, wanted, wanted.top):
            for line in raw_lines(section, human=wanted.human):
                click.echo(line)
    else:
        _print_tables(report, wanted)


def _print_tables(report: "Report", wanted: Wanted) -> None:
    from mapfs.report.table import print_section, verdict

    screen = console()
    fitting = max(_FEWEST_ROWS, screen.height - _LINES_AROUND) if screen.is_terminal else None
    for section in _sections(report, wanted, wanted.top or fitting):
        print_section(screen, section, human=not wanted.exact)
        screen.print()
    screen.print(verdict(report), soft_wrap=not screen.is_terminal)


def _sections(report: "Report", wanted: Wanted, top: int | None) -> "list[Section]":
    """The tables that are asked for."""
    from mapfs.report.columns import chosen, default_columns
    from mapfs.report.sections import entries, histogram, types, what_if

    if not wanted.views:
        columns = chosen(wanted.output or default_columns(report.kind))
        return [entries(report, columns, wanted.sort, top)]
    chosen_columns = chosen(wanted.output) if wanted.output else None
    found = []
    if wanted.by_type:
        found.append(types(report, chosen_columns, wanted.sort, top))
    if wanted.histogram:
        found.append(histogram(report, chosen_columns))
    if wanted.what_if is not None:
        found.append(what_if(report, wanted.what_if))
    return found


class _Progress:
    """The files that were counted, on a terminal; and what could not be read."""

    def __init__(self) -> None:
        self.failed = False
        self._files = 0
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._status = console(stderr=True).status("looking …")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def count(self, name: str, usage: "Usage") -> None:
        """One more file."""
        del name, usage
        self._files += 1
        if self._status is not None and self._files % _FILES_BETWEEN_UPDATES == 0:
            self._status.update(f"{self._files:,} files …")

    def complain(self, path: str, error: Exception) -> None:
        """One line about a directory that could not be read."""
        from mapfs.names import printable

        self.failed = True
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"mapfs: {printable(path)}: {reason}"
        if self._status is not None:
            self._status.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(message, err=True)
