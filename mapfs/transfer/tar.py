"""tar archives: the form of pax(1), with what GNU tar and star(1) add to it.

Times have nanoseconds, attributes are in `SCHILY.xattr.*`, ACLs in `SCHILY.acl.*`, sparse files in
GNU's format 1.0. Users and groups go by number.
"""

import contextlib
import io
import math
import os
import stat
import tarfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import IO, Final, cast

from mapfs.errors import ArchiveError, MapfsError
from mapfs.filesystem.acl import ACCESS, DEFAULT
from mapfs.filesystem.clock import clamped
from mapfs.transfer import acl_text
from mapfs.transfer.entry import (
    PIECE_BYTES,
    Content,
    Entry,
    Piece,
    Segment,
    inside,
    is_carried,
    link_target,
    split,
)
from mapfs.transfer.outcome import Outcome, reason_of
from mapfs.transfer.streams import DAMAGED

_XATTR: Final = "SCHILY.xattr."
_ACLS: Final = {"SCHILY.acl.access": ACCESS, "SCHILY.acl.default": DEFAULT}
_ACL_KEYS: Final = {name: key for key, name in _ACLS.items()}
_TYPES: Final = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.LNKTYPE: stat.S_IFREG,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
}
_TYPE_OF: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}
_BLOCK: Final = tarfile.BLOCKSIZE
_RECORD: Final = tarfile.RECORDSIZE
_MAX_ID: Final = 0xFFFFFFFE
_ERRORS: Final = "surrogateescape"
# What numbers of 11 and of 7 octal digits stop short of.
_OCTAL_LIMIT: Final = 1 << 33
_SHORT_OCTAL_LIMIT: Final = 1 << 21


def is_tar(beginning: bytes) -> bool:
    """Whether these bytes begin with the header of a first member."""
    try:
        tarfile.TarInfo.frombuf(beginning[:_BLOCK], "utf-8", _ERRORS)
    except tarfile.HeaderError:
        return False
    return True


