"""zip archives, with what Info-ZIP adds to them: modes, links, times in seconds, owners.

A zip archive has neither attributes nor holes nor hard links, and of special files links only.
"""

import contextlib
import os
import stat
import struct
import time
import zipfile
from collections.abc import Generator, Iterator, Sequence
from typing import IO, Final, NamedTuple, cast

from mapfs.errors import ArchiveError, MapfsError
from mapfs.format.records import MAX_TARGET_BYTES
from mapfs.transfer.entry import PIECE_BYTES, Entry, Piece, Segment, inside, link_target, split
from mapfs.transfer.outcome import Outcome, reason_of
from mapfs.transfer.streams import DAMAGED

_UNIX: Final = 3
_UTF_8_FLAG: Final = 0x800
_DIRECTORY_ATTRIBUTE: Final = 0x10
_TIMES: Final = 0x5455  # "UT", the extended timestamp: flags, then seconds
_OWNER: Final = 0x7875  # "ux": version, then size and value of uid and of gid
_FIELD: Final = struct.Struct("<HH")
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
_LATEST: Final = (2107, 12, 31, 23, 59, 58)
# What reading a member raises that is damaged, encrypted or compressed in an unknown way.
_DAMAGED: Final = (zipfile.BadZipFile, RuntimeError, *DAMAGED)


def is_zip(beginning: bytes) -> bool:
    """Whether a file that begins so is a zip archive, be it an empty one."""
    return beginning.startswith((b"PK\3\4", b"PK\5\6"))


class _Extra(NamedTuple):
    """What the extra fields of a member say."""

    mtime: int | None = None
    owner: tuple[int, int] | None = None


