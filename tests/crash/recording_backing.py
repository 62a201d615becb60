"""A backing that journals what it changes."""

from collections.abc import Callable, Iterable

from mapfs.format.layout import StoreIdentity
from mapfs.store.address_space import MappingStatistics
from mapfs.store.backing import Backing, Data
from mapfs.store.machine_pages import MachinePages, Run
from mapfs.store.syscalls import CacheStatistics
from tests.crash.journal import STORE, Journal, Kind


class RecordingBacking:
    """Passes everything on to another backing but `sync`, which only the journal sees.

    What `prepare` and `punch` did is read back, so that one that does nothing is recorded so.
    """

    def __init__(self, inner: Backing, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal
        self.lost = MachinePages()
        self.unsynced = 0
        self.is_eager = False

    def resize(self, size: int) -> None:
        self._inner.resize(size)
        self._journal.append(Kind.RESIZE, STORE, size)

    def read(self, offset: int, length: int) -> Iterable[memoryview]:
        return self._inner.read(offset, length)

    def write(self, offset: int, data: Data, spare: int = 0) -> None:
        self._inner.write(offset, data, spare)
        self._journal.append(Kind.WRITE, STORE, offset, data=bytes(data))

    def prepare(self, offset: int, length: int) -> None:
        self._inner.prepare(offset, length)
        self._read_back(offset, length)

    def punch(self, offset: int, length: int) -> None:
        self._inner.punch(offset, length)
        self._read_back(offset, length)

    def _read_back(self, offset: int, length: int) -> None:
        found = b"".join(self._inner.read(offset, length))
        if any(found):
            self._journal.append(Kind.WRITE, STORE, offset, data=found)
        else:
            self._journal.append(Kind.ZERO, STORE, offset, length)

    def leased(self, offset: int, length: int) -> list[Run]:
        return self._inner.leased(offset, length)

    def identity(self) -> StoreIdentity:
        return self._inner.identity()

    def statistics(self) -> MappingStatistics:
        return self._inner.statistics()

    def windows_of(self, offset: int, length: int) -> dict[int, int]:
        return self._inner.windows_of(offset, length)

    def mappings(self) -> int:
        return self._inner.mappings()

    def sync(self) -> None:
        self._journal.append(Kind.SYNC, STORE)

    def inherit(self) -> None:
        self._inner.inherit()

    def on_error(self, call: Callable[[], None]) -> None:
        self._inner.on_error(call)

    def load(self, offset: int, length: int, *, ahead: bool = True) -> None:
        self._inner.load(offset, length, ahead=ahead)

    def fetch(self, offset: int, target: memoryview, *, ahead: bool = True) -> None:
        self._inner.fetch(offset, target, ahead=ahead)

    def advise(self, offset: int, length: int) -> None:
        self._inner.advise(offset, length)

    def drop(self, offset: int, length: int) -> None:
        self._inner.drop(offset, length)

    def drop_mapped(self) -> None:
        self._inner.drop_mapped()

    def pin(self, offset: int, length: int) -> None:
        self._inner.pin(offset, length)

    def unpin(self, offset: int, length: int) -> None:
        self._inner.unpin(offset, length)

    def hold(self, offset: int, length: int) -> None:
        self._inner.hold(offset, length)

    def prefer_huge_pages(self, offset: int, length: int) -> None:
        self._inner.prefer_huge_pages(offset, length)

    def read_ahead(self, offset: int, length: int) -> None:
        self._inner.read_ahead(offset, length)

    def is_loaded(self, offset: int, length: int) -> bool:
        return self._inner.is_loaded(offset, length)

    def cached(self, offset: int, length: int) -> CacheStatistics:
        return self._inner.cached(offset, length)

    def resident(self) -> int:
        return self._inner.resident()

    def give_back(self) -> None:
        self._inner.give_back()

    def host_free(self) -> int | None:
        return None

    def close(self) -> None:
        self._inner.close()