class _Member(tarfile.TarInfo):
    """A member; notes in its archive what it was that ended the list of members."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tarfile)
        except _HEADER_ERROR as error:
            cast("_Archive", tarfile).end = error
            raise
        except ValueError as error:  # in the map of a sparse file
            cast("_Archive", tarfile).end = error
            raise _INVALID_HEADER(str(error)) from error


_HEADER_ERROR: Final = tarfile.HeaderError
_INVALID_HEADER: Final = tarfile.InvalidHeaderError  # type: ignore[attr-defined]
_END_OF_FILE: Final = tarfile.EOFHeaderError  # type: ignore[attr-defined]


class _Archive(tarfile.TarFile):
    """An archive that is read from its beginning to its end."""

    tarinfo = _Member
    end: Exception | None = None

    def members_in_order(self) -> Iterator[tarfile.TarInfo]:
        """All members. Raises `ArchiveError` if the archive ends too early."""
        while (member := self.next()) is not None:
            self.members: list[tarfile.TarInfo] = []  # what was read is needed no more
            yield member
        if not isinstance(self.end, _END_OF_FILE):
            raise ArchiveError("the archive is damaged or cut off here")


class TarSource:
    """The members of a tar archive, from a stream that is decompressed already."""

    def __init__(self, stream: IO[bytes], name: str, outcome: Outcome) -> None:
        """Read `stream` to its end; `name` is what it fails as."""
        self._stream = stream
        self._name = name
        self._outcome = outcome

    def entries(self) -> Generator[Entry, None, None]:
        """See `Source.entries`."""
        try:
            yield from self._members()
        except (MapfsError, OSError) as error:
            self._outcome.failed(os.fsencode(self._name), error)

    def _members(self) -> Iterator[Entry]:
        with reading():
            archive = _Archive.open(
                fileobj=self._stream,
                mode="r|",
                bufsize=PIECE_BYTES,
                encoding="utf-8",
                errors=_ERRORS,
            )
            assert isinstance(archive, _Archive)
            for member in archive.members_in_order():
                entry = self._entry(archive, member)
                if entry is not None:
                    yield entry
            # For the checksum of what is compressed, and for whoever writes into a pipe.
            while self._stream.read(PIECE_BYTES):
                self._outcome.step()

    def _entry(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry | None:
        name = os.fsencode(member.name)
        try:
            return self._checked_entry(archive, member, inside(name))
        except MapfsError as error:
            self._outcome.failed(name, error)
            return None

    def _checked_entry(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes
    ) -> Entry:
        kind = stat.S_IFREG if member.isreg() else _TYPES.get(member.type)
        if kind is None:
            raise ArchiveError("not copied: a member of an unknown type")
        if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID and member.size >= 0):
            raise ArchiveError("not copied: its owner or size is impossible")
        mtime = _time(member, "mtime") or _seconds(member.mtime)
        target = link_target(os.fsencode(member.linkname)) if member.issym() else b""
        return Entry(
            path,
            kind | stat.S_IMODE(member.mode),
            member.uid,
            member.gid,
            _time(member, "atime") or mtime,
            mtime,
            member.size if member.isreg() else len(target),
            _device(member) if member.isdev() else 0,
            target,
            inside(os.fsencode(member.linkname)) if member.islnk() else None,
            lambda: _attributes(member.pax_headers),
            (lambda: self._content(archive, member)) if member.isreg() else None,
        )

    @contextlib.contextmanager
    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[Content]:
        file = archive.extractfile(member)
        assert file is not None
        with reading():
            yield _Content(file, member, self._outcome)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Raise `ArchiveError` for what reading a damaged archive raises."""
    try:
        yield
    except (tarfile.TarError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the host
        raise ArchiveError(f"the archive is damaged: {reason_of(error)}") from error


class _Content:
    """The content of a member that is at its turn."""

    def __init__(self, file: IO[bytes], member: tarfile.TarInfo, outcome: Outcome) -> None:
        # Without a buffer: the stream beneath can skip, but not tell that it can.
        self._raw = cast("io.BufferedReader", file).raw
        self._outcome = outcome
        sparse = cast("Sequence[Segment] | None", member.sparse)
        every = [(0, member.size)] if sparse is None else sparse
        self.segments: Sequence[Segment] = [each for each in every if each[1]]
        if not _is_in_order(self.segments, member.size):
            raise ArchiveError("not copied: an impossible list of its parts")

    def pieces(self) -> Iterator[Piece]:
        """See `Content.pieces`. Raises `tarfile.ReadError` where the archive ends too early."""
        for offset, length in split(self.segments):
            self._outcome.step()
            self._raw.seek(offset, os.SEEK_SET)
            yield offset, self._raw.read(length) or b""


def _is_in_order(segments: Sequence[Segment], size: int) -> bool:
    ends = [0, *(offset + length for offset, length in segments)]
    starts = [*(offset for offset, _ in segments), size]
    is_apart = all(end <= start for end, start in zip(ends, starts, strict=True))
    return is_apart and all(length > 0 for _, length in segments)


def _time(member: tarfile.TarInfo, key: str) -> int | None:
    """A time in nanoseconds, if the archive has it as a decimal number."""
    text = member.pax_headers.get(key)
    if text is None:
        return None
    try:
        seconds = Decimal(text)
        return clamped(int(seconds.scaleb(9))) if abs(seconds) < 1 << 63 else None
    except ArithmeticError:
        return None


def _seconds(time: float) -> int:
    """The time in the plain header; the year 1970 if an extended one made nonsense of it."""
    return clamped(int(time) * 10**9) if math.isfinite(time) else 0


def _device(member: tarfile.TarInfo) -> int:
    if not (0 <= member.devmajor < 1 << 12 and 0 <= member.devminor < 1 << 20):
        raise ArchiveError("not copied: an impossible device number")
    return os.makedev(member.devmajor, member.devminor)


def _attributes(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    found = {
        key.removeprefix(_XATTR).encode("utf-8", _ERRORS): value.encode("utf-8", _ERRORS)
        for key, value in headers.items()
        if key.startswith(_XATTR)
    }
    for key, name in _ACLS.items():
        if headers.get(key):
            found[name] = acl_text.from_text(headers[key])
    return {name: value for name, value in found.items() if is_carried(name)}


class TarTarget:
    """A tar archive that is written to a stream."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to `stream`, which stays the caller's to close."""
        self._stream = stream
        self._written = 0

    def put(self, entry: Entry) -> bool:
        """See `Target.put`. Raises `ArchiveError` for a socket, which tar has not got."""
        if entry.type not in _TYPE_OF:
            raise ArchiveError("not copied: a socket cannot be in an archive")
        headers = _headers(entry)
        if entry.link is None and entry.is_file:
            assert entry.open is not None
            with entry.open() as content:
                self._put_file(entry, headers, content)
        else:
            self._write(_header(entry, headers))
        return True

    def _put_file(self, entry: Entry, headers: dict[bytes, bytes], content: Content) -> None:
        stored = sum(length for _, length in content.segments)
        sparse_map = b""
        if stored < entry.size:
            sparse_map = _sparse_map(content.segments, entry.size)
            headers |= {
                b"GNU.sparse.major": b"1",
                b"GNU.sparse.minor": b"0",
                b"GNU.sparse.name": entry.path,
                b"GNU.sparse.realsize": b"%d" % entry.size,
            }
        size = len(sparse_map) + stored
        self._write(_header(entry, headers, size) + sparse_map)
        # From here on the header's promise is kept, whatever becomes of the file.
        left = stored
        try:
            for _, data in content.pieces():
                self._write(data)
                left -= len(data)
        finally:
            self._write_zeros(left + -size % _BLOCK)

    def _write(self, data: bytes | memoryview) -> None:
        self._stream.write(data)
        self._written += len(data)

    def _write_zeros(self, count: int) -> None:
        for _, length in split([(0, count)]):
            self._write(bytes(length))

    def finish(self, outcome: Outcome) -> None:
        """See `Target.finish`."""
        del outcome
        self._write_zeros(2 * _BLOCK)
        self._write_zeros(-self._written % _RECORD)


def _headers(entry: Entry) -> dict[bytes, bytes]:
    """What the extended header has of an entry's attributes and times."""
    headers = {} if entry.link is not None else _attribute_headers(entry.attributes())
    for key, time in ((b"mtime", entry.mtime), (b"atime", entry.atime)):
        if time % 10**9 or not 0 <= time < _OCTAL_LIMIT * 10**9:
            headers[key] = f"{Decimal(time).scaleb(-9):f}".encode()
    return headers


def _attribute_headers(attributes: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    headers = {}
    for name, value in attributes.items():
        if name in _ACL_KEYS:
            headers[_ACL_KEYS[name].encode()] = acl_text.to_text(value).encode()
        else:
            headers[_XATTR.encode() + name] = value
    return headers


def _header(entry: Entry, headers: dict[bytes, bytes], size: int = 0) -> bytes:
    """All headers of a member: an extended one for whatever the plain one has no room for."""
    path = entry.path + b"/" if entry.is_directory and entry.path else entry.path or b"./"
    target = entry.target if entry.link is None else entry.link
    info = tarfile.TarInfo(_plain(path))
    info.type = _TYPE_OF[entry.type] if entry.link is None else tarfile.LNKTYPE
    info.mode = stat.S_IMODE(entry.mode)
    info.linkname = _plain(target)
    info.devmajor, info.devminor = os.major(entry.rdev), os.minor(entry.rdev)
    info.uid, info.gid = entry.uid % _SHORT_OCTAL_LIMIT, entry.gid % _SHORT_OCTAL_LIMIT
    info.size = size % _OCTAL_LIMIT
    info.mtime = entry.mtime // 10**9 % _OCTAL_LIMIT
    long = {
        b"path": (path, os.fsencode(info.name)),
        b"linkpath": (target, os.fsencode(info.linkname)),
        b"size": (b"%d" % size, b"%d" % info.size),
        b"uid": (b"%d" % entry.uid, b"%d" % info.uid),
        b"gid": (b"%d" % entry.gid, b"%d" % info.gid),
    }
    headers = {key: value for key, (value, plain) in long.items() if value != plain} | headers
    return _extended(headers) + info.tobuf(tarfile.USTAR_FORMAT, "ascii", _ERRORS)


def _plain(name: bytes) -> str:
    """A name for readers that know no extended headers: cut off, and in ASCII."""
    return name[-tarfile.LENGTH_NAME :].decode("ascii", "replace").replace("\ufffd", "?")


def _extended(headers: Mapping[bytes, bytes]) -> bytes:
    """The extended header of pax(1): records that begin with their own length."""
    if not headers:
        return b""
    body = b"".join(_record(key, value) for key, value in headers.items())
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % _BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%s" % (length, rest)


def _sparse_map(segments: Sequence[Segment], size: int) -> bytes:
    """The list of segments in GNU's format 1.0, which ends with one of length 0 at the end."""
    listed = [*segments, (size, 0)]
    numbers = [len(listed), *(number for segment in listed for number in segment)]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + bytes(-len(text) % _BLOCK)
