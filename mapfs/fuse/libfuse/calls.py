"""What a call of one of pyfuse3's handlers is about, for who traces it."""

import time
from typing import Any, Final

from mapfs.format.records import ROOT_INODE
from mapfs.fuse.tracing import Event

# The handlers whose second argument is a name in the directory that is the first.
_NAMING: Final = frozenset(
    {"create", "lookup", "mkdir", "mknod", "rename", "rmdir", "symlink", "unlink"}
)
_WITHOUT_INODE: Final = frozenset({"forget", "statfs"})


def describe(operation: str, arguments: tuple[Any, ...], code: int, nanoseconds: int) -> Event:
    """The event that is the end of a call."""
    inode, name, offset, size = ROOT_INODE, None, None, None
    if operation == "link":
        _, inode, name, *_ = arguments
    elif operation in _NAMING:
        inode, name, *_ = arguments
    elif operation == "read":
        inode, offset, size = arguments
    elif operation == "write":
        inode, offset, data = arguments
        size = len(data)
    elif operation not in _WITHOUT_INODE:
        inode, *_ = arguments
    return Event(time.time_ns(), operation, inode, name, offset, size, code, nanoseconds)
