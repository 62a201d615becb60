"""What was written, zeroed and synced, in order: one file that several processes append to.

A record is appended by one writev(2), and the call that it stands for returns only afterwards, so
the order in the journal is an order in which the disk can have seen the calls.
"""

import enum
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<BQQQ")


class Kind(enum.IntEnum):
    """What happened. With BEGUN and ACKNOWLEDGED `offset` is the number of a state."""

    WRITE = 1
    ZERO = 2
    RESIZE = 3
    SYNC = 4
    BEGUN = 5
    ACKNOWLEDGED = 6


# The numbers of the store file and the log; the recorded files go by their inode numbers.
STORE = 0
LOG = 1 << 32


@dataclass(frozen=True, slots=True)
class Record:
    """One call. `end` is the position in the journal behind it."""

    kind: Kind
    file: int
    offset: int
    length: int
    data: bytes
    end: int


class Journal:
    """Appends records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    @property
    def position(self) -> int:
        return os.fstat(self._fd).st_size

    def append(
        self, kind: Kind, file: int, offset: int = 0, length: int = 0, data: bytes = b""
    ) -> None:
        os.writev(self._fd, [_HEADER.pack(kind, file, offset, length or len(data)), data])

    def close(self) -> None:
        os.close(self._fd)


def read_journal(path: Path, start: int = 0) -> Iterator[Record]:
    with path.open("rb") as stream:
        stream.seek(start)
        while header := stream.read(_HEADER.size):
            kind, file, offset, length = _HEADER.unpack(header)
            data = stream.read(length) if kind == Kind.WRITE else b""
            yield Record(Kind(kind), file, offset, length, data, stream.tell())
