"""Requests that are sent again because the process that had read them died before its answer.

It may have executed them; the log tells. Making a name twice would fail, and so would removing it.
So what was executed is answered from how things stand now. That is how they stood then: until it
is answered, the caller keeps the directories, or the inode, locked in the kernel (fs/namei.c), and
nobody else changes anything. What is not listed here can be executed twice.
"""

from collections.abc import Callable
from typing import Final

from mapfs.fuse.wire import protocol
from mapfs.fuse.wire.handlers import Handlers
from mapfs.fuse.wire.protocol import FUSE_UNIQUE_RESEND, Opcode
from mapfs.fuse.wire.request import Request

# What makes a name, and how much stands before it in the body.
_MAKING: Final[dict[int, int]] = {
    Opcode.MKNOD: protocol.MKNOD_IN.size,
    Opcode.MKDIR: protocol.MKDIR_IN.size,
    Opcode.SYMLINK: 0,
    Opcode.LINK: protocol.LINK_IN.size,
}
_WITHOUT_CONTENT: Final = (
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.RENAME,
    Opcode.RENAME2,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
)
# The requests whose execution must be noted in the log.
ONCE: Final = frozenset({*_MAKING, *_WITHOUT_CONTENT, Opcode.SETATTR})


def request_id(unique: int) -> int:
    """The id under which a request is noted, also if it is sent again."""
    return unique & ~FUSE_UNIQUE_RESEND


def is_resent(unique: int) -> bool:
    """Whether a request was sent before, to this process or another one."""
    return bool(unique & FUSE_UNIQUE_RESEND)


def answers_of_executed(handlers: Handlers) -> dict[int, Callable[[Request], bytes]]:
    """For each opcode of `ONCE`, how to answer a request that was executed already."""

    def made(request: Request) -> bytes:
        return handlers.lookup(request._replace(body=request.body[_MAKING[request.opcode] :]))

    return {
        **dict.fromkeys(_MAKING, made),
        **dict.fromkeys(_WITHOUT_CONTENT, handlers.nothing),
        Opcode.SETATTR: handlers.getattr,
    }
