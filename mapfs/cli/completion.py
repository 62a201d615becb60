"""What a shell offers for an argument when the tab key is pressed: stores, mounts, files.

click asks these functions for it (`_MAPFS_COMPLETE`, set by the scripts in `completions/`). Paths
that are neither stores nor mounts the shell completes by itself.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

_SUFFIX: Final = ".mapfs"


def stores(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The stores that a name begins; if none does, the directories."""
    return _items(_stores(incomplete)) or [CompletionItem(incomplete, type="dir")]


def mounts(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Where a mapfs is mounted; if nothing is there, directories."""
    return _items(_mounts(incomplete)) or [CompletionItem(incomplete, type="dir")]


def places(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Stores and mounts, or directories."""
    found = _items([*_stores(incomplete), *_mounts(incomplete)])
    return found or [CompletionItem(incomplete, type="dir")]


def store_then_directory(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """For two words, `STORE MNT`."""
    if ctx.params.get(param.name or ""):
        return [CompletionItem(incomplete, type="dir")]
    return stores(ctx, param, incomplete)


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Any path."""
    return [CompletionItem(incomplete, type="file")]


def _items(names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(set(names))]


def _stores(incomplete: str) -> Iterator[str]:
    above, slash, begin = incomplete.rpartition("/")
    directory = Path(above + slash or ".").expanduser()
    try:
        found = list(directory.iterdir())
    except OSError:
        return
    for path in found:
        is_meant = path.name.startswith(begin) and (begin or not path.name.startswith("."))
        if is_meant and path.name.endswith(_SUFFIX) and path.is_dir():
            yield above + slash + path.name


def _mounts(incomplete: str) -> Iterator[str]:
    """Mount points: by their whole path if that is being written, else as seen from here."""
    from mapfs.mounts import mapfs_mounts

    for mount in mapfs_mounts():
        path = mount.mountpoint
        if not incomplete.startswith("/") and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        if str(path).startswith(incomplete):
            yield str(path)
