"""mapfs bench: measure what is said of mmap on this machine."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mapfs.cli.completion import some_of, stores
from mapfs.cli.parameters import SIZE
from mapfs.cli.terminal import console
from mapfs.errors import StoreError

if TYPE_CHECKING:
    from mapfs.claims.claim import Claim, Result

_LEAST_BYTES: Final = 16 << 20
_COLOURS: Final = {"holds": "green", "does not hold": "red", "cannot be measured here": "yellow"}
Begin = Callable[["Claim", str], None]


@click.group("bench", short_help="Measure what is said for and against mmap.")
def command() -> None:
    """Measure on this machine.

    \b
    mapfs bench claims data.mapfs
    """


def _print_list(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:  # noqa: FBT001 (click passes it so)
    if not is_asked:
        return
    from mapfs.claims.catalogue import CLAIMS

    for name, claim in CLAIMS.items():
        click.echo(f"{name:<11}{claim.side:<9}{claim.sentence}")
    context.exit()


def _claims() -> Iterable[str]:
    from mapfs.claims.catalogue import CLAIMS

    return CLAIMS


def _chosen(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> "list[Claim]":
    """The claims that `--only` names."""
    from mapfs.claims.catalogue import CLAIMS

    names = list(CLAIMS) if text is None else text.split(",")
    for name in names:
        if name not in CLAIMS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(CLAIMS)}")
    return [CLAIMS[name] for name in dict.fromkeys(names)]


@command.command("claims")
@click.argument("store", type=click.Path(path_type=Path), shell_complete=stores)
@click.option(
    "--only",
    "claims",
    metavar="NAME[,NAME]…",
    callback=_chosen,
    help="Measure these claims only.",
    shell_complete=some_of(_claims),
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_list,
    help="Print the names of the claims and exit.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=5),
    default=8,
    show_default=True,
    help="Repetitions of each measurement.",
)
@click.option(
    "--size", type=SIZE, default="128M", show_default=True, help="Size of the largest file."
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a page with plots to this file.",
)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write a picture of the factors to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def claims_command(
    *,
    store: Path,
    claims: "list[Claim]",
    repeat: int,
    size: int,
    html: Path | None,
    svg: Path | None,
    as_json: bool,
) -> int:
    """Measure what is said for and against mmap, and say what holds here.

    Works in a directory of its own beside STORE, with a store of its own, and removes both at the
    end; STORE itself is not touched and need not exist. Exit code 1 if something could not be
    measured.

    \b
    mapfs bench claims data.mapfs --html claims.html
    mapfs bench claims data.mapfs --only copy,seek --json
    """
    from mapfs.claims.ground import Settings, ground_beside
    from mapfs.claims.machine import facts
    from mapfs.claims.measuring import measured
    from mapfs.claims.report import as_json as results_as_json
    from mapfs.whole_file import checked_target

    if size < _LEAST_BYTES:
        raise click.BadParameter("it must be 16M at least", param_hint="--size")
    for path in filter(None, (html, svg)):
        checked_target(path)  # a run takes minutes: better now than at its end
    settings = Settings(size, repeat, _page_size(store))
    described = facts(store.absolute().parent, settings)
    with (
        _progress(claims) as (begin, step),
        ground_beside(store, settings, step) as ground,
    ):
        results = list(measured(claims, ground, begin))
    if as_json:
        click.echo(results_as_json(results, described))
    else:
        _print_table(results)
    _write(results, described, html, svg)
    return int(not all(each.figures for one in results for each in one.findings))


def _write(
    results: "Sequence[Result]", described: dict[str, str], html: Path | None, svg: Path | None
) -> None:
    from mapfs.claims.page import as_html
    from mapfs.claims.plot import overview, standalone
    from mapfs.whole_file import write_whole

    if html is not None:
        write_whole(html, as_html(results, described))
    if svg is not None:
        write_whole(svg, standalone(overview(results)))


def _page_size(store: Path) -> int:
    """Bytes in a page of the store, or of the machine if there is no store yet."""
    from mapfs.format.superblock import HEADER_BYTES, read_superblock
    from mapfs.store.bundle import Bundle
    from mapfs.store.mkfs import machine_page_size

    if not store.absolute().parent.is_dir():
        raise StoreError(f"{store.absolute().parent}: no such directory")
    if not store.exists():
        return machine_page_size()
    bundle = Bundle(store)
    bundle.require()
    with bundle.store.open("rb") as file:
        return read_superblock(file.read(HEADER_BYTES)).page_size


@contextlib.contextmanager
def _progress(claims: "list[Claim]") -> Iterator[tuple[Begin, Callable[[], None]]]:
    """A bar on standard error if that is a terminal.

    What it gives is called with each claim and kind of file as it begins, and while it goes on.
    """
    if not sys.stderr.isatty():
        yield (lambda _claim, _subject: None), (lambda: None)
        return
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), *Progress.get_default_columns()[:2], MofNCompleteColumn())
    # Claims fork, and a thread that draws would not be there in a child.
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
        auto_refresh=False,
    ) as bar:
        task = bar.add_task("", total=sum(len(claim.subjects) for claim in claims), completed=-1)

        def begin(claim: "Claim", subject: str) -> None:
            bar.update(task, advance=1, description=f"{claim.name}: {subject}", refresh=True)

        yield begin, bar.refresh


def _print_table(results: "Sequence[Result]") -> None:
    from rich.markup import escape
    from rich.table import Table

    screen = console()
    for result in results:
        claim = result.claim
        colour = _COLOURS[result.verdict]
        screen.print(f"[bold]{claim.name}[/], {claim.side} mmap: [{colour}]{result.verdict}[/]")
        screen.print(f"  {claim.sentence}", soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), collapse_padding=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for finding in result.findings:
            colour = _COLOURS[finding.verdict]
            reason = escape(finding.reason)
            table.add_row(finding.subject, f"[{colour}]{finding.verdict}[/]", reason)
        screen.print(table)
        screen.print()
