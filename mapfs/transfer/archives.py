"""Finding and opening archives: to read by what is in a file, to write by what it is called."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from mapfs.errors import ArchiveError
from mapfs.transfer.copying import STANDARD_STREAM, Source, Target
from mapfs.transfer.entry import FileId
from mapfs.transfer.outcome import Outcome
from mapfs.transfer.streams import (
    BUFFER_BYTES,
    DAMAGED,
    Input,
    Output,
    begun,
    compressing,
    decompressed,
    tar_suffix,
)
from mapfs.transfer.tar import TarSource, TarTarget, is_tar
from mapfs.transfer.zip import ZipSource, ZipTarget, is_zip

_HEADER_BYTES: Final = 512


def archive_suffix(name: str) -> str | None:
    """`.zip`, `.tar`, `.tar.gz` and so on if a name ends like that of an archive."""
    return ".zip" if name.lower().endswith(".zip") else tar_suffix(name)


@contextlib.contextmanager
def archive_source(name: str, outcome: Outcome) -> Iterator[Source | None]:
    """The archive in a file, or on standard input for `-`; None if it is an ordinary file.

    Raises `ArchiveError` for a file that is only called like an archive.
    """
    if name != STANDARD_STREAM and not Path(name).is_file():
        yield None
        return
    file = sys.stdin.fileno() if name == STANDARD_STREAM else name
    with Input(file, outcome) as raw, io.BufferedReader(raw, BUFFER_BYTES) as buffered:
        yield _archive_in(cast("io.BufferedReader", buffered), name, outcome)


def _archive_in(raw: io.BufferedReader, name: str, outcome: Outcome) -> Source | None:
    before = outcome.done
    if is_zip(raw.peek(_HEADER_BYTES)) and name != STANDARD_STREAM:
        return ZipSource(raw, outcome)
    try:
        return _tar_source(raw, name, outcome)
    except ArchiveError:
        if name == STANDARD_STREAM or archive_suffix(name):
            raise
    outcome.done = before  # it will be read again
    return None


def _tar_source(raw: io.BufferedReader, name: str, outcome: Outcome) -> TarSource:
    try:
        beginning, stream = begun(decompressed(raw), _HEADER_BYTES)
    except DAMAGED as error:
        raise ArchiveError("not an archive that can be read") from error
    # An archive without members is nothing but zeros; so is the beginning of many a disk image.
    is_empty = len(beginning) == _HEADER_BYTES and not any(beginning)
    is_expected = name == STANDARD_STREAM or tar_suffix(name) is not None
    if not is_tar(beginning) and not (is_empty and is_expected):
        is_stream = name == STANDARD_STREAM
        raise ArchiveError("not a tar archive" if is_stream else "only called like an archive")
    return TarSource(stream, name, outcome)


@contextlib.contextmanager
def archive_target(name: str) -> Iterator[tuple[Target, FileId]]:
    """An archive to be written to a file, or as tar to standard output for `-`; and which file.

    The file gets its name when all of it is there; until then, and after an error, there is what
    was there before. Raises `OSError` or `WriteFailedError`.
    """
    with _output(name) as raw:
        buffered = io.BufferedWriter(raw, BUFFER_BYTES)
        suffix = archive_suffix(name) or ".tar"
        found = os.fstat(raw.fileno())
        file = found.st_dev, found.st_ino
        if suffix == ".zip":
            yield ZipTarget(buffered), file
        else:
            stream = compressing(buffered, suffix)
            yield TarTarget(stream), file
            if stream is not buffered:
                stream.close()
        buffered.flush()


@contextlib.contextmanager
def _output(name: str) -> Iterator[Output]:
    if name == STANDARD_STREAM:
        with Output(sys.stdout.fileno(), "wb", closefd=False) as raw:
            yield raw
        return
    final = Path(name)
    partial = final.with_name(f".mapfs-partial-{os.getpid()}-{final.name}")
    try:
        with Output(partial, "wb") as raw:
            yield raw
        partial.replace(final)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
