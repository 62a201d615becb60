"""Where a store's bytes are: the `Backing` protocol, and one in memory for tests.

Offsets and lengths are bytes. Only the thread that owns the filesystem calls these methods, except
`sync`, `punch`, `leased`, `load`, `fetch`, `advise`, `drop` and `hold`, which a worker thread may
call at the same time.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from mapfs.format.layout import StoreIdentity
from mapfs.store.address_space import MappingStatistics
from mapfs.store.machine_pages import MachinePages, Run
from mapfs.store.syscalls import CacheStatistics

Data: TypeAlias = bytes | bytearray | memoryview


class Backing(Protocol):
    """A growing array of bytes that can be mapped, made durable, and given back in pieces.

    `lost` are the pages whose bytes the host could not write: reading them is EIO until they are
    written whole, zeroed or punched. The set is replaced and never changed.
    `unsynced` is how many bytes were written since the last `sync` began. `is_eager` asks `write`
    to begin at once what the next `sync`, soon to come, will wait for.
    """

    lost: MachinePages
    is_eager: bool

    @property
    def unsynced(self) -> int:
        """Bytes; what is written twice counts twice."""

    def resize(self, size: int) -> None:
        """Make the backing `size` bytes long, never shorter; new bytes cost nothing yet.

        Raises `OSError` (ENOSPC, EFBIG) when the host refuses.
        """

    def read(self, offset: int, length: int) -> Iterable[memoryview]:
        """Views of the mapped bytes, in order, to be used before the next commit ends.

        Raises `OSError` (EIO) where bytes are `lost`.
        """

    def write(self, offset: int, data: Data, spare: int = 0) -> None:
        """Write within pages that were prepared. Raises `OSError`.

        Of the `spare` bytes behind, which are zeros and nobody's, some may be written as such.
        """

    def prepare(self, offset: int, length: int) -> None:
        """Make whole pages read as zeros and reserve their blocks on the host.

        After it, writing these pages cannot fail for want of space, and whatever they held
        before is gone. Raises `OSError` with ENOSPC or EDQUOT.
        """

    def punch(self, offset: int, length: int) -> None:
        """Give the blocks of free pages back to the host, where it can take them."""

    def leased(self, offset: int, length: int) -> list[Run]:
        """The parts of a range that processes have mapped by themselves (`store/leases.py`).

        Their bytes must stay as long as that lasts, whoever they belonged to.
        """

    def identity(self) -> StoreIdentity:
        """Which file this is, for others to find the same one."""

    def statistics(self) -> MappingStatistics:
        """What this process has mapped of it, and what that has cost."""

    def windows_of(self, offset: int, length: int) -> dict[int, int]:
        """The windows that have mapped parts of a range, and how many bytes of it each has."""

    def mappings(self) -> int:
        """How many mappings that are for the kernel: lines of proc_pid_maps(5)."""

    def sync(self) -> None:
        """Return when what was written before is on stable storage (fdatasync(2)), or `lost`.

        Raises `OSError` if the host as a whole cannot write, or is full; the next call tries again.
        """

    def inherit(self) -> None:
        """Another process wrote what the next `sync` is about: an error of it cannot be mended."""

    def on_error(self, call: Callable[[], None]) -> None:
        """Let `sync` call this, in its thread, as soon as the host has reported an error."""

    def load(self, offset: int, length: int, *, ahead: bool = True) -> None:
        """Bring bytes into memory. Raises `OSError` (EIO) where a mapping would raise SIGBUS.

        `ahead` False keeps the host from bringing in more than that.
        """

    def fetch(self, offset: int, target: memoryview, *, ahead: bool = True) -> None:
        """Fill `target` with bytes from `offset` on. As `load` otherwise."""

    def read_ahead(self, offset: int, length: int) -> None:
        """Bring much into memory, in order, and wait for it. As `load` otherwise."""

    def advise(self, offset: int, length: int) -> None:
        """Begin to bring bytes into memory, without waiting for them where the host can."""

    def drop(self, offset: int, length: int) -> None:
        """Let go of the memory that bytes take, as far as they are on the disk."""

    def drop_mapped(self) -> None:
        """Take what this process has mapped out of its page tables; it stays in memory.

        May run in any thread.
        """

    def pin(self, offset: int, length: int) -> None:
        """Keep bytes in memory from now on; `hold` brings them in.

        Raises `OSError` (ENOMEM, EPERM) where that is more than the host allows; see `Pins`.
        """

    def unpin(self, offset: int, length: int) -> None:
        """Keep bytes in memory no longer."""

    def hold(self, offset: int, length: int) -> None:
        """Bring in what is pinned. Raises `OSError`."""

    def prefer_huge_pages(self, offset: int, length: int) -> None:
        """Let the host map bytes with huge pages. Raises `OSError` (EINVAL) if it has none."""

    def is_loaded(self, offset: int, length: int) -> bool:
        """Whether whoever reads these bytes need not wait for the host."""

    def cached(self, offset: int, length: int) -> CacheStatistics:
        """What of these bytes is in memory, or on its way there, and dirty, in machine pages."""

    def resident(self) -> int:
        """The bytes of memory that the whole backing takes in the host's page cache."""

    def give_back(self) -> None:
        """Let go of that memory, as far as nothing needs it."""

    def host_free(self) -> int | None:
        """The bytes that the host could still back, or None if all are backed already."""

    def close(self) -> None:
        """Let go of files and mappings; views handed out stay valid."""


