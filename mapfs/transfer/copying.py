"""The engine: from any source into any target, one member after the other."""

import contextlib
from collections.abc import Generator
from typing import Final, Protocol

from mapfs.errors import FULL, MapfsError, NoSpaceError, WriteFailedError
from mapfs.transfer.entry import Entry
from mapfs.transfer.outcome import ENDS, Outcome

# The name of standard input as a source, and of standard output as a target.
STANDARD_STREAM: Final = "-"


class Source(Protocol):
    """Where a tree comes from."""

    def entries(self) -> Generator[Entry, None, None]:
        """The members, a directory before what is in it; steps the outcome.

        What cannot be read is a failure of the outcome, and not raised; nor are any of `ENDS` by
        what an entry gives, as they would be taken for the target's.
        """


class Target(Protocol):
    """Where a tree goes to."""

    def put(self, entry: Entry) -> bool:
        """Copy a member; False if it was there already, and equal.

        Raises `MapfsError` or `OSError` with nothing half-written left that looks finished.
        """

    def finish(self, outcome: Outcome) -> None:
        """After the last member, or instead of the next: complete what `put` left to be done.

        What cannot be is a failure of the outcome; raises what ends a copy.
        """


def copy(source: Source, target: Target, outcome: Outcome) -> None:
    """Copy everything that can be copied; what cannot is a failure of the outcome.

    Raises `NoSpaceError` if the target is full, and what else ends a copy; what was copied until
    then is complete, and copying again goes on from there.
    """
    try:
        with contextlib.closing(source.entries()) as entries:
            for entry in entries:
                outcome.step()
                _put(entry, target, outcome)
    except BaseException as error:
        if getattr(error, "errno", None) not in ENDS:
            with contextlib.suppress(MapfsError, OSError):
                target.finish(outcome)
        raise
    target.finish(outcome)


def _put(entry: Entry, target: Target, outcome: Outcome) -> None:
    try:
        is_copied = target.put(entry)
    except (MapfsError, OSError) as error:
        if error.errno in FULL:
            raise NoSpaceError(
                "no space left; what is copied is complete, running it again goes on"
            ) from error
        if error.errno in ENDS or isinstance(error, WriteFailedError):
            raise
        outcome.failed(entry.path, error)
        return
    if not entry.path:
        return  # the directory that the rest is under: neither copied nor skipped
    if is_copied:
        outcome.copied += 1
        outcome.copied_bytes += entry.size if entry.is_file and entry.link is None else 0
    else:
        outcome.skipped += 1
