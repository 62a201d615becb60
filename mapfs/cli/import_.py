"""mapfs import: copy directories, files and archives into a store or a mount."""

import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mapfs.cli.completion import files
from mapfs.errors import MapfsError, UsageError

if TYPE_CHECKING:
    from mapfs.cli.places import Place
    from mapfs.transfer.copying import Source, Target
    from mapfs.transfer.entry import FileId
    from mapfs.transfer.outcome import Outcome


@click.command("import", short_help="Copy directories, files and archives in.")
@click.argument("sources", nargs=-1, required=True, metavar="SRC...", shell_complete=files)
@click.argument("target", metavar="STORE|MNT[:PATH]")
@click.option("--no-unpack", is_flag=True, help="Copy archives as the files they are.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as a JSON object.")
def command(*, sources: tuple[str, ...], target: str, no_unpack: bool, as_json: bool) -> int:
    """Copy each SRC into a store or a mount: a directory, a file, or a tar or zip archive.

    DIR goes to PATH/DIR; of DIR/ or DIR/. all that is in it goes to PATH, as with rsync. Archives
    are unpacked into PATH; - is a tar archive on standard input. What is there and equal is
    skipped, so it can be interrupted and run again. Exit code 1 if something was not copied.

    \b
    mapfs import /usr/lib/python3.11 data.mapfs
    mapfs import photos/ backup.tar.zst data.mapfs:archive
    tar c src | mapfs import - mnt
    """
    from mapfs.cli.places import find_place
    from mapfs.cli.transferring import ending, print_summary, transfer
    from mapfs.transfer.copying import copy

    if "-" in sources and sys.stdin.isatty():
        raise UsageError("- is a tar archive on standard input, which is a terminal")
    place = find_place(target)
    with transfer("importing") as run:
        run.expect(lambda: _total(sources, run.outcome))
        with ending(target), _opened(place) as (tree, exclude):
            for source in _sources(sources, run.outcome, exclude, unpack=not no_unpack):
                copy(source, tree, run.outcome)
    return print_summary(target, run.outcome, as_json=as_json)


def _total(sources: tuple[str, ...], outcome: "Outcome") -> int | None:
    from mapfs.transfer.copying import STANDARD_STREAM
    from mapfs.transfer.directory import bytes_in

    if STANDARD_STREAM in sources:
        return None
    return sum(bytes_in(Path(each), outcome) for each in sources)


@contextlib.contextmanager
def _opened(place: "Place") -> "Iterator[tuple[Target, set[FileId]]]":
    """The target, and the files that are the target themselves."""
    from mapfs.cli.places import path_inside

    top = path_inside(place)
    if place.directory is not None:
        from mapfs.transfer.into_directory import DirectoryTree

        with contextlib.closing(DirectoryTree(str(place.directory), top)) as tree:
            yield tree, {tree.identity}
        return
    from mapfs.filesystem.filesystem import Filesystem
    from mapfs.store.opening import open_store
    from mapfs.transfer.into_store import StoreTree

    assert place.store is not None
    bundle = place.store.stat()
    with contextlib.closing(Filesystem(open_store(place.store))) as filesystem:
        yield StoreTree(filesystem, top), {(bundle.st_dev, bundle.st_ino)}


def _sources(
    names: tuple[str, ...], outcome: "Outcome", exclude: "set[FileId]", *, unpack: bool
) -> "Iterator[Source]":
    """A source for each name, to be read before the next is asked for."""
    from mapfs.transfer.directory import DirectorySource

    seen: dict[FileId, bytes] = {}
    for name in names:
        with ExitStack() as stack:
            try:
                source = stack.enter_context(_archive(name, outcome, unpack=unpack))
            except (MapfsError, OSError) as error:
                outcome.failed(name.encode(errors="surrogateescape"), error)
                continue
            yield source or DirectorySource(name, outcome, exclude, seen)


def _archive(
    name: str, outcome: "Outcome", *, unpack: bool
) -> "AbstractContextManager[Source | None]":
    """The archive that is to be unpacked, if it is one; loads what that needs only if it may be."""
    from mapfs.transfer.copying import STANDARD_STREAM

    if name != STANDARD_STREAM and not (unpack and Path(name).is_file()):
        return contextlib.nullcontext()
    from mapfs.transfer.archives import archive_source

    return archive_source(name, outcome)
