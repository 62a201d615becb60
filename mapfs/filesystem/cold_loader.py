"""Bringing bytes of the store into memory before they are read."""

import contextlib
from collections.abc import Callable

from mapfs.store.backing import Backing
from mapfs.store.machine_pages import Run


class ColdLoader:
    """Brings bytes of the store into memory; to be called in a worker thread.

    A page fault on a cold page would stop every thread of the daemon, and an I/O error under it
    would be a signal. This waits outside the interpreter's lock, and raises `OSError`.
    `run` is where the bytes are, if all that was asked for is in one piece, and nothing else to do.
    """

    def __init__(
        self, backing: Backing, cold: list[Run], *, is_whole: bool, ahead: bool = True
    ) -> None:
        """`ahead` False keeps the host from bringing in more."""
        self._backing = backing
        self._cold = cold
        self.ahead = ahead
        self.run = cold[0] if is_whole else None
        # What to bring in behind that, as far as the host likes; and what is to be done first.
        self.behind: list[Run] = []
        self.first: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self.first is not None:
            with contextlib.suppress(OSError):  # reading below tells what it is about
                self.first()
        for offset, length in self._cold:
            self._backing.load(offset, length, ahead=self.ahead)
        for offset, length in self.behind:
            self._backing.advise(offset, length)
