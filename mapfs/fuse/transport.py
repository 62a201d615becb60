"""What a session needs of a transport, whichever it is."""

from collections.abc import Callable
from typing import Any, Protocol

from mapfs.fuse.counters import Counters
from mapfs.fuse.tracing import Event


class ServingTransport(Protocol):
    """Serves one connection. Belongs to the filesystem's thread, unless a method says otherwise.

    `trace` is called with each operation that is answered, if it is set.
    """

    name: str
    trace: Callable[[Event], None] | None

    @property
    def operations(self) -> frozenset[str]:
        """The names that operations are traced by."""

    @property
    def counters(self) -> Counters[Any]:
        """What was counted so far, once `collect` was called."""

    async def run(self) -> None:
        """Serve until the filesystem is unmounted or `stop` is called."""

    def stop(self) -> None:
        """Let `run` return."""

    def collect(self) -> None:
        """Count and trace what threads have answered by now."""

    async def drop_cached(self, inode: int, offset: int = 0, length: int = 0) -> None:
        """Have the kernel write back what it holds of a range at least, and drop it.

        `length` 0 is to the end. Waits for requests, or until it is cancelled. Raises `OSError`.
        """
