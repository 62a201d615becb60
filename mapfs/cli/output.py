"""Standard output, whose errors say that it is what they are about."""

import io
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_OUTPUT: Final = "standard output"


class _Output(io.FileIO):
    _has_failed = False

    def write(self, data: "ReadableBuffer", /) -> int:
        """See `io.FileIO.write`; an `OSError` has the name as that of its file.

        It is raised once: the rest goes nowhere, as buffers are written again when they end.
        """
        if self._has_failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._has_failed = True
            error.filename = STANDARD_OUTPUT
            raise


def name_standard_output() -> None:
    """Let the errors of writing to it have a name, as those of files do."""
    given = sys.stdout
    if given is None:  # closed by whoever started us
        return
    raw = _Output(given.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=bool(given.line_buffering),
    )
