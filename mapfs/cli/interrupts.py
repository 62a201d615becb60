"""Ctrl-C, and being told to end, where work must not stop in the middle of a change."""

import contextlib
from collections.abc import Iterator
from types import FrameType

from mapfs.ending_signals import ending_signals_to


class Interrupts:
    """Notes signals while the block of `caught` runs, and raises `KeyboardInterrupt` for them.

    That is between two steps, when `check` is called, or at once while `waiting` for another
    program. A signal in the middle of a change would leave half of it.
    """

    def __init__(self) -> None:
        self._is_noted = self._is_waiting = False

    def caught(self) -> contextlib.AbstractContextManager[None]:
        """Handle signals that ask for the end here; in the main thread only."""
        return ending_signals_to(self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._is_noted = True
        if self._is_waiting:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal came."""
        if self._is_noted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal end a wait at once."""
        self._is_waiting = True
        try:
            self.check()
            yield
        finally:
            self._is_waiting = False
