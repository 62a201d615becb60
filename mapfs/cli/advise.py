"""mapfs advise: say how files will be used, or show what was said."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from mapfs.cli.completion import word_then_files
from mapfs.cli.terminal import complain
from mapfs.errors import MapfsError, UsageError
from mapfs.mounts import mapfs_mounts
from mapfs.names import printable

ADVICE: Final = ("normal", "sequential", "random", "willneed", "dontneed", "hugepage", "pin")
_ATTRIBUTE: Final = "user.mapfs.advice"


@click.command("advise")
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="[ADVICE] PATH...",
    shell_complete=word_then_files(ADVICE),
)
@click.option("--recursive", "-r", is_flag=True, help="Also everything in directories.")
@click.option("--show", is_flag=True, help="Show the advice of each PATH.")
@click.option("--json", "as_json", is_flag=True, help="Show it as a JSON object.")
def command(*, words: tuple[str, ...], recursive: bool, show: bool, as_json: bool) -> int:
    """Say how each PATH on a mount will be used.

    ADVICE is normal, sequential, random, willneed, dontneed, hugepage or pin, as in madvise(2) and
    mlock(2). What is created in a directory later inherits the directory's. Without ADVICE, or with
    --show, the advice of each PATH is printed.

    \b
    mapfs advise random mnt/index.db
    mapfs advise -r willneed mnt/models
    mapfs advise --show mnt/models/*
    """
    advice, names = (None, words) if show or as_json else _split(words)
    walk = _Walk(recursive=recursive)
    paths = [path for name in names for path in walk.expanded(Path(name))]
    # Elsewhere it would be an attribute like any other.
    mounted = {mount.device for mount in mapfs_mounts()}
    if advice is not None:
        failed = [path for path in paths if not _set(path, advice, mounted)]
        return int(bool(failed) or walk.has_failed)
    found = {os.fspath(path): word for path in paths if (word := _get(path, mounted)) is not None}
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for name, word in found.items():
            click.echo(f"{word:<12}{printable(name)}")
    return int(len(found) < len(paths) or walk.has_failed)


def _split(words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The advice, None if none is given, and the paths."""
    first, *rest = words
    if first not in ADVICE:
        if rest and "/" not in first and not os.path.lexists(first):
            raise UsageError(f"{first}: neither a path nor an advice ({', '.join(ADVICE)})")
        return None, words
    if not rest:
        raise UsageError(f"which path is {first!r} for? (./{first} is a path)")
    return first, tuple(rest)


class _Walk:
    """Finds what to advise; what cannot be read is told, and noted in `has_failed`."""

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self.has_failed = False

    def expanded(self, top: Path) -> Iterator[Path]:
        """The path, and if recursive the files and directories below it."""
        yield top
        if not self._recursive or top.is_symlink() or not top.is_dir():
            return
        for directory, names, files in os.walk(top, onerror=self._note):
            for name in (*sorted(names), *sorted(files)):
                path = Path(directory, name)
                if self._is_advised(path):
                    yield path

    def _is_advised(self, path: Path) -> bool:
        try:
            return stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
        except OSError as error:
            self._note(error)
            return False

    def _note(self, error: OSError) -> None:
        self.has_failed = True
        _complain(Path(os.fsdecode(error.filename)), error)


def _set(path: Path, advice: str, mounted: set[int]) -> bool:
    try:
        _require_mounted(path, mounted)
        os.setxattr(path, _ATTRIBUTE, advice.encode())
    except (OSError, MapfsError) as error:
        _complain(path, error)
        return False
    return True


def _get(path: Path, mounted: set[int]) -> str | None:
    try:
        _require_mounted(path, mounted)
        return os.getxattr(path, _ATTRIBUTE).decode()
    except (OSError, MapfsError) as error:
        _complain(path, error)
        return None


def _require_mounted(path: Path, mounted: set[int]) -> None:
    found = path.stat()
    if found.st_dev not in mounted:
        raise MapfsError("not on a mapfs")
    if stat.S_IFMT(found.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise MapfsError("neither a file nor a directory")


def _complain(path: Path, error: OSError | MapfsError) -> None:
    """Say what is wrong with one path; the others are seen to."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    complain(f"{path}: {reason}")