class ZipSource:
    """The members of a zip archive."""

    def __init__(self, file: IO[bytes], outcome: Outcome) -> None:
        """Read from `file`, which can seek and stays the caller's. Raises `ArchiveError`."""
        with reading():
            try:
                self._archive = zipfile.ZipFile(file)
            except UnicodeDecodeError as error:  # a name that is said to be UTF-8
                raise zipfile.BadZipFile(str(error)) from error
        self._outcome = outcome
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def entries(self) -> Generator[Entry, None, None]:
        """See `Source.entries`."""
        for member in self._archive.infolist():
            name = _name(member)
            try:
                with reading():
                    entry = self._entry(member, inside(name))
            except (MapfsError, OSError) as error:
                self._outcome.failed(name, error)
            else:
                yield entry

    def _entry(self, member: zipfile.ZipInfo, path: bytes) -> Entry:
        mode = _mode(member)
        extra = _extra(member.extra)
        mtime = _dos_time(member.date_time) if extra.mtime is None else extra.mtime
        uid, gid = extra.owner or (os.geteuid(), os.getegid())
        target = b""
        if stat.S_ISLNK(mode):
            if member.file_size > MAX_TARGET_BYTES:
                raise ArchiveError("not copied: the link's target is too long")
            target = link_target(self._archive.read(member))
        return Entry(
            path,
            mode,
            uid,
            gid,
            mtime,
            mtime,
            0 if stat.S_ISDIR(mode) else member.file_size,
            0,
            target,
            open=lambda: self._content(member),
        )

    @contextlib.contextmanager
    def _content(self, member: zipfile.ZipInfo) -> Iterator["_Content"]:
        with reading(), self._archive.open(member) as file:
            yield _Content(file, member.file_size, self._buffer, self._outcome)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Raise `ArchiveError` for what reading a damaged archive raises."""
    try:
        yield
    except MapfsError:
        raise
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the host
        raise ArchiveError(f"the archive cannot be read: {reason_of(error)}") from error


class _Content:
    """The content of a member."""

    def __init__(self, file: IO[bytes], size: int, buffer: memoryview, outcome: Outcome) -> None:
        self._file = cast("zipfile.ZipExtFile", file)
        self._buffer = buffer
        self._outcome = outcome
        self.segments: Sequence[Segment] = [(0, size)] if size else []

    def pieces(self) -> Iterator[Piece]:
        """See `Content.pieces`. Raises `ArchiveError` if the checksum is wrong."""
        for offset, length in split(self.segments):
            self._outcome.step()
            done = 0
            while done < length:
                count = self._file.readinto(self._buffer[done:length])
                if not count:
                    raise ArchiveError("the archive is cut off here")
                done += count
            yield offset, self._buffer[:length]
        self._file.read(1)  # at the end the checksum is looked at


def _name(member: zipfile.ZipInfo) -> bytes:
    """The bytes of a name: where it was made on Unix, and not said to be UTF-8, as they are."""
    if not member.flag_bits & _UTF_8_FLAG and member.create_system == _UNIX:
        return member.filename.encode("cp437")
    return os.fsencode(member.filename)


def _mode(member: zipfile.ZipInfo) -> int:
    mode = member.external_attr >> 16
    if member.is_dir():
        return stat.S_IFDIR | (stat.S_IMODE(mode) or 0o755)
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        raise ArchiveError("not copied: neither file, directory nor symbolic link")
    return kind | (stat.S_IMODE(mode) or 0o644)


def _extra(fields: bytes) -> _Extra:
    """Times and owner of a member; what does not decode is left out."""
    found = _Extra()
    while len(fields) >= _FIELD.size:
        kind, size = _FIELD.unpack_from(fields)
        data = fields[_FIELD.size : _FIELD.size + size]
        fields = fields[_FIELD.size + size :]
        with contextlib.suppress(struct.error, IndexError):
            if kind == _TIMES and data[0] & 1:
                found = found._replace(mtime=struct.unpack_from("<i", data, 1)[0] * 10**9)
            elif kind == _OWNER and data[0] == 1:
                found = found._replace(owner=_owner(data))
    return found


def _owner(data: bytes) -> tuple[int, int] | None:
    end = 2 + data[1]
    uid = int.from_bytes(data[2:end], "little")
    gid = int.from_bytes(data[end + 1 : end + 1 + data[end]], "little")
    return (uid, gid) if max(uid, gid) < 0xFFFFFFFF else None


def _dos_time(local: tuple[int, int, int, int, int, int]) -> int:
    """The time of a member that has no better one: local, in steps of two seconds."""
    try:
        return int(time.mktime((*local, 0, 0, -1))) * 10**9
    except (OverflowError, ValueError):
        return 0


class ZipTarget:
    """A zip archive that is written to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to `file`, which stays the caller's to close."""
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)

    def put(self, entry: Entry) -> bool:
        """See `Target.put`. What a zip archive cannot hold raises `ArchiveError`."""
        if entry.is_file:
            assert entry.open is not None
            with entry.open() as content:
                self._write(_info(entry), entry.size, content.pieces())
        elif stat.S_ISLNK(entry.mode):
            self._archive.writestr(_info(entry), entry.target)
        elif entry.is_directory:
            if entry.path:
                self._archive.writestr(_info(entry), b"")
        else:
            raise ArchiveError("not copied: a zip archive has no special files")
        return True

    def _write(self, info: zipfile.ZipInfo, size: int, pieces: Iterator[Piece]) -> None:
        info.file_size = size
        done = 0
        with self._archive.open(info, "w") as file:
            for offset, data in pieces:
                _write_zeros(file, offset - done)
                file.write(data)
                done = offset + len(data)
            _write_zeros(file, size - done)

    def finish(self, outcome: Outcome) -> None:
        """See `Target.finish`."""
        del outcome
        self._archive.close()


def _write_zeros(file: IO[bytes], count: int) -> None:
    for _, length in split([(0, count)]):
        file.write(bytes(length))


def _info(entry: Entry) -> zipfile.ZipInfo:
    try:
        name = entry.path.decode()
    except UnicodeDecodeError:
        raise ArchiveError("not copied: a zip archive has names in UTF-8 only") from None
    seconds = entry.mtime // 10**9
    local = time.localtime(max(0, seconds))[:6]
    info = zipfile.ZipInfo(
        name + "/" if entry.is_directory else name, min(max(local, _EARLIEST), _LATEST)
    )
    info.create_system = _UNIX
    info.external_attr = entry.mode << 16 | (_DIRECTORY_ATTRIBUTE if entry.is_directory else 0)
    info.compress_type = zipfile.ZIP_DEFLATED if entry.is_file else zipfile.ZIP_STORED
    owner = struct.pack("<BBIBI", 1, 4, entry.uid, 4, entry.gid)
    info.extra = _FIELD.pack(_OWNER, len(owner)) + owner
    if -(1 << 31) <= seconds < 1 << 31:
        info.extra += _FIELD.pack(_TIMES, 5) + struct.pack("<Bi", 1, seconds)
    return info
