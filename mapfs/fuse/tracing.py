"""Operations as they are answered, for whoever listens; nothing is done while nobody does."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple, Protocol

# What a listener may be behind by before lines are dropped.
_MOST_WAITING: Final = 4096


class Event(NamedTuple):
    """One operation that was answered.

    `time_ns` is when, in nanoseconds since the epoch. `name` is the entry of the directory `inode`
    that the operation is about, if it is about one. `errno` is 0 for success.
    """

    time_ns: int
    operation: str
    inode: int
    name: bytes | None
    offset: int | None
    size: int | None
    errno: int
    nanoseconds: int


class Traceable(Protocol):
    """A transport, as far as it is traced: it calls `trace` with each event, if it is set."""

    trace: Callable[[Event], None] | None


@dataclass(frozen=True, slots=True)
class Filter:
    """What a listener wants: operations by name, paths by a pattern; all where it is None."""

    operations: frozenset[str] | None = None
    pattern: str | None = None

    def wants(self, event: Event) -> bool:
        """Whether the operation is wanted, whatever its path is."""
        return self.operations is None or event.operation in self.operations

    def wants_path(self, path: str | None) -> bool:
        """Whether the path is wanted; one that is not known is not, if there is a pattern."""
        return self.pattern is None or (path is not None and fnmatchcase(path, self.pattern))


class Listener:
    """The events that one client waits for."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._waiting: deque[tuple[Event, str | None]] = deque()
        self._dropped = 0

    def hear(self, event: Event, path_of: Callable[[Event], str | None]) -> None:
        """Keep an event if it is wanted and there is room."""
        if not self._wanted.wants(event):
            return
        path = path_of(event)
        if not self._wanted.wants_path(path):
            return
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append((event, path))
        else:
            self._dropped += 1

    def take(self, most: int) -> list[tuple[Event, str | None]]:
        """Up to so many events with their paths, the oldest first."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def take_dropped(self) -> int:
        """How many events found no room since the last time."""
        dropped, self._dropped = self._dropped, 0
        return dropped


class Tracer:
    """Gives the events of a transport to listeners. Belongs to the filesystem's thread."""

    def __init__(self, transport: Traceable, path_of: Callable[[int], bytes | None]) -> None:
        """`path_of` gives the path of an inode from the root, None if it has none."""
        self._transport = transport
        self._path_of = path_of
        self._listeners: set[Listener] = set()

    def listen(self, wanted: Filter) -> Listener:
        """From now on let a listener hear what it wants."""
        listener = Listener(wanted)
        self._listeners.add(listener)
        self._transport.trace = self._tell
        return listener

    def leave(self, listener: Listener) -> None:
        """Let a listener hear no more."""
        self._listeners.discard(listener)
        if not self._listeners:
            self._transport.trace = None

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener.hear(event, self._path)

    def _path(self, event: Event) -> str | None:
        """The path that an event is about; bytes that are no UTF-8 become lone surrogates."""
        path = self._path_of(event.inode)
        if path is None:
            return None
        if event.name is not None:
            path = path + b"/" + event.name if path else event.name
        return path.decode("utf-8", "surrogateescape")
