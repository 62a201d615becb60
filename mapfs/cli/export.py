"""mapfs export: copy out of a store or a mount, into a directory or an archive."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mapfs.cli.completion import files, places
from mapfs.cli.output import STANDARD_OUTPUT
from mapfs.errors import MapfsError, NotADirectoryFileError, UsageError

if TYPE_CHECKING:
    from mapfs.cli.places import Place
    from mapfs.cli.transferring import Transfer
    from mapfs.transfer.copying import Source, Target
    from mapfs.transfer.entry import FileId


@click.command("export", short_help="Copy out, into a directory or an archive.")
@click.argument("source", metavar="STORE|MNT[:PATH]", shell_complete=places)
@click.argument("destination", metavar="DST", shell_complete=files)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
def command(*, source: str, destination: str, as_json: bool) -> int:
    """Copy what is in a store or a mount to DST: a directory, or an archive by its name.

    Archives end in .tar, .tar.gz, .tar.bz2, .tar.xz, .tar.zst or .zip, or are -, tar on standard
    output. PATH goes to DST/PATH; of PATH/ all that is in it goes to DST. In a directory, what is
    there and equal is skipped, so it can be interrupted and run again. Exit code 1 if something
    was not copied.

    \b
    mapfs export data.mapfs backup.tar.zst
    mapfs export data.mapfs:photos/2025 /tmp
    mapfs export mnt - | ssh host tar x
    """
    from mapfs.cli.places import find_place, path_inside
    from mapfs.cli.transferring import ending, print_summary, transfer
    from mapfs.transfer.copying import STANDARD_STREAM, copy

    is_stream = destination == STANDARD_STREAM
    if is_stream and sys.stdout.isatty():
        raise UsageError("an archive does not go to a terminal: name a file, or use a pipe")
    place = find_place(source)
    path_inside(place)
    with (
        transfer("exporting") as run,
        ending(STANDARD_OUTPUT if is_stream else destination),
        _target(destination) as (target, exclude),
        _opened(place, run, exclude) as tree,
    ):
        copy(tree, target, run.outcome)
    return print_summary(destination, run.outcome, as_json=as_json, to_stderr=is_stream)


@contextlib.contextmanager
def _target(destination: str) -> "Iterator[tuple[Target, set[FileId]]]":
    """The target, and the files that are the target themselves."""
    from mapfs.store.bundle import Bundle
    from mapfs.transfer.archives import archive_suffix, archive_target
    from mapfs.transfer.copying import STANDARD_STREAM

    if Bundle(Path(destination)).is_complete:
        raise UsageError("a store itself is no place to export to: mount it, and name the mount")

    is_archive = destination == STANDARD_STREAM or archive_suffix(destination) is not None
    if is_archive and not Path(destination).is_dir():
        with archive_target(destination) as (target, file):
            yield target, {file}
        return
    from mapfs.transfer.into_directory import DirectoryTree

    with contextlib.closing(DirectoryTree(destination)) as tree:
        yield tree, {tree.identity}


def _opened(
    place: "Place", run: "Transfer", exclude: "set[FileId]"
) -> "AbstractContextManager[Source]":
    """What is to be copied, and with the transfer told how much that is."""
    if place.directory is not None:
        return _on_mount(place.directory, place, run, exclude)
    assert place.store is not None
    return _at_rest(place.store, place, run)


@contextlib.contextmanager
def _on_mount(
    directory: Path, place: "Place", run: "Transfer", exclude: "set[FileId]"
) -> "Iterator[Source]":
    """Nothing is reached through a symbolic link, which could lead off the mount."""
    from mapfs.transfer.directory import DirectorySource, bytes_in, open_below

    above, name = _steps(place)
    with contextlib.ExitStack() as stack:
        with _looking_for(place):
            parent = open_below(directory, above)
            stack.callback(os.close, parent)
            os.stat(name or b".", dir_fd=parent, follow_symlinks=False)
        run.expect(
            lambda: bytes_in(Path(f"/proc/self/fd/{parent}", os.fsdecode(name)), run.outcome)
        )
        yield DirectorySource(os.fsdecode(name) or ".", run.outcome, exclude, base=parent)


@contextlib.contextmanager
def _at_rest(store: Path, place: "Place", run: "Transfer") -> "Iterator[Source]":
    from mapfs.filesystem.filesystem import Filesystem
    from mapfs.store.opening import open_store
    from mapfs.transfer.from_store import StoreSource

    above, name = _steps(place)
    with contextlib.closing(Filesystem(open_store(store, read_only=True))) as filesystem:
        with _looking_for(place):
            top = filesystem.resolve(b"/".join((*above, name)))
            if not name and not top.is_directory:
                raise NotADirectoryFileError
        found = StoreSource(filesystem, top, name, run.outcome)
        run.expect(found.total)
        yield found


def _steps(place: "Place") -> tuple[list[bytes], bytes]:
    """The directories that lead to it, and its name; b"" for what is in the last of them."""
    *above, name = os.fsencode(place.path).split(b"/")
    return [part for part in above if part not in (b"", b".")], b"" if name == b"." else name


@contextlib.contextmanager
def _looking_for(place: "Place") -> Iterator[None]:
    """Say in the same way of a store and of a mount why there is nothing to copy."""
    from mapfs.transfer.outcome import reason_of

    try:
        yield
    except (MapfsError, OSError) as error:
        reason = {
            errno.ENOENT: "no such entry",
            errno.ENOTDIR: "it leads through what is no directory (links are not followed)",
        }.get(error.errno or 0, reason_of(error))
        raise MapfsError(f"{place.name}: {reason}") from error
