"""What a request is about, for who traces it."""

import struct
import time
from typing import Final

from mapfs.fuse.tracing import Event
from mapfs.fuse.wire import protocol
from mapfs.fuse.wire.answers import operation_name
from mapfs.fuse.wire.protocol import Opcode
from mapfs.fuse.wire.request import Request, string

# Where the name stands in the body of those that are about one.
_NAME_OFFSETS: Final[dict[int, int]] = {
    Opcode.LOOKUP: 0,
    Opcode.UNLINK: 0,
    Opcode.RMDIR: 0,
    Opcode.SYMLINK: 0,
    Opcode.MKNOD: protocol.MKNOD_IN.size,
    Opcode.MKDIR: protocol.MKDIR_IN.size,
    Opcode.RENAME: protocol.RENAME_IN.size,
    Opcode.RENAME2: protocol.RENAME2_IN.size,
    Opcode.LINK: protocol.LINK_IN.size,
    Opcode.CREATE: protocol.CREATE_IN.size,
}
# Those about a range of a file; offset and size come first.
_RANGES: Final[dict[int, struct.Struct]] = {
    Opcode.READ: protocol.READ_IN,
    Opcode.WRITE: protocol.WRITE_IN,
    Opcode.FALLOCATE: protocol.FALLOCATE_IN,
}


def describe(request: Request, code: int, nanoseconds: int) -> Event:
    """The event that is the answer to a request."""
    name = offset = size = None
    try:
        if request.opcode in _NAME_OFFSETS:
            name = string(request.body[_NAME_OFFSETS[request.opcode] :])
        elif request.opcode in _RANGES:
            offset, size, *_ = _RANGES[request.opcode].unpack_from(request.body)
        elif request.opcode == Opcode.COPY_FILE_RANGE:
            offset, _, _, size, _ = protocol.COPY_FILE_RANGE_IN.unpack_from(request.body)
        elif request.opcode == Opcode.LSEEK:
            offset, _ = protocol.LSEEK_IN.unpack_from(request.body)
    except (struct.error, ValueError):
        pass  # it was answered as malformed
    return Event(
        time.time_ns(),
        operation_name(request.opcode),
        request.nodeid,
        name,
        offset,
        size,
        code,
        nanoseconds,
    )
