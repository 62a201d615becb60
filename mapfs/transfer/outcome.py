"""What has become of a copy so far, told by whoever copies and whoever reads."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mapfs.errors import MapfsError, UnreadableError
from mapfs.names import printable

# What every other member would fail with, too: the target is read-only, gone, damaged, or a pipe
# that nobody reads any more. Sources must not raise these of themselves: see `raise_unreadable`.
ENDS: Final = (errno.EROFS, errno.ENOTCONN, errno.EUCLEAN, errno.EPIPE)


class Failure(NamedTuple):
    """A member that was not copied as it is, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """Counts of members, and bytes of their contents; and what went wrong.

    `on_failure` is told of each failure. `on_step` is called between any two steps, and may raise
    to end the copy; so may a signal while `waiting` is entered, for another program that is to
    send something. `done` is how many bytes of the sources have been read, or passed over.
    """

    on_failure: Callable[[Failure], None] = lambda _: None
    on_step: Callable[[], None] = lambda: None
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    copied: int = 0
    skipped: int = 0
    copied_bytes: int = 0
    done: int = 0
    failures: list[Failure] = field(default_factory=list)

    def step(self, done: int = 0) -> None:
        """A step has ended, and the source is read up to `done`. May raise what ends the copy."""
        self.done = max(self.done, done)
        self.on_step()

    def failed(self, path: bytes, error: Exception | str) -> None:
        """Note that a member was not copied as it is."""
        failure = Failure(printable(os.fsdecode(path)) or ".", reason_of(error))
        self.failures.append(failure)
        self.on_failure(failure)


def raise_unreadable(error: MapfsError | OSError) -> None:
    """For a source: raise `UnreadableError` for damage of it, lest it be taken for the target's.

    Of a damaged store everything is to be rescued that can be read.
    """
    if error.errno == errno.EUCLEAN:
        raise UnreadableError(reason_of(error)) from error


def reason_of(error: Exception | str) -> str:
    """What an error says, for people."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if str(error) or isinstance(error, MapfsError) else type(error).__name__
