"""Where claims are measured: a directory of our own beside a store, removed at the end."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from mapfs.claims.claim import CannotMeasureError
from mapfs.claims.interrupts import ended_by_exception, uninterrupted
from mapfs.claims.mounted import MountedStore
from mapfs.claims.subject import DIRECT, MOUNTED, DirectSubject, MountedSubject, Subject
from mapfs.errors import NoSpaceError
from mapfs.sizes import format_size

Name = TypeVar("Name")
Value = TypeVar("Value")
# Files of all sizes take twice the largest; one is written anew, and in a store its old pages are
# kept until a commit.
_PLAIN_COPIES: Final = 3
_STORED_COPIES: Final = 4
# The log and the catalog of the store, and the stores that slack is measured in.
_OTHER_BYTES: Final = 192 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is to be: bytes of the largest file, repetitions, bytes in a page of the store."""

    size: int
    repeat: int
    page_size: int

    @property
    def store_limit(self) -> int:
        """Bytes that the store may grow to. Where it cannot grow it commits, and goes on."""
        return _STORED_COPIES * self.size

    @property
    def needed(self) -> int:
        """Bytes of disk that a run takes at most."""
        return self.store_limit + _PLAIN_COPIES * self.size + _OTHER_BYTES


@dataclass(slots=True)
class Ground:
    """The directory with what is in it, and the order of what is done there."""

    directory: Path
    settings: Settings
    on_step: Callable[[], None] = lambda: None
    _mounted: MountedStore | None = None
    _why_not: str = ""
    _chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 (an order)

    def subject(self, label: str) -> Subject:
        """Files of a kind. Raises `CannotMeasureError` if there can be none here."""
        if label == MOUNTED:
            return MountedSubject(self._store())
        if label == DIRECT:
            return DirectSubject(self._store())
        return Subject(self.directory, label)

    def _store(self) -> MountedStore:
        """Made when it is first needed, and not tried again."""
        if self._why_not:
            raise CannotMeasureError(self._why_not)
        if self._mounted is None:
            self._mounted = MountedStore(self.directory / "mounted")
            try:
                self._mounted.create(self.settings.store_limit, self.settings.page_size)
            except CannotMeasureError as error:
                self._why_not = str(error)
                raise
        return self._mounted

    def interleaved(self, ways: Mapping[Name, Callable[[], Value]]) -> dict[Name, list[Value]]:
        """What each way returns, once in a repetition, in an order drawn anew each time."""
        found: dict[Name, list[Value]] = {name: [] for name in ways}
        order = list(ways)
        for _ in range(self.settings.repeat):
            self._chance.shuffle(order)
            for name in order:
                found[name].append(ways[name]())
                self.on_step()
        return found

    def places(self, size: int, width: int, count: int) -> list[int]:
        """Offsets drawn at random from a file, each a multiple of the width, none twice."""
        return [width * place for place in self._chance.sample(range(size // width), count)]

    def unmount(self) -> None:
        """Unmount the store, if there is one."""
        if self._mounted is not None:
            self._mounted.close()

    def close(self) -> None:
        """Unmount, and remove everything."""
        self.unmount()
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def ground_beside(store: Path, settings: Settings, on_step: Callable[[], None]) -> Iterator[Ground]:
    """A directory beside `store`, which itself is never touched; removed however the block ends.

    `on_step` is called whenever something has been measured, for those who watch.

    For the main thread. Raises `NoSpaceError` if the disk has less room than may be needed.
    """
    parent = store.absolute().parent
    free = shutil.disk_usage(parent).free
    if free < settings.needed:
        raise NoSpaceError(
            f"{parent}: {format_size(settings.needed)} are needed and {format_size(free)} are free"
            " (a smaller --size needs less)"
        )
    with ended_by_exception():
        directory = Path(tempfile.mkdtemp(prefix=".mapfs-bench-", dir=parent))
        ground = Ground(directory, settings, on_step)
        try:
            yield ground
        finally:
            with uninterrupted():
                ground.close()
