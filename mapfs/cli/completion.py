"""What a shell offers for an argument when the tab key is pressed: stores, mounts, files, words.

click asks these functions for it (`_MAPFS_COMPLETE`, set by the scripts in `completions/`). Paths
that are neither stores nor mounts the shell completes by itself.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

_SUFFIX: Final = ".mapfs"
_SCRIPTS: Final = Path(__file__).with_name("completions")
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def use_own_scripts() -> None:
    """Let `_MAPFS_COMPLETE=bash_source mapfs` and its like print the scripts that are installed.

    click's own stop at the first comma of a value in fish, leave blanks in names to bash, and do
    nothing the second time in zsh if they are found in `$fpath`.
    """
    for shell in (BashComplete, ZshComplete, FishComplete):
        add_completion_class(_with_own_script(shell))


def _with_own_script(shell: type[ShellComplete]) -> type[ShellComplete]:
    script = (_SCRIPTS / f"mapfs.{shell.name}").read_text("utf-8")
    return type(shell.__name__, (shell,), {"source": lambda _self: script})


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


def one_of(words: Callable[[], Iterable[str]]) -> Complete:
    """One of these words. They are asked for when they are needed."""

    def complete(
        _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words() if word.startswith(incomplete)]

    return complete


def some_of(words: Callable[[], Iterable[str]]) -> Complete:
    """Some of these words, with commas between; each once."""

    def complete(
        _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, begin = incomplete.rpartition(",")
        left = [word for word in words() if word not in before.split(",")]
        return [CompletionItem(before + comma + word) for word in left if word.startswith(begin)]

    return complete


def word_then_files(words: Iterable[str]) -> Complete:
    """For `WORD FILE...`, of which the word may be left out."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        is_first = not ctx.params.get(param.name or "")
        found = [word for word in words if word.startswith(incomplete)] if is_first else []
        return [CompletionItem(word) for word in found] or files(ctx, param, incomplete)

    return complete


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
