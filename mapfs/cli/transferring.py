"""What `mapfs import` and `mapfs export` share: running a copy, showing it, and summing it up."""

import contextlib
import json
from collections.abc import Callable, Iterator

import click

from mapfs.cli.interrupts import Interrupts
from mapfs.cli.terminal import Report, complain, progress
from mapfs.errors import MapfsError, NoSpaceError, WriteFailedError
from mapfs.names import printable
from mapfs.transfer.outcome import Failure, Outcome


@contextlib.contextmanager
def transfer(what: str) -> Iterator["Transfer"]:
    """A transfer with a bar on a terminal, that Ctrl-C ends between two steps."""
    interrupts = Interrupts()
    with interrupts.caught(), progress(what, in_bytes=True) as report:
        yield Transfer(report, interrupts)


class Transfer:
    """One run of a verb. `outcome` is what sources report to."""

    def __init__(self, report: Report | None, interrupts: Interrupts) -> None:
        self.outcome = Outcome(_print_failure, self._step, interrupts.waiting)
        self._interrupts = interrupts
        self._report = report
        self._total: int | None = None

    def expect(self, total: Callable[[], int | None]) -> None:
        """Find out how many bytes there are, which may take its time, if that is to be shown."""
        if self._report is not None:
            self._total = total()

    def _step(self) -> None:
        self._interrupts.check()
        if self._report is not None:
            self._report(self.outcome.done, self._total)


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """Name the target in the one line that says why a copy ended."""
    try:
        yield
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        complain(f"{name}: interrupted")
        raise click.Abort from None
    except (NoSpaceError, WriteFailedError) as error:
        raise type(error)(f"{printable(name)}: {error}") from error
    except OSError as error:
        raise MapfsError(f"{printable(name)}: {error.strerror}") from error


def _print_failure(failure: Failure) -> None:
    complain(f"{failure.path}: {failure.reason}")


def print_summary(name: str, outcome: Outcome, *, as_json: bool, to_stderr: bool = False) -> int:
    """Say what was done; returns the exit code."""
    from mapfs.sizes import format_size

    if as_json:
        text = json.dumps(
            {
                "copied": outcome.copied,
                "skipped": outcome.skipped,
                "bytes": outcome.copied_bytes,
                "failures": [failure._asdict() for failure in outcome.failures],
            },
            indent=2,
        )
    else:
        text = f"{printable(name)}: {outcome.copied} copied ({format_size(outcome.copied_bytes)})"
        text += f", {outcome.skipped} there already" if outcome.skipped else ""
        text += f", {len(outcome.failures)} failed" if outcome.failures else ""
    click.echo(text, err=to_stderr)
    return int(bool(outcome.failures))
