"""What can be asked of a mount over its control socket, one command each."""

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from mapfs.errors import UsageError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.fuse import device
from mapfs.fuse.commits import Committer
from mapfs.fuse.statistics import Statistics
from mapfs.fuse.tracing import Filter
from mapfs.fuse.transport import ServingTransport
from mapfs.store.syscalls import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE

Request = Mapping[str, Any]
Answer = dict[str, Any]

_MOST_BYTES: Final = (1 << 63) - 1
_MOST_FILES: Final = 100
# Inodes that are seen to at a time when all of a mount is invalidated.
_MANY: Final = 1000


class Commands:
    """Executes commands. Belongs to the filesystem's thread.

    A command raises `UsageError` for arguments that make no sense, and `MapfsError` or `OSError`
    as the filesystem does.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        committer: Committer,
        transport: ServingTransport,
        statistics: Statistics,
        mountpoint: Path,
    ) -> None:
        self._filesystem = filesystem
        self._committer = committer
        self._transport = transport
        self._statistics = statistics
        self._mountpoint = mountpoint
        self._table: dict[str, Callable[[Request], Coroutine[Any, Any, Answer]]] = {
            "invalidate": self._invalidate,
            "punch": self._punch,
            "statistics": self._snapshot,
            "sync": self._sync,
        }

    async def execute(self, request: Request) -> Answer:
        """Do what is asked; returns what there is to say of it."""
        name = request.get("command")
        command = self._table.get(name) if isinstance(name, str) else None
        if command is None:
            raise UsageError(f"no such command (there are {', '.join(sorted(self._table))}, trace)")
        return await command(request)

    async def _snapshot(self, request: Request) -> Answer:
        most = _integer(request, "files", most=_MOST_FILES, default=0)
        files = await self._statistics.files(most)
        return {"statistics": self._statistics.snapshot(files).as_json()}

    async def _sync(self, request: Request) -> Answer:
        """Fetch what the kernel has yet to write, and commit."""
        await trio.to_thread.run_sync(device.sync, self._mountpoint, abandon_on_cancel=True)
        await self._committer.commit()
        return {}

    async def _punch(self, request: Request) -> Answer:
        """Make a hole, with nothing of it left in the kernel's cache."""
        inode = _integer(request, "inode")
        offset = _integer(request, "offset")
        length = _integer(request, "length", least=1)
        self._filesystem.inode(inode)  # raises if there is none
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        # What is dirty must not be written over the hole, and what is read meanwhile not be kept.
        await self._transport.drop_cached(inode, offset, length)
        pages = self._filesystem.inode(inode).pages
        self._filesystem.fallocate(inode, mode, offset, length)
        pages -= self._filesystem.inode(inode).pages
        if self._committer.must_wait():
            await self._committer.sync()
        await self._transport.drop_cached(inode, offset, length)
        return {"freed_bytes": pages * self._filesystem.store.page_size}

    async def _invalidate(self, request: Request) -> Answer:
        """Let the kernel drop the pages and attributes of one inode, or of all."""
        if "inode" in request:
            inode = _integer(request, "inode")
            self._filesystem.inode(inode)  # raises if there is none
            await self._transport.drop_cached(inode)
            return {}
        after = 0
        while numbers := self._filesystem.numbers(after, _MANY):
            for number in numbers:
                await self._transport.drop_cached(number)
            after = numbers[-1]
        return {}


def filter_of(request: Request, known: frozenset[str]) -> Filter:
    """What a client wants to trace, of the operations `known`. Raises `UsageError`."""
    pattern = request.get("path")
    if not isinstance(pattern, str | None):
        raise UsageError("path must be a pattern")
    operations = request.get("operations")
    if operations is None:
        return Filter(None, pattern)
    there_are = f"(there are {', '.join(sorted(known))})"
    if not isinstance(operations, list) or not operations:
        raise UsageError(f"operations must be a list of names {there_are}")
    for name in operations:
        if not isinstance(name, str) or name not in known:
            raise UsageError(f"no such operation: {name!r} {there_are}")
    return Filter(frozenset(operations), pattern)


def _integer(
    request: Request,
    key: str,
    *,
    least: int = 0,
    most: int = _MOST_BYTES,
    default: int | None = None,
) -> int:
    value = request.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise UsageError(f"{key} must be a number from {least} to {most}")
    return value
