"""Reading trees from directories of the operating system."""

import contextlib
import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

from mapfs.errors import MapfsError
from mapfs.holes import data_ranges
from mapfs.transfer.entry import PIECE_BYTES, Entry, FileId, Piece, Segment, is_carried, split
from mapfs.transfer.outcome import Outcome, raise_unreadable

_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# The unit of `st_blocks` (stat(2)).
_BLOCK_BYTES: Final = 512


class _Directory(NamedTuple):
    """One that is being read: its descriptor, its path in the copy, and the names left."""

    fd: int
    path: bytes
    names: Iterator[str]


def bytes_in(top: Path, outcome: Outcome) -> int:
    """The sizes of all files in a file or directory, as far as it can be read: walks the tree.

    It steps the outcome, which may raise to end it.
    """
    total = 0
    with contextlib.suppress(OSError):
        if not top.is_dir():
            return top.stat().st_size
        for directory, _, names in os.walk(top):
            outcome.step()
            for name in names:
                with contextlib.suppress(OSError):
                    found = Path(directory, name).lstat()
                    total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def open_below(top: Path, names: Iterable[bytes]) -> int:
    """A descriptor, for `…at` calls, of a directory below `top` that no link leads to.

    Raises `OSError`: ENOTDIR for a link.
    """
    fd = os.open(top, _PATH_FLAGS)
    for name in names:
        above = fd
        try:
            fd = os.open(name, _PATH_FLAGS | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    return fd


class DirectorySource:
    """A file or directory of the operating system.

    It goes by its last name in the copy; where that is missing (`DIR/`), `.` or `..`, what is in
    the directory goes directly under the target, as with rsync(1).
    """

    def __init__(
        self,
        top: str,
        outcome: Outcome,
        exclude: Iterable[FileId] = (),
        seen: dict[FileId, bytes] | None = None,
        *,
        base: int | None = None,
    ) -> None:
        """`top` is a path from the directory `base`, or from where the process is.

        `exclude` are files and directories to leave out: the target itself.
        `seen` is kept by the caller for several sources that may hold names of the same files.
        """
        self._top = top
        self._base = base
        self._outcome = outcome
        self._exclude = frozenset(exclude)
        self._seen: dict[FileId, bytes] = {} if seen is None else seen
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def entries(self) -> Generator[Entry, None, None]:
        """See `Source.entries`."""
        above, name = os.path.split(self._top)
        try:
            os.stat(self._top, dir_fd=self._base, follow_symlinks=False)
            if name in ("", ".", ".."):
                yield from self._contents(self._top)
            else:
                yield from self._named(above or ".", name)
        except OSError as error:
            self._outcome.failed(os.fsencode(self._top), error)

    def _contents(self, top: str) -> Iterator[Entry]:
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._base)
        yield self._entry(fd, ".", b"", os.fstat(fd))
        yield from self._walk(_Directory(fd, b"", _names(fd)))

    def _named(self, above: str, name: str) -> Iterator[Entry]:
        fd = os.open(above, _PATH_FLAGS, dir_fd=self._base)
        yield from self._walk(_Directory(fd, b"", iter([name])))

    def _walk(self, top: _Directory) -> Iterator[Entry]:
        """Everything in a directory and below, without following links; closes what it is given."""
        stack = [top]
        try:
            while stack:
                directory = stack[-1]
                name = next(directory.names, None)
                if name is None:
                    os.close(stack.pop().fd)
                    continue
                entry = self._look(directory, name)
                if entry is None:
                    continue
                before = self._outcome.done
                yield entry
                self._outcome.step(before + (entry.size if entry.is_file else 0))
                below = self._enter(directory, name, entry) if entry.is_directory else None
                if below is not None:
                    stack.append(below)
        finally:
            for each in stack:
                os.close(each.fd)

    def _look(self, directory: _Directory, name: str) -> Entry | None:
        path = _joined(directory.path, name)
        try:
            found = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
            if (found.st_dev, found.st_ino) in self._exclude:
                self._outcome.failed(path, "left out: it is what the copy goes to")
                return None
            return self._entry(directory.fd, name, path, found)
        except (MapfsError, OSError) as error:
            self._outcome.failed(path, error)
            return None

    def _enter(self, directory: _Directory, name: str, entry: Entry) -> _Directory | None:
        try:
            fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=directory.fd)
            try:
                return _Directory(fd, entry.path, _names(fd))
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            self._outcome.failed(entry.path, error)
            return None

    def _entry(self, fd: int, name: str, path: bytes, found: os.stat_result) -> Entry:
        mode = found.st_mode
        target = b""
        if stat.S_ISLNK(mode):
            target = os.fsencode(os.readlink(name, dir_fd=fd))
        member = _Member(fd, name, path, found, self._buffer, self._outcome)
        return Entry(
            path,
            mode,
            found.st_uid,
            found.st_gid,
            found.st_atime_ns,
            found.st_mtime_ns,
            0 if stat.S_ISDIR(mode) else found.st_size,
            found.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
            target,
            self._first_name(found, path),
            member.attributes,
            member.content,
        )

    def _first_name(self, found: os.stat_result, path: bytes) -> bytes | None:
        """The path of a file that was met before under another name; None the first time."""
        if found.st_nlink < 2 or stat.S_ISDIR(found.st_mode):
            return None
        first = self._seen.setdefault((found.st_dev, found.st_ino), path)
        return None if first is path else first


