"""A request of the kernel, and what can answer it."""

from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeAlias

from mapfs.filesystem.caller import Caller
from mapfs.fuse.wire.protocol import Opcode

# What `-o dirsync` and `-o sync` make durable before it is answered (mount(8)).
NAME_CHANGES: Final = frozenset(
    {
        Opcode.LINK,
        Opcode.MKDIR,
        Opcode.MKNOD,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.RMDIR,
        Opcode.SYMLINK,
        Opcode.UNLINK,
    }
)
CHANGES: Final = NAME_CHANGES | {
    Opcode.COPY_FILE_RANGE,
    Opcode.FALLOCATE,
    Opcode.REMOVEXATTR,
    Opcode.SETATTR,
    Opcode.SETXATTR,
    Opcode.TMPFILE,
    Opcode.WRITE,
}


class Request(NamedTuple):
    """A request without what is in its header for the loop alone.

    `body` is a view of the buffer it was read into: use it before anything is awaited. `received`
    is when it was read, as `time.perf_counter_ns` has it.
    """

    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    body: memoryview
    received: int = 0

    @property
    def name(self) -> bytes:
        """The file name that is all of the body. Raises `ValueError` if there is none."""
        return string(self.body)

    def kept(self) -> "Request":
        """The request with a body of its own, for when something is awaited."""
        return self._replace(body=memoryview(bytes(self.body)))

    def caller(self, umask: int) -> Caller:
        """Who asks."""
        return Caller(self.uid, self.gid, umask)


Content: TypeAlias = bytes | list[memoryview]
Answer: TypeAlias = Content | Coroutine[Any, Any, Content] | None
Handler: TypeAlias = Callable[[Request], Answer]


def string(body: memoryview) -> bytes:
    """The bytes up to the first NUL. Raises `ValueError` if there is none."""
    text = bytes(body)
    return text[: text.index(0)]
