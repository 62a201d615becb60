"""Frames of the intent log: what one operation changed. `docs/format.md` specifies them.

A frame is complete or it is nothing: its checksum covers header and body. A frame left over from
an earlier use of the same place carries another generation.
"""

import enum
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from mapfs.errors import DamagedStoreError
from mapfs.format.records import Table

LOG_MAGIC: Final = b"mapfslog"
# Each of the log's two halves: its header, then frames of one generation, and at its end a frame
# of generation 0 that names requests.
HALF_BYTES: Final = 8 << 20
HALF_HEADER_BYTES: Final = 64
# What is kept of a half for that last frame: a 64th.
_REQUESTS_SHARE: Final = 64

# magic, boot id, store uuid, generation
_HALF: Final = struct.Struct("<8s16s16sQ")
# Behind the checksum, so that they can be set later: 1 if a sync of the store has failed, and up to
# which byte of the half frames, and the data they refer to, are on the disk.
FAILED_OFFSET: Final = 56
SYNCED_OFFSET: Final = 60
# body length, number of changes, generation, request
_FRAME: Final = struct.Struct("<IIQQ")
_CHECKSUM: Final = struct.Struct("<Q")
# id, generation
_REQUEST: Final = struct.Struct("<QQ")
FRAME_HEADER_BYTES: Final = _FRAME.size + _CHECKSUM.size
# kind, key length, value length
_CHANGE: Final = struct.Struct("<BHI")
_DELETED: Final = 0xFFFFFFFF


class Kind(enum.IntEnum):
    """What a change is about, besides the numbers of `Table`, which name a record of the catalog.

    STATE is the filesystem's counters. FOLDED says that the totals of directories were brought up
    to date. COUNTED is what an inode, changed for the first time since, counted for before.
    RUN is a run of pages taken ahead of need: where it stands now. FIXED is the part of a
    directory's record before its totals, which have not changed. EXECUTED names requests.
    """

    STATE = 32
    FOLDED = 33
    COUNTED = 34
    RUN = 35
    FIXED = 36
    EXECUTED = 37


# Kind or table, key, and the new value, or None for a deletion.
Change = tuple[int, bytes, bytes | None]


def pack_half(boot_id: bytes, uuid: bytes, generation: int) -> bytes:
    """The header of a half that now takes frames of `generation`."""
    fields = _HALF.pack(LOG_MAGIC, boot_id, uuid, generation)
    return (fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))).ljust(HALF_HEADER_BYTES, b"\0")


class Half(NamedTuple):
    """What the header of a half says. `synced` is bytes from the start of the half."""

    generation: int
    boot_id: bytes
    synced: int


def unpack_half(header: bytes, uuid: bytes) -> Half | None:
    """The header of a half, or None if it was not written for the store with this `uuid`."""
    fields, behind = header[: _HALF.size], header[_HALF.size :]
    magic, boot_id, store, generation = _HALF.unpack(fields)
    whole = _CHECKSUM.unpack_from(behind)[0] == xxh3_64_intdigest(fields)
    if not whole or (magic, store) != (LOG_MAGIC, uuid):
        return None
    synced = int.from_bytes(header[SYNCED_OFFSET:HALF_HEADER_BYTES], "little")
    return Half(generation, boot_id, synced)


def pack_frame(changes: Sequence[Change], generation: int, request: int = 0) -> bytes:
    """A frame. `request` is the kernel's unique id of the request behind it, 0 if unknown."""
    parts: list[bytes] = []
    pack = _CHANGE.pack
    for kind, key, value in changes:
        if value is None:
            parts += (pack(kind, len(key), _DELETED), key)
        else:
            parts += (pack(kind, len(key), len(value)), key, value)
    body = b"".join(parts)
    header = _FRAME.pack(len(body), len(changes), generation, request)
    return header + _CHECKSUM.pack(xxh3_64_intdigest(header + body)) + body


def unpack_frames(half: bytes | memoryview, generation: int) -> Iterator[list[Change]]:
    """The changes of each frame of `generation` behind a half's header, up to the first gap."""
    for _, count, body in _whole_frames(half, HALF_HEADER_BYTES, generation):
        try:
            yield _unpack_changes(body, count)
        except struct.error as error:
            raise DamagedStoreError("a frame of the log does not decode") from error


def requests_offset(half_bytes: int) -> int:
    """Where in a half of so many bytes the frame is that names requests."""
    return half_bytes - half_bytes // _REQUESTS_SHARE


def pack_requests(requests: Mapping[int, int], half_bytes: int) -> bytes:
    """The frame that names requests, each with its generation: the latest, as many as fit."""
    space = half_bytes - requests_offset(half_bytes)
    most = (space - FRAME_HEADER_BYTES - _CHANGE.size) // _REQUEST.size
    latest = sorted(requests.items(), reverse=True)[:most]
    return pack_frame([(Kind.EXECUTED, b"", pack_executed(latest))], generation=0)


def pack_executed(requests: Iterable[tuple[int, int]]) -> bytes:
    """The value of EXECUTED: ids and generations."""
    return b"".join(_REQUEST.pack(*each) for each in requests)


def unpack_executed(value: bytes, durable: int) -> set[int]:
    """The ids whose generation is at most `durable`: what others had changed is lost."""
    whole = value[: len(value) // _REQUEST.size * _REQUEST.size]
    return {number for number, generation in _REQUEST.iter_unpack(whole) if generation <= durable}


def unpack_requests(half: bytes | memoryview, generation: int, durable: int) -> set[int]:
    """The requests that a half's frames of `generation`, and the one at its end, name."""
    found = {request for request, _, _ in _whole_frames(half, HALF_HEADER_BYTES, generation)}
    for _, _, body in _whole_frames(half, requests_offset(len(half)), 0):
        found |= unpack_executed(body[_CHANGE.size :], durable)
    return found - {0}


def _whole_frames(
    half: bytes | memoryview, offset: int, generation: int
) -> Iterator[tuple[int, int, bytes]]:
    """Request, number of changes and body of each frame from `offset` on, up to the first gap."""
    while offset + FRAME_HEADER_BYTES <= len(half):
        header = bytes(half[offset : offset + _FRAME.size])
        length, count, found, request = _FRAME.unpack(header)
        (checksum,) = _CHECKSUM.unpack_from(half, offset + _FRAME.size)
        start = offset + FRAME_HEADER_BYTES
        if found != generation or start + length > len(half):
            return
        body = bytes(half[start : start + length])
        if checksum != xxh3_64_intdigest(header + body):
            return
        yield request, count, body
        offset = start + length


def _unpack_changes(body: bytes, count: int) -> list[Change]:
    changes: list[Change] = []
    offset = 0
    for _ in range(count):
        kind, key_length, value_length = _CHANGE.unpack_from(body, offset)
        key_end = offset + _CHANGE.size + key_length
        key = body[offset + _CHANGE.size : key_end]
        offset = key_end + (0 if value_length == _DELETED else value_length)
        changes.append((kind, key, None if value_length == _DELETED else body[key_end:offset]))
    return changes


def is_table(kind: int) -> bool:
    """Whether a change is to a record of the catalog."""
    return kind < len(Table)
