"""Where the commands' output meets a terminal: consoles, and bars that show how far it is.

Colour and movement are for terminals. There NO_COLOR (https://no-color.org) turns colour off, which
rich looks at by itself.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import click

from mapfs.names import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

_BETWEEN_UPDATES_SECONDS: Final = 0.1
_NO_WIDTH: Final = 1 << 16
# To be called, however often, with how much is done, and of how much if that is known.
Report = Callable[[int, int | None], None]


def console(*, stderr: bool = False) -> "Console":
    """A console on standard output or standard error; every verb takes its own from here.

    What is no terminal has no width that text should be cut to.
    """
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_NO_WIDTH)


def complain(message: str) -> None:
    """One line on standard error, which names in it cannot break or turn on the terminal."""
    click.echo(f"mapfs: {printable(message)}", err=True)


@contextlib.contextmanager
def progress(what: str, *, in_bytes: bool = False) -> Iterator[Report | None]:
    """A bar on standard error while the block runs; None if that is no terminal.

    What is printed meanwhile stands above the bar, which is gone in the end. `in_bytes` shows how
    many bytes, and how fast.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    columns = _byte_columns() if in_bytes else Progress.get_default_columns()
    # Standard output may go elsewhere, and goes by itself.
    with Progress(
        *columns, console=console(stderr=True), transient=True, redirect_stdout=False
    ) as bar:
        task = bar.add_task(what, total=None)
        shown = 0.0
        latest: tuple[int, int | None] = (0, None)

        def report(done: int, total: int | None) -> None:
            nonlocal shown, latest
            latest = (done, total)
            if time.monotonic() - shown >= _BETWEEN_UPDATES_SECONDS:
                shown = time.monotonic()
                bar.update(task, completed=done, total=total)

        yield report
        bar.update(task, completed=latest[0], total=latest[1])  # short work was not shown yet


def _byte_columns() -> "tuple[str | ProgressColumn, ...]":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