class MemoryBacking:
    """A backing in a bytearray: for tests, and for showing what the protocol means."""

    def __init__(self, size: int = 0) -> None:
        self._bytes = bytearray(size)
        self.lost = MachinePages()
        self.unsynced = 0
        self.is_eager = False

    def resize(self, size: int) -> None:
        """See `Backing.resize`."""
        # A new array: an old one cannot grow while a view of it is out.
        self._bytes = self._bytes + bytes(max(0, size - len(self._bytes)))

    def read(self, offset: int, length: int) -> Iterable[memoryview]:
        """See `Backing.read`."""
        return (memoryview(self._bytes)[offset : offset + length].toreadonly(),)

    def write(self, offset: int, data: Data, spare: int = 0) -> None:  # noqa: ARG002 (no folios)
        """See `Backing.write`."""
        view = memoryview(data)
        self._bytes[offset : offset + view.nbytes] = view

    def prepare(self, offset: int, length: int) -> None:
        """See `Backing.prepare`."""
        self._bytes[offset : offset + length] = bytes(length)

    def punch(self, offset: int, length: int) -> None:
        """See `Backing.punch`."""
        self._bytes[offset : offset + length] = bytes(length)

    def leased(self, offset: int, length: int) -> list[Run]:
        """See `Backing.leased`."""
        del offset, length
        return []

    def identity(self) -> StoreIdentity:
        """See `Backing.identity`."""
        return StoreIdentity(0, 0)

    def statistics(self) -> MappingStatistics:
        """See `Backing.statistics`."""
        return MappingStatistics()

    def windows_of(self, offset: int, length: int) -> dict[int, int]:
        """See `Backing.windows_of`."""
        del offset, length
        return {}

    def mappings(self) -> int:
        """See `Backing.mappings`."""
        return 0

    def sync(self) -> None:
        """See `Backing.sync`."""

    def inherit(self) -> None:
        """See `Backing.inherit`."""

    def on_error(self, call: Callable[[], None]) -> None:
        """See `Backing.on_error`."""

    def load(self, offset: int, length: int, *, ahead: bool = True) -> None:
        """See `Backing.load`."""

    def fetch(self, offset: int, target: memoryview, *, ahead: bool = True) -> None:
        """See `Backing.fetch`."""
        del ahead
        target[:] = memoryview(self._bytes)[offset : offset + target.nbytes]

    def read_ahead(self, offset: int, length: int) -> None:
        """See `Backing.read_ahead`."""

    def advise(self, offset: int, length: int) -> None:
        """See `Backing.advise`."""

    def drop(self, offset: int, length: int) -> None:
        """See `Backing.drop`."""

    def drop_mapped(self) -> None:
        """See `Backing.drop_mapped`."""

    def pin(self, offset: int, length: int) -> None:
        """See `Backing.pin`."""

    def unpin(self, offset: int, length: int) -> None:
        """See `Backing.unpin`."""

    def hold(self, offset: int, length: int) -> None:
        """See `Backing.hold`."""

    def prefer_huge_pages(self, offset: int, length: int) -> None:
        """See `Backing.prefer_huge_pages`."""

    def is_loaded(self, offset: int, length: int) -> bool:
        """See `Backing.is_loaded`."""
        del offset, length
        return True

    def cached(self, offset: int, length: int) -> CacheStatistics:
        """See `Backing.cached`."""
        del offset
        return CacheStatistics(-(-length // 4096), 0)

    def resident(self) -> int:
        """See `Backing.resident`."""
        return 0

    def give_back(self) -> None:
        """See `Backing.give_back`."""

    def host_free(self) -> int | None:
        """See `Backing.host_free`."""
        return None

    def close(self) -> None:
        """See `Backing.close`."""