class _Member:
    """What an entry is made of; and, while it is entered, the content of the open file.

    For a tree of small files this is called so often that it is no generator, but a class.
    """

    def __init__(
        self,
        directory: int,
        name: str,
        path: bytes,
        found: os.stat_result,
        buffer: memoryview,
        outcome: Outcome,
    ) -> None:
        self._directory = directory
        self._name = name
        self._path = path
        self._found = found
        self._buffer = buffer
        self._outcome = outcome
        self._fd: int | None = None
        self.segments: Sequence[Segment] = ()

    def attributes(self) -> dict[bytes, bytes]:
        """Its extended attributes, of those that are copied."""
        by_name = f"/proc/self/fd/{self._directory}/{self._name}"
        try:
            return attributes_of(by_name if self._fd is None else self._fd)
        except OSError as error:
            raise_unreadable(error)
            raise

    def content(self) -> Self:
        """See `Entry.open`."""
        return self

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            raise_unreadable(error)
            raise
        return self

    def _open(self) -> None:
        fd = os.open(self._name, _FILE_FLAGS, dir_fd=self._directory)
        try:
            self.segments = _segments(fd, self._found)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._fd is not None
        try:
            if kind is None and _version(os.fstat(self._fd)) != _version(self._found):
                self._outcome.failed(self._path, "changed while it was read; copy it again")
        finally:
            os.close(self._fd)
            self._fd = None

    def pieces(self) -> Iterator[Piece]:
        """See `Content.pieces`."""
        assert self._fd is not None
        before = self._outcome.done
        for offset, length in split(self.segments):
            self._outcome.step(before + offset)
            try:
                done = os.preadv(self._fd, [self._buffer[:length]], offset)
            except OSError as error:
                raise_unreadable(error)
                raise
            yield offset, self._buffer[:done]
            if done < length:
                return


def _segments(fd: int, found: os.stat_result) -> Sequence[Segment]:
    """What of a file is not a hole. Raises `MapfsError` if its size is not to be believed."""
    size = found.st_size
    if not size:
        if _has_contents(fd):
            raise MapfsError("has contents but no size, as files of /proc do: copy it with cat")
        return []
    if found.st_blocks * _BLOCK_BYTES >= size:
        return [(0, size)]
    return [(start, end - start) for start, end in data_ranges(fd, size)]


def _has_contents(fd: int) -> bool:
    """Whether there is something to read in a file that says of itself that it is empty."""
    return bool(os.pread(fd, 1, 0)) and not os.fstat(fd).st_size


def _names(fd: int) -> Iterator[str]:
    """What is in a directory, in the same order each time."""
    with os.scandir(fd) as listed:
        return iter(sorted(entry.name for entry in listed))


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


def attributes_of(path: str | int) -> dict[bytes, bytes]:
    """The extended attributes, of those that are copied, that a file has."""
    follow = isinstance(path, int)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    carried = [name for name in names if is_carried(os.fsencode(name))]
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=follow) for name in carried}


def _joined(path: bytes, name: str) -> bytes:
    encoded = os.fsencode(name)
    return path + b"/" + encoded if path else encoded
