"""The streams that archives are in.

Compression is found by how a stream begins, and made by what a name ends with.
"""

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import IO, Any, Final, cast

from mapfs.errors import WriteFailedError
from mapfs.transfer.outcome import Outcome

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What reading a stream that is damaged or cut off raises.
DAMAGED: Final = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)
BUFFER_BYTES: Final = 1 << 20
_GZIP_LEVEL: Final = 6  # that of gzip(1); Python's own is 9

_Opener = Callable[[IO[bytes]], Any]

_BEGINNINGS: Final[dict[bytes, _Opener]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw, mode="rb"),
    b"BZh": lambda raw: bz2.BZ2File(raw, "rb"),
    b"\xfd7zXZ\0": lambda raw: lzma.LZMAFile(raw, "rb"),  # noqa: SIM115 (the caller closes it)
    b"\x28\xb5\x2f\xfd": lambda raw: zstd.ZstdFile(raw, "rb"),
}
_SUFFIXES: Final[dict[str, _Opener]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_GZIP_LEVEL),
    ".bz2": lambda raw: bz2.BZ2File(raw, "wb"),
    ".xz": lambda raw: lzma.LZMAFile(raw, "wb"),  # noqa: SIM115 (the caller closes it)
    ".zst": lambda raw: zstd.ZstdFile(raw, "wb"),
}
_SHORT: Final = {
    ".tgz": ".tar.gz",
    ".tbz": ".tar.bz2",
    ".tbz2": ".tar.bz2",
    ".txz": ".tar.xz",
    ".tzst": ".tar.zst",
}


class Input(io.FileIO):
    """What an archive is read from; says how far that is, and lets Ctrl-C end a wait."""

    def __init__(self, file: str | int, outcome: Outcome) -> None:
        """Open a file by its name, or read from a descriptor that stays open."""
        super().__init__(file, "rb", closefd=isinstance(file, str))
        self._outcome = outcome

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 (any buffer)
        """read(2)."""
        with self._outcome.waiting():
            count = super().readinto(buffer)
        self._outcome.step(self._outcome.done + (count or 0))
        return count


class Output(io.FileIO):
    """What an archive is written to: an error of it must not be taken for one of the source."""

    def write(self, data: Any) -> int:  # noqa: ANN401 (any buffer)
        """write(2). Raises `WriteFailedError`, or `BrokenPipeError` if nobody reads any more."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WriteFailedError(f"{error.strerror}") from error


class _Begun(io.RawIOBase):
    """A stream of which the first bytes are read already: gives them once more.

    It gives what there is and asks for no more than that, so that of a stream that is cut off
    everything is read up to there.
    """

    def __init__(self, beginning: bytes, stream: io.BufferedIOBase) -> None:
        self._beginning = beginning
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (any buffer)
        size = len(buffer)
        data = self._beginning[:size] or self._stream.read1(size)
        self._beginning = self._beginning[size:]
        buffer[: len(data)] = data
        return len(data)


def begun(stream: io.BufferedIOBase, size: int) -> tuple[bytes, io.BufferedReader]:
    """The first `size` bytes of a stream, or what there is, and all of it once more.

    Raises one of `DAMAGED` if not even these can be read.
    """
    beginning = b""
    while len(beginning) < size and (more := stream.read1(size - len(beginning))):
        beginning += more
    return beginning, io.BufferedReader(_Begun(beginning, stream), BUFFER_BYTES)


def decompressed(raw: io.BufferedIOBase) -> io.BufferedIOBase:
    """What is in a stream, whether it is compressed or not."""
    beginning, whole = begun(raw, max(map(len, _BEGINNINGS)))
    for magic, opener in _BEGINNINGS.items():
        if beginning.startswith(magic):
            return cast("io.BufferedIOBase", opener(whole))
    return whole


def tar_suffix(name: str) -> str | None:
    """`.tar`, `.tar.gz` and so on if that is what a name ends with, in its long form."""
    lower = name.lower()
    for short, suffix in _SHORT.items():
        if lower.endswith(short):
            return suffix
    return next((f".tar{each}" for each in ("", *_SUFFIXES) if lower.endswith(f".tar{each}")), None)


def compressing(raw: IO[bytes], suffix: str) -> IO[bytes]:
    """A stream that compresses into `raw` as `tar_suffix` says; close it before `raw`."""
    opener = _SUFFIXES.get(suffix.removeprefix(".tar"))
    return raw if opener is None else cast("IO[bytes]", opener(raw))
